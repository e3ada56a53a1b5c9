"""unrolled: a small network as dense layers and Relus alone, so that every neuron is one entry.

Convolutions become matrices. Max pooling becomes Relus, max(a, b) = b + relu(a - b), pair by pair:
what a pooling bounds by one entry of its window becomes the relaxation of a difference, which has
bounds, slopes and a sign of its own, so that it can be optimised and split like any other neuron.

Every float32 execution of the file is one of the unrolled network too, or differs from it by no
more than is charged: a matrix row holds the kernel's weights and zeros, which add exactly and only
raise the number of terms; the maximum itself is exact, and a - b is charged a rounding that nobody
makes.

Source:
    max(a, b) by Relus is folklore; bounding it so is what DeepPoly-like tools call a MaxPool tree.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.graph.passes import drop_idle, magnitude
from verify.ops.max_pool import windows
from verify.ops.registry import lookup

MOST_ENTRIES = 2_000_000
"""Of one matrix: what a dense form of a convolution may take, 16 MB in float64."""


def unrolled(graph: Graph) -> Graph | None:
    """The same function over flat nodes, or None if it is too large or has other operators.

    Args:
        graph: as it was read; its input keeps its shape.
    """
    made: list[Node] = [graph.input]
    names: dict[str, str] = {}
    if len(graph.input.shape) != 1:
        flat = Node(
            f"{graph.input.name} flat",
            "Reshape",
            (graph.input.name,),
            (graph.input.size,),
            (graph.input.shape,),
        )
        made.append(flat)
        names[graph.input.name] = flat.name
    for node in graph.nodes[1:]:
        pieces = flattened(node, tuple(names.get(name, name) for name in node.inputs))
        if pieces is None:
            return None
        made += pieces
        names[node.name] = pieces[-1].name
    return replace(graph, nodes=tuple(drop_idle(made)))


def flattened(node: Node, inputs: tuple[str, ...]) -> list[Node] | None:
    """One node over flat inputs; the last of the list carries its name."""
    sizes = tuple((prod(shape),) for shape in node.input_shapes)
    if node.op in ("Relu", "Add"):
        return [replace(node, inputs=inputs, shape=(node.size,), input_shapes=sizes)]
    if node.op == "Reshape":
        return [Node(node.name, "Reshape", inputs, (node.size,), sizes)]
    if node.op == "MaxPool":
        return pooled(node, inputs[0])
    if node.op == "ScaleShift":
        tensors = {name: spread(value, node) for name, value in node.tensors.items()}
        return [
            replace(node, inputs=inputs, shape=(node.size,), input_shapes=sizes, tensors=tensors)
        ]
    single = node.op == "Gemm" and len(node.shape) == 1
    if single or (node.op == "Conv" and node.size * sizes[0][0] <= MOST_ENTRIES):
        return [as_matrix(node, inputs, sizes)]
    return None


def spread(value: Tensor, node: Node) -> Tensor:
    """A constant beside a node, one entry per entry of the node."""
    return value.expand(node.shape).reshape(-1).clone()


def as_matrix(node: Node, inputs: tuple[str, ...], sizes: tuple[tuple[int, ...], ...]) -> Node:
    """A dense layer or convolution as a Gemm: its rows are the images of the unit vectors."""
    if node.op == "Gemm":
        return replace(node, inputs=inputs)
    weight, bias = node.tensors["weight"], node.tensors["bias"]
    bare = replace(node, tensors={"weight": weight, "bias": torch.zeros_like(bias)})
    units = torch.eye(sizes[0][0], dtype=weight.dtype, device=weight.device)
    image = lookup(node).forward(bare, units.view(-1, *node.input_shapes[0]))
    channels = (-1, *[1] * (len(node.shape) - 1))
    tensors = {
        "weight": image.flatten(1).T.contiguous(),
        "bias": spread(bias.view(channels), node),
        "bias_magnitude": spread(magnitude(node, "bias").view(channels), node),
    }
    return Node(node.name, "Gemm", inputs, (node.size,), sizes, tensors)


def pooled(node: Node, source: str) -> list[Node] | None:
    """The maximum of each window as a tree of b + relu(a - b); None if a window holds padding."""
    index = windows(node)
    if bool((index < 0).any()) or index.shape[1] < 2:
        return None
    width = prod(node.input_shapes[0])
    made: list[Node] = []
    while index.shape[1] > 1:
        if index.shape[1] % 2:
            index = torch.cat((index, index[:, -1:]), dim=1)
        first, second = index[:, 0::2], index[:, 1::2]
        if first.numel() * width > MOST_ENTRIES:
            return None
        last = first.shape[1] == 1
        name = node.name if last else f"{node.name} level {len(made)}"
        made += larger(name, source, width, first.reshape(-1), second.reshape(-1))
        source, width = name, first.numel()
        index = torch.arange(width).view(first.shape)
    return made


def larger(name: str, source: str, width: int, first: Tensor, second: Tensor) -> list[Node]:
    """The larger entry of each pair: second + relu(first - second)."""
    count = len(first)
    # Matrices, as they are charged for sums where pairs share an entry.
    own, other = (torch.eye(width, dtype=torch.float64)[pick] for pick in (first, second))
    zero = torch.zeros(count, dtype=torch.float64)
    shape, wide = (count,), ((width,),)
    gap, kept, over = f"{name} gap", f"{name} second", f"{name} over"
    return [
        Node(gap, "Gemm", (source,), shape, wide, {"weight": own - other, "bias": zero}),
        Node(over, "Relu", (gap,), shape, (shape,)),
        Node(kept, "Gemm", (source,), shape, wide, {"weight": other, "bias": zero}),
        Node(name, "Add", (kept, over), shape, (shape, shape), settings={"signs": (1, 1)}),
    ]
