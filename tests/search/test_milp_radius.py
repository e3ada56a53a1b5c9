"""Radii by mixed-integer programs: against bisections over exact minima, both directions."""

from __future__ import annotations

import math

import pytest
import torch

from tests.nets import dense_net
from tests.search.test_ladder import blank, radius_case
from tests.search.test_strategy import GraphJudge
from verify.search.milp_radius import METHOD, Nearest
from verify.search.narrowing import closed
from verify.search.questions import case_of
from verify.values.budget import Budget
from verify.values.question import question

WIDTH = 0.5 / 2**12 + 1e-5
"""Of the judge's last interval, with its tolerance."""


@pytest.mark.parametrize("seed", [1, 3])
def test_nearest_counterexamples_are_at_the_exact_radius(seed: int) -> None:
    """Confirmed by the judge, no nearer than the exact radius, and hardly further."""
    known = radius_case(seed)
    assert known is not None
    graph, asked, exact = known
    judge = GraphJudge(graph)
    point = Nearest()(graph, case_of(asked, 3), asked, judge, Budget())
    assert point is not None
    assert bool(judge.misclassified(point[None], asked.labels)[0])
    distance = float(asked.distance(point[None])[0])
    assert exact - WIDTH <= distance <= 1.001 * exact + WIDTH


@pytest.mark.parametrize("seed", [1, 3])
def test_brackets_close_without_an_attack(seed: int) -> None:
    """The program's end from above, a rigorous search's from below, within the tolerance."""
    known = radius_case(seed)
    assert known is not None
    graph, asked, exact = known
    (found,) = closed(graph, GraphJudge(graph), asked, [blank(asked)], None, Budget(), 0.005)
    assert found.attack == METHOD
    assert found.certified <= exact + WIDTH
    assert found.attacked >= exact - WIDTH
    assert found.attacked - found.certified <= 0.005 * found.attacked


def test_no_counterexample_within_reach_is_none() -> None:
    """Far below the exact radius the programs are infeasible."""
    known = radius_case(1)
    assert known is not None
    graph, asked, exact = known
    near = asked.at(torch.tensor([0.8 * exact], dtype=torch.float64))
    assert Nearest()(graph, case_of(near, 3), near, GraphJudge(graph), Budget()) is None


def test_more_neurons_than_allowed_are_left_to_others() -> None:
    """A program is for tiny nets only; other functions than Relu have none."""
    for graph in (dense_net(0), dense_net(0, activation="Sigmoid"), dense_net(0, activation="Abs")):
        x = torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
        judge = GraphJudge(graph)
        asked = question(x, judge.predict(x), 0.5, math.inf, input_range=(0, 1))
        assert Nearest(most=0)(graph, case_of(asked, 3), asked, judge, Budget()) is None
