"""Short cuts change no bound: dead neurons, the entry past a normalisation, remembered slopes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.bounders.test_contract import PLAIN, escapes, problem
from tests.nets import FAMILIES, dense_net, weights
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.backward import BackwardPass
from verify.bounders.crown import Crown
from verify.bounders.memo import Memo
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph, Node
from verify.problem import Problem
from verify.protocols import Bounder
from verify.readers.builder import GraphBuilder
from verify.values.budget import Budget
from verify.values.region import ball
from verify.values.rounding import REAL
from verify.values.spec import classified_as


def mostly_dead(seed: int, *, prunable: bool) -> Graph:
    """A net of mostly inactive neurons; a reshaping after each Relu forbids the short cut."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (4,))
    name, fan_in = "x", 4
    for i in range(3):
        bias = torch.randn(12, generator=generator, dtype=torch.float64) - 1.2
        tensors = {"weight": weights(generator, 12, fan_in), "bias": bias}
        name = builder.add("Gemm", (name,), f"gemm{i}", tensors=tensors)
        name = builder.add("Relu", (name,), f"relu{i}")
        if not prunable:
            name = builder.add("Reshape", (name,), f"same{i}", shape=(12,))
        fan_in = 12
    tensors = {"weight": weights(generator, 3, 12), "bias": torch.zeros(3).double()}
    return builder.build(builder.add("Gemm", (name,), "logits", tensors=tensors))


def asked(graph: Graph, p: float, seed: int) -> Problem:
    """Four inputs in [0, 1], radii from small to large."""
    return problem(graph, p, seed)


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("bounder", [*PLAIN.values(), Crown(rounding=REAL)])
def test_neurons_that_leave_change_no_bound(bounder: Bounder, p: float) -> None:
    """The same margins and the same bounds of all nodes as where none may leave."""
    for seed in range(4):
        first = bounder(asked(mostly_dead(seed, prunable=True), p, seed), Budget())
        second = bounder(asked(mostly_dead(seed, prunable=False), p, seed), Budget())
        torch.testing.assert_close(first.margin, second.margin, rtol=1e-9, atol=1e-9)
        for name, box in first.bounds.items():
            other = second.bounds[name]
            torch.testing.assert_close(box.lower, other.lower, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(box.upper, other.upper, rtol=1e-9, atol=1e-9)


def test_neurons_do_leave() -> None:
    """The test above is about something: the pass ends with fewer neurons."""
    net = asked(mostly_dead(0, prunable=True), math.inf, 0)
    walk = BackwardPass(net.graph, net.region, None, Budget())
    for name in walk.names():
        walk.visit(name)
        walk.prune(name, walk.dead(name))
    assert walk.graph.parameters() < net.graph.parameters()
    assert any(len(kept) < 12 for kept in walk.kept.values())


def normalised(graph: Graph, mean: Tensor, std: Tensor, *, folded: bool) -> Graph:
    """(x - mean) / std in front: as a node of its own, or multiplied into the first layer."""
    first, second, *rest = graph.nodes
    if not folded:
        tensors = {"scale": 1 / std, "shift": -mean / std}
        node = Node("normal", "ScaleShift", ("x",), first.shape, (first.shape,), tensors)
        return Graph((first, node, replace(second, inputs=("normal",)), *rest))
    weight, bias = second.tensors["weight"], second.tensors["bias"]
    tensors = {"weight": weight / std, "bias": bias - weight @ (mean / std)}
    return Graph((first, replace(second, tensors=tensors), *rest))


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("bounder", PLAIN.values())
def test_a_normalisation_may_be_folded_or_entered(bounder: Bounder, p: float) -> None:
    """A walk that starts past the normalisation bounds what one with folded weights bounds."""
    mean, std = torch.rand(4).double(), 0.2 + torch.rand(4).double()
    for seed in range(3):
        margins = [
            bounder(
                asked(normalised(dense_net(seed), mean, std, folded=f), p, seed), Budget()
            ).margin
            for f in (True, False)
        ]
        torch.testing.assert_close(margins[0], margins[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["relu", "pooled", "tanh", "branched", "clip", "preactivation"])
def test_remembered_slopes_are_sound_and_useful(family: str) -> None:
    """Slopes of one radius serve another: enclosures hold, and little is lost with fewer steps."""
    graph = FAMILIES[family](6)
    bounder = AlphaCrown(ascent=Ascent(10))
    memo = Memo(4, 2**30)
    for k, scale in enumerate((0.5, 0.7, 1.0, 0.6)):
        net = problem(graph, math.inf, 6, scale=scale)
        order = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2], [2, 2, 1, 3], [0, 3, 1, 2]][k])
        few = net.take(order)
        memo.turn(order)
        found = bounder(few, Budget(), memo)
        assert escapes(few, found, 60, k) <= 0
        fresh = bounder(few, Budget())
        assert bool((found.margin >= fresh.margin - 0.05 * (1 + fresh.margin.abs())).all())


def test_remembered_slopes_start_where_the_last_ones_ended() -> None:
    """Asked again with no steps of its own, each input gets its own rows' bounds back."""
    graph = mostly_dead(1, prunable=True)
    net = problem(graph, math.inf, 1)
    memo = Memo(4, 2**30)
    order = torch.arange(4)
    memo.turn(order)
    first = AlphaCrown(ascent=Ascent(12))(net, Budget(), memo)
    turned = torch.tensor([2, 0, 3, 1])
    memo.turn(turned)
    again = AlphaCrown(ascent=Ascent(1))(net.take(turned), Budget(), memo)
    assert bool((again.margin >= first.margin[turned] - 1e-3).all())


def test_a_memo_without_room_keeps_nothing() -> None:
    """The limit in bytes holds, and the bounds are those without a memo."""
    net = problem(dense_net(3), math.inf, 3)
    memo = Memo(4, 0)
    memo.turn(torch.arange(4))
    found = AlphaCrown(ascent=Ascent(3))(net, Budget(), memo)
    assert memo.used == 0
    torch.testing.assert_close(found.margin, AlphaCrown(ascent=Ascent(3))(net).margin)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_dead_neuron_does_not_take_a_broken_weight_with_it(weight: float) -> None:
    """NaN times zero is NaN: the neuron stays, and nothing is proved."""
    graph = mostly_dead(2, prunable=True)
    net = asked(graph, math.inf, 2)
    dead = int((Crown()(net).bounds["relu2"].upper.amax(dim=0) <= 0).nonzero()[0])
    graph.node("logits").tensors["weight"][0, dead] = weight
    spec = classified_as(torch.zeros(4, dtype=torch.long), 3)
    margin = Crown()(Problem(graph, ball(net.region.bounds().lower, 0.0), spec)).margin
    assert not bool((margin > 0).any())
