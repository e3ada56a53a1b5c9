"""Scores by splits of Relu signs: every execution is in some part, and the hull is tighter."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.confidence import QUANTITIES
from tests.nets import conv_net, dense_net
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.confidence import BY_PART, certify_scores, splitting
from verify.confidence.certifying import scores_of
from verify.confidence.differences import Differences
from verify.confidence.joint import boxed, ranges
from verify.confidence.reach import Reach
from verify.confidence.scores import Scores
from verify.confidence.splitting import halves, relu_sources, split_scores
from verify.errors import InternalError
from verify.protocols import Bounder
from verify.traverse import run
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.question import Question, question

GRAPH = dense_net(11, (3, 10, 8, 4))
PLAIN = Crown()


def asked(eps: float = 0.4) -> Question:
    x = torch.rand(3, 3, generator=torch.Generator().manual_seed(2))
    return question(x, torch.tensor([0, 1, 2]), eps)


def logits_around(of: Question, count: int = 8000) -> torch.Tensor:
    """Outputs at random points of the ball; (count, batch, classes)."""
    move = 2 * torch.rand(count, *of.x.shape, generator=torch.Generator().manual_seed(0)) - 1
    points = of.x + move * of.eps.float()[:, None] * (1 - 2**-20)
    single = GRAPH.to(torch.float32)
    return run(single, points.flatten(0, 1)).double().view(count, len(of.x), -1)


def outside(found: object, of: Question) -> int:
    """How many sampled values lie outside their certified ranges."""
    total = 0
    for logits in logits_around(of).split(200):
        for i in range(len(of.x)):
            labels = of.labels[i].expand(len(logits))
            for name, bounds in found.named().items():  # type: ignore[attr-defined]
                value = QUANTITIES[name](logits[:, i], labels)
                total += int(((value < bounds.lower[i]) | (value > bounds.upper[i])).sum())
    return total


def split(of: Question, rounds: int, budget: Budget = Budget(), bounder: Bounder = PLAIN) -> object:
    whole = certify_scores(GRAPH, of, Crown())
    return split_scores(
        GRAPH,
        of,
        bounder,
        whole.scores,
        temperature=1.0,
        rounds=rounds,
        budget=budget,
        neurons=whole.neurons,
    )


@pytest.mark.parametrize("bounder", [Crown(), BY_PART])
def test_sampled_values_lie_inside_and_the_ranges_shrink(bounder: Bounder) -> None:
    """With every round, on every score; and by a good part on the confidence."""
    of = asked()
    widths = []
    for rounds in (0, 2, 5):
        found = split(of, rounds, bounder=bounder)
        assert outside(found, of) == 0
        widths.append(torch.stack([b.upper - b.lower for b in found.named().values()]))
    for before, after in zip(widths, widths[1:], strict=False):
        assert (after <= before + 1e-12).all()
    assert widths[-1][0].mean() < 0.9 * widths[0][0].mean()


@pytest.mark.parametrize("bounder", [Crown(), BY_PART])
def test_a_half_that_is_forgotten_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, bounder: Bounder
) -> None:
    """With the lower half of each split taken for the upper one, samples fall outside."""

    def wrong(*arguments: object) -> object:
        signs = halves(*arguments)
        count = len(next(iter(signs.values())).lower) // 2
        first = torch.arange(count).repeat(2)
        return {name: bounds.take(first) for name, bounds in signs.items()}

    monkeypatch.setattr(splitting, "halves", wrong)
    assert outside(split(asked(), 5, bounder=bounder), asked()) > 0


def test_halves_cover_their_part() -> None:
    """One has the neuron at least 0, the other at most 0, and nothing else is changed."""
    limits = {"a": Bounds(torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 4.0]]))}
    parts = splitting.Parts(
        limits, certify_scores(GRAPH, asked(), Crown()).scores, torch.tensor([1])
    )
    made = halves(parts, torch.tensor([0]), ["a"])["a"]
    assert made.lower.tolist() == [[-1, 0], [-1, -2]]
    assert made.upper.tolist() == [[3, 4], [3, 0]]


def test_what_cannot_be_split_is_left_as_it_is() -> None:
    """Convolutions, other activations, no rounds, no time left."""
    assert relu_sources(conv_net(0)) == []
    assert relu_sources(dense_net(0, activation="Tanh")) == []
    of = asked()
    whole = certify_scores(GRAPH, of, Crown()).scores
    assert torch.equal(split(of, 0).confidence.lower, whole.confidence.lower)
    late = split(of, 3, Budget(deadline=-math.inf))
    assert torch.equal(late.confidence.lower, whole.confidence.lower)


def test_signs_are_refused_where_they_would_be_ignored() -> None:
    """A method that forgot them would be sound, but a caller that relies on them would wonder."""
    with pytest.raises(InternalError, match="signs"):
        Reach(GRAPH, asked().region(), Budget(), Interval(), {})


def test_a_part_that_no_class_can_win_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bounds contradict each other: it holds no execution, which is no error of ours."""
    plain = splitting.scores_over

    def contradicted(*given: object) -> tuple[Scores, Differences]:
        _, found = plain(*given)  # type: ignore[arg-type]
        found.upper[0] = -1.0
        return scores_of(boxed(ranges(found)), found, torch.zeros(2, dtype=torch.long)), found

    monkeypatch.setattr(splitting, "scores_over", contradicted)
    signs = {
        name: Bounds(*(torch.full((2, GRAPH.node(name).size), s * math.inf) for s in (-1, 1)))
        for name in relu_sources(GRAPH)
    }
    one = asked().take(torch.tensor([1]))
    parts = splitting.measured(GRAPH, one, Crown(), signs, None, 1.0, Budget())
    assert parts is not None
    assert len(parts.place) == 1
    assert bool(parts.scores.possible.any())
