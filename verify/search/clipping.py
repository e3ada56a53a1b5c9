"""Clipping: the part of a box where a linear row may still fail, as a smaller box.

If a row is at least a·x + b on a box, it can only be <= 0 where a·x + b <= 0. For each input the
others are put where they help most, which leaves a bound of that input:

    a_i x_i <= -b - sum over j of min(a_j l_j, a_j u_j), j other than i.

Computed in float64, moved outward past its own rounding, and then out to a float32.

Source:
    Zhou et al. 2025 (Clip-and-Verify), arXiv:2512.11087, relaxed clipping.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.values.rounding import SMALLEST_FLOAT64, UNIT_FLOAT64, gamma

QUOTIENT = 2.0**-49
"""Relative widening that pays for a sum, a quotient and itself in float64."""


def down(values: Tensor) -> Tensor:
    """The largest float32 that is at most each float64 value, as float64."""
    single = values.to(torch.float32)
    lower = torch.nextafter(single, single.new_tensor(-torch.inf))
    return torch.where(single.to(torch.float64) > values, lower, single).to(torch.float64)


def up(values: Tensor) -> Tensor:
    """The smallest float32 that is at least each float64 value, as float64."""
    return -down(-values)


def clipped(lower: Tensor, upper: Tensor, coeff: Tensor, const: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes cut down to where one row per box may be <= 0.

    Args:
        lower, upper: float64, shape (batch, inputs).
        coeff, const: a plane below the row, shapes (batch, inputs) and (batch,).

    Returns:
        The new ends; lower > upper somewhere where the row is positive on all of the box.
        NaN changes nothing.
    """
    terms = torch.minimum(coeff * lower, coeff * upper)
    size = torch.maximum((coeff * lower).abs(), (coeff * upper).abs())
    size = size.sum(dim=1) + const.abs()
    error = gamma(2 * coeff.shape[1] + 16, UNIT_FLOAT64) * size * (1 + QUOTIENT)
    error = error + coeff.shape[1] * SMALLEST_FLOAT64
    # What the others and the constant leave for a_i·x_i, at most.
    room = (error - terms.sum(dim=1) - const)[:, None] + terms
    limit = room / coeff
    limit = limit + limit.abs() * QUOTIENT * coeff.sign()
    # An input without a coefficient, and whatever is NaN, fails both comparisons.
    above = (coeff > 0) & (limit < upper)
    below = (coeff < 0) & (limit > lower)
    new_upper = torch.where(above, up(limit), upper)
    new_lower = torch.where(below, down(limit), lower)
    # Coefficients may all be zero, or the limits lie outside: nothing of the box is left.
    empty = (terms.sum(dim=1) + const - error > 0)[:, None]
    return torch.where(empty, torch.inf, new_lower), torch.where(empty, -torch.inf, new_upper)


def hull(
    lower: Tensor,
    upper: Tensor,
    coeff: Tensor,
    const: Tensor,
    clauses: list[list[int]],
    open_: Tensor,
    rounds: int = 2,
) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest boxes found around the inputs where some open clause may be met.

    A clause is met where all of its rows are <= 0, so each of its rows clips in turn.

    Args:
        lower, upper: float64, shape (batch, inputs).
        coeff, const: planes below rows, shapes (batch, row, inputs) and (batch, row).
        clauses: the rows of each clause.
        open_: which clauses may be met, bool, (batch, clause).
        rounds: how often each clause's rows clip; what one cut off can help the others.

    Returns:
        Lower and upper ends, and which clauses are still open.
    """
    least = torch.full_like(lower, torch.inf)
    most = torch.full_like(upper, -torch.inf)
    still = open_.clone()
    for number, rows in enumerate(clauses):
        if not bool(open_[:, number].any()):
            continue
        low, high = lower, upper
        for row in rows * (rounds if len(rows) > 1 else 1):
            low, high = clipped(low, high, coeff[:, row], const[:, row])
        alive = open_[:, number] & ~(low > high).any(dim=1)
        still[:, number] = alive
        least = torch.where(alive[:, None], torch.minimum(least, low), least)
        most = torch.where(alive[:, None], torch.maximum(most, high), most)
    return least, most, still
