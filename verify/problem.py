"""Problem: a network, a set of inputs and what must hold, one batch entry per instance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.graph.ir import Graph
from verify.traverse import run
from verify.values.region import Region
from verify.values.spec import Spec


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Show that every input of the region satisfies the spec.

    Attributes:
        graph: the network, shared by the batch.
        region: one set of inputs per batch entry.
        spec: one set of rows per batch entry.
    """

    graph: Graph
    region: Region
    spec: Spec

    def take(self, rows: Tensor) -> Problem:
        """The instances named by indices or a mask."""
        return replace(self, region=self.region.take(rows), spec=self.spec.take(rows))

    def to(self, dtype: torch.dtype) -> Problem:
        """The problem in another dtype."""
        return Problem(self.graph.to(dtype), self.region.to(dtype), self.spec.to(dtype))

    def margins(self, x: Tensor) -> Tensor:
        """The rows' values at inputs of shape (batch, *input), in our arithmetic."""
        return self.spec.margins(run(self.graph, x))
