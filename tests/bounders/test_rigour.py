"""VERIFIED holds for float32 executions: nets that are built to tell arithmetics apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.bounders.hostile import backdoor_layers, denormal_layers, dense, order_layers, outputs
from tests.nets import dense_net
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.bounders.zonotope import Zonotope
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder
from verify.readers.builder import GraphBuilder
from verify.recipes import METHODS, recipe
from verify.search.strategy import prove
from verify.values.budget import Budget
from verify.values.question import question
from verify.values.region import ball
from verify.values.rounding import FLOAT32, REAL, Rounding
from verify.values.spec import classified_as


def verified(graph: Graph, x: Sequence[float], eps: float, method: str) -> bool:
    """Whether class 0 is verified by a method of the command line."""
    asked = question(torch.tensor([list(x)]), torch.tensor([0]), eps)
    return bool(prove(graph, asked, recipe(method, iterations=3), Budget()).verified[0])


def margin(bounder: Bounder, graph: Graph, x: Sequence[float], eps: float) -> float:
    """The certified margin of class 0."""
    region = ball(torch.tensor([list(x)]), eps)
    asked = Problem(graph, region, classified_as(torch.tensor([0]), graph.output.size))
    return float(bounder(asked, Budget()).margin.amin())


def violated(graph: Graph, x: Sequence[float], seed: int = 0) -> bool:
    """Whether some float32 execution does not put class 0 strictly first."""
    found = outputs(graph, np.array(x, dtype=np.float32), seed)
    return bool((~(found[:, :1] > found[:, 1:])).any())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_the_big_weight_backdoor_is_never_verified(method: str, order: Sequence[int]) -> None:
    """1e17 - 1e17 + 1e-3 is 0 or 1e-3, depending on the order: nothing may be claimed."""
    graph = dense(backdoor_layers(1e17, 1e-3, order))
    assert violated(graph, (0.5, 0.5))
    assert not verified(graph, (0.5, 0.5), 0.1, method)


@pytest.mark.parametrize("power", range(2, 61, 4))
@pytest.mark.parametrize("small", [2.0**-10, 1.0])
def test_backdoors_of_all_scales_are_verified_only_where_they_hold(
    power: int, small: float
) -> None:
    """Where the small term is lost in some execution no method verifies."""
    graph = dense(backdoor_layers(2.0**power, small, (0, 2, 1)))
    lost = violated(graph, (0.5, 0.5))
    assert lost == (2.0**power / small >= 2.0**24)
    for method in ("ibp", "crown", "alpha-crown", "zonotope"):
        assert not (lost and verified(graph, (0.5, 0.5), 0.1, method))
        if 2.0**power / small <= 2.0**16:  # rounding is small there: unknown would be too modest
            assert verified(graph, (0.5, 0.5), 0.1, method)


@pytest.mark.parametrize(
    "bounder",
    [
        Interval(rounding=REAL),
        Crown(rounding=REAL),
        Zonotope(rounding=REAL),
        AlphaCrown(rounding=REAL, ascent=Ascent(3)),
        Crown(rounding=None),
    ],
)
def test_bounds_for_exact_arithmetic_fall_for_the_backdoor(bounder: Bounder) -> None:
    """The mutant: without the execution's rounding the claim is made, and is wrong in float32."""
    graph = dense(backdoor_layers(2.0**26, 1.0, (0, 2, 1)))
    assert violated(graph, (0.5, 0.5))
    assert margin(bounder, graph, (0.5, 0.5), 0.1) > 0


