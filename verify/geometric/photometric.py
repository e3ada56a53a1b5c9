"""Contrast, brightness and the final clamp, on pixels that are affine in the parameters already.

Forms have shape (2, 1 + parameter, channel, box, pixel): lower and upper; constant, then slopes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.geometric.sampling import UPWARD, Cells
from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.values.bounds import Bounds
from verify.values.rounding import SMALLEST_FLOAT32, UNIT_FLOAT32

EXECUTED_ROUNDING = 4 * UNIT_FLOAT32
"""The parameter is rounded and so is the result, each relative to it; ours, in float64, is less."""


def times(first: Bounds, second: Bounds) -> Bounds:
    """The product of two intervals, up to rounding."""
    ends = [a * b for a in (first.lower, first.upper) for b in (second.lower, second.upper)]
    low, high = ends[0], ends[0]
    for end in ends[1:]:
        low, high = torch.minimum(low, end), torch.maximum(high, end)
    return Bounds(low, high)


def changed(kind: str, i: int, cells: Cells, forms: Tensor, bounds: Bounds) -> Bounds:
    """Put one more parameter into the forms, in place; returns the new bounds.

        contrast:    (a + r·t)·v = a·v + r·t·m + r·t·(v - m),  |v - m| <= h
        brightness:  v + b + r·t, exactly

    Args:
        kind: "contrast" or "brightness".
        i: the parameter's number.
        cells: the boxes.
        forms: see the module.
        bounds: of the pixels, shape (channel, box, pixel).
    """
    centre, radius = cells.centre[:, i, None], cells.radius[:, i, None]
    if kind == "brightness":
        forms[:, 0] += centre
        forms[:, 1 + i] += radius
        found = Bounds(bounds.lower + (centre - radius), bounds.upper + (centre + radius))
        size = bounds.magnitude() + centre.abs() + radius
    else:
        middle = (bounds.lower + bounds.upper) / 2
        half = (bounds.upper - bounds.lower) / 2 * UPWARD
        forms *= centre
        forms[:, 1 + i] += radius * middle
        forms[0, 0] -= radius * half * UPWARD
        forms[1, 0] += radius * half * UPWARD
        found = times(Bounds(centre - radius, centre + radius), bounds)
        size = (centre + radius) * bounds.magnitude()
    slack = (size * EXECUTED_ROUNDING + SMALLEST_FLOAT32) * UPWARD
    forms[0, 0] -= slack
    forms[1, 0] += slack
    return Bounds(found.lower - slack, found.upper + slack)


def clamped(forms: Tensor, bounds: Bounds) -> Bounds:
    """Forms around clamp(v, 0, 1), in place, by lines on the forms' own range.

    The clamp is increasing, so clamp(v) >= clamp(lower form) >= line(lower form), and above
    likewise.
    """
    shape = tuple(forms.shape[2:])
    zero, one = forms.new_zeros(()), forms.new_ones(())
    node = Node("clamp", "Clip", (), shape, tensors={"low": zero, "high": one})
    op = lookup(node)
    assert op.relax is not None
    spread = forms[:, 1:].abs().sum(dim=1) * UPWARD
    outward = (forms[:, 0].abs() + spread) * (UPWARD - 1.0)
    low, high = forms[:, 0] - spread - outward, forms[:, 0] + spread + outward
    under = op.relax(node, Bounds(low[0], high[0]), None)
    over = op.relax(node, Bounds(low[1], high[1]), None)
    assert under.lower_offset is not None
    assert over.upper_offset is not None
    forms[0] *= under.lower_slope[:, 0]
    forms[1] *= over.upper_slope[:, 0]
    forms[0, 0] += under.lower_offset[:, 0] - outward[0]
    forms[1, 0] += over.upper_offset[:, 0] + outward[1]
    return op.interval(node, bounds)
