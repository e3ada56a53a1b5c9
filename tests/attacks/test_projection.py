"""Projection and linear maximisation over a ball cut by a box, against a convex solver."""

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attacks import Ball

PS = [math.inf, 2.0, 1.0]
SOLVER = 1e-6  # what the interior-point solver may leave of its objective


def scene(seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """A centre in [0, 1], often at its ends, and a point outside."""
    generator = torch.Generator().manual_seed(seed)
    centre = (1.6 * torch.rand(1, size, dtype=torch.float64, generator=generator) - 0.3).clamp(0, 1)
    return centre, centre + torch.randn(1, size, dtype=torch.float64, generator=generator)


def solve(centre: Tensor, x: Tensor, p: float, eps: float, *, linear: bool) -> np.ndarray:
    """The solver's projection of x, or its maximiser of x . v, over ball and box [0, 1]."""
    v = cp.Variable(centre.shape[1])
    middle, point = centre[0].numpy(), x[0].numpy()
    norm = "inf" if p == math.inf else int(p)
    goal = cp.Maximize(point @ v) if linear else cp.Minimize(cp.sum_squares(v - point))
    cp.Problem(goal, [cp.norm(v - middle, norm) <= eps, v >= 0, v <= 1]).solve(solver=cp.CLARABEL)
    return v.value


def gap(v: np.ndarray, x: Tensor) -> float:
    """What a projection minimises: the squared Euclidean distance."""
    return float(np.square(v - x[0].numpy()).sum())


@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.01, 2.0))
@settings(max_examples=25, deadline=None)
def test_projection_is_the_nearest_point_of_ball_and_box(p: float, seed: int, eps: float) -> None:
    """Traps b1 and b15: neither a no-op nor a rescaling; inside, and as near as the solver's."""
    centre, x = scene(seed)
    ball = Ball(eps, p, 0.0, 1.0)
    ours = ball.project(x, centre)
    assert bool(ball.contains(ours, centre))
    assert gap(ours[0].numpy(), x) <= gap(solve(centre, x, p, eps, linear=False), x) + SOLVER


@pytest.mark.parametrize("p", [2.0, 1.0])
def test_the_check_above_can_fail(p: float) -> None:
    """Rescaling to the sphere and clipping is not the projection, and the solver shows it."""
    centre, x = scene(3)
    delta = (x - centre).clamp(-centre, 1 - centre)
    radial = centre + delta * min(1.0, 0.5 / torch.linalg.vector_norm(delta, ord=p).item())
    assert bool(Ball(0.5 + 1e-9, p, 0.0, 1.0).contains(radial, centre))
    best = gap(solve(centre, x, p, 0.5, linear=False), x)
    assert gap(radial[0].numpy(), x) > best + 1000 * SOLVER


@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.01, 2.0))
@settings(max_examples=25, deadline=None)
def test_extreme_reaches_the_solver_s_maximum(p: float, seed: int, eps: float) -> None:
    """gradient . v is as large as anywhere in ball and box."""
    centre, x = scene(seed)
    gradient = x - centre
    ours = Ball(eps, p, 0.0, 1.0).around(centre).extreme(gradient)[0].numpy()
    theirs = solve(centre, gradient, p, eps, linear=True)
    assert gradient[0].numpy() @ ours >= gradient[0].numpy() @ theirs - SOLVER


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10**6), eps=st.floats(1e-3, 20.0))
@settings(max_examples=25, deadline=None)
def test_projection_leaves_inner_points_alone_and_repeats_itself(
    dtype: torch.dtype, p: float, seed: int, eps: float
) -> None:
    """Trap b2: a point inside is not pulled onto the sphere; projecting twice changes nothing."""
    centre, x = (tensor.to(dtype) for tensor in scene(seed, size=20))
    region = Ball(eps, p, 0.0, 1.0).around(centre)
    once = region.project(x)
    assert torch.equal(region.project(once), once)
    inner = centre + 0.5 * (once - centre)
    assert torch.equal(region.project(inner), inner)


@pytest.mark.parametrize("p", PS)
def test_projection_is_per_sample(p: float) -> None:
    """Each row has its own eps, and is what it would be alone."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(5, 3, 4, dtype=torch.float64, generator=generator)
    x = centre + torch.randn(5, 3, 4, dtype=torch.float64, generator=generator)
    eps = torch.tensor([0.0, 0.1, 0.5, 2.0, math.inf], dtype=torch.float64)
    together = Ball(eps, p, 0.0, 1.0).project(x, centre)
    alone = [
        Ball(eps[i].item(), p, 0.0, 1.0).project(x[i : i + 1], centre[i : i + 1]) for i in range(5)
    ]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-14)
    assert torch.equal(together[0], centre[0])
    assert torch.equal(together[4], x[4].clamp(0, 1))
