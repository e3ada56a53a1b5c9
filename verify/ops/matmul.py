"""MatMul of two tensors that both depend on the input, between sums of McCormick's planes.

Without slopes of its own a row is linearised about the middle of the box:

    x·y = x·c + d·y - d·c + (x - d)(y - c),

summed over the inner axis, with d and c the middles of x and y: the last term is at most the
product of the radii. Both planes have the same slopes, two matrices, so a row is pulled back by two
matrix products. Their mean gap is that of McCormick's, of which they are the mean: slopes of a
row's own, one for every product of two entries, move each from one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.errors import InternalError
from verify.graph.ir import Node
from verify.ops.elementwise import rows_times
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

NARROW = 1e-6
"""Radii smaller than this, relative to their place, are as good as none."""
MOST_PRODUCTS = 2**24
"""Products of single entries that the interval rule lays out; beyond them it uses radii."""


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """Middles and radii: every value is within radius of middle; shapes as the bounds."""

    middle: Tensor
    radius: Tensor


def ball(x: Bounds) -> Ball:
    """The smallest ball around bounds, rounded up."""
    middle = (x.lower + x.upper) / 2
    radius = torch.maximum(x.upper - middle, middle - x.lower)
    return Ball(middle, radius * (1 + 4 * unit(radius.dtype)))


def interval(node: Node, x: Bounds, y: Bounds) -> Bounds:
    """Sums of the least and of the largest products."""
    inner = x.lower.shape[-1]
    if len(x.lower) * node.size * inner > MOST_PRODUCTS:
        first, second = ball(x), ball(y)
        middle = first.middle @ second.middle
        spread = first.middle.abs() @ second.radius
        spread = spread + first.radius @ (second.middle.abs() + second.radius)
        return Bounds(middle - spread, middle + spread)
    a, b, c, d = x.lower[..., None], x.upper[..., None], y.lower[..., None, :, :], None
    d = y.upper[..., None, :, :]
    products = torch.stack((a * c, a * d, b * c, b * d))
    return Bounds(products.amin(dim=0).sum(dim=-2), products.amax(dim=0).sum(dim=-2))


def relax(node: Node, x: Bounds, alpha: Tensor | None, y: Bounds) -> Relaxation:
    """Slopes c in x and d in y; offsets -(d·c +- the product of the radii), rounded outward."""
    first, second = ball(x), ball(y)
    slack = 0.0  # in the float32 of searches nothing is moved
    if first.middle.dtype == torch.float64:
        slack = gamma(4 * x.lower.shape[-1] + 16, unit(first.middle.dtype))
    size = (first.middle.abs() + first.radius) @ (second.middle.abs() + second.radius)
    room = 4 * slack * size
    if alpha is not None:
        return moved_planes(x, alpha, y, room)
    centre = first.middle @ second.middle
    gap = first.radius @ second.radius + room
    in_x, in_y = second.middle[:, None], first.middle[:, None]
    return Relaxation(
        in_x,
        (-centre - gap)[:, None],
        in_x,
        (gap - centre)[:, None],
        second=Relaxation(in_y, None, in_y, None),
        mixed=True,
    )


def products_of(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Entries (*lead, m, k) and (*lead, k, n) laid out beside each other as (*lead, m, n, k)."""
    return x[..., :, None, :], y.transpose(-1, -2)[..., None, :, :]


def initial(_node: Node, x: Bounds, y: Bounds) -> Tensor:
    """Halfway between the two planes of either side, for every product of two entries."""
    first, second = products_of(x.lower, y.lower)
    half = torch.full_like(first, 0.5) + 0 * second
    return half.expand(2, *half.shape)[:, :, None]


def moved_planes(x: Bounds, alpha: Tensor, y: Bounds, room: Tensor) -> Relaxation:
    """Sums of planes between McCormick's two below and his two above, at shares alpha.

    Below: slopes from (y_l, x_l) to (y_u, x_u); above: from (y_l, x_u) to (y_u, x_l). What is left,
    x·y - s·x - t·y, is bilinear: its extremes are at the corners, where the offset is computed.

    Args:
        x, y: bounds.
        alpha: shape (2, batch, row, *lead, m, n, k).
        room: what the sums' rounding may take, shape (batch, *node).

    Returns:
        Slopes of shape (batch, row, *lead, m, n, k).
    """
    low_x, low_y = (t[:, None] for t in products_of(x.lower, y.lower))
    high_x, high_y = (t[:, None] for t in products_of(x.upper, y.upper))
    sides = []
    for share, start, end, side in ((alpha[0], low_x, high_x, -1), (alpha[1], high_x, low_x, 1)):
        in_x, in_y = torch.lerp(low_y, high_y, share), torch.lerp(start, end, share)
        gap = None
        for a in (low_x, high_x):
            for b in (low_y, high_y):
                corner = side * (a * b - in_x * a - in_y * b)
                gap = corner if gap is None else torch.maximum(gap, corner)
        assert gap is not None
        sides.append((in_x, side * (gap.sum(dim=-1) + room[:, None]), in_y))
    (low, low_offset, low_second), (high, high_offset, high_second) = sides
    second = Relaxation(low_second, None, high_second, None)
    return Relaxation(low, low_offset, high, high_offset, second=second, mixed=True)


