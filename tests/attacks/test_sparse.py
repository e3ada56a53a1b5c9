"""Balls that count changed entries: projections against brute force."""

import itertools
import math

import pytest
import torch

from attacks import PGD, AttackInputError
from attacks.sparse import SparseBall


def test_the_projection_is_the_nearest_of_all_choices() -> None:
    """Trap b1's kind: every subset of entries tried."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(20, 5, dtype=torch.float64, generator=generator)
    x = centre + torch.randn(20, 5, dtype=torch.float64, generator=generator)
    region = SparseBall(2.0, lower=0.0, upper=1.0).around(centre)
    projected = region.project(x)
    assert bool(region.contains(projected).all())
    clipped = x.clamp(0, 1)
    for i in range(20):
        best = math.inf
        for pair in itertools.combinations(range(5), 2):
            point = centre[i].clone()
            point[list(pair)] = clipped[i, list(pair)]
            best = min(best, (point - x[i]).norm().item())
        assert (projected[i] - x[i]).norm().item() == pytest.approx(best)


def test_a_point_of_the_set_is_its_own_projection() -> None:
    """Trap b2: idempotent, to the bit."""
    centre = torch.rand(4, 6)
    x = centre.clone()
    x[:, 1] = 0.25
    region = SparseBall(1.0, lower=0.0, upper=1.0).around(centre)
    assert torch.equal(region.project(x), x)
    assert region.distance(x).tolist() == [1.0] * 4
    assert bool(region.contains(x).all())
    x[0, 2] = 0.5
    assert region.contains(x).tolist() == [False, True, True, True]


def test_counts_may_differ_per_sample_and_samples_lie_inside() -> None:
    """None, some, more than there are."""
    eps = torch.tensor([0.0, 2.9, math.inf])
    region = SparseBall(eps, lower=0.0, upper=1.0).around(torch.full((3, 4), 0.5))
    assert region.reach().tolist() == [0.0, 2.0, 4.0]
    points = region.sample(torch.arange(3))
    assert bool(region.contains(points).all())
    assert region.distance(points).tolist() == [0.0, 2.0, 4.0]
    far = region.extreme(torch.tensor([[1.0, -3.0, 0.0, 2.0]]).repeat(3, 1))
    assert region.distance(far).tolist() == [0.0, 2.0, 3.0]
    assert far[1].tolist() == [0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("wrong", [{"eps": -1.0}, {"eps": math.nan}, {"p": 2.0}])
def test_other_norms_and_negative_counts_are_refused(wrong: dict[str, float]) -> None:
    """The message points to Ball."""
    with pytest.raises(AttackInputError, match="SparseBall counts entries"):
        SparseBall(**wrong)


def test_projected_gradient_descent_walks_in_it_too() -> None:
    """PGD finds what one entry decides, and changes no more than that entry."""
    x = torch.full((2, 5), 0.5, dtype=torch.float64)

    def model(points: torch.Tensor) -> torch.Tensor:
        return torch.stack((-points[:, 3] + 0.9, points[:, 3] - 0.9), dim=1)

    labels = torch.zeros(2, dtype=torch.long)
    found = PGD()(model, x, labels, SparseBall(1.0, lower=0.0, upper=1.0))
    assert bool(found.found.all())
    assert found.distance.tolist() == [1.0, 1.0]
    assert not bool(PGD()(model, x, labels, SparseBall(1.0, lower=0.0, upper=0.8)).found.any())
