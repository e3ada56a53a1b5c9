"""AUROC, AUPR and FPR against scikit-learn and by hand; ties, intervals, thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from uncertainty.errors import UncertaintyInputError
from uncertainty.ood import evaluate, threshold
from uncertainty.ood.evaluation import auroc, auroc_delong

GRID = arrays(np.float64, st.integers(2, 30), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]))


@given(GRID, GRID)
def test_figures_are_scikit_learns_also_with_ties(inside: np.ndarray, outside: np.ndarray) -> None:
    """On scores with five values, so nearly all pairs are tied; FPR by trying every threshold."""
    found = evaluate(inside, outside, resamples=10)
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    scores = np.r_[inside, outside]
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, scores))
    assert found.aupr_out.value == pytest.approx(average_precision_score(truth, scores))
    assert found.aupr_in.value == pytest.approx(average_precision_score(1 - truth, -scores))
    best = min((outside <= t).mean() for t in inside if (inside <= t).mean() >= 0.95)
    assert found.fpr.value == pytest.approx(best)


@given(GRID, st.floats(0.01, 1.0))
def test_a_threshold_keeps_the_share_and_no_smaller_one_does(
    scores: np.ndarray, tpr: float
) -> None:
    """Share of scores <= threshold is at least tpr; below the threshold it is not."""
    found = threshold(scores, tpr)
    assert (scores <= found).mean() >= tpr - 1e-9
    assert (scores < found).mean() < tpr


def test_a_share_that_is_whole_is_not_rounded_up() -> None:
    """0.07 of 100 scores is 7 of them, though 0.07 * 100 > 7 in floating point."""
    assert 0.07 * 100 > 7
    assert threshold(np.arange(100.0), 0.07) == 6


def test_the_sign_is_higher_more_out_of_distribution() -> None:
    """All OOD above all ID: 1; reversed: 0; equal: one half."""
    low, high = np.arange(5.0), np.arange(5.0, 10.0)
    assert auroc(low, high) == 1
    assert auroc(high, low) == 0
    assert auroc(low, low) == 0.5
    assert evaluate(low, high).fpr.value == 0
    assert evaluate(np.zeros(5), np.zeros(3)).fpr.value == 1


@pytest.mark.slow
def test_delongs_interval_covers_the_truth() -> None:
    """Two normals one deviation apart: AUROC 0.7602; 95 % intervals hold it in 92 to 98 of 100."""
    rng, truth, held = np.random.default_rng(0), 0.76025, 0
    for _ in range(1000):
        found = auroc_delong(rng.normal(size=60), rng.normal(1, 1, size=40), 0.95)
        held += found.low <= truth <= found.high
    assert 920 <= held <= 980


def test_delongs_variance_is_that_of_the_definition() -> None:
    """Against the structural components written out pair by pair."""
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 12).astype(float), rng.integers(2, 9, 9).astype(float)
    kernel = (outside[None] > inside[:, None]) + 0.5 * (outside[None] == inside[:, None])
    variance = kernel.mean(1).var(ddof=1) / 12 + kernel.mean(0).var(ddof=1) / 9
    found = auroc_delong(inside, outside, 0.95)
    assert found.value == pytest.approx(kernel.mean())
    reach = 1.959963984540054 * np.sqrt(variance) / (found.value * (1 - found.value))
    odds = found.value / (1 - found.value) * np.exp(-reach)
    assert found.low == pytest.approx(odds / (1 + odds))


def test_a_perfect_separation_is_no_certainty() -> None:
    """With ten inputs the interval reaches down to 0.05^(1/10) = 0.741."""
    found = evaluate(np.arange(10.0), np.arange(10.0, 30.0))
    for figure in (found.auroc, found.aupr_out, found.aupr_in):
        assert (figure.value, figure.high) == (1.0, 1.0)
        assert figure.low == pytest.approx(0.05**0.1)
    assert (found.fpr.value, found.fpr.low) == (0.0, 0.0)
    assert found.fpr.high == pytest.approx(1 - 0.05**0.1)


def test_intervals_hold_their_value_and_come_again() -> None:
    """Same seed, same interval."""
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(size=80), rng.normal(1, 1, size=70)
    found = evaluate(inside, outside)
    for figure in (found.auroc, found.aupr_out, found.aupr_in, found.fpr):
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
        assert figure.high > figure.low
    assert found == evaluate(inside, outside)


@pytest.mark.parametrize("scores", [[], [np.nan], [[1.0]]])
def test_scores_that_say_nothing_are_refused(scores: list) -> None:
    """Empty, NaN, two axes."""
    with pytest.raises(UncertaintyInputError):
        evaluate(scores, [1.0])
    with pytest.raises(UncertaintyInputError):
        threshold(scores)
