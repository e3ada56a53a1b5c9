"""Mixtures: moments, densities and quantiles against formulas and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from uncertainty.errors import UncertaintyInputError
from uncertainty.heads import LOG_VARIANCE_RANGE, GaussianHead, gaussian_nll
from uncertainty.predictions import CategoricalMixture, GaussianMixture

MIXTURE = GaussianMixture(
    np.array([[-2.0, 0.0, 5.0], [3.0, 0.0, 5.1], [3.5, 0.1, -40.0]]),
    np.array([[0.5, 1.0, 1e-4], [2.0, 1.0, 9.0], [0.1, 4.0, 1.0]]),
)


def test_moments_are_those_of_the_density() -> None:
    """Mean and variance by quadrature over exp(log_prob)."""
    one = GaussianMixture(MIXTURE.means[:, :1], MIXTURE.variances[:, :1])
    density = lambda y: float(np.exp(one.log_prob(np.array([y])))[0])  # noqa: E731
    moment = lambda k: quad(lambda y: y**k * density(y), -15, 20, limit=400)[0]  # noqa: E731
    assert moment(0) == pytest.approx(1, abs=1e-9)
    assert one.mean[0] == pytest.approx(moment(1), abs=1e-8)
    assert one.variance[0] == pytest.approx(moment(2) - moment(1) ** 2, abs=1e-7)
    assert one.variance == pytest.approx(one.aleatoric + one.epistemic)


def test_one_member_is_a_normal_distribution() -> None:
    """Density, cdf and quantile equal scipy's; there is no epistemic part."""
    one = GaussianMixture(np.array([[1.0, -3.0]]), np.array([[4.0, 0.25]]))
    normal = norm([1.0, -3.0], [2.0, 0.5])
    y = np.array([0.3, -2.0])
    assert np.allclose(one.log_prob(y), normal.logpdf(y), rtol=1e-13)
    assert np.allclose(one.moment_matched_log_prob(y), normal.logpdf(y), rtol=1e-13)
    assert np.allclose(one.cdf(y), normal.cdf(y), rtol=1e-13)
    assert np.allclose(one.quantile(0.975), normal.ppf(0.975), rtol=1e-12)
    assert (one.epistemic == 0).all()


@given(st.floats(1e-9, 1 - 1e-9))
def test_the_quantile_inverts_the_cdf(level: float) -> None:
    """Also in the tails, and where components lie far apart."""
    at = MIXTURE.quantile(level)
    assert np.allclose(MIXTURE.cdf(at), level, rtol=1e-6, atol=1e-12)


def test_the_mixtures_density_is_not_the_moment_matched_normals() -> None:
    """Between two far components there is next to nothing; the one normal is highest there."""
    two = GaussianMixture(np.array([[-10.0], [10.0]]), np.array([[1.0], [1.0]]))
    assert two.log_prob(np.array([0.0]))[0] == pytest.approx(norm.logpdf(10.0), abs=1e-12)
    assert two.moment_matched_log_prob(np.array([0.0]))[0] == pytest.approx(
        norm.logpdf(0, scale=math.sqrt(101))
    )


def test_samples_have_the_mixtures_moments() -> None:
    """Within five standard errors."""
    drawn = MIXTURE.sample(20_000, seed=1)
    error = np.sqrt(MIXTURE.variance / 20_000)
    assert (np.abs(drawn.mean(axis=0) - MIXTURE.mean) < 5 * error).all()
    assert np.array_equal(drawn, MIXTURE.sample(20_000, seed=1))


def test_scaling_a_mixture_scales_its_target() -> None:
    """The log density falls by log(scale): units matter."""
    scaled = MIXTURE.scaled(10.0, 3.0)
    y = np.array([0.0, 1.0, 2.0])
    assert np.allclose(scaled.log_prob(10 * y + 3), MIXTURE.log_prob(y) - math.log(10))


