"""DensePlanes: never above the exact minimum or any execution; as tight as CROWN on any network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.bounders.test_exact import NoOracle, exact_minimum
from tests.nets import dense_net
from verify.bounders import dense
from verify.bounders.chain import chain_of
from verify.bounders.dense import DensePlanes, dense_planes
from verify.bounders.planes import CrownPlanes, Goal, Planes
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder
from verify.traverse import run


def goal(outputs: int, seed: int = 0) -> Goal:
    """Two clauses: one of two rows, one of a single row."""
    generator = torch.Generator().manual_seed(seed)
    coeff = torch.randn(3, outputs, generator=generator, dtype=torch.float64)
    const = torch.randn(3, generator=generator, dtype=torch.float64)
    return Goal(coeff, const, ((0, 1), (2,)))


def boxes(inputs: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, inputs, generator=generator)
    radius = torch.rand(count, inputs, generator=generator)
    radius = radius * 10.0 ** torch.randint(-4, 1, (count, 1), generator=generator)
    return (centre - radius).double(), (centre + radius).double()


def bounder(graph: Graph, wanted: Goal, dtype: torch.dtype) -> DensePlanes:
    found = dense_planes(graph, wanted, dtype)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(6))
def test_no_bound_exceeds_the_exact_minimum(seed: int, dtype: torch.dtype) -> None:
    """Rows one by one; exact to HiGHS's own tolerance."""
    graph = dense_net(seed, (3, 6, 6, 4))
    wanted = goal(4, seed)
    lower, upper = boxes(3, 4, seed)
    found = bounder(graph, wanted, dtype)(lower, upper)
    for box in range(len(lower)):
        for row in range(3):
            low, high = lower[box].numpy(), upper[box].numpy()
            try:
                exact = exact_minimum(graph, low, high, wanted.coeff[row].numpy())
            except NoOracle:
                continue
            exact += float(wanted.const[row])
            assert float(found.least[box, row]) <= exact + 1e-6 * (1 + abs(exact))


def executed(graph: Graph, x: Tensor, flips: int) -> Tensor:
    """The net in float32 with neurons of each sum in another order, as float64."""
    layers = [node.tensors for node in graph.nodes if node.op == "Gemm"]
    generator = torch.Generator().manual_seed(flips)
    h = x.to(torch.float32)
    for place, tensors in enumerate(layers):
        order = torch.randperm(h.shape[1], generator=generator)
        weight = tensors["weight"].to(torch.float32)
        total = torch.zeros(len(h), len(weight))
        for column in order.tolist():
            total = total + h[:, column, None] * weight[:, column]
        h = total + tensors["bias"].to(torch.float32)
        if place + 1 < len(layers):
            h = h.clamp(min=0)
    return h.to(torch.float64)


def excess(found: Planes, wanted: Goal, method: DensePlanes, x: Tensor, y: Tensor) -> float:
    """By how much planes exceed what outputs show of rows and clauses, at the worst point."""
    rows = y @ wanted.coeff.T + wanted.const  # (point, row)
    best = torch.stack([rows[:, list(c)].amax(dim=1) for c in wanted.clauses], dim=1)
    planes = torch.einsum("brn,pn->bpr", found.coeff, x) + found.const[:, None]
    worst = planes[:, :, :3] - rows
    clauses = torch.stack([planes[:, :, c].amax(dim=2) for c in method.clauses], dim=2) - best
    return float(torch.maximum(worst.amax(dim=2), clauses.amax(dim=2)).max())


