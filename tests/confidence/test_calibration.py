"""The certified range of the ECE: against brute force over all assignments of tiny sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uncertainty import calibration_error as reference
from uncertainty import score_events
from verify.confidence.calibration import (
    EDGE,
    Outcomes,
    calibration_error,
    error_range,
    points,
    worst_choice,
)
from verify.errors import DataError, SettingError


def drawn(seed: int, count: int, width: float) -> Outcomes:
    """Random alternatives: right and wrong, one of them impossible for some."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 1, (count, 2))
    high = np.minimum(1, low + rng.uniform(0, width, (count, 2)))
    possible = np.ones((count, 2), dtype=bool)
    possible[np.arange(count), rng.integers(0, 2, count)] = rng.random(count) < 0.5
    correct = np.tile([True, False], (count, 1))
    return Outcomes(*(torch.as_tensor(value) for value in (low, high, correct, possible)))


def brute(of: Outcomes, bins: int) -> tuple[float, float]:
    """All assignments of alternatives and bins; per bin, |sum (c - z)| over the product box."""
    count = len(of.low)
    edges = [m / bins for m in range(bins + 1)]
    choices = []
    for n in range(count):
        found = []
        for a in range(2):
            if not of.possible[n, a]:
                continue
            for m in range(bins):
                low = max(float(of.low[n, a]), edges[m])
                high = min(float(of.high[n, a]), edges[m + 1])
                if low <= high:
                    c = float(of.correct[n, a])
                    found.append((m, c - high, c - low))
        choices.append(found)
    most, least = 0.0, np.inf
    for chosen in itertools.product(*choices):
        low, high = np.zeros(bins), np.zeros(bins)
        for m, a, b in chosen:
            low[m] += a
            high[m] += b
        most = max(most, np.maximum(np.abs(low), np.abs(high)).sum())
        least = min(
            least, np.where((low <= 0) & (high >= 0), 0, np.minimum(abs(low), abs(high))).sum()
        )
    return least / count, most / count


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0, 0.1, 0.6]))
@settings(max_examples=80, deadline=None)
def test_the_upper_end_is_the_brute_force_maximum(
    seed: int, count: int, bins: int, width: float
) -> None:
    """And the lower end, a relaxation, never exceeds the brute-force minimum."""
    of = drawn(seed, count, width)
    least, most = brute(of, bins)
    found = error_range(of, bins)
    assert most <= found.high <= most + 1e-12
    assert -1e-12 <= found.low <= least + 1e-12


def test_the_lower_end_is_tight_for_points() -> None:
    """Nothing can move: both ends are the error itself, up to rounding."""
    rng = np.random.default_rng(0)
    z, c = torch.as_tensor(rng.uniform(0.01, 0.99, 200)), torch.as_tensor(rng.random(200) < 0.6)
    found = error_range(points(z[:, None], c[:, None]), 10)
    clean = calibration_error(z, c, 10)
    assert found.low <= clean <= found.high
    assert found.high - found.low < 1e-12


def test_the_lower_end_can_be_positive() -> None:
    """Inputs that are always wrong with a confidence above .8: an error of at least .8."""
    low, high = torch.full((50, 1), 0.8).double(), torch.full((50, 1), 0.9).double()
    wrong = torch.zeros(50, 1, dtype=torch.bool)
    found = error_range(Outcomes(low, high, wrong, ~wrong), 15)
    assert found.low == pytest.approx(0.8, abs=1e-6)
    assert found.high == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_choice_is_the_brute_force_one(seed: int) -> None:
    """Over all combinations of attained points, judged by the error of package uncertainty."""
    rng = np.random.default_rng(seed)
    z, c = torch.as_tensor(rng.uniform(0, 1, (5, 3))), torch.as_tensor(rng.random((5, 3)) < 0.5)
    z[0, 0], z[1, 1] = 1.0, 0.25  # ends of bins
    picked = worst_choice(points(z, c), 4)
    rows = torch.arange(5)

    def error(choice: torch.Tensor) -> float:
        event = score_events(z[rows, choice].numpy(), c[rows, choice].numpy())
        return float(reference(event, bins=4).value)

    best = max(error(torch.tensor(choice)) for choice in itertools.product(range(3), repeat=5))
    assert error(picked) == pytest.approx(best)
    assert error(picked) == pytest.approx(calibration_error(z[rows, picked], c[rows, picked], 4))


def test_a_stretched_interval_may_sit_in_either_bin() -> None:
    """A confidence at an edge counts for both bins, however the edge was rounded."""
    z = torch.tensor([[0.2], [0.2 + EDGE / 4]], dtype=torch.float64)
    c = torch.tensor([[True], [False]])
    assert error_range(points(z, c), 15).high >= (0.8 + 0.2) / 2


@pytest.mark.parametrize("bins", [0, -1, 21])
def test_bins_out_of_range_are_refused(bins: int) -> None:
    """More than twenty would try more than a million signs."""
    with pytest.raises(SettingError, match="bins is"):
        error_range(drawn(0, 3, 0.1), bins)


def test_what_is_no_confidence_is_refused() -> None:
    """NaN, a negative one, a range upside down, an input without an alternative."""
    yes = torch.ones(1, 1, dtype=torch.bool)
    for low, high in ((float("nan"), 1.0), (-0.1, 0.5), (0.6, 0.5)):
        with pytest.raises(DataError, match="range of confidence"):
            Outcomes(torch.tensor([[low]]), torch.tensor([[high]]), yes, yes)
    with pytest.raises(DataError, match="range of confidence"):
        Outcomes(torch.tensor([[0.1]]), torch.tensor([[0.5]]), yes, ~yes)


def test_an_empty_set_has_no_error() -> None:
    """Nothing to be wrong about."""
    found = error_range(points(torch.zeros(0, 1).double(), torch.zeros(0, 1, dtype=torch.bool)))
    assert (found.low, found.high) == (0, 0)
