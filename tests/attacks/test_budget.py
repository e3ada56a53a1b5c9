"""A budget holds for each sample, whatever the attack, and what was found by then is returned."""

import math

import pytest
import torch
from torch import Tensor

from attacks import (
    ATTACKS,
    MINIMISERS,
    AttackInputError,
    Ball,
    Budget,
    minimal_radius,
    portfolio_radius,
    spending,
)
from tests.attacks.enrolled import quick
from tests.attacks.test_contract import batch, smooth_net
from tests.attacks.test_minimisers import FEWER

NET = smooth_net()
X = batch(3)
LABELS = NET(X).argmax(dim=1)
WAYS = {
    **{name: quick(name) for name in ATTACKS if name != "autoattack-rand"},
    **{n: e.make(**FEWER.get(n, {})) for n, e in MINIMISERS.items() if 2 in e.norms},
    "bisection": minimal_radius,
    "portfolio": portfolio_radius,
}


@pytest.mark.parametrize("name", WAYS)
def test_no_sample_is_asked_about_more_often(name: str) -> None:
    """As the model itself counts; the radius held is a true one."""
    asked = [0]

    def counting(x: Tensor) -> Tensor:
        asked[0] += len(x)
        return NET(x)

    for forward in (1, 12):
        asked[0] = 0
        ball = Ball(0.5, 2.0, 0.0, 1.0)
        with spending(Budget(forward=forward, backward=5)):
            result = WAYS[name](counting, X, LABELS, ball)
        assert asked[0] <= forward * len(X)
        assert int(result.forward.sum()) == asked[0]
        assert bool((result.backward <= 5).all())
        assert torch.equal(NET(result.candidate).argmax(dim=1) != LABELS, result.found)


def test_time_ends_a_call_too() -> None:
    """With none at all only the inputs are evaluated."""
    with spending(Budget(seconds=0.0)):
        result = portfolio_radius(NET, X, LABELS, Ball(math.inf, 2.0, 0.0, 1.0))
    assert result.forward.tolist() == [1, 1, 1]
    assert not bool(result.found.any())


def test_an_ample_budget_changes_nothing_and_ends_with_its_block() -> None:
    """The same result as without; and no ledger is left behind."""
    ball = Ball(0.5, 2.0, 0.0, 1.0)
    plain = quick("apgd-ce")(NET, X, LABELS, ball)
    with spending(Budget(forward=10**6)):
        ample = quick("apgd-ce")(NET, X, LABELS, ball)
    assert torch.equal(plain.candidate, ample.candidate)
    assert torch.equal(quick("apgd-ce")(NET, X, LABELS, ball).forward, plain.forward)


@pytest.mark.parametrize("wrong", [{"forward": 0}, {"backward": -1}, {"seconds": math.nan}])
def test_limits_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AttackInputError, match="Budget got"):
        Budget(**wrong)  # type: ignore[arg-type]
