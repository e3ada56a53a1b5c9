"""Forward: every neuron between two affine functions of the parameters; then one backward pass.

With one to eight parameters, forms carried forward cost a few convolutions a layer, where rows
pulled back for every neuron cost one per neuron. The margin alone is pulled back, by lines that the
forward bounds allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.interval import affine_tail, at_tail, over_interval
from verify.geometric.forms import (
    Forms,
    paid,
    through_affine,
    through_lines,
    through_relu,
    widened,
)
from verify.geometric.region import Transformed
from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup, noise_of
from verify.ops.windowed import dense
from verify.problem import Problem
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import settle
from verify.values.rounding import FLOAT32, SPARE, UNIT_FLOAT32, Rounding, gamma


@dataclass(frozen=True, slots=True)
class Forward:
    """Forward forms intersected with intervals, then backward bounds of the margin.

    Attributes:
        rounding: which executions the bounds hold for; None for plain arithmetic.
        single: the graph in float32, to convert it once for many calls; or None.

    Source:
        Forward mode as in Xu et al. 2020, arXiv:2002.12920, section 3; lines as in CROWN.
    """

    rounding: Rounding | None = FLOAT32
    single: Graph | None = None

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Searched:
        """Bound every node, then the spec's rows; the region must be `Transformed`."""
        carried = self.carried(problem, budget)
        walk = carried.pass_over(None)
        tail, form = at_tail(walk, problem)
        margin = over_interval(walk, tail, form)
        here = carried.forms[tail].to(form.coeff.dtype)
        margin = torch.maximum(margin, over_forms(here, form))
        required = problem.spec.required
        coeff = margin.new_zeros(len(margin), *problem.graph.input.shape)

        def pull(boxes: Tensor, rows: Tensor) -> None:
            better, worst = carried.closed(boxes, tail, taken(form, boxes[:, None], rows))
            margin[boxes[:, None], rows] = torch.maximum(margin[boxes[:, None], rows], better)
            coeff[boxes] = worst

        # The worst row alone first: where that fails, no other row can save the box.
        some = opened(margin, required).any(dim=1).nonzero().flatten()
        if len(some):
            rows = margin[some].argmin(dim=1, keepdim=True)
            pull(some, rows)
            saved = ~opened(margin[some].gather(1, rows), required)[:, 0]
            rest = some[saved & opened(margin[some], required).any(dim=1)]
            if len(rest):
                left = opened(margin[rest], required)
                pull(rest, first_of(left))
        return Searched(margin, coeff)

    def carried(self, problem: Problem, budget: Budget) -> Carried:
        """Forms and intervals of every node, each intersected with the other."""
        region = problem.region
        assert isinstance(region, Transformed)
        graph, dtype = problem.graph, problem.graph.dtype
        if dtype == torch.float64 and self.rounding == FLOAT32:
            dtype = torch.float32
            graph = graph.to(dtype) if self.single is None else self.single
        start = Forms(region.forms.lower.transpose(0, 1), region.forms.upper.transpose(0, 1))
        first = graph.input.name
        forms: dict[str, Forms] = {first: start.to(dtype)}
        found = Carried(problem, self.rounding, budget, forms)
        found.bounds[first] = widened(region.bounds(), dtype)
        for node in graph.nodes[1:]:
            budget.check()
            found.step(node)
        return found


