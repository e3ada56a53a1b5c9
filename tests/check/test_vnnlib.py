"""Properties are read exactly, and what the checker does not know is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from verify.check.refusal import Refusal
from verify.check.vnnlib import hull, read_property

HEAD = "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real) ; a comment\n"
BOX = "(assert (>= X_0 -1e-1))(assert (<= X_0 0.3))"


def test_a_box_and_a_clause_are_read_exactly() -> None:
    """Decimals as rationals; >= turned round; constants moved to one side."""
    (case,) = read_property(HEAD + BOX + "(assert (>= Y_0 Y_1))(assert (<= Y_1 2.5))", 1, 2)
    assert (case.lower, case.upper) == ([Fraction(-1, 10)], [Fraction(3, 10)])
    ((first, second),) = case.clauses
    assert (first.coefficients, first.constant) == ({1: 1, 0: -1}, 0)
    assert (second.coefficients, second.constant) == ({1: 1}, Fraction(-5, 2))


def test_and_and_or_are_multiplied_out_and_equal_boxes_joined() -> None:
    """(a or b) and (c or d) gives four clauses of one box; an or of boxes gives two cases."""
    text = HEAD + BOX
    text += "(assert (or (<= Y_0 0) (and (>= Y_0 1) (<= Y_1 0))))(assert (or (<= Y_1 3)(>= Y_1 4)))"
    (case,) = read_property(text, 1, 2)
    assert [len(clause) for clause in case.clauses] == [2, 2, 3, 3]
    boxes = "(assert (or (and (<= X_0 0)(>= X_0 -1)(<= Y_0 0)) (and (<= X_0 2)(>= X_0 1))))"
    first, second = read_property(HEAD + boxes, 1, 2)
    assert (first.upper, second.lower) == ([0], [1])
    assert second.clauses == [[]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "(assert (<= X_0 1))", "not bounded on both sides"),
        (HEAD + BOX + "(assert (<= X_0 Y_0))", "ties several variables"),
        (HEAD + BOX + "(assert (<= Z_0 1))", "neither a declared variable"),
        (HEAD + BOX + "(assert (= Y_0 1))", "does not read '='"),
        (HEAD + BOX + "(assert (<= Y_0 1e999999))", "neither a declared variable nor a number"),
        (HEAD + BOX + "(assert (<= Y_0 0x10))", "neither a declared"),
        (HEAD + BOX + "(assert (<= Y_0 nan))", "neither a declared"),
        (HEAD + BOX + "(assert (<= Y_0 1)", "ends inside a bracket"),
        (HEAD + BOX + ")", "not opened"),
        ("(" * 200, "too deeply"),
        (HEAD + HEAD, "declared twice"),
        ("(declare-const X_0 Real)", "does not declare"),
        (HEAD + "(check-sat)", "does not read the statement"),
        (HEAD + BOX + "(assert (or " + "(<= Y_0 1)" * 2 + "))" + "", None),
        (HEAD + BOX + "(assert (or (<= Y_0 1)(<= Y_0 2)))" * 25, "too many terms"),
    ],
)
def test_what_is_not_known_is_refused(text: str, message: str | None) -> None:
    """With a reason; nothing is skipped."""
    if message is None:
        assert len(read_property(text, 1, 2)) == 1
        return
    with pytest.raises(Refusal, match=message):
        read_property(text, 1, 2)


def test_the_hull_holds_the_decimal_and_its_float32_cast() -> None:
    """0.1 is no float64 and no float32: the ends lie outside both."""
    rng = np.random.default_rng(0)
    values = [Fraction(int(rng.integers(-(10**9), 10**9)), 10**9) for _ in range(200)]
    values += [Fraction(1, 10), Fraction(0), Fraction(1), Fraction(2**24 + 1)]
    low, high = hull(values, -1), hull(values, 1)
    for i, value in enumerate(values):
        assert Fraction(low[i]) <= value <= Fraction(high[i])
        single = Fraction(float(np.float32(float(value))))
        assert Fraction(low[i]) <= single <= Fraction(high[i])
        assert high[i] - low[i] <= abs(float(value)) * 2.0**-23
    assert (low[-2], high[-2]) == (1.0, 1.0)


def test_bounds_that_float32_does_not_hold_are_refused() -> None:
    """An input of 1e39 is no float32 number."""
    for value in (Fraction(10) ** 39, Fraction(10) ** 400):
        with pytest.raises(Refusal, match="beyond float"):
            hull([value], 1)
