"""Minima over boxes and balls: against cvxpy, rational arithmetic and points of the region."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from verify.errors import SettingError, ShapeError
from verify.values.linear_form import LinearForm
from verify.values.region import Box, LpBall, ball

NUMBERS = st.floats(-1, 1, width=32)
COEFFICIENTS = st.one_of(
    st.just(0.0),
    st.just(1.0),
    NUMBERS,
    NUMBERS.map(lambda v: v * 1e6),
    NUMBERS.map(lambda v: v / 1e6),
)


@dataclass(frozen=True)
class Case:
    """One linear form and one ball."""

    coeff: tuple[float, ...]
    centre: tuple[float, ...]
    eps: float
    p: float
    low: float
    high: float

    def region(self) -> Box | LpBall:
        """The ball as the package builds it."""
        centre = torch.tensor([self.centre], dtype=torch.float64)
        return ball(centre, self.eps, self.p, lower=self.low, upper=self.high)

    def form(self, *, rigorous: bool) -> LinearForm:
        """The form, with or without an error term."""
        const = torch.zeros(1, 1, dtype=torch.float64)
        coeff = torch.tensor([[self.coeff]], dtype=torch.float64)
        return LinearForm(coeff, const, torch.zeros_like(const) if rigorous else None)


@st.composite
def cases(draw: st.DrawFn, norms: tuple[float, ...] = (1.0, 2.0, math.inf)) -> Case:
    """Zero coefficients, zero radii, centres on the limits and no limits at all among them."""
    size = draw(st.integers(1, 6))
    low, high = draw(st.sampled_from([(0.0, 1.0), (-math.inf, math.inf), (0.0, math.inf)]))
    places = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1, width=32))
    return Case(
        tuple(draw(COEFFICIENTS) for _ in range(size)),
        tuple(draw(places) for _ in range(size)),
        draw(st.sampled_from([0.0, 1e-9, 0.01, 0.1, 0.3, 1.0, 10.0])),
        draw(st.sampled_from(norms)),
        low,
        high,
    )


def solved(case: Case) -> float:
    """The minimum by cvxpy, of the form scaled to have largest coefficient 1."""
    import cvxpy

    size = max(map(abs, case.coeff))
    if size == 0:
        return 0.0
    x = cvxpy.Variable(len(case.coeff))
    centre = np.array(case.centre)
    limits = [cvxpy.norm(x - centre, case.p if math.isinf(case.p) else int(case.p)) <= case.eps]
    if math.isfinite(case.low):
        limits.append(x >= case.low)
    if math.isfinite(case.high):
        limits.append(x <= case.high)
    task = cvxpy.Problem(cvxpy.Minimize((np.array(case.coeff) / size) @ x), limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the solver's accuracy; the tolerance is below
        task.solve(solver=cvxpy.CLARABEL)
    return float(task.value) * size


@given(cases())
@settings(max_examples=120)
def test_minimum_is_cvxpys(case: Case) -> None:
    """Within a millionth of the largest coefficient, from below."""
    found = float(case.region().minimise(case.form(rigorous=False)))
    size = max(1e-300, *map(abs, case.coeff))
    assert found == pytest.approx(solved(case), abs=1e-6 * size * max(1.0, case.eps))


def exact_value(coeff: tuple[float, ...], point: Tensor) -> Fraction:
    """a·x in rational arithmetic."""
    pairs = zip(coeff, point.flatten().tolist(), strict=True)
    return sum((Fraction(a) * Fraction(v) for a, v in pairs), Fraction(0))


LARGE_BESIDE_SMALL = Case(
    (0.0, 0.0, -0.9765625, 1e6, 0.0), (0.0, 0.0, 0.0, 0.5, 0.0), 1.0, 2.0, 0.0, 1.0
)


@given(cases())
@example(LARGE_BESIDE_SMALL)
@settings(max_examples=300)
def test_minimiser_is_inside_and_attains_the_minimum(case: Case) -> None:
    """The returned point is in the region, and no other point found is lower."""
    region, form = case.region(), case.form(rigorous=False)
    point = region.minimiser(form.coeff)[0, 0]
    bounds = region.bounds()
    assert bool((point >= bounds.lower[0]).all())
    assert bool((point <= bounds.upper[0]).all())
    moved = point - torch.tensor(case.centre, dtype=torch.float64)
    assert float(torch.linalg.vector_norm(moved, ord=case.p)) <= case.eps * (1 + 1e-12) + 1e-14
    attained = float(exact_value(case.coeff, point))
    least = float(region.minimise(form))
    size = sum(map(abs, case.coeff))
    assert attained == pytest.approx(least, abs=1e-12 * size * (1 + case.eps) + 1e-300)


def exact_minimum(case: Case) -> Fraction:
    """For p = infinity and p = 1 in rational arithmetic: each entry apart, or a knapsack."""
    eps = Fraction(case.eps)
    gain = Fraction(0)
    rooms = []
    for a, c in zip(case.coeff, case.centre, strict=True):
        limit = case.low if a > 0 else case.high
        room = eps if math.isinf(limit) else min(eps, abs(Fraction(c) - Fraction(limit)))
        rooms.append((abs(Fraction(a)), room))
    left = eps
    for size, room in sorted(rooms, reverse=True):
        step = room if math.isinf(case.p) else min(room, left)
        gain += size * step
        left -= step
    centre = torch.tensor(case.centre, dtype=torch.float64)
    return exact_value(case.coeff, centre) - gain


@given(cases(norms=(1.0, math.inf)))
@settings(max_examples=300)
def test_rigorous_minima_never_exceed_the_exact_ones(case: Case) -> None:
    """In rational arithmetic, with no tolerance; and they lose next to nothing."""
    exact = exact_minimum(case)
    found = Fraction(float(case.region().minimise(case.form(rigorous=True))))
    assert found <= exact
    size = Fraction(sum(map(abs, case.coeff))) * (1 + Fraction(case.eps))
    assert exact - found <= size / 10**11


@given(cases(norms=(2.0,)), st.integers(0, 10**6))
@settings(max_examples=300)
def test_rigorous_minima_over_l2_balls_are_below_every_point(case: Case, seed: int) -> None:
    """Points along -A, cut by the limits and inside the ball in rational arithmetic."""
    found = Fraction(float(case.region().minimise(case.form(rigorous=True))))
    generator = torch.Generator().manual_seed(seed)
    centre = torch.tensor(case.centre, dtype=torch.float64)
    best = case.region().minimiser(case.form(rigorous=False).coeff)[0, 0]
    for k in range(8):
        noise = torch.randn(len(centre), generator=generator, dtype=torch.float64)
        step = (best - centre) * (1 - 2.0**-48) + (0.0 if k == 0 else case.eps * 1e-3 * noise)
        norm = float(torch.linalg.vector_norm(step))
        step = step * min(1.0, case.eps / norm * (1 - 1e-14)) if norm > 0 else step
        point = torch.minimum(torch.maximum(centre + step, torch.tensor(case.low)),
                              torch.tensor(case.high)).double()  # fmt: skip
        gaps = (Fraction(a) - Fraction(b) for a, b in zip(point.tolist(), case.centre, strict=True))
        if sum(g * g for g in gaps) <= Fraction(case.eps) ** 2:
            assert found <= exact_value(case.coeff, point)


def test_a_mutant_without_the_rounding_charge_is_caught() -> None:
    """2^54 - 1 - 2^54 in some order: plain float64 gives 0 where the value is -1."""
    one = torch.ones(1, 3, dtype=torch.float64)
    plain, rigorous = [], []
    for coeff in itertools.permutations((2.0**54, -1.0, -(2.0**54))):
        rows = torch.tensor([[coeff]], dtype=torch.float64)
        const = torch.zeros(1, 1, dtype=torch.float64)
        plain.append(float(Box(one, one).minimise(LinearForm(rows, const))))
        rigorous.append(float(Box(one, one).minimise(LinearForm(rows, const, const))))
    assert max(plain) > -1
    assert max(rigorous) <= -1


def test_one_entry_alone_takes_the_whole_radius() -> None:
    """Rounding of eps² must not leave the only entry that matters where it was."""
    for eps in torch.linspace(0.001, 1, 100).tolist():
        region = ball(torch.ones(1, 3), eps, 2, lower=-9, upper=9)
        point = region.minimiser(torch.tensor([[[0.0, 1.0, 0.0]]], dtype=torch.float64))
        assert float(point[0, 0, 1]) == pytest.approx(1 - eps, rel=1e-9)


@given(cases(norms=(1.0, 2.0)))
@settings(max_examples=60)
def test_a_ball_is_inside_its_box(case: Case) -> None:
    """The box's minimum is never above the ball's, and never below eps times the dual norm."""
    region = case.region()
    bounds = region.bounds()
    boxed = float(Box(bounds.lower, bounds.upper).minimise(case.form(rigorous=False)))
    inside = float(region.minimise(case.form(rigorous=False)))
    assert boxed <= inside + 1e-9 * sum(map(abs, case.coeff)) * (1 + case.eps)
    dual = max(map(abs, case.coeff)) if case.p == 1 else math.hypot(*case.coeff)
    centre = float(exact_value(case.coeff, torch.tensor(case.centre, dtype=torch.float64)))
    assert inside >= centre - case.eps * dual - 1e-9 * dual * (1 + case.eps)


def test_boxes_are_rounded_outward() -> None:
    """centre +- eps in rational arithmetic lies in the box, for eps that float64 cannot hold."""
    for centre in (0.1, 1e8, -3e-5):
        for eps in (0.1, 1e-12, 0.03, 1e5):
            found = ball(torch.tensor([[centre]], dtype=torch.float64), eps).bounds()
            assert Fraction(float(found.lower)) <= Fraction(centre) - Fraction(eps)
            assert Fraction(float(found.upper)) >= Fraction(centre) + Fraction(eps)


def test_regions_are_taken_by_index_and_mask() -> None:
    """Rows of a batch, also several times."""
    centre = torch.arange(6.0).view(3, 2).double()
    for p in (math.inf, 2, 1):
        region = ball(centre, torch.tensor([0.1, 0.2, 0.3]), p)
        taken = region.take(torch.tensor([2, 0, 2]))
        torch.testing.assert_close(taken.bounds().lower, region.bounds().lower[[2, 0, 2]])
        masked = region.take(torch.tensor([False, True, False]))
        torch.testing.assert_close(masked.bounds().upper, region.bounds().upper[1:2])


@pytest.mark.parametrize(
    ("eps", "p", "lower", "word"),
    [(-0.1, 2, 0, "eps"), (math.nan, 2, 0, "eps"), (math.inf, 1, 0, "eps"), (0.1, 3, 0, "norm"),
     (0.1, 2, 0.9, "outside")],
)  # fmt: skip
def test_senseless_settings_are_refused(eps: float, p: float, lower: float, word: str) -> None:
    """Each with a message that names the setting."""
    with pytest.raises(SettingError, match=word):
        ball(torch.full((1, 2), 0.5), eps, p, lower=lower)


def test_a_form_over_another_shape_is_refused() -> None:
    """A form that was not pulled back to the input."""
    region = ball(torch.zeros(1, 3), 0.1)
    with pytest.raises(ShapeError, match="pull_back"):
        region.minimise(LinearForm(torch.zeros(1, 1, 4).double(), torch.zeros(1, 1).double()))


@pytest.mark.parametrize("kind", ["constants", "inputs", "tiny"])
def test_minima_of_rigorous_forms_are_never_above_the_exact_ones(kind: str) -> None:
    """Numbers that cancel with the constant, among themselves, or constants alone, in rationals."""
    above = 0
    for seed in range(100):
        make = torch.Generator().manual_seed(seed)
        base, width = (0.0, 2.0**-20) if kind == "tiny" else (100.0, 1.0)
        lower = base + width * torch.randn(1, 3, generator=make, dtype=torch.float64)
        upper = lower + width * torch.rand(1, 3, generator=make, dtype=torch.float64)
        coeff = torch.randn(1, 4, 3, generator=make, dtype=torch.float64)
        const = torch.randn(1, 4, generator=make, dtype=torch.float64)
        if kind == "inputs":
            coeff[..., -1] = -(coeff[..., :-1] @ lower[0, :-1]) / lower[0, -1]
            const = torch.zeros(1, 4, dtype=torch.float64)
        elif kind == "constants":
            const = -(coeff[0] @ lower[0])[None]
        form = LinearForm(coeff, const, torch.zeros(1, 4, dtype=torch.float64))
        found = Box(lower, upper).minimise(form)[0]
        for row in range(4):
            exact = Fraction(float(const[0, row]))
            for a, low, high in zip(coeff[0, row], lower[0], upper[0], strict=True):
                ends = (Fraction(float(low)), Fraction(float(high)))
                exact += min(Fraction(float(a)) * end for end in ends)
            assert Fraction(float(found[row])) <= exact
            above += exact - Fraction(float(found[row])) > Fraction(1, 10**9)
    assert above == 0