@dataclass(eq=False)
class Carried:
    """What is known of every node of a batch of boxes.

    Attributes:
        problem, rounding, budget: as given.
        forms, bounds: of each node.
        noise: as `verify.traverse.pull_back` takes it.
    """

    problem: Problem
    rounding: Rounding | None
    budget: Budget
    forms: dict[str, Forms]
    bounds: dict[str, Bounds] = field(default_factory=dict)
    noise: dict[str, Tensor] = field(default_factory=dict)

    def step(self, node: Node) -> None:
        """Bound one node whose inputs are done."""
        op = lookup(node)
        if op.relax is not None and node.op != "Relu":
            self.bend(self.problem.graph.node(node.name))
            return
        known = tuple(self.bounds[i] for i in node.inputs)
        found, noise = op.interval(node, *known), None
        if self.rounding is not None:
            noise = noise_of(node, self.rounding, torch.float64, known)
        single = found.lower.dtype == torch.float32
        if noise is not None:
            if single:
                # It was measured by |W|·|x| in float32, which may be too small.
                terms = 0 if op.fan is None else op.fan(node)[0]
                noise = noise * (1.0 + 2 * paid(gamma(terms + 16, UNIT_FLOAT32)))
            self.noise[node.name] = noise
            if op.rounds:
                # Our own rounding in float32 is at most that of an execution: charged once more.
                times = 2.0 if single else 1.0
                found = Bounds(found.lower - times * noise, found.upper + times * noise)
        inputs = [self.forms[name] for name in node.inputs]
        if node.op == "Relu":
            here = through_relu(inputs[0], known[0])
        else:
            here = through_affine(node, inputs, noise if op.rounds else None)
        self.forms[node.name] = here
        self.bounds[node.name] = found.intersect(here.bounds())

    def bend(self, node: Node) -> None:
        """Bound a nonlinear node by its own lines; these are found in float64."""
        op, (source,) = lookup(node), node.inputs
        assert op.relax is not None
        z, dtype = self.forms[source], self.forms[source].lower.dtype
        known = self.bounds[source].to(torch.float64)
        found, noise = op.interval(node, known), None
        if self.rounding is not None:
            noise = noise_of(node, self.rounding, torch.float64, (known,))
        if noise is not None:
            self.noise[node.name] = noise
            noise = noise if op.rounds else None
        if noise is not None:
            found = Bounds(found.lower - noise, found.upper + noise)
        here = through_lines(z, op.relax(node, known, None), noise)
        self.forms[node.name] = here
        self.bounds[node.name] = widened(found, dtype).intersect(here.bounds())

    def closed(self, boxes: Tensor, tail: str, form: LinearForm) -> tuple[Tensor, Tensor]:
        """Pull rows back from gate to gate; those that the forms of a gate close go no further.

        Args:
            boxes: their numbers.
            tail: the node that the rows are over.
            form: rows, one entry per box.

        Returns:
            The rows' margins, shape (box, row), and each box's worst row at the input; zeros where
            no row got there.
        """
        graph, required = self.problem.graph, self.problem.spec.required
        margin = torch.full_like(form.const, -torch.inf)
        coeff = margin.new_zeros(len(boxes), *graph.input.shape)
        rows = torch.arange(margin.shape[1]).expand(margin.shape)
        live, start = torch.arange(len(boxes)), tail
        for gate in gates(graph, tail):
            walk, cut = self.between(boxes[live], gate, start)
            form = walk.pulled(start, form, graph=cut)
            if gate == graph.input.name:
                found = self.problem.region.take(boxes[live]).minimise(form)
                worst = found.argmin(dim=1)
                flat = dense(form, graph.input.shape).coeff
                coeff[live] = flat[torch.arange(len(live)), worst]
            else:
                here = self.forms[gate].take(boxes[live]).to(graph.dtype)
                found = over_forms(here, form)
            margin[live[:, None], rows] = torch.maximum(margin[live[:, None], rows], found)
            open_ = opened(margin[live[:, None], rows], required)
            still = open_.any(dim=1)
            if not bool(still.any()):
                break
            live, rows = live[still], rows[still]
            order = first_of(open_[still])
            form = taken(form, still.nonzero(), order)
            rows, start = rows.gather(1, order), gate
        return margin, coeff

    def pass_over(self, boxes: Tensor | None, names: Sequence[str] = ()) -> BackwardPass:
        """A backward pass that knows some boxes and nodes; by default, the affine tail of all."""
        graph, region = self.problem.graph, self.problem.region
        if boxes is not None:
            region = region.take(boxes)
        walk = BackwardPass(graph, region, self.rounding, self.budget)
        if not names:
            every = [node.name for node in graph.nodes]
            names = every[every.index(affine_tail(graph)) :]
        for name in names:
            bounds, noise = self.bounds[name], self.noise.get(name)
            if boxes is not None:
                bounds = bounds.take(boxes)
                # What does not depend on the box has one entry for all.
                noise = noise[boxes] if noise is not None and len(noise) > 1 else noise
            walk.bounds[name] = bounds.to(graph.dtype)
            walk.sizes[name] = walk.bounds[name].magnitude()
            if noise is not None:
                walk.noise[name] = noise.to(graph.dtype)
        return walk

    def between(self, boxes: Tensor, gate: str, start: str) -> tuple[BackwardPass, Graph]:
        """A backward pass over some boxes, and the part of the network that it walks."""
        nodes = self.problem.graph.nodes
        names = [node.name for node in nodes]
        first, last = names.index(gate), names.index(start)
        walk = self.pass_over(boxes, names[first : last + 1])
        for node in nodes[first + 1 : last + 1]:
            if lookup(node).relax is not None:
                walk.choose_lines(node)
        entry = Node(gate, "Input", (), nodes[first].shape)
        return walk, Graph((entry, *nodes[first + 1 : last + 1]))


