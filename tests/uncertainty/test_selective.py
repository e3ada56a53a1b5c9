"""Risk-coverage curves: by hand, over all orders of ties, and at their extremes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncertainty.errors import UncertaintyInputError
from uncertainty.selective import risk_coverage


def test_a_curve_by_hand() -> None:
    """Right, wrong, right, in the order of certainty: 0, 1/2, 1/3."""
    found = risk_coverage([1, 0, 0], [0.2, 0.1, 0.3])
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3])
    np.testing.assert_allclose(found.coverage, [1 / 3, 2 / 3, 1])
    assert found.aurc == pytest.approx(5 / 18)
    assert found.best == pytest.approx(1 / 9)
    assert found.excess == pytest.approx(5 / 18 - 1 / 9)
    assert (found.coverage_at(0.0), found.coverage_at(0.4), found.coverage_at(-1)) == (1 / 3, 1, 0)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=6))
def test_ties_are_averaged_over_all_their_orders(items: list[tuple[int, int]]) -> None:
    """Every permutation that sorts the uncertainties counts alike."""
    losses, doubts = zip(*items, strict=True)
    curves = [
        np.cumsum([losses[i] for i in order]) / np.arange(1, len(order) + 1)
        for order in itertools.permutations(range(len(items)))
        if all(doubts[a] <= doubts[b] for a, b in itertools.pairwise(order))
    ]
    found = risk_coverage(losses, doubts)
    np.testing.assert_allclose(found.risk, np.mean(curves, axis=0), atol=1e-12)
    assert found.excess >= -1e-12


def test_the_best_order_tends_to_its_limit_and_no_order_at_all_to_the_error_rate() -> None:
    """r + (1 - r) log(1 - r) for an error rate r and many inputs."""
    losses = np.arange(20_000) < 4000
    found = risk_coverage(losses, losses.astype(float))
    assert found.aurc == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=1e-4)
    assert found.excess == 0
    assert risk_coverage(losses, np.zeros(20_000)).aurc == pytest.approx(0.2)


def test_what_has_no_curve_is_refused() -> None:
    """No inputs, two lengths, NaN."""
    for losses, doubts, complaint in (
        ([], [], "at least 1"),
        ([1.0], [1.0, 2.0], "1 losses and 2"),
        ([1.0], [np.nan], "nan"),
    ):
        with pytest.raises(UncertaintyInputError, match=complaint):
            risk_coverage(losses, doubts)
