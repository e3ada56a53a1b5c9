"""The work of `verify calibrate`: split, fit, judge, draw, write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.randomness import content_keys, derive_keys
from uncertainty.calibrators import CALIBRATORS, Calibrator, TemperatureScaling, VectorScaling
from uncertainty.sampling import Interval, bootstrap_mean
from verify.cli import parsing
from verify.cli.calibration_table import Judgement, draw, print_table
from verify.cli.onnx_scaling import scaled_model
from verify.cli.options import DataOptions
from verify.cli.presenting import Presenter
from verify.cli.session import Session, open_session, stamp
from verify.errors import DataError, MismatchError, SettingError
from verify.network import NormalisedJudge
from verify.report.plots import FORMATS
from verify.report.writers import write_whole
from verify.runtime import RELATIVE, Runtime
from verify.traverse import run

AT_ONCE = 512
"""Inputs evaluated together."""

Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, checked before any work is.

    Attributes:
        method: a name of `uncertainty.calibrators.CALIBRATORS`.
        output: of the calibrated model, or None.
        plot: of the reliability diagram, or None.
        split: share of the inputs to fit on, in (0, 1).
        bins: of the calibration error.
        seed: of everything that is drawn.
    """

    method: str
    output: Path | None
    plot: Path | None
    split: float
    bins: int
    seed: int

    @classmethod
    def read(
        cls,
        method: str,
        output: Path | None,
        plot: Path | None,
        split: str,
        bins: int,
        seed: int,
        model: Path,
    ) -> Plan:
        """The options in their units.

        Raises:
            SettingError: if one of them cannot be used.
        """
        if method not in CALIBRATORS:
            raise SettingError(f"--method is {method!r}, expected one of {', '.join(CALIBRATORS)}")
        share = parsing.number(split, "--split")
        if not 0 < share < 1:
            raise SettingError(f"--split is {split}, expected between 0 and 1, for example 0.5")
        if not 1 <= bins <= parsing.MOST_POINTS:
            raise SettingError(f"--bins is {bins}, expected 1 to {parsing.MOST_POINTS}; take 15")
        if seed < 0:
            raise SettingError(f"--seed is {seed}, expected a whole number from 0")
        if plot is not None and plot.suffix.lower().removeprefix(".") not in FORMATS:
            raise SettingError(f"--plot is {plot}, expected an ending of {', '.join(FORMATS)}")
        for option, path in (("--plot", plot), ("-o", output)):
            if path is not None and not path.resolve().parent.is_dir():
                raise SettingError(f"{option} is {path}, which lies in no folder that is there")
        if output is not None:
            if method not in ("temperature", "vector"):
                raise SettingError(
                    f"-o cannot write method {method}; choose temperature or vector, which are "
                    "scalings of the logits"
                )
            if output.suffix != ".onnx":
                raise SettingError(f"-o is {output}, expected a name that ends in .onnx")
            if output.resolve() == model.resolve():
                raise SettingError(f"-o is {output}, the model itself; name another file")
        return cls(method, output, plot, share, bins, seed)


@dataclass(frozen=True, slots=True)
class Confidence:
    """One judged input's row."""

    index: int
    label: int
    predicted: int
    before: float
    after: float

    def to_record(self) -> dict[str, object]:
        """The row of the record."""
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "confidence_before": self.before,
            "confidence_after": self.after,
        }


def calibrate_model(model: Path, data: DataOptions, plan: Plan, show: Presenter) -> None:
    """Do all of it, and report.

    Raises:
        InputError: if any of it cannot be used.
    """
    session = open_session(model, data, 0.0)
    labels = session.data.labels
    if labels is None or data.labels == "predicted":
        raise DataError(
            f"calibration needs true labels, and {session.data.source} is used without; give data "
            "that have labels, and leave out --labels predicted"
        )
    fitting, judging = split_rows(session.data.x, plan)
    logits = logits_of(session)
    calibrator = CALIBRATORS[plan.method]().fit(logits[fitting], labels[fitting])
    before = Judgement.of(logits[judging], labels[judging], plan.bins, plan.seed)
    after = Judgement.of(
        calibrator.transform(logits[judging]), labels[judging], plan.bins, plan.seed
    )
    change = bootstrap_mean(after.scored.log_losses - before.scored.log_losses, seed=plan.seed)
    notes = [*session.notes, *remarks(calibrator, len(fitting), len(judging)), verdict(change)]
    written: dict[str, object] = {"output": None}
    if plan.output is not None:
        difference = write_calibrated(session, calibrator, logits, plan.output)
        notes.append(f"written: {plan.output}; differs by {difference:.1e} in ONNX Runtime")
        written = {"output": str(plan.output), "output_difference": difference}
    if plan.plot is not None:
        draw(before, after, plan.plot)
        notes.append(f"drawn: {plan.plot}")
    # The norm is that of a radius, and there is none.
    given = {key: value for key, value in session.settings.items() if key != "norm"}
    settings = {
        **given,
        "method": plan.method,
        "split": plan.split,
        "bins": plan.bins,
        "seed": plan.seed,
    }
    summary: dict[str, object] = {
        "fitted_on": len(fitting),
        "judged_on": len(judging),
        "parameters": parameters_of(calibrator),
        "nll_change_low": change.low,
        "nll_change_high": change.high,
        "before": before.as_summary(),
        "after": after.as_summary(),
        **written,
    }
    rows = [
        Confidence(
            session.data.indices[int(i)],
            int(labels[i]),
            int(before.scored.predicted[n]),
            float(before.scored.confidence[n]),
            float(after.scored.confidence[n]),
        )
        for n, i in enumerate(judging)
    ]
    show.write(show.record("calibrate", stamp(session), settings, rows, summary))
    print_table(before, after, str(model), plan.method, show)
    show.say(notes)


