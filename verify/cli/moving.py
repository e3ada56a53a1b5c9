"""The work of `verify spatial`: transform, ask, replay, and show what became of the images."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from attacks import SPATIAL_ATTACKS, SpatialResult, TransformBox, smallest_transformation
from attacks.spatial import SpatialSearch
from verify.cli import parsing
from verify.cli.attacking import NOTHING_FOUND
from verify.cli.jobs import input_job
from verify.cli.presenting import Presenter
from verify.cli.running import Job
from verify.cli.session import Session
from verify.cli.working import InputWork, array_blob, array_of, sent
from verify.errors import SettingError
from verify.network import Network
from verify.report.mosaics import MOST_IMAGES, Pair, plot_strip
from verify.report.records import plain_row
from verify.report.tables import MOST_ROWS
from verify.runs.answers import Answer
from verify.traverse import run
from verify.values.question import Question
from verify.values.result import StopReason, Verdict

AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """What transformations do to one input's class.

    Attributes:
        index: number of the input in its data source.
        label: the class that must hold.
        predicted: what the model says of the input itself.
        became: what it says of the transformed one.
        verdict: falsified, or unknown.
        margin: in logits at the transformed image.
        values: of the parameters, by name.
        share: of the ranges, scaled about the identity, that holds the values; NaN if not found.
        method: the search that found it, or "".
        seconds: this input's share of the wall-clock time.
        reason: why it is unknown, or "".
        image: shape (*input), float32, transformed.
    """

    index: int
    label: int
    predicted: int
    became: int
    verdict: Verdict
    margin: float
    values: dict[str, float]
    share: float
    method: str
    seconds: float
    reason: str
    image: Tensor

    def to_record(self) -> dict[str, object]:
        """The fields of the record schema, and what belongs to transformations."""
        found = self.verdict is Verdict.FALSIFIED
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "verdict": self.verdict.value,
            "margin": self.margin,
            "method": self.method,
            "seconds": self.seconds,
            "reason": self.reason,
            "became": self.became,
            "parameters": self.values,
            "share_attacked": self.share if found else None,
        }

    @staticmethod
    def from_record(row: Mapping[str, Any], image: Tensor) -> Move:
        """The same that `to_record` was asked of."""
        share = row["share_attacked"]
        return Move(
            index=row["index"],
            label=row["label"],
            predicted=row["predicted"],
            became=row["became"],
            verdict=Verdict(row["verdict"]),
            margin=math.nan if row["margin"] is None else row["margin"],
            values=dict(row["parameters"]),
            share=math.nan if share is None else share,
            method=row["method"],
            seconds=row["seconds"],
            reason=row["reason"],
            image=image,
        )


@dataclass(frozen=True, slots=True)
class Moving:
    """What to look for, and how.

    Attributes:
        box: which transformations.
        search: how they are looked through.
        name: of the search.
        smallest: look for the smallest that fools, instead of the worst.
        shape: (channels, height, width); None until a model is known.
        notes: what was assumed, for people.
    """

    box: TransformBox
    search: SpatialSearch
    name: str
    smallest: bool
    shape: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str, name: str, seed: int, *, smallest: bool, first: bool) -> Moving:
        """From the command line.

        Raises:
            SettingError: if there is no such search.
            AttackInputError: if the text is no transformation.
        """
        if name not in SPATIAL_ATTACKS:
            raise SettingError(
                f"--search is {name!r}, expected one of {', '.join(SPATIAL_ATTACKS)}"
            )
        if smallest and first:
            raise SettingError("--smallest and --first exclude each other; leave one out")
        search: Any = SPATIAL_ATTACKS[name](early_stop=first)
        if "seed" in {field.name for field in dataclasses.fields(search)}:
            search = dataclasses.replace(search, seed=seed)
        return cls(TransformBox.parse(text), search, name, smallest)

    def fitted(self, session: Session, shape: str | None, *, clip: bool) -> Moving:
        """The same for a model's images and an input range.

        Raises:
            SettingError: if the inputs cannot be images of that shape.
        """
        size = session.network.input_shape
        image = given_shape(shape, size) if shape else natural_shape(size)
        said = f"images: {' x '.join(map(str, image))}" + ("" if shape else " (--image-shape)")
        ends = session.input_range if clip else None
        note = ""
        if self.box.acts_on_values:
            note = f"; clipped to {ends[0]:g} to {ends[1]:g}" if ends else "; not clipped"
        box = dataclasses.replace(self.box, clip=ends)
        return dataclasses.replace(self, box=box, shape=image, notes=(said + note,))

    def settings(self) -> dict[str, object]:
        """For the record."""
        return {
            "transform": str(self.box),
            "search": self.name,
            "smallest": self.smallest,
            "first": self.search.early_stop,
            "seed": getattr(self.search, "seed", 0),
            "image_shape": list(self.shape or ()),
            "clip": self.box.clip,
            "identity": dict(zip(self.box.names, self.box.identity.tolist(), strict=True)),
        }

    def some(self, network: Network, asked: Question, indices: Sequence[int]) -> list[Move]:
        """What becomes of a batch of inputs; the model's own runtime decides."""
        started = time.monotonic()
        single, judge = network.graph.to(torch.float32), network.judge
        x, labels = asked.x.to(torch.float32), asked.labels

        def confirmed(points: Tensor, of: Tensor) -> Tensor:
            return judge.misclassified(points, labels[of])

        result = self._attack(lambda z: run(single, z), x, labels, confirmed)
        hit = result.found & judge.misclassified(result.image, labels)
        became, predicted = judge.predict(result.image), judge.predict(x)
        share = (time.monotonic() - started) / len(indices)
        return [
            Move(
                index=index,
                label=int(labels[i]),
                predicted=int(predicted[i]),
                became=int(became[i]),
                verdict=Verdict.FALSIFIED if hit[i] else Verdict.UNKNOWN,
                margin=float(result.margin[i]),
                values=dict(zip(self.box.names, result.values[i].tolist(), strict=True)),
                share=float(result.share[i]) if hit[i] else math.nan,
                method=result.attack[i] if hit[i] else "",
                seconds=share,
                reason="" if hit[i] else reason(doubtful=bool(result.found[i])),
                image=result.image[i],
            )
            for i, index in enumerate(indices)
        ]

    def _attack(self, model: Any, x: Tensor, labels: Tensor, judge: Any) -> SpatialResult:
        if not self.smallest:
            return self.search(model, x, labels, self.box, shape=self.shape, judge=judge)
        # `auto` leaves the rounds to the search for the smallest, which has quicker ones.
        search = None if self.name == "auto" else self.search
        return smallest_transformation(
            model, x, labels, self.box, shape=self.shape, judge=judge, search=search
        )


