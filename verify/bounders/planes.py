"""Planes: a linear function of the input below each row of a spec, on each box of a batch.

What a search over boxes needs besides the margin: where in the box a row may still fail, and which
input its bound depends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.crown import refine
from verify.bounders.interval import at_tail, over_interval
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.ops.windowed import dense
from verify.problem import Problem
from verify.values.budget import Budget
from verify.values.region import Box
from verify.values.rounding import FLOAT32, SPARE, UNIT_FLOAT64, Rounding
from verify.values.spec import Spec


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """Rows of a spec bounded on boxes: row >= coeff·x + const for every x of the box.

    It holds for every execution that the bounder's rounding covers, with coeff and const read as
    exact numbers.

    Attributes:
        coeff: shape (batch, row, inputs), float64.
        const: shape (batch, row), float64.
        least: lower bounds of the rows over the box, (batch, row), float64; at least what the plane
            gives, and often more.
    """

    coeff: Tensor
    const: Tensor
    least: Tensor


class PlaneBounder(Protocol):
    """Bounds a batch of boxes of one network's inputs."""

    def __call__(self, lower: Tensor, upper: Tensor, budget: Budget) -> Planes:
        """Planes below every row on boxes of shape (batch, inputs); raises OutOfTime."""
        ...

    @property
    def batch(self) -> int:
        """How many boxes at once are fastest."""
        ...


class Walk(BackwardPass):
    """A backward pass that keeps the network's own input, so that planes are over it."""

    def enter(self) -> None:
        """Stay."""


@dataclass(frozen=True, slots=True, eq=False)
class CrownPlanes:
    """CROWN with fresh bounds of every undecided neuron, for any network.

    Attributes:
        graph: float64.
        coeff: rows of the spec, shape (row, out), float64.
        const: shape (row,).
        rounding: which executions the planes hold for.
    """

    graph: Graph
    coeff: Tensor
    const: Tensor
    rounding: Rounding = FLOAT32

    @property
    def batch(self) -> int:
        """Such that the coefficients of some hundred rows fit a cache."""
        widest = max(node.size for node in self.graph.nodes)
        return max(4, min(512, 32768 // widest))

    def __call__(self, lower: Tensor, upper: Tensor, budget: Budget = Budget()) -> Planes:
        """Bound every node, then the rows."""
        shape = (len(lower), *self.graph.input.shape)
        region = Box(lower.to(torch.float64).view(shape), upper.to(torch.float64).view(shape))
        spec = Spec(self.coeff.expand(len(lower), -1, -1), self.const.expand(len(lower), -1))
        walk = Walk(self.graph, region, self.rounding, budget)
        for name in walk.names():
            if lookup(walk.graph.node(name)).relax is not None:
                refine(walk, name)
            walk.visit(name)
            walk.prune(name, walk.dead(name))
        tail, form = at_tail(walk, Problem(self.graph, region, spec))
        interval = over_interval(walk, tail, form)
        pulled = dense(walk.pulled(tail, form), self.graph.input.shape)
        least = torch.maximum(region.minimise(pulled), interval)
        assert pulled.error is not None
        paid = pulled.error * SPARE[torch.float64]
        const = pulled.const - paid - (pulled.const.abs() + paid) * (4 * UNIT_FLOAT64)
        return Planes(pulled.coeff.flatten(2), const, least)
