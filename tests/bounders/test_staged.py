"""StagedPlanes: planes and minima below every sample, images that agree, as tight as CROWN."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nets import FAMILIES, weights
from verify.bounders import staged, staged_pass
from verify.bounders.planes import CrownPlanes, Goal, Planes
from verify.bounders.staged import may_be_staged
from verify.bounders.staged_planes import StagedPlanes, staged_planes
from verify.graph.ir import Graph
from verify.ops.curve import CURVES, quick_lines
from verify.ops.registry import noise_of
from verify.readers.builder import GraphBuilder
from verify.traverse import evaluate, run
from verify.values.bounds import Bounds
from verify.values.rounding import FLOAT32, REAL, Rounding


def energy_net(seed: int, inputs: int = 4) -> Graph:
    """A quadratic form with a matrix computed from constants, before and after a step that a
    clamped controller, a wave and a quotient take."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (inputs,))

    def dense(source: str, out: int, name: str) -> str:
        size = builder.shape(source)[-1]
        tensors = {"weight": weights(generator, out, size), "bias": weights(generator, out)}
        return builder.add("Gemm", (source,), name, tensors=tensors)

    def form(source: str, name: str) -> str:
        row = builder.add("Reshape", (source,), f"{name}row", shape=(1, inputs))
        found = builder.add("MatMul", (row, "matrix"), f"{name}product")
        flat = builder.add("Reshape", (found,), f"{name}flat", shape=(inputs,))
        return builder.add("Mul", (source, flat), f"{name}form")

    index = {"index": torch.zeros(inputs * inputs, dtype=torch.int64)}
    many = builder.add("Select", ("x",), "many", tensors=index, settings={"axis": (0,)})
    fixed = {"scale": torch.zeros(()).double(), "shift": weights(generator, inputs * inputs)}
    constant = builder.add("ScaleShift", (many,), "constant", tensors=fixed)
    square = builder.add("Reshape", (constant,), "square", shape=(inputs, inputs))
    turned = builder.add("Transpose", (square,), "turned", settings={"perm": (1, 0)})
    builder.add("MatMul", (square, turned), "matrix")
    # The last is a function of a constant.
    builder.add("Sigmoid", (constant,), "fixed")
    gate = {"index": torch.arange(inputs)}
    gates = builder.add("Select", ("fixed",), "gates", tensors=gate, settings={"axis": (0,)})
    control = builder.add("Relu", (dense("x", 6, "c"),), "control")
    slopes = {"below": torch.tensor(0.1).double(), "above": torch.tensor(1.0).double()}
    bent = builder.add("TwoPiece", (dense(control, inputs, "d"),), "bent", tensors=slopes)
    waves = builder.add("Sin", ("x",), "waves")
    moved = builder.add("Mul", (waves, bent), "moved")
    scaled = builder.add("Mul", (moved, gates), "scaled")
    small = {"scale": torch.tensor(0.2).double(), "shift": torch.zeros(()).double()}
    step = builder.add("ScaleShift", (scaled,), "step", tensors=small)
    after = builder.add("Add", ("x", step), "after", settings={"signs": (1, 1)})
    both = [form("x", "old"), form(after, "new"), after]
    joined = builder.add("Concat", tuple(both), "joined", settings={"axis": (0,)})
    return builder.build(dense(joined, 3, "y"))


STAGED = {n: m for n, m in FAMILIES.items() if may_be_staged(m(0)) and n != "affine"}
NETS = {**STAGED, "energy": energy_net}


def goal(outputs: int, seed: int = 0) -> Goal:
    """Two clauses: one of two rows, one of a single row."""
    generator = torch.Generator().manual_seed(seed)
    coeff = torch.randn(3, outputs, generator=generator, dtype=torch.float64)
    const = torch.randn(3, generator=generator, dtype=torch.float64)
    return Goal(coeff, const, ((0, 1), (2,)))


