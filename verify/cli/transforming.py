"""The work of `verify geometric`: attack, certify, and draw what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attacks.spatial import SPATIAL_ATTACKS
from attacks.transforms import TransformBox
from verify.cli import parsing
from verify.cli.flowing import certified_flow, flow_claim
from verify.cli.geometric import GeometricOptions
from verify.cli.jobs import input_job
from verify.cli.options import DataOptions, RunOptions
from verify.cli.presenting import Collected, Presenter
from verify.cli.running import Running
from verify.cli.session import Session, open_session, stamp
from verify.cli.working import WitnessWork, geometric_of, sent
from verify.errors import SettingError
from verify.geometric.certify import Settings, certify_image
from verify.geometric.certify_flow import FlowClaim
from verify.geometric.outcome import GeometricResult
from verify.geometric.transforms import Transform, check_image_shape, parse_transform
from verify.network import Network
from verify.report import ModelStamp
from verify.report.plots import FORMATS
from verify.runs.answers import Answer
from verify.traverse import run as run_graph
from verify.values.budget import Budget
from verify.values.question import Question
from verify.values.result import Verdict
from verify.values.semantics import semantics_of

if TYPE_CHECKING:
    from verify.report.geometric_plots import Frame


@dataclass(frozen=True, slots=True)
class Claim:
    """What is asked of every image.

    Attributes:
        options: as given.
        transform: parsed; None where flows are asked about.
        settings: of the search.
        fields: what is asked about flows, or None.
        timeout: seconds per image, or None.
    """

    options: GeometricOptions
    transform: Transform | None
    settings: Settings
    fields: FlowClaim | None
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
        timeout = parsing.positive(options.timeout, "--timeout")
        fields = flow_claim(options)
        if (options.transform is None) == (fields is None):
            raise SettingError(
                "either --transform or --flow says what may happen to the images; give one of "
                'them, for example --transform "rotation(-5,5)"'
            )
        if fields is not None:
            return cls(options, None, Settings(), fields, timeout)
        kind = semantics_of(options.semantics)
        wanted = options.tolerance
        tolerance = None if wanted in (None, "none") else parsing.positive(wanted, "--tolerance")
        settings = Settings(
            method=options.method or "forward",
            noise=parsing.radius(options.pixel_noise),
            split=options.split,
            most_boxes=options.most_boxes,
            tolerance=tolerance,
            semantics=kind,
        )
        transform = parse_transform(options.transform or "")
        return cls(options, transform, settings, None, timeout)

    @property
    def remark(self) -> str:
        """Behind the word certified."""
        return semantics_of(self.options.semantics).remark

    def record(self) -> dict[str, object]:
        """For the record's settings."""
        options = self.options
        if self.fields is not None:
            return {
                "flow": self.fields.flow.delta,
                "smooth": self.fields.flow.smooth,
                "method": self.fields.method,
                "timeout": self.timeout,
                "attack": options.attack,
                "seed": options.seed,
                "semantics": options.semantics,
                "threads": torch.get_num_threads(),
            }
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
            "semantics": options.semantics,
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class GeometricRun:
    """What one run found.

    Attributes:
        session: model and images.
        claim: what was asked.
        done: the results that came.
        running: how it was run.
    """

    session: Session
    claim: Claim
    done: Collected[GeometricResult]
    running: Running[GeometricResult]

    @property
    def what(self) -> str:
        """What is done to the images, in words."""
        fields = self.claim.fields
        if fields is None:
            return self.claim.options.transform or ""
        flow = fields.flow
        rest = "" if flow.smooth is None else f", smooth {flow.smooth:g}"
        return f"flow {flow.delta:g}{rest}"

    @property
    def stamp(self) -> ModelStamp:
        """Which model."""
        return stamp(self.session)

    @property
    def settings(self) -> dict[str, object]:
        """For the record."""
        return {**self.session.settings, **self.claim.record()}


