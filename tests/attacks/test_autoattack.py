"""The ensembles: what they consist of, who wins, and the signs of hidden gradients."""

import math

import pytest
import torch
from torch import Tensor

from attacks import APGD, FAB, AttackInputError, AutoAttack, Ball, EnsembleResult, Square
from attacks.diagnosis import FEW_CLASSES, NO_GRADIENT, RANDOM, SCORES_WIN, SOFTMAX, advice
from tests.attacks.digits import digits

X = torch.rand(6, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.randn(25, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BALL = Ball(0.05, lower=0.0, upper=1.0)
SHORT = AutoAttack(steps=10, queries=60)


def net(x: Tensor) -> Tensor:
    return (x.flatten(1) @ WEIGHTS).tanh() @ WEIGHTS[:6]


LABELS = net(X).argmax(dim=1)


@pytest.mark.parametrize("p", [math.inf, 2.0])
def test_the_standard_ensemble_is_its_authors(p: float) -> None:
    """Trap b7: a hundred steps, nine classes, 5000 queries, in this order."""
    ce, aimed, fab, square = AutoAttack().members(p)
    assert ce == APGD(steps=100, restarts=1, loss="ce")
    assert aimed == APGD(steps=100, restarts=1, loss="dlr", targeted=9)
    assert fab == FAB(steps=100, restarts=1, targeted=9)
    assert square == Square(queries=5000)


def test_the_l1_ensemble_is_its_authors() -> None:
    """Five starts of APGD-CE and five classes in APGD-T, both with larger balls first."""
    ce, aimed, fab, square = AutoAttack().members(1.0)
    assert ce == APGD(steps=100, restarts=5, loss="ce", larger_balls=True)
    assert aimed == APGD(steps=100, restarts=1, loss="dlr", targeted=5, larger_balls=True)
    assert fab == FAB(steps=100, restarts=1, targeted=9)
    assert square == Square(queries=5000)


def test_plus_and_rand_are_their_authors() -> None:
    """Plus: six members, five restarts but for APGD-T. Rand: two, averaged over 20 answers."""
    assert AutoAttack("plus").members(math.inf) == (
        APGD(restarts=5),
        APGD(restarts=5, loss="dlr"),
        FAB(restarts=5, targeted=None),
        Square(),
        APGD(loss="dlr", targeted=9),
        FAB(restarts=5),
    )
    assert AutoAttack("rand").members(2.0) == (APGD(average=20), APGD(loss="dlr", average=20))


def test_a_sample_is_done_once_it_is_found_and_its_winner_is_named() -> None:
    """On digits: who was found by the first member has its queries and a few for the checks."""
    case, ball = digits(), Ball(0.06, lower=0.0, upper=1.0)
    whole = AutoAttack(steps=15, queries=20)(case.net, case.x, case.labels, ball)
    first = APGD(steps=15)(case.net, case.x, case.labels, ball)
    by_first = torch.tensor([name == "apgd-ce" for name in whole.attack])
    assert torch.equal(by_first, first.found)
    assert torch.equal(whole.forward[by_first], first.forward[by_first] + 2)
    assert torch.equal(whole.candidate[by_first], first.candidate[by_first])
    assert int(whole.found.sum()) > int(first.found.sum())
    assert set(whole.attack) <= {"", "apgd-ce", "apgd-t", "fab-t", "square"}
    assert all(bool(name) == hit for name, hit in zip(whole.attack, whole.found, strict=True))


def test_the_ensemble_finds_what_each_member_finds() -> None:
    """None is lost on the way; the record is that of the point handed back."""
    ball = Ball(0.1, lower=0.0, upper=1.0)
    whole = SHORT(net, X, LABELS, ball)
    for member in SHORT.members(math.inf):
        alone = member(net, X, LABELS, ball).found
        assert bool((whole.found | ~alone).all())
    assert torch.equal(net(whole.candidate).argmax(dim=1) != LABELS, whole.found)


def test_settings_are_hashed() -> None:
    """Trap b7: equal where all settings are, different where any is; part of the result."""
    hashes = {
        AutoAttack().settings(BALL),
        AutoAttack("plus").settings(BALL),
        AutoAttack(steps=99).settings(BALL),
        AutoAttack(queries=4999).settings(BALL),
        AutoAttack(seed=1).settings(BALL),
        AutoAttack().settings(Ball(0.05, 2.0, 0.0, 1.0)),
        AutoAttack().settings(Ball(0.06, lower=0.0, upper=1.0)),
        AutoAttack().settings(Ball(0.05, lower=0.0, upper=2.0)),
        AutoAttack().settings(Ball(torch.full((6,), 0.05), lower=0.0, upper=1.0)),
    }
    assert len(hashes) == 9
    result = SHORT(net, X, LABELS, BALL)
    assert isinstance(result, EnsembleResult)
    assert result.settings == AutoAttack(steps=10, queries=60).settings(BALL)


def test_a_sound_model_raises_no_flag() -> None:
    """Six classes, logits, a slope everywhere, one answer per input."""
    assert SHORT(net, X, LABELS, BALL).flags == ()


def test_signs_of_hidden_gradients_are_flagged() -> None:
    """Probabilities; noise; a rounded input; two classes; each alone."""
    generator = torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Tensor:
        noise = torch.randn(len(x), 6, dtype=x.dtype, generator=generator)
        return net(x) + 0.1 * noise

    def rounded(x: Tensor) -> Tensor:
        return net((x * 8).round() / 8)

    assert SHORT(lambda x: net(x).softmax(dim=1), X, LABELS, BALL).flags == (SOFTMAX,)
    assert RANDOM in SHORT(noisy, X, LABELS, BALL).flags
    assert NO_GRADIENT in SHORT(rounded, X, rounded(X).argmax(dim=1), BALL).flags
    two = net(X)[:, :2].argmax(dim=1)
    assert SHORT(lambda x: net(x)[:, :2], X, two, BALL).flags == (FEW_CLASSES,)
    for line in advice((SOFTMAX, RANDOM, NO_GRADIENT, SCORES_WIN, FEW_CLASSES)):
        assert ": " in line


def test_scores_that_beat_gradients_are_flagged() -> None:
    """The slope points the wrong way, the scores do not: only Square finds it, and says so."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, slope: Tensor) -> Tensor:
            return -slope

    def masked(x: Tensor) -> Tensor:
        score = Wrong.apply(x).flatten(1).sum(dim=1)
        return torch.stack((score - 12, torch.zeros_like(score), *[score - 99] * 4), dim=1)

    x = torch.full((2, 1, 5, 5), 0.5, dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.long)
    result = AutoAttack(steps=10, queries=500)(masked, x, labels, Ball(0.025))
    assert result.attack == ("square", "square")
    assert result.flags == (SCORES_WIN,)


def test_the_rand_ensemble_is_not_fooled_by_one_draw() -> None:
    """Noise larger than the margin: single answers flip at once, means of 20 do not."""
    generator = torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Tensor:
        noise = 2 * torch.randn(len(x), 4, dtype=x.dtype, generator=generator)
        return 4 * torch.eye(4, dtype=x.dtype)[0] + noise + 0 * x.flatten(1)[:, :4]

    labels = torch.zeros(6, dtype=torch.long)
    single = SHORT(noisy, X, labels, BALL)
    mean = AutoAttack("rand", steps=10)(noisy, X, labels, BALL)
    assert bool(single.found.all())
    assert not bool(mean.found.any())
    assert set(mean.forward.tolist()) == {20 * (1 + 1 + 2 * 12)}


@pytest.mark.parametrize(
    "settings", [{"version": "custom"}, {"steps": 0}, {"queries": 0}, {"average": 0}]
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    """When the ensemble is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        AutoAttack(**settings)
