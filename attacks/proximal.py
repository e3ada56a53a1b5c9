"""Proximal steps: the least of  threshold * |v|_p + |v - delta|^2 / 2  within a box."""

import math

import torch
from torch import Tensor

from attacks.projection import project_l1


def shrink(delta: Tensor, threshold: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The L1 proximal step within a box: soft threshold, then clip.

    Exact, not an approximation: the problem parts into entries, each a convex function of one
    number, and clipping the free minimiser of such a function minimises it over an interval.

    Args:
        delta, low, high: shape (rows, n), float64, low <= 0 <= high.
        threshold: shape (rows,), at least 0.

    Source:
        Beck, Teboulle 2009 (FISTA), doi:10.1137/080716542, for the threshold.
    """
    soft = delta.sign() * (delta.abs() - threshold[:, None]).clamp(min=0)
    return torch.minimum(torch.maximum(soft, low), high)


def proximal(delta: Tensor, threshold: Tensor, low: Tensor, high: Tensor, p: float) -> Tensor:
    """The proximal step of the p-norm, then clipped to the box; exact within the box for p = 1.

    L2: the row shortened by `threshold`. L-inf: what is left of the row after its projection onto
    the L1 ball of radius `threshold` (Moreau).

    Args:
        delta, low, high: shape (rows, n), float64, low <= 0 <= high.
        threshold: shape (rows,), at least 0.
        p: inf, 2 or 1.
    """
    if p == 1:
        return shrink(delta, threshold, low, high)
    if p == 2:
        length = torch.linalg.vector_norm(delta, dim=1)
        kept = (1 - threshold / torch.where(length > 0, length, 1.0)).clamp(min=0)
        free = kept[:, None] * delta
    else:
        everywhere = torch.full_like(delta, math.inf)
        free = delta - project_l1(delta, -everywhere, everywhere, threshold)
    return torch.minimum(torch.maximum(free, low), high)
