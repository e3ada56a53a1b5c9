"""Point splitting: parts against samples, children cover, verdicts against MILP and samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nets import FAMILIES, weights
from tests.search.test_activation_split import Judge, case_of, least_worst
from verify.bounders import point_climb
from verify.bounders.beta_crown import Climb
from verify.bounders.point_climb import climbed, proved
from verify.bounders.point_parts import Columns, Parts, columns_of
from verify.bounders.slopes import Ascent
from verify.branchers.points import Cutting, area, least_area, places
from verify.graph.ir import Graph, Node
from verify.readers.builder import GraphBuilder
from verify.search.point_split import PointSplit, Tree, in_float32
from verify.search.root import Root, root_of
from verify.traverse import evaluate, run
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.result import Verdict

QUICK = Ascent(iterations=4)


def attention_net(seed: int) -> Graph:
    """A product, a softmax, matrices of two variables and curves: what only points can split."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (4,))

    def dense(source: str, out: int, name: str) -> str:
        size = builder.shape(source)[-1]
        tensors = {"weight": weights(generator, out, size), "bias": weights(generator, out)}
        return builder.add("Gemm", (source,), name, tensors=tensors)

    parts = []
    for name in ("q", "k", "v"):
        flat = dense("x", 6, name)
        parts.append(builder.add("Reshape", (flat,), f"{name}s", shape=(2, 3)))
    turned = builder.add("Transpose", (parts[1],), "kt", settings={"perm": (1, 0)})
    scores = builder.add("MatMul", (parts[0], turned), "scores")
    chances = builder.add("Softmax", (scores,), "chances")
    mixed = builder.add("MatMul", (chances, parts[2]), "mixed")
    flat = builder.add("Reshape", (mixed,), "flat", shape=(6,))
    waves = builder.add("Sin", (dense(flat, 4, "h"),), "sin")
    gates = builder.add("Gelu", (dense(flat, 4, "g"),), "gelu")
    product = builder.add("Mul", (waves, gates), "product")
    return builder.build(dense(product, 3, "y"))


NETS = {**{name: FAMILIES[name] for name in ("relu", "sigmoid", "tanh", "gated", "pooled", "leaky",
                                             "clip", "concatenated")},
        "attention": attention_net}  # fmt: skip


def rooted(name: str, seed: int, eps: float = 0.3) -> tuple[Case, Root, Columns, Tree]:
    """A tree that has its root, with all clauses open."""
    graph = NETS[name](seed)
    case = case_of(graph, seed, eps, shift=-100.0)
    root = root_of(graph, case, QUICK, Budget())
    tree = Tree(PointSplit(), graph, case, None, Budget(), None)
    tree.root, tree.columns = root, columns_of(root.proof.graph)
    tree.search, tree.single = in_float32(root.proof), root.clauses.to(torch.float32)
    return case, root, tree.columns, tree


def cut_at_random(tree: Tree, parts: Parts, cuts: int, seed: int) -> Parts:
    """Parts under some cuts at random places, with random multipliers."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(cuts):
        wide = parts.high - parts.low > 1e-3
        column = torch.multinomial(wide.double() + 1e-9, 1, generator=generator)[:, 0]
        share = torch.rand(len(parts), generator=generator, dtype=torch.float64)
        low = parts.low.gather(1, column[:, None])[:, 0]
        high = parts.high.gather(1, column[:, None])[:, 0]
        point = torch.lerp(low, high, share).float().double()
        side = 1.0 if torch.rand((), generator=generator) > 0.5 else -1.0
        parts = parts.cut(column, point, side)
    beta = torch.rand(parts.beta.shape, generator=generator) * 0.3
    return replace(parts, beta=beta)


def sampled(root: Root, columns: Columns, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points of the box: their columns' values, and the outputs; all in float64."""
    generator = torch.Generator().manual_seed(seed)
    bounds = root.proof.region.bounds()
    share = torch.rand(count, *bounds.lower.shape[1:], generator=generator, dtype=torch.float64)
    share = (1.6 * share - 0.3).clamp(0, 1)
    values = evaluate(root.proof.graph, torch.lerp(bounds.lower, bounds.upper, share))
    known = {name: values[name] for name in columns.first}
    return columns.laid(known, share, count), values[root.proof.graph.output.name].flatten(1)


def inside(parts: Parts, index: int, values: Tensor) -> Tensor:
    """Which samples are in a part, by its cuts alone."""
    fine = torch.ones(len(values), dtype=torch.bool)
    for slot, side, point in zip(
        parts.slots[index], parts.side[index], parts.point[index], strict=True
    ):
        fine &= side * (values[:, slot] - point) >= 0
    return fine


def excess(name: str, seed: int) -> tuple[float, int]:
    """How far proved bounds of random parts are above samples of them, and samples looked at."""
    _, root, columns, tree = rooted(name, seed)
    parts = cut_at_random(tree, tree.first(), 3, seed)
    known = (tree.search, columns, tree.single)
    found, _ = climbed(*known, parts, 1e9, Climb(iterations=1))
    margin = proved(root.proof, columns, root.clauses, found)
    values, outputs = sampled(root, columns, 4000, seed)
    worst, count = -float("inf"), 0
    for i in range(len(parts)):
        fine = inside(parts, i, values)
        row = root.clauses.coeff[parts.clause[i]][0], root.clauses.const[parts.clause[i]][0]
        got = outputs[fine] @ row[0] + row[1]
        count += len(got)
        if len(got):
            worst = max(worst, float(margin[i] - got.min()))
    return worst, count


@pytest.mark.parametrize("name", NETS)
def test_no_sample_of_a_part_is_below_its_bound(name: str) -> None:
    """Under random cuts and multipliers, optimised or not."""
    seen = 0
    for seed in range(4):
        worst, count = excess(name, seed)
        assert worst <= 0
        seen += count
    assert seen > 100


