"""Proximal steps against brute force, and the settings that depend on them."""

import math

import pytest
import torch

from attacks import Ball
from attacks.ddn import DDN
from attacks.ead import EAD
from attacks.fmn import FMN
from attacks.proximal import proximal, shrink
from tests.attacks.test_bisection import LABELS, X, net


def test_box_aware_shrinkage_is_the_exact_minimiser() -> None:
    """t |v| + (v - d)^2 / 2 over an interval, on a grid of a millionth."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(1, 30, dtype=torch.float64, generator=generator)
    low = -torch.rand(1, 30, dtype=torch.float64, generator=generator)
    high = torch.rand(1, 30, dtype=torch.float64, generator=generator)
    found = shrink(delta, torch.tensor([0.3]).double(), low, high)
    grid = torch.linspace(0, 1, 100001, dtype=torch.float64)[:, None]
    v = low + grid * (high - low)
    best = v.gather(0, (0.3 * v.abs() + (v - delta).square() / 2).argmin(dim=0, keepdim=True))
    assert torch.allclose(found, best, atol=2e-5)


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_proximal_steps_are_the_solver_s(p: float) -> None:
    """t |v|_p + |v - d|^2 / 2 in eight dimensions, without a box."""
    cvxpy = pytest.importorskip("cvxpy")
    delta = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wide = torch.full_like(delta, math.inf)
    found = proximal(delta, torch.tensor([0.2, 0.9, 3.0]).double(), -wide, wide, p)
    for row, threshold in enumerate((0.2, 0.9, 3.0)):
        v = cvxpy.Variable(8)
        norm = cvxpy.norm(v, p if p != math.inf else "inf")
        target = threshold * norm + cvxpy.sum_squares(v - delta[row].numpy()) / 2
        cvxpy.Problem(cvxpy.Minimize(target)).solve(solver="CLARABEL")
        assert torch.allclose(found[row], torch.tensor(v.value), atol=1e-5)


def test_ddn_does_not_quantise() -> None:
    """Trap b6: at radii far below a grey level it still finds the boundary."""
    tiny = 1e-5

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return net((x - X) / tiny + X) if len(x) == len(X) else net(x)

    plain = DDN()(net, X, LABELS, Ball(math.inf, 2.0))
    small = DDN()(scaled, X, LABELS, Ball(math.inf, 2.0))
    both = plain.found & small.found
    assert int(both.sum()) >= 5
    assert bool((small.radius[both] < 1e-4 * plain.radius[both]).all())


def test_fmn_does_not_depend_on_the_unit_of_the_inputs() -> None:
    """Inputs a thousand times larger have radii a thousand times larger."""
    for p in (math.inf, 2.0, 1.0):
        plain = FMN()(net, X, LABELS, Ball(math.inf, p, 0.0, 1.0))
        large = FMN()(lambda x: net(x / 1024), X * 1024, LABELS, Ball(math.inf, p, 0.0, 1024.0))
        assert torch.allclose(large.radius, 1024 * plain.radius, rtol=1e-3)


def test_ead_thresholds_by_step_times_beta() -> None:
    """A tiny step size must not zero every entry, as a threshold of beta itself would."""
    result = EAD(step_size=0.02, rounds=5)(net, X, LABELS, Ball(math.inf, 1.0, 0.0, 1.0))
    assert int(result.found.sum()) >= 5
