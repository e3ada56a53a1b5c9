"""What results remark on single samples, and that they remark nothing else."""

import math

import pytest
import torch
from torch import Tensor

from attacks import ATTACKS, MINIMISERS, Ball, minimal_radius, portfolio_radius
from attacks.result import (
    NOT_A_NUMBER,
    NOT_REPLAYED,
    REFUSED,
    REMARKS,
    TIE,
    ZERO_GRADIENT,
    AttackResult,
    RadiusResult,
)
from tests.attacks.enrolled import WITHOUT_GRADIENTS, quick
from tests.attacks.test_minimisers import FEWER

# The first sample is found; around the second nothing has a slope; the third ties everywhere; the
# fourth meets NaN wherever it moves.
X = torch.tensor([[0.55, 0.1], [0.5, 0.3], [0.5, 0.5], [0.5, 0.7]], dtype=torch.float64)
LABELS = torch.zeros(4, dtype=torch.long)
WAYS = {
    **{n: quick(n) for n in ATTACKS if n not in WITHOUT_GRADIENTS and "auto" not in n},
    **{n: e.make(**FEWER.get(n, {})) for n, e in MINIMISERS.items() if e.gradient and 2 in e.norms},
    "bisection": minimal_radius,
    "portfolio": portfolio_radius,
}


def model(x: Tensor) -> Tensor:
    """The second entry chooses the behaviour in steps of 0.2, the first is what may move."""
    which = (x[:, 1] / 0.2).floor()
    score = torch.where(which == 0, x[:, 0] - 0.5, torch.where(which == 1, 1.0, 0.0))
    ill = (which == 3) & (x[:, 0] != 0.5)
    score = torch.where(ill, math.nan, torch.where(which == 3, x[:, 0] + 0.5, score))
    return torch.stack((score, torch.zeros_like(score)), dim=1)


def run(name: str) -> AttackResult | RadiusResult:
    # The range lets only the first entry move.
    lower, upper = torch.tensor([0.0, 0.0]).double(), torch.tensor([1.0, 1.0]).double()
    found = []
    for i in range(4):
        lower[1] = upper[1] = X[i, 1]
        ball = Ball(0.3, 2.0, lower.clone(), upper.clone())
        found.append(WAYS[name](model, X[i : i + 1], LABELS[i : i + 1], ball).remarks[0])
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", WAYS)
def test_each_sample_is_remarked_on_for_what_it_is(name: str) -> None:
    """Found by torch alone; without slope; tied and without slope; NaN met on the way."""
    found, flat, tied, ill = run(name)  # type: ignore[misc]
    assert found == (NOT_REPLAYED,)
    assert flat == (ZERO_GRADIENT,)
    assert TIE in tied
    assert NOT_A_NUMBER in ill
    assert NOT_REPLAYED not in ill


@pytest.mark.parametrize("search", [minimal_radius, portfolio_radius])
def test_a_judge_leaves_its_mark(search: object) -> None:
    """Confirmed: no remark. Refused: that, also where a point farther out was accepted."""
    x, labels = X[:1], LABELS[:1]
    # The range lets only the first entry move: NaN elsewhere would be remarked on, too.
    lower, upper = torch.tensor([0.0, 0.1]).double(), torch.tensor([1.0, 0.1]).double()
    lower[1] = upper[1] = x[0, 1]
    ball = Ball(0.3, 2.0, lower, upper)
    agreed = search(model, x, labels, ball, judge=lambda p, r: r >= 0)  # type: ignore[operator]
    assert agreed.remarks == ((),)
    assert agreed.valid.tolist() == [True]
    if search is portfolio_radius:
        strict = portfolio_radius(model, x, labels, ball, judge=lambda p, r: p[:, 0] < 0.4985)
        assert strict.remarks == ((REFUSED,),)
        assert bool(strict.valid)


def test_every_remark_is_explained() -> None:
    assert set(REMARKS) == {ZERO_GRADIENT, TIE, NOT_A_NUMBER, NOT_REPLAYED, REFUSED}
    assert all(REMARKS.values())
