"""A counterexample is confirmed by intervals at its point, and refused where it is none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.check.models import box_property, dense_bytes, runs
from verify.check.__main__ import check
from verify.check.refusal import Refusal

MODEL = dense_bytes(7)
POINT = np.float32([0.25, -0.5])
VALUE = float(runs(MODEL)[0](POINT)[0])


def written(point: np.ndarray) -> bytes:
    """As the competition writes it."""
    inner = "\n ".join(f"(X_{i} {float(x)!r})" for i, x in enumerate(point))
    return f"sat\n({inner}\n (Y_0 99))\n".encode()


def stated(level: float, low: float = -1.0) -> bytes:
    """Unsafe: Y_0 <= level, on a box."""
    return box_property(np.full(2, low), np.ones(2), [f"(<= Y_0 {level!r})"], 3).encode()


def test_a_clear_counterexample_holds_in_every_arithmetic() -> None:
    """Well beyond the border."""
    said = check(written(POINT), MODEL, stated(VALUE + 0.01))
    assert said.endswith("in real arithmetic and in every float32 execution")


def test_what_the_witness_says_of_outputs_is_not_believed() -> None:
    """Y_0 is written as 99; it is computed here, and is larger than what would be unsafe."""
    with pytest.raises(Refusal, match="within rounding"):
        check(written(POINT), MODEL, stated(VALUE - 0.01))


def test_within_rounding_it_may_hold_in_real_arithmetic_only() -> None:
    """A border a billionth away: float32 executions may lie on either side."""
    said = set()
    for distance in (1e-8, 3e-8, 1e-7):
        try:
            said.add(check(written(POINT), MODEL, stated(VALUE + distance)))
        except Refusal as refusal:
            said.add(str(refusal))
    assert not any("every float32" in line for line in said)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (np.array([2.0, 0.0]), "none of the property's boxes"),
        (np.array([0.1, 0.0]), "not made of float32"),
        (np.array([0.5]), "does not give each"),
        (np.array([0.5, 0.5, 0.5]), "does not give each"),
    ],
)
def test_a_point_that_is_none_of_the_property_is_refused(point: np.ndarray, message: str) -> None:
    """Outside the box, no float32 number, too few or too many."""
    with pytest.raises(Refusal, match=message):
        check(written(point), MODEL, stated(VALUE + 10))


def test_an_end_that_is_no_float32_number_is_met_by_its_nearest() -> None:
    """A box from 0.1 to 0.1 holds no float32 number; the nearest stands for it, no other does."""
    low = np.array([0.1, -0.5])
    prop = box_property(low, np.array([0.1, 0.5]), ["(<= Y_0 1000.0)"], 3).encode()
    near = np.float32([0.1, 0.0])
    assert "holds" in check(written(near), MODEL, prop)
    other = np.float32([np.nextafter(near[0], np.float32(1)), 0.0])
    with pytest.raises(Refusal, match="none of the property's boxes"):
        check(written(other), MODEL, prop)


def test_an_end_of_a_strict_comparison_is_outside() -> None:
    """X_0 < 0.25 leaves out 0.25, in whatever order it is said; and X_0 = 0.1 as well as less."""
    prop = stated(VALUE + 0.01).decode()
    assert "holds" in check(written(POINT), MODEL, (prop + "(assert (<= X_0 0.25))").encode())
    for more in (
        "(< X_0 0.25)",
        "(> 0.25 X_0)",
        "(> X_0 0.25)",
        "(<= X_0 0.25))(assert (< X_0 0.25)",
    ):
        for text in (
            f"{prop}(assert {more})",
            prop.replace("(assert", f"(assert {more})(assert", 1),
        ):
            with pytest.raises(Refusal, match="none of the property's boxes"):
                check(written(POINT), MODEL, text.encode())
    both = "(assert (<= X_0 0.1))(assert (>= X_0 0.1))"
    near = np.float32([0.1, -0.5])
    wide = stated(99.0).decode()
    assert "holds" in check(written(near), MODEL, (wide + both).encode())
    with pytest.raises(Refusal, match="none of the property's boxes"):
        check(written(near), MODEL, (wide + both + "(assert (< X_0 0.1))").encode())
