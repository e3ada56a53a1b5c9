"""Conformal prediction: sets that hold the truth with a stated probability, whatever the model.

From n held-out inputs and a new one, all exchangeable,

    1 - alpha  <=  P(truth in set)  <=  1 - alpha + 1/(n + 1)      (above: if scores do not tie)

over the draw of all n + 1: on average over calibration sets, not given one of them, and not for
each class or input alone. Given one set, the coverage is Beta(k, n + 1 - k) with
k = ceil((n + 1)(1 - alpha)): see `coverage_distribution`.

Whatever else is tuned (a temperature, the penalty of RAPS) needs data other than these n.

Source:
    Vovk, Gammerman, Shafer 2005; Sadinle, Lei, Wasserman 2019, arXiv:1609.00451 (LAC); Romano,
    Sesia, Candès 2020, arXiv:2006.02544 (APS); Angelopoulos et al. 2021, arXiv:2009.14193 (RAPS);
    Romano, Patterson, Candès 2019, arXiv:1905.03222 (CQR).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from uncertainty.arrays import (
    Array,
    Flags,
    Floats,
    as_floats,
    as_labels,
    as_probabilities,
    choose,
    needs_inputs,
)
from uncertainty.errors import NotFittedError, UncertaintyInputError

SCORES = ("lac", "aps", "raps")


def conformal_rank(count: int, alpha: float) -> int:
    """ceil((n + 1)(1 - alpha)): which of n ascending scores is the threshold; n + 1 if none is.

    Computed so that (n + 1)(1 - alpha) may be a whole number: 0.9 * 20 is 18, not a little more.
    """
    if not 0 < alpha < 1:
        raise UncertaintyInputError(f"alpha is {alpha}, expected between 0 and 1; take 0.1.")
    needs_inputs(count, "conformal prediction")
    exact = (count + 1) * (1 - alpha)
    near = round(exact)
    return near if abs(exact - near) <= 1e-9 * max(1, near) else math.ceil(exact)


def conformal_threshold(scores: Array, alpha: float) -> float:
    """The smallest score that keeps coverage 1 - alpha; infinite if there are too few for it.

    Args:
        scores: of the truth at each held-out input, higher for what fits less; shape (inputs,).
        alpha: share of new inputs whose truth may be missed.
    """
    found = np.sort(as_floats(scores, "scores", axes=1))
    rank = conformal_rank(len(found), alpha)
    return float(found[rank - 1]) if rank <= len(found) else math.inf


def coverage_distribution(count: int, alpha: float) -> Any:
    """The law of the coverage given one calibration set, for scores that do not tie.

    Returns:
        A frozen `scipy.stats.beta`; where `count` is too small for `alpha`, all coverages are 1,
        and there is none.

    Raises:
        UncertaintyInputError: in that case.
    """
    rank = conformal_rank(count, alpha)
    if rank > count:
        raise UncertaintyInputError(
            f"{count} inputs are too few for alpha {alpha}: every set is full. Give at least "
            f"{math.ceil(1 / alpha) - 1}."
        )
    return beta(rank, count + 1 - rank)


@dataclass(frozen=True, slots=True)
class Penalty:
    """Of RAPS: weight * max(0, rank - free), ranks from 1."""

    weight: float = 0.01
    free: int = 5

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and self.free >= 0):
            raise UncertaintyInputError(f"{self} has a number below 0; give numbers >= 0.")


class ConformalClassifier:
    """Sets of classes from probabilities.

    Scores of class k, of rank r in descending order of the probabilities:

        lac    1 - p_k: the smallest sets on average; some may be empty
        aps    p of the classes before k, + u p_k: adapts to how hard an input is
        raps   aps + weight max(0, r - free): shorter sets where there are many classes

    Args:
        score: "lac", "aps" or "raps".
        alpha: share of new inputs whose label may be missed.
        randomised: u of each input uniform in [0, 1], which makes coverage exact; else u = 1,
            which covers more than asked for. Of aps and raps.
        penalty: of raps.
        seed: of u. An input gets the same u alone, in a batch, or in another order.

    Attributes:
        threshold_: the classes with at most this score make the set; infinite if `alpha` asks for
            more inputs than there were: then every set is full.
    """

    threshold_: float
    classes_: int

    def __init__(
        self,
        score: str = "lac",
        alpha: float = 0.1,
        *,
        randomised: bool = True,
        penalty: Penalty | None = None,
        seed: int = 0,
    ) -> None:
        self.score = choose(score, SCORES, "score")
        conformal_rank(1, alpha)
        self.alpha = alpha
        self.randomised = randomised
        self.penalty = Penalty() if penalty is None else penalty
        self.seed = seed

    def fit(self, probabilities: Array, labels: Array) -> ConformalClassifier:
        """Set the threshold from held-out probabilities, shape (inputs, classes), and labels."""
        p = as_probabilities(probabilities)
        y = as_labels(labels, inputs=len(p), classes=p.shape[1])
        scores = self._scores(p)[np.arange(len(p)), y]
        self.threshold_ = conformal_threshold(scores, self.alpha)
        self.classes_ = p.shape[1]
        return self

    def predict_set(self, probabilities: Array) -> Flags:
        """Which classes are in the set of each input, shape (inputs, classes)."""
        if not hasattr(self, "threshold_"):
            raise NotFittedError("ConformalClassifier is not fitted; call fit first.")
        p = as_probabilities(probabilities)
        if p.shape[1] != self.classes_:
            raise UncertaintyInputError(
                f"probabilities have {p.shape[1]} classes, expected {self.classes_} as in fit."
            )
        return np.asarray(self._scores(p) <= self.threshold_)

    def _scores(self, p: Floats) -> Floats:
        if self.score == "lac":
            return 1 - p
        u = row_uniforms(p, self.seed) if self.randomised else np.ones(len(p))
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=1)
        before = np.cumsum(ranked, axis=1) - ranked
        scores = before + u[:, None] * ranked
        if self.score == "raps":
            rank = np.arange(1, p.shape[1] + 1)
            scores = scores + self.penalty.weight * np.maximum(0, rank - self.penalty.free)
        found = np.empty_like(p)
        np.put_along_axis(found, order, scores, axis=1)
        return found


class ConformalInterval:
    """Intervals for a number: split conformal around a mean, or CQR around two quantiles.

    With the score max(low - y, y - high): of one prediction, low = high, that is |y - mean|; of
    predicted quantiles it may be negative, and then shortens intervals that are too wide.

    Args:
        alpha: share of new inputs whose target may be missed.

    Attributes:
        threshold_: what every interval is widened by at both ends, in target units; infinite if
            `alpha` asks for more inputs than there were.
    """

    threshold_: float

    def __init__(self, alpha: float = 0.1) -> None:
        conformal_rank(1, alpha)
        self.alpha = alpha

    def fit(self, low: Array, high: Array, targets: Array) -> ConformalInterval:
        """Set the threshold from held-out predictions and targets, shape (inputs,) each."""
        below, above, y = (
            as_floats(values, name, axes=1)
            for values, name in ((low, "low"), (high, "high"), (targets, "targets"))
        )
        if not len(below) == len(above) == len(y):
            raise UncertaintyInputError(
                f"low, high and targets have lengths {len(below)}, {len(above)} and {len(y)}; "
                "give one of each for every input."
            )
        self.threshold_ = conformal_threshold(np.maximum(below - y, y - above), self.alpha)
        return self

    def predict_interval(self, low: Array, high: Array) -> tuple[Floats, Floats]:
        """Lower and upper ends; a lower one above the upper is an empty interval."""
        if not hasattr(self, "threshold_"):
            raise NotFittedError("ConformalInterval is not fitted; call fit first.")
        below, above = as_floats(low, "low", axes=1), as_floats(high, "high", axes=1)
        return below - self.threshold_, above + self.threshold_


def row_uniforms(rows: Floats, seed: int) -> Floats:
    """A number in (0, 1) for each row, from the seed and the row's own values.

    So an input's number does not depend on what stands beside it. Equal rows share one, and so
    have one set: coverage is exact where rows do not repeat.
    """
    import hashlib

    key = int(seed).to_bytes(16, "little", signed=True)
    digests = (
        hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest()
        for row in np.ascontiguousarray(rows + 0.0)
    )
    bits = np.array([int.from_bytes(digest, "little") >> 12 for digest in digests], np.float64)
    return np.asarray((bits + 0.5) * 2.0**-52)
