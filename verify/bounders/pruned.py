"""Dead neurons leave the network: dense layers without the neurons that are never positive.

A Relu whose input is never positive returns exactly 0, in real arithmetic and in any float32
execution (its bounds hold for executions too), and adding 0 is exact. So the layers around it may
be cut down to the other neurons, and every matrix product that comes later is smaller.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node

WORTH_IT = 0.9
"""Layers that would keep more than this share of their neurons are left as they are."""


def prunable(graph: Graph, relu: Node) -> tuple[Node, list[Node]] | None:
    """The dense layer before a Relu and those after it, if they may be cut; else None."""
    if relu.op != "Relu" or len(relu.shape) != 1:
        return None
    before = graph.node(relu.inputs[0])
    after = [node for node in graph.nodes if relu.name in node.inputs]
    alone = all(before.name not in node.inputs for node in graph.nodes if node is not relu)
    dense = before.op == "Gemm" and all(node.op == "Gemm" for node in after)
    return (before, after) if dense and alone and after else None


def pruned(graph: Graph, relu: Node, alive: Tensor) -> Graph | None:
    """The network with only some neurons of a Relu.

    Args:
        graph: the network.
        relu: a Relu node of it.
        alive: int64 indices of the neurons to keep; the others must be 0 for every input.

    Returns:
        None if the layers around the Relu are not dense, too few neurons would go or all of them
        (layers without neurons have no rules), or a weight after them is not finite: NaN times zero
        is not zero.
    """
    around = prunable(graph, relu)
    if around is None or not 0 < len(alive) <= WORTH_IT * relu.size:
        return None
    before, after = around
    if not all(bool(torch.isfinite(node.tensors["weight"]).all()) for node in after):
        return None
    shape = (len(alive),)
    per_output = {
        name: tensor[alive] for name, tensor in before.tensors.items() if tensor.ndim >= 1
    }
    new = {
        before.name: replace(before, shape=shape, tensors=per_output),
        relu.name: replace(relu, shape=shape, input_shapes=(shape,)),
    }
    for node in after:
        columns = {**node.tensors, "weight": node.tensors["weight"][:, alive].contiguous()}
        new[node.name] = replace(node, input_shapes=(shape,), tensors=columns)
    return replace(graph, nodes=tuple(new.get(node.name, node) for node in graph.nodes))
