"""The work of `verify uncertainty`: members, their predictions, and the least sure of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from uncertainty.models import (
    Categorical,
    HeteroscedasticGaussian,
    OnnxDropout,
    OnnxEnsemble,
)
from uncertainty.predictions import CategoricalMixture, GaussianMixture
from verify.cli.presenting import Presenter
from verify.cli.sources import Inputs, SourceOptions, fixed_shape, read_inputs, refuse_softmax
from verify.errors import DataError, SettingError
from verify.readers.onnx_file import read_model_file
from verify.report import ModelStamp
from verify.report.pictures import Picture, plot_pictures

TASKS = ("classes", "numbers")


@dataclass(frozen=True, slots=True)
class Question:
    """What `verify uncertainty` was asked, beside the data's own options."""

    models: tuple[Path, ...]
    data: str | None
    task: str
    passes: int
    seed: int
    show: int
    plot: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Doubts:
    """What was found; every array has one entry an input.

    Attributes:
        predicted: class numbers, or means.
        confidence: probability of the class; None for numbers.
        total, aleatoric, epistemic: in nats, or in squared units of the target.
    """

    predicted: NDArray[np.generic]
    confidence: NDArray[np.float64] | None
    total: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    members: int


def doubt(question: Question, options: SourceOptions, show: Presenter) -> int:
    """Answer, print, write, draw."""
    if question.task not in TASKS:
        raise SettingError(f"--task is {question.task!r}, expected {' or '.join(TASKS)}")
    files = [read_model_file(path) for path in question.models]
    if len({file.sha256 for file in files}) < len(files):
        raise SettingError(
            "two of the MODEL files are the same, which adds nothing to an ensemble; name each once"
        )
    if question.task == "classes":
        for file, path in zip(files, question.models, strict=True):
            refuse_softmax(file.data, path)
    likelihood = Categorical() if question.task == "classes" else HeteroscedasticGaussian()
    posterior: OnnxEnsemble | OnnxDropout
    if len(files) > 1:
        ensemble = OnnxEnsemble([file.data for file in files], likelihood)
        for network, path in zip(ensemble.networks, question.models, strict=True):
            network.name = str(path)
        posterior, shape = ensemble, ensemble.networks[0].input_shape
        kind = f"an ensemble of {len(files)} files"
    else:
        try:
            dropout = OnnxDropout(
                files[0].data, passes=question.passes, likelihood=likelihood, seed=question.seed
            )
        except ValueError as error:
            raise SettingError(f"{question.models[0]}: {error}") from error
        posterior, shape = dropout, dropout.network.input_shape
        kind = f"{question.passes} passes with dropout, seed {question.seed}"
    inputs = read_inputs(
        question.data, question.models[0], fixed_shape(question.models[0], shape), options
    )
    mixture = posterior.predict_distribution(inputs.x)
    found = doubts_of(mixture)
    if isinstance(mixture, CategoricalMixture):
        refuse_labels(inputs, mixture.log_probs.shape[-1])
    order = np.argsort(-found.total, kind="stable")[: question.show]
    settings = {
        "models": [
            {"path": str(path), "sha256": file.sha256}
            for path, file in zip(question.models, files, strict=True)
        ],
        "data": inputs.data.source,
        "task": question.task,
        "members": found.members,
        "passes": question.passes if len(files) == 1 else None,
        "seed": question.seed if len(files) == 1 else None,
        **options.settings(),
    }
    stamp = ModelStamp(str(question.models[0]), files[0].sha256)
    summary = summary_of(found, inputs)
    record = show.record("uncertainty", stamp, settings, rows_of(found, inputs), summary)
    show.write(record)
    show.say([f"{kind}; data: {inputs.data.source}, {len(inputs.x)} inputs", *inputs.data.notes])
    if not show.options.quiet:
        print_most(found, inputs, order, show)
    show.console.print(Text(sentence(summary, question.task)), soft_wrap=True)
    if question.plot is not None:
        draw(found, inputs, order, question.plot, kind)
        show.say([f"drawn: {question.plot}"])
    return 0


