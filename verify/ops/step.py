"""Sign, Floor, Ceil: constant between jumps, executed without rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.elementwise import pull_back_lines, rounded_up
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import FOLDED_STRETCH, SMALLEST_FLOAT32, Rounding, gamma, unit

FLUSHED = SMALLEST_FLOAT32 * FOLDED_STRETCH
"""What an executed number so near zero may be taken for: zero."""
NARROW = 1e-6
"""Intervals narrower than this, relative to their place, get flat lines: others would be steep."""


def widened(x: Bounds) -> Bounds:
    """What an execution that flushes denormals may read."""
    lower = torch.where((x.lower > 0) & (x.lower <= FLUSHED), 0.0, x.lower)
    upper = torch.where((x.upper < 0) & (x.upper >= -FLUSHED), 0.0, x.upper)
    return Bounds(lower, upper)


def interval_of(function: Callable[[Tensor], Tensor]) -> Callable[[Node, Bounds], Bounds]:
    """The interval rule of an increasing step function."""

    def interval(_node: Node, x: Bounds) -> Bounds:
        read = widened(x)
        return Bounds(function(read.lower), function(read.upper))

    return interval


def step_lines(x: Bounds, low: Tensor, high: Tensor, jump: Tensor) -> Relaxation:
    """Around a function that is `low` before a jump and `high` after it, rising.

    Below: flat at low, or from the jump at low up to the upper end at high, whichever is higher in
    the middle. Above: flat at high, or from the lower end at low up to the jump at high.

    Args:
        x: bounds, shape (batch, *node).
        low, high: the values, same shape.
        jump: the place; only read where low < high.
    """
    middle, run = (x.lower + x.upper) / 2, x.upper - x.lower
    rise = high - low
    fit = (rise > 0) & (run > NARROW * (1 + x.magnitude()))
    zero = torch.zeros_like(rise)
    sides = []
    for start, end, below in ((jump, x.upper, True), (x.lower, jump, False)):
        length = end - start
        slope = torch.where(fit & (length > 0), rise / torch.where(length > 0, length, 1.0), 0.0)
        flat = low if below else high
        # The function less slope·z, at both ends and on both sides of the jump.
        gaps = torch.stack(
            (low - slope * x.lower, low - slope * jump, high - slope * jump, high - slope * x.upper)
        )
        scale = low.abs() + high.abs() + slope * torch.maximum(x.magnitude(), jump.abs())
        if below:
            offset = -rounded_up(-gaps.amin(dim=0), scale)
            better = slope * middle + offset > flat
        else:
            offset = rounded_up(gaps.amax(dim=0), scale)
            better = slope * middle + offset < flat
        better = better & (slope > 0) & (slope * run <= 4 * rise)
        line = torch.where(better, slope, zero), torch.where(better, offset, flat)
        sides.append((line[0][:, None], line[1][:, None]))
    (lower, lower_offset), (upper, upper_offset) = sides
    return Relaxation(lower, lower_offset, upper, upper_offset)


def relax_sign(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """One jump from -1 to 1; the 0 at zero itself is between."""
    read = widened(x)
    return step_lines(x, read.lower.sign(), read.upper.sign(), torch.zeros_like(x.lower))


def relax_floor(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Exact without a jump, lines of one jump, else z - 1 <= floor(z) <= z."""
    return rounding_lines(x, torch.floor, -1.0, 0.0)


def relax_ceil(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Exact without a jump, lines of one jump, else z <= ceil(z) <= z + 1."""
    return rounding_lines(x, torch.ceil, 0.0, 1.0)


def rounding_lines(
    x: Bounds, function: Callable[[Tensor], Tensor], below: float, above: float
) -> Relaxation:
    """Lines of floor and ceil: z + below <= f(z) <= z + above."""
    read = widened(x)
    low, high = function(read.lower), function(read.upper)
    # Floor jumps at the value it reaches, ceil at the value it leaves.
    jump = high if below < 0 else low
    one = step_lines(x, low, high, jump.clamp(x.lower, x.upper))
    assert one.lower_offset is not None
    assert one.upper_offset is not None
    several = (high - low > 1)[:, None]
    reach = x.magnitude()[:, None]
    slack = rounded_up(torch.zeros_like(reach), 1 + reach)
    return Relaxation(
        torch.where(several, 1.0, one.lower_slope),
        torch.where(several, below - slack, one.lower_offset),
        torch.where(several, 1.0, one.upper_slope),
        torch.where(several, above + slack, one.upper_offset),
    )


def undecided_of(
    function: Callable[[Tensor], Tensor],
) -> Callable[[Node, Bounds], Tensor]:
    """Entries that a jump lies in."""
    return lambda _node, x: function(widened(x).lower) < function(widened(x).upper)


def noise_of(
    interval: Callable[[Node, Bounds], Bounds],
) -> Callable[[Node, Rounding, torch.dtype, Bounds], Tensor]:
    """One product per slope and a dot product over offsets: slopes are at most 4·rise / run."""

    def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds) -> Tensor:
        found, run = interval(node, x), x.upper - x.lower
        size = x.magnitude()
        fit = run > NARROW * (1 + size)
        slope = 1 + torch.where(fit, 4 * (found.upper - found.lower) / run.clamp(min=1e-300), 0.0)
        terms = found.magnitude() + 2 + 2 * slope * size
        return 2 * gamma(node.size + 8, unit(dtype)) * terms

    return noise


for _name, _function, _relax in (
    ("Sign", torch.sign, relax_sign),
    ("Floor", torch.floor, relax_floor),
    ("Ceil", torch.ceil, relax_ceil),
):
    register(
        Op(
            name=_name,
            forward=lambda node, x, function=_function: function(x),
            interval=interval_of(_function),
            pull_back=pull_back_lines,
            noise=noise_of(interval_of(_function)),
            relax=_relax,
            undecided=undecided_of(_function),
        )
    )
