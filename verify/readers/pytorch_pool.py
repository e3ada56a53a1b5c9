"""Pooling, and sums and means over axes."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from verify.readers.pytorch_importer import Call, Value, Variable, reads

AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def spatial_rank(call: Call, x: Variable) -> int:
    """How many axes a pool runs over."""
    rank = len(call.inner(x)) - 1
    if rank not in (1, 2, 3):
        raise call.unsupported(f"pooling an input of shape {call.inner(x)}")
    return rank


def reach(
    shape: tuple[int, ...],
    count: tuple[int, ...],
    span: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> tuple[int, ...]:
    """Padding behind each axis: as in front, or as far as the last window reaches (ceil_mode)."""
    return tuple(
        max(p, (c - 1) * s + w - n - p)
        for n, c, w, s, p in zip(shape, count, span, stride, padding, strict=True)
    )


@reads("aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices")
def read_max_pool(call: Call) -> Value:
    """The maximum of each window; the result is the first of two."""
    x = call.variable("self")
    rank, shape = spatial_rank(call, x), call.inner(x)[1:]
    kernel = call.integers("kernel_size", rank)
    stride = call.integers("stride", rank) or kernel
    padding, dilation = call.integers("padding", rank), call.integers("dilation", rank)
    span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    count = pooled_length(shape, span, stride, padding, ceil=call.flag("ceil_mode"))
    settings = {
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "pads": (*padding, *reach(shape, count, span, stride, padding)),
    }
    return [call.emit("MaxPool", (x,), settings=settings), None]


def pooled_length(
    shape: tuple[int, ...],
    span: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    *,
    ceil: bool,
) -> tuple[int, ...]:
    """Windows per axis, as torch counts them: none starts behind the input and its padding."""
    counts = []
    for n, w, s, p in zip(shape, span, stride, padding, strict=True):
        room = n + 2 * p - w
        count = (-(-room // s) if ceil else room // s) + 1
        counts.append(count - 1 if ceil and (count - 1) * s >= n + p else count)
    return tuple(counts)


@reads("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def read_avg_pool(call: Call) -> Value:
    """The mean of each window: a convolution of every channel with itself that sums, then divides.

    What a window divides by is asked of torch itself: the sum over a window of ones, by its mean.
    """
    x = call.variable("self")
    rank, shape = spatial_rank(call, x), call.inner(x)[1:]
    kernel = call.integers("kernel_size", rank)
    stride = call.integers("stride", rank) or kernel
    padding = call.integers("padding", rank)
    divisor = call.arguments.get("divisor_override")
    settings: dict[str, object] = {} if divisor is None else {"divisor_override": divisor}
    ones = torch.ones(1, 1, *shape, dtype=torch.float64)
    means = AVERAGE[rank](
        ones,
        kernel,
        stride,
        padding,
        ceil_mode=call.flag("ceil_mode"),
        count_include_pad=call.flag("count_include_pad"),
        **settings,
    )
    after = reach(shape, tuple(means.shape[2:]), kernel, stride, padding)
    pads = [p for pair in zip(padding[::-1], after[::-1], strict=True) for p in pair]
    weight = torch.ones(1, 1, *kernel, dtype=torch.float64)
    sums = CONVOLVE[rank](functional.pad(ones, pads), weight, stride=stride)
    counts = (sums / means)[0, 0].round()
    return averaged(call, x, kernel, stride, padding, after, counts)


def averaged(
    call: Call,
    x: Variable,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    after: tuple[int, ...],
    counts: Tensor,
) -> Variable:
    """Sums over windows divided by `counts`, shape (*windows)."""
    rank, channels = len(kernel), call.inner(x)[0]
    if after != padding:
        x = call.emit(
            "Pad",
            (x,),
            tensors={"value": torch.zeros(())},
            settings={"pads": (0, *padding, 0, *after)},
            step="pad",
        )
        padding = (0,) * rank
    weight = torch.ones(channels, 1, *kernel, dtype=torch.float64)
    uniform = bool((counts == counts.flatten()[0]).all())
    settings = {
        "stride": stride,
        "padding": padding,
        "dilation": (1,) * rank,
        "groups": (channels,),
    }
    tensors = {
        "weight": weight / counts.flatten()[0] if uniform else weight,
        "bias": weight.new_zeros(channels),
    }
    step = "" if uniform else "sums"
    sums = call.emit("Conv", (x,), tensors=tensors, settings=settings, step=step)
    if uniform:
        return sums
    tensors = {"scale": 1 / counts[None], "shift": torch.zeros((), dtype=torch.float64)}
    return call.emit("ScaleShift", (sums,), tensors=tensors)


@reads("aten.adaptive_avg_pool1d", "aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d")
def read_adaptive_avg_pool(call: Call) -> Value:
    """Means of equal blocks; blocks of different sizes are not supported."""
    x = call.variable("self")
    rank, shape = spatial_rank(call, x), call.inner(x)[1:]
    wanted = call.integers("output_size", rank)
    if any(n % out for n, out in zip(shape, wanted, strict=True)):
        raise call.unsupported(f"pooling {shape} to {wanted}, which does not divide it evenly")
    kernel = tuple(n // out for n, out in zip(shape, wanted, strict=True))
    none = (0,) * rank
    counts = torch.full(wanted, float(prod(kernel)), dtype=torch.float64)
    return averaged(call, x, kernel, kernel, none, none, counts)


@reads("aten.mean", "aten.sum")
def read_reduction(call: Call) -> Value:
    """Sum or mean over axes."""
    x = call.variable("self")
    shape = call.inner(x)
    given = call.arguments.get("dim")
    if given is None or given == []:
        raise call.unsupported("it acts on the batch axis and so mixes samples")
    axes = tuple(sorted(call.axis(a, len(shape) + 1) for a in call.integers("dim")))
    terms = prod(shape[axis] for axis in axes)
    scale = 1.0 / terms if call.op == "aten.mean" else 1.0
    reduced = call.emit(
        "Reduce",
        (x,),
        tensors={"scale": torch.tensor(scale, dtype=torch.float64)},
        settings={"axes": axes},
        step="sum" if call.flag("keepdim") else "",
    )
    return call.reshape(reduced, call.result_shape())
