"""Scores and recalibration of predicted distributions of numbers, against integrals and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from uncertainty import regression_scores as r
from uncertainty.errors import NotFittedError, UncertaintyInputError
from uncertainty.regression_calibration import QuantileRecalibration, SigmaScaling


def integral_crps(y: float, mu: np.ndarray, sigma: np.ndarray) -> float:
    """integral (F(t) - [t >= y])^2 dt, which is the definition."""

    def below(t: float) -> float:
        return float(norm.cdf(t, mu, sigma).mean()) ** 2

    def above(t: float) -> float:
        return float(norm.sf(t, mu, sigma).mean()) ** 2

    far = float(np.abs(mu).max() + 12 * sigma.max() + abs(y))
    points = sorted({float(m) for m in mu})
    return (
        quad(below, -far, y, points=[p for p in points if p < y] or None, limit=200)[0]
        + quad(above, y, far, points=[p for p in points if p > y] or None, limit=200)[0]
    )


@pytest.mark.parametrize(("y", "mu", "sigma"), [(0.0, 0.0, 1.0), (3.0, 1.0, 0.5), (-2.0, 4.0, 3.0)])
def test_gaussian_crps_is_its_integral(y: float, mu: float, sigma: float) -> None:
    """And so is that of a mixture of one member, or of equal ones."""
    expected = integral_crps(y, np.array([mu]), np.array([sigma]))
    assert r.gaussian_crps([y], [mu], [sigma])[0] == pytest.approx(expected, abs=1e-8)
    for members in (1, 3):
        found = r.mixture_crps([y], np.full((members, 1), mu), np.full((members, 1), sigma))
        assert found[0] == pytest.approx(expected, abs=1e-8)


def test_mixture_crps_is_its_integral() -> None:
    """Three members of different width, in two inputs."""
    mu = np.array([[0.0, -3.0], [2.0, 1.0], [-1.0, 5.0]])
    sigma = np.array([[1.0, 0.2], [0.3, 1.0], [2.0, 4.0]])
    found = r.mixture_crps([0.7, 1.3], mu, sigma)
    for n, y in enumerate((0.7, 1.3)):
        assert found[n] == pytest.approx(integral_crps(y, mu[:, n], sigma[:, n]), abs=1e-8)


def test_sample_crps_against_all_pairs_and_fair_on_average() -> None:
    """Loops over pairs; and the fair score of few samples has the mean of the exact one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=4)
    pairs = np.abs(x[:, None] - x[None]).sum(axis=(0, 1))
    first = np.abs(x - y).mean(axis=0)
    np.testing.assert_allclose(r.sample_crps(y, x), first - pairs / 72, atol=1e-14)
    np.testing.assert_allclose(r.sample_crps(y, x, fair=True), first - pairs / 60, atol=1e-14)
    many = r.sample_crps(np.full(40_000, 0.4), rng.normal(size=(3, 40_000)), fair=True)
    assert many.mean() == pytest.approx(r.gaussian_crps([0.4], [0.0], [1.0])[0], abs=0.01)


def test_log_scores_against_scipy_and_the_mixtures_is_not_the_matched_gaussians() -> None:
    """logsumexp of the members, also far out where each density underflows."""
    y, mu, sigma = (
        np.array([0.3, 90.0]),
        np.array([[0.0, 0.0], [1.0, 1.0]]),
        np.array([[1.0, 1.0], [0.5, 0.5]]),
    )
    np.testing.assert_allclose(
        r.gaussian_log_score(y, mu[0], sigma[0]), -norm.logpdf(y, mu[0], sigma[0])
    )
    found = r.mixture_log_score(y, mu, sigma)
    assert found[0] == pytest.approx(-math.log(norm.pdf(0.3, mu[:, 0], sigma[:, 0]).mean()))
    assert found[1] == pytest.approx(-norm.logpdf(90.0) + math.log(2))
    matched = norm.logpdf(0.3, 0.5, math.sqrt(0.625 + 0.25))
    assert abs(found[0] + matched) > 0.01


def test_pit_values_of_a_right_model_are_uniform() -> None:
    """Every level is hit by its share; a model that is half as wide as it should be is not."""
    rng = np.random.default_rng(1)
    mu, sigma = rng.normal(size=20_000), rng.uniform(0.5, 2, 20_000)
    y = rng.normal(mu, sigma)
    pit = r.gaussian_pit(y, mu, sigma)
    for norm_name in ("l1", "l2", "max"):
        assert r.quantile_calibration_error(pit, norm=norm_name) < 0.012
    assert r.interval_calibration_error(pit) < 0.01
    narrow = r.gaussian_pit(y, mu, sigma / 2)
    # P(|z| <= 2 probit) - p averaged, by the formula.
    p = np.arange(1, 100) / 100
    expected = np.abs(2 * norm.cdf(norm.ppf((1 + p) / 2) / 2) - 1 - p).mean()
    assert r.interval_calibration_error(narrow) == pytest.approx(expected, abs=0.01)
    two = r.mixture_pit(y, np.stack((mu, mu)), np.stack((sigma, sigma)))
    np.testing.assert_allclose(two, pit)


