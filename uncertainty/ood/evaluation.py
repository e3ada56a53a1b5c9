"""How well scores tell out of distribution from in distribution: AUROC, AUPR, FPR, with intervals.

All are functions of how many inputs of each kind have each score, so ties are exact: tied pairs
count one half in AUROC, tied scores are one step of the precision-recall curve. A higher score is
more out of distribution throughout.

Source:
    AUROC's variance: DeLong, DeLong, Clarke-Pearson 1988, doi:10.2307/2531595.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

from uncertainty.arrays import as_floats
from uncertainty.errors import UncertaintyInputError
from uncertainty.seeding import derived_seed

Array = NDArray[np.float64]
BLOCK = 2**22
"""Counts held at once in the bootstrap."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure and its interval; all three in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well one detector does on one pair of data sets.

    Attributes:
        auroc: probability that an OOD input scores higher than an ID one, ties counting one half;
            interval by DeLong on the logit scale.
        aupr_out: average precision with OOD as the positive class; depends on the shares.
        aupr_in: with ID as the positive class.
        fpr: share of OOD inputs that are taken for ID where at least `tpr` of ID are kept.
        tpr: that share, as asked.
        level: of the intervals; those of AUPR and FPR by a bootstrap within each set.
        id_count, ood_count: inputs.
    """

    auroc: Measured
    aupr_out: Measured
    aupr_in: Measured
    fpr: Measured
    tpr: float
    level: float
    id_count: int
    ood_count: int


def evaluate(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    *,
    tpr: float = 0.95,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """All figures with their intervals.

    Args:
        id_scores: of in-distribution inputs that nothing was fitted on, shape (N,).
        ood_scores: shape (M,).
        tpr: share of ID to keep in FPR.
        level: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UncertaintyInputError: if a set is empty or holds NaN, or an argument is out of its range.
    """
    inside, outside = scores_of(id_scores, "id_scores"), scores_of(ood_scores, "ood_scores")
    if not (0 < tpr <= 1 and 0 < level < 1 and resamples >= 10):
        raise UncertaintyInputError(
            f"tpr is {tpr}, level {level}, resamples {resamples}; expected (0, 1], (0, 1), >= 10."
        )
    values = np.unique(np.concatenate([inside, outside]))
    counts = [
        np.bincount(np.searchsorted(values, part), minlength=len(values))[None].astype(np.float64)
        for part in (inside, outside)
    ]
    numbers = np.random.default_rng(derived_seed(seed, "ood"))
    draws = [list[Array](), list[Array](), list[Array]()]
    step = max(1, BLOCK // len(values))
    for start in range(0, resamples, step):
        many = min(step, resamples - start)
        drawn = [
            numbers.multinomial(int(c.sum()), c[0] / c.sum(), size=many).astype(np.float64)
            for c in counts
        ]
        for kept, figure in zip(draws, figures(drawn[0], drawn[1], tpr), strict=True):
            kept.append(figure)
    least = min(len(inside), len(outside))
    measured = [
        resampled(float(value[0]), np.concatenate(kept), level, least)
        for value, kept in zip(figures(counts[0], counts[1], tpr), draws, strict=True)
    ]
    return Evaluation(
        auroc=auroc_delong(inside, outside, level),
        aupr_out=measured[0],
        aupr_in=measured[1],
        fpr=measured[2],
        tpr=tpr,
        level=level,
        id_count=len(inside),
        ood_count=len(outside),
    )


def scores_of(scores: ArrayLike, name: str) -> Array:
    """Finite scores, at least one.

    Raises:
        UncertaintyInputError: if not.
    """
    found = as_floats(scores, name, axes=1)
    if not len(found):
        raise UncertaintyInputError(f"{name} is empty; there is nothing to tell apart.")
    return found


def figures(inside: Array, outside: Array, tpr: float) -> tuple[Array, Array, Array]:
    """AUPR-out, AUPR-in and FPR from counts at ascending scores, shape (R, V) -> (R,) each."""
    aupr_out = average_precision(outside[:, ::-1], inside[:, ::-1])
    aupr_in = average_precision(inside, outside)
    kept = inside.cumsum(axis=1) / inside.sum(axis=1, keepdims=True)
    at = (kept >= tpr - 1e-12).argmax(axis=1)
    taken = outside.cumsum(axis=1) / outside.sum(axis=1, keepdims=True)
    return aupr_out, aupr_in, np.take_along_axis(taken, at[:, None], axis=1)[:, 0]


def average_precision(positive: Array, negative: Array) -> Array:
    """sum (recall step) * precision over thresholds, from counts in the order of acceptance."""
    true, false = positive.cumsum(axis=1), negative.cumsum(axis=1)
    precision = true / np.maximum(true + false, 1)
    return np.asarray((positive * precision).sum(axis=1) / positive.sum(axis=1), dtype=np.float64)


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """P(ood > id) + P(ood = id) / 2, by ranks."""
    inside, outside = scores_of(id_scores, "id_scores"), scores_of(ood_scores, "ood_scores")
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :].sum()
    n, m = len(inside), len(outside)
    return float((ranks - m * (m + 1) / 2) / (n * m))


def resampled(value: float, draws: Array, level: float, least: int) -> Measured:
    """The bootstrap's percentiles; a figure that no resample moves off 0 or 1 gets an open end."""
    low, high = np.quantile(draws, (0.5 - level / 2, 0.5 + level / 2))
    if value in {0.0, 1.0} and low == high == value:
        return without_exception(value, level, least)
    return Measured(value, float(min(low, value)), float(max(high, value)))


def without_exception(value: float, level: float, least: int) -> Measured:
    """The interval of a share of 0 or 1 that `least` inputs showed no exception to.

    The open end is the share at which that would happen with probability 1 - level.
    """
    reach = float((1 - level) ** (1 / least))
    return Measured(value, reach, 1.0) if value else Measured(value, 0.0, 1 - reach)


def auroc_delong(inside: Array, outside: Array, level: float) -> Measured:
    """AUROC and DeLong's interval, taken on the logit scale so that it stays within [0, 1].

    With every pair in one order DeLong's variance is 0, nothing is said: see `without_exception`.
    """
    value, n, m = auroc(inside, outside), len(inside), len(outside)
    if value in {0.0, 1.0}:
        return without_exception(value, level, min(n, m))
    if min(n, m) < 2:
        return Measured(value, 0.0, 1.0)
    both = rankdata(np.concatenate([inside, outside]))
    of_in = 1 - (both[:n] - rankdata(inside)) / m
    of_out = (both[n:] - rankdata(outside)) / n
    variance = of_in.var(ddof=1) / n + of_out.var(ddof=1) / m
    reach = ndtri(0.5 + level / 2) * np.sqrt(variance) / (value * (1 - value))
    return Measured(value, float(expit(logit(value) - reach)), float(expit(logit(value) + reach)))
