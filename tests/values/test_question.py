"""Questions: their checks, distances rounded up, and which candidates count."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import DataError, SettingError, ShapeError
from verify.values.question import Question, question

NORMS = (math.inf, 2.0, 1.0)
PIXELS = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)


def asked(x: list[float], eps: float, p: float) -> Question:
    """One input in [0, 1] with label 0."""
    return question(torch.tensor([x]), torch.tensor([0]), eps, p, input_range=(0, 1))


def power(x: list[float], y: list[float], p: float) -> Fraction:
    """|x - y|_p, for p = 2 its square, in rational arithmetic."""
    gaps = [abs(Fraction(a) - Fraction(b)) for a, b in zip(x, y, strict=True)]
    return max(gaps) if math.isinf(p) else sum((g ** int(p) for g in gaps), Fraction(0))


@given(PIXELS, PIXELS, st.sampled_from(NORMS))
@settings(max_examples=200)
def test_distances_are_rounded_up(x: list[float], y: list[float], p: float) -> None:
    """Never below the exact distance of the float32 points, and at most 1e-13 above."""
    found = float(asked(x, 0.1, p).distance(torch.tensor([y])))
    exact = power(x, y, p)
    assert Fraction(found) ** (2 if p == 2 else 1) >= exact
    assert found == pytest.approx(float(exact) ** (0.5 if p == 2 else 1), rel=1e-13)


@given(PIXELS, PIXELS, st.sampled_from(NORMS), st.sampled_from([0.0, 0.01, 0.3, 1.0]))
@settings(max_examples=200)
def test_what_holds_is_in_the_region(x: list[float], y: list[float], p: float, eps: float) -> None:
    """A candidate that counts as a counterexample lies within eps, but for 1e-14, and in range."""
    ask = asked(x, eps, p)
    if bool(ask.holds(torch.tensor([y]))):
        most = Fraction(eps) * (1 + Fraction(1, 10**14))
        assert power(x, y, p) <= most ** (2 if p == 2 else 1)
        bounds = ask.region().bounds()
        wide = torch.tensor([y]).double()
        slack = 1e-15 * (1 + eps)
        assert bool((wide >= bounds.lower - slack).all())
        assert bool((wide <= bounds.upper + slack).all())


@pytest.mark.parametrize("p", NORMS)
def test_what_is_outside_does_not_hold(p: float) -> None:
    """Too far, out of range, NaN or infinite; the input itself holds at radius zero."""
    ask = asked([0.5, 0.5, 0.0], 0.25, p)
    far = torch.tensor([[0.76, 0.5, 0.0]])
    near = torch.tensor([[0.74, 0.5, 0.0]])
    below = torch.tensor([[0.5, 0.5, -1e-6]])
    assert ask.holds(near).tolist() == [True]
    for candidate in (far, below, far * math.nan, near * math.inf):
        assert ask.holds(candidate).tolist() == [False]
    assert asked([0.5, 0.5, 0.0], 0.0, p).holds(torch.tensor([[0.5, 0.5, 0.0]])).tolist() == [True]


def test_a_candidate_on_the_sphere_holds() -> None:
    """A float32 number at distance eps counts in L-inf; else one a rounding's width inside."""
    for p in NORMS:
        eps = 0.25 if math.isinf(p) else 0.25 * (1 + 1e-14)
        assert asked([0.5] * 3, eps, p).holds(torch.tensor([[0.75, 0.5, 0.5]])).tolist() == [True]


def test_rows_are_taken_with_everything_that_belongs_to_them() -> None:
    """Inputs, labels and radii stay together; `at` changes radii only."""
    x = torch.rand(3, 2)
    ask = question(x, torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.2, 0.3]), 2)
    few = ask.take(torch.tensor([2, 2, 0]))
    assert few.labels.tolist() == [2, 2, 0]
    assert few.eps.tolist() == pytest.approx([0.3, 0.3, 0.1], rel=1e-6)
    torch.testing.assert_close(few.x, x[[2, 2, 0]])
    assert ask.at(torch.full((3,), 0.5)).eps.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("x", "eps", "p", "limits", "error"),
    [
        ([[0.5, math.nan]], 0.1, 2.0, None, DataError),
        ([[0.5, math.inf]], 0.1, 2.0, None, DataError),
        ([[0.5, 1.5]], 0.1, 2.0, (0, 1), DataError),
        ([[0.5, 0.5]], -0.1, 2.0, None, SettingError),
        ([[0.5, 0.5]], math.nan, 2.0, None, SettingError),
        ([[0.5, 0.5]], math.inf, 2.0, None, SettingError),
        ([[0.5, 0.5]], 0.1, 3.0, None, SettingError),
        ([[0.5, 0.5]], 0.1, math.nan, None, SettingError),
        ([[0.5, 0.5]], 0.1, 2.0, (1, 0), SettingError),
        ([[0.5, 0.5]], 0.1, 2.0, (0, math.nan), SettingError),
        ([0.5, 0.5], 0.1, 2.0, None, ShapeError),
    ],
)
def test_senseless_questions_are_refused(
    x: list[list[float]],
    eps: float,
    p: float,
    limits: tuple[float, float] | None,
    error: type[Exception],
) -> None:
    """NaN anywhere, negative or infinite radii, other norms, empty ranges, missing batch axes."""
    with pytest.raises(error):
        question(torch.tensor(x), torch.tensor([0]), eps, p, input_range=limits)


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.7])
def test_an_input_on_a_limit_that_float32_rounds_outward_is_accepted(limit: float) -> None:
    """0.1 as float32 is above 0.1: an input at the range's end is still inside the range."""
    for sign in (1, -1):
        x = torch.tensor([[sign * limit, 0.0]])
        ends = (0.0, limit) if sign > 0 else (-limit, 0.0)
        ask = question(x, torch.tensor([0]), 0.01, input_range=ends)
        assert ask.holds(x).tolist() == [True]
        assert bool((ask.region().bounds().upper >= ask.region().bounds().lower).all())
