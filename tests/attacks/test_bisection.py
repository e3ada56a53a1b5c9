"""minimal_radius: always a true upper bound, and near the truth where the truth is known."""

import math

import pytest
import torch
from torch import Tensor

from attacks import FGSM, AttackInputError, Ball, minimal_radius

PS = [math.inf, 2.0, 1.0]
X = torch.rand(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
INNER = torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BIAS = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
OUTER = torch.randn(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def net(x: Tensor) -> Tensor:
    hidden = (3 * (x[:, None, :] * INNER).sum(dim=2) + BIAS).relu()
    return (hidden[:, None, :] * OUTER).sum(dim=2)


LABELS = net(X).argmax(dim=1)


def grid_radius(p: float, resolution: int = 401) -> Tensor:
    """Brute force in two dimensions: the nearest grid point of [0, 1]^2 with another class."""
    axis = torch.linspace(0, 1, resolution, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    classes = net(points).argmax(dim=1)
    distances = torch.cdist(X, points, p=p)
    distances[classes[None] == LABELS[:, None]] = math.inf
    return distances.amin(dim=1)


@pytest.mark.parametrize("p", PS)
def test_radii_agree_with_brute_force_in_two_dimensions(p: float) -> None:
    """Found where the grid finds; no further than the grid's point by more than 1 %."""
    grid = grid_radius(p)
    result = minimal_radius(net, X, LABELS, Ball(math.inf, p, 0.0, 1.0))
    assert torch.equal(result.found, grid.isfinite())
    spacing = 2 / 400  # the grid misses the boundary by up to its spacing in each direction
    assert bool((result.radius[result.found] <= 1.01 * grid[result.found] + 1e-9).all())
    assert bool((result.radius[result.found] >= grid[result.found] - spacing).all())


@pytest.mark.parametrize("p", PS)
def test_the_radius_is_the_distance_of_the_candidate(p: float) -> None:
    """And the candidate is misclassified and in range: nothing is claimed that is not held."""
    ball = Ball(math.inf, p, 0.0, 1.0)
    result = minimal_radius(net, X, LABELS, ball)
    found = result.found
    assert int(found.sum()) > 3
    assert torch.equal(result.radius[found], ball.distance(result.candidate, X)[found])
    assert bool((net(result.candidate).argmax(dim=1) != LABELS)[found].all())
    assert bool(ball.contains(result.candidate, X).all())
    assert bool(result.radius[~found].isinf().all())
    assert torch.equal(result.candidate[~found], X[~found])


def test_nothing_is_reported_beyond_the_largest_radius() -> None:
    """A ball's eps bounds the search, per sample."""
    full = minimal_radius(net, X, LABELS, Ball(math.inf, 2.0, 0.0, 1.0)).radius
    finite = full.isfinite()
    below = minimal_radius(net, X, LABELS, Ball(full.clamp(max=9.0) * 0.9, 2.0, 0.0, 1.0))
    assert bool((below.radius[finite & below.found] <= 0.9 * full[finite & below.found]).all())
    above = minimal_radius(net, X, LABELS, Ball(full.clamp(max=9.0) * 1.1, 2.0, 0.0, 1.0))
    assert torch.equal(above.found, finite)


def test_misclassified_inputs_have_radius_zero() -> None:
    """The input itself is the witness."""
    result = minimal_radius(net, X, (LABELS + 1) % 3, Ball(1.0))
    assert result.radius.tolist() == [0.0] * 10
    assert torch.equal(result.candidate, X)


def test_eps_zero_and_constant_models_give_no_radius() -> None:
    """Nothing to find is a result: inf."""
    assert bool(minimal_radius(net, X, LABELS, Ball(0.0)).radius.isinf().all())
    constant = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    zeros = torch.zeros(10, dtype=torch.long)
    for ball in (Ball(math.inf), Ball(math.inf, 2.0, 0.0, 1.0)):
        result = minimal_radius(lambda x: constant.expand(len(x), -1), X, zeros, ball, steps=3)
        assert bool(result.radius.isinf().all())


def test_the_judge_has_the_last_word() -> None:
    """A judge that wants a margin of 0.05 gets it; one that never agrees gets nothing."""
    ball = Ball(math.inf, 2.0, 0.0, 1.0)

    def strict(points: Tensor, rows: Tensor) -> Tensor:
        z = net(points)
        return z.amax(dim=1) - z.gather(1, LABELS[rows][:, None]).squeeze(1) > 0.05

    free = minimal_radius(net, X, LABELS, ball)
    judged = minimal_radius(net, X, LABELS, ball, judge=strict)
    held = judged.found
    assert int(held.sum()) > 3
    assert bool((judged.margin[held] < -0.05).all())
    assert bool((judged.radius >= free.radius).all())
    refused = minimal_radius(net, X, LABELS, ball, judge=lambda points, rows: rows < 0)
    assert not bool(refused.found.any())


def test_radii_do_not_depend_on_batch_order_or_size() -> None:
    """Each sample's search is its own."""
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    whole = minimal_radius(net, X, LABELS, ball)
    for i in range(0, 10, 3):
        alone = minimal_radius(net, X[i : i + 1], LABELS[i : i + 1], ball)
        assert alone.radius[0] == whole.radius[i]
        assert alone.forward[0] == whole.forward[i]


def test_any_attack_can_search_and_queries_are_counted() -> None:
    """FGSM too; the sum of what is reported is what the model saw."""
    seen = []

    def counting(x: Tensor) -> Tensor:
        seen.append(len(x))
        return net(x)

    result = minimal_radius(counting, X, LABELS, Ball(math.inf, 2.0, 0.0, 1.0), attack=FGSM())
    assert int(result.forward.sum()) == sum(seen)
    assert int(result.found.sum()) > 3


def test_targets_restrict_the_search() -> None:
    """The nearest point of one given class is no nearer than that of any."""
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    targets = (LABELS + 1) % 3
    aimed = minimal_radius(net, X, LABELS, ball, targets=targets)
    free = minimal_radius(net, X, LABELS, ball)
    assert int(aimed.found.sum()) > 0
    assert bool((net(aimed.candidate).argmax(dim=1) == targets)[aimed.found].all())
    assert bool((aimed.radius >= 0.99 * free.radius).all())


@pytest.mark.parametrize("settings", [{"steps": 0}, {"tolerance": 0.0}, {"tolerance": math.nan}])
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    """Before anything is computed."""
    with pytest.raises(AttackInputError, match="minimal_radius got"):
        minimal_radius(net, X, LABELS, Ball(1.0), **settings)
