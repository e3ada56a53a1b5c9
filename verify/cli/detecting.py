"""The work of `verify ood`: activations of every data set, detectors, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor

from uncertainty.ood import (
    DETECTORS,
    Evaluation,
    Measured,
    evaluate,
    letters,
    threshold,
)
from uncertainty.seeding import generator
from verify.cli import parsing
from verify.cli.options import RunOptions
from verify.cli.presenting import Presenter
from verify.cli.running import Job, Running
from verify.cli.scoring import AT_ONCE, Fit, Scored, ScoreWork
from verify.cli.sources import (
    Inputs,
    SourceOptions,
    fixed_shape,
    normalised,
    read_inputs,
    refuse_softmax,
)
from verify.errors import DataError, SettingError
from verify.readers.onnx_file import read_model_file
from verify.report import ModelStamp
from verify.report.pictures import ScorePanel, plot_scores

MADE = ("noise", "permuted", "inverted", "rotated", "letters")
METHODS = (*DETECTORS[:4], "odin", *DETECTORS[4:])
LEVEL = 0.95
THRESHOLD, INSIDE, OUTSIDE = "threshold", "in distribution", "ood: "
"""Names of the sets of a run; the last begins those of the OOD sets."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """What `verify ood` was asked, beside the data's own options."""

    model: Path
    inside: str | None
    outside: tuple[str, ...]
    fit: str | None
    method: str
    layer: str | None
    tpr: str
    seed: int
    plot: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """What the model gets of each data set, shape (n, *input)."""

    fit: Tensor
    labels: Tensor | None
    inside: Tensor
    outside: dict[str, Tensor]

    def learnt_from(self) -> Fit:
        """One half of the fitting rows, which the threshold never sees."""
        labels = None if self.labels is None else self.labels.numpy()[::2]
        return Fit(self.fit[::2].contiguous().numpy(), labels)

    def scored(self) -> dict[str, NDArray[np.float32]]:
        """What is scored: the other half, for the threshold, then the sets that are evaluated."""
        parts = {THRESHOLD: self.fit[1::2], INSIDE: self.inside}
        parts |= {OUTSIDE + name: x for name, x in self.outside.items()}
        return {name: x.to(torch.float32).contiguous().numpy() for name, x in parts.items()}


def detect(question: Question, options: SourceOptions, runs: RunOptions, show: Presenter) -> int:
    """Answer, print, write, draw."""
    methods = methods_of(question.method)
    tpr = parsing.number(question.tpr, "--tpr")
    if not 0 < tpr <= 1:
        raise SettingError(f"--tpr is {question.tpr}, expected a share in (0, 1]; try 0.95")
    file = read_model_file(question.model)
    refuse_softmax(file.data, question.model, "Softmax", "LogSoftmax")
    nothing = Fit(np.zeros(0, dtype=np.float32), None)
    work = ScoreWork(str(question.model), file.data, question.layer, methods, nothing, {})
    network = work.activations()
    shape = fixed_shape(question.model, network.network.input_shape)
    inside = read_inputs(question.inside, question.model, shape, options)
    sets = sets_of(question, options, inside, shape)
    work = replace(work, fit=sets.learnt_from(), sets=sets.scored())
    whose = question.fit or f"every other row of {inside.data.source}"
    settings: dict[str, object] = {
        "id": inside.data.source,
        "ood": list(sets.outside),
        "fit": whose,
        "fit_sha256": hashlib.sha256(sets.fit.contiguous().numpy().tobytes()).hexdigest(),
        "methods": list(methods),
        "layer": network.node,
        "tpr": tpr,
        "level": LEVEL,
        "seed": question.seed,
        **options.settings(),
    }
    job = Job(
        command="ood",
        settings=settings,
        stamp=ModelStamp(str(question.model), file.sha256),
        work=work,
        here=lambda: work.on(network),
        instances=work.instances,
        indices=range(len(work.places)),
        size=AT_ONCE,
        back=work.back,
    )
    said = [
        f"in distribution: {inside.data.source}, {len(sets.inside)} inputs; fitted on {whose}, "
        f"{len(sets.fit)} inputs; features: {network.node}",
        *inside.data.notes,
    ]
    with Running(runs, job, show) as running:
        done = running.collect()
        scores = columns(work, done.results)
        compared = detections(scores, sets, question.seed, tpr)
        best = {source: max_of(compared.results, source) for source in compared.sources}
        summary = {
            "id_count": len(sets.inside),
            "fit_count": len(sets.fit),
            "best": best,
            "interrupted": done.interrupted,
            **running.summary(),
        }
        record = show.record("ood", job.stamp, settings, compared.rows, summary)
        show.write(running.conclude(record, rows=True))
    show.say(said)
    if compared.rows and not show.options.quiet:
        show.console.print(table_of(compared.results, tpr))
    for source, name in best.items():
        show.console.print(Text(f"{source}: highest AUROC by {name}"), soft_wrap=True)
    if question.plot is not None and compared.rows:
        panels = [
            ScorePanel(name, found[1], found[2], compared.limits[name])
            for name, found in scores.items()
        ]
        plot_scores(panels, question.plot, title=f"OOD scores, {question.model.name}")
        show.say([f"drawn: {question.plot}"])
    return running.exit_code(done, 0)