def points_of(lower: Tensor, upper: Tensor, count: int) -> Tensor:
    share = torch.rand(count, len(lower), generator=torch.Generator().manual_seed(1))
    share[: count // 2] = share[: count // 2].round()
    x = lower + share.double() * (upper - lower)
    return torch.minimum(torch.maximum(x.float().double(), lower), upper)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planes_lie_below_every_execution(dtype: torch.dtype) -> None:
    """Also where the box is a point, so that only the charge for rounding keeps them apart."""
    graph = dense_net(7, (4, 20, 20, 20, 4)).to(torch.float32).to(torch.float64)
    wanted = goal(4)
    method = bounder(graph, wanted, dtype)
    wide = boxes(4, 6)
    point = (wide[0].float().double(),) * 2
    for lower, upper in (wide, point):
        found = method(lower.float().double(), upper.float().double())
        for box in range(len(lower)):
            x = points_of(lower[box].float().double(), upper[box].float().double(), 200)
            one = Planes(*(getattr(found, n)[box, None] for n in found.__dataclass_fields__))
            for flips in range(3):
                assert excess(one, wanted, method, x, executed(graph, x, flips)) <= 0


@pytest.mark.parametrize("broken", ["noise", "chord", "share"])
def test_mutants_are_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, with a chord too low, with a negative share, planes rise above the net."""
    graph = dense_net(7, (4, 20, 20, 20, 4)).to(torch.float32).to(torch.float64)
    wanted = goal(4)
    method = bounder(graph, wanted, torch.float64)
    if broken == "noise":
        monkeypatch.setattr(
            dense.Pass,
            "noise",
            lambda self, layer, size: size.new_zeros(1, 1).expand(len(size), len(layer.bias)),
        )
    elif broken == "chord":
        honest = dense.Pass.lines

        def low(self: dense.Pass, *args: Tensor) -> object:
            found = honest(self, *args)
            return replace(found, gap=found.gap * 0.9, lift=found.lift * 0.9)

        monkeypatch.setattr(dense.Pass, "lines", low)
    else:
        from verify.bounders import sharpening

        climb = sharpening.climbed

        def negative(*args: object) -> object:
            shares, slopes = climb(*args)  # type: ignore[arg-type]
            return shares - 0.7, slopes

        monkeypatch.setattr(sharpening, "climbed", negative)
    lower, upper = boxes(4, 40, 3)
    if broken == "noise":
        lower = upper = lower.float().double()
    found = method(lower.float().double(), upper.float().double())
    worst = -np.inf
    for box in range(len(lower)):
        x = points_of(lower[box].float().double(), upper[box].float().double(), 400)
        one = Planes(*(getattr(found, n)[box, None] for n in found.__dataclass_fields__))
        for flips in range(3):
            worst = max(worst, excess(one, wanted, method, x, executed(graph, x, flips)))
    assert worst > 0


def test_rows_are_about_as_tight_as_crowns_and_clauses_tighter() -> None:
    """On small boxes; the two differ in how they choose slopes."""
    graph = dense_net(3, (5, 30, 30, 30, 4))
    wanted = goal(4)
    lower, upper = boxes(5, 40)
    lower, upper = upper - (upper - lower) * 0.1, upper
    ours = bounder(graph, wanted, torch.float64)
    mine, theirs = ours(lower, upper), CrownPlanes(graph, wanted)(lower, upper)
    exact = run(graph, (lower + upper) / 2) @ wanted.coeff.T + wanted.const
    gap = (exact - mine.least[:, :3]) / (exact - theirs.least)
    assert float(gap.median()) < 1.01
    open_ = mine.least[:, 2] <= 0
    assert (mine.least[open_, 4] >= mine.least[open_, 2] - 1e-5).all()
    assert (mine.least[open_, 4] > mine.least[open_, 2]).any()


def test_only_chains_are_read() -> None:
    """Transposes and reshapes are folded in; a branch, another activation, a last Relu are not."""
    builder = GraphBuilder("x", (2, 3))
    name = builder.add("Transpose", ("x",), "t", settings={"perm": (1, 0)})
    name = builder.add("Reshape", (name,), "r", shape=(6,))
    generator = torch.Generator().manual_seed(0)
    for i, size in enumerate((5, 3)):
        weight = torch.randn(size, 6 if not i else 5, generator=generator, dtype=torch.float64)
        constants = {"weight": weight, "bias": torch.ones(size).double()}
        name = builder.add("Gemm", (name,), f"g{i}", tensors=constants)
        name = name if i else builder.add("Relu", (name,), "h")
    graph = builder.build(name)
    wanted = goal(3)
    method = bounder(graph, wanted, torch.float64)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    found = method(x, x)
    exact = run(graph, x.view(-1, 2, 3)) @ wanted.coeff.T + wanted.const
    assert (found.least[:, :3] <= exact).all()
    assert float((exact - found.least[:, :3]).max()) < 1e-3
    assert chain_of(dense_net(0, activation="Sigmoid"), torch.float64) is None
    assert chain_of(builder.build("h"), torch.float64) is None


def test_numbers_past_float32_prove_nothing() -> None:
    """An execution overflows there, so bounds are -inf or NaN, not a proof."""
    graph = dense_net(0, (2, 4, 1))
    huge = torch.full((1, 2), 1e30, dtype=torch.float64)
    wanted = Goal(torch.ones(1, 1).double(), torch.full((1,), 1e39, dtype=torch.float64), ((0,),))
    found = bounder(graph, wanted, torch.float64)(-huge, huge)
    assert not (found.least > 0).any()


def linear_pairs(seed: int) -> tuple[Graph, list[tuple[Tensor, Tensor, bool]]]:
    """Layers of which some follow each other without a Relu, as lattices of minima have them."""
    generator = torch.Generator().manual_seed(seed)
    builder, name, layers = GraphBuilder("x", (2,)), "x", []
    plan = ((2, 6, False), (6, 20, True), (20, 5, False), (5, 20, True), (20, 3, False))
    for place, (inputs, outputs, relu) in enumerate(plan):
        weight = torch.randn(outputs, inputs, generator=generator).double()
        bias = torch.randn(outputs, generator=generator).double()
        constants = {"weight": weight, "bias": bias}
        name = builder.add("Gemm", (name,), f"g{place}", tensors=constants)
        name = builder.add("Relu", (name,), f"r{place}") if relu else name
        layers.append((weight.float(), bias.float(), relu))
    return builder.build(name), layers


@pytest.mark.parametrize("seed", range(3))
def test_products_of_layers_cover_executions_layer_by_layer(seed: int) -> None:
    """The first two layers become one, while the file still computes both in float32."""
    graph, layers = linear_pairs(seed)
    wanted = goal(3, seed)
    method = bounder(graph, wanted, torch.float64)
    assert [len(layer.parts) for layer in method.chain.layers] == [2, 0, 0, 0]
    for width in (0.0, 1.0):
        lower, upper = boxes(2, 20, seed)
        lower = lower.float().double()
        upper = torch.lerp(lower, upper, width).float().double()
        found = method(lower, upper)
        for box in range(len(lower)):
            x = points_of(lower[box], upper[box], 200)
            h = x.float()
            for weight, bias, relu in layers:
                h = h @ weight.T + bias
                h = h.clamp(min=0) if relu else h
            one = Planes(*(getattr(found, n)[box, None] for n in found.__dataclass_fields__))
            assert excess(one, wanted, method, x, h.double()) <= 0
            assert excess(one, wanted, method, x, run(graph, x)) <= 0
        if not width:
            exact = run(graph, lower) @ wanted.coeff.T + wanted.const
            # The charge is of the size of that for layers one by one.
            apart = CrownPlanes(graph, wanted)(lower, upper).least
            assert (exact - found.least[:, :3] <= 3 * (exact - apart)).all()
