"""Charges that only the last bits need, each beside exact numbers: rationals, or 300 digits.

Where a bound is the value but for rounding, a term that is left out of a charge shows, if the terms
beside it are made small enough.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from mpmath import mp, mpf

from benchmarks.digits import gelu, sigmoid
from tests.contracts.samples import node as made
from tests.soundness.exactly import dotted, drawn, exact
from verify.bounders.cuts import through_step
from verify.graph.ir import Node
from verify.ops.curve import CURVES as SHAPES
from verify.ops.curves import FLUSHED
from verify.ops.registry import lines_of, lookup, noise_of
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.rounding import (
    FLOAT32,
    REAL,
    SPARE,
    UNIT_FLOAT32,
    UNIT_FLOAT64,
    Rounding,
    unit,
)

BITS = 300
SIZE = 48
"""Entries of a node."""
Number = Any


def tanh_gelu(x: Number) -> Number:
    """As the ONNX standard writes it, with the constant as float64 has it."""
    return x * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mpf(0.044715) * x**3))) / 2


CURVES: dict[str, tuple[Callable[[Number], Number], tuple[float, float]]] = {
    "Exp": (mp.exp, (-3, 3)),
    "Log": (mp.log, (0.1, 4)),
    "Sqrt": (mp.sqrt, (0.1, 4)),
    "Reciprocal": (lambda x: 1 / x, (0.2, 4)),
    "Softplus": (lambda x: mp.log(1 + mp.exp(x)), (-4, 4)),
    "Erf": (mp.erf, (-2, 2)),
    "Gelu": (gelu, (-3, 3)),
    "GeluTanh": (tanh_gelu, (-3, 3)),
    "Sin": (mp.sin, (-9, 9)),
    "Cos": (mp.cos, (-9, 9)),
    "Sigmoid": (sigmoid, (-5, 5)),
    "Tanh": (mp.tanh, (-4, 4)),
}
"""Functions, and where intervals are drawn from."""
BENT: dict[str, tuple[Node, Callable[[Fraction], Fraction], tuple[float, ...]]] = {
    "Relu": (made("Relu", (SIZE,)), lambda z: max(z, Fraction(0)), (0.0,)),
    "Clip": (
        made("Clip", (SIZE,), tensors={"low": torch.tensor(-0.3, dtype=torch.float64),
                                       "high": torch.tensor(0.7, dtype=torch.float64)}),
        lambda z: min(max(z, Fraction(-0.3)), Fraction(0.7)),
        (-0.3, 0.7),
    ),
    "TwoPiece": (
        made("TwoPiece", (SIZE,), tensors={"below": torch.tensor(0.1, dtype=torch.float64),
                                           "above": torch.tensor(1.3, dtype=torch.float64)}),
        lambda z: z * Fraction(0.1 if z < 0 else 1.3),
        (0.0,),
    ),
    "Concave": (
        made("TwoPiece", (SIZE,), tensors={"below": torch.tensor(1.3, dtype=torch.float64),
                                           "above": torch.tensor(0.1, dtype=torch.float64)}),
        lambda z: z * Fraction(1.3 if z < 0 else 0.1),
        (0.0,),
    ),
}  # fmt: skip
"""Nodes, what they are in rationals, and where they bend."""


def intervals(seed: int, low: float, high: float, width: float) -> Bounds:
    """Intervals within a range, up to so wide."""
    start = low + (high - low) * torch.rand(
        1, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    end = start + width * drawn(seed + 1, 1, SIZE).abs()
    return Bounds(start, end.clamp(max=high).maximum(start))


@pytest.mark.parametrize("op", CURVES)
def test_lines_of_curves_enclose_to_the_last_bit(op: str) -> None:
    """At the ends, where chords touch, and where tangents do: no tolerance."""
    value, (low, high) = CURVES[op]
    node = made(op, (SIZE,))
    for seed, width in ((0, 2.0), (3, 0.3), (6, 1e-3)):
        x = intervals(seed, low, high, width)
        lines = lines_of(node, (x,))
        assert lines.lower_offset is not None
        assert lines.upper_offset is not None
        shares = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
        z = torch.lerp(x.lower, x.upper, shares)
        given = lines.lower_slope, lines.lower_offset, lines.upper_slope, lines.upper_offset
        rows = [t.expand(1, 1, SIZE)[0, 0].tolist() for t in given]
        with mp.workprec(BITS):
            for k in range(SIZE):
                a, b, c, d = (mpf(row[k]) for row in rows)
                for point in z[:, k].tolist():
                    y = value(mpf(point))
                    assert a * point + b <= y <= c * point + d, (op, k, point)


@pytest.mark.parametrize("op", BENT)
def test_lines_of_kinks_enclose_to_the_last_bit(op: str) -> None:
    """At ends and kinks, on intervals of every scale, where one end is far from 0 too."""
    node, value, kinks = BENT[op]
    for seed, scale in enumerate((1.0, 1e3, 1e-3)):
        x = intervals(seed, -scale, scale, scale)
        lines = lines_of(node, (x,))
        zero = torch.zeros(1, 1, SIZE, dtype=torch.float64)
        given = lines.lower_slope, lines.lower_offset, lines.upper_slope, lines.upper_offset
        rows = [(zero if t is None else t).expand(1, 1, SIZE).flatten() for t in given]
        for k in range(SIZE):
            a, b, c, d = (Fraction(float(row[k])) for row in rows)
            ends = [float(x.lower[0, k]), float(x.upper[0, k])]
            for z in map(Fraction, [*ends, *(p for p in kinks if ends[0] < p < ends[1])]):
                assert a * z + b <= value(z) <= c * z + d, (op, k, float(z))


FAR = {"Sin": 2.0**18, "Cos": 2.0**18, "Log": 1.0}
"""Where slopes are much more than values."""
PULLED = [
    *((op, scale) for op in (*CURVES, *BENT) for scale in (1e-9, 1.0)),
    *((op, -1.0) for op in FAR),
]


@pytest.mark.parametrize(("op", "scale"), PULLED)
def test_rows_pay_for_being_pulled_through(op: str, scale: float) -> None:
    """Coefficients and offsets are rounded, summed and rounded: the noise holds all of it."""
    if op in BENT:
        node, x = BENT[op][0], intervals(5, -scale, scale, scale)
    else:
        low, high = CURVES[op][1] if scale > 0 else (FAR[op], FAR[op] + 1e-3)
        node, x = made(op, (SIZE,)), intervals(5, low, high, abs(scale))
    if op in ("Sigmoid", "Tanh") and scale < 1:
        x = Bounds(-scale * drawn(7, 1, SIZE).abs(), scale * drawn(8, 1, SIZE).abs())
    lines = lines_of(node, (x,))
    noise = noise_of(node, REAL, torch.float64, (x,))
    assert noise is not None
    coeff = drawn(9, 1, 8, SIZE)
    (found,) = lookup(node).pull_back(node, LinearForm(coeff, torch.zeros(1, 8).double()), lines)
    zero = torch.zeros(1, 1, SIZE, dtype=torch.float64)
    low_line = lines.lower_slope, zero if lines.lower_offset is None else lines.lower_offset
    high_line = lines.upper_slope, zero if lines.upper_offset is None else lines.upper_offset
    for row in range(8):
        for z in (x.lower, x.upper):
            z = exact(z)
            total = Fraction(0)
            for k, a in enumerate(exact(coeff[0, row])):
                slope, offset = low_line if a > 0 else high_line
                total += a * (
                    Fraction(float(slope[0, 0, k])) * z[k] + Fraction(float(offset[0, 0, k]))
                )
            claim = dotted(exact(found.coeff[0, row]), z) + Fraction(float(found.const[0, row]))
            charge = dotted([abs(a) for a in exact(coeff[0, row])], exact(noise[0]))
            assert claim - charge <= total


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e6, 1e-6), (1e-3, 1e3)])
def test_planes_of_products_and_their_rows_hold_to_the_last_bit(
    scales: tuple[float, float],
) -> None:
    """Bilinear: what a plane leaves is extreme at the corners."""
    node = made("Mul", (SIZE,), (SIZE,))
    x, y = (intervals(3 * i, -s, s, s) for i, s in enumerate(scales))
    lines = lines_of(node, (x, y))
    assert lines.second is not None
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    parts_ = [t[0, 0] for t in (
        lines.lower_slope, lines.second.lower_slope, lines.lower_offset,
        lines.upper_slope, lines.second.upper_slope, lines.upper_offset)]  # fmt: skip
    corners = [(a, b) for a in (x.lower, x.upper) for b in (y.lower, y.upper)]
    for k in range(SIZE):
        s, t, c, u, v, d = (Fraction(float(p[k])) for p in parts_)
        for a, b in corners:
            p, q = Fraction(float(a[0, k])), Fraction(float(b[0, k]))
            assert s * p + t * q + c <= p * q <= u * p + v * q + d
    noise = noise_of(node, REAL, torch.float64, (x, y))
    assert noise is not None
    coeff = drawn(4, 1, 4, SIZE)
    first, second = lookup(node).pull_back(
        node, LinearForm(coeff, torch.zeros(1, 4).double()), lines
    )
    for row in range(4):
        rates = exact(coeff[0, row])
        charge = dotted([abs(a) for a in rates], exact(noise[0]))
        for a, b in corners:
            p, q = exact(a), exact(b)
            total = Fraction(0)
            for k, rate in enumerate(rates):
                s, t, c = parts_[:3] if rate > 0 else parts_[3:]
                at = Fraction(float(s[k])) * p[k] + Fraction(float(t[k])) * q[k]
                total += rate * (at + Fraction(float(c[k])))
            claim = dotted(exact(first.coeff[0, row]), p) + dotted(exact(second.coeff[0, row]), q)
            claim += Fraction(float(first.const[0, row])) + Fraction(float(second.const[0, row]))
            assert claim - charge <= total


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.0, 1e-12), (1e-12, 1.0)])
def test_lines_under_steps_pay_at_both_scales(scales: tuple[float, float]) -> None:
    """A·relu(z) + q·v(z) at the three points that decide, summed over a node."""
    node = made("Relu", (SIZE,))
    for seed in range(8):
        low, high = -drawn(seed, 1, SIZE).abs() - 0.01, drawn(seed + 1, 1, SIZE).abs() + 0.01
        coeff = drawn(seed + 2, 1, 1, SIZE, scale=scales[0])
        step = drawn(seed + 3, 1, SIZE, scale=scales[1])
        zero = torch.zeros(1, 1, dtype=torch.float64)
        alpha = torch.full((1, SIZE), 0.4, dtype=torch.float64)
        form = LinearForm(coeff, zero, zero)
        found = through_step(form, step, alpha, Bounds(low, high), node)
        assert found.error is not None
        total = Fraction(0)
        groups = zip(*(exact(t) for t in (coeff, step, found.coeff, low, high)), strict=True)
        for a, q, nu, left, right in groups:
            total += min(-nu * left, a * right + q - nu * right, min(q, Fraction(0)))
        assert Fraction(float(found.const)) - Fraction(float(found.error)) <= total


def test_what_is_flushed_or_unknown_has_no_finite_charge() -> None:
    """Domains of kernels, and the edges that the rules themselves state."""

    def charge(op: str, low: float, high: float, rounding: Rounding = FLOAT32) -> float:
        ends = (torch.full((1, 1), end, dtype=torch.float64) for end in (low, high))
        found = noise_of(made(op, (1,)), rounding, torch.float64, (Bounds(*ends),))
        assert found is not None
        return float(found)

    inf = float("inf")
    assert charge("Reciprocal", 0.75 * FLUSHED, 1.0) == inf
    assert charge("Reciprocal", -1.0, -0.75 * FLUSHED) == inf
    assert charge("Log", FLUSHED / 2, 1.0) == inf
    assert charge("Sqrt", -1e-3, 1.0) == inf
    assert charge("Sqrt", 0.0, 2.0**20 * FLUSHED) >= FLUSHED**0.5
    assert charge("Sin", 0.0, 2.0**21) == inf
    assert charge("GeluTanh", 0.0, 2e12) == inf
    assert charge("Exp", 0.0, 70.0) == inf
    assert charge("Exp", 0.0, 1.0, REAL) < 1e-12
    assert charge("Exp", -300.0, -200.0) >= FLOAT32.smallest


def test_values_where_turns_are_not_known_are_bounded_by_the_whole_range() -> None:
    """Across a pole, over more than a period, and so far out that turns are not computed."""

    def interval(op: str, low: float, high: float) -> tuple[float, float]:
        ends = (torch.full((1, 1), end, dtype=torch.float64) for end in (low, high))
        node = made(op, (1,))
        found = lookup(node).interval(node, Bounds(*ends))
        return float(found.lower), float(found.upper)

    inf = float("inf")
    assert interval("Reciprocal", -1.0, 2.0) == (-inf, inf)
    assert interval("Reciprocal", 0.0, 2.0) == (-inf, inf)
    assert interval("Sin", 2.0**21, 2.0**21 + 0.01) == (-1.0, 1.0)
    assert interval("Cos", 0.1, 9.0) == (-1.0, 1.0)
    lines = lines_of(made("Reciprocal", (1,)), (Bounds(-torch.ones(1, 1), torch.ones(1, 1)),))
    assert float(lines.lower_slope) == float(lines.upper_slope) == 0.0


@pytest.mark.parametrize("op", [op for op in CURVES if op not in ("Sigmoid", "Tanh")])
def test_curves_bend_the_way_they_are_said_to(op: str) -> None:
    """By second derivatives of the value itself, on a grid finer than any cell."""
    low, high = CURVES[op][1]
    z = torch.linspace(low, high, 4001, dtype=torch.float64).requires_grad_()
    node = made(op, (4001,))
    value = lookup(node).forward(node, z[None])
    (first,) = torch.autograd.grad(value.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    said = SHAPES[op].convex(node, z.detach()[None])[0]
    known = second.abs() > 1e-9
    assert int(known.sum()) > 3900
    assert torch.equal(said[known], second[known] > 0)


def test_units_are_those_of_their_arithmetic() -> None:
    """Twice as much for float32 would be noticed by no bound of float64."""
    assert unit(torch.float32) == UNIT_FLOAT32 == 2.0**-24
    assert unit(torch.float64) == UNIT_FLOAT64 == 2.0**-53
    assert SPARE[torch.float64] - 1 >= 2**22 * UNIT_FLOAT64
    assert SPARE[torch.float32] - 1 >= 2**17 * UNIT_FLOAT32
