"""PGD's own settings, and what its defaults must be worth."""

import math

import pytest
import torch
from torch import Tensor

from attacks import FGSM, IFGSM, PGD, AttackInputError, Ball

X = torch.rand(40, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
INNER = 2 * torch.randn(24, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
OUTER = torch.randn(6, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
ROUNDING = 1e-9  # a matrix product's last bits depend on the batch size; logits are about 10
EPS = {math.inf: 0.05, 2.0: 0.15, 1.0: 0.4}


def net(x: Tensor) -> Tensor:
    return (x @ INNER.T).relu() @ OUTER.T


LABELS = net(X).argmax(dim=1)


@pytest.fixture(scope="module")
def strong() -> int:
    """How many samples a much longer search finds in the L-inf ball of radius 0.05."""
    ball = Ball(0.05, lower=0.0, upper=1.0)
    return int(PGD(steps=60, restarts=3, targeted="all")(net, X, LABELS, ball).found.sum())


@pytest.mark.parametrize("p", EPS)
def test_pgd_finds_what_weaker_attacks_find(p: float) -> None:
    """A superset of FGSM's and iterative FGSM's, and of random points'."""
    ball = Ball(EPS[p], p, 0.0, 1.0)
    pgd = PGD()(net, X, LABELS, ball).found
    random = net(ball.around(X).sample(torch.arange(40))).argmax(dim=1) != LABELS
    for weaker in (FGSM()(net, X, LABELS, ball).found, IFGSM()(net, X, LABELS, ball).found, random):
        assert bool((pgd | ~weaker).all())
    assert 0 < int(pgd.sum()) < 40


@pytest.mark.parametrize("targeted", [None, "runner-up", "all", 2])
@pytest.mark.parametrize("start", ["centre-first", "random", "centre"])
def test_every_way_to_aim_and_start_works(
    targeted: str | int | None, start: str, strong: int
) -> None:
    """Each finds most of what the strongest finds, and no more."""
    ball = Ball(0.05, lower=0.0, upper=1.0)
    found = int(PGD(targeted=targeted, start=start)(net, X, LABELS, ball).found.sum())
    assert 0.75 * strong <= found <= strong


def test_the_best_point_is_returned_not_the_last() -> None:
    """Trap b14: huge constant steps end anywhere; the margin reported is the least on the way."""
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        z = net(x)
        own = z.detach()[:, LABELS[0]]
        others = z.detach().clone()
        others[:, LABELS[0]] = -math.inf
        seen.append(own - others.amax(dim=1))
        return z

    attack = PGD(step_size=5.0, schedule="constant", restarts=1, targeted=None, early_stop=False)
    result = attack(watched, X[:1], LABELS[:1], Ball(0.5))
    assert result.margin.item() == torch.cat(seen).min().item()
    assert result.margin.item() < seen[-1].item() - ROUNDING


def test_without_early_stop_margins_are_no_higher() -> None:
    """Walking on can only lower the best margin, and costs the whole budget."""
    ball = Ball(0.08, lower=0.0, upper=1.0)
    short = PGD(restarts=1, targeted=None)(net, X, LABELS, ball)
    long = PGD(restarts=1, targeted=None, early_stop=False)(net, X, LABELS, ball)
    assert bool((long.margin <= short.margin + ROUNDING).all())
    assert bool((long.margin < short.margin - ROUNDING).any())
    assert set(long.backward.tolist()) == {20}


def test_the_budget_is_what_the_settings_say() -> None:
    """Trap b4: clean point, scout, and restarts x classes paths of steps + 1 points."""
    never = torch.zeros(40, dtype=torch.long)

    def sure(x: Tensor) -> Tensor:
        return net(x) + 1e4 * torch.eye(6, dtype=torch.float64)[0]

    result = PGD(steps=7, restarts=3, targeted=4)(sure, X, never, Ball(0.1))
    assert set(result.forward.tolist()) == {1 + 8 + 3 * 4 * 8}
    assert set(result.backward.tolist()) == {7 + 3 * 4 * 7}


def test_seed_and_sample_keys_decide_the_random_starts() -> None:
    """Other seeds, other points; equal keys make equal samples equal."""
    attack = PGD(start="random", steps=1, restarts=1, leap=False, targeted=None)
    x, labels = X[:1].expand(3, -1), LABELS[:1].expand(3)
    ball = Ball(0.001)
    same = attack(net, x, labels, ball).candidate
    assert torch.equal(same[0], same[1])
    keyed = attack(net, x, labels, ball, sample_keys=torch.tensor([5, 5, 6])).candidate
    assert torch.equal(keyed[0], keyed[1])
    assert not torch.equal(keyed[0], keyed[2])
    other = PGD(start="random", steps=1, restarts=1, leap=False, targeted=None, seed=1)
    assert not torch.equal(other(net, x, labels, ball).candidate[0], same[0])


def test_a_saturated_model_in_float32_still_falls() -> None:
    """Logits times 1000 leave plain cross-entropy without a gradient; the attack does not care."""
    x = X.float()

    def saturated(points: Tensor) -> Tensor:
        return 1000 * net(points.double()).float()

    ball = Ball(0.05, lower=0.0, upper=1.0)
    for loss in ("ce", "margin", "dlr"):
        plain = PGD(loss=loss)(lambda v: net(v.double()).float(), x, LABELS, ball).found
        scaled = PGD(loss=loss)(saturated, x, LABELS, ball).found
        assert abs(int(plain.sum()) - int(scaled.sum())) <= 1


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"restarts": 0},
        {"step_size": 0.0},
        {"step_size": math.nan},
        {"momentum": 1.0},
        {"schedule": "linear"},
        {"start": "corner"},
        {"loss": "hinge"},
        {"targeted": "some"},
        {"targeted": 0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    """When the attack is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        PGD(**settings)
