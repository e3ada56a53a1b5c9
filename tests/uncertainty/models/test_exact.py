"""Posteriors against closed forms: Bayesian linear regression, normal targets, ridge, logistic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from torch import nn

from uncertainty.models import (
    HMC,
    MAP,
    SGLD,
    FixedGaussian,
    HeteroscedasticGaussian,
    Laplace,
    MeanField,
    Training,
    prior_variance_of,
    r_hat,
    sample_hmc,
    weight_decay_of,
)
from uncertainty.models.curvature import FullCurvature, KroneckerCurvature
from uncertainty.models.map import negative_log_prior
from uncertainty.models.training import train
from uncertainty.models.variational import normal_kl
from uncertainty.models.weights import WeightSpace

NOISE, PRIOR = 0.5, 2.0  # deviation of the noise, variance of the prior
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.3 + NOISE * RNG.normal(size=30)
DESIGN = np.c_[X, np.ones(30)]
COVARIANCE = np.linalg.inv(DESIGN.T @ DESIGN / NOISE**2 + np.eye(4) / PRIOR)
MEAN = COVARIANCE @ DESIGN.T @ Y / NOISE**2
NEW = np.c_[RNG.normal(size=(5, 3)) * 3, np.ones(5)]
LIKELIHOOD = FixedGaussian(NOISE)


def linear() -> nn.Module:
    return nn.Linear(3, 1).double()


@pytest.fixture(scope="module")
def best() -> MAP:
    return MAP(linear, prior_variance=PRIOR, likelihood=LIKELIHOOD).fit(X, Y)


def test_map_is_the_closed_form(best: MAP) -> None:
    """Weights of ridge regression, and a vanishing gradient."""
    assert np.allclose(WeightSpace(best.network_).vector().numpy(), MEAN, atol=1e-7)
    assert best.gradient_ < 1e-5


def test_map_of_a_classifier_is_sklearns_regularised_logistic_regression() -> None:
    """C is the prior variance; two classes as one logit, so the bias is penalised there too."""
    labels = (Y > 0).astype(int)

    class OneLogit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1, bias=False).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat((torch.zeros_like(x[:, :1]), self.layer(x)), dim=1)

    found = MAP(OneLogit, prior_variance=PRIOR).fit(X, labels)
    reference = LogisticRegression(C=PRIOR, fit_intercept=False, tol=1e-10).fit(X, labels)
    assert np.allclose(WeightSpace(found.network_).vector(), reference.coef_[0], atol=1e-5)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_weight_decay_is_the_gaussian_prior(optimiser: str) -> None:
    """Both descend the same function, so every step of the two trainings is the same."""
    decay = weight_decay_of(PRIOR, len(X))
    assert prior_variance_of(decay, len(X)) == pytest.approx(PRIOR)
    ways = []
    for explicit in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        settings = Training(
            epochs=20, rate=1e-2, optimiser=optimiser, weight_decay=0 if explicit else decay
        )
        train(
            network,
            LIKELIHOOD,
            X,
            Y,
            settings,
            penalty=(lambda net: negative_log_prior(net, PRIOR) / len(X)) if explicit else None,
        )
        ways.append(WeightSpace(network).vector())
    assert torch.allclose(*ways, atol=1e-10)


@pytest.mark.parametrize("structure", ["full", "kron"])
@pytest.mark.parametrize("subset", ["last_layer", "all"])
def test_laplace_is_exact_for_linear_regression(best: MAP, structure: str, subset: str) -> None:
    """Mean and variance of new outputs, and the marginal likelihood, by linear algebra."""
    found = Laplace(
        best.network_,
        subset=subset,
        structure=structure,
        prior_precision=1 / PRIOR,
        likelihood=LIKELIHOOD,
    ).fit(X, Y)
    mean, covariance = found.predict_function(NEW[:, :3])
    assert np.allclose(mean[:, 0], NEW @ MEAN, atol=1e-7)
    assert np.allclose(covariance[:, 0, 0], ((NEW @ COVARIANCE) * NEW).sum(1), rtol=1e-9)
    spread = NOISE**2 * np.eye(30) + PRIOR * DESIGN @ DESIGN.T
    exact = multivariate_normal(np.zeros(30), spread).logpdf(Y)
    assert found.log_marginal_ == pytest.approx(exact, abs=1e-6)


def test_the_prior_is_chosen_by_the_marginal_likelihood(best: MAP) -> None:
    """No precision of a grid has a larger one."""
    settings = {"subset": "all", "likelihood": LIKELIHOOD}
    found = Laplace(best.network_, **settings).fit(X, Y)
    for log in np.linspace(-4, 4, 9):
        other = Laplace(best.network_, prior_precision=math.exp(log), **settings).fit(X, Y)
        assert other.log_marginal_ <= found.log_marginal_ + 1e-6
    assert not found.at_bound_


def small(outputs: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def test_kronecker_factors_of_one_sample_are_its_diagonal_blocks() -> None:
    """With one sample A x G is no approximation within a layer: same eigenvalues, same variance."""
    network, x = small(3), torch.as_tensor(X[:1])
    space = WeightSpace(network)
    likelihood = Laplace(network).likelihood
    full, kron = FullCurvature(space), KroneckerCurvature(space)
    maker = Laplace(network, subset="all")
    for curvature in (full, kron):
        curvature.add(x, maker.jacobians(x), likelihood.curvature(network(x).detach()))
        curvature.finish()
    cut = 16  # weights of the first layer
    blocks = full.matrix.clone()
    blocks[:cut, cut:] = 0
    blocks[cut:, :cut] = 0
    jacobians = maker.jacobians(torch.as_tensor(X[5:8]))
    exact = (
        jacobians @ torch.linalg.inv(blocks + 0.7 * torch.eye(space.size).double()) @ jacobians.mT
    )
    found = kron.function_covariance(jacobians, 0.7)

    assert torch.allclose(found, exact, rtol=1e-8)


@pytest.mark.parametrize("likelihood", [Laplace(small(3)).likelihood, HeteroscedasticGaussian()])
def test_the_curvature_is_the_expected_outer_product_of_gradients(likelihood: object) -> None:
    """Fisher information by summing over classes, or by Gauss-Hermite quadrature over y."""
    classes = not isinstance(likelihood, HeteroscedasticGaussian)
    outputs = torch.tensor([[0.3, -1.0, 0.8]] if classes else [[0.3, -1.0]], dtype=torch.float64)
    if classes:
        points = [(torch.tensor([k]), float(outputs.softmax(1)[0, k])) for k in range(3)]
    else:
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        points = [
            (
                torch.full((1, 1), 0.3 + math.exp(-0.5) * z, dtype=torch.float64),
                w / math.sqrt(2 * math.pi),
            )
            for z, w in zip(nodes, weights, strict=True)
        ]
    total = torch.zeros(outputs.shape[1], outputs.shape[1]).double()
    for y, weight in points:
        leaf = outputs.clone().requires_grad_()
        (slope,) = torch.autograd.grad(likelihood.nll(leaf, y).sum(), leaf)
        total += weight * slope.T @ slope
    assert torch.allclose(likelihood.curvature(outputs)[0], total, atol=1e-9)


def test_mean_field_finds_the_best_factorised_normal() -> None:
    """For a linear model: the exact mean, and variances 1 / diagonal of the precision."""
    found = MeanField(
        lambda: nn.Sequential(linear()),
        prior_deviation=math.sqrt(PRIOR),
        likelihood=LIKELIHOOD,
        training=Training(epochs=3000, batch=30, rate=2e-2, cosine=True),
    ).fit(X, Y)
    exact = 1 / np.sqrt(np.diag(np.linalg.inv(COVARIANCE)))
    assert np.allclose(found.mean_, MEAN, atol=0.03)
    assert np.allclose(found.deviation_, exact, rtol=0.06)


def test_the_kl_is_that_of_torch() -> None:
    """Closed form against torch.distributions."""
    mean, deviation = torch.tensor([0.3, -2.0]), torch.tensor([0.1, 3.0])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 0.7)).sum()
    assert float(normal_kl(mean, deviation, 0.7)) == pytest.approx(float(expected), rel=1e-6)


def test_hmc_samples_a_known_normal() -> None:
    """A correlated normal in two dimensions: moments within five standard errors, R-hat near 1."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 2.0]]).double()
    precision = torch.linalg.inv(covariance)
    middle = torch.tensor([3.0, -1.0]).double()
    found = sample_hmc(
        lambda w: -0.5 * (w - middle) @ precision @ (w - middle),
        torch.zeros(4, 2).double(),
        draws=800,
        warm_up=200,
        leapfrogs=10,
        step=0.1,
    )
    every = found.samples.flatten(0, 1)
    assert torch.allclose(every.mean(0), middle, atol=0.15)
    assert torch.allclose(every.T.cov(), covariance, atol=0.25)
    assert (found.r_hat() < 1.02).all()
    assert 0.6 < float(found.accepted.mean()) < 0.98


