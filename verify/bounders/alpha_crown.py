"""AlphaCrown: CROWN with slopes optimised for every row, layer by layer.

A row's bound depends on its own slopes and on the node bounds below it, and on nothing else. So the
rows of one layer are optimised to the end before the next layer is touched: later layers start from
final bounds, neurons that become stable never get rows, and no gradient passes through bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.cone import cone
from verify.bounders.crown import refine
from verify.bounders.interval import at_tail, over_interval
from verify.bounders.memo import SPEC, Memo
from verify.bounders.rows import Rows
from verify.bounders.slopes import Ascent, Optimised, free_nodes, lines_at, slopes_of
from verify.ops.registry import lookup
from verify.problem import Problem
from verify.values.budget import Budget
from verify.values.enclosure import Enclosure
from verify.values.linear_form import LinearForm
from verify.values.rounding import FLOAT32, Rounding

WARM_SHARE = 0.4
"""Iterations where slopes of a neighbouring radius are known, as a share of the usual number."""


@dataclass(frozen=True, slots=True)
class AlphaCrown:
    """CROWN with optimised slopes for every undecided neuron and for the spec.

    Attributes:
        rounding: which executions the bounds hold for; None for plain float arithmetic.
        ascent: how the slopes are optimised.
        search_dtype: arithmetic of the optimisation; the final evaluation is in the problem's.
        enough: stop optimising the spec's rows once all margins exceed this.
        intermediate: whether neurons' bounds are optimised too, or only the spec's.

    Source:
        Xu et al. 2021, arXiv:2011.13824, with the departures that the module's docstring states.
    """

    rounding: Rounding | None = FLOAT32
    ascent: Ascent = Ascent()
    search_dtype: torch.dtype = torch.float32
    enough: float | None = None
    intermediate: bool = True

    def __call__(
        self, problem: Problem, budget: Budget = Budget(), memo: Memo | None = None
    ) -> Enclosure:
        """Bound every node, then the spec's rows; `margin` has shape (batch, row).

        Args:
            problem: what to bound.
            budget: time and memory.
            memo: slopes found for the same inputs at other radii: started from, and added to.
        """
        proof = BackwardPass(problem.graph, problem.region, self.rounding, budget)
        proof.wanted = cone(proof.graph, problem.spec.coeff)
        if self.rounding is None and problem.graph.dtype == self.search_dtype:
            search = proof
        else:
            search = BackwardPass(
                problem.graph.to(self.search_dtype),
                problem.region.to(self.search_dtype),
                None,
                budget,
            )
        pair = Pair(proof, search, self.ascent, memo, self.intermediate)
        for name in proof.names():
            if lookup(proof.graph.node(name)).relax is not None:
                pair.refine(name)
            pair.visit(name)
        tail, form = at_tail(proof, problem)
        margin = pair.optimise(tail, form, enough=self.enough)
        margin = torch.maximum(margin, over_interval(proof, tail, form))
        return Enclosure(margin, proof.all_bounds(), self.rounding is not None)


@dataclass(eq=False)
class Pair:
    """A rigorous pass and the float32 search that proposes slopes to it; they may be one."""

    proof: BackwardPass
    search: BackwardPass
    ascent: Ascent
    memo: Memo | None
    intermediate: bool

    def visit(self, name: str) -> None:
        """Settle one node in both passes; the search follows the proof's bounds."""
        self.proof.visit(name)
        alive = self.proof.dead(name)
        if self.search is not self.proof:
            self.search.choose(name)
            self.follow(name)
            self.search.prune(name, alive)
        self.proof.prune(name, alive)

    def follow(self, name: str) -> None:
        """Copy a node's proved bounds to the search."""
        if self.search is not self.proof:
            dtype = self.search.graph.dtype
            self.search.bounds[name] = self.proof.bounds[name].to(dtype)
            if name in self.proof.raw:
                self.search.raw[name] = self.proof.raw[name].to(dtype)

    def refine(self, name: str) -> None:
        """Rows for the undecided inputs of a nonlinear node: plain lines, then optimised ones.

        Each time the side that is likelier to decide goes first; what it decides needs no other.
        """
        refine(self.proof, name)
        for position, source in enumerate(self.proof.graph.node(name).inputs):
            self.follow(source)
            self.refine_input(name, position)

    def refine_input(self, name: str, position: int) -> None:
        """Optimised rows for the undecided entries of one input."""
        source = self.proof.graph.node(name).inputs[position]
        mask = self.proof.undecided(name, position)
        if mask is None or not self.intermediate or not free_nodes(self.search, source):
            return
        first = self.proof.rows_of(source, mask)
        self.ascend(source, first)
        mask = self.proof.undecided(name, position)
        if mask is not None:
            self.ascend(source, first.among(mask).opposite())

    def ascend(self, source: str, rows: Rows) -> None:
        """Optimise the slopes of rows of a node, and take over what the proof makes of them."""
        for part in self.search.chunks(rows, copies=self.copies(source)):
            self.proof.tighten(source, part, self.optimised(source, part))
        self.follow(source)

    def copies(self, source: str) -> int:
        """Tensors of the widest node's size that one optimised row needs: slopes, mostly."""
        slopes = sum(slopes_of(node) for node in free_nodes(self.search, source))
        widest = max(node.size for node in self.search.graph.nodes)
        return 8 + 7 * slopes // widest

    def optimised(self, name: str, rows: Rows) -> Tensor:
        """Lower bounds of rows with slopes of their own, shape (batch, row)."""
        start, form = self.search.form_of(name, rows.to(self.search.graph.dtype))
        found = self.climb(name, rows, start, form)
        if self.search is self.proof:
            return found.value
        start, form = self.proof.form_of(name, rows)
        return self.prove(start, form, found, neurons=True)

    def climb(
        self, name: str, rows: Rows, start: str, form: LinearForm, enough: float | None = None
    ) -> Optimised:
        """Optimise rows in the search, from the memo's slopes and into it, if there is one."""
        if self.memo is None:
            remember = self.search is not self.proof
            return self.ascent(self.search, start, form, enough=enough, remember=remember)
        known = self.memo.recall(name, rows, self.search.kept)
        ascent = self.ascent
        if known:
            few = max(1, round(WARM_SHARE * ascent.iterations))
            ascent = replace(ascent, iterations=few, rate=ascent.rate / 2)
        found = ascent(self.search, start, form, enough=enough, initial=known)
        widths = {name: self.search.whole[name].lower.shape[1] for name in self.search.kept}
        self.memo.store(name, rows, found.alpha, self.search.kept, widths)
        return found

    def optimise(self, start: str, form: LinearForm, *, enough: float | None) -> Tensor:
        """The spec's rows with slopes of their own."""
        dtype = self.search.graph.dtype
        rows = LinearForm(form.coeff.to(dtype), form.const.to(dtype))
        every = torch.arange(rows.const.shape[1]).expand(rows.const.shape)
        whole = Rows(every, torch.ones_like(rows.const))
        found = self.climb(SPEC, whole, start, rows, enough)
        if self.search is self.proof:
            return found.value
        margin = self.prove(start, form, found)
        short = (margin <= (enough or 0.0)) & (found.value > (enough or 0.0))
        if enough is not None and bool(short.any()):
            # The search stopped where it was content, but rounding took more than that: aim higher.
            taken = float((found.value.to(margin.dtype) - margin)[short].max())
            found = self.climb(SPEC, whole, start, rows, enough + 2 * taken)
            margin = torch.maximum(margin, self.prove(start, form, found))
        return margin

    def prove(
        self, start: str, form: LinearForm, found: Optimised, *, neurons: bool = False
    ) -> Tensor:
        """Evaluate the found slopes once in the rigorous pass."""
        nodes = [self.proof.graph.node(name) for name in found.alpha]
        alpha = {name: a.to(self.proof.graph.dtype) for name, a in found.alpha.items()}
        lines = lines_at(self.proof, nodes, alpha)
        return self.proof.region.minimise(self.proof.pulled(start, form, lines, neurons=neurons))
