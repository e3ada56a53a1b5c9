"""The work of `verify ood`: activations of every data set, detectors, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor

from uncertainty.ood import (
    DETECTORS,
    Activations,
    Evaluation,
    Measured,
    OnnxActivations,
    detector_named,
    evaluate,
    letters,
    odin,
    threshold,
)
from uncertainty.seeding import generator
from verify.cli import parsing
from verify.cli.presenting import Presenter
from verify.cli.sources import (
    Inputs,
    SourceOptions,
    fixed_shape,
    normalised,
    read_inputs,
    refuse_softmax,
)
from verify.errors import DataError, SettingError
from verify.readers.onnx import read_onnx
from verify.readers.onnx_file import read_model_file
from verify.report import ModelStamp
from verify.report.pictures import ScorePanel, plot_scores
from verify.traverse import run

MADE = ("noise", "permuted", "inverted", "rotated", "letters")
METHODS = (*DETECTORS[:4], "odin", *DETECTORS[4:])
LEVEL = 0.95

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


def detect(question: Question, options: SourceOptions, show: Presenter) -> int:
    """Answer, print, write, draw."""
    methods = methods_of(question.method)
    tpr = parsing.number(question.tpr, "--tpr")
    if not 0 < tpr <= 1:
        raise SettingError(f"--tpr is {question.tpr}, expected a share in (0, 1]; try 0.95")
    file = read_model_file(question.model)
    refuse_softmax(file.data, question.model, "Softmax", "LogSoftmax")
    try:
        network = OnnxActivations(file.data, question.layer)
    except ValueError as error:
        raise SettingError(f"{question.model}: {error}") from error
    shape = fixed_shape(question.model, network.network.input_shape)
    inside = read_inputs(question.inside, question.model, shape, options)
    sets = sets_of(question, options, inside, shape)
    seen = [network(x) for x in (sets.fit, sets.inside, *sets.outside.values())]
    scores = {name: scored(name, question.model, seen, sets) for name in methods}
    limits = {name: threshold(found[0], tpr) for name, found in scores.items()}
    results = [
        (source, name, evaluate(found[1], found[2][source], tpr=tpr, seed=question.seed))
        for source in sets.outside
        for name, found in scores.items()
    ]
    rows = [
        row_of(i, source, name, found, limits[name], scores[name])
        for i, (source, name, found) in enumerate(results)
    ]
    whose = question.fit or f"every other row of {inside.data.source}"
    settings: dict[str, object] = {
        "id": inside.data.source,
        "ood": list(sets.outside),
        "fit": whose,
        "methods": list(methods),
        "layer": network.node,
        "tpr": tpr,
        "level": LEVEL,
        "seed": question.seed,
        **options.settings(),
    }
    best = {source: max_of(results, source) for source in sets.outside}
    summary = {"id_count": len(sets.inside), "fit_count": len(sets.fit), "best": best}
    stamp = ModelStamp(str(question.model), file.sha256)
    show.write(show.record("ood", stamp, settings, rows, summary))
    show.say(
        [
            f"in distribution: {inside.data.source}, {len(sets.inside)} inputs; fitted on {whose}, "
            f"{len(sets.fit)} inputs; features: {network.node}",
            *inside.data.notes,
        ]
    )
    if not show.options.quiet:
        show.console.print(table_of(results, tpr))
    for source, name in best.items():
        show.console.print(Text(f"{source}: highest AUROC by {name}"), soft_wrap=True)
    if question.plot is not None:
        panels = [
            ScorePanel(name, found[1], found[2], limits[name]) for name, found in scores.items()
        ]
        plot_scores(panels, question.plot, title=f"OOD scores, {question.model.name}")
        show.say([f"drawn: {question.plot}"])
    return 0


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


def scored(
    name: str, model: Path, seen: Sequence[Activations], sets: Sets
) -> tuple[Array, Array, dict[str, Array]]:
    """Scores of the threshold's rows, the in-distribution rows, and each OOD set.

    A detector that learns is fitted on one half of the fitting rows and its threshold on the other.

    Args:
        seen: activations of the fitting rows, the in-distribution rows, and each OOD set.
    """
    found: list[Array]
    if name == "odin":
        graph = read_onnx(model).graph
        parts = (sets.fit[1::2], sets.inside, *sets.outside.values())
        found = [
            odin(lambda v: run(graph, v).flatten(1), x.double().reshape(-1, *graph.input.shape))
            for x in parts
        ]
    else:
        detector = detector_named(name)
        labels = None if sets.labels is None else sets.labels.numpy()[::2]
        if labels is not None and (labels.min() < 0 or labels.max() >= seen[0].logits.shape[1]):
            labels = None
        detector.fit(seen[0].rows(slice(None, None, 2)), labels)
        parts_seen = (seen[0].rows(slice(1, None, 2)), *seen[1:])
        found = [detector.score(part) for part in parts_seen]
    return found[0], found[1], dict(zip(sets.outside, found[2:], strict=True))


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