def root_of(graph: Graph, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(graph.input.size, generator=generator)
    radius = torch.rand(graph.input.size, generator=generator)
    return (centre - radius).double(), (centre + radius).double()


def parts_of(lower: Tensor, upper: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes within the root, wide and narrow, the root and a point among them."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(2, count, len(lower), generator=generator, dtype=torch.float64)
    ends[1] = torch.lerp(ends[0], ends[1], 10.0 ** -ends[1, :, :1].mul(5).round())
    low, high = (torch.lerp(lower, upper, side) for side in ends.sort(dim=0).values)
    low[0], high[0] = lower, upper
    high[1] = low[1]
    return low, high


def bounder(graph: Graph, seed: int, rounding: Rounding = FLOAT32) -> StagedPlanes:
    found = staged_planes(graph, goal(graph.output.size, seed), *root_of(graph, seed), rounding)
    assert found is not None
    return found


def sampled(low: Tensor, high: Tensor, count: int, seed: int) -> Tensor:
    """Inputs of a box as float32 numbers inside it, corners among them."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, len(low), generator=generator, dtype=torch.float64)
    found = torch.lerp(low, high, (1.6 * share - 0.3).clamp(0, 1)).float().double()
    return found.maximum(low).minimum(high)


def lacking(graph: Graph, seed: int, single: bool) -> float:
    """The least distance of executed rows above planes and minima; < 0 is unsound."""
    lower, upper = parts_of(*root_of(graph, seed), 12, seed)
    method = bounder(graph, seed, FLOAT32 if single else REAL)
    planes = method(lower, upper)
    assert torch.isfinite(planes.least[:, :3]).any()
    wanted, worst = method.goal, float("inf")
    for box in range(len(lower)):
        x = sampled(lower[box], upper[box], 200, seed + box)
        shaped = x.view(-1, *graph.input.shape)
        used = graph.to(torch.float32) if single else graph
        output = run(used, shaped.to(used.dtype)).flatten(1).double()
        rows = output @ wanted.coeff.T + wanted.const
        # The combined row of a clause is at most its largest row.
        most = torch.stack([rows[:, list(own)].amax(dim=1) for own in wanted.clauses], dim=1)
        rows = torch.cat((rows, most), dim=1)
        on_plane = x @ planes.coeff[box].T + planes.const[box]
        for below in (on_plane, planes.least[box].expand_as(rows)):
            worst = min(worst, float((rows - below).min()))
    return worst


@pytest.mark.parametrize("single", [False, True], ids=["real", "float32"])
@pytest.mark.parametrize("name", NETS)
def test_no_execution_is_below_a_plane(name: str, single: bool) -> None:
    """In float64 by real arithmetic's charges, and in float32 by its own."""
    for seed in range(3):
        # Sampled rows are rounded themselves, in float64.
        assert lacking(NETS[name](seed), seed, single) >= (0.0 if single else -1e-13)


def test_a_box_that_is_a_point_shows_that_rounding_is_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without what executions may be off by, samples lie below."""
    graph = energy_net(0)
    assert lacking(graph, 0, single=True) >= 0
    monkeypatch.setattr(staged, "noise_of", lambda *args: None)
    assert lacking(graph, 0, single=True) < 0


def test_a_plane_of_products_that_is_too_high_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison with samples fails for lines that claim half of the gap."""
    honest = staged_pass.Pass.middle_planes

    def boastful(self, stage, x, y):  # type: ignore[no-untyped-def]
        lines = honest(self, stage, x, y)
        return replace(lines, sunk=lines.sunk + 0.6 * (lines.lifted - lines.sunk))

    monkeypatch.setattr(staged_pass.Pass, "middle_planes", boastful)
    assert min(lacking(energy_net(seed), seed, single=False) for seed in range(3)) < -1e-6


@pytest.mark.parametrize("name", NETS)
def test_it_is_as_tight_as_crown(name: str) -> None:
    """The rows themselves, in real arithmetic; executions are charged over the root, not a box."""
    for seed in range(2):
        graph = NETS[name](seed)
        lower, upper = parts_of(*root_of(graph, seed), 12, seed)
        ours = bounder(graph, seed, REAL)(lower, upper)
        theirs: Planes = CrownPlanes(graph, goal(graph.output.size, seed), REAL)(lower, upper)
        lost = (theirs.least - ours.least[:, :3])[2:]
        # Slopes are chosen by intersected bounds here, and lines of curves from fewer candidates:
        # a wide box may lose (or gain) by that.
        lost = lost / (1 + theirs.least[2:].abs())
        assert float(lost.median()) <= 1e-6
        assert float(lost.mean()) <= 0.01


def test_own_planes_of_products_gain_on_small_boxes() -> None:
    """The combined row loses less than half as much as its clause's, where boxes are small."""
    graph = energy_net(1)
    lower, upper = root_of(graph, 1)
    share = torch.rand(200, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = (torch.lerp(lower, upper, 0.9 * share + side) for side in (0.0, 0.1))
    wanted = torch.tensor([[False, True]]).expand(200, -1)
    method = bounder(graph, 1, REAL)
    planes = method(low, high, open_=wanted)
    asked = planes.least[:, 2] <= 0
    assert int(asked.sum()) > 20
    assert torch.isinf(planes.least[:, :2]).all()  # nobody asked for that clause
    x = torch.stack([sampled(*ends, 300, 0) for ends in zip(low, high, strict=True)])
    row = (run(graph, x.flatten(0, 1)) @ method.goal.coeff[2]).view(200, -1) + method.goal.const[2]
    lost = row.amin(dim=1, keepdim=True) - planes.least[:, [2, 4]]
    plain, own = lost[asked].mean(dim=0).tolist()
    assert own < 0.5 * plain


def test_images_are_the_networks_own_affine_parts() -> None:
    """At sampled inputs what a stage reads is W·v + b, and outputs too, up to rounding."""
    graph = energy_net(2)
    method = bounder(graph, 2, REAL)
    lower, upper = root_of(graph, 2)
    x = sampled(lower, upper, 50, 0)
    values = evaluate(graph, x)
    blocks = [x, *(values[stage.node.name].flatten(1) for stage in method.network.stages)]
    for stage in method.network.stages:
        for read in stage.reads:
            at = read.bias + sum(blocks[p.stage + 1] @ p.weight.T for p in read.pieces)
            assert torch.allclose(at, values[read.source].flatten(1), rtol=1e-12, atol=1e-12)
    names = [stage.node.name for stage in method.network.stages]
    # Products with constants and functions of them are no stages.
    assert "scaled" not in names
    assert "fixed" not in names
    assert not any(name.endswith("product") or name == "matrix" for name in names)


def test_larger_networks_and_other_operators_are_left_to_others() -> None:
    """More columns than a dense matrix should have; a softmax; a product of two matrices."""
    builder = GraphBuilder("x", (600,))
    wide = builder.build(builder.add("Sin", ("x",), "y"))
    assert not may_be_staged(wide)
    builder = GraphBuilder("x", (2, 2))
    soft = builder.build(builder.add("Softmax", ("x",), "y"))
    builder = GraphBuilder("x", (2, 2))
    turned = builder.add("Transpose", ("x",), "t", settings={"perm": (1, 0)})
    product = builder.build(builder.add("MatMul", ("x", turned), "y"))
    for graph in (soft, product):
        ends = torch.zeros(4).double(), torch.ones(4).double()
        assert staged_planes(graph, goal(4), *ends) is None
    # Nothing is known of an execution that may divide by zero.
    builder = GraphBuilder("x", (2,))
    quotient = builder.build(builder.add("Reciprocal", ("x",), "y"))
    ends = -torch.ones(2).double(), torch.ones(2).double()
    assert staged_planes(quotient, goal(2), *ends) is None


@pytest.mark.parametrize("op", ["Sin", "Exp", "Softplus", "Gelu", "Erf"])
def test_quick_lines_enclose_their_curve(op: str) -> None:
    """On intervals wide, narrow and of no width, wherever they lie."""
    builder = GraphBuilder("x", (64,))
    node = builder.build(builder.add(op, ("x",), "y")).output
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(200, 64, generator=generator, dtype=torch.float64) * 4
    width = torch.rand(200, 64, generator=generator, dtype=torch.float64)
    width = width * 10.0 ** torch.randint(-9, 1, (200, 64), generator=generator)
    width[:, :4] = 0
    bounds = Bounds(low, low + width)
    lines = quick_lines(node, bounds)
    noise = noise_of(node, REAL, torch.float64, (bounds,))
    assert noise is not None
    for share in torch.linspace(0, 1, 41, dtype=torch.float64):
        z = torch.lerp(bounds.lower, bounds.upper, share)
        value = CURVES[op].value(node, z)
        assert lines.lower_offset is not None
        assert lines.upper_offset is not None
        assert (lines.lower_slope[:, 0] * z + lines.lower_offset[:, 0] <= value + noise).all()
        assert (lines.upper_slope[:, 0] * z + lines.upper_offset[:, 0] >= value - noise).all()
