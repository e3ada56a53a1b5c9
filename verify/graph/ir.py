"""Graph and Node: the network after import, static, single-assignment and batched.

Every tensor carries a batch axis in front that `Node.shape` leaves out; axes in settings count
without it. Weights are exact float64 copies of the file's float32 numbers, and only folded ones
(normalisation into convolution) are rounded once more; the rounding rules pay for that.

Operators and what a node of each holds (`tensors` / `settings`):

    Input       the network's input; always node 0
    Gemm        weight (out, in), bias (out,)      on the last axis: (*lead, in) -> (*lead, out)
    Conv        weight (out, in/groups, *kernel), bias (out,) / stride, padding, dilation, groups
    ConvTranspose  weight (in, out/groups, *kernel), bias (out,) / stride, padding, dilation,
                output_padding, groups
    ScaleShift  scale, shift, broadcastable to the node: x·scale + shift
    Add         / signs, one of +1 -1 per input: the signed sum of inputs of one shape
    Reduce      scale () / axes: scale · sum over axes, which disappear
    Reshape     the shape of the node
    Transpose   / perm
    Select      index (k,) int64 / axis: entries of one axis (slice, split, gather)
    Pad         value () / pads: before of every axis, then after of every axis; may be negative
    Concat      / axis
    MaxPool     / kernel, stride, pads (before of every axis, then after), dilation
    Relu, Sigmoid, Tanh
    TwoPiece    below, above, broadcastable to the node: below·x for x < 0, above·x for x > 0
    Clip        low (), high ()
    Exp, Log, Sqrt, Reciprocal, Softplus, Erf, Gelu, GeluTanh, Sin, Cos, Sign, Floor, Ceil
    Power       / exponent: an integer of at least 2
    Mul         the product of two inputs of one shape, entry by entry
    MatMul      (*lead, m, k) times (*lead, k, n)
    Softmax     over the last axis
    ArgMax      / axis, which disappears: the first place of the largest entry
    Trunc       cut to whole numbers
    Level       level, broadcastable to the node: 1 where the input is it, else 0
    Exceeds     gap (): 1 where a difference is above 0; known where it is the gap away from it
    Equal       1 where two inputs of one shape agree, else 0
    Blurred     the first input, off by what a mean of squares over the last axis of the second
                rounds
    Program     the program at whole numbers, one per input of shape (1,)

A Conv with the setting `single` lets rows through in float32: see `verify.ops.affine.single_noise`.
`bias_magnitude` (Gemm, Conv) and `shift_magnitude` (ScaleShift), where present, bound the
magnitudes that the unfolded computation may have passed through; absent means |bias|, |shift|.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol

import torch
from torch import Tensor


class Program(Protocol):
    """What a file computes from whole numbers alone."""

    def __call__(self, *whole: int) -> Tensor:
        """The result, float64, in the node's shape; NaN where the file would fail."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation.

    Attributes:
        name: unique in the graph; the ONNX output name where there is one.
        op: the operator's name in `verify.ops.registry`.
        inputs: names of earlier nodes.
        shape: of the output, without the batch axis.
        input_shapes: of the inputs, in the same order, without the batch axis.
        tensors: constants, as the module's docstring lists them.
        settings: integer attributes, as the module's docstring lists them.
        program: what a Program node runs.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    input_shapes: tuple[tuple[int, ...], ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    program: Program | None = None

    @property
    def size(self) -> int:
        """Number of entries per sample."""
        return prod(self.shape)

    def scalar(self, setting: str) -> int:
        """A setting that holds one integer."""
        (value,) = self.settings[setting]
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A feed-forward network; the last node is its output.

    Attributes:
        nodes: in topological order, node 0 the input.
        tail: an order-preserving operator that the file applies after the last node and that was
            left out ("Softmax", "LogSoftmax"), or None. Margins are stated before it.
        without: the dtype to compute in where there are no weights to tell it.
    """

    nodes: tuple[Node, ...]
    tail: str | None = None
    without: torch.dtype = torch.float64

    @property
    def input(self) -> Node:
        """The input node."""
        return self.nodes[0]

    @property
    def output(self) -> Node:
        """The output node."""
        return self.nodes[-1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        for node in self.nodes:
            for tensor in node.tensors.values():
                if tensor.is_floating_point():
                    return tensor.dtype
        return self.without

    def node(self, name: str) -> Node:
        """The node of that name; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Graph:
        """The same network with floating-point constants in another dtype or on another device."""

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

        return replace(
            self,
            without=dtype,
            nodes=tuple(
                replace(node, tensors={name: cast(t) for name, t in node.tensors.items()})
                for node in self.nodes
            ),
        )

    def parameters(self) -> int:
        """How many constants the network holds."""
        return sum(t.numel() for node in self.nodes for t in node.tensors.values())
