"""Tightened: bounds of open neurons by linear programs, layer by layer, rigorous by their duals.

The refinement that k-ReLU and bab-refine use solvers for (Singh et al. 2019, section 4), without
trust in the solver: HiGHS minimises z and -z over the layers below, and what its dual values prove
is intersected with what was known. Later layers start from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from verify.bounders.lp import Vector, program
from verify.bounders.multipliers import KINKED, ledger
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Simplex
from verify.graph.ir import Graph, Node
from verify.graph.passes import reachable
from verify.ops.registry import lookup
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.rounding import FLOAT32, Rounding

BATCH = 32
"""Rows evaluated at once."""


def tightened(
    graph: Graph,
    case: Case,
    bounds: Mapping[str, Bounds],
    budget: Budget,
    rounding: Rounding = FLOAT32,
) -> dict[str, Bounds]:
    """Rigorous bounds of every node, no looser than those given.

    Neurons next to the input are left out where no constraint ties inputs: their bounds are exact
    up to rounding. When time runs out, what was found by then is kept.

    Args:
        graph: the network, float64, whose nonlinear nodes are kinked.
        case: whose box and input constraints hold; its clauses are not used.
        bounds: rigorous bounds of every node over the box, shape (1, *node).
        budget: its deadline is kept, up to one program.
        rounding: which executions the bounds given hold for, and those that are found.
    """
    found = dict(bounds)
    for place, node in enumerate(graph.nodes):
        if node.op not in KINKED:
            continue
        (source,) = node.inputs
        below = Graph(tuple(reachable(with_last(graph, place, source))))
        first = all(lookup(n).relax is None for n in below.nodes[1:])
        if (first and not len(case.inputs)) or time.monotonic() >= budget.deadline:
            continue
        found[source] = tightened_node(below, case, found, budget, rounding)
    return found


def with_last(graph: Graph, place: int, name: str) -> list[Node]:
    """The nodes before a place, up to the named one, which comes last."""
    nodes = list(graph.nodes[:place])
    names = [node.name for node in nodes]
    return nodes[: names.index(name) + 1]


def tightened_node(
    graph: Graph, case: Case, bounds: Mapping[str, Bounds], budget: Budget, rounding: Rounding
) -> Bounds:
    """Bounds of the graph's output, whose open entries are minimised and maximised."""
    name, shape = graph.output.name, graph.output.shape
    lower, upper = bounds[name].lower.flatten().clone(), bounds[name].upper.flatten().clone()
    open_ = ((lower < 0) & (upper > 0)).nonzero().flatten()
    if not len(open_):
        return bounds[name]
    coeff = torch.zeros(len(open_), graph.output.size, dtype=torch.float64)
    coeff[torch.arange(len(open_)), open_] = 1.0
    both = torch.cat([coeff, -coeff])
    const = torch.zeros(len(both), dtype=torch.float64)
    inputs = (case.inputs.coeff, case.inputs.const)
    known = {node.name: bounds[node.name] for node in graph.nodes}
    relaxed = program(graph, known, both, const, inputs=inputs, joint=False)
    rows = both.view(-1, *shape)
    prover = Prover(ledger(graph, known, rounding), relaxed, rows, const, inputs)
    simplex = Simplex(relaxed)
    waiting: list[tuple[int, Vector]] = []

    def take() -> None:
        if not waiting:
            return
        index = torch.tensor([row for row, _ in waiting])
        weights = torch.zeros(len(index), len(both), dtype=torch.float64)
        weights[torch.arange(len(index)), index] = 1.0
        least = prover.prove([simplex.whole] * len(index), [d for _, d in waiting], weights)
        for row, value in zip(index.tolist(), least.tolist(), strict=True):
            entry = int(open_[row % len(open_)])
            if not np.isfinite(value):
                continue
            if row < len(open_):
                lower[entry] = max(float(lower[entry]), value)
            else:
                upper[entry] = min(float(upper[entry]), -value)
        waiting.clear()

    for k in range(len(open_)):
        # The side that is nearer to 0 may settle the sign; then the other one is not needed.
        entry = int(open_[k])
        sides = (k, k + len(open_))
        for row in sides if -lower[entry] < upper[entry] else sides[::-1]:
            simplex.aim(row)
            solved = simplex.solve(deadline=budget.deadline)
            if solved.duals is None or solved.ray:
                continue
            waiting.append((row, solved.duals))
            if solved.bound > 0:
                break
        if len(waiting) >= BATCH:
            take()
        if time.monotonic() >= budget.deadline:
            break
    take()
    return Bounds(lower.view(1, *shape), upper.view(1, *shape))
