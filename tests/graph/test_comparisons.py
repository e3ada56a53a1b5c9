"""Argmax over two entries as a comparison: the same values, sound near ties, tighter bounds."""

from __future__ import annotations

import pytest
import torch

from tests.nets import convolution
from verify.bounders.backward import BackwardPass
from verify.bounders.crown import Crown
from verify.graph.ir import Graph
from verify.graph.passes import simplify
from verify.problem import Problem
from verify.readers.builder import GraphBuilder
from verify.traverse import propagate, run
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.region import Box
from verify.values.rounding import FLOAT32
from verify.values.spec import SOFTMAX_GAP, Spec


def segmenting(seed: int, *, softmax: bool, last: bool) -> Graph:
    """Two classes a pixel, argmax, and how many pixels are of class 1."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 5, 4))
    name = builder.add("Relu", (convolution(builder, "x", 4, "c", generator, padding=1),), "r")
    name = convolution(builder, name, 2, "classes", generator)
    axis = 0
    if softmax or last:
        name = builder.add("Transpose", (name,), "to_last", settings={"perm": (2, 1, 0)})
        axis = 2
    if softmax:
        name = builder.add("Softmax", (name,), "softmax")
    if softmax and not last:
        name = builder.add("Transpose", (name,), "back", settings={"perm": (2, 1, 0)})
        axis = 0
    name = builder.add("ArgMax", (name,), "argmax", settings={"axis": (axis,)})
    name = builder.add("Reshape", (name,), "flat", shape=(1, 6))
    tensors = {"scale": torch.tensor(1.0, dtype=torch.float64)}
    return builder.build(
        builder.add("Reduce", (name,), "count", tensors=tensors, settings={"axes": (1,)})
    )


FORMS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("softmax", "last"), FORMS)
def test_the_same_values(softmax: bool, last: bool) -> None:
    """On random inputs, and the argmax is gone."""
    graph = segmenting(0, softmax=softmax, last=last)
    simple = simplify(graph)
    assert all(node.op not in ("ArgMax", "Softmax") for node in simple.nodes)
    x = torch.randn(50, 2, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(run(graph, x), run(simple, x))


@pytest.mark.parametrize(("softmax", "last"), FORMS)
def test_bounds_hold_and_are_tighter(softmax: bool, last: bool) -> None:
    """Counts of samples lie within; the difference is known better than both of its sides."""
    tighter = 0
    for seed in range(6):
        graph = segmenting(seed, softmax=softmax, last=last)
        generator = torch.Generator().manual_seed(seed)
        middle = torch.randn(1, 2, 5, 4, generator=generator, dtype=torch.float64)
        box = Box(middle - 0.12, middle + 0.12)
        one = torch.ones(1, 2, 1, dtype=torch.float64)
        one[:, 1] = -1
        spec = Spec(one, torch.zeros(1, 2, dtype=torch.float64))
        before = Crown(rounding=FLOAT32)(Problem(graph, box, spec), Budget()).margin
        after = Crown(rounding=FLOAT32)(Problem(simplify(graph), box, spec), Budget()).margin
        spots = torch.rand(500, 2, 5, 4, generator=generator, dtype=torch.float64)
        counts = run(graph, box.lower + (box.upper - box.lower) * spots)
        assert float(counts.min()) >= float(after[0, 0])
        assert float(-counts.max()) >= float(after[0, 1])
        assert bool((after >= before - 1e-9).all())
        tighter += int((after > before + 0.5).sum())
    assert tighter > 0


def test_what_the_gap_leaves_open() -> None:
    """Differences up to the gap may come out either way; beyond it they do not."""
    graph = simplify(segmenting(0, softmax=True, last=False))
    (node,) = [node for node in graph.nodes if node.op == "Exceeds"]
    above = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    start = alone(graph, node.name)
    found = propagate(
        start, Bounds((above * SOFTMAX_GAP)[:, None], (above * SOFTMAX_GAP)[:, None]), FLOAT32
    )[node.name]
    certain = (found.lower > 0.5).flatten().tolist(), (found.upper < 0.5).flatten().tolist()
    assert certain == ([False] * 6 + [True], [True] + [False] * 6)


def alone(graph: Graph, name: str) -> Graph:
    """The comparison alone, over one number."""
    node = graph.node(name)
    builder = GraphBuilder("d", (1,))
    return builder.build(builder.add("Exceeds", ("d",), name, tensors=dict(node.tensors)))


def test_argmax_of_three_is_left() -> None:
    """There is no one difference."""
    builder = GraphBuilder("x", (3, 2))
    graph = builder.build(builder.add("ArgMax", ("x",), "place", settings={"axis": (0,)}))
    assert [node.op for node in simplify(graph).nodes] == ["Input", "ArgMax"]


def test_nan_settles_nothing() -> None:
    """Bounds that are not numbers leave both answers."""
    graph = simplify(segmenting(0, softmax=True, last=False))
    (node,) = [node for node in graph.nodes if node.op == "Exceeds"]
    start = alone(graph, node.name)
    nan = torch.full((1, 1), torch.nan, dtype=torch.float64)
    walk = BackwardPass(start, Box(nan, nan), FLOAT32, Budget())
    walk.visit(node.name)
    found = walk.bounds[node.name]
    assert not bool((found.lower > 0.5).any())
    assert not bool((found.upper < 0.5).any())
