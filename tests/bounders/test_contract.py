"""Every bounder on every family of nets, in every norm: what it encloses, and in what batches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nets import FAMILIES, dense_net
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.bounders.zonotope import Zonotope
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder
from verify.readers.builder import GraphBuilder
from verify.traverse import evaluate
from verify.values.budget import Budget, OutOfTime
from verify.values.enclosure import Enclosure
from verify.values.region import ball
from verify.values.rounding import REAL
from verify.values.spec import Spec, classified_as

SHORT = Ascent(3)
BOUNDERS: dict[str, Bounder] = {
    "ibp": Interval(),
    "crown": Crown(),
    "crown-ibp": Crown(intermediate=False),
    "alpha-crown": AlphaCrown(ascent=SHORT),
    "alpha-crown spec": AlphaCrown(ascent=SHORT, intermediate=False),
    "alpha-crown float64": AlphaCrown(ascent=SHORT, search_dtype=torch.float64),
    "zonotope": Zonotope(),
}
PLAIN: dict[str, Bounder] = {
    "ibp": Interval(rounding=None),
    "crown": Crown(rounding=None),
    "alpha-crown": AlphaCrown(rounding=None, ascent=SHORT, search_dtype=torch.float64),
    "zonotope": Zonotope(rounding=None),
}
RADII = {math.inf: 0.1, 2.0: 0.4, 1.0: 0.8}


def real(bounder: Bounder) -> Bounder:
    """The same method for the real-valued network."""
    return replace(bounder, rounding=REAL)  # type: ignore[type-var]


def problem(graph: Graph, p: float, seed: int, batch: int = 4, scale: float = 1.0) -> Problem:
    """Inputs in [0, 1] and labels, the last entry with random rows instead."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, *graph.input.shape, generator=generator, dtype=torch.float64)
    eps = scale * RADII[p] * torch.linspace(0.2, 1.0, batch, dtype=torch.float64)
    labels = torch.randint(graph.output.size, (batch,), generator=generator)
    spec = classified_as(labels, graph.output.size)
    coeff, const = spec.coeff.clone(), spec.const.clone()
    coeff[-1] = torch.randn(coeff[-1].shape, generator=generator, dtype=torch.float64)
    const[-1] = 0.5
    return Problem(graph, ball(x, eps, p, lower=0.0, upper=1.0), Spec(coeff, const))


def samples(asked: Problem, count: int, seed: int) -> Tensor:
    """Points of the regions, many of them on their surface; shape (count, batch, *input)."""
    bounds = asked.region.bounds()
    generator = torch.Generator().manual_seed(seed)
    batch = len(bounds.lower)
    coeff = torch.randn(batch, count, *bounds.lower.shape[1:], generator=generator).double()
    # Sparse directions reach corners of L1 balls and edges of clipped ones.
    coeff = coeff * (torch.rand(coeff.shape, generator=generator) < 0.5)
    corner = asked.region.minimiser(coeff)
    other = asked.region.minimiser(-coeff.roll(1, dims=1))
    share = torch.rand(batch, count, generator=generator, dtype=torch.float64)
    share = (share * 1.5).clamp(max=1).view(batch, count, *[1] * (corner.ndim - 2))
    return torch.lerp(other, corner, share).transpose(0, 1)


def escapes(asked: Problem, found: Enclosure, count: int, seed: int) -> float:
    """How far a sampled node or row leaves what was said of it; <= 0 if nothing does."""
    points = samples(asked, count, seed)
    batch = points.shape[1]
    values = evaluate(asked.graph, points.flatten(0, 1))
    worst = -math.inf
    for name, box in found.bounds.items():
        value = values[name].unflatten(0, (count, batch))
        worst = max(worst, float((box.lower - value).max()), float((value - box.upper).max()))
    output = values[asked.graph.output.name].unflatten(0, (count, batch)).flatten(2)
    rows = torch.einsum("bro,nbo->nbr", asked.spec.coeff, output) + asked.spec.const
    return max(worst, float((found.margin - rows).max()))


