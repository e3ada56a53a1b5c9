"""Calibration errors: by hand, at the edges, against brute force, and other libraries' defects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncertainty.binning import bin_of, edges_of_equal_mass, edges_of_equal_width
from uncertainty.calibration_error import (
    Binning,
    calibration_error,
    classwise_calibration_error,
    maximum_calibration_error,
)
from uncertainty.errors import UncertaintyInputError
from uncertainty.sampling import (
    bootstrap_calibration_error,
    bootstrap_mean,
    calibration_floor,
    wilson,
)
from uncertainty.scored import Scored, score_events, score_logits, score_probabilities
from uncertainty.smooth import smooth_calibration_error


def calibrated(inputs: int, seed: int = 0, shift: float = 0.0) -> Scored:
    rng = np.random.default_rng(seed)
    c = 0.1 + 0.9 * rng.beta(6, 1, inputs)
    return score_events(c, rng.random(inputs) < np.clip(c - shift, 0, 1))


def test_a_confidence_of_one_lies_in_the_last_bin() -> None:
    """torchmetrics 1.9.0 opens an eleventh bin and says .525 (its issue 3510)."""
    assert calibration_error(score_events([0.95, 1.0], [1, 0]), bins=10).value == pytest.approx(
        0.475
    )


def test_all_wrong_with_certainty_is_an_error_of_one() -> None:
    """Other code drops the confidence 1, and says 0; and 0 lies in the first bin."""
    assert calibration_error(score_events([1.0, 1.0], [0, 0])).value == 1
    assert calibration_error(score_events([0.0, 0.0], [1, 1])).value == 1


def test_there_are_as_many_bins_as_asked_for() -> None:
    """MAPIE's linspace(0, 1, 15) has 14: confidences .5 and .53 share a bin of 14, not of 15."""
    apart = score_events([0.5, 0.54], [1, 0])
    assert calibration_error(apart, bins=15).value == pytest.approx((0.5 + 0.54) / 2)
    assert calibration_error(apart, bins=14).value == pytest.approx((0.5 + 0.54) / 2)
    assert calibration_error(apart, bins=10).value == pytest.approx((0.5 + 0.54) / 2)
    together = score_events([0.51, 0.56], [1, 0])  # one bin of 14 (.5 to .571), two of 15
    assert calibration_error(together, bins=14).value == pytest.approx(0.035)
    assert calibration_error(together, bins=15).value == pytest.approx((0.49 + 0.56) / 2)


@pytest.mark.parametrize("bins", [3, 10, 15, 49, 100])
def test_an_edge_belongs_to_the_bin_below_it(bins: int) -> None:
    """Every k/bins, where multiplying would put 0.07 into the eighth of a hundred."""
    edges = edges_of_equal_width(bins)
    assert bin_of(edges, edges).tolist() == [0, *range(bins)]
    above = np.nextafter(edges[:-1], 2)
    assert bin_of(above, edges).tolist() == list(range(bins))
    assert bin_of(np.array([0.07]), edges_of_equal_width(100)).tolist() == [6]


