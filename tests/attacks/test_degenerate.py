"""Degenerate input to every attack and every minimiser in each of its norms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attacks import ATTACKS, MINIMISERS, AttackInputError, Ball, SparseBall, portfolio_radius
from attacks.result import AttackResult, RadiusResult
from tests.attacks.enrolled import quick
from tests.attacks.test_minimisers import FEWER

Result = AttackResult | RadiusResult
Search = Callable[..., Result]
WEIGHTS = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]], dtype=torch.float64)


def enrolled() -> dict[str, tuple[Search, float]]:
    """Every way of attacking, by name and norm, with few queries."""
    ways: dict[str, tuple[Search, float]] = {}
    for name in ATTACKS:
        for p in (math.inf, 2.0, 1.0):
            ways[f"{name}-{p:g}"] = (quick(name), p)
    for name, entry in MINIMISERS.items():
        for p in entry.norms:
            ways[f"{name}-{p:g}"] = (entry.make(**FEWER.get(name, {})), p)
    for p in (math.inf, 2.0, 1.0, 0.0):

        def portfolio(*given: object, **named: object) -> Result:
            return portfolio_radius(*given, effort="quick", steps=1, **named)  # type: ignore[arg-type]

        ways[f"portfolio-{p:g}"] = (portfolio, p)
    return ways


WAYS = enrolled()
EVERY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
Way = tuple[Search, float]


def two_classes(x: Tensor) -> Tensor:
    """Affine, two classes; misclassified from (0.8, 0.2, 0.5) at about 0.3 in L-inf."""
    return x.flatten(1) @ WEIGHTS.to(x.dtype).T


def one(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([[0.8, 0.2, 0.5]], dtype=dtype)


def attack(way: Way, model: Callable[[Tensor], Tensor], x: Tensor, eps: float = 0.6) -> Result:
    search, p = way
    eps = {2.0: 1.2 * eps, 1.0: 2 * eps, 0.0: math.inf if eps else 0.0}.get(p, eps)
    ball = SparseBall(eps, 0.0, 0.0, 1.0) if p == 0 else Ball(eps, p, 0.0, 1.0)
    return search(model, x, torch.zeros(len(x), dtype=torch.long), ball)


@EVERY
def test_an_empty_batch_is_answered_with_an_empty_result(way: Way) -> None:
    result = attack(way, two_classes, one()[:0])
    assert result.found.shape == (0,)
    assert result.candidate.shape == (0, 3)


@EVERY
def test_one_sample_of_a_two_class_model(way: Way) -> None:
    """Trap b17; what is found is misclassified."""
    result = attack(way, two_classes, one())
    assert bool(result.found) == bool(two_classes(result.candidate).argmax(dim=1) == 1)


@EVERY
def test_eps_zero_finds_nothing_and_stays(way: Way) -> None:
    result = attack(way, two_classes, one(), eps=0.0)
    assert not bool(result.found)
    assert torch.equal(result.candidate, one())


@EVERY
def test_nan_infinity_and_integers_are_refused(way: Way) -> None:
    """In one line; integers too, because no gradient and no fraction of a grey level exists."""
    for bad in (math.nan, math.inf):
        x = one().repeat(3, 1)
        x[1, 2] = bad
        with pytest.raises(AttackInputError, match="sample 1 holds NaN or infinity"):
            attack(way, two_classes, x)
    with pytest.raises(AttackInputError, match="float32 or float64"):
        attack(way, two_classes, torch.zeros(2, 3, dtype=torch.uint8))


@EVERY
def test_one_axis_is_refused(way: Way) -> None:
    """Is it a batch of numbers or a sample? The caller must say."""
    with pytest.raises(AttackInputError, match="batch axis"):
        attack(way, two_classes, torch.zeros(3))


@EVERY
def test_nan_logits_find_nothing(way: Way) -> None:
    result = attack(way, lambda x: two_classes(x) * math.nan, one())
    assert not bool(result.found)
    assert bool(result.candidate.isfinite().all())


@EVERY
def test_logits_of_float64_for_inputs_of_float32(way: Way) -> None:
    """The candidate keeps the input's dtype."""
    result = attack(way, lambda x: two_classes(x.double()), one(torch.float32))
    assert result.candidate.dtype == torch.float32


@EVERY
def test_views_and_leaves_of_a_graph_are_like_any_input(way: Way) -> None:
    """A transposed view, and an input that requires its gradient: the same result, no side effect.

    Batches of one sample each, so that no summation order differs.
    """
    plain = attack(way, two_classes, one())
    wide = torch.stack((one()[0], one()[0]), dim=1).T[::2]
    assert torch.equal(attack(way, two_classes, wide).candidate, plain.candidate)
    leaf = one().requires_grad_()
    result = attack(way, two_classes, leaf)
    assert torch.equal(result.candidate, plain.candidate)
    assert not result.candidate.requires_grad
    assert leaf.grad is None
    assert torch.equal(leaf.detach(), one())
