"""Small ReLU nets: no bound exceeds the exact minimum, found by mixed-integer programming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import Bounds as Limits
from scipy.optimize import LinearConstraint, milp

from tests.bounders.test_contract import BOUNDERS
from tests.nets import dense_net
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.values.budget import Budget
from verify.values.region import Box, ball
from verify.values.spec import classified_as

Vector = NDArray[np.float64]
FEASIBILITY = 1e-6
"""HiGHS's default tolerance on constraints, with the layers' weights of order 1."""


class NoOracle(Exception):
    """HiGHS itself gave up on a model."""


def layers(graph: Graph) -> list[tuple[Vector, Vector]]:
    """Weights and biases of a dense net."""
    found = [node.tensors for node in graph.nodes if node.op == "Gemm"]
    return [(t["weight"].numpy(), t["bias"].numpy()) for t in found]


def exact_minimum(graph: Graph, low: Vector, high: Vector, row: Vector) -> float:
    """min row·f(x) over a box: per neuron h >= z, h >= 0, h <= z - l(1 - a), h <= u·a, a in {0, 1}.

    Big-M constants are interval bounds, computed here.
    """
    *hidden, (last_weight, last_bias) = layers(graph)
    sizes = [len(low)] + [len(b) for _, b in hidden]
    starts = np.cumsum([0, *sizes])
    binaries = starts[-1] + np.cumsum([0, *sizes[1:]])
    total = int(binaries[-1])
    lower, upper = np.full(total, -np.inf), np.full(total, np.inf)
    lower[: sizes[0]], upper[: sizes[0]] = low, high
    rows, least, most = [], [], []
    value_low, value_high = low, high
    for k, (weight, bias) in enumerate(hidden):
        plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
        z_low = plus @ value_low + minus @ value_high + bias - 1e-6
        z_high = plus @ value_high + minus @ value_low + bias + 1e-6
        for i in range(len(bias)):
            h, a = starts[k + 1] + i, binaries[k] + i
            lower[a], upper[a] = float(z_low[i] >= 0), float(z_high[i] > 0)
            lower[h], upper[h] = 0, max(0.0, z_high[i])
            base = np.zeros(total)
            base[h] = 1
            base[starts[k] : starts[k] + sizes[k]] = -weight[i]
            rows.append(base.copy())  # h - W x >= b
            least.append(bias[i])
            most.append(np.inf)
            base[a] = -z_low[i]
            rows.append(base)  # h - W x - l a <= b - l
            least.append(-np.inf)
            most.append(bias[i] - z_low[i])
            on = np.zeros(total)
            on[h], on[a] = 1, -max(0.0, z_high[i])
            rows.append(on)  # h <= u a
            least.append(-np.inf)
            most.append(0.0)
        value_low, value_high = np.maximum(z_low, 0), np.maximum(z_high, 0)
    cost = np.zeros(total)
    cost[starts[-2] : starts[-1]] = row @ last_weight
    integer = np.zeros(total)
    integer[starts[-1] :] = 1
    constraints = LinearConstraint(np.array(rows), np.array(least), np.array(most))
    for presolve in (True, False):  # either stumbles over a few of these tiny models
        found = milp(
            cost,
            constraints=constraints,
            bounds=Limits(lower, upper),
            integrality=integer,
            options={"mip_rel_gap": 0.0, "presolve": presolve},
        )
        if found.success:
            return float(found.fun + row @ last_bias)
    raise NoOracle(found.message)


def asked(seed: int, eps: float) -> Problem:
    """A random net with 2 hidden layers of at most 8, one input and its label."""
    generator = np.random.default_rng(seed)
    sizes = (int(generator.integers(1, 5)), *generator.integers(2, 9, 2).tolist(), 3)
    graph = dense_net(seed, tuple(sizes))
    x = torch.from_numpy(generator.random((1, sizes[0])))
    spec = classified_as(torch.tensor([int(generator.integers(3))]), 3)
    return Problem(graph, ball(x, eps), spec)


def exact_margins(problem: Problem) -> Vector:
    """The exact minima of the spec's rows."""
    box = problem.region.bounds()
    low, high = box.lower[0].numpy(), box.upper[0].numpy()
    rows = problem.spec.coeff[0].numpy()
    return np.array([exact_minimum(problem.graph, low, high, row) for row in rows])


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.1, 0.3, 1.0]))
@settings(max_examples=40)
def test_no_bound_exceeds_the_exact_minimum(seed: int, eps: float) -> None:
    """Every method, by no more than the solver's own tolerance."""
    problem = asked(seed, eps)
    try:
        exact = exact_margins(problem)
    except NoOracle:
        reject()
    for bounder in BOUNDERS.values():
        found = bounder(problem, Budget()).margin[0].numpy()
        assert (found <= exact + FEASIBILITY * (1 + np.abs(exact))).all()


def test_the_exact_minimum_is_attained() -> None:
    """The oracle itself: not above any of 20,000 sampled points, and near the lowest."""
    problem = asked(11, 0.3)
    exact = exact_margins(problem)
    box = problem.region.bounds()
    share = torch.rand(20000, *box.lower.shape[1:], generator=torch.Generator().manual_seed(0))
    share = (2 * share.double() - 0.5).clamp(0, 1)
    points = torch.lerp(box.lower, box.upper, share)
    spec = problem.spec.take(torch.zeros(20000, dtype=torch.long))
    values = Problem(problem.graph, Box(points, points), spec).margins(points).amin(dim=0).numpy()
    assert (values >= exact - FEASIBILITY).all()
    assert (values <= exact + 0.1).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_bounder_of_a_smaller_region_is_caught(seed: int) -> None:
    """Optimised bounds over 0.8 eps exceed the exact minimum over eps on some net."""
    bounder = AlphaCrown(ascent=Ascent(10))
    worst = -math.inf
    for k in range(8):
        problem, small = asked(seed * 100 + k, 0.1), asked(seed * 100 + k, 0.08)
        try:
            exact = exact_margins(problem)
        except NoOracle:
            continue
        worst = max(worst, float((bounder(small).margin[0].numpy() - exact).max()))
    assert worst > 10 * FEASIBILITY


def test_one_layer_is_exact_for_stable_neurons() -> None:
    """Over a tiny box no neuron is unstable, and CROWN meets the exact minimum."""
    problem = asked(5, 1e-6)
    found = Crown(rounding=None)(problem).margin[0].numpy()
    np.testing.assert_allclose(found, exact_margins(problem), atol=1e-9)
