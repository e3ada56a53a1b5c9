"""simplify: the same network in fewer nodes, before anything is bounded.

Every pass keeps the function in exact arithmetic. What a pass folds is computed in float64, and
`bias_magnitude` / `shift_magnitude` keep what the unfolded computation may have passed through, so
that bounds still pay for the rounding of the file as it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from verify.graph.comparisons import compare_two
from verify.graph.ir import Graph, Node
from verify.values.rounding import FOLDED_STRETCH

FOLDABLE_ROUNDINGS = 8
"""How many roundings folded nodes may add up to: `verify.ops.affine.EXTRA_ROUNDINGS` (10) less the
two of a Gemm's own alpha and beta, or of a bias."""


def simplify(graph: Graph) -> Graph:
    """Drop what does nothing, and fold chains of affine nodes."""
    nodes = drop_idle(reachable(compare_two(list(graph.nodes))))
    nodes = fold_scales(nodes)
    return replace(graph, nodes=tuple(reachable(nodes)))


def in_single(graph: Graph) -> Graph:
    """The same network, through whose convolutions proofs pull rows back in float32, and pay.

    float32 has kernels many times as fast; the charge is about that of a float32 execution again.
    Depthwise ones, such as pooling, gain nothing.
    """
    return replace(graph, nodes=tuple(single_node(node) for node in graph.nodes))


def single_node(node: Node) -> Node:
    """A node of such a network."""
    if node.op != "Conv" or node.tensors["weight"].ndim != 4 or node.scalar("groups") != 1:
        return node
    return replace(node, settings={**node.settings, "single": (1,)})


def rename(node: Node, names: dict[str, str]) -> Node:
    """The node with inputs replaced."""
    inputs = tuple(names.get(i, i) for i in node.inputs)
    return node if inputs == node.inputs else replace(node, inputs=inputs)


def reachable(nodes: list[Node]) -> list[Node]:
    """The input, and the nodes that the last one needs."""
    needed = {nodes[-1].name, nodes[0].name}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return [node for node in nodes if node.name in needed]


# Nodes that do nothing.


def is_idle(node: Node) -> bool:
    """Whether a node only hands on its one input."""
    settings = node.settings
    if len(node.inputs) != 1 or node.input_shapes[0] != node.shape:
        return False
    if node.op == "Pad":
        return not any(settings["pads"])
    if node.op == "Transpose":
        return settings["perm"] == tuple(range(len(node.shape)))
    if node.op == "Select":
        index = node.tensors["index"]
        return bool((index == torch.arange(len(index), device=index.device)).all())
    if node.op == "Add":
        return settings["signs"] == (1,)
    return node.op in ("Reshape", "Concat")


def drop_idle(nodes: list[Node]) -> list[Node]:
    """Leave out nodes that hand on their input, and reshape once instead of several times.

    The last node stays last: where it is idle, its input is the output instead.
    """
    names: dict[str, str] = {}
    kept: dict[str, Node] = {nodes[0].name: nodes[0]}
    for original in nodes[1:]:
        node = rename(original, names)
        if node.op == "Reshape":
            source = kept[node.inputs[0]]
            while source.op == "Reshape":
                source = kept[source.inputs[0]]
            node = replace(node, inputs=(source.name,), input_shapes=(source.shape,))
        if is_idle(node):
            names[node.name] = node.inputs[0]
        else:
            kept[node.name] = node
    output = names.get(nodes[-1].name, nodes[-1].name)
    ordered = list(kept.values())
    last = next(i for i, node in enumerate(ordered) if node.name == output)
    return reachable(ordered[: last + 1])


# Scales and shifts.


def per_output(tensor: Tensor, node: Node) -> Tensor | None:
    """A constant beside a Gemm or Conv as one entry per output unit or channel, or None."""
    rank = len(node.shape)
    shape = (1,) * (rank - tensor.ndim) + tuple(tensor.shape)
    axis = rank - 1 if node.op == "Gemm" else 0
    if any(n != 1 for i, n in enumerate(shape) if i != axis):
        return None
    units = node.tensors["weight"].shape[0]
    return tensor.reshape(-1).expand(units)


