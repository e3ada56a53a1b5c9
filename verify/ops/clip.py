"""Clip: min(max(x, low), high)."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.elementwise import elementwise, rounded_up
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation


def function(node: Node, x: Tensor) -> Tensor:
    """Clamp between the node's low and high."""
    return torch.minimum(torch.maximum(x, node.tensors["low"]), node.tensors["high"])


def interval(node: Node, x: Bounds) -> Bounds:
    """Clip is increasing: the ends map to the ends."""
    return Bounds(function(node, x.lower), function(node, x.upper))


def undecided(node: Node, x: Bounds) -> Tensor:
    """Entries with a kink strictly inside their interval."""
    low, high = node.tensors["low"], node.tensors["high"]
    inside = [(x.lower < kink) & (x.upper > kink) for kink in (low, high)]
    return inside[0] | inside[1]


def upper_line(x: Bounds, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset above the function: of two candidates the lower one at the midpoint.

    Above [l, u] the function's upper hull is one segment from (l, f(l)) to the kink at `high` (or
    to u), and then flat. Candidates: that segment's slope, and the chord over [l, u].
    """
    value_l = torch.minimum(torch.maximum(x.lower, low), high)
    value_u = torch.minimum(torch.maximum(x.upper, low), high)
    knee = torch.minimum(x.upper, high)
    value_knee = torch.minimum(torch.maximum(knee, low), high)

    def slope_to(end: Tensor, value: Tensor) -> Tensor:
        run = end - x.lower
        rise = (value - value_l) / torch.where(run > 0, run, 1.0)
        return torch.where(run > 0, rise, 0.0).clamp(0, 1)

    best_slope = torch.zeros_like(x.lower)
    best_offset = value_u
    middle = (x.lower + x.upper) / 2
    for slope in (slope_to(knee, value_knee), slope_to(x.upper, value_u)):
        # f - slope·z is piecewise linear: its maximum over [l, u] is at an end or at a kink.
        kinks = (x.lower, x.upper, *(torch.clamp(k, x.lower, x.upper) for k in (low, high)))
        gaps = [torch.minimum(torch.maximum(z, low), high) - slope * z for z in kinks]
        offset = torch.stack(gaps).amax(dim=0)
        better = slope * middle + offset < best_slope * middle + best_offset
        best_slope = torch.where(better, slope, best_slope)
        best_offset = torch.where(better, offset, best_offset)
    return best_slope, rounded_up(best_offset, x.magnitude() + value_u.abs() + value_l.abs())


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Upper line as above; the lower line is the upper one of -clip(-x), negated.

    Where the interval is inside one piece the function is linear there and both lines are it.
    """
    low = node.tensors["low"].expand_as(x.lower)
    high = node.tensors["high"].expand_as(x.lower)
    slope_up, offset_up = upper_line(x, low, high)
    slope_down, offset_down = upper_line(Bounds(-x.upper, -x.lower), -high, -low)
    inside = (x.lower >= low) & (x.upper <= high)
    one, zero = torch.ones_like(slope_up), torch.zeros_like(slope_up)
    return Relaxation(
        lower_slope=torch.where(inside, one, slope_down)[:, None],
        lower_offset=torch.where(inside, zero, -offset_down)[:, None],
        upper_slope=torch.where(inside, one, slope_up)[:, None],
        upper_offset=torch.where(inside, zero, offset_up)[:, None],
    )


elementwise(
    "Clip",
    function,
    interval=interval,
    relax=relax,
    undecided=undecided,
    steepest=lambda node: 1.0,
)
