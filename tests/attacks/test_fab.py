"""FAB: its projections, its budget, and how near it comes to exact distances."""

import math

import pytest
import torch
from torch import Tensor

from attacks import FAB, AttackInputError, Ball
from attacks.fab import Plane, towards_plane
from tests.attacks.digits import digits

DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}
EPS = {math.inf: 0.06, 2.0: 0.4, 1.0: 1.5}
BOTH = pytest.mark.parametrize("targeted", [None, 9])
WEIGHTS = torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
X = torch.rand(12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHTS.T


LABELS = linear(X).argmax(dim=1)


@pytest.mark.parametrize("p", EPS)
@BOTH
def test_linear_nets_fall_within_two_percent_of_the_exact_distance(
    p: float, targeted: int | None
) -> None:
    """min over classes j of (z_y - z_j) / |w_y - w_j|_q; found just above, never below."""
    z = linear(X)
    slopes = torch.linalg.vector_norm(WEIGHTS[LABELS][:, None] - WEIGHTS, ord=DUAL[p], dim=2)
    ratios = (z.gather(1, LABELS[:, None]) - z) / torch.where(slopes > 0, slopes, 1.0)
    exact = torch.where(slopes > 0, ratios, math.inf).amin(dim=1)
    attack = FAB(targeted=targeted)
    assert bool(attack(linear, X, LABELS, Ball(1.02 * exact, p)).found.all())
    assert not bool(attack(linear, X, LABELS, Ball(0.999 * exact, p)).found.any())


@pytest.mark.parametrize("p", EPS)
@BOTH
def test_the_range_is_part_of_the_projection(p: float, targeted: int | None) -> None:
    """The steepest entries can hardly move; the others have to, and exactly by the least.

    Two classes with slope (4, 1, 1, 1, 1), room (0.1, 1, 1, 1, 1) and a gap g. L-inf: 0.4 + 4 t
    = g. L2: with the first entry stopped, four equal ones of (g - 0.4) / 4. L1: 0.1 + (g - 0.4).
    """
    gap = 1.6
    slope = torch.tensor([4.0, 1, 1, 1, 1], dtype=torch.float64)
    x = torch.tensor([[0.9, 0, 0, 0, 0]], dtype=torch.float64)

    def model(points: Tensor) -> Tensor:
        score = (points - x) @ slope - gap
        return torch.stack((-score / 2, score / 2), dim=1)

    each = (gap - 0.4) / 4
    exact = {math.inf: each, 2.0: math.sqrt(0.01 + 4 * each**2), 1.0: 0.1 + 4 * each}[p]
    label = torch.tensor([0])
    attack = FAB(targeted=targeted)
    assert bool(attack(model, x, label, Ball(1.02 * exact, p, 0.0, 1.0)).found)
    assert not bool(attack(model, x, label, Ball(0.999 * exact, p, 0.0, 1.0)).found)


@pytest.mark.parametrize("p", EPS)
def test_moves_end_on_the_plane_from_either_side(p: float) -> None:
    """level + slope . move = 0 without a range, of length |level| / |slope|_q."""
    slope = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([1.0, -1.0, 0.3, -2.0, 0.0, 5.0], dtype=torch.float64)
    free = torch.full_like(slope, math.inf)
    move = towards_plane(Plane(level, slope), level, -free, free, p)
    assert torch.allclose(level + (slope * move).sum(dim=1), torch.zeros(6).double(), atol=1e-12)
    length = torch.linalg.vector_norm(move, ord=p, dim=1)
    assert torch.allclose(length, level.abs() / torch.linalg.vector_norm(slope, ord=DUAL[p], dim=1))


@pytest.mark.parametrize("p", EPS)
def test_the_budget_is_what_the_settings_say(p: float) -> None:
    """Trap b4: per step one gradient per class and one query of the new point."""

    def sure(x: Tensor) -> Tensor:
        return linear(x).tanh() + 1e3 * torch.eye(5, dtype=torch.float64)[0]

    zero = torch.zeros(12, dtype=torch.long)
    for targeted, classes in ((None, 4), (2, 2), (9, 4)):
        result = FAB(steps=3, restarts=2, targeted=targeted)(sure, X, zero, Ball(0.1, p))
        asked = 1 if targeted is None else classes
        assert set(result.backward.tolist()) == {2 * 3 * classes}
        assert set(result.forward.tolist()) == {1 + 2 * 3 * (classes + asked)}


@pytest.mark.parametrize("p", EPS)
def test_what_is_found_lies_within_the_radius_though_the_paths_leave_it(p: float) -> None:
    """Trap b18: on a digits net in float32, judged by the region."""
    case, ball = digits(), Ball(EPS[p], p, 0.0, 1.0)
    asked: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        asked.append(x.detach())
        return case.net(x)

    x, labels = case.x[:40], case.labels[:40]
    result = FAB(steps=20)(watched, x, labels, ball)
    assert bool(ball.around(x).contains(result.candidate).all())
    assert 0 < int(result.found.sum()) < 40
    assert all(bool(((points >= 0) & (points <= 1)).all()) for points in asked)
    row = (~result.found).nonzero()[0]
    asked.clear()
    FAB(steps=20)(watched, x[row], labels[row], ball)
    far = max(ball.distance(points, x[row].expand_as(points)).max().item() for points in asked)
    assert far > 1.01 * EPS[p]  # else nothing above could have failed


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"restarts": 0},
        {"targeted": 0},
        {"overshoot": 0.9},
        {"most_bias": 2.0},
        {"backward": 1.0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    """When the attack is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        FAB(**settings)
