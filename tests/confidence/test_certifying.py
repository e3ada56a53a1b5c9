"""Certified scores: sampled and attacked values lie inside, and closed forms are met."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import Ball
from attacks.confidence import QUANTITIES, ConfidenceAttack
from tests.nets import conv_net, dense_net
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.bounders.zonotope import Zonotope
from verify.confidence import certify_scores, certifying, independent_scores
from verify.confidence import differences as pairs
from verify.errors import SettingError
from verify.graph.ir import Graph
from verify.protocols import Bounder
from verify.readers.builder import GraphBuilder
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question, question

BOUNDERS: dict[str, Bounder] = {
    "ibp": Interval(),
    "zonotope": Zonotope(),
    "crown": Crown(),
    "alpha-crown": AlphaCrown(ascent=Ascent(4)),
}


def linear(weight: torch.Tensor, bias: torch.Tensor) -> Graph:
    builder = GraphBuilder("x", (weight.shape[1],))
    tensors = {"weight": weight.double(), "bias": bias.double()}
    return builder.build(builder.add("Gemm", ("x",), "logits", tensors=tensors))


def asked_of(graph: Graph, batch: int, eps: float, seed: int = 0, p: float = math.inf) -> Question:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, *graph.input.shape, generator=generator)
    labels = torch.randint(0, graph.output.size, (batch,), generator=generator)
    return question(x, labels, eps, p)


def sampled(asked: Question, count: int, seed: int = 1) -> torch.Tensor:
    """Points of the L-inf ball, half of them corners; (count, batch, *input), float32."""
    generator = torch.Generator().manual_seed(seed)
    move = 2 * torch.rand(count, *asked.x.shape, generator=generator) - 1
    move[::2] = move[::2].sign()
    eps = asked.eps.float().view(-1, *[1] * (asked.x.dim() - 1)) * (1 - 2**-20)
    return asked.x + eps * move


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", BOUNDERS)
def test_sampled_values_lie_inside(name: str, temperature: float) -> None:
    """Every score of every class, at random points and corners of the ball."""
    for graph in (dense_net(3), conv_net(2)):
        asked = asked_of(graph, 4, 0.1)
        found = certify_scores(graph, asked, BOUNDERS[name], temperature=temperature).scores
        single = graph.to(torch.float32)
        for x in sampled(asked, 120):
            logits = run(single, x).double() / temperature
            p = logits.softmax(dim=1)
            assert (found.probability.lower <= p).all()
            assert (p <= found.probability.upper).all()
            assert found.possible.gather(1, logits.argmax(dim=1)[:, None]).all()
            for key, bounds in found.named().items():
                value = QUANTITIES[key](logits, asked.labels)
                assert (bounds.lower <= value).all(), key
                assert (value <= bounds.upper).all(), key


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_attacked_values_lie_inside(p: float) -> None:
    """In every norm, and the attack goes beyond the clean value in both directions."""
    graph = dense_net(5)
    asked = asked_of(graph, 6, 0.15, p=p)
    single = graph.to(torch.float32)
    attained = ConfidenceAttack(steps=8)(
        lambda x: run(single, x), asked.x, asked.labels, Ball(asked.eps, asked.p)
    )
    found = certify_scores(graph, asked, Crown()).scores
    for key, bounds in found.named().items():
        assert (bounds.lower <= attained.low[key]).all()
        assert (attained.high[key] <= bounds.upper).all()
    assert (attained.low["confidence"] < attained.high["confidence"]).all()


def test_a_wrong_bound_would_be_noticed() -> None:
    """The samples of the tests above do reach beyond bounds that are a tenth too narrow."""
    graph = dense_net(3)
    asked = asked_of(graph, 4, 0.1)
    found = certify_scores(graph, asked, Crown()).scores.confidence
    narrow = 0.1 * (found.upper - found.lower)
    single = graph.to(torch.float32)
    values = torch.stack(
        [run(single, x).softmax(dim=1).amax(dim=1).double() for x in sampled(asked, 300)]
    )
    assert bool((values < found.lower + narrow).any() or (values > found.upper - narrow).any())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_linear_model_of_two_classes_is_met_exactly(temperature: float) -> None:
    """z_0 - z_1 = w·x + b moves by |w|_1 eps, and every score is a function of it alone."""
    weight, bias = torch.tensor([[1.5, -0.5], [0.25, 0.75]]), torch.tensor([0.5, -0.25])
    graph = linear(weight, bias)
    asked = question(torch.tensor([[0.5, 0.25]]), torch.tensor([0]), 0.125)
    found = certify_scores(graph, asked, Crown(), temperature=temperature).scores
    margin = float((weight[0] - weight[1]) @ asked.x[0] + bias[0] - bias[1])
    reach = float((weight[0] - weight[1]).abs().sum()) * 0.125
    low, high = ((margin + s * reach) / temperature for s in (-1, 1))
    assert low > 0
    p_low, p_high = (1 / (1 + math.exp(-d)) for d in (low, high))
    close = {"rel": 1e-5}  # the float32 executions that are covered too

    def entropy(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    expected = {
        "confidence": (p_low, p_high),
        "wrong_confidence": (1 - p_high, 1 - p_low),
        "nll": (-math.log(p_high), -math.log(p_low)),
        "entropy": (entropy(p_high), entropy(p_low)),
        "brier": (2 * (1 - p_high) ** 2, 2 * (1 - p_low) ** 2),
    }
    for key, (least, most) in expected.items():
        bounds = found.named()[key]
        assert float(bounds.lower) == pytest.approx(least, **close), key
        assert float(bounds.upper) == pytest.approx(most, **close), key
    assert found.never_confidently_wrong(0.5).all()
    assert found.always_right_and_accepted(p_low - 1e-4).all()
    assert not found.always_right_and_accepted(p_low + 1e-4).any()
    assert found.always_below(p_high + 1e-4).all()
    assert not found.always_below(p_high - 1e-4).any()


def test_a_linear_model_whose_classes_move_together_needs_differences() -> None:
    """z = (s + 1, s): the confidence never changes, which bounds of single logits cannot know."""
    graph = linear(torch.tensor([[3.0, -2.0], [3.0, -2.0]]), torch.tensor([1.0, 0.0]))
    asked = question(torch.tensor([[0.5, 0.25]]), torch.tensor([0]), 0.5)
    certified = certify_scores(graph, asked, Crown())
    found, loose = certified.scores, independent_scores(certified.differences, asked.labels)
    exact = 1 / (1 + math.exp(-1))
    assert float(found.confidence.lower) == pytest.approx(exact, rel=1e-5)
    assert float(found.confidence.upper) == pytest.approx(exact, rel=1e-5)
    assert float(loose.confidence.upper - loose.confidence.lower) > 0.4
    # The energy moves with s, whose range is +-2.5.
    assert float(found.energy.upper - found.energy.lower) == pytest.approx(5, rel=1e-5)


def test_at_a_tie_the_confidence_keeps_its_least_value() -> None:
    """Two classes swap places: each may fall to .27, their maximum never below one half."""
    graph = linear(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2))
    asked = question(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), 0.5)
    found = certify_scores(graph, asked, Crown()).scores
    assert float(found.probability.lower[0, 0]) == pytest.approx(1 / (1 + math.e), rel=1e-5)
    assert 0.5 - 1e-5 <= float(found.confidence.lower) <= 0.5
    assert found.may_be_right.all()
    assert found.may_be_wrong.all()


def test_joint_rows_only_tighten_and_differences_beat_single_logits() -> None:
    """On every score; and on the confidence by something."""
    graph = dense_net(7, (4, 10, 10, 5))
    asked = asked_of(graph, 8, 0.2)
    certified = certify_scores(graph, asked, Crown())
    plain = certify_scores(graph, asked, Crown(), joint=False)
    loose = independent_scores(certified.differences, asked.labels)
    tight, middle = certified.scores.named(), plain.scores.named()
    for key, bounds in tight.items():
        assert (bounds.lower >= middle[key].lower - 1e-9).all(), key
        assert (bounds.upper <= middle[key].upper + 1e-9).all(), key
    widths = [
        float((s.confidence.upper - s.confidence.lower).mean())
        for s in (certified.scores, plain.scores, loose)
    ]
    assert widths[0] < widths[1] < widths[2]


@given(st.integers(0, 50), st.floats(0, 0.1), st.floats(0, 0.1))
@settings(max_examples=15, deadline=None)
def test_a_larger_radius_never_proves_more_and_the_input_is_inside(
    seed: int, first: float, second: float
) -> None:
    """Of a linear model, where nothing else than the radius decides."""
    generator = torch.Generator().manual_seed(seed)
    graph = linear(torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator))
    near, far = sorted((first, second))
    asked = asked_of(graph, 3, near, seed)
    small = certify_scores(graph, asked, Crown(), joint=False).scores
    large = certify_scores(
        graph, asked.at(torch.full((3,), far, dtype=torch.float64)), Crown(), joint=False
    ).scores
    logits = run(graph, asked.x.double())
    for key, bounds in small.named().items():
        value = QUANTITIES[key](logits, asked.labels)
        assert (bounds.lower <= value).all()
        assert (value <= bounds.upper).all()
        assert (large.named()[key].lower <= bounds.lower + 1e-12).all()
        assert (large.named()[key].upper >= bounds.upper - 1e-12).all()


def test_many_classes_go_through_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer rows than pairs, sound still; and as good for the label's own class."""
    graph = dense_net(2, (4, 8, 6))
    asked = asked_of(graph, 3, 0.1)
    full = certify_scores(graph, asked, Crown()).scores
    monkeypatch.setattr(pairs, "MOST_PAIRED", 3)
    monkeypatch.setattr(certifying, "MOST_PAIRED", 3)
    few = certify_scores(graph, asked, Crown()).scores
    single = graph.to(torch.float32)
    for x in sampled(asked, 100):
        p = run(single, x).double().softmax(dim=1)
        assert (few.probability.lower <= p).all()
        assert (p <= few.probability.upper).all()
    assert torch.allclose(few.nll.upper, full.nll.upper, atol=1e-3)
    assert not torch.allclose(few.probability.upper, full.probability.upper, atol=1e-9)


