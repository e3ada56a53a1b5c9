"""AlphaCrown: CROWN with slopes optimised for every row, layer by layer.

A row's bound depends on its own slopes and on the node bounds below it, and on nothing else. So the
rows of one layer are optimised to the end before the next layer is touched: later layers start from
final bounds, neurons that become stable never get rows, and no gradient passes through bounds.

The gradient needs no autograd. For fixed slopes the bound is the value of a linear form at its
minimiser x*; running the network forward from x* with each row's own lines gives every z(x*), and
d bound / d alpha = A+·z(x*) for relu (Danskin's theorem). One forward walk costs as much as the
backward one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.crown import refine
from verify.bounders.interval import at_tail, over_interval
from verify.bounders.rows import Rows
from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.ops.windowed import dense
from verify.problem import Problem
from verify.values.budget import Budget
from verify.values.enclosure import Enclosure
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import FLOAT32, Rounding


@dataclass(frozen=True, slots=True, eq=False)
class Optimised:
    """What an optimisation of rows ended with.

    Attributes:
        value: the best bound met, shape (batch, row).
        alpha: the slopes that gave it, per nonlinear node, shape (free, batch, row, *node).
    """

    value: Tensor
    alpha: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Ascent:
    """Projected Adam on the slopes.

    Attributes:
        iterations: backward passes; the first one evaluates the initial slopes.
        rate: step size, in units of slope.
        decay: factor on the rate per iteration.
        momentum: Adam's beta1. Half of the usual, because the bound is piecewise linear in the
            slopes: a gradient of nine steps ago belongs to another piece. Measured in
            benchmarks/README.md.
        memory: Adam's beta2.

    Source:
        Kingma and Ba 2015, arXiv:1412.6980; alpha-CROWN: Xu et al. 2021, arXiv:2011.13824.
    """

    iterations: int = 20
    rate: float = 0.25
    decay: float = 0.97
    momentum: float = 0.5
    memory: float = 0.99

    def __call__(
        self, walk: BackwardPass, start: str, form: LinearForm, *, enough: float | None = None
    ) -> Optimised:
        """Raise every row's bound over its own slopes.

        Args:
            walk: bounds and lines of all nodes below `start`.
            start: the node the rows are over.
            form: the rows.
            enough: stop as soon as all rows exceed this.
        """
        nodes = free_nodes(walk, start)
        batch, row = form.const.shape
        alpha = {
            node.name: initial_alpha(walk, node).expand(-1, -1, row, *node.shape).clone()
            for node in nodes
        }
        best, best_alpha = form.const.new_full((batch, row), -torch.inf), dict(alpha)
        first = {name: torch.zeros_like(a) for name, a in alpha.items()}
        second = {name: torch.zeros_like(a) for name, a in alpha.items()}
        for step in range(self.iterations):
            lines = lines_at(walk, nodes, alpha)
            record: dict[str, Tensor] = {}
            pulled = walk.pulled(start, form, lines, record)
            value = walk.region.minimise(pulled)
            better = value > best
            best = torch.where(better, value, best)
            keep(best_alpha, alpha, better)
            last = step == self.iterations - 1
            if last or not nodes or (enough is not None and bool((best > enough).all())):
                break
            slopes = slope_gradients(walk, start, pulled, lines, record, alpha, nodes)
            rate = self.rate * self.decay**step
            for name, gradient in slopes.items():
                first[name].mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
                second[name].mul_(self.memory).addcmul_(gradient, gradient, value=1 - self.memory)
                size = (second[name] / (1 - self.memory ** (step + 1))).sqrt_().add_(1e-12)
                moved = first[name] / size
                alpha[name] = alpha[name].add(moved, alpha=rate / (1 - self.momentum ** (step + 1)))
                alpha[name].clamp_(0, 1)
        return Optimised(best, best_alpha)


def keep(best: dict[str, Tensor], alpha: dict[str, Tensor], better: Tensor) -> None:
    """Overwrite the best slopes of the rows that improved."""
    for name, value in alpha.items():
        mask = better.view(1, *better.shape, *[1] * (value.ndim - 3))
        best[name] = torch.where(mask, value, best[name])


def free_nodes(walk: BackwardPass, start: str) -> list[Node]:
    """The nonlinear nodes below `start` whose lines alpha can move, in graph order."""
    needed = {start}
    found = []
    for node in reversed(walk.graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            if lookup(node).free:
                found.append(node)
    return found[::-1]


def initial_alpha(walk: BackwardPass, node: Node) -> Tensor:
    """The slopes of the smallest relaxation, shape (free, batch, 1, *node)."""
    rule = lookup(node).initial
    assert rule is not None
    return rule(node, walk.bounds[node.inputs[0]])


def lines_at(
    walk: BackwardPass, nodes: list[Node], alpha: dict[str, Tensor]
) -> dict[str, Relaxation]:
    """The pass's lines with those of the free nodes moved to the given slopes."""
    lines = dict(walk.lines)
    for node in nodes:
        rule = lookup(node).relax
        assert rule is not None
        lines[node.name] = rule(node, walk.bounds[node.inputs[0]], alpha[node.name])
    return lines