def test_the_interval_score_by_hand_and_at_its_best() -> None:
    """Inside: the width. Outside by 1 at alpha .1: 20 more. Least at the true quantiles."""
    np.testing.assert_allclose(r.interval_score([0.5, 3.0], [0.0, 0.0], [2.0, 2.0], 0.1), [2, 22])
    y = np.random.default_rng(2).normal(size=50_000)

    def mean(half: float) -> float:
        return float(r.interval_score(y, np.full_like(y, -half), np.full_like(y, half), 0.1).mean())

    assert mean(1.645) < min(mean(1.3), mean(2.0))


def test_sharpness_and_central_intervals() -> None:
    """Root mean square; mu +- 1.96 sigma."""
    assert r.sharpness([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))
    low, high = r.gaussian_interval([1.0], [2.0], 0.05)
    assert (low[0], high[0]) == (
        pytest.approx(1 - 3.9199279690801081),
        pytest.approx(4.919927969080108),
    )


def test_sigma_scaling_finds_the_factor_and_nothing_near_is_better() -> None:
    """Widths half of what they should be; NLL told before and after is that of the scores."""
    rng = np.random.default_rng(3)
    sigma, mu = rng.uniform(0.5, 2, 20_000), rng.normal(size=20_000)
    y = rng.normal(mu, 2 * sigma)
    found = SigmaScaling().fit(y, mu, sigma)
    assert found.scale_ == pytest.approx(2, rel=0.03)
    scores = [
        r.gaussian_log_score(y, mu, sigma * s).mean()
        for s in (1.0, found.scale_, 0.99 * found.scale_, 1.01 * found.scale_)
    ]
    assert found.nll_before_ == pytest.approx(scores[0])
    assert found.nll_after_ == pytest.approx(scores[1])
    assert scores[1] < min(scores[2:])
    np.testing.assert_allclose(found.transform([1.0, 2.0]), [found.scale_, 2 * found.scale_])


def test_means_that_are_all_right_leave_a_scale_above_zero() -> None:
    """Rather than a deviation of 0, which is none."""
    assert SigmaScaling().fit([1.0], [1.0], [1.0]).scale_ > 0


def test_quantile_recalibration_makes_new_pit_values_uniform() -> None:
    """Of a model that is too narrow and off to one side; its map rises and has an inverse."""
    rng = np.random.default_rng(4)
    pit, new = (
        r.gaussian_pit(rng.normal(0.5, 2, 5000), np.zeros(5000), np.ones(5000)) for _ in "ab"
    )
    found = QuantileRecalibration().fit(pit)
    assert r.quantile_calibration_error(new) > 0.1
    assert r.quantile_calibration_error(found.transform(new)) < 0.015
    levels = found.level_for([0.05, 0.5, 0.95])
    np.testing.assert_allclose(found.transform(levels), [0.05, 0.5, 0.95], atol=1e-6)
    assert (np.diff(found.transform(np.linspace(0, 1, 101))) >= 0).all()
    assert found.transform([0.0, 1.0]).tolist() == [0, 1]


def test_recalibrating_what_is_calibrated_changes_little() -> None:
    """PIT values in the middle of n equal steps are left where they are."""
    pit = (np.arange(100) + 0.5) / 100
    np.testing.assert_allclose(QuantileRecalibration().fit(pit).transform(pit), pit, atol=1e-12)
    constant = QuantileRecalibration().fit(np.full(5, 0.5))
    assert constant.transform([0.5])[0] == 0.5


def test_what_cannot_be_used_is_refused() -> None:
    """Shapes, signs, lengths; before fit."""
    for call in (
        lambda: r.gaussian_crps([0.0], [0.0], [0.0]),
        lambda: r.gaussian_crps([0.0], [0.0, 1.0], [1.0, 1.0]),
        lambda: r.mixture_crps([0.0], [0.0], [1.0]),
        lambda: r.sample_crps([0.0], [[1.0]], fair=True),
        lambda: r.sample_crps([0.0], [1.0]),
        lambda: r.interval_score([0.0], [1.0], [0.0], 0.1),
        lambda: r.interval_score([0.0], [0.0], [1.0], 1.0),
        lambda: r.quantile_calibration_error([0.5], norm="l3"),
        lambda: r.quantile_calibration_error([]),
        lambda: r.sharpness([]),
        lambda: QuantileRecalibration().fit([1.5]),
        lambda: SigmaScaling().fit([], [], []),
    ):
        with pytest.raises(UncertaintyInputError):
            call()
    for unfitted in (
        lambda: SigmaScaling().transform([1.0]),
        lambda: QuantileRecalibration().transform([0.5]),
    ):
        with pytest.raises(NotFittedError):
            unfitted()
