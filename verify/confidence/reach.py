"""Reach: least values of any linear functions of the logits, asked for as often as needed.

A bounder answers for one set of rows. Certified confidence asks several times, because the rows of
the second question depend on the answers to the first; so the bounds of the neurons are computed
once and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from verify.values.bounds import Bounds
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
        signs: limits of nodes that feed a Relu, shape (batch, entries): bounds then hold for those
            executions alone that keep to them. `Crown` and `AlphaCrown` take them.
        seen: with signs, the bounds of those nodes within them.
        empty: with signs, which entries of the batch hold no execution; bool, (batch,).
    """

    graph: Graph
    region: Region
    budget: Budget
    bounder: Bounder
    signs: Mapping[str, Bounds] | None = None

    def __post_init__(self) -> None:
        """Bound the neurons, for the methods whose neurons' bounds do not depend on the rows."""
        self.walk: BackwardPass | None = None
        self.seen: dict[str, Bounds] = {}
        self.empty = torch.zeros(len(self.region.bounds().lower), dtype=torch.bool)
        if self.signs is not None and not isinstance(self.bounder, (AlphaCrown, Crown)):
            raise InternalError("signs of neurons were given to a method that does not take them")
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

    def costs(self, coeff: Tensor) -> dict[str, Tensor]:
        """What each Relu's relaxation costs a row: |A|·intercept, at its source; (batch, entries).

        Args:
            coeff: one row, shape (batch, 1, classes).
        """
        assert self.walk is not None
        spec = Spec(coeff, torch.zeros_like(coeff[..., 0]))
        tail, form = at_tail(self.walk, Problem(self.graph, self.region, spec))
        record: dict[str, Tensor] = {}
        self.walk.pulled(tail, form, None, record)
        found = {}
        for name, bounds in self.seen.items():
            found[name] = torch.zeros_like(bounds.lower)
        for node in self.walk.graph.nodes:
            if node.name not in record or node.inputs[0] not in self.seen:
                continue
            source = node.inputs[0]
            alive = self.walk.kept.get(node.name)
            every = torch.arange(found[source].shape[1]) if alive is None else alive
            low, high = (
                side[:, every] for side in (self.seen[source].lower, self.seen[source].upper)
            )
            open_ = (low < 0) & (high > 0)
            intercept = torch.where(open_, -low * high / torch.where(open_, high - low, 1.0), 0.0)
            found[source][:, every] = record[node.name][:, 0].abs() * intercept
        return found

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


def without_rows(reach: Reach) -> Problem:
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
        node = proof.graph.node(name)
        if lookup(node).relax is not None:
            pair.refine(name)
            if reach.signs is not None:
                limit(reach, proof, node.inputs[0])
                pair.follow(node.inputs[0])
        pair.visit(name)
    tail, _ = at_tail(proof, without_rows(reach))

    def answer(start: str, form: LinearForm) -> Tensor:
        return pair.optimise(start, form, enough=None)

    return proof, answer, pair.copies(tail)


def limit(reach: Reach, walk: BackwardPass, source: str) -> None:
    """Keep a node's bounds to the given signs, and note the parts that this leaves empty."""
    assert reach.signs is not None
    found = walk.bounds[source].intersect(reach.signs[source])
    nothing = (found.lower > found.upper).flatten(1).any(dim=1)
    reach.empty |= nothing
    # An empty part keeps its former bounds: any are true of nothing, and these are in order.
    mask = nothing.view(-1, *[1] * (found.lower.dim() - 1))
    before = walk.bounds[source]
    kept = Bounds(
        torch.where(mask, before.lower, found.lower), torch.where(mask, before.upper, found.upper)
    )
    walk.bounds[source] = kept
    walk.raw.pop(source, None)
    reach.seen[source] = kept


def lines(reach: Reach, bounder: Crown) -> tuple[BackwardPass, Answer, int]:
    """The neurons' bounds by fixed lines, and how rows are answered from them."""
    if bounder.rounding is None:
        raise InternalError("certified confidence was given bounds without rounding")
    walk = BackwardPass(reach.graph, reach.region, bounder.rounding, reach.budget)
    for name in walk.names():
        node = walk.graph.node(name)
        if lookup(node).relax is not None:
            if bounder.intermediate:
                refine_crown(walk, name)
            if reach.signs is not None:
                limit(reach, walk, node.inputs[0])
        walk.visit(name)
        walk.prune(name, walk.dead(name))

    def answer(start: str, form: LinearForm) -> Tensor:
        return walk.region.minimise(walk.pulled(start, form))

    return walk, answer, WORKING_COPIES
