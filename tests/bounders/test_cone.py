"""The cone against what outputs change when an entry does; rows left out change no margin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.nets import convolution
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.backward import BackwardPass
from verify.bounders.cone import cone
from verify.bounders.crown import Crown
from verify.bounders.rows import widest_row
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.problem import Problem
from verify.protocols import Bounder
from verify.readers.builder import GraphBuilder
from verify.values.budget import Budget
from verify.values.region import Box
from verify.values.rounding import FLOAT32
from verify.values.spec import Spec


def detector(seed: int, *, pool: bool = False) -> Graph:
    """A residual network whose output is a map, as a detector's is."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 12, 12))
    first = convolution(builder, "x", 3, "first", generator, padding=1)
    name = builder.add("Relu", (first,), "relu0")
    name = convolution(builder, name, 3, "second", generator, padding=1)
    name = builder.add("Add", (first, name), "sum", settings={"signs": (1, 1)})
    name = builder.add("Relu", (name,), "relu1")
    name = convolution(builder, name, 4, "third", generator, stride=2, padding=1)
    if pool:
        settings = {"kernel": (2, 2), "stride": (2, 2), "pads": (0,) * 4, "dilation": (1, 1)}
        name = builder.add("MaxPool", (name,), "pool", settings=settings)
    name = builder.add("Relu", (name,), "relu2")
    name = convolution(builder, name, 2, "cells", generator, kernel=1)
    size = torch.Size(builder.shape(name)).numel()
    return builder.build(builder.add("Reshape", (name,), "flat", shape=(size,)))


def of_cells(graph: Graph, cells: tuple[int, ...]) -> Tensor:
    """Rows that read one output each, shape (1, row, outputs)."""
    return torch.eye(graph.output.size, dtype=torch.float64)[list(cells)][None]


def problem(graph: Graph, cells: tuple[int, ...]) -> Problem:
    """The property of these cells around a random image."""
    middle = torch.rand(1, *graph.input.shape, generator=torch.Generator().manual_seed(3))
    middle = middle.to(torch.float64)
    coeff = of_cells(graph, cells)
    spec = Spec(coeff, torch.zeros(coeff.shape[:2], dtype=torch.float64))
    return Problem(graph, Box(middle - 0.1, middle + 0.1), spec)


@pytest.mark.parametrize("pool", [False, True])
def test_what_moves_the_rows_is_in_the_cone(pool: bool) -> None:
    """Every entry whose change moves a row, by gradients of the network above it; and no more."""
    graph = detector(0, pool=pool)
    found = cone(graph, of_cells(graph, (0, 7)))
    assert found
    for name in ("first", "second", "third"):
        moved = torch.zeros(graph.node(name).size, dtype=torch.bool)
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            x = torch.rand(1, *graph.input.shape, generator=generator, dtype=torch.float64)
            moved |= reached(graph, name, x, (0, 7))
        mask = found.get(name, torch.ones_like(moved))
        assert not bool((moved & ~mask).any())
        assert pool or bool((moved == mask).float().mean() > 0.9)


def reached(graph: Graph, name: str, x: Tensor, cells: tuple[int, ...]) -> Tensor:
    """Entries of a node with a gradient into the rows."""
    values: dict[str, Tensor] = {graph.input.name: x}
    for node in graph.nodes[1:]:
        values[node.name] = lookup(node).forward(node, *(values[i] for i in node.inputs))
        if node.name == name:
            values[name] = values[name].detach().requires_grad_()
    # A sum of random multiples: no two effects cancel.
    total = (values[graph.output.name][0, list(cells)] * torch.tensor([1.0, 0.7])).sum()
    (gradient,) = torch.autograd.grad(total, values[name], allow_unused=True)
    return (gradient[0] != 0).flatten()


@pytest.mark.parametrize(
    "bounder", [Crown(rounding=FLOAT32), AlphaCrown(rounding=FLOAT32, ascent=Ascent(3))]
)
def test_rows_left_out_change_no_margin(bounder: Bounder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same margins as with rows for every neuron, from fewer rows."""
    asked = problem(detector(1), (0, 5))
    counted: list[int] = []
    original = BackwardPass.tighten

    def counting(self: BackwardPass, name: str, rows: object, least: Tensor) -> None:
        counted.append(least.numel())
        original(self, name, rows, least)  # type: ignore[arg-type]

    monkeypatch.setattr(BackwardPass, "tighten", counting)
    first = bounder(asked, Budget())
    few, counted[:] = sum(counted), []
    for module in ("crown", "alpha_crown"):
        monkeypatch.setattr(f"verify.bounders.{module}.cone", lambda *_: {})
    second = bounder(asked, Budget())
    torch.testing.assert_close(first.margin, second.margin, rtol=1e-12, atol=1e-12)
    assert few < 0.8 * sum(counted)


def test_the_mutant_that_forgets_a_branch_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rows of what the rows read, margins are worse: the test above can fail."""
    asked = problem(detector(1), (0, 5))
    good = Crown(rounding=FLOAT32)(asked, Budget()).margin
    nothing = {node.name: torch.zeros(node.size, dtype=torch.bool) for node in asked.graph.nodes}
    monkeypatch.setattr("verify.bounders.crown.cone", lambda *_: nothing)
    assert bool((Crown(rounding=FLOAT32)(asked, Budget()).margin < good - 1e-6).any())


def test_the_widest_row_is_what_patches_hold() -> None:
    """As wide as the patches that `pull_back` makes, and no narrower."""
    graph = detector(2)
    asked = problem(graph, (0,))
    walk = BackwardPass(asked.graph, asked.region, FLOAT32, Budget())
    for name in walk.names():
        walk.visit(name)
    mask = torch.zeros(1, graph.node("third").size, dtype=torch.bool)
    mask[0, 14] = True
    start, form = walk.form_of("third", walk.rows_of("third", mask))
    pulled = walk.pulled(start, form)
    assert pulled.window is not None
    assert widest_row(graph, "third") >= pulled.coeff[0, 0].numel()
    assert widest_row(graph, "second") == 5 * 5 * 2
    assert widest_row(graph, "flat") == max(node.size for node in graph.nodes)


def test_plain_bounds_in_float32_have_a_cone_too() -> None:
    """In the network's own arithmetic; without maps there is nothing to leave out."""
    graph = detector(0)
    single = graph.to(torch.float32)
    wide, found = cone(graph, of_cells(graph, (0, 7))), cone(single, of_cells(single, (0, 7)))
    assert found
    assert found.keys() == wide.keys()
    assert all(torch.equal(found[name], wide[name]) for name in found)
    asked = problem(graph, (0, 5))
    exact = Crown(rounding=None)(asked, Budget()).margin
    plain = Crown(rounding=None)(asked.to(torch.float32), Budget()).margin
    torch.testing.assert_close(plain.double(), exact, rtol=1e-3, atol=1e-4)