def slope_gradients(
    walk: BackwardPass,
    start: str,
    pulled: LinearForm,
    lines: dict[str, Relaxation],
    record: dict[str, Tensor],
    alpha: dict[str, Tensor],
    nodes: list[Node],
) -> dict[str, Tensor]:
    """d bound / d alpha for every free node: one forward walk from the rows' minimisers."""
    point = walk.region.minimiser(dense(pulled, walk.graph.input.shape).coeff)
    batch, row = point.shape[:2]
    values = {walk.graph.input.name: point.flatten(0, 1)}
    wanted = {node.name for node in nodes if node.name in record}
    gradients: dict[str, Tensor] = {}
    for node in walk.graph.nodes[1:]:
        if len(gradients) == len(wanted):
            break
        if any(name not in values for name in node.inputs):
            continue
        op = lookup(node)
        if op.relax is None:
            values[node.name] = op.forward(node, *(values[name] for name in node.inputs))
            continue
        if node.name not in record:
            continue  # no row of these reads it
        coeff = record[node.name]
        value = values[node.inputs[0]].unflatten(0, (batch, row))
        if node.name in wanted:
            assert op.ascend is not None
            bounds = walk.bounds[node.inputs[0]]
            gradients[node.name] = op.ascend(node, bounds, alpha[node.name], coeff, value)
        values[node.name] = along_lines(lines[node.name], coeff, value).flatten(0, 1)
    return gradients


def along_lines(lines: Relaxation, coeff: Tensor, value: Tensor) -> Tensor:
    """Each row's own line at its value: the lower one where the coefficient is positive."""
    if lines.lower_source is not None and lines.upper_source is not None:
        flat = value.flatten(2)
        rows = flat.shape[1]
        shape = coeff.shape
        low = flat.gather(2, lines.lower_source[:, None].expand(-1, rows, -1)).view(shape)
        high = flat.gather(2, lines.upper_source[:, None].expand(-1, rows, -1)).view(shape)
    else:
        low = high = value
    lower = low * lines.lower_slope
    if lines.lower_offset is not None:
        lower = lower + lines.lower_offset
    upper = high * lines.upper_slope
    if lines.upper_offset is not None:
        upper = upper + lines.upper_offset
    return torch.where(coeff > 0, lower, upper)


@dataclass(frozen=True, slots=True)
class AlphaCrown:
    """CROWN with optimised slopes for every undecided neuron and for the spec.

    Attributes:
        rounding: which executions the bounds hold for; None for plain float arithmetic.
        ascent: how the slopes are optimised.
        search_dtype: arithmetic of the optimisation; the final evaluation is in the problem's.
        enough: stop optimising the spec's rows once all margins exceed this.

    Source:
        Xu et al. 2021, arXiv:2011.13824, with the departures that the module's docstring states.
    """

    rounding: Rounding | None = FLOAT32
    ascent: Ascent = Ascent()
    search_dtype: torch.dtype = torch.float32
    enough: float | None = None

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Enclosure:
        """Bound every node, then the spec's rows; `margin` has shape (batch, row)."""
        proof = BackwardPass(problem.graph, problem.region, self.rounding, budget)
        if self.rounding is None and problem.graph.dtype == self.search_dtype:
            search = proof
        else:
            search = BackwardPass(
                problem.graph.to(self.search_dtype),
                problem.region.to(self.search_dtype),
                None,
                budget,
            )
        pair = Pair(proof, search, self.ascent)
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

    def visit(self, name: str) -> None:
        """Settle one node in both passes; the search follows the proof's bounds."""
        self.proof.visit(name)
        alive = self.proof.dead(name)
        if self.search is not self.proof:
            self.search.visit(name)
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
        (source,) = self.proof.graph.node(name).inputs
        self.follow(source)
        mask = self.proof.undecided(name)
        if mask is None or not free_nodes(self.search, source):
            return
        first = self.proof.rows_of(source, mask)
        self.ascend(source, first)
        mask = self.proof.undecided(name)
        if mask is not None:
            self.ascend(source, first.among(mask).opposite())

    def ascend(self, source: str, rows: Rows) -> None:
        """Optimise the slopes of rows of a node, and take over what the proof makes of them."""
        for part in self.search.chunks(rows, copies=self.copies(source)):
            self.proof.tighten(source, part, self.optimised(source, part))
        self.follow(source)

    def copies(self, source: str) -> int:
        """Tensors of the widest node's size that one optimised row needs: slopes, mostly."""
        slopes = sum(n.size * lookup(n).free for n in free_nodes(self.search, source))
        widest = max(node.size for node in self.search.graph.nodes)
        return 8 + 7 * slopes // widest

    def optimised(self, name: str, rows: Rows) -> Tensor:
        """Lower bounds of rows with slopes of their own, shape (batch, row)."""
        start, form = self.search.form_of(name, rows.to(self.search.graph.dtype))
        found = self.ascent(self.search, start, form)
        if self.search is self.proof:
            return found.value
        start, form = self.proof.form_of(name, rows)
        return self.prove(start, form, found)

    def optimise(self, start: str, form: LinearForm, *, enough: float | None) -> Tensor:
        """The spec's rows with slopes of their own."""
        dtype = self.search.graph.dtype
        rows = LinearForm(form.coeff.to(dtype), form.const.to(dtype))
        found = self.ascent(self.search, start, rows, enough=enough)
        return found.value if self.search is self.proof else self.prove(start, form, found)

    def prove(self, start: str, form: LinearForm, found: Optimised) -> Tensor:
        """Evaluate the found slopes once in the rigorous pass."""
        nodes = [self.proof.graph.node(name) for name in found.alpha]
        alpha = {name: a.to(self.proof.graph.dtype) for name, a in found.alpha.items()}
        lines = lines_at(self.proof, nodes, alpha)
        return self.proof.region.minimise(self.proof.pulled(start, form, lines))
