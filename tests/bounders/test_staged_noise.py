"""What stages charge for executions, against float32 runs of networks whose numbers cancel."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.bounders.planes import Goal
from verify.bounders.staged import Read
from verify.bounders.staged_pass import Pass
from verify.bounders.staged_planes import StagedPlanes, staged_planes
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder
from verify.traverse import evaluate
from verify.values.budget import Budget
from verify.values.rounding import FLOAT32

POINTS = 50


def cancelling(seed: int) -> Graph:
    """Products of differences of large numbers, and a layer that cancels again."""
    make = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make).double()

    builder = GraphBuilder("x", (3,))
    weight = (1000 * numbers(4, 3)).float().double()
    tensors = {"weight": weight, "bias": -(weight.sum(dim=1)).float().double()}
    builder.add("Gemm", ("x",), "z", tensors=tensors)
    builder.add("Sigmoid", ("z",), "s")
    builder.add("Mul", ("z", "s"), "p")
    last = {"weight": numbers(2, 4).float().double(), "bias": numbers(2).float().double()}
    return builder.build(builder.add("Gemm", ("p",), "y", tensors=last))


def planes_of(graph: Graph) -> tuple[StagedPlanes, Goal]:
    """Over a small box around 1, where the first layer's sums nearly vanish."""
    goal = Goal(torch.eye(2).double(), torch.zeros(2).double(), ((0,), (1,)))
    root = torch.full((3,), 1 - 2.0**-8).double(), torch.full((3,), 1 + 2.0**-8).double()
    found = staged_planes(graph, goal, *root, FLOAT32)
    assert found is not None
    return found, goal


def executed(graph: Graph, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Points of the root, and the value of every node there in float32; both as float64."""
    make = torch.Generator().manual_seed(seed)
    x = 1 + (2 * torch.rand(POINTS, 3, generator=make) - 1) * 2.0**-8
    values = evaluate(graph.to(torch.float32), x)
    return x.double(), {name: value.double().flatten(1) for name, value in values.items()}


def image(read: Read, parts: dict[int, Tensor]) -> Tensor:
    """W·v + b in float64, whose own rounding is far below that of float32."""
    return read.bias + sum(parts[p.stage] @ p.weight.T for p in read.pieces)


def test_images_and_kernels_are_off_by_no_more_than_is_charged() -> None:
    """Each by itself: what is read, what a stage gives on what was read, and the goal."""
    largest = torch.zeros(3)
    for seed in range(10):
        graph = cancelling(seed)
        planes, goal = planes_of(graph)
        x, values = executed(graph, seed)
        stages = planes.network.stages
        parts = {-1: x, **{i: values[stage.node.name] for i, stage in enumerate(stages)}}
        for stage in stages:
            inputs = [values[name] for name in stage.node.inputs]
            for read, value in zip(stage.reads, inputs, strict=True):
                off = (value - image(read, parts)).abs()
                assert bool((off <= read.off).all())
                largest[0] = max(float(largest[0]), float((off / read.off).max()))
            exact = inputs[0].sigmoid() if stage.node.op == "Sigmoid" else inputs[0] * inputs[1]
            off = (values[stage.node.name] - exact).abs()
            assert bool((off <= stage.kernel).all())
            largest[1] = max(float(largest[1]), float((off / stage.kernel).max()))
        read = planes.network.goal
        off = (values["y"] @ goal.coeff.T - image(read, parts)).abs()
        assert bool((off <= read.off).all())
        largest[2] = max(float(largest[2]), float((off / read.off).max()))
    assert bool((largest > 0.01).all())


def test_bounds_at_a_point_hold_its_execution() -> None:
    """A box of one point leaves nothing but what is charged."""
    for seed in range(10):
        graph = cancelling(seed)
        planes, goal = planes_of(graph)
        x, values = executed(graph, seed)
        walk = Pass(planes.network, x, x, Budget())
        for stage in planes.network.stages:
            walk.enter(stage)
        for name, bounds in walk.known.items():
            assert bool((bounds.lower <= values[name]).all())
            assert bool((values[name] <= bounds.upper).all())
        least = planes(x, x).least[:, :2]
        assert bool((least <= values["y"] @ goal.coeff.T).all())