Columns = Mapping[str, tuple[Array, Array, dict[str, Array]]]
"""By method: scores of the threshold's rows, of the in-distribution rows, and of each OOD set."""


def columns(work: ScoreWork, found: Sequence[Scored]) -> Columns:
    """The scores that came, set by set; nothing before the first two sets have some."""
    sets: dict[str, list[tuple[float, ...]]] = {name: [] for name in work.sets}
    for one in found:
        sets[str(one.row["set"])].append(one.scores)
    if not sets[THRESHOLD] or not sets[INSIDE]:
        return {}
    arrays = {name: np.array(rows) for name, rows in sets.items() if rows}
    return {
        method: (
            arrays[THRESHOLD][:, i],
            arrays[INSIDE][:, i],
            {
                name.removeprefix(OUTSIDE): rows[:, i]
                for name, rows in arrays.items()
                if name.startswith(OUTSIDE)
            },
        )
        for i, method in enumerate(work.methods)
    }


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What the scores say.

    Attributes:
        results: OOD set, method and figures.
        limits: thresholds by method.
        rows: of the record.
    """

    results: list[tuple[str, str, Evaluation]]
    limits: dict[str, float]
    rows: list[dict[str, object]]

    @property
    def sources(self) -> list[str]:
        """The OOD sets that there are scores of."""
        return list(dict.fromkeys(source for source, _, _ in self.results))


def detections(scores: Columns, sets: Sets, seed: int, tpr: float) -> Detections:
    """Every detector on every OOD set."""
    limits = {name: threshold(found[0], tpr) for name, found in scores.items()}
    results = [
        (source, name, evaluate(found[1], found[2][source], tpr=tpr, seed=seed))
        for source in sets.outside
        for name, found in scores.items()
        if source in found[2]
    ]
    rows = [
        row_of(i, source, name, found, limits[name], scores[name])
        for i, (source, name, found) in enumerate(results)
    ]
    return Detections(results, limits, rows)


def methods_of(text: str) -> tuple[str, ...]:
    """The methods named, each once.

    Raises:
        SettingError: if one is unknown.
    """
    names = METHODS if text.strip() == "all" else tuple(p.strip() for p in text.split(","))
    for name in names:
        if name not in METHODS:
            raise SettingError(
                f"--method has {name!r}, expected some of {', '.join(METHODS)}, or 'all'"
            )
    return tuple(dict.fromkeys(names))


def sets_of(
    question: Question, options: SourceOptions, inside: Inputs, shape: tuple[int, ...]
) -> Sets:
    """Fitting and evaluated in-distribution rows, which share none, and every OOD set."""
    if question.fit is None:
        if len(inside.x) < 4:
            raise DataError(
                f"{inside.data.source} has {len(inside.x)} rows, too few to fit on one half; give "
                "more, or name data to fit on with --fit"
            )
        fit, rows = inside.x[::2], slice(1, None, 2)
        labels = inside.data.labels
        labels = None if labels is None else labels[::2]
    else:
        other = read_inputs(question.fit, question.model, shape, options)
        fit, labels, rows = other.x, other.data.labels, slice(None)
    raw = inside.data.x[rows]
    if len(set(question.outside)) < len(question.outside):
        raise SettingError("an --ood source is named twice; name each once")
    outside = {
        name: normalised(strange(raw, name, question.seed), shape, options)
        if name in MADE
        else read_inputs(name, question.model, shape, options).x
        for name in question.outside
    }
    return Sets(fit, labels, inside.x[rows], outside)


def strange(x: Tensor, how: str, seed: int) -> Tensor:
    """Inputs made from in-distribution ones, in the units of the source, within its range."""
    low, high = x.min(), x.max()
    numbers = generator(seed, "ood", how)
    if how == "noise":
        return low + (high - low) * torch.rand(x.shape, generator=numbers, dtype=x.dtype)
    if how == "inverted":
        return low + high - x
    flat = x.flatten(1)
    if how == "permuted":
        order = torch.rand(flat.shape, generator=numbers).argsort(dim=1)
        return flat.gather(1, order).reshape(x.shape)
    side = round(flat.shape[1] ** 0.5)
    image = x if x.ndim > 2 else flat.reshape(len(x), side, -1) if side**2 == flat.shape[1] else x
    if image.ndim < 3 or image.shape[-1] != image.shape[-2]:
        raise DataError(
            f"inputs of shape {tuple(x.shape[1:])} are no square images, as {how} ones would be"
        )
    if how == "rotated":
        return image.rot90(1, (-2, -1)).reshape(x.shape)
    drawn = torch.from_numpy(letters(len(x), side=image.shape[-1], seed=seed)[0]).to(x.dtype)
    # Grey: the same in every channel; ink is where the source has its highest values.
    drawn = drawn.view(len(x), *[1] * (image.ndim - 3), *image.shape[-2:]).expand(image.shape)
    return (low + (high - low) * drawn).reshape(x.shape)


def row_of(
    index: int,
    source: str,
    name: str,
    found: Evaluation,
    limit: float,
    scores: tuple[Array, Array, dict[str, Array]],
) -> dict[str, object]:
    """One row of the record: a detector on an OOD set."""
    row: dict[str, object] = {"index": index, "ood": source, "method": name}
    for figure in ("auroc", "aupr_out", "aupr_in", "fpr"):
        measured: Measured = getattr(found, figure)
        row[figure] = measured.value
        row[f"{figure}_low"], row[f"{figure}_high"] = measured.low, measured.high
    return {
        **row,
        "threshold": limit,
        "id_kept": float((scores[1] <= limit).mean()),
        "ood_detected": float((scores[2][source] > limit).mean()),
        "id_count": found.id_count,
        "ood_count": found.ood_count,
    }


def max_of(results: list[tuple[str, str, Evaluation]], source: str) -> str:
    """The method with the largest AUROC on one OOD set."""
    own = [(name, found) for where, name, found in results if where == source]
    return max(own, key=lambda pair: pair[1].auroc.value)[0]


def table_of(results: list[tuple[str, str, Evaluation]], tpr: float) -> Table:
    """All figures in percent, with their intervals."""
    table = Table(title="percent; 95 % intervals in brackets")
    table.add_column("OOD data")
    table.add_column("method")
    for heading in ("AUROC", "AUPR (OOD positive)", f"FPR at {100 * tpr:g} % ID kept"):
        table.add_column(heading, justify="right")
    for source, name, found in results:
        cells = [percent(found.auroc), percent(found.aupr_out), percent(found.fpr)]
        table.add_row(Text(source), name, *cells)
    return table


def percent(figure: Measured) -> str:
    """A figure and its interval in percent."""
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f}-{100 * figure.high:.1f})"