def refuse_labels(inputs: Inputs, classes: int) -> None:
    """Labels that are none of the model's classes would count as its errors."""
    labels = inputs.data.labels
    if labels is not None and len(labels) and int(labels.max()) >= classes:
        raise DataError(
            f"{inputs.data.source} has a label {int(labels.max())}, expected 0 to {classes - 1}: "
            f"the model has {classes} classes. Correct the labels, or take the model they belong to"
        )


def doubts_of(found: CategoricalMixture | GaussianMixture) -> Doubts:
    """Of either kind of prediction."""
    if isinstance(found, CategoricalMixture):
        return Doubts(
            found.labels,
            found.confidence,
            found.total,
            found.aleatoric,
            found.epistemic,
            found.members,
        )
    if found.means.ndim > 2:
        raise DataError(
            f"the model predicts {found.means.shape[2]} numbers, but one is listed for each input; "
            "use uncertainty.models.OnnxEnsemble from Python"
        )
    return Doubts(
        found.mean, None, found.variance, found.aleatoric, found.epistemic, len(found.means)
    )


def rows_of(found: Doubts, inputs: Inputs) -> list[dict[str, object]]:
    """One row an input, for the record."""
    labels = inputs.data.labels
    return [
        {
            "index": index,
            "label": None if labels is None else int(labels[i]),
            "predicted": found.predicted[i].item(),
            "confidence": None if found.confidence is None else float(found.confidence[i]),
            "total": float(found.total[i]),
            "aleatoric": float(found.aleatoric[i]),
            "epistemic": float(found.epistemic[i]),
        }
        for i, index in enumerate(inputs.data.indices)
    ]


def summary_of(found: Doubts, inputs: Inputs) -> dict[str, object]:
    """Means over the inputs, and the accuracy where there are labels."""
    summary: dict[str, object] = {"members": found.members}
    for name in ("total", "aleatoric", "epistemic"):
        values = getattr(found, name)
        summary[f"{name}_mean"] = float(values.mean())
        summary[f"{name}_median"] = float(np.median(values))
    if inputs.data.labels is not None and found.confidence is not None:
        right = found.predicted == inputs.data.labels.numpy()
        summary["accuracy"] = float(right.mean())
        for name, rows in (("right", right), ("wrong", ~right)):
            summary[f"epistemic_mean_{name}"] = (
                float(found.epistemic[rows].mean()) if rows.any() else None
            )
    return summary


def sentence(summary: dict[str, object], task: str) -> str:
    """The summary in one line."""
    unit = "nats" if task == "classes" else "squared units"
    line = (
        f"{summary['members']} members: mean total {summary['total_mean']:.4g}, aleatoric "
        f"{summary['aleatoric_mean']:.4g}, epistemic {summary['epistemic_mean']:.4g} ({unit})"
    )
    if "accuracy" not in summary:
        return line
    return f"{line}; accuracy {100 * float(str(summary['accuracy'])):.2f}%"


def print_most(
    found: Doubts, inputs: Inputs, order: NDArray[np.signedinteger], show: Presenter
) -> None:
    """The most uncertain inputs as a table."""
    table = Table(title=f"the {len(order)} most uncertain of {len(inputs.x)} inputs")
    for heading in ("index", "label", "predicted", "confidence", "total", "aleatoric", "epistemic"):
        table.add_column(heading, justify="right")
    rows = rows_of(found, inputs)
    for i in order:
        table.add_row(*("-" if value is None else cell(value) for value in rows[i].values()))
    show.console.print(table)


def cell(value: object) -> str:
    """Whole numbers as they are, others with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(
    found: Doubts, inputs: Inputs, order: NDArray[np.signedinteger], path: Path, kind: str
) -> None:
    """The most uncertain inputs as pictures."""
    rows = rows_of(found, inputs)
    pictures = []
    for i in order:
        row = rows[i]
        true = "" if row["label"] is None else f", is {row['label']}"
        says = row["predicted"] if found.confidence is not None else cell(row["predicted"])
        caption = (
            f"#{row['index']}: says {says}{true}\ntotal {found.total[i]:.3g}\n"
            f"data {found.aleatoric[i]:.3g} + model {found.epistemic[i]:.3g}"
        )
        pictures.append(Picture(inputs.data.x[i].numpy(), caption))
    plot_pictures(pictures, path, title=f"Most uncertain of {len(inputs.x)} inputs, {kind}")
