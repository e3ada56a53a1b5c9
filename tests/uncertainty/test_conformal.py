"""Conformal sets: the rank, the exact law of the coverage, and sets found by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, kstest

from uncertainty.conformal import (
    ConformalClassifier,
    ConformalInterval,
    Penalty,
    conformal_rank,
    conformal_threshold,
    coverage_distribution,
    row_uniforms,
)
from uncertainty.errors import NotFittedError, UncertaintyInputError


def drawn(inputs: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model that is too sure, and labels."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(inputs, classes))
    y = (z - np.log(-np.log(rng.random(z.shape)))).argmax(axis=1)
    p = np.exp(2 * z)
    return p / p.sum(axis=1, keepdims=True), y


def test_the_threshold_is_the_right_order_statistic() -> None:
    """ceil((n + 1)(1 - alpha)): of 19 at alpha .1 the 18th, of 9 the 9th, of 8 none."""
    assert conformal_rank(19, 0.1) == 18
    assert conformal_threshold(np.arange(1, 20), 0.1) == 18
    assert conformal_threshold(np.arange(1, 10), 0.1) == 9
    assert conformal_threshold(np.arange(1, 9), 0.1) == math.inf
    # Whole numbers that floating-point arithmetic puts a little above.
    for n in range(1, 2000):
        assert conformal_rank(n, 0.1) == -(-(n + 1) * 9 // 10)
        assert conformal_rank(n, 0.05) == -(-(n + 1) * 19 // 20)


@pytest.mark.parametrize("count", [20, 50, 100])
def test_coverage_has_its_mean_also_for_few_inputs(count: int) -> None:
    """Without the (n + 1), as in torch-uncertainty, it is .861, .884, .893 instead of .9."""
    rng = np.random.default_rng(count)
    thresholds = [conformal_threshold(rng.random(count), 0.1) for _ in range(4000)]
    expected = conformal_rank(count, 0.1) / (count + 1)  # of uniform scores: coverage = threshold
    assert np.mean(thresholds) == pytest.approx(expected, abs=0.004)
    assert 0.9 <= expected <= 0.9 + 1 / (count + 1)


def test_the_coverage_given_one_calibration_set_has_the_beta_law() -> None:
    """Kolmogorov-Smirnov over 2000 calibration sets of 30 uniform scores."""
    rng = np.random.default_rng(0)
    coverage = [conformal_threshold(rng.random(30), 0.2) for _ in range(2000)]
    assert kstest(coverage, coverage_distribution(30, 0.2).cdf).pvalue > 0.01
    assert (
        kstest(coverage, coverage_distribution(31, 0.2).cdf).pvalue < 0.01
    )  # so the test can fail
    with pytest.raises(UncertaintyInputError, match="at least 9"):
        coverage_distribution(8, 0.1)


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize("randomised", [True, False])
def test_coverage_is_what_was_asked_for(score: str, randomised: bool) -> None:
    """Over 60 calibration sets of 99: at least 1 - alpha, and for continuous scores no more.

    APS that is not randomised covers more, as its scores end above the sum.
    """
    hits = []
    for seed in range(60):
        p, y = drawn(599, 4, seed)
        found = ConformalClassifier(score, 0.2, randomised=randomised).fit(p[:99], y[:99])
        hits.append(found.predict_set(p[99:])[np.arange(500), y[99:]].mean())
    error = np.std(hits) / math.sqrt(60)
    assert np.mean(hits) >= 0.8 - 4 * error
    if score == "lac" or randomised:
        assert np.mean(hits) <= 0.8 + 1 / 100 + 4 * error


@pytest.mark.parametrize("randomised", [True, False])
@pytest.mark.parametrize("score", ["aps", "raps"])
def test_scores_by_their_definition(score: str, randomised: bool) -> None:
    """Classes in descending order, one after the other, in plain Python."""
    p, y = drawn(40, 5, 3)
    penalty = Penalty(weight=0.1, free=2)
    found = ConformalClassifier(score, 0.3, randomised=randomised, penalty=penalty).fit(p, y)
    u = row_uniforms(p, 0) if randomised else np.ones(40)
    scores = np.empty_like(p)
    for i in range(40):
        total = 0.0
        for rank, k in enumerate(sorted(range(5), key=lambda k: -p[i, k]), start=1):
            scores[i, k] = total + u[i] * p[i, k]
            scores[i, k] += 0.1 * max(0, rank - 2) if score == "raps" else 0
            total += p[i, k]
    threshold = sorted(scores[np.arange(40), y])[math.ceil(41 * 0.7) - 1]
    assert found.threshold_ == pytest.approx(threshold)
    np.testing.assert_array_equal(found.predict_set(p), scores <= found.threshold_)


def test_too_few_inputs_give_full_sets() -> None:
    """Never a set that claims more than it may; the largest score as threshold would."""
    p, y = drawn(8, 3, 0)
    for score in ("lac", "aps", "raps"):
        found = ConformalClassifier(score, 0.1).fit(p, y)
        assert found.threshold_ == math.inf
        assert found.predict_set(p).all()
    low, high = ConformalInterval(0.1).fit(y, y, y).predict_interval([0.0], [1.0])
    assert (low[0], high[0]) == (-math.inf, math.inf)


def test_the_penalty_shortens_long_sets() -> None:
    """RAPS against APS, 30 classes: a smaller largest set."""
    p, y = drawn(1000, 30, 5)
    aps = ConformalClassifier("aps", 0.1).fit(p[:500], y[:500]).predict_set(p[500:])
    raps = ConformalClassifier("raps", 0.1, penalty=Penalty(0.2, 3)).fit(p[:500], y[:500])
    assert raps.predict_set(p[500:]).sum(axis=1).max() < aps.sum(axis=1).max()


def test_an_inputs_set_does_not_depend_on_its_company() -> None:
    """Alone, in a batch, in another order; another seed gives another set for some."""
    p, y = drawn(200, 6, 7)
    found = ConformalClassifier("aps", 0.2).fit(p, y)
    whole = found.predict_set(p)
    np.testing.assert_array_equal(found.predict_set(p[::-1])[::-1], whole)
    np.testing.assert_array_equal(found.predict_set(p[5:6])[0], whole[5])
    other = ConformalClassifier("aps", 0.2, seed=1).fit(p, y)
    assert (other.predict_set(p) != whole).any()
    assert kstest(row_uniforms(p, 0), "uniform").pvalue > 0.01


@pytest.mark.parametrize("width", [0.3, 3.0])
def test_intervals_cover_whether_they_were_too_narrow_or_too_wide(width: float) -> None:
    """CQR widens by a positive number, or shortens by a negative one."""
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(100):
        x, noise = rng.normal(size=300), rng.normal(size=300)
        y = x + noise
        found = ConformalInterval(0.1).fit(x[:99] - width, x[:99] + width, y[:99])
        low, high = found.predict_interval(x[99:] - width, x[99:] + width)
        hits.append(((low <= y[99:]) & (y[99:] <= high)).mean())
    assert np.mean(hits) == pytest.approx(0.9, abs=0.012)
    assert (found.threshold_ > 0) == (width < 1)


def test_intervals_hold_the_binomial_bound_per_set() -> None:
    """A single set of 999 inputs: coverage of 5000 others within its Beta-binomial range."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=5999)
    zero = np.zeros(5999)
    low, high = (
        ConformalInterval(0.1)
        .fit(zero[:999], zero[:999], y[:999])
        .predict_interval(zero[999:], zero[999:])
    )
    covered = int(((low <= y[999:]) & (y[999:] <= high)).sum())
    lowest, highest = coverage_distribution(999, 0.1).ppf([1e-4, 1 - 1e-4])
    assert binom.ppf(1e-4, 5000, lowest) <= covered <= binom.ppf(1 - 1e-4, 5000, highest)


def test_what_cannot_be_used_is_refused() -> None:
    """Words that are no score, levels outside (0, 1), before fit, other classes."""
    p, y = drawn(20, 3, 0)
    for call, complaint in (
        (lambda: ConformalClassifier("hps"), "lac, aps, raps"),
        (lambda: ConformalClassifier(alpha=0.0), "alpha is 0"),
        (lambda: ConformalClassifier().fit(p[:0], y[:0]), "at least 1"),
        (lambda: ConformalClassifier().fit(p, y).predict_set(p[:, :2] / 0.5), "apply softmax"),
        (
            lambda: ConformalClassifier().fit(p, y).predict_set([[0.5, 0.5]]),
            "2 classes, expected 3",
        ),
        (lambda: ConformalInterval().fit([0.0], [1.0], [0.0, 1.0]), "lengths 1, 1 and 2"),
        (lambda: Penalty(weight=-1), "below 0"),
    ):
        with pytest.raises(UncertaintyInputError, match=complaint):
            call()
    for unfitted in (
        lambda: ConformalClassifier().predict_set(p),
        lambda: ConformalInterval().predict_interval([0.0], [1.0]),
    ):
        with pytest.raises(NotFittedError):
            unfitted()
