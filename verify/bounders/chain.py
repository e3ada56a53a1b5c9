"""Chain: a network as dense layers one after the other, for bounders that know nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.affine import EXTRA_ROUNDINGS


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """z = weight·h + bias, then Relu or nothing.

    Attributes:
        weight: shape (out, in); `size` is its absolute value.
        bias: shape (out,); `magnitude` is what stands for |bias| in error bounds.
        relu: whether a Relu follows.
        terms: how many terms a sum of the file's own layer has, dead neurons included.
        extra: roundings beyond those of the sum.
        largest: 1 + the largest |weight| or |bias|.
        parts: the file's own layers, if this is the product of several; else empty.
    """

    weight: Tensor
    size: Tensor
    bias: Tensor
    magnitude: Tensor
    relu: bool
    terms: int
    extra: int
    largest: float
    parts: tuple[Layer, ...] = ()

    def reading(self, alive: Tensor) -> Layer:
        """With only some entries of h; the others are 0."""
        return replace(
            self,
            weight=self.weight[:, alive].contiguous(),
            size=self.size[:, alive].contiguous(),
            parts=(self.parts[0].reading(alive), *self.parts[1:]) if self.parts else (),
        )

    def giving(self, alive: Tensor) -> Layer:
        """With only some entries of z."""
        return replace(
            self,
            weight=self.weight[alive],
            size=self.size[alive],
            bias=self.bias[alive],
            magnitude=self.magnitude[alive],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Dense layers from a flat input to a flat output.

    Attributes:
        layers: the first reads the input.
        widest: the most entries of any layer, the input included.
        dtype: of the weights.
    """

    layers: tuple[Layer, ...]
    widest: int
    dtype: torch.dtype


def chain_of(graph: Graph, dtype: torch.dtype) -> Chain | None:
    """A network as a chain, if every node reads the one before it and is dense, Relu or movement.

    Args:
        graph: float64.
        dtype: to round the weights to; the rounding counts as one more of the execution.
    """
    layers: list[Layer] = []
    order: Tensor | None = None  # a permutation of the entries since the last layer
    before = graph.input
    for node in graph.nodes[1:]:
        if node.inputs != (before.name,):
            return None
        if node.op == "Gemm" and len(node.shape) == 1:
            layers.append(layer_of(node, dtype, order))
            order = None
        elif node.op == "Relu" and layers and not layers[-1].relu and order is None:
            layers[-1] = replace(layers[-1], relu=True)
        elif node.op == "Transpose":
            places = torch.arange(node.size) if order is None else order
            moved = places.view(node.input_shapes[0]).permute(node.settings["perm"])
            order = moved.flatten()
        elif node.op != "Reshape":
            return None
        before = node
    if not layers or order is not None or layers[-1].relu:
        return None
    layers = merged(layers)
    widest = max(graph.input.size, *(len(layer.bias) for layer in layers))
    return Chain(tuple(layers), widest, dtype)


def merged(layers: list[Layer]) -> list[Layer]:
    """Layers without a Relu between them as one, where their product is cheaper to pull through."""
    found: list[Layer] = []
    for layer in layers:
        if found and not found[-1].relu:
            before = found[-1]
            outputs, inputs = len(layer.bias), before.weight.shape[1]
            if outputs * inputs < layer.weight.numel() + before.weight.numel():
                found[-1] = product(before, layer)
                continue
        found.append(layer)
    return found


def product(first: Layer, second: Layer) -> Layer:
    """second after first; its bounds of errors cover both, and their product's own rounding."""
    weight = second.weight @ first.weight
    return Layer(
        weight,
        weight.abs(),
        second.weight @ first.bias + second.bias,
        second.size @ first.magnitude + second.magnitude,
        second.relu,
        max(first.terms, second.terms),
        second.extra,
        max(first.largest, second.largest),
        (*(first.parts or (first,)), *(second.parts or (second,))),
    )


def layer_of(node: Node, dtype: torch.dtype, order: Tensor | None) -> Layer:
    """One dense layer; `order` names the entry that each of its inputs is."""
    weight, bias = node.tensors["weight"], node.tensors["bias"]
    magnitude = node.tensors.get("bias_magnitude", bias.abs())
    if order is not None:
        columns = torch.empty_like(order)
        columns[order] = torch.arange(len(order))
        weight = weight[:, columns]
    largest = 1.0 + max(float(t.abs().max()) for t in node.tensors.values())
    size = weight.to(dtype).abs()
    return Layer(
        weight.to(dtype).contiguous(),
        size,
        bias.to(dtype),
        magnitude.to(dtype) * (1 + 2.0**-22),
        relu=False,
        terms=weight.shape[1],
        extra=EXTRA_ROUNDINGS + 2,
        largest=largest,
    )