def split_rows(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows to judge by, each ascending.

    By a hash of seed and input, so whatever order the file is in does not matter.

    Raises:
        DataError: if one of the two would be empty.
    """
    order = torch.argsort(derive_keys(content_keys(x), "calibrate", plan.seed), stable=True)
    count = round(plan.split * len(x))
    if not 0 < count < len(x):
        raise DataError(
            f"{len(x)} inputs split {plan.split:g} leave {count} to fit on; give more inputs, or "
            "another --split"
        )
    return order[:count].sort().values, order[count:].sort().values


def logits_of(session: Session) -> Logits:
    """The model's logits, shape (inputs, classes): of the file in ONNX Runtime.

    Where the file ends in a softmax they are those before it, of our graph in float64, which was
    compared with ONNX Runtime when it was loaded: probabilities have lost the large ones.
    """
    network, x = session.network, session.data.x
    parts = []
    for batch in x.split(AT_ONCE):
        if network.graph.tail is not None:
            parts.append(run(network.graph, batch.to(torch.float64)))
        else:
            runtime, fed = runtime_of(session, batch)
            parts.append(run_file(runtime, fed))
    return torch.cat(parts).flatten(1).to(torch.float64).numpy()


def runtime_of(session: Session, x: Tensor) -> tuple[Runtime, Tensor]:
    """The file's runtime, and the inputs as the file takes them."""
    judge = session.network.judge
    while isinstance(judge, NormalisedJudge):
        x = judge.normalise(x)
        judge = judge.judge
    if not isinstance(judge, Runtime):
        raise SettingError("calibration needs an ONNX file; export the model first")
    return judge, x


def run_file(runtime: Runtime, x: Tensor) -> Tensor:
    """Outputs of the file, many inputs at once where it takes them."""
    if runtime.batchable:
        return runtime.run(x)
    return torch.cat([runtime.run(row[None]) for row in x])


def write_calibrated(session: Session, calibrator: Calibrator, logits: Logits, path: Path) -> float:
    """Write the calibrated file; returns how far its outputs are from what they are to be.

    Raises:
        MismatchError: if that is more than rounding explains; then nothing is written.
    """
    from verify.readers.onnx import read_onnx

    if not isinstance(calibrator, TemperatureScaling | VectorScaling):
        raise SettingError("only temperature and vector scaling can be written; choose one")
    runtime, x = runtime_of(session, session.data.x[:AT_ONCE])
    model = runtime.model
    tail = session.network.graph.tail
    proto = scaled_model(model.data, model.output_name, tail, *calibrator.affine())
    content = proto.SerializeToString()
    draft = path.with_name(f".{path.stem}.draft.onnx")
    try:
        write_whole(draft, content)
        found = run_file(Runtime(read_onnx(draft)), x).flatten(1).to(torch.float64)
    finally:
        draft.unlink(missing_ok=True)
    wanted = torch.from_numpy(calibrator.transform(logits[: len(x)]))
    if tail is not None:
        wanted = wanted.softmax(dim=1) if tail == "Softmax" else wanted.log_softmax(dim=1)
    scale = float(wanted.abs().max())
    difference = float((found - wanted).abs().max())
    if not difference <= RELATIVE * max(scale, float(np.abs(logits).max())):
        raise MismatchError(
            f"the calibrated model differs by {difference:.3g} from what it should give (largest "
            f"output {scale:.3g}); nothing was written. Please report this model."
        )
    write_whole(path, content)
    return difference


def remarks(calibrator: Calibrator, fitted: int, judged: int) -> list[str]:
    """What was fitted, for people."""
    lines = [f"fitted on {fitted} inputs, judged on the other {judged}"]
    if isinstance(calibrator, TemperatureScaling):
        where = ""
        if calibrator.at_bound_:
            where = (
                ", the end of its range: these data do not determine it (too few inputs, or none "
                "misclassified); do not rely on it"
            )
        lines.append(f"temperature {calibrator.temperature_:.4g}{where}")
    lines.append(
        f"NLL on the fitting part: {calibrator.nll_before_:.4f} before, "
        f"{calibrator.nll_after_:.4f} after"
    )
    return lines


def verdict(change: Interval) -> str:
    """Whether calibration helped on the judging part, as far as chance lets one say."""
    said = f"NLL on the judging part changes by {change.low:+.4f} to {change.high:+.4f} (95 %)"
    if change.high < 0:
        return f"{said}: better"
    if change.low > 0:
        return f"{said}: worse; do not use this calibration, or fit it to more inputs"
    return f"{said}: these inputs are too few to say whether it helps"


def parameters_of(calibrator: Calibrator) -> dict[str, object]:
    """The fitted numbers, where there are few."""
    if isinstance(calibrator, TemperatureScaling):
        return {"temperature": calibrator.temperature_, "at_bound": calibrator.at_bound_}
    if isinstance(calibrator, VectorScaling):
        return {"scale": calibrator.scale_, "shift": calibrator.shift_}
    return {}
