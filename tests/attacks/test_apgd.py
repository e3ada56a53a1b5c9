"""Auto-PGD: its checkpoints, its budget, and what it finds beside plain PGD."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attacks import APGD, PGD, AttackInputError, Ball
from attacks.adaptive import FIRST_DENSITY, State, check, checkpoints_of
from attacks.descent import Lanes
from attacks.oracle import Probe
from tests.attacks.digits import digits

EPS = {math.inf: 0.06, 2.0: 0.4, 1.0: 1.5}
X = torch.rand(8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sure(x: Tensor) -> Tensor:
    """Depends on the input, but never leaves class 0; 12 classes."""
    return (x @ WEIGHTS).tanh() + 1e3 * torch.eye(12, dtype=torch.float64)[0]


ZERO = torch.zeros(8, dtype=torch.long)


def test_checkpoints_are_the_papers() -> None:
    """Periods of 22, 19, 16, 13, 10, 7, 6, ... of a hundred steps."""
    ends = checkpoints_of(100)
    assert ends == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("p", [math.inf, 2.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_budget_is_what_the_settings_say(p: float, steps: int) -> None:
    """Trap b4: the input, then steps + 1 points and `steps` gradients per restart and class."""
    ball = Ball(0.1, p)
    plain = APGD(steps=steps, restarts=3)(sure, X, ZERO, ball)
    assert set(plain.forward.tolist()) == {1 + 3 * (steps + 1)}
    assert set(plain.backward.tolist()) == {3 * steps}
    aimed = APGD(steps=steps, loss="dlr", targeted=9)(sure, X, ZERO, ball)
    assert set(aimed.forward.tolist()) == {1 + 9 * (steps + 1)}
    assert set(aimed.backward.tolist()) == {9 * steps}


@pytest.mark.parametrize(("steps", "phases"), [(1, 1), (2, 1), (3, 3), (10, 3), (100, 3)])
def test_larger_balls_share_the_budget_of_an_l1_path(steps: int, phases: int) -> None:
    """Each phase asks once more at its end; the gradients are those of the settings."""
    result = APGD(steps=steps)(sure, X, ZERO, Ball(0.5, 1.0))
    assert set(result.backward.tolist()) == {steps}
    assert set(result.forward.tolist()) == {1 + steps + phases}


def state(p: float = math.inf) -> State:
    """Three lanes at level 1, one step away from it with levels 0.5, 1.5 and NaN."""
    region = Ball(0.1, p).around(X[:3])
    ones = torch.ones(3, dtype=torch.float64)
    lanes = Lanes(torch.arange(3), X[:3])
    made = State.begin(lanes, Probe(ones, torch.ones_like(X[:3])), region)
    level = torch.tensor([0.5, 1.5, math.nan], dtype=torch.float64)
    made.arrive(X[:3] + 0.05, Probe(level, 2 * torch.ones_like(X[:3])))
    return made


def test_the_best_point_follows_the_loss() -> None:
    """It moves where the loss fell, stays where it rose, and where it is NaN."""
    made = state()
    assert torch.equal(made.best, torch.stack((X[0] + 0.05, X[1], X[2])))
    assert made.best_level.tolist() == [0.5, 1.0, 1.0]
    assert made.falls.tolist() == [1, 0, 0]


def test_lanes_without_progress_halve_their_step_and_go_back() -> None:
    """The first fell in all its steps and goes on; the others return with the slope they had."""
    made = state()
    check(made, Ball(0.1).around(X[:3]), 1)
    assert made.size.tolist() == [2.0, 1.0, 1.0]
    assert made.halved.tolist() == [False, True, True]
    assert torch.equal(made.at, made.best)
    assert made.slope[:, 0].tolist() == [2.0, 1.0, 1.0]


def test_a_best_that_stands_still_halves_the_step_too_but_not_twice_running() -> None:
    """Falls enough, but no new best: halved unless the last checkpoint halved already."""
    made = state()
    region = Ball(0.1).around(X[:3])
    made.halved = torch.tensor([False, False, True])
    made.best_level = made.checked_level.clone()
    made.falls = torch.tensor([4, 4, 4])
    check(made, region, 4)
    assert made.size.tolist() == [1.0, 1.0, 2.0]


def test_sparse_steps_begin_on_a_fifth_of_the_entries() -> None:
    """As APGD for L1 is defined, with a first step as long as the radius."""
    made = state(1.0)
    assert set(made.density.tolist()) == {FIRST_DENSITY} == {0.2}
    assert set(made.size.tolist()) == {1.0}


@pytest.mark.parametrize("p", EPS)
def test_apgd_finds_no_fewer_than_textbook_pgd_at_equal_budget(p: float) -> None:
    """Same loss, steps, classes and starts on a digits net; the steps of PGD are constant."""
    case, ball = digits(), Ball(EPS[p], p, 0.0, 1.0)
    x, labels = case.x, case.labels
    pgd = PGD(
        steps=50,
        restarts=1,
        loss="dlr",
        step_size=0.25,
        schedule="constant",
        momentum=0.0,
        leap=False,
        start="random",
        targeted=9,
    )
    plain = pgd(case.net, x, labels, ball).found
    adaptive = APGD(50, loss="dlr", targeted=9)(case.net, x, labels, ball).found
    assert 20 < int(plain.sum()) <= int(adaptive.sum())
    assert int(adaptive.sum()) >= int(PGD()(case.net, x, labels, ball).found.sum())
    # Without targets local minima decide: which are met is a matter of luck for one sample in 50.
    one = replace(pgd, loss="ce", targeted=None)(case.net, x, labels, ball).found
    other = APGD(50)(case.net, x, labels, ball).found
    assert int(other.sum()) >= 0.98 * int(one.sum())


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_few_classes_are_attacked_like_many(classes: int) -> None:
    """Trap b17: with two classes the logit ratio gives way to the margin; no index error."""

    def few(x: Tensor) -> Tensor:
        return x @ WEIGHTS[:, :classes]

    labels = few(X).argmax(dim=1)
    reference = PGD(steps=50, targeted="all")(few, X, labels, Ball(0.3))
    aimed = APGD(loss="dlr", targeted=9)(few, X, labels, Ball(0.3))
    assert bool((aimed.found | ~reference.found).all())
    assert bool(APGD(loss="dlr")(few, X, labels, Ball(0.3)).found.any())
    assert bool(reference.found.any())


def test_a_random_model_is_judged_by_its_mean() -> None:
    """Noise that flips half of the single answers: the mean of 20 flips hardly any.

    And each of the 20 calls counts as a query.
    """
    generator = torch.Generator().manual_seed(3)

    def noisy(x: Tensor) -> Tensor:
        noise = torch.randn(len(x), 2, dtype=x.dtype, generator=generator)
        return torch.tensor([[1.0, 0.0]], dtype=x.dtype) + noise + 0 * x[:, :2]

    single = APGD(steps=5)(noisy, X, ZERO, Ball(0.1))
    mean = APGD(steps=5, average=20)(noisy, X, ZERO, Ball(0.1))
    assert int(mean.found.sum()) < int(single.found.sum()) == 8
    missed = ~mean.found
    assert set(mean.forward[missed].tolist()) == {20 * 7}
    assert set(mean.backward[missed].tolist()) == {20 * 5}


def test_dropout_may_stay_on_when_averaged_but_batch_statistics_may_not() -> None:
    """The one makes answers random, the other makes them depend on the company."""
    random = torch.nn.Sequential(torch.nn.Linear(12, 4), torch.nn.Dropout(0.1)).double()
    with pytest.raises(AttackInputError, match="eval"):
        APGD(steps=2)(random, X, ZERO, Ball(0.1))
    with torch.random.fork_rng():
        APGD(steps=2, average=3)(random, X, ZERO, Ball(0.1))
    mixing = torch.nn.Sequential(torch.nn.Linear(12, 4), torch.nn.BatchNorm1d(4)).double()
    with pytest.raises(AttackInputError, match="batch"):
        APGD(steps=2, average=3)(mixing, X, ZERO, Ball(0.1))


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"restarts": 0}, {"targeted": 0}, {"average": 0}, {"loss": "hinge"}]
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    """When the attack is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        APGD(**settings)