@pytest.mark.parametrize("n", [3, 16, 101, 300])
@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown", "zonotope"])
def test_a_net_that_tells_summation_orders_apart_is_never_verified(n: int, method: str) -> None:
    """n ones beside 2^24 survive in one order and are lost in another."""
    graph = dense(order_layers(n))
    x = [1.0] * (n + 1)
    assert violated(graph, x)
    assert not verified(graph, x, 0.0, method)


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_noise_that_is_too_small_verifies_the_order_detector(scale: float) -> None:
    """The mutant: a tenth of the charge is too little for 101 terms in the worst order."""
    graph = dense(order_layers(101))
    weak = Rounding(execution=FLOAT32.execution * scale)
    assert margin(Crown(rounding=weak), graph, [1.0] * 102, 0.0) > 0


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown", "zonotope"])
def test_flushed_denormals_are_paid_for(method: str) -> None:
    """A weight of 1e-40 may be zero when deployed; 1e38 after it makes that matter."""
    graph = dense(denormal_layers(1e-40))
    assert violated(graph, (1.0,))
    assert not verified(graph, (1.0,), 0.0, method)
    assert margin(Crown(rounding=Rounding(smallest=0.0, largest=math.inf)), graph, (1.0,), 0.0) > 0
    assert verified(dense(denormal_layers(1e-20)), (1.0,), 0.0, method)


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid"])
def test_deviations_of_deployed_kernels_are_paid_for(op: str) -> None:
    """A gap of 4e-7 after an activation is within what its float32 kernels may be off."""
    value = float(getattr(torch, op.lower())(torch.tensor(0.7, dtype=torch.float64)))
    builder = GraphBuilder("x", (1,))
    name = builder.add(op, ("x",), "act")
    bias = torch.tensor([0.0, 1e6 * (value - 4e-7)])
    head = {"weight": torch.tensor([[1e6], [0.0]]), "bias": bias.double()}
    graph = builder.build(builder.add("Gemm", (name,), "out", tensors=head))
    assert not verified(graph, (0.7,), 0.0, "crown")
    assert margin(Crown(rounding=REAL), graph, (0.7,), 0.0) > -0.2


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid", "Relu", "TwoPiece", "Clip"])
@pytest.mark.parametrize("k", range(13))
@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_tiny_intervals_keep_their_lines(op: str, k: int, end: float) -> None:
    """f(s·x) / s for x in [-1, 0] or [0, 1], s = 10^-k: chords with guarded widths fail here."""
    scale = 10.0**-k
    builder = GraphBuilder("x", (1,))
    shrink = {"scale": torch.tensor(scale).double(), "shift": torch.tensor(0.0).double()}
    name = builder.add("ScaleShift", ("x",), "small", tensors=shrink)
    constants = {
        "TwoPiece": {"below": torch.tensor(-0.5), "above": torch.tensor(2.0)},
        "Clip": {"low": torch.tensor(-scale / 3), "high": torch.tensor(scale / 2)},
    }.get(op, {})
    name = builder.add(op, (name,), "act", tensors=constants)
    grow = {"weight": torch.tensor([[1 / scale], [-1 / scale]]).double(), "bias": torch.zeros(2)}
    graph = builder.build(builder.add("Gemm", (name,), "out", tensors=grow))
    centre = torch.tensor([[end / 2]])
    for bounder in (Crown(rounding=REAL), AlphaCrown(rounding=REAL), Zonotope(rounding=REAL)):
        asked = Problem(graph, ball(centre, 0.5), classified_as(torch.tensor([0]), 2))
        found = bounder(asked)
        x = torch.linspace(min(0.0, end), max(0.0, end), 1001, dtype=torch.float64)[:, None]
        spec = asked.spec.take(torch.zeros(1001, dtype=torch.long))
        values = Problem(graph, asked.region, spec).margins(x)
        # The sampled values themselves carry float64 rounding of 1/scale.
        slack = 1e-15 * (1 + 1 / scale)
        assert float(found.margin.min()) <= float(values.min()) + slack
        assert float(found.margin.min()) >= float(values.min()) - 1.5 - 1e-13 / scale


@pytest.mark.parametrize("seed", range(2))
def test_a_bias_one_step_inside_the_bound_survives_every_execution(seed: int) -> None:
    """The least bias with which a point is verified: 100 executions all keep the class.

    Without the charge the same search ends where executions lose it.
    """
    generator = np.random.default_rng(seed)
    x = generator.random(64).astype(np.float32)

    def net(bias: float) -> Graph:
        graph = dense_net(seed, (64, 48, 2))
        for node in graph.nodes:
            for key, tensor in node.tensors.items():
                node.tensors[key][...] = tensor.to(torch.float32).double()  # type: ignore[index]
        graph.node("gemm1").tensors["bias"][0] = float(np.float32(bias))
        return graph

    def least(bounder: Bounder) -> float:
        low, high = np.float32(-100.0), np.float32(100.0)
        while np.nextafter(low, high) < high:
            middle = np.float32((np.float64(low) + np.float64(high)) / 2)
            inside = margin(bounder, net(float(middle)), x.tolist(), 0.0) > 0
            low, high = (low, middle) if inside else (middle, high)
            if middle in (low, high) and np.nextafter(low, high) >= high:
                break
        return float(high)

    for bounder in (Crown(), Interval(), Zonotope()):
        found = outputs(net(least(bounder)), x, seed, tries=100)
        assert bool((found[:, 0] > found[:, 1]).all())
    plain = outputs(net(least(Crown(rounding=REAL))), x, seed, tries=100)
    assert not bool((plain[:, 0] > plain[:, 1]).all())


@pytest.mark.parametrize("weight", [1e30, 3e38])
@pytest.mark.parametrize("method", METHODS)
def test_chained_overflow_is_never_verified(method: str, weight: float) -> None:
    """Both logits are infinite in float32, whatever their difference in float64."""
    graph = dense([([[weight]], [0.0]), ([[weight], [weight / 2]], [0.0, 0.0])])
    assert violated(graph, (2.0,))
    assert not verified(graph, (2.0,), 0.1, method)


def test_an_overflow_inside_a_sum_is_never_verified() -> None:
    """3e38 + 3e38 - 3e38 is finite in one order only."""
    graph = dense([([[3e38, 3e38, -3e38]], [0.0]), ([[1.0], [0.5]], [0.0, 0.0])])
    assert not verified(graph, (1.0, 1.0, 1.0), 0.01, "crown")
    assert math.isfinite(margin(Crown(rounding=REAL), graph, (1.0, 1.0, 1.0), 0.01))
