"""Minimal-norm attacks where the least distance is known: linear models, and two dimensions."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from attacks import Ball
from attacks.hyperplane import least_move
from attacks.minimisers import MINIMISERS
from attacks.sparse import SparseBall
from tests.attacks.test_bisection import LABELS, X, grid_radius, net
from tests.attacks.test_linear import INPUTS, WEIGHTS, binary, exact_radius, linear

# What each reaches on linear models, relative to the exact distance, with default settings.
WITHIN = {"boundary": 1.5, "hopskipjump": 1.3, "spsa": 1.25, "ead": 1.15, "cw": 1.02, "ddn": 1.02}
cached_grid = cache(grid_radius)
CONVEX = [(name, p) for name, entry in MINIMISERS.items() for p in entry.norms if p != 0]


@pytest.mark.parametrize(("name", "p"), CONVEX)
def test_linear_models_fall_at_the_exact_distance_and_never_below(name: str, p: float) -> None:
    """(z_y - z_j) / |w_y - w_j|_q, for two classes."""
    x, labels = INPUTS, binary(INPUTS).argmax(dim=1)
    exact = exact_radius(binary(x), WEIGHTS[:2], p)
    result = MINIMISERS[name].make()(binary, x, labels, Ball(math.inf, p))
    assert bool(result.found.all())
    assert bool((result.radius >= exact * (1 - 1e-12)).all())
    assert bool((result.radius <= exact * WITHIN.get(name, 1.01)).all())


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("name", ["deepfool", "fmn", "pdpgd"])
def test_the_nearest_of_five_classes_is_found(name: str, p: float) -> None:
    """Which need not be the likeliest; FMN and PDPGD find it by aiming at several."""
    labels = linear(INPUTS).argmax(dim=1)
    exact = exact_radius(linear(INPUTS), WEIGHTS, p)
    settings = {} if name == "deepfool" else {"classes": 2}
    result = MINIMISERS[name].make(**settings)(linear, INPUTS, labels, Ball(math.inf, p))
    assert bool((result.radius >= exact * (1 - 1e-12)).all())
    assert bool((result.radius <= exact * 1.02).all())


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("name", ["deepfool", "fmn", "pdpgd"])
def test_a_range_is_taken_into_account_exactly(name: str, p: float) -> None:
    """Against the least move within the box, which has its own tests against a solver."""
    x = INPUTS.clamp(-0.9, 0.9)
    z = binary(x)
    labels = z.argmax(dim=1)
    slope = (WEIGHTS[1] - WEIGHTS[0]) * (1 - 2 * labels[:, None])
    gap = (z[:, 0] - z[:, 1]).abs()
    move = least_move(slope, gap, -1 - x, 1 - x, p)
    possible = (slope * move).sum(dim=1) >= gap * (1 - 1e-9)
    exact = torch.linalg.vector_norm(move, ord=p, dim=1)[possible]
    result = MINIMISERS[name].make()(binary, x, labels, Ball(math.inf, p, -1.0, 1.0))
    assert int(possible.sum()) >= 6
    assert bool(result.found[possible].all())
    assert not bool(result.found[~possible].any())
    assert bool((result.radius[possible] >= exact * (1 - 1e-9)).all())
    assert bool((result.radius[possible] <= exact * 1.03).all())


@pytest.mark.parametrize("name", ["deepfool", "fmn", "sigma-zero"])
def test_the_fewest_entries_of_a_linear_model_are_found(name: str) -> None:
    """Exact by greed: the entries that gain most, until the gap is closed."""
    x = INPUTS.clamp(-0.9, 0.9)
    z = binary(x)
    labels = z.argmax(dim=1)
    slope = (WEIGHTS[1] - WEIGHTS[0]) * (1 - 2 * labels[:, None])
    gain = slope.abs() * torch.where(slope > 0, 1 - x, 1 + x)
    most = gain.sort(dim=1, descending=True).values.cumsum(dim=1)
    gap = (z[:, 0] - z[:, 1]).abs()
    exact = (most <= gap[:, None]).sum(dim=1) + 1.0
    possible = exact <= 10
    result = MINIMISERS[name].make()(binary, x, labels, SparseBall(lower=-1.0, upper=1.0))
    assert torch.equal(result.found, possible)
    assert bool((result.radius >= exact)[possible].all())
    assert bool((result.radius <= exact + 1)[possible].all())
    assert (result.radius - exact)[possible].mean() <= 0.35


@pytest.mark.parametrize(("name", "p"), CONVEX)
def test_radii_in_two_dimensions_are_never_below_the_grid(name: str, p: float) -> None:
    """Nor found where the grid finds nothing; most are near it."""
    grid = cached_grid(p)
    result = MINIMISERS[name].make()(net, X, LABELS, Ball(math.inf, p, 0.0, 1.0))
    spacing = 2 / 400
    both = result.found & grid.isfinite()
    assert bool((result.radius >= grid - spacing).all())
    near = result.radius[both] <= 1.5 * grid[both] + spacing
    assert int(near.sum()) >= 0.5 * int(grid.isfinite().sum())


def solved(slope: Tensor, gap: float, low: Tensor, high: Tensor, p: float) -> float:
    """The least p-norm by a convex solver."""
    cvxpy = pytest.importorskip("cvxpy")
    v = cvxpy.Variable(len(slope))
    limits = [slope.numpy() @ v >= gap, v >= low.numpy(), v <= high.numpy()]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(v, p if p != math.inf else "inf")), limits)
    return float(problem.solve(solver="CLARABEL"))


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_the_least_move_is_the_solver_s(p: float) -> None:
    """Half of the possible gain asked for, so that some entries stop at the box."""
    generator = torch.Generator().manual_seed(3)
    slope = torch.randn(6, 8, dtype=torch.float64, generator=generator)
    low = -torch.rand(6, 8, dtype=torch.float64, generator=generator)
    high = torch.rand(6, 8, dtype=torch.float64, generator=generator)
    high[:, 2] = 0.0
    slope[:, 4] = 0.0
    most = (slope * torch.where(slope > 0, high, low)).sum(dim=1)
    gap = 0.6 * most
    move = least_move(slope, gap, low, high, p)
    assert torch.allclose((slope * move).sum(dim=1), gap)
    assert bool(((move >= low) & (move <= high)).all())
    for i in range(6):
        best = solved(slope[i], gap[i].item(), low[i], high[i], p)
        assert torch.linalg.vector_norm(move[i], ord=p).item() == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0, 0.0])
def test_the_least_move_has_sane_ends(p: float) -> None:
    """Nothing to gain, no slope, no room to gain enough, and no box at all."""
    slope = torch.tensor([[1.0, -2.0, 0.0]], dtype=torch.float64).repeat(4, 1)
    slope[1] = 0.0
    low, high = -torch.ones(4, 3).double(), torch.ones(4, 3).double()
    low[3], high[3] = -math.inf, math.inf
    gap = torch.tensor([0.0, 1.0, 9.0, 1.0], dtype=torch.float64)
    move = least_move(slope, gap, low, high, p)
    assert move[0].tolist() == [0.0] * 3
    assert move[1].tolist() == [0.0] * 3
    assert move[2].tolist() == [1.0, -1.0, 0.0]
    assert bool(move.isfinite().all())
    assert (slope[3] * move[3]).sum().item() == pytest.approx(1.0)
