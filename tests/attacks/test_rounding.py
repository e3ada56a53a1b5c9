"""Distances round up and points round inwards: checked in exact rational arithmetic."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import Ball
from attacks.rounding import difference_up, norm_up

PS = [math.inf, 2.0, 1.0]


def exact_norm_within(x: torch.Tensor, centre: torch.Tensor, p: float, bound: float) -> bool:
    """Whether |x - centre|_p <= bound, without any rounding."""
    pairs = zip(x.flatten().tolist(), centre.flatten().tolist(), strict=True)
    delta = [abs(Fraction(a) - Fraction(b)) for a, b in pairs]
    limit = Fraction(bound)
    if p == math.inf:
        return max(delta) <= limit
    return sum(delta) <= limit if p == 1 else sum(d * d for d in delta) <= limit * limit


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_difference_up_is_the_least_double_above_the_exact_difference(a: float, b: float) -> None:
    """No smaller double is at least |a - b|, and this one is."""
    up = difference_up(torch.tensor([a]).double(), torch.tensor([b]).double()).item()
    a, b = float(torch.tensor(a).item()), float(torch.tensor(b).item())
    exact = abs(Fraction(a) - Fraction(b))
    assert Fraction(up) >= exact
    assert up == 0 or Fraction(math.nextafter(up, -math.inf)) < exact


@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10**6), exponent=st.integers(-300, 3))
@settings(max_examples=30, deadline=None)
def test_norm_up_is_never_below_the_exact_norm(p: float, seed: int, exponent: int) -> None:
    """Not even where the squares of the entries underflow."""
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(1, 50, dtype=torch.float64, generator=generator) * 10.0**exponent
    bound = norm_up(delta, p).item()
    assert exact_norm_within(delta, torch.zeros_like(delta), p, bound)
    assert bound <= torch.linalg.vector_norm(delta / 10.0**exponent, ord=p) * 10.0**exponent * (
        1 + 1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10**6), eps=st.floats(1e-7, 2.0))
@settings(max_examples=30, deadline=None)
def test_every_point_of_a_region_is_inside_in_exact_arithmetic(
    dtype: torch.dtype, p: float, seed: int, eps: float
) -> None:
    """Trap b18: clamp(x +- eps) in float32 may leave the ball by an ulp; nothing here does."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(3, 12, dtype=dtype, generator=generator)
    noise = torch.randn(3, 12, dtype=dtype, generator=generator)
    region = Ball(eps, p, 0.0, 1.0).around(centre)
    keys = torch.arange(3)
    for x in (region.project(centre + noise), region.extreme(noise), region.sample(keys)):
        assert x.dtype == dtype
        assert bool(((x >= 0) & (x <= 1)).all())
        assert bool(region.contains(x).all())
        for row in range(3):
            assert exact_norm_within(x[row], centre[row], p, eps)
            assert exact_norm_within(x[row], centre[row], p, region.distance(x)[row].item())


def test_the_check_above_can_fail() -> None:
    """Trap b18, the mutant: plain float32 clamping does leave the ball, and contains sees it."""
    centre = torch.rand(2000, 1, generator=torch.Generator().manual_seed(0))
    eps = 0.1
    clamped = torch.maximum(torch.minimum(centre + 1, centre + eps), centre - eps)
    exact = [exact_norm_within(a, b, math.inf, eps) for a, b in zip(clamped, centre, strict=True)]
    assert not all(exact)
    assert Ball(eps).contains(clamped, centre).tolist() == exact


def test_linf_uses_the_whole_ball() -> None:
    """Rounding inwards loses at most one float32 step: the next number out is outside."""
    centre = torch.rand(500, 1, generator=torch.Generator().manual_seed(1))
    ball = Ball(0.1)
    high = ball.project(centre + 1, centre)
    beyond = torch.nextafter(high, torch.full_like(high, math.inf))
    assert bool(ball.contains(high, centre).all())
    assert not bool(ball.contains(beyond, centre).any())