@pytest.mark.parametrize("p", RADII)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BOUNDERS)
def test_sampled_values_of_every_node_are_enclosed(name: str, family: str, p: float) -> None:
    """1,000 points per network: all nodes within their bounds, all rows above their margin."""
    for seed in range(2):
        asked = problem(FAMILIES[family](seed), p, seed)
        found = BOUNDERS[name](asked, Budget())
        assert found.rigorous
        assert bool(torch.isfinite(found.margin).all())
        assert set(found.bounds) >= {node.name for node in asked.graph.nodes[1:]} - {"x"}
        assert escapes(asked, found, 125, seed) <= 0


@pytest.mark.parametrize("family", ["relu", "conv", "branched", "tanh"])
def test_bounds_that_are_a_little_too_tight_are_noticed(family: str) -> None:
    """The check above fails for a mutant that claims a region half as wide."""
    asked = problem(FAMILIES[family](0), math.inf, 0)
    small = problem(FAMILIES[family](0), math.inf, 0, scale=0.5)
    assert escapes(asked, Crown()(small), 125, 0) > 1e-3


@pytest.mark.parametrize("p", RADII)
@pytest.mark.parametrize("name", [n for n in BOUNDERS if n != "ibp"])
def test_affine_nets_are_bounded_exactly(name: str, p: float) -> None:
    """Every row attains its margin, but for our own rounding."""
    for seed in range(3):
        asked = problem(FAMILIES["affine"](seed), p, seed)
        found = real(BOUNDERS[name])(asked, Budget())
        region = asked.region
        if name == "zonotope":  # documented: it starts from the ball's box
            box = region.bounds()
            region = ball((box.lower + box.upper) / 2, 0.0)
            region = replace(region, lower=box.lower, upper=box.upper)
        size = asked.graph.input.size
        every = torch.eye(size, dtype=torch.float64).view(size, *asked.graph.input.shape)
        zero = torch.zeros_like(every[:1])
        base = evaluate(asked.graph, zero)["logits"]
        slope = evaluate(asked.graph, every)["logits"] - base
        coeff = torch.einsum("bro,no->brn", asked.spec.coeff, slope)
        coeff = coeff.unflatten(2, asked.graph.input.shape)
        point = region.minimiser(coeff).flatten(2)
        const = torch.einsum("bro,o->br", asked.spec.coeff, base[0]) + asked.spec.const
        exact = (coeff.flatten(2) * point).sum(dim=2) + const
        assert bool((found.margin <= exact + 1e-12).all())
        assert bool((found.margin >= exact - 1e-8).all())


@pytest.mark.parametrize("family", ["relu", "leaky", "clip", "residual", "branched", "conv"])
@pytest.mark.parametrize("p", RADII)
def test_optimised_slopes_are_not_worse(family: str, p: float) -> None:
    """alpha-CROWN starts from CROWN's slopes and keeps the best of each row."""
    for seed in range(2):
        asked = problem(FAMILIES[family](seed), p, seed)
        plain = Crown()(asked).margin
        better = AlphaCrown(ascent=Ascent(8))(asked).margin
        assert bool((better >= plain - 1e-4 * (1 + plain.abs())).all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BOUNDERS)
def test_a_batch_is_one_by_one(name: str, family: str) -> None:
    """Eight inputs together get at least the bounds that each gets alone.

    Rows of entries that are decided already fill up a batch and may tighten a little more; fewer
    neurons may be dead in all of a batch than in one of it, which changes the rounding charged.
    """
    asked = problem(FAMILIES[family](3), math.inf, 3, batch=8)
    together = BOUNDERS[name](asked, Budget())
    for i in range(8):
        alone = BOUNDERS[name](asked.take(torch.tensor([i])), Budget())
        assert bool((together.margin[i] >= alone.margin[0] - 5e-5).all())
        assert bool((together.margin[i] <= alone.margin[0] + 0.1).all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["ibp", "zonotope"])
