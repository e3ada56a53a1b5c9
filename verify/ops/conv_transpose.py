"""ConvTranspose: the adjoint of a convolution, in one, two or three dimensions."""

from __future__ import annotations

from math import prod

from torch import Tensor

from verify.graph.ir import Node
from verify.ops.affine import affine, magnitude_of
from verify.ops.conv import CONVOLVE, TRANSPOSE


def spread(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The transposed convolution of this node with other weights."""
    return TRANSPOSE[weight.ndim - 2](
        x,
        weight,
        bias,
        stride=node.settings["stride"],
        padding=node.settings["padding"],
        output_padding=node.settings["output_padding"],
        dilation=node.settings["dilation"],
        groups=node.scalar("groups"),
    )


def forward(node: Node, x: Tensor) -> Tensor:
    """Every entry times the kernel, added up where kernels overlap."""
    return spread(node, x, node.tensors["weight"], node.tensors["bias"])


def absolute(node: Node, x: Tensor) -> Tensor:
    """The same with |W| and no bias."""
    return spread(node, x, magnitude_of(node.tensors["weight"]), None)


def adjoint(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """A convolution, cut to the input: output padding adds windows that no input entry has."""
    weight = node.tensors["weight"]
    found = CONVOLVE[weight.ndim - 2](
        coeff,
        weight,
        None,
        stride=node.settings["stride"],
        padding=node.settings["padding"],
        dilation=node.settings["dilation"],
        groups=node.scalar("groups"),
    )
    for axis, length in enumerate(node.input_shapes[0][1:], start=2):
        found = found.narrow(axis, 0, length)
    return (found,)


def fan(node: Node) -> tuple[int, int]:
    """Terms of one output sum, and of one pulled-back entry."""
    weight = node.tensors["weight"]
    inputs = weight.shape[0] // node.scalar("groups")
    taps = prod(weight.shape[2:])
    return inputs * taps, weight.shape[1] * taps


affine("ConvTranspose", forward=forward, absolute=absolute, adjoint=adjoint, fan=fan, bias="bias")