def test_the_midpoint_of_the_notes_and_its_spurious_error() -> None:
    """A model of confidence .999 that is always right: 1/(2 bins) by midpoints, .001 by means."""
    found = score_events(np.full(100, 0.999), np.ones(100))
    for bins in (10, 15, 20):
        midpoint = calibration_error(found, bins=bins, bin_confidence="midpoint")
        assert midpoint.value == pytest.approx(1 / (2 * bins))
        assert calibration_error(found, bins=bins).value == pytest.approx(0.001)


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from(["width", "mass"]))
def test_all_norms_against_loops(seed: int, bins: int, binning: str) -> None:
    """Bin by bin in plain Python, with confidences that fall on edges and repeat."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 31, 50) / 30
    y = rng.integers(0, 2, 50)
    edges = edges_of_equal_width(bins) if binning == "width" else edges_of_equal_mass(c, bins)
    one, two, debiased, gaps = 0.0, 0.0, 0.0, []
    for m, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = [i for i in range(50) if low < c[i] <= high or (m == 0 and c[i] == 0)]
        if inside:
            n, acc = len(inside), y[inside].mean()
            gaps.append(abs(acc - c[inside].mean()))
            one += n / 50 * gaps[-1]
            two += n / 50 * gaps[-1] ** 2
            debiased += n / 50 * (gaps[-1] ** 2 - acc * (1 - acc) / max(n - 1, 1))
    found = score_events(c, y)
    for norm, expected in (
        ("l1", one),
        ("l2", math.sqrt(two)),
        ("max", max(gaps)),
        ("debiased", math.copysign(math.sqrt(abs(debiased)), debiased)),
    ):
        value = calibration_error(found, bins=bins, norm=norm, binning=binning).value
        # A square root of what cancels to nothing has half the digits.
        assert value == pytest.approx(expected, abs=1e-12 if norm in ("l1", "max") else 1e-7)


def test_bins_of_equal_mass_do_not_depend_on_the_order_of_ties() -> None:
    """Splitting a sorted array anywhere puts equal confidences into two bins."""
    c = np.array([0.5] * 6 + [0.9] * 2)
    y = np.array([1, 1, 1, 0, 0, 0, 1, 1])
    forward = calibration_error(score_events(c, y), bins=4, binning="mass")
    backward = calibration_error(score_events(c[::-1], y[::-1]), bins=4, binning="mass")
    assert forward.value == backward.value == pytest.approx(0.025)
    assert forward.table.counts.tolist() == [6, 2]


def test_equal_mass_splits_distinct_confidences_evenly() -> None:
    """100 of them in 10 bins: ten each."""
    c = np.random.default_rng(0).random(100)
    found = calibration_error(score_events(c, c > 0.5), bins=10, binning="mass")
    assert found.table.counts.tolist() == [10] * 10


def test_the_mce_says_how_many_inputs_its_bin_has() -> None:
    """Here a single one makes it."""
    found = maximum_calibration_error(score_events([0.9] * 9 + [0.3], [1] * 9 + [1]))
    assert found.value == pytest.approx(0.7)
    assert found.table.counts[found.worst_bin] == 1


def test_logits_in_the_unit_interval_are_not_taken_for_probabilities() -> None:
    """torchmetrics guesses by the range: .150 instead of .486 in such a case."""
    z = np.array([[0.9, 0.1], [0.8, 0.2]])
    as_logits = calibration_error(score_logits(z, [0, 0])).value
    as_probabilities = calibration_error(score_probabilities(z, [0, 0])).value
    assert as_logits == pytest.approx(1 - (1 / (1 + np.exp(-np.array([0.8, 0.6])))).mean())
    assert as_probabilities == pytest.approx(0.15)


def test_the_predicted_class_and_the_event_are_two_conventions() -> None:
    """Both are right; the function's name says which."""
    p = np.array([0.2, 0.2, 0.2, 0.2])
    y = np.array([0, 0, 0, 1])
    event = calibration_error(score_events(p, y), bins=4)
    top = calibration_error(score_probabilities(np.stack([1 - p, p], 1), y), bins=4)
    assert (event.value, top.value) == (pytest.approx(0.05), pytest.approx(0.05))
    assert (event.table.counts.tolist(), top.table.counts.tolist()) == ([4, 0, 0, 0], [0, 0, 0, 4])


@pytest.mark.parametrize(
    ("inputs", "bins", "expected"),
    [(100, 10, 5.6), (360, 15, 3.7), (1000, 100, 5.6), (10_000, 15, 0.73)],
)
def test_the_floor_is_that_of_the_research_page(inputs: int, bins: int, expected: float) -> None:
    """Percent, measured there by redrawing everything; here given five sets of confidences."""
    how = Binning(bins=bins)
    floors = [calibration_floor(calibrated(inputs, s), how, replicates=80) for s in range(5)]
    assert 100 * np.mean([floor.mean for floor in floors]) == pytest.approx(expected, rel=0.08)


def test_the_floor_agrees_with_the_half_normal_formula_on_both_sides_of_large() -> None:
    """sqrt(2 / (pi N)) sum_m sqrt(w_m mean c (1 - c)): single draws, and groups of close ones."""
    for inputs in (15_000, 40_000):
        found = calibrated(inputs, seed=3)
        c, index = found.confidence, bin_of(found.confidence, edges_of_equal_width(15))
        spread = np.bincount(index, c * (1 - c), minlength=15) / inputs
        expected = math.sqrt(2 / (math.pi * inputs)) * np.sqrt(spread).sum()
        assert calibration_floor(found, replicates=300).mean == pytest.approx(expected, rel=0.06)


