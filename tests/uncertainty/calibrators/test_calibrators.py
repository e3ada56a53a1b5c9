"""Calibrators: optima found another way, what must not change, and data that have no optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from uncertainty.calibrators import (
    CALIBRATORS,
    BetaCalibration,
    DirichletCalibration,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
)
from uncertainty.calibrators.base import mean_nll
from uncertainty.errors import NotFittedError, UncertaintyInputError
from uncertainty.measures import log_softmax, softmax


def drawn(
    inputs: int, classes: int, seed: int, factor: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits z of labels that are drawn from softmax(z), then multiplied by the factor."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(inputs, classes))
    gumbel = -np.log(-np.log(rng.random(z.shape)))
    return factor * z, (z + gumbel).argmax(axis=1)


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0, 12.0])
def test_the_temperature_is_the_factor_that_the_logits_are_too_large_by(factor: float) -> None:
    """Within three standard errors; T, not 1/T as netcal has it, and not stuck at 1.77."""
    z, y = drawn(20_000, 5, seed=0, factor=factor)
    found = TemperatureScaling().fit(z.astype(np.float32), y)
    assert found.temperature_ == pytest.approx(factor, rel=0.03)
    assert not found.at_bound_


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.3, 30.0))
def test_the_temperature_is_where_scipys_search_ends_too(
    seed: int, classes: int, factor: float
) -> None:
    """Bounded Brent over log T, and a slope of zero there."""
    z, y = drawn(60, classes, seed, factor)
    found = TemperatureScaling().fit(z, y)
    if found.at_bound_:
        return

    def loss(u: float) -> float:
        return mean_nll(z / math.exp(u), y)

    other = minimize_scalar(loss, bounds=np.log((0.05, 100)), method="bounded").x
    assert found.nll_after_ <= loss(other) + 1e-12
    step = 1e-4
    slope = (
        loss(math.log(found.temperature_) + step) - loss(math.log(found.temperature_) - step)
    ) / (2 * step)
    assert abs(slope) < 1e-6


def test_random_labels_give_no_negative_temperature() -> None:
    """torch-uncertainty 0.13 returns T = -603.6 here, which turns every prediction around."""
    rng = np.random.default_rng(0)
    z, y = 3 * rng.normal(size=(500, 4)), rng.integers(0, 4, 500)
    found = TemperatureScaling().fit(z, y)
    assert found.temperature_ > 5
    worse = TemperatureScaling().fit(z, z.argmin(axis=1))
    assert (worse.temperature_, worse.at_bound_) == (100.0, True)


def test_data_without_a_mistake_end_at_the_bound_and_say_so() -> None:
    """Where the likelihood rises up to T = 0; also where it is flat there by rounding."""
    for size in (1.0, 1e6):
        found = TemperatureScaling().fit(size * np.eye(3), [0, 1, 2])
        assert (found.temperature_, found.at_bound_) == (0.05, True)
    with pytest.raises(UncertaintyInputError, match="bounds"):
        TemperatureScaling(bounds=(0, 1))


def test_a_constant_model_is_the_same_at_every_temperature() -> None:
    """T = 1, and no bound is blamed."""
    found = TemperatureScaling().fit(np.full((5, 3), 7.0), [0, 1, 2, 0, 1])
    assert (found.temperature_, found.at_bound_) == (1.0, False)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_the_likelihood_of_the_fitting_set_does_not_fall(name: str) -> None:
    """Leaving the logits as they are is among the choices (the calibration error may rise)."""
    z, y = drawn(400, 4, seed=3, factor=3.0)
    found = CALIBRATORS[name]().fit(z, y)
    assert found.nll_after_ < found.nll_before_ - 0.1
    p = found.predict_proba(z)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert found.nll_after_ == pytest.approx(-np.log(p[np.arange(400), y]).mean())
    assert found.nll_before_ == pytest.approx(mean_nll(z, y))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibration_carries_over_to_new_data(name: str) -> None:
    """Of logits three times too large: the NLL comes within .03 of that of the true posterior."""
    z, y = drawn(4000, 3, seed=4, factor=3.0)
    new, labels = drawn(4000, 3, seed=5, factor=3.0)
    found = CALIBRATORS[name]().fit(z, y)
    assert mean_nll(found.transform(new), labels) < mean_nll(new / 3, labels) + 0.03


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("kind", ["separable", "constant", "one class", "one input", "two classes"])
def test_degenerate_data_give_finite_probabilities(name: str, kind: str) -> None:
    """No NaN, no infinity, no warning."""
    z, y = {
        "separable": (50 * np.eye(3).repeat(5, axis=0), np.arange(3).repeat(5)),
        "constant": (np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2])),
        "one class": (np.random.default_rng(0).normal(size=(9, 3)), np.zeros(9, dtype=int)),
        "one input": (np.array([[1.0, 2.0, 3.0]]), np.array([0])),
        "two classes": drawn(30, 2, seed=1),
    }[kind]
    p = CALIBRATORS[name]().fit(z, y).predict_proba(1.5 * z)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)


def test_vector_scaling_finds_scales_and_shifts_that_were_put_in() -> None:
    """Up to what all shifts share, which softmax does not see."""
    z, y = drawn(60_000, 3, seed=6)
    scale, shift = np.array([0.5, 2.0, 1.0]), np.array([0.3, -0.2, -0.1])
    found = VectorScaling(ridge=0).fit((z - shift) / scale, y)
    np.testing.assert_allclose(found.scale_, scale, rtol=0.05)
    np.testing.assert_allclose(found.shift_ - found.shift_.mean(), shift - shift.mean(), atol=0.05)
    assert found.converged_


def test_a_strong_penalty_keeps_the_matrix_diagonal_and_the_intercept_zero() -> None:
    """ODIR does not touch the diagonal."""
    z, y = drawn(500, 3, seed=7, factor=3.0)
    found = MatrixScaling(off_diagonal=1e6, intercept=1e6).fit(z, y)
    off = found.weight_ - np.diag(np.diag(found.weight_))
    assert np.abs(off).max() < 1e-4
    assert np.abs(found.shift_).max() < 1e-4
    assert np.diag(found.weight_).max() < 0.6


@pytest.mark.parametrize("calibrator", [VectorScaling(), MatrixScaling(), DirichletCalibration()])
def test_no_nearby_parameters_are_better(calibrator) -> None:
    """The penalised loss at 20 random neighbours, with the penalty written out again."""
    z, y = drawn(200, 3, seed=8, factor=2.0)
    found = calibrator.fit(z, y)
    names = ["scale_", "shift_"] if isinstance(found, VectorScaling) else ["weight_", "shift_"]

    def loss() -> float:
        first, b = (getattr(found, name) for name in names)
        if isinstance(found, VectorScaling):
            return mean_nll(z * first + b, y) + 1e-4 * (((first - 1) ** 2).mean() + (b**2).mean())
        x = log_softmax(z) if isinstance(found, DirichletCalibration) else z
        off = first[~np.eye(3, dtype=bool)]
        return mean_nll(x @ first.T + b, y) + 1e-2 * ((off**2).mean() + (b**2).mean())

    best, rng = loss(), np.random.default_rng(0)
    kept = [getattr(found, name) for name in names]
    for _ in range(20):
        for name, value in zip(names, kept, strict=True):
            setattr(found, name, value + 1e-3 * rng.normal(size=value.shape))
        assert loss() > best


def test_dirichlet_calibration_does_not_see_a_constant_added_to_the_logits() -> None:
    """As its features are log-probabilities; matrix scaling does."""
    z, y = drawn(200, 3, seed=9)
    found = DirichletCalibration().fit(z, y)
    np.testing.assert_allclose(found.predict_proba(z + 5), found.predict_proba(z), atol=1e-12)


def test_platt_and_beta_find_the_curve_that_was_put_in() -> None:
    """Two classes whose true log-odds are 0.5 s + 0.3; beta calibration contains that curve."""
    rng = np.random.default_rng(10)
    s = 2 * rng.normal(size=40_000)
    y = (rng.random(40_000) < expit(0.5 * s + 0.3)).astype(int)
    z = np.stack((np.zeros_like(s), s), axis=1)
    grid = np.linspace(-4, 4, 9)
    for calibrator in (PlattScaling(), BetaCalibration()):
        p = calibrator.fit(z, y).predict_proba(np.stack((0 * grid, grid), axis=1))[:, 1]
        np.testing.assert_allclose(logit(p), 0.5 * grid + 0.3, atol=0.1)


def test_isotonic_calibration_pools_what_falls_by_hand() -> None:
    """p = .1 ... .6, outcomes 0 1 0 1 1 0: pools to 0, 1/2, 1/2, 2/3, 2/3, 2/3."""
    p = np.arange(1, 7) / 10
    z = np.stack((np.zeros(6), logit(p)), axis=1)
    found = IsotonicCalibration().fit(z, [0, 1, 0, 1, 1, 0])
    np.testing.assert_allclose(found.fits_[1][1], [0, 0.5, 0.5, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(
        found.predict_proba(z)[:, 1], [0, 0.5, 0.5, 2 / 3, 2 / 3, 2 / 3], atol=1e-9
    )


def test_isotonic_calibration_gives_equal_confidences_one_value() -> None:
    """In whatever order they come."""
    z = np.zeros((4, 2))
    for y in ([0, 0, 1, 1], [1, 1, 0, 0]):
        np.testing.assert_allclose(IsotonicCalibration().fit(z, y).predict_proba(z), 0.5)


def test_histogram_binning_says_how_often_a_bin_was_right() -> None:
    """Two bins of equal width, three of four and one of four."""
    p = np.array([0.2] * 4 + [0.8] * 4)
    z = np.stack((np.zeros(8), logit(p)), axis=1)
    found = HistogramBinning(bins=2, binning="width").fit(z, [0, 0, 0, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(found.predict_proba(z)[:, 1], [0.25] * 4 + [0.75] * 4)


def test_temperature_vector_and_platt_agree_with_scikit_learn() -> None:
    """Its temperature, from the same logits."""
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    z, y = drawn(500, 4, seed=11, factor=2.5)
    other = calibration._TemperatureScaling().fit(z, y)
    assert 1 / other.beta_ == pytest.approx(TemperatureScaling().fit(z, y).temperature_, rel=1e-3)


def test_scaling_by_a_temperature_changes_no_prediction() -> None:
    """The order of the logits is the same."""
    z, y = drawn(300, 5, seed=12)
    found = TemperatureScaling().fit(z, y)
    np.testing.assert_array_equal(
        found.predict_proba(z).argsort(axis=1), softmax(z).argsort(axis=1)
    )
    scale, shift = found.affine()
    np.testing.assert_allclose(z * scale + shift, found.transform(z))


def test_what_cannot_be_calibrated_is_refused() -> None:
    """Before fit; no inputs; other classes; a penalty below zero."""
    with pytest.raises(NotFittedError, match="call fit first"):
        TemperatureScaling().transform([[0.0, 1.0]])
    with pytest.raises(UncertaintyInputError, match="at least 1 inputs"):
        TemperatureScaling().fit(np.zeros((0, 3)), [])
    with pytest.raises(UncertaintyInputError, match="fitted to 2"):
        TemperatureScaling().fit([[0.0, 1.0]], [1]).transform([[0.0, 1.0, 2.0]])
    with pytest.raises(UncertaintyInputError, match="ridge is -1"):
        VectorScaling(ridge=-1)
    with pytest.raises(UncertaintyInputError, match="mass"):
        HistogramBinning(binning="even")
