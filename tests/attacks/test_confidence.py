"""Attacks on confidence: inside the ball, exact on linear models, keyed by sample."""

from __future__ import annotations

import math

import pytest
import torch

from attacks import AttackInputError, Ball
from attacks.confidence import QUANTITIES, ConfidenceAttack


def linear(x: torch.Tensor) -> torch.Tensor:
    weight = torch.tensor([[2.0, -1.0], [0.5, 1.0], [0.0, 0.0]])
    return x @ weight.T.to(x.dtype) * 3


X = torch.tensor([[0.6, 0.4], [0.2, 0.9], [0.5, 0.5]])
LABELS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_points_lie_in_the_ball_and_give_the_values_reported(p: float) -> None:
    """Every end of every quantity, judged again."""
    ball = Ball(0.2, p, 0.0, 1.0)
    found = ConfidenceAttack(steps=6)(linear, X, LABELS, ball)
    for name, quantity in QUANTITIES.items():
        for points, values in (
            (found.low_at[name], found.low[name]),
            (found.high_at[name], found.high[name]),
        ):
            assert ball.contains(points, X).all()
            assert torch.equal(quantity(linear(points).double(), LABELS), values)
        clean = quantity(linear(X).double(), LABELS)
        assert (found.low[name] <= clean).all()
        assert (clean <= found.high[name]).all()


def test_on_a_linear_model_of_two_classes_the_ends_are_attained() -> None:
    """The margin moves by |w|_1 eps; the input range stops nothing here."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stack((x @ torch.tensor([1.0, -2.0]), torch.zeros(len(x))), dim=1)

    x, labels = torch.tensor([[0.9, 0.1]]), torch.tensor([0])
    found = ConfidenceAttack(steps=3)(model, x, labels, Ball(0.05))
    for value, margin in ((found.low, 0.7 - 0.15), (found.high, 0.7 + 0.15)):
        assert float(value["confidence"]) == pytest.approx(1 / (1 + math.exp(-margin)), rel=1e-6)


def test_a_saturated_model_is_still_moved() -> None:
    """Confidence 1 in float32 has no slope of its own; log-odds and log-entropy have."""
    found = ConfidenceAttack(steps=4)(lambda x: 30 * linear(x), X[:1], LABELS[:1], Ball(0.1))
    assert float(found.low["nll"]) < float(found.high["nll"])
    assert float(found.low["entropy"]) < 0.9 * float(found.high["entropy"])


def test_a_sample_is_attacked_alike_alone_and_in_a_batch() -> None:
    """Random starts are keyed by the sample."""
    attack = ConfidenceAttack(steps=5)
    together = attack(linear, X, LABELS, Ball(0.3))
    alone = attack(linear, X[1:2], LABELS[1:2], Ball(0.3))
    for name in QUANTITIES:
        assert torch.equal(together.low[name][1:2], alone.low[name])
        assert torch.equal(together.high_at[name][1:2], alone.high_at[name])


def test_at_radius_0_nothing_moves_and_no_samples_are_no_error() -> None:
    """Both ends are the clean value."""
    found = ConfidenceAttack(steps=2)(linear, X, LABELS, Ball(0.0))
    assert all(torch.equal(found.low[name], found.high[name]) for name in QUANTITIES)
    empty = ConfidenceAttack(steps=2)(linear, X[:0], LABELS[:0], Ball(0.1))
    assert len(empty.low["nll"]) == 0


def test_the_path_holds_what_was_attained() -> None:
    """Its ends are those of the confidence, and correctness is that of the label."""
    found = ConfidenceAttack(steps=4, between=3)(linear, X, LABELS, Ball(0.2))
    assert torch.equal(found.path.amin(dim=1), found.low["confidence"])
    assert torch.equal(found.path.amax(dim=1), found.high["confidence"])
    assert torch.equal(found.path_correct[:, 0], linear(X).argmax(dim=1) == LABELS)


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"temperature": 0.0}, {"between": -1}],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    """One line, as for the other attacks."""
    with pytest.raises(AttackInputError, match="ConfidenceAttack got"):
        ConfidenceAttack(**settings)  # type: ignore[arg-type]