def test_entropy_is_the_sum_of_its_parts() -> None:
    """total = aleatoric + epistemic, and epistemic <= log min(I, K), also with saturated logits."""
    logits = np.random.default_rng(0).normal(size=(4, 50, 3)) * 10
    logits[:, 0] = [200.0, 0.0, -2000.0]
    found = CategoricalMixture.from_logits(logits)
    assert np.allclose(found.total, found.aleatoric + found.epistemic, atol=1e-12)
    assert (found.epistemic >= 0).all()
    assert (found.epistemic <= math.log(3) + 1e-12).all()
    assert np.allclose(found.probs.sum(axis=1), 1)


def test_members_that_contradict_each_other_with_certainty_are_wholly_epistemic() -> None:
    """Two sure members, two classes: log 2, all of it mutual information."""
    found = CategoricalMixture.from_logits([[[1e4, 0.0]], [[0.0, 1e4]]])
    assert found.total[0] == pytest.approx(math.log(2))
    assert found.epistemic[0] == pytest.approx(math.log(2))
    assert found.aleatoric[0] == pytest.approx(0, abs=1e-12)


def test_the_mean_of_probabilities_is_not_the_softmax_of_mean_logits() -> None:
    """One sure member and one that knows nothing: 3/4, not what averaged logits say."""
    found = CategoricalMixture.from_logits([[[100.0, 0.0]], [[0.0, 0.0]]])
    assert found.probs[0, 0] == pytest.approx(0.75)
    assert found.confidence[0] == pytest.approx(0.75)


@pytest.mark.parametrize("logits", [np.zeros((2, 3, 1)), np.zeros(3), np.full((1, 2, 2), np.nan)])
def test_logits_that_say_nothing_are_refused(logits: np.ndarray) -> None:
    """One class, no batch axis, NaN."""
    with pytest.raises(UncertaintyInputError, match=r"shape|nan"):
        CategoricalMixture.from_logits(logits)


def test_bad_variances_and_shapes_are_refused() -> None:
    """Zero variance, two shapes, targets of another number."""
    with pytest.raises(UncertaintyInputError, match="variance is not > 0"):
        GaussianMixture(np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(UncertaintyInputError, match="shape"):
        GaussianMixture(np.zeros((1, 2)), np.ones((2, 1)))
    with pytest.raises(UncertaintyInputError, match="one target for"):
        MIXTURE.log_prob(np.zeros(2))
    with pytest.raises(UncertaintyInputError, match="level"):
        MIXTURE.quantile(1.0)


def test_the_loss_is_the_normal_log_density() -> None:
    """Its constant included; and extreme log-variances leave value and gradient finite."""
    mean, s, y = torch.tensor([0.5, 2.0]).double(), torch.tensor([-1.0, 3.0]).double(), None
    y = torch.tensor([1.0, -4.0]).double()
    expected = -norm.logpdf(y.numpy(), mean.numpy(), np.exp(s.numpy() / 2))
    assert np.allclose(gaussian_nll(mean, s, y).numpy(), expected, rtol=1e-13)
    raw = torch.tensor([[0.0, -1e4], [0.0, 1e4]], requires_grad=True)
    head = GaussianHead(2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(2))
        head.linear.bias.zero_()
    out = head(raw)
    assert out[:, 1].tolist() == pytest.approx(list(LOG_VARIANCE_RANGE))
    gaussian_nll(out[:, 0], out[:, 1], torch.ones(2)).sum().backward()
    assert torch.isfinite(raw.grad).all()


def test_beta_weighs_the_gradient_by_the_variance() -> None:
    """At beta 1 the mean's gradient is mu - y, as of squared error; at 0 that over sigma^2."""
    for beta, factor in ((0.0, 1 / 9.0), (0.5, 1 / 3.0), (1.0, 1.0)):
        mean = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        s = torch.full((1,), math.log(9.0), dtype=torch.float64)
        gaussian_nll(mean, s, torch.ones(1).double(), beta=beta).sum().backward()
        assert float(mean.grad[0]) == pytest.approx(-factor)
    with pytest.raises(UncertaintyInputError, match="differ in shape"):
        gaussian_nll(torch.zeros(3), torch.zeros(3), torch.zeros(3, 1))