def test_a_batch_is_exactly_one_by_one_without_rounding(name: str, family: str) -> None:
    """Where no rounding is charged and no rows are chosen, the eight bounds are the same."""
    asked = problem(FAMILIES[family](3), math.inf, 3, batch=8)
    together = PLAIN[name](asked, Budget())
    for i in range(8):
        alone = PLAIN[name](asked.take(torch.tensor([i])), Budget())
        torch.testing.assert_close(alone.margin[0], together.margin[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["relu", "branched_conv", "tanh"])
@pytest.mark.parametrize("name", BOUNDERS)
def test_little_memory_changes_nothing(name: str, family: str) -> None:
    """Rows one at a time give the bounds of all rows at once; a zonotope may only widen."""
    asked = problem(FAMILIES[family](4), math.inf, 4)
    whole = BOUNDERS[name](asked, Budget())
    little = BOUNDERS[name](asked, Budget(memory=1))
    if name == "zonotope":
        assert escapes(asked, little, 50, 4) <= 0
        return
    tolerance = 1e-9 if "alpha" not in name or "64" in name else 2e-3
    torch.testing.assert_close(little.margin, whole.margin, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", BOUNDERS)
def test_nothing_goes_on_past_the_deadline(name: str) -> None:
    """OutOfTime is raised by every method that takes time; intervals are done in one walk."""
    asked = problem(dense_net(0), math.inf, 0)
    if name == "ibp":
        BOUNDERS[name](asked, Budget(deadline=0.0))
        return
    with pytest.raises(OutOfTime):
        BOUNDERS[name](asked, Budget(deadline=0.0))


@pytest.mark.parametrize("name", PLAIN)
def test_what_leaves_rounding_out_says_so(name: str) -> None:
    """`rigorous` is false without rounding, and true for the real-valued network."""
    asked = problem(dense_net(1), math.inf, 1)
    assert not PLAIN[name](asked, Budget()).rigorous
    assert real(PLAIN[name])(asked, Budget()).rigorous


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", BOUNDERS)
def test_a_weight_that_is_not_finite_proves_nothing(name: str, value: float) -> None:
    """NaN or infinity anywhere: no margin may come out finite and positive."""
    for layer, entry in (("gemm0", "weight"), ("gemm1", "bias"), ("gemm2", "weight")):
        graph = dense_net(2)
        graph.node(layer).tensors[entry].view(-1)[0] = value
        asked = problem(graph, math.inf, 2, batch=2)
        asked = Problem(graph, asked.region, classified_as(torch.tensor([0, 1]), 3))
        margin = BOUNDERS[name](asked, Budget()).margin
        proved = (torch.isfinite(margin) & (margin > 0)).all(dim=1)
        assert not bool(proved.any())


@pytest.mark.parametrize("name", BOUNDERS)
@pytest.mark.parametrize("middle", ["Relu", "Tanh", "Clip", ""])
def test_overflow_in_float32_proves_nothing(name: str, middle: str) -> None:
    """1e30 twice: float64 holds 1e60 well, but float32 holds infinity for both logits."""
    builder = GraphBuilder("x", (2,))
    first = {"weight": torch.tensor([[1e30, 1e30], [1e30, 0]]), "bias": torch.zeros(2)}
    name_ = builder.add("Gemm", ("x",), "a", tensors=first)
    second = {"weight": torch.tensor([[1e30, 1.0], [1e29, 1.0]]), "bias": torch.zeros(2)}
    name_ = builder.add("Gemm", (name_,), "b", tensors=second)
    if middle:
        ends = {"low": torch.tensor(-3.0), "high": torch.tensor(3e38)} if middle == "Clip" else {}
        name_ = builder.add(middle, (name_,), "act", tensors=ends)
    third = {"weight": torch.tensor([[1.0, 0], [0, 1]]), "bias": torch.tensor([1.0, 0])}
    graph = builder.build(builder.add("Gemm", (name_,), "c", tensors=third))
    region = ball(torch.full((1, 2), 0.5), 0.1)
    found = BOUNDERS[name](Problem(graph, region, classified_as(torch.tensor([0]), 2)), Budget())
    assert not bool((torch.isfinite(found.margin) & (found.margin > 0)).any())
