"""The Square attack: its windows, its plan, its budget, and what it finds without gradients."""

import math

import pytest
import torch
from torch import Tensor

from attacks import PGD, AttackInputError, Ball, Square
from attacks.randomness import derive_keys, uniform
from attacks.square_moves import Canvas, Windows, pyramids, squares, stripes, tiles, transfers
from tests.attacks.digits import digits

PS = [math.inf, 2.0, 1.0]
KEYS = derive_keys(torch.arange(400), "test")


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 5), (5, 7)])
def test_windows_reach_the_last_row_and_column_and_differ_between_samples(
    size: tuple[int, int],
) -> None:
    """Trap b16: the upper end is included, each place is drawn, and not one for the whole batch."""
    canvas = Canvas(2, 5, 7)
    windows = Windows.at(uniform(KEYS, 2), canvas, size)
    assert set(windows.inside.sum(dim=(1, 2, 3)).tolist()) == {size[0] * size[1]}
    places = {tuple(each.nonzero()[0].tolist()) for each in windows.inside}
    assert len(places) == (5 - size[0] + 1) * (7 - size[1] + 1)
    assert bool(windows.inside.any(dim=0).all())


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (13,), (3, 4)])
@pytest.mark.parametrize("p", PS)
def test_moves_stay_in_the_region_for_any_shape(shape: tuple[int, ...], p: float) -> None:
    """Images that are no squares, single entries, rows: trap of auto-attack's issues 81 and 95."""
    x = torch.rand(len(KEYS), *shape, generator=torch.Generator().manual_seed(0))
    region = Ball(0.3, p, 0.0, 1.0).around(x)
    best = stripes(region, KEYS) if p == math.inf else tiles(region, KEYS)
    assert bool(region.contains(best).all())
    for share in (0.8, 0.1, 0.001):
        move = squares if p == math.inf else transfers
        best = move(region, best, share, derive_keys(KEYS, round(1 / share)))
        assert bool(region.contains(best).all())
        assert bool(((best - x) != 0).flatten(1).any(dim=1).all())


@pytest.mark.parametrize("p", [2.0, 1.0])
def test_transfers_use_the_whole_radius(p: float) -> None:
    """Without a range, the next point is on the sphere again, wherever its mass has gone."""
    x = torch.zeros(len(KEYS), 1, 8, 8, dtype=torch.float64)
    region = Ball(0.7, p).around(x)
    best = tiles(region, KEYS)
    for step in range(5):
        best = transfers(region, best, 0.2, derive_keys(KEYS, step))
        assert torch.allclose(region.distance(best), torch.tensor(0.7).double())


def test_linf_points_are_at_the_ends_of_what_entries_may_be() -> None:
    """Stripes are constant down a column; windows are constant within a channel."""
    x = torch.rand(len(KEYS), 2, 5, 7, generator=torch.Generator().manual_seed(0))
    region = Ball(0.3, lower=0.0, upper=1.0).around(x)
    first = stripes(region, KEYS)
    up = first == region.high
    assert bool((up | (first == region.low)).all())
    assert torch.equal(up, up[:, :, :1].expand_as(up))
    second = squares(region, first, 0.1, KEYS)
    changed = (second != first).flatten(1).sum(dim=1)
    assert 0 < int(changed.min()) <= int(changed.max()) <= 2 * 2 * 2


def test_pyramids_are_the_papers() -> None:
    """Heights by summing 1 / (k + 1)^2 over growing squares around the middle, as in its text."""
    expected = torch.zeros(3, 6, dtype=torch.float64)
    for k in range(4):
        expected[max(0, 1 - k) : 2 + k, max(0, 3 - k) : 4 + k] += 1 / (k + 1) ** 2
    both = pyramids(6, 6, 2.0)
    scale = both[1, 3] / expected[1, 3]
    assert torch.allclose(both[:3], scale * expected)
    assert torch.allclose(both[3:], -scale * expected)
    for p in (1.0, 2.0):
        for height, width in ((1, 1), (1, 4), (5, 5), (4, 7)):
            length = torch.linalg.vector_norm(pyramids(height, width, p), ord=p)
            assert length.item() == pytest.approx(1)


def test_windows_shrink_as_planned_whatever_the_budget() -> None:
    """The paper's plan for 10,000 queries, stretched: 0.8, then half after 10, 50, 200 of them."""
    square = Square(queries=10_000)
    assert [square.share_at(i) for i in (10, 11, 50, 51, 200, 201)] == [
        0.8,
        0.4,
        0.4,
        0.2,
        0.2,
        0.1,
    ]
    assert square.share_at(9999) == 0.8 / 512
    assert Square(queries=1000).share_at(999) == 0.8 / 512


def sure(x: Tensor) -> Tensor:
    return torch.stack((10 - x.flatten(1).sum(dim=1), x.flatten(1).sum(dim=1)), dim=1)


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("queries", [1, 2, 33])
def test_the_budget_is_what_the_settings_say(p: float, queries: int) -> None:
    """Trap b4: the input, and `queries` per start; no gradient."""
    x, labels = torch.zeros(5, 12, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    result = Square(queries, restarts=2)(sure, x, labels, Ball(0.1, p))
    assert set(result.forward.tolist()) == {1 + 2 * queries}
    assert set(result.backward.tolist()) == {0}


def test_every_found_sample_leaves_at_once() -> None:
    """Trap of auto-attack's issue 81: nothing is asked where nothing is left to attack."""
    x = torch.zeros(5, 1, 4, 4, dtype=torch.float64)
    result = Square(100)(sure, x, torch.ones(5, dtype=torch.long), Ball(0.1))
    assert set(result.forward.tolist()) == {1}


@pytest.mark.parametrize("corner", [(0, 0), (0, 7), (7, 0), (7, 7)])
@pytest.mark.parametrize("p", PS)
def test_a_model_that_looks_at_a_corner_falls(corner: tuple[int, int], p: float) -> None:
    """Trap b16 from outside: only windows that reach the corner can change this model's mind.

    A step function: without scores in between, and without any gradient.
    """
    x = 0.3 + 0.4 * torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    x[:, 0, corner[0], corner[1]] = 0.5

    def stair(points: Tensor) -> Tensor:
        bright = ((points[:, 0, corner[0], corner[1]] - 0.5) * 100).floor().clamp(-5, 5)
        return torch.stack((4.5 - bright, bright), dim=1)

    labels = torch.zeros(6, dtype=torch.long)
    eps = {math.inf: 0.05, 2.0: 0.4, 1.0: 1.5}[p]
    assert bool(Square(1500)(stair, x, labels, Ball(eps, p, 0.0, 1.0)).found.all())
    blind = PGD(restarts=1, targeted=None)(stair, x, labels, Ball(eps, p, 0.0, 1.0))
    assert not bool(blind.found.any())


def test_square_comes_near_pgd_without_any_gradient() -> None:
    """On a digits net, L-inf, nine in ten of what PGD finds."""
    case, ball = digits(), Ball(0.06, lower=0.0, upper=1.0)
    pgd = PGD()(case.net, case.x, case.labels, ball)
    square = Square(300)(case.net, case.x, case.labels, ball)
    assert int(square.found.sum()) >= 0.9 * int(pgd.found.sum()) > 20


@pytest.mark.parametrize(
    "settings", [{"queries": 0}, {"restarts": 0}, {"first_share": 0.0}, {"first_share": 1.5}]
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    """When the attack is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        Square(**settings)
