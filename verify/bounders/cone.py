"""Cone: which entries of every node can move the rows that are asked; no other gets rows.

A detector's property may speak of one cell of a map. Whatever no row reads, however far back, may
keep its interval bounds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.elementwise import pull_back_lines
from verify.ops.registry import lookup


def cone(graph: Graph, coeff: Tensor) -> dict[str, Tensor]:
    """Per node that has a map, a mask of the entries that some row may depend on.

    Args:
        graph: the network.
        coeff: the rows over its output, shape (batch, row, *output) or with it flat.

    Returns:
        Masks of shape (entries,); nodes of which every entry may matter are left out, and so are
        those without height and width: dense layers read everything.
    """
    if all(len(node.shape) != 3 for node in graph.nodes):
        return {}
    wanted: dict[str, Tensor] = {}
    output = graph.output
    # NaN counts as read.
    wanted[output.name] = (~(coeff == 0)).flatten(0, 1).any(dim=0).view(output.shape)
    for node in reversed(graph.nodes[1:]):
        if node.name not in wanted:
            continue
        for name, read in zip(
            node.inputs, sources(node, wanted[node.name], graph.dtype), strict=True
        ):
            wanted[name] = read | wanted[name] if name in wanted else read
    return {
        node.name: wanted[node.name].flatten()
        for node in graph.nodes
        if node.name in wanted and len(node.shape) == 3 and not bool(wanted[node.name].all())
    }


def sources(node: Node, wanted: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The entries of each input that the wanted entries of a node are computed from."""
    op = lookup(node)
    if op.relax is not None and op.pull_back is pull_back_lines:
        return (wanted,)
    if op.relax is not None or op.absolute is None and op.rounds:
        return tuple(torch.ones(shape, dtype=torch.bool) for shape in node.input_shapes)
    # The transpose of |W|, or of a movement: what it sends a 1 to is read.
    with torch.enable_grad():
        inputs = [
            torch.zeros(1, *shape, dtype=dtype, requires_grad=True) for shape in node.input_shapes
        ]
        rule = op.forward if op.absolute is None else op.absolute
        reached = torch.autograd.grad(
            rule(node, *inputs), inputs, wanted.to(dtype)[None], allow_unused=True
        )
    return tuple(
        torch.zeros(shape, dtype=torch.bool) if grad is None else ~(grad[0] == 0)
        for shape, grad in zip(node.input_shapes, reached, strict=True)
    )