def test_redrawing_depends_on_the_seed_and_not_on_the_order_of_the_inputs() -> None:
    """The same inputs shuffled; then another seed."""
    found = calibrated(400)
    order = np.random.default_rng(5).permutation(400)
    shuffled = score_events(found.confidence[order], found.correct[order])
    assert calibration_floor(found) == calibration_floor(shuffled)
    assert bootstrap_calibration_error(found) == bootstrap_calibration_error(shuffled)
    assert calibration_floor(found) != calibration_floor(found, seed=1)


def test_the_floors_test_tells_calibrated_from_shifted() -> None:
    """p-values of calibrated sets are spread; of sets that are 10 % overconfident, small."""
    p = [calibration_floor(calibrated(300, s), replicates=99).p_value for s in range(40)]
    assert np.mean(np.array(p) <= 0.1) < 0.25
    assert 0.3 < np.mean(p) < 0.7
    shifted = calibration_floor(calibrated(1000, shift=0.1), replicates=99)
    assert shifted.p_value == pytest.approx(0.01)


@pytest.mark.parametrize(("shift", "inputs"), [(0.0, 500), (0.05, 500), (0.05, 30_000)])
def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says(
    shift: float, inputs: int
) -> None:
    """Confidences c and accuracy c - shift: the population's error is the shift."""
    held, sets = 0, 40 if inputs < 1000 else 10
    for seed in range(sets):
        found = bootstrap_calibration_error(calibrated(inputs, seed, shift), replicates=100)
        held += found.low <= shift <= found.high
    # At 95 %, fewer than this have probability 1e-3.
    assert held >= (33 if sets == 40 else 7)


def test_wilsons_interval_by_its_equation() -> None:
    """Its ends solve (p - k/n)^2 = z^2 p (1 - p)/n; nothing counted says nothing."""
    low, high = wilson(np.array([0.0, 3, 10, 0]), np.array([10.0, 10, 10, 0]))
    for k, p in ((0, high[0]), (3, low[1]), (3, high[1]), (10, low[2])):
        assert (p - k / 10) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / 10)
    assert (low[0], high[2], low[3], high[3]) == (0, 1, 0, 1)


def test_the_interval_of_a_mean_is_about_normal() -> None:
    """1.96 standard errors to each side."""
    values = np.random.default_rng(0).normal(3, 2, 2000)
    found = bootstrap_mean(values, replicates=2000)
    error = 1.96 * values.std() / math.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def direct_smooth(c: np.ndarray, y: np.ndarray, width: float) -> float:
    """The smoothed error by summing reflected kernels on a grid."""
    t = (np.arange(2000) + 0.5) / 2000
    images = np.concatenate([s * c + 2 * k for k in range(-4, 5) for s in (1, -1)])
    residuals = np.tile(y - c, 18) / len(c)
    kernel = np.exp(-0.5 * ((t[:, None] - images) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    return float(np.abs(kernel @ residuals).mean())


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.6])
def test_the_smooth_error_is_its_own_kernels_width(shift: float) -> None:
    """A fixed point of the error summed up directly."""
    found = calibrated(300, shift=shift)
    value = smooth_calibration_error(found)
    again = direct_smooth(found.confidence, found.correct, value)
    assert again == pytest.approx(value, abs=2e-4)


def test_the_smooth_error_at_its_extremes() -> None:
    """Always right at confidence 1: 0. Always wrong: nearly 1, the kernel's own limit."""
    assert smooth_calibration_error(score_events(np.ones(50), np.ones(50))) == 0
    wrong = smooth_calibration_error(score_events(np.ones(50), np.zeros(50)))
    assert wrong == pytest.approx(1, abs=1e-6)


def test_what_has_no_calibration_error() -> None:
    """No inputs; events by class; unknown words; levels outside (0, 1)."""
    empty, some = score_events([], []), score_events([0.5], [1])
    for call, complaint in (
        (lambda: calibration_error(empty), "at least 1"),
        (lambda: calibration_floor(empty), "at least 1"),
        (lambda: smooth_calibration_error(empty), "at least 1"),
        (lambda: classwise_calibration_error(some), "one class"),
        (lambda: calibration_error(some, norm="l3"), "l1, l2, max"),
        (lambda: calibration_error(some, binning="even"), "width, mass"),
        (lambda: calibration_error(some, bins=0), "bins is 0"),
        (lambda: calibration_floor(some, replicates=0), "replicates is 0"),
        (lambda: bootstrap_calibration_error(some, level=1.0), "level is 1"),
        (lambda: bootstrap_mean(np.array([np.inf])), "not finite"),
    ):
        with pytest.raises(UncertaintyInputError, match=complaint):
            call()
