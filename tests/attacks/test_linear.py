"""Linear classifiers, where the least distance to the boundary is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from attacks import ATTACKS, Ball, attack_named, minimal_radius
from tests.attacks.enrolled import quick, thorough

PS = [math.inf, 2.0, 1.0]
DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}
WEIGHTS = torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
BIAS = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
INPUTS = torch.randn(12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHTS.T + BIAS


def binary(x: Tensor) -> Tensor:
    return linear(x)[:, :2]


def exact_radius(logits: Tensor, weights: Tensor, p: float) -> Tensor:
    """min over classes j of (z_y - z_j) / |w_y - w_j|_q."""
    labels = logits.argmax(dim=1)
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = torch.linalg.vector_norm(weights[labels][:, None] - weights, ord=DUAL[p], dim=2)
    ratios = torch.where(slopes > 0, gaps / torch.where(slopes > 0, slopes, 1.0), math.inf)
    return ratios.amin(dim=1)


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("name", ATTACKS)
def test_two_classes_fall_just_above_the_exact_radius_and_not_below(name: str, p: float) -> None:
    """At 1.05 times the radius every attack finds all samples, at 0.999 none."""
    labels = binary(INPUTS).argmax(dim=1)
    exact = exact_radius(binary(INPUTS), WEIGHTS[:2], p)
    attack = thorough(name)
    assert bool(attack(binary, INPUTS, labels, Ball(1.05 * exact, p)).found.all())
    # Here every sample costs the whole budget, and no budget may find any.
    below = quick(name)(binary, INPUTS, labels, Ball(0.999 * exact, p))
    assert not bool(below.found.any())


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pgd_finds_the_nearest_of_five_classes(p: float, dtype: torch.dtype) -> None:
    """The nearest class need not be the one of least margin; aiming at each finds it."""
    exact = exact_radius(linear(INPUTS), WEIGHTS, p)
    labels = linear(INPUTS).argmax(dim=1)

    def model(x: Tensor) -> Tensor:
        return linear(x.double()).to(dtype)

    pgd, x = attack_named("pgd"), INPUTS.to(dtype)
    assert bool(pgd(model, x, labels, Ball(1.01 * exact, p)).found.all())
    assert not bool(pgd(model, x, labels, Ball(0.999 * exact, p)).found.any())


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("largest", [math.inf, 50.0])
def test_minimal_radius_is_within_one_percent_and_never_below(p: float, largest: float) -> None:
    """Without any bound to start from, and with one."""
    exact = exact_radius(linear(INPUTS), WEIGHTS, p)
    labels = linear(INPUTS).argmax(dim=1)
    result = minimal_radius(linear, INPUTS, labels, Ball(largest, p))
    assert bool(result.found.all())
    assert bool((result.radius >= exact * (1 - 1e-12)).all())
    assert bool((result.radius <= exact * 1.01).all())


@pytest.mark.parametrize("p", PS)
def test_fgsm_is_exact_under_a_range_too(p: float) -> None:
    """With coordinates stopped by the range, against the linear maximum over a fine search.

    The least eps at which min_v over ball and box of the margin is negative, by bisection on the
    closed form of the box-cut maximum: greedy for L1, water-filling by a grid of scales for L2.
    """
    centre = torch.full((1, 10), 0.9, dtype=torch.float64)
    direction = WEIGHTS[0] - WEIGHTS[1]
    room = torch.where(direction < 0, 0.1, 0.9).double()
    scales = torch.linspace(0, 50, 500001, dtype=torch.float64)[:, None]

    def best_drop(eps: float) -> float:
        """The largest fall of (w_0 - w_1) . x within eps and [0, 1]."""
        if p == math.inf:
            return (direction.abs() * room.clamp(max=eps)).sum().item()
        if p == 2:
            moves = torch.minimum(scales * direction.abs(), room)
            inside = moves.square().sum(dim=1) <= eps * eps
            return (moves[inside] @ direction.abs()).max().item()
        left, drop = eps, 0.0
        for i in direction.abs().argsort(descending=True).tolist():
            move = min(left, room[i].item())
            drop, left = drop + move * abs(direction[i].item()), left - move
        return drop

    eps = {math.inf: 0.3, 2.0: 0.8, 1.0: 1.5}[p]
    for share, expected in ((0.999, True), (1.001, False)):
        offset = share * best_drop(eps) - (centre @ direction).item()

        def model(x: Tensor, offset: float = offset) -> Tensor:
            score = x @ direction + offset
            return torch.stack((score, torch.zeros_like(score)), dim=1)

        found = attack_named("fgsm")(model, centre, torch.tensor([0]), Ball(eps, p, 0.0, 1.0)).found
        assert bool(found) == expected