def magnitude(node: Node, name: str) -> Tensor:
    """The stored magnitude of a constant, or its absolute value."""
    return node.tensors.get(f"{name}_magnitude", node.tensors[name].abs())


def into_layer(layer: Node, scaling: Node) -> Node | None:
    """s·(W·x + b) + t  =  (s·W)·x + (s·b + t), if s and t are per output unit."""
    scale, shift = (per_output(scaling.tensors[n], layer) for n in ("scale", "shift"))
    if scale is None or shift is None:
        return None
    added = per_output(magnitude(scaling, "shift"), layer)
    assert added is not None
    weight, bias = layer.tensors["weight"], layer.tensors["bias"]
    tensors = {
        "weight": weight * scale.view(-1, *[1] * (weight.ndim - 1)),
        "bias": bias * scale + shift,
        "bias_magnitude": magnitude(layer, "bias") * scale.abs() + added,
    }
    if not within(tensors):
        return None
    if bool((tensors["bias_magnitude"] == tensors["bias"].abs()).all()):
        del tensors["bias_magnitude"]
    return replace(layer, name=scaling.name, tensors=tensors)


def into_scaling(first: Node, second: Node) -> Node | None:
    """s2·(s1·x + t1) + t2  =  (s2·s1)·x + (s2·t1 + t2)."""
    scale, shift = second.tensors["scale"], second.tensors["shift"]
    tensors = {
        "scale": first.tensors["scale"] * scale,
        "shift": first.tensors["shift"] * scale + shift,
        "shift_magnitude": magnitude(first, "shift") * scale.abs() + magnitude(second, "shift"),
    }
    if not within(tensors):
        return None
    return replace(first, name=second.name, tensors=tensors)


def within(tensors: dict[str, Tensor]) -> bool:
    """Whether folded constants are finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors.values())


FOLDS: dict[str, Callable[[Node, Node], Node | None]] = {
    "Gemm": into_layer,
    "Conv": into_layer,
    "ScaleShift": into_scaling,
}


def roundings(node: Node) -> int:
    """How often one execution of a ScaleShift may round an entry."""
    if "shift_magnitude" in node.tensors:
        return 6  # batch normalisation: x - mean, var + eps, sqrt, division, product, sum
    one, zero = node.tensors["scale"], node.tensors["shift"]
    return int(not bool((one.abs() == 1).all())) + int(not bool((zero == 0).all()))


def stretch(node: Node) -> float:
    """How many times larger or smaller than its output an input of a ScaleShift may be."""
    size = node.tensors["scale"].abs()
    return float(torch.maximum(size, 1 / size).max())


def fold_scales(nodes: list[Node]) -> list[Node]:
    """Fold every ScaleShift into the Gemm, Conv or ScaleShift before it that only it reads.

    What the file computes in between is not seen any more. So nothing is folded that could overflow
    or be flushed there without a trace in the folded node (`FOLDED_STRETCH`).
    """
    hidden: dict[str, float] = {}
    readers = Counter(name for node in nodes for name in node.inputs)
    spent = {node.name: roundings(node) for node in nodes if node.op == "ScaleShift"}
    kept: dict[str, Node] = {}
    for node in nodes:
        folded = None
        if node.op == "ScaleShift":
            before = kept[node.inputs[0]]
            total = spent.get(before.name, 0) + spent[node.name]
            width = hidden.get(before.name, 1.0) * stretch(node)
            alone = readers[before.name] == 1
            cheap = total <= FOLDABLE_ROUNDINGS and width <= FOLDED_STRETCH
            if before.op in FOLDS and alone and cheap:
                folded = FOLDS[before.op](before, node)
                if folded is not None:
                    del kept[before.name]
                    spent[folded.name] = total
                    hidden[folded.name] = width
        kept[node.name] = node if folded is None else folded
    return list(kept.values())