def ascend(
    node: Node, x: Bounds, alpha: Tensor, coeff: Tensor, value: Tensor, y: Bounds, other: Tensor
) -> Tensor:
    """d (share·plane_2 + (1 - share)·plane_1) / d share  =  plane_2 - plane_1, of each product."""
    low_x, low_y = (t[:, None] for t in products_of(x.lower, y.lower))
    high_x, high_y = (t[:, None] for t in products_of(x.upper, y.upper))
    at_x, at_y = products_of(value, other)
    wide_x, wide_y = high_x - low_x, high_y - low_y
    below = wide_y * at_x + wide_x * at_y - (high_x * high_y - low_x * low_y)
    above = wide_y * at_x - wide_x * at_y - (low_x * high_y - high_x * low_y)
    read = coeff[..., None]
    return torch.stack((read.clamp(min=0) * below, read.clamp(max=0) * above))


def is_moved(node: Node, lines: Relaxation) -> bool:
    """Whether the slopes are those of every product, not two matrices."""
    return lines.lower_slope.ndim == len(node.shape) + 3


def undecided(node: Node, x: Bounds, y: Bounds) -> tuple[Tensor, Tensor]:
    """Entries that are no points and meet an entry that is none."""
    wide = [b.upper - b.lower > NARROW * (1 + b.magnitude()) for b in (x, y)]
    meets_x = wide[1].any(dim=-1)[..., None, :]  # per inner index: some entry of y's row is wide
    meets_y = wide[0].any(dim=-2)[..., :, None]
    return wide[0] & meets_x, wide[1] & meets_y


def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm, ...]:
    """A·c' in x and d'·A in y."""
    if lines is None or lines.second is None:
        raise InternalError(f"node {node.name!r} (MatMul) was pulled back without planes")
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    negative = form.coeff.clamp(max=0)
    const = form.const + rows_times(negative, lines.upper_offset)
    const = const + rows_times(form.coeff - negative, lines.lower_offset)
    if is_moved(node, lines):
        above, below = negative[..., None], (form.coeff - negative)[..., None]
        in_x = (below * lines.lower_slope + above * lines.upper_slope).sum(dim=-2)
        second = lines.second
        in_y = (below * second.lower_slope + above * second.upper_slope).sum(dim=-3)
        zero = torch.zeros_like(const)
        return LinearForm(in_x, const, form.error), LinearForm(in_y.transpose(-1, -2), zero)
    in_x = form.coeff @ lines.lower_slope.transpose(-1, -2)
    in_y = lines.second.lower_slope.transpose(-1, -2) @ form.coeff
    return LinearForm(in_x, const, form.error), LinearForm(in_y, torch.zeros_like(const))


def along(node: Node, lines: Relaxation, coeff: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Each row's own plane at its values."""
    assert lines.second is not None
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    if is_moved(node, lines):
        at_x, at_y = products_of(x, y)
        low = (at_x * lines.lower_slope + at_y * lines.second.lower_slope).sum(dim=-1)
        high = (at_x * lines.upper_slope + at_y * lines.second.upper_slope).sum(dim=-1)
        return torch.where(coeff > 0, low + lines.lower_offset, high + lines.upper_offset)
    shared = x @ lines.lower_slope + lines.second.lower_slope @ y
    return shared + torch.where(coeff > 0, lines.lower_offset, lines.upper_offset)


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds, y: Bounds) -> Tensor:
    """A dot product when executed, in any order; two when pulled back, and one over offsets."""
    inner = x.lower.shape[-1]
    first, second = x.magnitude(), y.magnitude()
    reach = first @ second
    longest = inner + max(*node.shape[-2:], node.size)
    ours = 16 * gamma(longest + 8, unit(dtype)) * reach
    axes = list(range(1, first.ndim))
    biggest = first.amax(dim=axes) + second.amax(dim=axes)
    theirs = gamma(inner + 4, rounding.execution) * reach
    flushed = 4 * (inner + 4) * rounding.smallest * (1 + biggest)
    safe = inner * (1 + biggest) ** 2 < rounding.largest
    flushed = torch.where(safe, flushed, torch.inf)
    return ours + theirs + flushed.view(-1, *[1] * len(node.shape))


register(
    Op(
        name="MatMul",
        forward=lambda node, x, y: x @ y,
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
