"""MatMul of two tensors that both depend on the input: linearised about the middle of the box.

x·y = x·c + d·y - d·c + (x - d)(y - c), summed over the inner axis, with d and c the middles of x
and y: the last term is at most the product of the radii. Both planes have the same slopes, two
matrices, so a row is pulled back by two matrix products. Their mean gap is that of McCormick's.
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
    centre = first.middle @ second.middle
    gap = first.radius @ second.radius
    slack = 0.0  # in the float32 of searches nothing is moved
    if centre.dtype == torch.float64:
        slack = gamma(4 * x.lower.shape[-1] + 16, unit(centre.dtype))
    size = (first.middle.abs() + first.radius) @ (second.middle.abs() + second.radius)
    gap = gap + 4 * slack * size
    in_x, in_y = second.middle[:, None], first.middle[:, None]
    return Relaxation(
        in_x,
        (-centre - gap)[:, None],
        in_x,
        (gap - centre)[:, None],
        second=Relaxation(in_y, None, in_y, None),
        mixed=True,
    )


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
    in_x = form.coeff @ lines.lower_slope.transpose(-1, -2)
    in_y = lines.second.lower_slope.transpose(-1, -2) @ form.coeff
    return LinearForm(in_x, const, form.error), LinearForm(in_y, torch.zeros_like(const))


def along(node: Node, lines: Relaxation, coeff: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Each row's own plane at its values."""
    assert lines.second is not None
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    shared = x @ lines.lower_slope + lines.second.lower_slope @ y
    return shared + torch.where(coeff > 0, lines.lower_offset, lines.upper_offset)


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds, y: Bounds) -> Tensor:
    """A dot product when executed, in any order; two when pulled back, and one over offsets."""
    inner = x.lower.shape[-1]
    first, second = x.magnitude(), y.magnitude()
    reach = first @ second
    longest = max(inner, *node.shape[-2:], node.size)
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
        along=along,
        mixes=True,
    )
)