def test_hmc_and_sgld_sample_the_posterior_of_linear_regression() -> None:
    """HMC within its error; SGLD within the bias of its step."""
    hmc = HMC(
        linear,
        prior_variance=PRIOR,
        likelihood=LIKELIHOOD,
        draws=250,
        warm_up=100,
        leapfrogs=10,
        keep=1000,
        step=1e-2,
    ).fit(X, Y)
    deviation = np.sqrt(np.diag(COVARIANCE))
    assert np.allclose(hmc.weights_.mean(0), MEAN, atol=0.2 * deviation.max())
    assert np.allclose(hmc.weights_.std(0), deviation, rtol=0.15)
    sgld = SGLD(
        linear,
        prior_variance=PRIOR,
        likelihood=LIKELIHOOD,
        step=4e-4,
        batch=30,
        warm_up=500,
        thin=8,
        keep=500,
    ).fit(X, Y)
    assert np.allclose(sgld.weights_.mean(0), MEAN, atol=0.5 * deviation.max())
    assert np.allclose(sgld.weights_.std(0), deviation, rtol=0.3)


def test_r_hat_sees_chains_that_disagree() -> None:
    """Near 1 for one distribution, large for two, infinite for chains that stand still apart."""
    numbers = np.random.default_rng(0).normal(size=(4, 200))
    assert r_hat(numbers) < 1.02
    assert r_hat(numbers + np.array([0, 0, 5, 5])[:, None]) > 2
    assert r_hat(np.repeat([[0.0], [1.0]], 10, axis=1)) == math.inf
