"""Conv: convolution in one, two or three dimensions, with groups, stride, padding and dilation."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from verify.graph.ir import Node
from verify.ops.affine import affine, magnitude_of
from verify.values.rounding import single_is_single

CONVOLVE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def convolve(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of this node with other weights."""
    return CONVOLVE[weight.ndim - 2](
        x,
        weight,
        bias,
        stride=node.settings["stride"],
        padding=node.settings["padding"],
        dilation=node.settings["dilation"],
        groups=node.scalar("groups"),
    )


def forward(node: Node, x: Tensor) -> Tensor:
    """W * x + b."""
    return convolve(node, x, node.tensors["weight"], node.tensors["bias"])


def absolute(node: Node, x: Tensor) -> Tensor:
    """|W| * x."""
    return convolve(node, x, magnitude_of(node.tensors["weight"]), None)


def adjoint(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """The transposed convolution: coefficients over the input."""
    weight = node.tensors["weight"]
    spatial = node.input_shapes[0][1:]
    stride, padding = node.settings["stride"], node.settings["padding"]
    dilation = node.settings["dilation"]
    if tiles(node):
        # Windows that do not overlap: each coefficient is spread over its own one.
        height, width = weight.shape[2:]
        rows, columns = coeff.shape[2:]
        laid = coeff.new_zeros(len(coeff), weight.shape[0], *spatial)
        # A view of the windows inside the map; what no window covers keeps its zeros.
        windows = laid.as_strided(
            (len(coeff), weight.shape[0], rows, height, columns, width),
            (
                *laid.stride()[:2],
                height * laid.stride(2),
                laid.stride(2),
                width * laid.stride(3),
                laid.stride(3),
            ),
        )
        torch.mul(coeff[:, :, :, None, :, None], weight[:, 0, None, :, None, :], out=windows)
        return (laid,)
    if by_phases(weight, stride, dilation, node.scalar("groups"), coeff.dtype):
        whole = transposed(coeff, weight, (stride[0], stride[1]), 1)
        # Without padding the map starts `padding` cells early; what a stride skipped at its end
        # no output reads.
        top, left = padding
        missing = [
            max(0, p + n - size)
            for p, n, size in zip(padding, spatial, whole.shape[2:], strict=True)
        ]
        if any(missing):
            whole = functional.pad(whole, (0, missing[1], 0, missing[0]))
        return (whole[:, :, top : top + spatial[0], left : left + spatial[1]],)
    reached = [
        (out - 1) * s - 2 * p + d * (k - 1) + 1
        for out, s, p, d, k in zip(
            node.shape[1:], stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    settings = {
        "stride": stride,
        "padding": padding,
        "output_padding": tuple(n - r for n, r in zip(spatial, reached, strict=True)),
        "dilation": dilation,
        "groups": node.scalar("groups"),
    }
    if is_single(node, coeff):
        return (pulled_single(coeff, node, **settings),)
    return (TRANSPOSE[weight.ndim - 2](coeff, weight, **settings),)


SINGLES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Weights in use, in float32, kept as long as they are."""


def pulled_single(coeff: Tensor, node: Node, **settings: object) -> Tensor:
    """A transposed convolution of float64 rows in float32, for nodes that pay for it.

    Every row is scaled by a power of two, so that its largest entry is at least 1/2 and less than
    1; what that costs is in the node's noise, see `verify.ops.affine.single_noise`. It is never a
    convolution proper, for which torch may choose Winograd's algorithm or Fourier's.

    Args:
        coeff: shape (any, *node), float64.
        node: a convolution.
        settings: of the transposed convolution.
    """
    weight = node.tensors["weight"]
    if weight not in SINGLES:
        SINGLES[weight] = weight.to(torch.float32)
    exponent = torch.frexp(coeff.flatten(1).abs().amax(dim=1)).exponent
    scale = torch.ldexp(coeff.new_ones(len(coeff)), exponent).view(-1, 1, 1, 1)
    single = (coeff / scale).to(torch.float32)
    pulled: Tensor = functional.conv_transpose2d(single, SINGLES[weight], **settings)  # type: ignore[arg-type]
    return pulled.to(torch.float64) * scale


def is_single(node: Node, coeff: Tensor) -> bool:
    """Whether rows are pulled through this node in float32 although they are in float64."""
    return "single" in node.settings and coeff.dtype == torch.float64 and single_is_single()


def tiles(node: Node) -> bool:
    """Whether this is a depthwise convolution with windows side by side, as in average pooling."""
    weight = node.tensors["weight"]
    return (
        weight.ndim == 4
        and node.scalar("groups") == weight.shape[0] == node.input_shapes[0][0]
        and node.settings["stride"] == tuple(weight.shape[2:])
        and not any(node.settings["padding"])
        and node.settings["dilation"] == (1, 1)
    )


def by_phases(
    weight: Tensor,
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    dtype: torch.dtype,
) -> bool:
    """Whether a transposed convolution is faster as convolutions of stride 1, one per phase."""
    return (
        weight.ndim == 4
        and dtype == torch.float32
        and groups == 1
        and tuple(dilation) == (1, 1)
        and stride[0] == stride[1] > 1
        and weight.shape[2] == weight.shape[3]
        and (weight.shape[2] == 1 or weight.shape[2] >= stride[0])
    )


def transposed(coeff: Tensor, weight: Tensor, stride: tuple[int, int], groups: int) -> Tensor:
    """conv_transpose2d without padding; in float32 as one dense convolution per output phase.

    With stride s, output cell s·q + r only meets the kernel taps r, r + s, ...: s² convolutions of
    stride 1, done as one with s² times the channels, then interleaved. Optimised kernels for
    stride-1 convolutions are several times faster than those for strided transposed ones.
    """
    if not by_phases(weight, stride, (1, 1), groups, coeff.dtype):
        return functional.conv_transpose2d(coeff, weight, stride=stride, groups=groups)
    if weight.shape[2] == 1:
        # A pointwise convolution with a stride: its transpose leaves zeros in between.
        rows, columns = coeff.shape[2:]
        spread = coeff.new_zeros(
            len(coeff), weight.shape[1], (rows - 1) * stride[0] + 1, (columns - 1) * stride[1] + 1
        )
        spread[:, :, :: stride[0], :: stride[1]] = functional.conv2d(
            coeff, weight.transpose(0, 1).contiguous()
        )
        return spread
    step, taps = stride[0], weight.shape[2]
    spread = functional.pixel_shuffle(phases_of(coeff, weight, step), step)
    height = (coeff.shape[2] - 1) * step + taps
    width = (coeff.shape[3] - 1) * step + taps
    return spread[:, :, :height, :width]


def phases_of(coeff: Tensor, weight: Tensor, step: int) -> Tensor:
    """The step² sub-maps of a strided transposed convolution, channel by channel."""
    taps = weight.shape[2]
    reach = -(-taps // step)
    rows, columns = weight.shape[:2]
    padded = functional.pad(weight, (0, reach * step - taps, 0, reach * step - taps))
    phases = padded.view(rows, columns, reach, step, reach, step).permute(1, 3, 5, 0, 2, 4)
    kernels = phases.reshape(columns * step * step, rows, reach, reach).flip(2, 3).contiguous()
    return functional.conv2d(coeff, kernels, padding=reach - 1)


def rows(node: Node, index: Tensor) -> Tensor:
    """Rows of the unrolled convolution: the kernel laid into zeros at each output's window."""
    weight = node.tensors["weight"]
    channels, spatial = node.input_shapes[0][0], node.input_shapes[0][1:]
    stride, padding = node.settings["stride"], node.settings["padding"]
    dilation, kernel = node.settings["dilation"], weight.shape[2:]
    padded = [
        max(n + 2 * p, (out - 1) * s + d * (k - 1) + 1)
        for n, p, out, s, d, k in zip(
            spatial, padding, node.shape[1:], stride, dilation, kernel, strict=True
        )
    ]
    flat = index.reshape(-1)
    channel = flat // prod(node.shape[1:])
    place = flat % prod(node.shape[1:])
    base = torch.zeros_like(flat)
    taps = torch.zeros(1, dtype=torch.long, device=flat.device)
    pitch = 1
    for axis in reversed(range(len(spatial))):
        base += (place % node.shape[1 + axis]) * stride[axis] * pitch
        place = place // node.shape[1 + axis]
        step = torch.arange(kernel[axis], device=flat.device) * dilation[axis] * pitch
        taps = (step[:, None] + taps[None, :]).reshape(-1)
        pitch *= padded[axis]
    per_group = weight.shape[1]
    group = channel // (weight.shape[0] // node.scalar("groups"))
    plane = torch.arange(per_group, device=flat.device) * pitch
    offsets = (plane[:, None] + taps[None, :]).reshape(-1)
    target = (base + group * per_group * pitch)[:, None] + offsets
    laid = weight.new_zeros(len(flat), channels * pitch)
    laid.scatter_(1, target, weight[channel].flatten(1))
    laid = laid.view(len(flat), channels, *padded)
    for axis, (n, p) in enumerate(zip(spatial, padding, strict=True)):
        laid = laid.narrow(2 + axis, p, n)
    return laid.reshape(*index.shape, channels, *spatial)


def fan(node: Node) -> tuple[int, int]:
    """Terms of one output sum, and of one pulled-back entry."""
    weight = node.tensors["weight"]
    taps = prod(weight.shape[2:])
    return weight.shape[1] * taps, weight.shape[0] // node.scalar("groups") * taps


affine("Conv", forward=forward, absolute=absolute, adjoint=adjoint, fan=fan, bias="bias", rows=rows)
