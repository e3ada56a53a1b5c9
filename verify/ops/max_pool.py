"""MaxPool: the largest entry of each window, bounded by one entry of the window on either side."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from verify.errors import InternalError
from verify.graph.ir import Node
from verify.ops.elementwise import rounded_up, rows_times
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit


def out_shape(node: Node) -> tuple[int, ...]:
    """Shape of the output: channels, then how many windows fit along each axis."""
    shape = node.input_shapes[0]
    rank = len(shape) - 1
    pads = node.settings["pads"]
    counts = []
    for axis in range(rank):
        kernel, stride = node.settings["kernel"][axis], node.settings["stride"][axis]
        span = node.settings["dilation"][axis] * (kernel - 1) + 1
        counts.append((shape[1 + axis] + pads[axis] + pads[axis + rank] - span) // stride + 1)
    return (shape[0], *counts)


def windows(node: Node) -> Tensor:
    """Flat input index of every entry of every window, -1 for padding; shape (out, taps)."""
    settings = (node.settings[name] for name in ("kernel", "stride", "pads", "dilation"))
    return window_index(node.input_shapes[0], out_shape(node), *settings)


@lru_cache(maxsize=64)
def window_index(
    shape: tuple[int, ...],
    out: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """The same from the shapes and settings alone, so that it is computed once."""
    rank = len(shape) - 1
    order = [pads[axis + rank * side] for axis in reversed(range(rank)) for side in (0, 1)]
    place = functional.pad(torch.arange(prod(shape)).view(shape), order, value=-1)
    for axis in range(rank):
        count = out[1 + axis]
        start = torch.arange(count) * stride[axis]
        taps = torch.arange(kernel[axis]) * dilation[axis]
        index = (start[:, None] + taps[None, :]).reshape(-1)
        place = place.index_select(1 + axis, index)
        place = place.unflatten(1 + axis, (count, kernel[axis])).movedim(2 + axis, -1)
    return place.reshape(prod(out), -1)


def gathered(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """Window entries, -inf for padding; shape (any, out, taps)."""
    flat = x.flatten(1)
    picked = flat[:, index.clamp(min=0).to(x.device)]
    return picked.masked_fill((index < 0).to(x.device), float("-inf"))


def forward(node: Node, x: Tensor) -> Tensor:
    """The maximum of each window."""
    if x.ndim == 4 and not any(node.settings["pads"]):
        kernel, stride = node.settings["kernel"], node.settings["stride"]
        pooled: Tensor = functional.max_pool2d(
            x, kernel, stride, dilation=node.settings["dilation"]
        )
        return pooled
    return gathered(node, x, windows(node)).amax(dim=2).view(len(x), *out_shape(node))


def interval(node: Node, x: Bounds) -> Bounds:
    """The maximum is increasing in every entry."""
    return Bounds(forward(node, x.lower), forward(node, x.upper))


def undecided(node: Node, x: Bounds) -> Tensor:
    """Input entries that may be the largest of a window in which nothing is settled yet."""
    index = windows(node)
    lower, upper = gathered(node, x.lower, index), gathered(node, x.upper, index)
    contender = upper > lower.amax(dim=2, keepdim=True)
    best = upper.argmax(dim=2, keepdim=True)
    rest = upper.scatter(2, best, float("-inf")).amax(dim=2, keepdim=True)
    settled = rest <= lower.gather(2, best)
    wanted = contender & ~settled & (upper > lower)
    flat = torch.zeros(len(x.lower), prod(node.input_shapes[0]), device=wanted.device)
    flat.scatter_add_(
        1,
        index.clamp(min=0).reshape(1, -1).expand(len(flat), -1),
        (wanted & (index >= 0)).flatten(1).to(flat.dtype),
    )
    return (flat > 0).view_as(x.lower)


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """y >= the entry of largest midpoint; y <= a line in the entry j of largest upper end.

    With M the largest upper end among the others, y <= max(x_j, M), and the chord of that over
    [l_j, u_j] encloses it. It is never above the constant max_j u_j, and equals x_j if j dominates.
    """
    index = windows(node).to(x.lower.device)
    lower, upper = gathered(node, x.lower, index), gathered(node, x.upper, index)
    low_pick = (lower + upper).argmax(dim=2)
    high_pick = upper.argmax(dim=2)
    low_j = lower.gather(2, high_pick[..., None])[..., 0]
    high_j = upper.gather(2, high_pick[..., None])[..., 0]
    rest = upper.scatter(2, high_pick[..., None], float("-inf")).amax(dim=2)
    at_low, at_high = torch.maximum(low_j, rest), torch.maximum(high_j, rest)
    run = high_j - low_j
    slope = torch.where(run > 0, (at_high - at_low) / torch.where(run > 0, run, 1.0), 0.0)
    slope = torch.where(rest <= low_j, 1.0, slope.clamp(0, 1))
    offset = torch.maximum(at_low - slope * low_j, at_high - slope * high_j)
    size = low_j.abs() + high_j.abs() + at_low.abs()
    offset = torch.where(rest <= low_j, 0.0, rounded_up(offset, size))
    shape = (len(x.lower), 1, *node.shape)
    flat_index = index.expand(len(x.lower), -1, -1)
    return Relaxation(
        lower_slope=torch.ones_like(slope).view(shape),
        lower_offset=None,
        upper_slope=slope.view(shape),
        upper_offset=offset.view(shape),
        lower_source=flat_index.gather(2, low_pick[..., None])[..., 0],
        upper_source=flat_index.gather(2, high_pick[..., None])[..., 0],
    )


def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm]:
    """Each coefficient goes to the one input entry that its line reads."""
    if lines is None or lines.lower_source is None or lines.upper_source is None:
        raise InternalError(f"node {node.name!r} (MaxPool) was pulled back without lines")
    batch, row = form.coeff.shape[:2]
    negative = form.coeff.clamp(max=0)
    assert lines.upper_offset is not None
    const = form.const + rows_times(negative, lines.upper_offset)
    pulled = form.coeff.new_zeros(batch, row, prod(node.input_shapes[0]))
    for source, part in (
        (lines.lower_source, form.coeff - negative),
        (lines.upper_source, negative * lines.upper_slope),
    ):
        where = source[:, None].expand(batch, row, -1)
        pulled.scatter_add_(2, where, part.flatten(2))
    coeff = pulled.view(batch, row, *node.input_shapes[0])
    return (LinearForm(coeff, const, form.error),)


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds) -> Tensor:
    """One product per slope, a dot product over offsets, and sums where windows overlap."""
    size = forward(node, x.magnitude())
    taps = prod(node.settings["kernel"])
    return 6 * gamma(node.size + 2 * taps + 8, unit(dtype)) * size


register(
    Op(
        name="MaxPool",
        forward=forward,
        interval=interval,
        pull_back=pull_back,
        noise=noise,
        relax=relax,
        undecided=undecided,
        mixes=True,
    )
)
