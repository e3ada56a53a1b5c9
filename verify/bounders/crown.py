"""Crown: backward linear bounds, recomputed for every pre-activation that is still undecided."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verify.bounders.backward import BackwardPass
from verify.bounders.cone import cone
from verify.bounders.interval import at_tail, over_interval
from verify.ops.registry import lookup
from verify.problem import Problem
from verify.values.budget import Budget, OutOfTime
from verify.values.enclosure import Enclosure
from verify.values.rounding import FLOAT32, Rounding

REFINING = 0.7
"""Share of the time for bounds of neurons; when it is over the others keep their interval bounds,
so that the rows of the spec are bounded in any case."""
SIGN_DECIDES = ("Relu", "TwoPiece")
"""Operators that are linear on an interval as soon as its sign is known."""


@dataclass(frozen=True, slots=True)
class Crown:
    """Backward linear bounds (CROWN, which is DeepPoly's relaxation).

    Attributes:
        rounding: which executions the bounds hold for; None for plain arithmetic.
        intermediate: whether pre-activations get rows; without them their interval bounds are
            used (CROWN-IBP).

    Source:
        Zhang et al. 2018, arXiv:1811.00866; Singh et al. 2019 (DeepPoly). CROWN-IBP: Zhang et al.
        2019, arXiv:1906.06316.
    """

    rounding: Rounding | None = FLOAT32
    intermediate: bool = True

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Enclosure:
        """Bound every node, then the spec's rows; `margin` has shape (batch, row)."""
        walk = BackwardPass(problem.graph, problem.region, self.rounding, budget)
        walk.wanted = cone(walk.graph, problem.spec.coeff)
        refining, early = self.intermediate, budget.share(REFINING)
        for name in walk.names():
            if lookup(walk.graph.node(name)).relax is not None and refining:
                walk.budget = early
                try:
                    refine(walk, name)
                except OutOfTime:
                    refining = False  # what was found so far is kept
                walk.budget = budget
            walk.visit(name)
            walk.prune(name, walk.dead(name))
        tail, form = at_tail(walk, problem)
        margin = walk.region.minimise(walk.pulled(tail, form))
        # Interval arithmetic from the last nonlinear node can win where slopes were chosen badly.
        margin = torch.maximum(margin, over_interval(walk, tail, form))
        return Enclosure(margin, walk.all_bounds(), self.rounding is not None)


def refine(walk: BackwardPass, name: str) -> None:
    """Rows for the undecided inputs of a nonlinear node: the likelier side, then the other."""
    for position in range(len(walk.graph.node(name).inputs)):
        refine_input(walk, name, position)


def refine_input(walk: BackwardPass, name: str, position: int) -> None:
    """The same for one of its inputs."""
    node = walk.graph.node(name)
    source = node.inputs[position]
    signs = node.op in SIGN_DECIDES
    mask = walk.undecided(name, position)
    if mask is not None and not signs:
        mask = walk.unasked(source, mask)
    if mask is None:
        return
    first, widest = walk.rows_of(source, mask), walk.widest(source)
    for part in walk.chunks(first, widest=widest):
        walk.tighten(source, part, walk.least(source, part, sign_decides=signs))
    mask = walk.undecided(name, position)
    if mask is None:
        return
    for part in walk.chunks(first.among(mask).opposite(), widest=widest):
        walk.tighten(source, part, walk.least(source, part, sign_decides=signs))