@dataclass(frozen=True, slots=True, eq=False)
class GeometricWork(WitnessWork[GeometricResult]):
    """`verify geometric`, image by image."""

    options: GeometricOptions

    def results(self, network: Network, few: Question, indices: list[int]) -> list[GeometricResult]:
        """Attack and certify some images, one after the other."""
        claim = Claim.read(self.options, pictures=())
        single = network.graph.to(torch.float32)

        def model(x: Tensor) -> Tensor:
            return run_graph(single, x)

        return [
            image_result(claim, model, network, (few.x[i], int(few.labels[i])), index)
            for i, index in enumerate(indices)
        ]

    def result(self, answer: Answer) -> GeometricResult:
        """See `geometric_of`."""
        return geometric_of(answer)


def certify_all(
    model: Path, data: DataOptions, claim: Claim, runs: RunOptions, show: Presenter
) -> GeometricRun:
    """Load, read, attack and certify, image by image.

    Raises:
        InputError: if anything given cannot be used.
    """
    session = open_session(model, data, 0.0)
    check_image_shape(session.network.input_shape)
    show.say(session.notes)
    work = GeometricWork(*sent(session), claim.options)
    settings = {**session.settings, **claim.record()}
    with Running(runs, input_job("geometric", session, settings, work, 1), show) as running:
        done = running.collect()
    return GeometricRun(session, claim, done, running)


def image_result(
    claim: Claim,
    model: Callable[[Tensor], Tensor],
    network: Network,
    image: tuple[Tensor, int],
    index: int,
) -> GeometricResult:
    """What is known of one image of one label."""
    budget = Budget().within(claim.timeout)
    given = (network.graph, network.judge, *image)
    if claim.fields is not None:
        return certified_flow(claim.fields, claim.options, model, given, budget, index)
    assert claim.transform is not None
    return certify_image(
        *given,
        claim.transform,
        settings=claim.settings,
        budget=budget,
        index=index,
        known=suggested(claim, model, image[0], torch.tensor(image[1])),
        attack=claim.options.attack,
    )


def suggested(claim: Claim, model: object, image: Tensor, label: Tensor) -> Tensor | None:
    """Parameters at which an attack misleads our own copy of the model; the judge decides."""
    name = claim.options.attack
    if name == "none":
        return None
    kind = SPATIAL_ATTACKS[name]
    attack = kind() if name == "grid" else kind(seed=claim.options.seed)
    box = TransformBox.parse(claim.options.transform or "")
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
    from verify.report.geometric_plots import ShareCurves, StripRow, plot_shares, plot_strip

    results, said = run.done.results, []
    title = Path(run.session.network.path or "model").name
    if plot is not None:
        certified, attacked = (r.certified for r in results), (r.attacked for r in results)
        ends = ShareCurves(tuple(certified), tuple(attacked), run.claim.remark)
        plot_shares(ends, plot, model=title, transform=run.what)
        said.append(f"drawn: {plot}")
    if strip is not None:
        shown = sorted(results, key=lambda r: r.verdict is not Verdict.FALSIFIED)[:8]
        rows = [StripRow(tuple(frames(run, result))) for result in shown]
        plot_strip(rows, strip, model=title, transform=run.what)
        said.append(f"drawn: {strip}")
    return said


def frames(run: GeometricRun, result: GeometricResult) -> list[Frame]:
    """An image, the ends of its certified range, and the first counterexample."""
    from verify.report.geometric_plots import Frame

    image = run.session.asked.x[run.session.data.indices.index(result.index)]
    transform = run.claim.transform
    found = [Frame(image.tolist(), f"{result.index}: class {result.label}")]
    if transform is not None:
        for end, name in ((transform.low, "low end"), (transform.high, "high end")):
            values = transform.origin + result.certified * (end - transform.origin)
            shown = transform(image[None], values[None])[0]
            what = f"certified {name}{run.claim.remark}\n{spelled(values.tolist())}"
            found.append(Frame(shown.tolist(), what))
    if result.witness is not None:
        seen = int(run.session.network.judge.predict(result.witness[None])[0])
        where = "" if result.parameters is None else spelled(result.parameters)
        found.append(Frame(result.witness.tolist(), f"class {seen}\n{where}".strip(), wrong=True))
    return found


def spelled(values: Sequence[float]) -> str:
    """Parameters as people read them."""
    return ", ".join(f"{value:.3g}" for value in values)
