"""The work of `verify transfer`: several models on the same inputs, matrices, and their picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from attacks import Attack, Transfer, transfer_attack
from attacks.transfer import mean_transfer
from verify.cli.crossing import AT_ONCE, Crossed, CrossWork
from verify.cli.options import DataOptions
from verify.cli.presenting import Presenter
from verify.cli.running import Job
from verify.cli.session import Session, normalised, open_session, stamp
from verify.cli.working import SentModel, SentQuestion
from verify.errors import SettingError
from verify.network import Network, load
from verify.report.mosaics import Panel, plot_matrices
from verify.values.result import norm_name


@dataclass(frozen=True, slots=True, eq=False)
class Suite:
    """Models that take the same inputs.

    Attributes:
        session: of the model whose input has the most axes; the inputs are in its shape.
        networks: all of them, by a short name, in the order given.
    """

    session: Session
    networks: Mapping[str, Network]

    @classmethod
    def open(cls, paths: Sequence[Path], options: DataOptions, eps: float) -> Suite:
        """Load the models and the inputs.

        Raises:
            InputError: if one cannot be read, or they do not fit each other.
        """
        if len(paths) < 2:
            raise SettingError("transfer needs two models or more; name another ONNX file")
        names = short_names(paths)
        networks = {
            name: normalised(load(path), options) for name, path in zip(names, paths, strict=True)
        }
        first = max(networks, key=lambda name: len(networks[name].input_shape))
        check_alike(networks, first)
        session = open_session(paths[names.index(first)], options, eps)
        return cls(session, networks)

    @property
    def side(self) -> int:
        """Height of the images in pixels, 0 of inputs that are none."""
        shape = self.session.network.input_shape
        return shape[1] if len(shape) == 3 else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, for people."""
        flat = [
            name
            for name, network in self.networks.items()
            if network.input_shape != self.session.network.input_shape
        ]
        shape = " x ".join(map(str, self.session.network.input_shape))
        more = (f"reshaped from {shape} for: {', '.join(flat)}",) if flat else ()
        return (*self.session.notes, *more)

    def stamps(self) -> list[dict[str, object]]:
        """Which models, for the record."""
        return [
            {"name": name, "path": network.path, "sha256": network.sha256}
            for name, network in self.networks.items()
        ]

    def job(
        self, settings: dict[str, object], attacks: Mapping[str, Attack], seed: int
    ) -> tuple[CrossWork, Job[Crossed]]:
        """As the engine does it."""
        work = CrossWork(
            {name: SentModel.of(network) for name, network in self.networks.items()},
            SentQuestion.of(self.session.asked),
            tuple(self.session.data.indices),
            attacks,
            seed,
        )
        job = Job(
            command="transfer",
            settings=settings,
            stamp=stamp(self.session),
            work=work,
            here=lambda: work.on(self.networks),
            instances=work.instances,
            indices=range(work.count),
            size=AT_ONCE,
            back=work.back,
        )
        return work, job

    def summary(self, results: Sequence[Transfer]) -> dict[str, object]:
        """The mean rate over pairs of different models, of each attack, with its interval."""
        means = {result.attack: mean_transfer(result) for result in results}
        return {"inputs": len(self.session.asked.x), "mean_transfer": means}


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names without ending; numbered where two are the same."""
    stems = [path.name.removesuffix(".gz").removesuffix(".onnx") for path in paths]
    return [
        f"{stem} ({stems[:i].count(stem) + 1})" if stems.count(stem) > 1 else stem
        for i, stem in enumerate(stems)
    ]


def check_alike(networks: Mapping[str, Network], first: str) -> None:
    """Refuse models that do not take the same inputs or do not tell the same classes.

    A model that takes rows of numbers takes images with as many entries, flattened.
    """
    wanted = networks[first]
    for name, network in networks.items():
        shape = network.input_shape
        flat = len(shape) == 1 and shape[0] == math.prod(wanted.input_shape)
        if shape != wanted.input_shape and not flat:
            raise SettingError(
                f"{name} takes inputs of shape {shape}, but {first} of {wanted.input_shape}; "
                "transfer needs models with the same input"
            )
        if network.classes != wanted.classes:
            raise SettingError(
                f"{name} has {network.classes} classes, but {first} {wanted.classes}; transfer "
                "needs models with the same classes"
            )


def attacks_named(text: str, side: int) -> dict[str, Attack]:
    """The attacks of a list with commas.

    Raises:
        SettingError: if it names none.
        AttackInputError: if there is no such attack.
    """
    names = [name.strip().lower().replace("_", "-") for name in text.split(",") if name.strip()]
    if not names:
        raise SettingError(f"--attack is {text!r}, expected names; write for example mifgsm,pgd")
    return {name: transfer_attack(name, side) for name in names}


def rows_of(results: Sequence[Transfer]) -> list[dict[str, object]]:
    """One row for each cell of each matrix."""
    cells = [
        (result, s, t)
        for result in results
        for s in range(len(result.sources))
        for t in range(len(result.targets))
    ]
    return [
        {
            "index": index,
            "attack": result.attack,
            "source": result.sources[s],
            "target": result.targets[t],
            "rate": result.rate[s, t],
            "low": result.low[s, t],
            "high": result.high[s, t],
            "counted": int(result.counted[s, t].sum()),
            "found": int(result.found[s, t].sum()),
            "fooled": int(result.fooled[s, t].sum()),
        }
        for index, (result, s, t) in enumerate(cells)
    ]


def print_matrices(results: Sequence[Transfer], suite: Suite, show: Presenter) -> None:
    """A table for each attack, and a line with the mean over pairs of different models."""
    for result in results:
        if not show.options.quiet:
            table = Table(title=f"{result.attack}: share of inputs fooled, source by target")
            table.add_column("source")
            for target in result.targets:
                table.add_column(target, justify="right")
            for s, source in enumerate(result.sources):
                table.add_row(source, *(cell(result, s, t) for t in range(len(result.targets))))
            show.console.print(table)
        mean = mean_transfer(result)
        show.console.print(
            f"{result.attack}: mean transfer between different models "
            f"{percent(mean.value)} ({percent(mean.low)} to {percent(mean.high)})"
        )
    asked = suite.session.asked
    show.console.print(
        f"{len(asked.x)} inputs, {len(suite.networks)} models, "
        f"eps {float(asked.eps[0]):g}, norm {norm_name(asked.p)}"
    )


def cell(result: Transfer, s: int, t: int) -> str:
    """A rate with its interval, in per cent."""
    if math.isnan(float(result.rate[s, t])):
        return "-"
    ends = f"{100 * float(result.low[s, t]):.0f}..{100 * float(result.high[s, t]):.0f}"
    return f"{percent(float(result.rate[s, t]))} ({ends})"


def percent(share: float) -> str:
    """In per cent, or a dash where there is none."""
    return "-" if math.isnan(share) else f"{share:.1%}"


def draw(results: Sequence[Transfer], suite: Suite, path: Path) -> None:
    """The matrices as a heat map, the white-box cells framed."""
    panels = [
        Panel(
            title=result.attack,
            rows=result.sources,
            columns=result.targets,
            cells=tuple(tuple(row) for row in result.rate.tolist()),
            marked=tuple((i, i) for i in range(len(result.targets))),
        )
        for result in results
    ]
    asked = suite.session.asked
    heading = (
        f"Inputs fooled, %: eps {float(asked.eps[0]):g} in norm {norm_name(asked.p)}, "
        f"{len(asked.x)} inputs; framed: white box"
    )
    plot_matrices(panels, path, heading=heading, row_name="made against", column_name="shown to")
