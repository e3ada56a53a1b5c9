"""Interval: bounds by interval arithmetic (IBP); the cheapest method, and the loosest."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verify.bounders.backward import BOX_TO_BOX, BackwardPass
from verify.bounders.rows import Rows
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.problem import Problem
from verify.traverse import pull_back
from verify.values.budget import Budget
from verify.values.enclosure import Enclosure
from verify.values.linear_form import LinearForm
from verify.values.region import Box
from verify.values.rounding import FLOAT32, Rounding


def affine_tail(graph: Graph) -> str:
    """The node after which only dense layers, scalings and reshapings follow."""
    name = graph.output.name
    while True:
        node = graph.node(name)
        if node.op not in ("Gemm", *BOX_TO_BOX):
            return name
        (name,) = node.inputs


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval bound propagation, with the spec's rows merged into the last affine layers.

    Over an L1 or L2 ball the first affine layer is bounded by the dual norm instead of the box.

    Attributes:
        rounding: which executions the bounds hold for; None for plain arithmetic.

    Source:
        Gowal et al. 2018, arXiv:1810.12715, with the elision of the last layer (section 3).
    """

    rounding: Rounding | None = FLOAT32

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Enclosure:
        """Bound every node, then the spec's rows."""
        walk = BackwardPass(problem.graph, problem.region, self.rounding, budget)
        linear = {walk.graph.input.name}
        for node in walk.graph.nodes[1:]:
            walk.visit(node.name, lines=not problem.region.is_box)
            affine = lookup(node).relax is None and all(name in linear for name in node.inputs)
            if affine:
                linear.add(node.name)
                if not problem.region.is_box and lookup(node).mixes:
                    every = torch.arange(node.size).expand(len(problem.spec.coeff), -1)
                    rows = Rows(every, torch.ones(every.shape, dtype=problem.graph.dtype))
                    for side in (rows, rows.opposite()):
                        for part in walk.chunks(side):
                            walk.tighten(node.name, part, walk.least(node.name, part))
        tail, form = at_tail(walk, problem)
        margin = over_interval(walk, tail, form)
        return Enclosure(margin, walk.all_bounds(), self.rounding is not None)


def at_tail(walk: BackwardPass, problem: Problem) -> tuple[str, LinearForm]:
    """The spec's rows, pulled back through the affine tail, and the node they are then over."""
    graph = walk.graph
    tail = affine_tail(graph)
    start, form = walk.spec_form(problem.spec.coeff, problem.spec.const)
    if tail == start:
        return start, form
    names = [node.name for node in graph.nodes]
    cut = Graph((graph.node(tail), *graph.nodes[names.index(tail) + 1 :]))
    noise = None if walk.rounding is None else walk.noise
    return tail, pull_back(cut, start, form, {}, noise=noise, sizes=walk.sizes)


def over_interval(walk: BackwardPass, tail: str, form: LinearForm) -> torch.Tensor:
    """The least values of rows at a node over its interval bounds alone, shape (batch, row)."""
    bounds = walk.bounds[tail]
    return Box(bounds.lower, bounds.upper).minimise(form)
