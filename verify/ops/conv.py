"""Conv: convolution in one, two or three dimensions, with groups, stride, padding and dilation."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from verify.graph.ir import Node
from verify.ops.affine import affine

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
    return convolve(node, x, node.tensors["weight"].abs(), None)


def adjoint(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """The transposed convolution: coefficients over the input."""
    weight = node.tensors["weight"]
    spatial = node.input_shapes[0][1:]
    stride, padding = node.settings["stride"], node.settings["padding"]
    dilation = node.settings["dilation"]
    reached = [
        (out - 1) * s - 2 * p + d * (k - 1) + 1
        for out, s, p, d, k in zip(
            node.shape[1:], stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    pulled = TRANSPOSE[weight.ndim - 2](
        coeff,
        weight,
        stride=stride,
        padding=padding,
        output_padding=tuple(n - r for n, r in zip(spatial, reached, strict=True)),
        dilation=dilation,
        groups=node.scalar("groups"),
    )
    return (pulled,)


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
