"""What `verify confidence` knows of one input, and the same as a run stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.confidence import Attained
from verify.confidence import Scores
from verify.runs.answers import Answer, Blob
from verify.values.bounds import Bounds
from verify.values.result import StopReason, Verdict

SHOWN = ("confidence", "wrong_confidence", "nll", "entropy", "energy", "brier")
WIDE, FLAGS = "<f8", "|u1"


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One input: clean, attacked and certified.

    Attributes:
        scores: certified, a batch of one.
        clean, low, high: values by name; the last two are what an attack attained.
        path, path_correct: attained confidences and whether the prediction was right there; the
            input itself first.
        probability: class probabilities at the input, first, and at attained points.
        confidently_wrong: whether a confident wrong answer was attained and confirmed.
        late: whether time ran out.
        label, predicted, seconds, eps, p: as in other results.
    """

    scores: Scores
    clean: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    path: Tensor
    path_correct: Tensor
    probability: Tensor
    confidently_wrong: bool
    late: bool
    label: int
    predicted: int
    seconds: float
    eps: float
    p: float

    @staticmethod
    def of(
        scores: Scores,
        row: int,
        clean: dict[str, Tensor],
        found: Attained | None,
        probability: Tensor,
        confidently_wrong: bool,
        late: bool,
        predicted: int,
        seconds: float,
        eps: float,
        p: float,
    ) -> Judged:
        """One row of a batch; without an attack, what it attained is the clean value."""
        own = {name: float(value[row]) for name, value in clean.items()}
        if found is None:
            path = torch.tensor([own["confidence"]], dtype=torch.float64)
            correct = probability[:1].argmax(dim=1) == scores.labels[row]
            low = high = own
        else:
            path, correct = found.path[row], found.path_correct[row]
            low = {name: float(value[row]) for name, value in found.low.items()}
            high = {name: float(value[row]) for name, value in found.high.items()}
        one = scores.take(torch.tensor([row]))
        label = int(scores.labels[row])
        return Judged(
            one,
            own,
            low,
            high,
            path,
            correct,
            probability,
            confidently_wrong,
            late,
            label,
            predicted,
            seconds,
            eps,
            p,
        )

    def safe(self, threshold: float) -> bool:
        """Whether no perturbation makes a confident wrong answer."""
        return bool(self.scores.never_confidently_wrong(threshold)[0])

    def fields(self) -> dict[str, object]:
        """The quantities as the record holds them."""
        named = self.scores.named()
        found: dict[str, object] = {
            name: {
                "clean": self.clean[name],
                "attacked_low": self.low[name],
                "attacked_high": self.high[name],
                "certified_low": float(named[name].lower[0]),
                "certified_high": float(named[name].upper[0]),
            }
            for name in SHOWN
        }
        found["certified_correct"] = not bool(self.scores.may_be_wrong[0])
        found["possibly_correct"] = bool(self.scores.may_be_right[0])
        found["clean_correct"] = bool(self.path_correct[0])
        found["attacked_correct"] = bool(self.path_correct.all())
        found["attacked_possible"] = bool(self.path_correct.any())
        return found


def blobs_of(found: Judged) -> dict[str, Blob]:
    """All of it that is no whole number of its row, bit by bit.

    "bounds" has the lower, then the upper ends: of each class's probability, then of `SHOWN`;
    "values" the clean, lowest and highest attained ones of `SHOWN`.
    """
    own = found.scores.probability
    named = [found.scores.named()[name] for name in SHOWN]
    lower = torch.cat([own.lower[0], *(bounds.lower for bounds in named)])
    upper = torch.cat([own.upper[0], *(bounds.upper for bounds in named)])
    values = [[side[name] for name in SHOWN] for side in (found.clean, found.low, found.high)]
    return {
        "bounds": packed(torch.stack((lower, upper)), WIDE),
        "values": packed(torch.tensor(values, dtype=torch.float64), WIDE),
        "possible": packed(found.scores.possible[0], FLAGS),
        "path": packed(found.path, WIDE),
        "path_correct": packed(found.path_correct, FLAGS),
        "probability": packed(found.probability, WIDE),
    }


def judged_of(answer: Answer) -> Judged:
    """What an answer was made from: its row and `blobs_of`."""
    kept = {name: unpacked(blob) for name, blob in answer.blobs.items()}
    row: Mapping[str, Any] = answer.record
    lower, upper = kept["bounds"]
    classes = len(lower) - len(SHOWN)
    ends = [Bounds(lower[i : i + 1], upper[i : i + 1]) for i in range(classes, len(lower))]
    scores = Scores(
        Bounds(lower[None, :classes], upper[None, :classes]),
        **dict(zip(SHOWN, ends, strict=True)),
        possible=kept["possible"].bool()[None],
        labels=torch.tensor([row["label"]]),
    )
    clean, low, high = (dict(zip(SHOWN, side, strict=True)) for side in kept["values"].tolist())
    return Judged(
        scores,
        clean,
        low,
        high,
        kept["path"],
        kept["path_correct"].bool(),
        kept["probability"],
        confidently_wrong=row["verdict"] == Verdict.FALSIFIED.value,
        late=row["reason"] == StopReason.OUT_OF_TIME.value,
        label=row["label"],
        predicted=row["predicted"],
        seconds=row["seconds"],
        eps=row["eps"],
        p=float(row["norm"]),
    )


def packed(values: Tensor, dtype: str) -> Blob:
    """A tensor as bytes."""
    array = values.numpy().astype(dtype)
    return Blob(array.tobytes(), dtype, array.shape)


def unpacked(blob: Blob) -> Tensor:
    """The tensor, of numpy's dtype of the same size."""
    assert blob.dtype is not None
    array = np.frombuffer(blob.data, blob.dtype).reshape(blob.shape or ())
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