def gates(graph: Graph, tail: str) -> list[str]:
    """Nonlinear nodes before the tail that all paths pass, last first, then the input.

    Not the first of them: from there to the input is cheaper than a test.
    """
    names = [node.name for node in graph.nodes]
    upto = names.index(tail)
    passed = []
    for place in range(1, upto):
        later = graph.nodes[place + 1 : upto + 1]
        if lookup(graph.nodes[place]).relax is not None and all(
            names.index(source) >= place for node in later for source in node.inputs
        ):
            passed.append(names[place])
    return [*reversed(passed[1:]), names[0]]


def first_of(mask: Tensor) -> Tensor:
    """The places of a mask's True entries, shape (box, most of any box).

    Boxes with fewer are filled up with others of theirs.
    """
    order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return order[:, : int(mask.sum(dim=1).max())]


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """Margins of a batch of boxes, and the rows over pixels that they came from.

    Attributes:
        margin: lower bound of each row of the spec, shape (box, row).
        coeff: the worst row at the input, shape (box, *input); zero where forms were enough.
    """

    margin: Tensor
    coeff: Tensor


def over_forms(forms: Forms, form: LinearForm) -> Tensor:
    """The least values of rows over a node's forms, shape (box, row): A+·lower + A-·upper."""
    rows = form.coeff.flatten(2)
    lower, upper = (f.flatten(2).movedim(0, 2) for f in (forms.lower, forms.upper))
    positive = rows.clamp(min=0)
    affine = torch.matmul(positive, lower) + torch.matmul(rows - positive, upper)
    value = affine[:, :, 0] + form.const - affine[:, :, 1:].abs().sum(dim=2)
    size = torch.maximum(forms.lower.abs().sum(dim=0), forms.upper.abs().sum(dim=0))
    mass = torch.matmul(rows.abs(), size.flatten(1)[:, :, None])[:, :, 0]
    return settle(value, form, 2 * mass * SPARE[value.dtype], rows.shape[2] + 16)


def taken(form: LinearForm, boxes: Tensor, rows: Tensor) -> LinearForm:
    """Some rows of some boxes of a form; not of one kept as windows."""
    error = None if form.error is None else form.error[boxes, rows]
    return LinearForm(form.coeff[boxes, rows], form.const[boxes, rows], error)


def opened(margin: Tensor, required: float) -> Tensor:
    """Which rows are not proved; NaN and infinity are not."""
    return ~((margin > required) & torch.isfinite(margin))
