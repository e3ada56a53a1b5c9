"""Reach: least values of any linear functions of the logits, asked for as often as needed.

A bounder answers for one set of rows. Certified confidence asks several times, because the rows of
the second question depend on the answers to the first; so the bounds of the neurons are computed
once and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown, Pair
from verify.bounders.backward import CHUNK, WORKING_COPIES, BackwardPass
from verify.bounders.crown import Crown
from verify.bounders.crown import refine as refine_crown
from verify.bounders.interval import at_tail, over_interval
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.problem import Problem
from verify.protocols import Bounder
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import Region
from verify.values.spec import Spec

Answer = Callable[[str, LinearForm], Tensor]
"""Lower bounds (batch, row) of a form over the node of that name."""


@dataclass(eq=False)
class Reach:
    """What the logits can reach over a batch of regions.

    Attributes:
        graph: the network, float64.
        region: one set of inputs per batch entry.
        budget: time, and memory for one chunk of rows.
        bounder: how to bound; its rounding must be accounted for.
    """

    graph: Graph
    region: Region
    budget: Budget
    bounder: Bounder

    def __post_init__(self) -> None:
        """Bound the neurons, for the methods whose neurons' bounds do not depend on the rows."""
        self.walk: BackwardPass | None = None
        if isinstance(self.bounder, AlphaCrown):
            self.walk, self.answer, self.copies = slopes(self, self.bounder)
        elif isinstance(self.bounder, Crown):
            self.walk, self.answer, self.copies = lines(self, self.bounder)

    def least(self, coeff: Tensor) -> Tensor:
        """Lower bounds of coeff·z over each region; the coefficients count as exact numbers.

        Args:
            coeff: shape (batch, row, classes), float64.

        Returns:
            Shape (batch, row), float64, for every float32 execution; -inf where nothing is known.

        Raises:
            OutOfTime: if the time granted is over.
        """
        widest = max(node.size for node in self.graph.nodes)
        copies = WORKING_COPIES if self.walk is None else self.copies
        per_row = max(1, len(coeff)) * widest * 8 * copies
        count = max(1, min(self.budget.memory, CHUNK) // per_row)
        parts = [self.part(coeff[:, i : i + count]) for i in range(0, coeff.shape[1], count)]
        found = torch.cat(parts, dim=1) if parts else coeff.new_zeros(len(coeff), 0)
        return torch.where(torch.isfinite(found), found, -torch.inf)

    def part(self, coeff: Tensor) -> Tensor:
        """The same for rows that fit the memory."""
        spec = Spec(coeff, torch.zeros_like(coeff[..., 0]))
        problem = Problem(self.graph, self.region, spec)
        if self.walk is None:
            enclosure = self.bounder(problem, self.budget)
            if not enclosure.rigorous:
                raise InternalError("certified confidence was given bounds without rounding")
            return enclosure.margin
        tail, form = at_tail(self.walk, problem)
        found = over_interval(self.walk, tail, form)
        return torch.maximum(found, self.answer(tail, form))


def empty(reach: Reach) -> Problem:
    """The problem without any row."""
    coeff = torch.zeros(len(reach.region.bounds().lower), 0, reach.graph.output.size)
    return Problem(reach.graph, reach.region, Spec(coeff.double(), coeff[..., 0].double()))


def slopes(reach: Reach, bounder: AlphaCrown) -> tuple[BackwardPass, Answer, int]:
    """The neurons' bounds by optimised slopes, and how rows are answered from them."""
    if bounder.rounding is None:
        raise InternalError("certified confidence was given bounds without rounding")
    search = BackwardPass(
        reach.graph.to(bounder.search_dtype),
        reach.region.to(bounder.search_dtype),
        None,
        reach.budget,
    )
    proof = BackwardPass(reach.graph, reach.region, bounder.rounding, reach.budget)
    pair = Pair(proof, search, bounder.ascent, None, bounder.intermediate)
    for name in proof.names():
        if lookup(proof.graph.node(name)).relax is not None:
            pair.refine(name)
        pair.visit(name)
    tail, _ = at_tail(proof, empty(reach))

    def answer(start: str, form: LinearForm) -> Tensor:
        return pair.optimise(start, form, enough=None)

    return proof, answer, pair.copies(tail)


def lines(reach: Reach, bounder: Crown) -> tuple[BackwardPass, Answer, int]:
    """The neurons' bounds by fixed lines, and how rows are answered from them."""
    if bounder.rounding is None:
        raise InternalError("certified confidence was given bounds without rounding")
    walk = BackwardPass(reach.graph, reach.region, bounder.rounding, reach.budget)
    for name in walk.names():
        if lookup(walk.graph.node(name)).relax is not None and bounder.intermediate:
            refine_crown(walk, name)
        walk.visit(name)
        walk.prune(name, walk.dead(name))

    def answer(start: str, form: LinearForm) -> Tensor:
        return walk.region.minimise(walk.pulled(start, form))

    return walk, answer, WORKING_COPIES
