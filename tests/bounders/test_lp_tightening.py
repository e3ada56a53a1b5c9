"""Bounds by linear programs: no looser, never past a sample, with input constraints and without."""

from __future__ import annotations

import torch

from tests.nets import FAMILIES, dense_net
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.lp_tightening import tightened
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.traverse import evaluate
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.region import Box


def case_over(graph: Graph, seed: int, eps: float, *, tied: bool) -> Case:
    """A box around a random point, cut by a plane through its centre if tied."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(graph.input.size, generator=generator, dtype=torch.float64)
    normal = torch.randn(int(tied), graph.input.size, generator=generator, dtype=torch.float64)
    inputs = Halfspaces(normal, -(normal @ centre), torch.zeros(int(tied), dtype=torch.bool))
    row = torch.eye(graph.output.size, dtype=torch.float64)[:1]
    clause = Halfspaces(row, torch.zeros(1).double(), torch.zeros(1, dtype=torch.bool))
    return Case(centre - eps, centre + eps, inputs, (clause,))


def known(graph: Graph, case: Case, bounder: Crown | Interval) -> dict[str, Bounds]:
    """Bounds of every node."""
    shape = (1, *graph.input.shape)
    box = Box(case.lower.view(shape), case.upper.view(shape))
    return dict(bounder(Problem(graph, box, case.spec())).bounds)


def test_tightened_bounds_hold_and_gain() -> None:
    """Samples that meet the constraints stay inside; many intervals shrink."""
    gained = 0
    nets = [dense_net(k, (5, 12, 12, 12, 3)) for k in range(2)]
    for k, graph in enumerate([*nets, FAMILIES["residual"](1)]):
        case = case_over(graph, k, 0.4, tied=k % 2 == 0)
        before = known(graph, case, Crown())
        after = tightened(graph, case, before, Budget())
        share = torch.rand(5000, graph.input.size, generator=torch.Generator().manual_seed(k))
        x = torch.lerp(case.lower, case.upper, share.double())
        x = x[case.inputs.contain(x)]
        assert len(x) > 1000
        values = evaluate(graph, x.view(-1, *graph.input.shape))
        for name, bounds in after.items():
            assert bool((bounds.lower >= before[name].lower).all())
            assert bool((bounds.upper <= before[name].upper).all())
            assert bool((values[name] >= bounds.lower).all())
            assert bool((values[name] <= bounds.upper).all())
            gained += int((bounds.lower > before[name].lower + 1e-3).sum())
    assert gained > 20


def test_interval_bounds_become_those_of_the_program() -> None:
    """Started from intervals, the second layer is at least as tight as CROWN's own."""
    graph = dense_net(7, (4, 10, 10, 3))
    case = case_over(graph, 7, 0.3, tied=False)
    crown = known(graph, case, Crown())["gemm1"]
    found = tightened(graph, case, known(graph, case, Interval()), Budget())["gemm1"]
    open_ = (found.lower < 0) & (found.upper > 0)
    assert bool(open_.any())
    assert bool((found.lower >= crown.lower - 1e-4)[open_].all())
    assert bool((found.upper <= crown.upper + 1e-4)[open_].all())


def test_without_time_nothing_changes() -> None:
    """A deadline in the past returns what was given."""
    graph = dense_net(7, (4, 10, 10, 3))
    case = case_over(graph, 7, 0.3, tied=False)
    before = known(graph, case, Crown())
    after = tightened(graph, case, before, Budget(0.0))
    assert all(after[name] is before[name] for name in before)
