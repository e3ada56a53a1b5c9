"""GraphBuilder: how readers put a graph together; shapes come from running each node once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

import verify.ops  # noqa: F401  (fills the operator table)
from verify.errors import ModelError
from verify.graph.ir import Graph, Node, Program
from verify.ops.registry import lookup


class GraphBuilder:
    """Collects nodes in order; each `add` returns the new node's name.

    Constants may be given in any floating dtype; they are kept as float64.
    """

    def __init__(self, input_name: str, input_shape: tuple[int, ...]) -> None:
        """Start with the input node; `input_shape` leaves out the batch axis."""
        self.nodes: dict[str, Node] = {
            input_name: Node(input_name, "Input", (), tuple(input_shape))
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a node's output without the batch axis."""
        return self.nodes[name].shape

    def add(
        self,
        op: str,
        inputs: tuple[str, ...],
        name: str,
        *,
        tensors: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, tuple[int, ...]] | None = None,
        shape: tuple[int, ...] | None = None,
        program: Program | None = None,
    ) -> str:
        """Append a node; names already taken get a suffix.

        Args:
            op: operator name, see `verify.graph.ir`.
            inputs: names of earlier nodes.
            name: wished name.
            tensors: constants.
            settings: integer attributes.
            shape: of the output, needed for Reshape; found by a trial run for others.
            program: of a Program node.

        Raises:
            ModelError: if the operator cannot be applied to its inputs' shapes.
        """
        unique = name
        while unique in self.nodes:
            unique += "'"
        constants = {
            key: value.detach().to(torch.float64) if value.is_floating_point() else value.detach()
            for key, value in (tensors or {}).items()
        }
        input_shapes = tuple(self.shape(i) for i in inputs)
        node = Node(
            unique,
            op,
            inputs,
            shape or (),
            input_shapes,
            constants,
            dict(settings or {}),
            program,
        )
        if shape is None:
            zeros = [torch.zeros(1, *s, dtype=torch.float64) for s in input_shapes]
            try:
                found = tuple(lookup(node).forward(node, *zeros).shape[1:])
            except (RuntimeError, IndexError) as error:
                raise ModelError(
                    f"node {name!r} ({op}) does not accept inputs of shapes {input_shapes}: {error}"
                ) from error
            node = replace(node, shape=found)
        self.nodes[unique] = node
        return unique

    def build(self, output: str, tail: str | None = None) -> Graph:
        """The graph whose output is the named node; nodes it does not need are left out."""
        needed = {output}
        for node in reversed(self.nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
        first, *rest = self.nodes.values()
        kept = (first, *(node for node in rest if node.name in needed))
        return Graph(kept, tail)
