"""Conv and BatchNormalization, and the windows that convolutions and pools share."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from verify.readers.onnx_importer import MAX_ENTRIES, Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode


@dataclass(frozen=True, slots=True)
class Windows:
    """Where a kernel is laid on a tensor of shape (channels, *spatial).

    Attributes:
        kernel: entries per axis.
        stride: steps per axis.
        dilation: distance of neighbouring entries per axis.
        before: padding in front of every axis.
        after: padding behind every axis.
        count: windows per axis.
        spill: how far the last window reaches beyond the padding (only with ceil_mode).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    count: tuple[int, ...]
    spill: tuple[int, ...]


MAX_TAPS = 2**28
"""Most entries of all windows of one node together (2 GB unrolled in float64)."""
TINY = 2.0**-100
"""Variances above this are the same, up to rounding, if denormals are flushed to zero."""


def refuse_many(node: OnnxNode, windows: Windows, channels: int) -> None:
    """Raise if unrolling the windows would take too much memory."""
    if prod(windows.kernel) * prod(windows.count) * channels > MAX_TAPS:
        raise node.invalid(f"its windows hold more than {MAX_TAPS} entries together")


def spread(node: OnnxNode, name: str, rank: int, default: int, least: int) -> tuple[int, ...]:
    """An integer attribute per spatial axis, checked."""
    found = node.integers(name)
    values = (default,) * rank if found is None else found
    if len(values) != rank or any(not least <= v <= MAX_ENTRIES for v in values):
        raise node.invalid(
            f"attribute {name!r} is {list(values)}, expected {rank} integers from {least}"
        )
    return values


def read_windows(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    kernel: tuple[int, ...],
    *,
    ceil: bool = False,
) -> Windows:
    """Strides, dilations and padding of a node, for an input of shape (1, channels, *spatial)."""
    spatial = value.shape[2:]
    rank = len(spatial)
    stride = spread(node, "strides", rank, 1, 1)
    dilation = spread(node, "dilations", rank, 1, 1)
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    mode = node.text("auto_pad", "NOTSET")
    before, after = (0,) * rank, (0,) * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-n // s) - 1) * s + w - n)
            for n, s, w in zip(spatial, stride, span, strict=True)
        ]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
    elif mode == "NOTSET":
        pads = spread(node, "pads", 2 * rank, 0, 0)
        before, after = pads[:rank], pads[rank:]
    elif mode != "VALID":
        raise node.invalid(f"attribute 'auto_pad' is {mode!r}")
    count, spill = [], []
    for n, s, w, b, a in zip(spatial, stride, span, before, after, strict=True):
        room = n + b + a - w
        if room < 0:
            raise node.invalid(f"its window of {w} does not fit {n} entries padded by {b} and {a}")
        windows = -(-room // s) + 1 if ceil else room // s + 1
        if ceil and (windows - 1) * s >= n + b:
            windows -= 1  # a window that starts behind the input is left out
        count.append(windows)
        spill.append(max(0, (windows - 1) * s + w - (n + b + a)))
    padded = [n + b + a for n, b, a in zip(spatial, before, after, strict=True)]
    importer.guard(node, (*value.shape[:2], *padded))
    importer.guard(node, (*value.shape[:2], *count))
    return Windows(kernel, stride, dilation, before, after, tuple(count), tuple(spill))


def padded(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Variable:
    """Zeros around the spatial axes of a tensor of shape (1, channels, *spatial)."""
    if not any(before) and not any(after):
        return value
    tensors = {"value": torch.zeros((), dtype=torch.float64)}
    settings = {"pads": (0, *before, 0, *after)}
    return importer.emit(
        "Pad", (value,), node, batch=True, tensors=tensors, settings=settings, step="pad"
    )


def convolution(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    windows: Windows,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    *,
    step: str = "",
) -> Variable:
    """A Conv node, with a Pad before it where the padding is not the same on both sides."""
    after = tuple(a + s for a, s in zip(windows.after, windows.spill, strict=True))
    padding = windows.before
    if after != windows.before:
        value = padded(importer, node, value, windows.before, after)
        padding = (0,) * len(padding)
    importer.guard(node, (len(weight), *windows.count))
    return importer.emit(
        "Conv",
        (value,),
        node,
        batch=True,
        tensors={"weight": weight, "bias": bias},
        settings={
            "stride": windows.stride,
            "padding": padding,
            "dilation": windows.dilation,
            "groups": (groups,),
        },
        step=step,
    )


@reads("Conv")
def read_conv(importer: Importer, node: OnnxNode) -> list[Value]:
    """Convolution in one, two or three dimensions with constant weights."""
    value = importer.batched(node, importer.variable(node, 0))
    weight = importer.weights(node, 1)
    if weight.ndim != len(value.shape) or weight.ndim not in (3, 4, 5):
        raise node.unsupported(
            f"weights of shape {tuple(weight.shape)} on an input of shape {value.shape}"
        )
    groups = node.integer("group", 1)
    outputs, per_group, *kernel = weight.shape
    if groups < 1 or outputs % groups or per_group * groups != value.shape[1] or 0 in weight.shape:
        raise node.invalid(
            f"weights of shape {tuple(weight.shape)} in {groups} groups do not fit an input of "
            f"shape {value.shape}"
        )
    stated = node.integers("kernel_shape")
    if stated is not None and list(stated) != kernel:
        raise node.invalid(f"kernel_shape {list(stated)} is not that of the weights, {kernel}")
    bias = importer.weights(node, 2) if node.has(2) else weight.new_zeros(outputs)
    if tuple(bias.shape) != (outputs,):
        raise node.invalid(f"its bias has shape {tuple(bias.shape)}, expected ({outputs},)")
    windows = read_windows(importer, node, value, tuple(kernel))
    refuse_many(node, windows, value.shape[1])
    return [convolution(importer, node, value, windows, weight, bias, groups)]


@reads("BatchNormalization")
def read_batch_normalization(importer: Importer, node: OnnxNode) -> list[Value]:
    """(x - mean)·scale/sqrt(var + epsilon) + bias, per channel; statistics are constant."""
    value = importer.variable(node, 0)
    if node.flag("training_mode", False) or not node.flag("spatial", True):
        raise node.unsupported("its statistics are not fixed per channel")
    if len(value.shape) < 2:
        raise node.invalid(f"its input has shape {value.shape}")
    scale, bias, mean, variance = (importer.weights(node, i) for i in range(1, 5))
    channels = value.shape[1]
    if any(tuple(t.shape) != (channels,) for t in (scale, bias, mean, variance)):
        raise node.invalid(f"its parameters do not have one entry for each of {channels} channels")
    epsilon = node.number("epsilon", 1e-5)
    if bool((variance + epsilon <= TINY).any()):
        raise node.invalid(f"a variance plus epsilon ({epsilon}) is not positive, or all but 0")
    factor = scale / (variance + epsilon).sqrt()
    shape = (channels, *[1] * (len(value.shape) - 2))
    shift = (bias - mean * factor).view(shape)
    magnitude = (bias.abs() + mean.abs() * factor.abs()).view(shape)
    return [importer.scale_shift(node, value, factor.view(shape), shift, magnitude=magnitude)]