@dataclass(frozen=True, slots=True, eq=False)
class MovingWork(InputWork[Move]):
    """`verify spatial`, some images at a time."""

    moving: Moving

    def results(self, network: Network, few: Question, indices: list[int]) -> list[Move]:
        """One batch."""
        return self.moving.some(network, few, indices)

    def answer(self, position: int, result: Move) -> Answer:
        """The transformed image beside its row; a counterexample if it is one."""
        name = "witness" if result.verdict is Verdict.FALSIFIED else "image"
        return Answer(position, plain_row(result), {name: array_blob(result.image)})

    def result(self, answer: Answer) -> Move:
        """The move that `answer` was given."""
        blob = answer.blobs.get("witness") or answer.blobs["image"]
        return Move.from_record(answer.record, array_of(blob))


def spatial_job(session: Session, moving: Moving) -> Job[Move]:
    """That of `verify spatial`."""
    settings = {**session.settings, **moving.settings()}
    return input_job("spatial", session, settings, MovingWork(*sent(session), moving), AT_ONCE)


def reason(*, doubtful: bool) -> str:
    """Why an input is unknown."""
    return StopReason.NOT_REPLAYED.value if doubtful else NOTHING_FOUND


def given_shape(text: str, size: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) from "1,8,8".

    Raises:
        SettingError: if it is none, or does not fit the model's input.
    """
    numbers = parsing.numbers(text, "--image-shape") or ()
    whole = tuple(int(number) for number in numbers if number >= 1 and number == int(number))
    if not len(whole) == len(numbers) == 3 or math.prod(whole) != math.prod(size):
        raise SettingError(
            f"--image-shape is {text!r}, expected three whole numbers, channels, height and width, "
            f"with the {math.prod(size)} entries of the model's input {size}; write for example "
            "1,8,8"
        )
    return whole[0], whole[1], whole[2]


def natural_shape(size: tuple[int, ...]) -> tuple[int, int, int]:
    """The image that an input of this shape most likely is: a row of numbers is a grey square."""
    if len(size) == 3 and not (size[2] in (1, 3) and size[0] not in (1, 3)):
        return size[0], size[1], size[2]
    if len(size) == 2:
        return 1, size[0], size[1]
    side = math.isqrt(math.prod(size))
    if len(size) == 1 and side * side == size[0]:
        return 1, side, side
    raise SettingError(
        f"the model's input {size} is no image (channels, height, width); say with --image-shape "
        "how its entries are arranged, channels first"
    )


def print_moves(moves: Sequence[Move], moving: Moving, show: Presenter) -> None:
    """The table of the inputs, unless only the summary is wanted."""
    if show.options.quiet or not moves:
        return
    table = Table(title=f"spatial: {moving.box}")
    for heading in ("index", "label", "predicted", "verdict", "became", *moving.box.names):
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    for heading in (*(["share"] if moving.smallest else []), "margin", "search"):
        table.add_column(heading, justify="left" if heading == "search" else "right")
    for move in moves[:MOST_ROWS]:
        found = move.verdict is Verdict.FALSIFIED
        style = "red" if found else "yellow"
        ends = [f"{value:.4g}" if found else "-" for value in move.values.values()]
        share = [f"{move.share:.4f}" if found else "-"] if moving.smallest else []
        table.add_row(
            str(move.index),
            str(move.label),
            str(move.predicted),
            f"[{style}]{move.verdict.value}[/]",
            str(move.became) if found else "-",
            *ends,
            *share,
            f"{move.margin:.3g}",
            move.method or "-",
        )
    show.console.print(table)
    if len(moves) > MOST_ROWS:
        show.console.print(
            f"{len(moves) - MOST_ROWS} further rows not shown; --json or --csv writes all of them."
        )


def draw(moves: Sequence[Move], moving: Moving, session: Session, path: Path) -> None:
    """The first images above what became of them, those that changed class first."""
    place = {index: row for row, index in enumerate(session.data.indices)}
    assert moving.shape is not None
    order = sorted(moves, key=lambda move: (move.verdict is not Verdict.FALSIFIED, move.index))
    pairs = []
    for move in order[:MOST_IMAGES]:
        found = move.verdict is Verdict.FALSIFIED
        lines = [f"became {move.became}" if found else "none found"]
        if move.method == "clean":
            lines = [f"was {move.predicted} already"]
        elif found or not moving.smallest:
            lines += [f"{name} {value:.3g}" for name, value in move.values.items()]
        pairs.append(
            Pair(
                before=session.asked.x[place[move.index]].reshape(moving.shape),
                after=move.image.reshape(moving.shape),
                title=f"{move.index}: label {move.label}",
                became="\n".join(lines),
                fooled=found,
            )
        )
    what = "first found" if moving.search.early_stop else "worst found"
    what = "smallest found" if moving.smallest else what
    name = Path(session.network.path or "model").name
    ranges = " ".join(f"{p.kind}({p.low:g},{p.high:g})" for p in moving.box.parameters)
    if pairs:
        plot_strip(pairs, path, heading=f"{name}, {ranges}: {what}")
