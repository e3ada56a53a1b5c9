"""Outward rounding: the elementary functions against multi-precision arithmetic."""

from __future__ import annotations

import mpmath
import pytest
import torch

from verify.confidence import directed

mpmath.mp.prec = 200


def arguments(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    wide = 700 * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)
    near = torch.randn(count, generator=generator, dtype=torch.float64)
    return torch.cat((wide, near, torch.tensor([0.0, -745.0, -1e-300, 1e-17])))


def test_exp_is_enclosed() -> None:
    """Over the whole range of exponents, results that underflow included."""
    x = arguments()
    low, high = directed.exp_down(x), directed.exp_up(x)
    for at, below, above in zip(x.tolist(), low.tolist(), high.tolist(), strict=True):
        assert mpmath.mpf(below) <= mpmath.exp(at) <= mpmath.mpf(above)


def test_log_is_enclosed() -> None:
    """Near 1, where the logarithm cancels, as far from it."""
    x = torch.cat((arguments().abs() + 1e-300, 1 + 1e-12 * arguments()))
    low, high = directed.log_down(x), directed.log_up(x)
    for at, below, above in zip(x.tolist(), low.tolist(), high.tolist(), strict=True):
        assert mpmath.mpf(below) <= mpmath.log(at) <= mpmath.mpf(above)


def test_the_charge_is_not_idle() -> None:
    """Rounded to nearest, exp is on the wrong side of the truth for many arguments."""
    x = arguments()
    wrong = [
        mpmath.exp(at) > mpmath.mpf(e) for at, e in zip(x.tolist(), x.exp().tolist(), strict=True)
    ]
    assert sum(wrong) > 1000


@pytest.mark.parametrize("size", [1, 2, 50])
def test_sums_and_logsumexp_are_enclosed(size: int) -> None:
    """Of terms that differ by hundreds of orders of magnitude."""
    x = arguments(1000)[: 20 * size].view(20, size)
    for row, low, high, least, most in zip(
        x.tolist(),
        directed.logsumexp_down(x, 1).tolist(),
        directed.logsumexp_up(x, 1).tolist(),
        directed.sum_down(x, 1).tolist(),
        directed.sum_up(x, 1).tolist(),
        strict=True,
    ):
        truth = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in row))
        assert mpmath.mpf(low) <= truth <= mpmath.mpf(high)
        assert mpmath.mpf(least) <= mpmath.fsum(row) <= mpmath.mpf(most)


def test_entropy_terms_are_enclosed() -> None:
    """At 0 and 1, where they vanish, and between."""
    p = torch.cat((torch.tensor([0.0, 1.0, 1e-300]).double(), torch.linspace(0, 1, 999).double()))
    low, high = directed.entropy_term_down(p), directed.entropy_term_up(p)
    for at, below, above in zip(p.tolist(), low.tolist(), high.tolist(), strict=True):
        truth = -mpmath.mpf(at) * mpmath.log(at) if at else mpmath.mpf(0)
        assert mpmath.mpf(below) <= truth <= mpmath.mpf(above)


def test_unknown_stays_unknown() -> None:
    """An infinite entry makes the upper bound infinite, and costs the lower one nothing."""
    x = torch.tensor([[0.0, torch.inf], [0.0, -torch.inf]], dtype=torch.float64)
    assert directed.logsumexp_up(x, 1)[0] == torch.inf
    assert abs(directed.logsumexp_down(x, 1)[1]) < 1e-12
    assert abs(directed.logsumexp_up(x, 1)[1]) < 1e-12
