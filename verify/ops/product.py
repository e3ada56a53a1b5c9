"""Mul: the product of two tensors entry by entry, between McCormick's planes.

A plane is chosen by its slopes. What is left, x·y - s·x - t·y, is bilinear, so its extremes over a
box are at the four corners: the offset is computed there, and any slopes are sound.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.errors import InternalError
from verify.graph.ir import Node
from verify.ops.elementwise import rounded_up, rows_times
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

NARROW = 1e-6
"""Sides narrower than this, relative to their place, are as good as points."""


def corners(x: Bounds, y: Bounds) -> Tensor:
    """The products at the four corners, shape (4, batch, *node); NaN for 0·inf."""
    return torch.stack((x.lower * y.lower, x.lower * y.upper, x.upper * y.lower, x.upper * y.upper))


def interval(_node: Node, x: Bounds, y: Bounds) -> Bounds:
    """The least and the largest corner; unbounded where a corner is not known."""
    found = corners(x, y)
    unknown = torch.isnan(found).any(dim=0)
    return Bounds(
        torch.where(unknown, -torch.inf, found.amin(dim=0)),
        torch.where(unknown, torch.inf, found.amax(dim=0)),
    )


def initial(_node: Node, x: Bounds, y: Bounds) -> Tensor:
    """Halfway between the two planes of either side: all are equally near on average."""
    return torch.full_like(x.lower, 0.5).expand(2, *x.lower.shape)[:, :, None]


def relax(node: Node, x: Bounds, alpha: Tensor | None, y: Bounds) -> Relaxation:
    """Planes between McCormick's two below and his two above, at shares alpha.

    Below: slopes from (y_l, x_l) to (y_u, x_u); above: from (y_l, x_u) to (y_u, x_l).

    Source:
        McCormick 1976; that all mixtures have one mean gap: the gap of a corner's plane is
        (x - x_l)(y - y_l), whose mean is that of any other corner's.
    """
    shares = initial(node, x, y) if alpha is None else alpha
    low_x, high_x, low_y, high_y = (t[:, None] for t in (x.lower, x.upper, y.lower, y.upper))
    size = (x.magnitude() * y.magnitude())[:, None]
    sides = []
    for share, first, last, side in ((shares[0], low_x, high_x, -1), (shares[1], high_x, low_x, 1)):
        in_x, in_y = torch.lerp(low_y, high_y, share), torch.lerp(first, last, share)
        gaps = torch.stack(
            [side * (a * b - in_x * a - in_y * b) for a in (low_x, high_x) for b in (low_y, high_y)]
        )
        sides.append((in_x, side * rounded_up(gaps.amax(dim=0), 4 * size), in_y))
    (low, low_offset, low_second), (high, high_offset, high_second) = sides
    second = Relaxation(low_second, None, high_second, None)
    return Relaxation(low, low_offset, high, high_offset, second=second)


def undecided(node: Node, x: Bounds, y: Bounds) -> tuple[Tensor, Tensor]:
    """Entries of which neither factor is a point: the gap is the product of the two radii."""
    wide = [b.upper - b.lower > NARROW * (1 + b.magnitude()) for b in (x, y)]
    both = wide[0] & wide[1]
    return both, both


def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm, ...]:
    """A+·lower + A-·upper, in x and in y."""
    if lines is None or lines.second is None:
        raise InternalError(f"node {node.name!r} ({node.op}) was pulled back without planes")
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    negative = form.coeff.clamp(max=0)
    positive = form.coeff - negative
    const = form.const + rows_times(negative, lines.upper_offset)
    const = const + rows_times(positive, lines.lower_offset)
    pieces = [
        positive * part.lower_slope + negative * part.upper_slope for part in (lines, lines.second)
    ]
    zero = torch.zeros_like(const)
    return LinearForm(pieces[0], const, form.error), LinearForm(pieces[1], zero)


def along(node: Node, lines: Relaxation, coeff: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Each row's own plane: the lower one where the coefficient is positive."""
    assert lines.second is not None
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    lower = x * lines.lower_slope + y * lines.second.lower_slope + lines.lower_offset
    upper = x * lines.upper_slope + y * lines.second.upper_slope + lines.upper_offset
    return torch.where(coeff > 0, lower, upper)


def ascend(
    node: Node,
    x: Bounds,
    alpha: Tensor,
    coeff: Tensor,
    value: Tensor,
    y: Bounds,
    other: Tensor,
) -> Tensor:
    """d (share·plane_2 + (1 - share)·plane_1) / d share  =  plane_2 - plane_1."""
    low_x, high_x, low_y, high_y = (t[:, None] for t in (x.lower, x.upper, y.lower, y.upper))
    below = (high_y - low_y) * value + (high_x - low_x) * other - (high_x * high_y - low_x * low_y)
    above = (high_y - low_y) * value + (low_x - high_x) * other - (low_x * high_y - high_x * low_y)
    return torch.stack((coeff.clamp(min=0) * below, coeff.clamp(max=0) * above))


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds, y: Bounds) -> Tensor:
    """The executed product rounds once (twice after a reciprocal), and may be flushed."""
    first, second = x.magnitude(), y.magnitude()
    reach = first * second
    ours = 16 * gamma(node.size + 8, unit(dtype)) * reach
    theirs = 3 * rounding.execution * reach + rounding.smallest * (2 + first + second)
    return torch.where(reach < rounding.largest, ours + theirs, torch.inf)


register(
    Op(
        name="Mul",
        forward=lambda node, x, y: x * y,
        interval=interval,
        pull_back=pull_back,
        noise=noise,
        rounds=True,
        relax=relax,
        undecided=undecided,
        free=2,
        initial=initial,
        ascend=ascend,
        along=along,
        mixes=True,
    )
)
