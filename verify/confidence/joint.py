"""Joint rows: bounds of log sum exp that use all differences at once, not one box of them.

Each difference reaches its bound at an input of its own. For F_j linear in the logits,

    log sum_j e^(F_j) >= sum_j w_j F_j + H(w)                          for every w in the simplex,
    log sum_j e^(F_j) <= log (sum_j max_ends (e^(F_j) - s_j F_j) + max sum_j s_j F_j)  for s >= 0,

the first by Gibbs' inequality (Fenchel duality of log sum exp and negative entropy), the second
because e^F - s·F is convex in F, so largest at an end of F's range; the slopes s are those of the
chords. Both leave one row to be bounded over the network. With the weights w = softmax(F at the
box's corner) and least F_j taken one by one the first is the box's own bound, so it can only gain.

Source:
    The chords are the exponential-reciprocal decomposition of Wei et al. 2023, arXiv:2303.01713;
    the tangents stand in for its log-sum-exp decomposition. Here they are applied to rows that
    are bounded once more over the network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.confidence import directed
from verify.confidence.differences import Differences
from verify.confidence.reach import Reach
from verify.values.bounds import Bounds

GRID = 2.0**-30
"""Weights are multiples of it, so that sums of a million of them are exact in float64."""


def on_grid(weights: Tensor) -> Tensor:
    """Nonnegative weights rounded down to the grid."""
    return (weights / GRID).floor() * GRID


def simplex_grid(weights: Tensor) -> Tensor:
    """Weights of sum 1, exactly: rounded down to the grid, the largest taking up the rest."""
    rounded = on_grid(weights.clamp(0, 1))
    rest = 1 - rounded.sum(dim=-1, keepdim=True)
    largest = rounded.argmax(dim=-1, keepdim=True)
    return rounded.scatter_add(-1, largest, rest)


def ranges(found: Differences) -> Bounds:
    """Ranges of F[m, j]: of z_j - z_m for m < classes, and of z_j in the last row."""
    upper = torch.cat((found.upper.mT, found.logits.upper[:, None]), dim=1)
    lower = torch.cat((-found.upper, found.logits.lower[:, None]), dim=1)
    return Bounds(lower, upper)


def boxed(of: Bounds) -> Bounds:
    """log sum_j e^(F_j) over the box of ranges alone, shape (batch, functions)."""
    return Bounds(directed.logsumexp_down(of.lower, 2), directed.logsumexp_up(of.upper, 2))


def tangents(weights: Tensor, which: Tensor) -> Tensor:
    """Rows sum_j w_j F[m, j] over the logits, exact; shapes (batch, row, classes), (row,)."""
    classes = weights.shape[2]
    own = torch.eye(classes + 1, dtype=weights.dtype)[which][:, :classes]
    return weights - own * weights.sum(dim=2, keepdim=True)


def from_below(reach: Reach, weights: Tensor, which: Tensor, temperature: float) -> Tensor:
    """Lower bounds of log sum_j e^(F[m, j] / T) by tangents, shape (batch, row).

    Args:
        reach: of the batch.
        weights: nonnegative, shape (batch, row, classes); any are sound, softmax weights near the
            minimiser are tight.
        which: the function m of each row, shape (row,).
        temperature: T.
    """
    weights = simplex_grid(weights)
    least = reach.least(tangents(weights, which))
    entropy = directed.sum_down(directed.entropy_term_down(weights), 2)
    return directed.added_down(directed.over_down(least, temperature), entropy)


def from_above(reach: Reach, of: Bounds, which: Tensor, temperature: float) -> Tensor:
    """Upper bounds of log sum_j e^(F[m, j] / T) by chords, shape (batch, row).

    Args:
        reach: of the batch.
        of: ranges of F / T, shape (batch, row, classes).
        which: the function m of each row, shape (row,).
        temperature: T.
    """
    shift = directed.logsumexp_up(of.upper, 2)[..., None]
    low, high = directed.added_up(of.lower, -shift), directed.added_up(of.upper, -shift)
    width = high - low
    slope = (high.exp() - low.exp()) / torch.where(width > 0, width, 1.0)
    slope = torch.where(width > 0, slope, high.exp())
    slope = torch.where(torch.isfinite(slope), slope, 0.0).clamp(0, 1)
    scale = slope.sum(dim=2, keepdim=True).clamp(min=GRID)
    weights = on_grid(slope / scale)
    greatest = -reach.least(-tangents(weights, which))
    # Real numbers from here on: (sum_j w_j F_j) / T <= greatest / T, with the stored w and scale.
    steep = directed.scaled_up(weights, scale)
    steep_down = directed.scaled_down(weights, scale)

    def above(end: Tensor, shifted: Tensor) -> Tensor:
        # At least e^(F - shift) - w·scale·F, whichever sign F has.
        line = torch.where(
            end > 0, directed.scaled_down(steep_down, end), -directed.scaled_up(steep, -end)
        )
        return directed.added_up(directed.exp_up(shifted), -line)

    # With no weight there is no line, and an end may be infinite.
    worst = torch.maximum(above(of.lower, low), above(of.upper, high))
    flat = directed.exp_up(high)
    worst = torch.where(weights > 0, worst, flat)
    line = directed.scaled_up(directed.over_up(greatest, temperature), scale[..., 0])
    total = directed.added_up(directed.sum_up(worst, 2), line)
    value = directed.added_up(shift[..., 0], directed.log_up(total.clamp(min=0)))
    return torch.where(torch.isnan(value), torch.inf, value)
