"""Projected steps in one go are those of the region, step and projection apart."""

import math

import pytest
import torch

from attacks import Ball
from attacks.sparse import SparseBall
from attacks.stepping import Stepper


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0, 0.0])
def test_a_step_is_the_regions_own(p):
    """Near the ends of the range, with entries of slope 0 and NaN, with and without a push."""
    torch.manual_seed(0)
    x = torch.rand(6, 9)
    ball = SparseBall(3.0, 0.0, 0.0, 1.0) if p == 0 else Ball(0.3, p, 0.0, 1.0)
    region = ball.around(x)
    stepper = Stepper.within(region)
    at = region.sample(torch.arange(6))
    slope = torch.randn(6, 9)
    slope[:, 2], slope[:, 5] = 0.0, math.nan
    size = torch.rand(6, dtype=torch.float64)
    push = 0.1 * torch.randn(6, 9)
    apart = region.project(region.step(at, -slope, size, 0.5) + push)
    assert torch.allclose(stepper.descend(at, slope, size, 0.5, push), apart, atol=1e-6)
    fixed = region.project(region.step(at, -slope, torch.full_like(size, 0.4), 0.5))
    assert torch.allclose(stepper.descend(at, slope, 0.4, 0.5), fixed, atol=1e-6)
    chosen = torch.tensor([1, 4])
    part = stepper.rows(chosen).descend(at[chosen], slope[chosen], 0.4, 0.5)
    assert torch.equal(part, stepper.descend(at, slope, 0.4, 0.5)[chosen])
    assert region.contains(stepper.settle(at + push)).all()
