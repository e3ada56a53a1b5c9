"""The work of `verify uncertainty`: members, their predictions, and the least sure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from verify.cli.options import RunOptions
from verify.cli.presenting import Presenter
from verify.cli.running import Job, Running
from verify.cli.sources import (
    Inputs,
    SourceOptions,
    fixed_shape,
    instances_from,
    read_inputs,
    refuse_softmax,
)
from verify.errors import DataError, SettingError
from verify.readers.onnx_file import read_model_file
from verify.report import ModelStamp
from verify.report.pictures import Picture, plot_pictures
from verify.report.records import plain_row
from verify.runs.answers import Answer
from verify.runs.engine import Solver

TASKS = ("classes", "numbers")
AT_ONCE = 128
"""Inputs that are predicted together."""
PROBED = 8
"""Inputs on which two passes are compared before the work; they differ as a rule."""


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


@dataclass(frozen=True, slots=True)
class Doubt:
    """One input's result.

    Attributes:
        index: of the input in its source.
        row: its fields in the record.
    """

    index: int
    row: Mapping[str, Any]

    def to_record(self) -> Mapping[str, Any]:
        """The fields of the record schema."""
        return self.row


@dataclass(frozen=True, slots=True, eq=False)
class DoubtWork:
    """`verify uncertainty`, some inputs at a time; a `verify.runs.engine.Work`.

    Attributes:
        names, files: of the models; their bytes.
        x: what the models get, shape (n, *input).
        indices, labels: of the inputs in their source; labels None without any.
        task, passes, seed: as in `Question`.
    """

    names: tuple[str, ...]
    files: tuple[bytes, ...]
    x: NDArray[np.float32]
    indices: tuple[int, ...]
    labels: tuple[int, ...] | None
    task: str
    passes: int
    seed: int

    def posterior(self) -> OnnxEnsemble | OnnxDropout:
        """The members.

        Raises:
            SettingError: if there is one file and it drops nothing.
        """
        likelihood = Categorical() if self.task == "classes" else HeteroscedasticGaussian()
        if len(self.files) > 1:
            ensemble = OnnxEnsemble(self.files, likelihood)
            for network, name in zip(ensemble.networks, self.names, strict=True):
                network.name = name
            return ensemble
        try:
            return OnnxDropout(
                self.files[0], passes=self.passes, likelihood=likelihood, seed=self.seed
            )
        except ValueError as error:
            raise SettingError(f"{self.names[0]}: {error}") from error

    def open(self) -> Solver:
        """Read the models."""
        return self.on(self.posterior())

    def on(self, posterior: OnnxEnsemble | OnnxDropout) -> Solver:
        """With models that are read already."""

        def solve(positions: Sequence[int]) -> list[Answer]:
            found = doubts_of(predicted(posterior, self.x[list(positions)]))
            return [Answer(p, self.row(found, i, p)) for i, p in enumerate(positions)]

        return solve

    def row(self, found: Doubts, i: int, position: int) -> dict[str, object]:
        """The fields of one input in the record."""
        return plain_row(
            {
                "index": self.indices[position],
                "label": None if self.labels is None else self.labels[position],
                "predicted": found.predicted[i].item(),
                "confidence": None if found.confidence is None else float(found.confidence[i]),
                "total": float(found.total[i]),
                "aleatoric": float(found.aleatoric[i]),
                "epistemic": float(found.epistemic[i]),
            }
        )


def predicted(
    posterior: OnnxEnsemble | OnnxDropout, x: NDArray[np.float32]
) -> CategoricalMixture | GaussianMixture:
    """The predictive distribution; that passes differ on these few inputs is not asked for."""
    if isinstance(posterior, OnnxDropout):
        return posterior.likelihood.mixture(posterior.first_outputs(x, posterior.passes))
    return posterior.predict_distribution(x)


def probe(posterior: OnnxEnsemble | OnnxDropout, inputs: Inputs) -> None:
    """Refuse what cannot be answered, before the work.

    Raises:
        InputError, UncertaintyInputError: if labels do not fit, or the members never differ.
    """
    mixture = predicted(posterior, inputs.x[:1].numpy())
    doubts_of(mixture)
    if isinstance(mixture, CategoricalMixture):
        refuse_labels(inputs, mixture.log_probs.shape[-1])
    if isinstance(posterior, OnnxDropout):
        one, two = posterior.first_outputs(inputs.x[:PROBED], 2)
        if bool((one == two).all()):
            posterior.member_outputs(inputs.x)


def doubt(question: Question, options: SourceOptions, runs: RunOptions, show: Presenter) -> int:
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
    names, few = tuple(map(str, question.models)), len(files) == 1
    work = DoubtWork(
        names,
        tuple(file.data for file in files),
        np.zeros(0, dtype=np.float32),
        (),
        None,
        question.task,
        question.passes,
        question.seed,
    )
    posterior = work.posterior()
    first = posterior.network if isinstance(posterior, OnnxDropout) else posterior.networks[0]
    kind = f"an ensemble of {len(files)} files"
    if few:
        kind = f"{question.passes} passes with dropout, seed {question.seed}"
    shape = fixed_shape(question.models[0], first.input_shape)
    inputs = read_inputs(question.data, question.models[0], shape, options)
    probe(posterior, inputs)
    labels = inputs.data.labels
    work = replace(
        work,
        x=inputs.x.numpy(),
        indices=tuple(inputs.data.indices),
        labels=None if labels is None else tuple(labels.tolist()),
    )
    settings = {
        "models": [
            {"path": name, "sha256": file.sha256} for name, file in zip(names, files, strict=True)
        ],
        "data": inputs.data.source,
        "task": question.task,
        "members": question.passes if few else len(files),
        "passes": question.passes if few else None,
        "seed": question.seed if few else None,
        **options.settings(),
    }
    job = Job(
        command="uncertainty",
        settings=settings,
        stamp=ModelStamp(names[0], files[0].sha256),
        work=work,
        here=lambda: work.on(posterior),
        instances=lambda: instances_from(inputs),
        indices=inputs.data.indices,
        size=AT_ONCE,
        back=lambda answer: Doubt(work.indices[answer.position], answer.record),
        input_shape=tuple(inputs.data.x.shape[1:]),
    )
    with Running(runs, job, show) as running:
        done = running.collect()
        summary = {**summary_of(done.results), "interrupted": done.interrupted}
        summary |= {"members": settings["members"], **running.summary()}
        record = show.record("uncertainty", job.stamp, settings, done.results, summary)
        show.write(running.conclude(record))
    show.say([f"{kind}; data: {inputs.data.source}, {len(inputs.x)} inputs", *inputs.data.notes])
    if done.results:
        order = sorted(done.results, key=lambda one: -one.row["total"])[: question.show]
        if not show.options.quiet:
            print_most(order, len(done.results), show)
        show.console.print(Text(sentence(summary, question.task)), soft_wrap=True)
        if question.plot is not None:
            draw(order, inputs, question.plot, kind)
            show.say([f"drawn: {question.plot}"])
    return running.exit_code(done, 0)


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


def summary_of(results: Sequence[Doubt]) -> dict[str, object]:
    """Means over the inputs, and the accuracy where there are labels."""
    rows, summary = [one.row for one in results], dict[str, object]()
    if not rows:
        return summary
    for name in ("total", "aleatoric", "epistemic"):
        values = np.array([row[name] for row in rows])
        summary[f"{name}_mean"] = float(values.mean())
        summary[f"{name}_median"] = float(np.median(values))
    if rows[0]["label"] is not None and rows[0]["confidence"] is not None:
        right = np.array([row["predicted"] == row["label"] for row in rows])
        epistemic = np.array([row["epistemic"] for row in rows])
        summary["accuracy"] = float(right.mean())
        for name, chosen in (("right", right), ("wrong", ~right)):
            summary[f"epistemic_mean_{name}"] = (
                float(epistemic[chosen].mean()) if chosen.any() else None
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


SHOWN = ("index", "label", "predicted", "confidence", "total", "aleatoric", "epistemic")


def print_most(most: Sequence[Doubt], count: int, show: Presenter) -> None:
    """The most uncertain inputs as a table."""
    table = Table(title=f"the {len(most)} most uncertain of {count} inputs")
    for heading in SHOWN:
        table.add_column(heading, justify="right")
    for one in most:
        values = [one.row[name] for name in SHOWN]
        table.add_row(*("-" if value is None else cell(value) for value in values))
    show.console.print(table)


def cell(value: object) -> str:
    """Whole numbers as they are, others with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(most: Sequence[Doubt], inputs: Inputs, path: Path, kind: str) -> None:
    """The most uncertain inputs as pictures."""
    places = {index: i for i, index in enumerate(inputs.data.indices)}
    pictures = []
    for one in most:
        row = one.row
        true = "" if row["label"] is None else f", is {row['label']}"
        says = row["predicted"] if row["confidence"] is not None else cell(row["predicted"])
        caption = (
            f"#{one.index}: says {says}{true}\ntotal {row['total']:.3g}\n"
            f"data {row['aleatoric']:.3g} + model {row['epistemic']:.3g}"
        )
        pictures.append(Picture(inputs.data.x[places[one.index]].numpy(), caption))
    plot_pictures(pictures, path, title=f"Most uncertain of {len(inputs.x)} inputs, {kind}")
