"""The work of `verify geometric`: attack, certify, and draw what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attacks.spatial import SPATIAL_ATTACKS
from attacks.transforms import TransformBox
from verify.cli import parsing
from verify.cli.geometric import GeometricOptions
from verify.cli.options import DataOptions
from verify.cli.presenting import Collected, Presenter
from verify.cli.session import Session, open_session, stamp
from verify.errors import SettingError
from verify.geometric.certify import Settings, certify_image
from verify.geometric.outcome import GeometricResult
from verify.geometric.transforms import Transform, check_image_shape, parse_transform
from verify.report import ModelStamp
from verify.report.plots import FORMATS
from verify.traverse import run as run_graph
from verify.values.budget import Budget
from verify.values.result import Verdict


@dataclass(frozen=True, slots=True)
class Claim:
    """What is asked of every image.

    Attributes:
        options: as given.
        transform: parsed.
        settings: of the search.
        timeout: seconds per image, or None.
    """

    options: GeometricOptions
    transform: Transform
    settings: Settings
    timeout: float | None

    @classmethod
    def read(cls, options: GeometricOptions, *, pictures: tuple[Path | None, ...]) -> Claim:
        """From the command line, before any work.

        Raises:
            SettingError: if something cannot be read, or a picture cannot be drawn.
        """
        for path in pictures:
            if path is not None and (
                path.suffix.lower().removeprefix(".") not in FORMATS or not path.parent.is_dir()
            ):
                raise SettingError(
                    f"picture {path} cannot be drawn, expected a file ending in "
                    f"{', '.join(FORMATS)} in a folder that is there; name another"
                )
        if options.attack not in (*SPATIAL_ATTACKS, "none"):
            raise SettingError(
                f"--attack is {options.attack!r}, expected {', '.join(SPATIAL_ATTACKS)} or none"
            )
        wanted = options.tolerance
        tolerance = None if wanted in (None, "none") else parsing.positive(wanted, "--tolerance")
        settings = Settings(
            method=options.method,
            noise=parsing.radius(options.pixel_noise),
            split=options.split,
            most_boxes=options.most_boxes,
            tolerance=tolerance,
        )
        timeout = parsing.positive(options.timeout, "--timeout")
        return cls(options, parse_transform(options.transform), settings, timeout)

    def record(self) -> dict[str, object]:
        """For the record's settings."""
        options = self.options
        return {
            "transform": options.transform,
            "pixel_noise": self.settings.noise,
            "method": self.settings.method,
            "split": self.settings.split,
            "most_boxes": self.settings.most_boxes,
            "tolerance": self.settings.tolerance,
            "timeout": self.timeout,
            "attack": options.attack,
            "seed": options.seed,
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class GeometricRun:
    """What one run found.

    Attributes:
        session: model and images.
        claim: what was asked.
        done: the results that came.
    """

    session: Session
    claim: Claim
    done: Collected[GeometricResult]

    @property
    def stamp(self) -> ModelStamp:
        """Which model."""
        return stamp(self.session)

    @property
    def settings(self) -> dict[str, object]:
        """For the record."""
        return {**self.session.settings, **self.claim.record()}


def certify_all(model: Path, data: DataOptions, claim: Claim, show: Presenter) -> GeometricRun:
    """Load, read, attack and certify, image by image.

    Raises:
        InputError: if anything given cannot be used.
    """
    session = open_session(model, data, 0.0)
    check_image_shape(session.network.input_shape)
    show.say(session.notes)
    done = show.collect(each(session, claim), len(session.asked.x), "geometric")
    return GeometricRun(session, claim, done)


def each(session: Session, claim: Claim) -> Iterator[list[GeometricResult]]:
    """One result after the other."""
    network, asked = session.network, session.asked
    single = network.graph.to(torch.float32)
    for i, index in enumerate(session.data.indices):
        budget = Budget().within(claim.timeout)
        known = suggested(claim, lambda x: run_graph(single, x), asked.x[i], asked.labels[i])
        yield [
            certify_image(
                network.graph,
                network.judge,
                asked.x[i],
                int(asked.labels[i]),
                claim.transform,
                settings=claim.settings,
                budget=budget,
                index=index,
                known=known,
                attack=claim.options.attack,
            )
        ]


def suggested(claim: Claim, model: object, image: Tensor, label: Tensor) -> Tensor | None:
    """Parameters at which an attack misleads our own copy of the model; the judge decides."""
    name = claim.options.attack
    if name == "none":
        return None
    kind = SPATIAL_ATTACKS[name]
    attack = kind() if name == "grid" else kind(seed=claim.options.seed)
    box = TransformBox.parse(claim.options.transform)
    found = attack(model, image[None], label[None], box)  # type: ignore[arg-type]
    return found.values[found.found]


def totals(results: Sequence[GeometricResult]) -> dict[str, float]:
    """Accuracies over the whole range and their means, for the record and for people."""
    count = max(1, len(results))
    return {
        "correct": sum(r.attacked > 0 for r in results),
        "mean_certified_share": sum(r.certified for r in results) / count,
        "mean_certified_volume": sum(r.volume for r in results) / count,
        "boxes": sum(r.boxes for r in results),
    }


def draw(run: GeometricRun, plot: Path | None, strip: Path | None) -> list[str]:
    """Draw what was asked for; returns what to say of it."""
    from verify.report.geometric_plots import (
        Frame,
        ShareCurves,
        StripRow,
        plot_shares,
        plot_strip,
    )

    results, said = run.done.results, []
    title = Path(run.session.network.path or "model").name
    text = run.claim.options.transform
    if plot is not None:
        ends = ShareCurves(tuple(r.certified for r in results), tuple(r.attacked for r in results))
        plot_shares(ends, plot, model=title, transform=text)
        said.append(f"drawn: {plot}")
    if strip is not None:
        rows = []
        places = {index: i for i, index in enumerate(run.session.data.indices)}
        for result in sorted(results, key=lambda r: r.verdict is not Verdict.FALSIFIED)[:8]:
            image = run.session.asked.x[places[result.index]]
            transform = run.claim.transform
            ends_of = [
                transform.origin + result.certified * (end - transform.origin)
                for end in (transform.low, transform.high)
            ]
            frames = [Frame(image.tolist(), f"{result.index}: class {result.label}")]
            for values, name in zip(ends_of, ("low end", "high end"), strict=True):
                shown = transform(image[None], values[None])[0]
                frames.append(
                    Frame(shown.tolist(), f"certified {name}\n{spelled(values.tolist())}")
                )
            if result.witness is not None and result.parameters is not None:
                seen = int(run.session.network.judge.predict(result.witness[None])[0])
                name = f"class {seen}\n{spelled(result.parameters)}"
                frames.append(Frame(result.witness.tolist(), name, wrong=True))
            rows.append(StripRow(tuple(frames)))
        plot_strip(rows, strip, model=title, transform=text)
        said.append(f"drawn: {strip}")
    return said


def spelled(values: Sequence[float]) -> str:
    """Parameters as people read them."""
    return ", ".join(f"{value:.3g}" for value in values)