def test_a_multiplier_of_the_wrong_sign_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: a cut that pulls towards the wrong side."""
    real = point_climb.multipliers

    def turned(walk: object, columns: Columns, parts: Parts) -> object:
        return real(walk, columns, replace(parts, side=-parts.side))  # type: ignore[arg-type]

    monkeypatch.setattr(point_climb, "multipliers", turned)
    assert max(excess("sigmoid", seed)[0] for seed in range(6)) > 0


def test_a_point_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one whose constant is left out."""
    real = point_climb.multipliers

    def at_zero(walk: object, columns: Columns, parts: Parts) -> object:
        return real(walk, columns, replace(parts, point=0 * parts.point))  # type: ignore[arg-type]

    monkeypatch.setattr(point_climb, "multipliers", at_zero)
    assert max(excess("sigmoid", seed)[0] for seed in range(12)) > 0


@pytest.mark.parametrize("name", NETS)
def test_children_cover_their_parent(name: str) -> None:
    """Every sample of a parent is in a child, and the point itself in both."""
    _, root, columns, tree = rooted(name, 1)
    known = (tree.search, columns, tree.single)
    best, found = climbed(*known, tree.first(), 1e9, Climb(iterations=3))
    children, alive = Cutting(tried=2)(*known, best, found, 1e9)
    assert children is not None
    count = int(alive.sum())
    values, _ = sampled(root, columns, 1000, 1)
    for i in range(count):
        assert bool((inside(children, i, values) | inside(children, count + i, values)).all())
    column = children.slots[:, -1:]
    point = children.point[:, -1:]
    assert torch.equal(children.low.gather(1, column)[:count], point[:count])
    assert torch.equal(children.high.gather(1, column)[count:], point[count:])
    assert torch.equal(point[:count], point[count:])


def worst_sample(graph: Graph, case: Case, clause: int, count: int = 20000) -> float:
    """The least value of a one-row clause over samples of the box."""
    generator = torch.Generator().manual_seed(7)
    share = torch.rand(count, graph.input.size, generator=generator, dtype=torch.float64)
    x = torch.lerp(case.lower, case.upper, (1.4 * share - 0.2).clamp(0, 1))
    rows = case.clauses[clause]
    return float(rows.values(run(graph, x.view(-1, *graph.input.shape)).flatten(1)).min())


def shifted(case: Case, by: float) -> Case:
    """Its first clause alone, moved."""
    first = case.clauses[0]
    return replace(case, clauses=(replace(first, const=first.const - by),))


WIDTHS = {"tanh": 0.4, "gated": 0.8, "attention": 0.16, "pooled": 0.02, "leaky": 0.4,
          "concatenated": 0.8}  # fmt: skip
"""Boxes on which bounds without cuts do not prove what is asked below."""


@pytest.mark.parametrize("name", WIDTHS)
def test_what_holds_with_some_room_is_proved_and_what_does_not_is_not(name: str) -> None:
    """A threshold a twentieth of the range below the least sample, and one at the least sample."""
    graph = NETS[name](2)
    case = case_of(graph, 2, WIDTHS[name])
    least = worst_sample(graph, case, 0)
    size = abs(least) + 1
    room = shifted(case, least - 0.05 * size)
    outcome = PointSplit(ascent=QUICK)(graph, room, None, Budget().within(60))
    assert outcome.verdict is Verdict.VERIFIED
    assert outcome.bound > 0
    assert outcome.domains > 1
    none = shifted(case, least + 1e-3 * size)
    judge = Judge(graph, none)
    outcome = PointSplit(ascent=QUICK)(graph, none, judge, Budget().within(1.5))
    assert outcome.verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("seed", range(3))
def test_small_relu_nets_agree_with_exact_milp(seed: int) -> None:
    """Thresholds just below and just above the exact optimum, in both directions."""
    graph = NETS["relu"](seed)
    case = case_of(graph, seed, 0.3)
    exact = least_worst(graph, case, case.clauses[0])
    below = PointSplit(ascent=QUICK)(graph, shifted(case, exact - 1e-3), None, Budget().within(30))
    assert below.verdict is Verdict.VERIFIED
    above = shifted(case, exact + 1e-3)
    found = PointSplit(ascent=QUICK)(graph, above, Judge(graph, above), Budget().within(1.5))
    assert found.verdict is not Verdict.VERIFIED


def test_smooth_functions_are_cut_where_lines_enclose_least() -> None:
    """From -1 to 9 a sigmoid bends on the left: half of the interval is no good place."""
    node = Node("s", "Sigmoid", ("x",), (2,), ((2,),))
    bounds = Bounds(torch.tensor([[-1.0, -1.0]]).double(), torch.tensor([[9.0, 1.0]]).double())
    point = least_area(node, bounds)
    assert float(point[0, 0]) < 4
    whole = Bounds(bounds.lower, point), Bounds(point, bounds.upper)
    half = (bounds.lower + bounds.upper) / 2
    middle = Bounds(bounds.lower, half), Bounds(half, bounds.upper)
    chosen, plain = (area(node, a) + area(node, b) for a, b in (whole, middle))
    assert bool((chosen <= plain).all())


def test_relus_are_cut_at_zero() -> None:
    """And nowhere else."""
    _, _, columns, tree = rooted("relu", 0)
    known = (tree.search, columns, tree.single)
    _, found = climbed(*known, tree.first(), 1e9, Climb(iterations=1))
    at = places(found, columns)
    opened = (found.walk.bounds[next(iter(columns.first))].lower < 0).flatten(1)
    assert bool((at[:, : opened.shape[1]][opened] == 0).any())
