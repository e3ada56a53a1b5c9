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
class Goal:
    """What must hold of the outputs: of each clause, one row positive.

    Attributes:
        coeff: shape (row, out), float64.
        const: shape (row,), float64.
        clauses: the rows of each clause.
    """

    coeff: Tensor
    const: Tensor
    clauses: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """The most rows of a clause."""
        return max(len(rows) for rows in self.clauses)


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """Rows bounded on boxes: row >= coeff·x + const for every x of the box.

    It holds for every execution that the bounder's rounding covers, with coeff and const read as
    exact numbers.

    Attributes:
        coeff: shape (batch, row, inputs), float64.
        const: shape (batch, row), float64.
        least: lower bounds of the rows over the box, (batch, row), float64; at least what the plane
            gives, and often more.
        weight: how much each clause may gain from halving each input, in any unit,
            (batch, clause, inputs).
    """

    coeff: Tensor
    const: Tensor
    least: Tensor
    weight: Tensor


class PlaneBounder(Protocol):
    """Bounds a batch of boxes of one network's inputs."""

    def __call__(
        self, lower: Tensor, upper: Tensor, budget: Budget, open_: Tensor | None = None
    ) -> Planes:
        """Planes below every row on boxes of shape (batch, inputs); raises OutOfTime.

        Of clauses that a mask (batch, clause) says are closed on all of the batch, nothing need be
        known: their planes may be minus infinity.
        """
        ...

    @property
    def clauses(self) -> tuple[tuple[int, ...], ...]:
        """The planes of each clause: if it can be met, all of them can be <= 0 at once."""
        ...

    @property
    def batch(self) -> int:
        """How many boxes at once are fastest."""
        ...


def smear(coeff: Tensor, width: Tensor) -> Tensor:
    """|slope|·width of rows, with a share of the longest edge: slopes say how much a row moves, not
    how much of that its bound loses, so every input counts for something.

    Args:
        coeff: shape (batch, row, inputs).
        width: of the boxes, (batch, inputs).
    """
    size = coeff.abs()
    return (size + size.mean(dim=2, keepdim=True)) * width[:, None]


class Walk(BackwardPass):
    """A backward pass that keeps the network's own input, so that planes are over it."""

    def enter(self) -> None:
        """Stay."""


@dataclass(frozen=True, slots=True, eq=False)
class CrownPlanes:
    """CROWN with fresh bounds of every undecided neuron, for any network.

    Attributes:
        graph: float64.
        goal: the rows.
        rounding: which executions the planes hold for.
    """

    graph: Graph
    goal: Goal
    rounding: Rounding = FLOAT32

    @property
    def clauses(self) -> tuple[tuple[int, ...], ...]:
        """The rows themselves."""
        return self.goal.clauses

    @property
    def batch(self) -> int:
        """Such that the coefficients of some hundred rows fit a cache."""
        widest = max(node.size for node in self.graph.nodes)
        return max(4, min(512, 32768 // widest))

    def __call__(
        self,
        lower: Tensor,
        upper: Tensor,
        budget: Budget = Budget(),
        open_: Tensor | None = None,
    ) -> Planes:
        """Bound every node, then the rows."""
        shape = (len(lower), *self.graph.input.shape)
        region = Box(lower.to(torch.float64).view(shape), upper.to(torch.float64).view(shape))
        rows, offsets = self.goal.coeff, self.goal.const
        spec = Spec(rows.expand(len(lower), -1, -1), offsets.expand(len(lower), -1))
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
        coeff = pulled.coeff.flatten(2)
        moved = smear(coeff, upper - lower)
        weight = [moved[:, list(rows)].sum(dim=1) for rows in self.goal.clauses]
        return Planes(coeff, const, least, torch.stack(weight, dim=1))
