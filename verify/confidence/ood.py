"""Certified out-of-distribution detection: what a score still separates when inputs are moved.

In distribution is told by a high score (confidence, or minus the entropy, or minus the energy).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.confidence.calibration import Range
from verify.errors import DataError
from verify.values.bounds import Bounds


def auroc(inside: Tensor, outside: Tensor) -> float:
    """P(score of an ID input > score of an OOD input) + half of P(equal), over all pairs.

    Args:
        inside, outside: scores of in- and out-of-distribution inputs, shape (n,), (m,).

    Raises:
        DataError: if either is empty or holds NaN.
    """
    if not len(inside) or not len(outside):
        raise DataError("an AUROC needs inputs of both kinds, but one has none; give both")
    if bool(torch.isnan(inside).any()) or bool(torch.isnan(outside).any()):
        raise DataError("a score is NaN, which ranks nowhere; clean the data first")
    ordered = outside.to(torch.float64).sort().values
    inside = inside.to(torch.float64).contiguous()
    below = torch.searchsorted(ordered, inside, right=False).sum()
    not_above = torch.searchsorted(ordered, inside, right=True).sum()
    # Twice the statistic is a whole number, so the only rounding is that of the quotient.
    return int(below + not_above) / (2 * len(inside) * len(outside))


@dataclass(frozen=True, slots=True)
class Separation:
    """AUROC of ID against OOD inputs under attack.

    Attributes:
        outside: range where only OOD inputs are moved: the usual threat.
        both: range where ID inputs are moved, too.
    """

    outside: Range
    both: Range


def certified_auroc(clean: Tensor, inside: Bounds, outside: Bounds) -> Separation:
    """The certified ranges of the AUROC; the lower end is the guaranteed AUROC.

    Args:
        clean: scores of the ID inputs themselves, shape (n,).
        inside: bounds of their scores over their regions.
        outside: bounds of the OOD inputs' scores over theirs, shape (m,).

    Source:
        Bitterwolf et al. 2020 (GOOD), arXiv:2007.08473, for the first; bounds by differences here.
    """
    return Separation(
        Range(auroc(clean, outside.upper), auroc(clean, outside.lower)),
        Range(auroc(inside.lower, outside.upper), auroc(inside.upper, outside.lower)),
    )


def certified_rejection(confidence: Bounds, threshold: float) -> Range:
    """The range of the share of inputs whose confidence is below the threshold.

    The lower end counts inputs that stay below it everywhere in their region.
    """
    count = max(1, len(confidence.upper))
    always = int((confidence.upper < threshold).sum())
    sometimes = int((confidence.lower < threshold).sum())
    return Range(always / count, sometimes / count)
