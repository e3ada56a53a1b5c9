"""Pooling, and sums and means over axes."""

from __future__ import annotations

from math import prod

import torch

from verify.readers.onnx_conv import Windows, convolution, read_windows, refuse_many, spread
from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode


def pool_input(importer: Importer, node: OnnxNode) -> Variable:
    """The input of a pool, shape (1, channels, *spatial)."""
    value = importer.batched(node, importer.variable(node, 0))
    if len(value.shape) not in (3, 4, 5):
        raise node.unsupported(f"pooling an input of shape {value.shape}")
    return value


def pool_windows(importer: Importer, node: OnnxNode, value: Variable) -> Windows:
    """The windows of a pool, each of which must hold an entry of the input."""
    if node.integers("kernel_shape") is None:
        raise node.invalid("attribute 'kernel_shape' is missing")
    rank = len(value.shape) - 2
    kernel = spread(node, "kernel_shape", rank, 1, 1)
    windows = read_windows(importer, node, value, kernel, ceil=node.flag("ceil_mode", False))
    for axis in range(rank):
        span = (kernel[axis] - 1) * windows.dilation[axis] + 1
        if windows.before[axis] >= span or windows.after[axis] >= span:
            raise node.invalid("a window lies in the padding altogether")
    refuse_many(node, windows, value.shape[1])
    return windows


@reads("MaxPool")
def read_max_pool(importer: Importer, node: OnnxNode) -> list[Value]:
    """The maximum of each window."""
    value = pool_input(importer, node)
    windows = pool_windows(importer, node, value)
    after = tuple(a + s for a, s in zip(windows.after, windows.spill, strict=True))
    settings = {
        "kernel": windows.kernel,
        "stride": windows.stride,
        "pads": (*windows.before, *after),
        "dilation": windows.dilation,
    }
    return [importer.emit("MaxPool", (value,), node, batch=True, settings=settings)]


@reads("GlobalMaxPool")
def read_global_max_pool(importer: Importer, node: OnnxNode) -> list[Value]:
    """The maximum of each channel."""
    value = pool_input(importer, node)
    rank = len(value.shape) - 2
    settings = {
        "kernel": value.shape[2:],
        "stride": (1,) * rank,
        "pads": (0,) * (2 * rank),
        "dilation": (1,) * rank,
    }
    return [importer.emit("MaxPool", (value,), node, batch=True, settings=settings)]


@reads("AveragePool")
def read_average_pool(importer: Importer, node: OnnxNode) -> list[Value]:
    """The mean of each window, as a convolution of every channel with itself.

    Where windows count different numbers of entries (padding left out of the mean, or a last window
    that spills over), the convolution sums, and a scale per position divides.
    """
    value = pool_input(importer, node)
    windows = pool_windows(importer, node, value)
    channels, taps = value.shape[1], prod(windows.kernel)
    counts = entries_counted(value.shape[2:], windows, node.flag("count_include_pad", False))
    uniform = bool((counts == counts.flatten()[0]).all())
    if bool((counts < 1).any()):
        raise node.invalid("a window lies in the padding altogether")
    weight = torch.ones((channels, 1, *windows.kernel), dtype=torch.float64)
    if uniform:
        weight = weight / counts.flatten()[0]
    bias = weight.new_zeros(channels)
    step = "" if uniform else "sums"
    importer.guard(node, (channels, taps))
    sums = convolution(importer, node, value, windows, weight, bias, channels, step=step)
    if uniform:
        return [sums]
    zero = torch.zeros((), dtype=torch.float64)
    return [importer.scale_shift(node, sums, 1.0 / counts[None], zero)]


def entries_counted(
    spatial: tuple[int, ...], windows: Windows, include_padding: bool
) -> torch.Tensor:
    """How many entries each window's mean divides by, shape (*count)."""
    total = torch.ones((), dtype=torch.float64)
    for axis, n in enumerate(spatial):
        start = torch.arange(windows.count[axis]) * windows.stride[axis] - windows.before[axis]
        taps = torch.arange(windows.kernel[axis]) * windows.dilation[axis]
        place = start[:, None] + taps[None, :]
        low = -windows.before[axis] if include_padding else 0
        high = n + windows.after[axis] if include_padding else n
        inside = ((place >= low) & (place < high)).sum(dim=1).to(torch.float64)
        total = total[..., None] * inside
    return total


@reads("GlobalAveragePool")
def read_global_average_pool(importer: Importer, node: OnnxNode) -> list[Value]:
    """The mean of each channel."""
    value = pool_input(importer, node)
    axes = tuple(range(2, len(value.shape)))
    return [reduced(importer, node, value, axes, mean=True, keep=True)]


@reads("ReduceMean", "ReduceSum")
def read_reduce(importer: Importer, node: OnnxNode) -> list[Value]:
    """Sum or mean over axes; axes are an attribute or, in newer opsets, an input."""
    value = importer.variable(node, 0)
    rank = len(value.shape)
    given = importer.listed(node, "axes", 1) or ()
    if not given and node.flag("noop_with_empty_axes", False):
        return [value]
    axes = node.axes(given, rank) if given else tuple(range(rank))
    keep = node.flag("keepdims", True)
    if 0 in axes:
        value = importer.whole(node, value, "a reduction over axis 0")
    return [reduced(importer, node, value, axes, mean=node.op == "ReduceMean", keep=keep)]


def reduced(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    axes: tuple[int, ...],
    *,
    mean: bool,
    keep: bool,
    step: str = "",
) -> Variable:
    """Sum or mean over axes of the file's tensor, other than its batch axis."""
    terms = prod(value.shape[axis] for axis in axes)
    scale = torch.tensor(1.0 / terms if mean else 1.0, dtype=torch.float64)
    inner = tuple(axis - value.batch for axis in axes)
    shape = tuple(
        1 if axis in axes else n for axis, n in enumerate(value.shape) if keep or axis not in axes
    )
    if len(inner) == len(value.inner):
        # All of it: a graph's node has at least one axis.
        count = prod(value.inner)
        value = importer.viewed(node, value, (1, count), batch=False, step=f"{step}row")
        inner = (1,)
    result = importer.emit(
        "Reduce",
        (value,),
        node,
        batch=value.batch,
        tensors={"scale": scale},
        settings={"axes": inner},
        step=step,
    )
    return importer.reshape(node, result, shape, step=f"{step}shape")