def test_out_of_time_says_nothing_and_says_so() -> None:
    """Probabilities in [0, 1], entropy up to log K, everything possible."""
    graph = dense_net(0)
    asked = asked_of(graph, 2, 0.1)
    certified = certify_scores(graph, asked, Crown(), budget=Budget(deadline=0.0))
    found = certified.scores
    assert certified.late
    assert (found.probability.lower == 0).all()
    assert (found.probability.upper == 1).all()
    assert found.possible.all()
    assert (found.nll.upper == math.inf).all()
    assert not found.never_confidently_wrong(0.99).any()
    assert float(found.confidence.lower[0]) == pytest.approx(1 / 3)


def test_weights_beyond_float32_prove_nothing() -> None:
    """An overflow may give NaN: no class is ruled out, no probability bounded."""
    graph = linear(torch.full((2, 2), 3e38), torch.zeros(2))
    asked = question(torch.tensor([[1.0, 1.0]]), torch.tensor([0]), 0.1)
    found = certify_scores(graph, asked, Crown()).scores
    assert float(found.confidence.upper) == 1
    assert not found.never_confidently_wrong(0.9).any()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_cannot_be_meant_is_refused(temperature: float) -> None:
    """Logits are divided by it."""
    graph = dense_net(0)
    with pytest.raises(SettingError, match="temperature is"):
        certify_scores(graph, asked_of(graph, 1, 0.1), Crown(), temperature=temperature)
