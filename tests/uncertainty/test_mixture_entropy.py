"""Differential entropy of Gaussian mixtures: limits with closed forms, and scipy's quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from uncertainty.errors import UncertaintyInputError
from uncertainty.measures import gaussian_entropy
from uncertainty.mixture_entropy import (
    gaussian_mixture_decomposition,
    mixture_entropy,
    mixture_entropy_bounds,
)


def test_one_member_is_a_gaussian_of_any_scale_and_place() -> None:
    """Closed form, with sigma from 1e-6 to 1e6 and means far from zero, within the stated error."""
    sigma = np.array([[1e-6, 1e-3, 1.0, 1e6, 1.0]])
    mu = np.array([[0.0, 1.0, -5.0, 1e6, 1e4]])
    found = mixture_entropy(mu, sigma**2)
    gap = np.abs(found.value - gaussian_entropy(sigma[0] ** 2))
    assert (gap <= found.error).all()
    assert (found.error < 1e-9).all()


def test_members_that_are_alike_or_far_apart() -> None:
    """Alike: one Gaussian. A thousand sigma apart: log I more."""
    same = mixture_entropy(np.zeros((5, 1)), np.ones((5, 1)))
    apart = mixture_entropy(1000.0 * np.arange(5)[:, None], np.ones((5, 1)))
    single = gaussian_entropy(1.0)
    assert abs(same.value[0] - single) <= same.error[0]
    assert abs(apart.value[0] - single - math.log(5)) <= apart.error[0]


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_scipys_adaptive_quadrature(seed: int) -> None:
    """An independent integrator, cut at the same places as it cannot find narrow peaks itself."""
    rng = np.random.default_rng(seed)
    mu, sigma = rng.normal(0, 3, 4), 10 ** rng.uniform(-2, 1, 4)
    w = rng.dirichlet(np.ones(4))

    def minus_p_log_p(x: float) -> float:
        p = float(w @ norm.pdf(x, mu, sigma))
        return -p * math.log(p) if p > 0 else 0.0

    cuts = np.unique(np.add.outer([-12, -6, -3, 0, 3, 6, 12] * sigma[:, None], mu).ravel())
    cuts = cuts[(cuts >= (mu - 12 * sigma).min()) & (cuts <= (mu + 12 * sigma).max())]
    exact = sum(
        quad(minus_p_log_p, a, b, epsabs=1e-13, epsrel=1e-12)[0]
        for a, b in zip(cuts[:-1], cuts[1:], strict=True)
    )
    found = mixture_entropy(mu[:, None], sigma[:, None] ** 2, w)
    assert found.value[0] == pytest.approx(exact, abs=1e-9)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_value_lies_between_its_closed_form_bounds(seed: int, count: int) -> None:
    """Pairwise distances bound the entropy on both sides."""
    rng = np.random.default_rng(seed)
    mu, var = rng.normal(0, 2, (count, 3)), 10 ** rng.uniform(-3, 2, (count, 3))
    found = mixture_entropy(mu, var)
    low, high = mixture_entropy_bounds(mu, var)
    assert (low <= found.value + found.error).all()
    assert (found.value - found.error <= high).all()


def test_the_epistemic_part_runs_from_nothing_to_the_logarithm_of_the_members() -> None:
    """And a change of unit moves total and aleatoric alike, the epistemic part not at all."""
    mu, var = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 500.0]]), np.ones((2, 3))
    found = gaussian_mixture_decomposition(mu, var)
    assert found.epistemic[0] == pytest.approx(0, abs=1e-12)
    assert 0 < found.epistemic[1] < math.log(2)
    assert found.epistemic[2] == pytest.approx(math.log(2))
    other = gaussian_mixture_decomposition(1e3 * mu, 1e6 * var)
    np.testing.assert_allclose(other.epistemic, found.epistemic, atol=1e-10)
    np.testing.assert_allclose(other.total - found.total, math.log(1e3), atol=1e-10)


def test_a_member_of_weight_zero_is_none() -> None:
    """Its logarithm must not spoil the others."""
    found = mixture_entropy([[0.0], [9.0]], [[1.0], [2.0]], [1.0, 0.0])
    assert found.value[0] == pytest.approx(float(gaussian_entropy(1.0)))


def test_no_inputs_and_bad_arguments() -> None:
    """Empty in, empty out; what is no mixture is refused."""
    assert mixture_entropy(np.zeros((2, 0)), np.ones((2, 0))).value.shape == (0,)
    for means, variances, weights, complaint in (
        ([0.0], [1.0], None, "members, inputs"),
        ([[0.0]], [[0.0]], None, "> 0"),
        ([[0.0]], [[1.0]], [0.5], "sum 1"),
        ([[0.0]], [[1.0]], [[1.0]], "sum"),
    ):
        with pytest.raises(UncertaintyInputError, match=complaint):
            mixture_entropy(means, variances, weights)
