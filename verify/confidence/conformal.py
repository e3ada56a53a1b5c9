"""Conformal sets that keep their coverage under perturbation, by certified scores.

The score of class k is 1 - p_k (LAC). With n calibration inputs the threshold q is the
ceil((n + 1)(1 - alpha))-th smallest of

    1 - p_y              plain: P(y in set) >= 1 - alpha for clean inputs,
    1 - lower bound p_y  certified at calibration (VRCP-C): the same for attacked ones,

and the set of an input is {k : 1 - p_k <= q}; or, with the plain threshold, every class whose upper
bound allows it, {k : 1 - upper bound p_k <= q} over the ball around the input received (VRCP-I).
The guarantee is marginal, over exchangeable calibration and test inputs, for any attack within eps.

Source:
    Jeary et al. 2024 (VRCP), arXiv:2405.18942; score: Sadinle et al. 2019 (LAC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from verify.confidence.calibration import Range
from verify.confidence.scores import Scores
from verify.errors import DataError, SettingError
from verify.values.bounds import Bounds


def check_alpha(alpha: float) -> None:
    """Refuse what is no share of misses."""
    if not 0 < alpha < 1:
        raise SettingError(
            f"alpha is {alpha!r}, expected the share of inputs whose set may miss the label, "
            "between 0 and 1; write for example 0.1"
        )


def lac_threshold(scores: Tensor, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest score; infinite (every class) if there are fewer.

    Args:
        scores: of the labels of the calibration inputs, shape (n,).
        alpha: share of misses allowed, in (0, 1).

    Raises:
        SettingError: if alpha is out of its range.
        DataError: if a score is NaN.
    """
    check_alpha(alpha)
    if bool(torch.isnan(scores).any()):
        raise DataError("a calibration score is NaN; clean the calibration data first")
    # By the decimal that was written: in floats, 10·(1 - 0.1) may lie a hair beside 9.
    rank = math.ceil((len(scores) + 1) * (1 - Fraction(repr(float(alpha)))))
    return math.inf if rank > len(scores) else float(scores.sort().values[rank - 1])


def sets(probability: Tensor, threshold: float) -> Tensor:
    """{k : 1 - p_k <= q} as a mask, shape of the probabilities (batch, classes)."""
    return 1 - probability <= threshold


def smallest(probability: Bounds, threshold: float) -> Tensor:
    """Classes in the set of every input of the region; bool, (batch, classes)."""
    return sets(probability.lower, threshold)


def largest(probability: Bounds, threshold: float) -> Tensor:
    """Classes in the set of some input of the region, so all that VRCP-I admits; (batch, classes).

    1 - p is rounded to nearest in both, which is monotone: bounds stay bounds.
    """
    return sets(probability.upper, threshold)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is certified of conformal sets on a test set.

    Attributes:
        threshold: q.
        coverage: range of the share of inputs whose set holds the label, whatever the attack.
        size: range of the mean number of classes in a set.
    """

    threshold: float
    coverage: Range
    size: Range


def certified_coverage(found: Scores, threshold: float) -> Coverage:
    """Ranges of coverage and set size of {k : 1 - p_k <= q} over the inputs' regions."""
    least, most = smallest(found.probability, threshold), largest(found.probability, threshold)
    count = max(1, len(found.labels))
    own = found.labels[:, None]
    held = Range(
        int(least.gather(1, own).sum()) / count,
        int(most.gather(1, own).sum()) / count,
    )
    return Coverage(threshold, held, Range(int(least.sum()) / count, int(most.sum()) / count))


def robust_threshold(found: Scores, alpha: float) -> float:
    """The VRCP-C threshold from certified scores of the calibration inputs."""
    own = found.probability.lower.gather(1, found.labels[:, None]).squeeze(1)
    return lac_threshold(1 - own, alpha)
