"""Gemm: a dense layer on the last axis."""

from __future__ import annotations

from torch import Tensor

from verify.graph.ir import Node
from verify.ops.affine import affine, magnitude_of
from verify.ops.sparse import linear, times


def forward(node: Node, x: Tensor) -> Tensor:
    """x·W' + b on the last axis."""
    return linear(x, node.tensors["weight"], node.tensors["bias"])


def absolute(node: Node, x: Tensor) -> Tensor:
    """x·|W|' on the last axis."""
    return linear(x, magnitude_of(node.tensors["weight"]))


def adjoint(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """A·W on the last axis."""
    return (times(coeff, node.tensors["weight"]),)


def rows(node: Node, index: Tensor) -> Tensor:
    """Rows of W themselves; only where the layer is a single matrix."""
    return node.tensors["weight"][index]


def fan(node: Node) -> tuple[int, int]:
    """Terms of one output sum, and of one pulled-back entry."""
    outputs, inputs = node.tensors["weight"].shape
    return inputs, outputs


affine("Gemm", forward=forward, absolute=absolute, adjoint=adjoint, fan=fan, bias="bias", rows=rows)
