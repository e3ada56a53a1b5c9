"""The property reader knows a box with a label in both spellings, and nothing else."""

import gzip
from pathlib import Path

import pytest

from benchmarks.suites.box_property import (
    PropertyFormatError,
    parse_box_property,
    read_box_property,
)

INPUTS = """; a comment with (<= X_0 9)
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(declare-const Y_2 Real)
(assert (>= X_0 -0.25))
(assert (<= X_0 5e-1))
(assert (<= X_1 1.0))
(assert (>= X_1 0))
"""
REACHING = "(assert (or (and (>= Y_0 Y_1)) (and (>= Y_2 Y_1))))"
REACHED = "(assert (or (and (<= Y_1 Y_0)) (and (<= Y_1 Y_2))))"


@pytest.mark.parametrize("condition", [REACHING, REACHED])
def test_both_spellings_give_the_box_and_the_label(condition: str) -> None:
    """(>= Y_j Y_label) and (<= Y_label Y_j) are one condition; numbers and order may vary."""
    box = parse_box_property(INPUTS + condition, "here")
    assert box.lower.tolist() == [-0.25, 0.0]
    assert box.upper.tolist() == [0.5, 1.0]
    assert box.label == 1


@pytest.mark.parametrize(
    "condition",
    [
        "(assert (or (and (>= Y_0 Y_1))))",
        "(assert (or (and (>= Y_0 Y_1)) (and (>= Y_1 Y_2))))",
        "(assert (>= Y_0 Y_1))(assert (>= Y_2 Y_1))",
        "(assert (<= Y_0 3.0))",
    ],
)
def test_other_output_conditions_are_refused(condition: str) -> None:
    """A missing class, two labels, a conjunction and a constant are not this reader's."""
    with pytest.raises(PropertyFormatError, match="label of here"):
        parse_box_property(INPUTS + condition, "here")


def test_a_missing_input_bound_is_refused() -> None:
    """Without its last line X_1 has no lower bound."""
    text = INPUTS.replace("(assert (>= X_1 0))", "") + REACHING
    with pytest.raises(PropertyFormatError, match="1 of 2 inputs lack a bound"):
        parse_box_property(text, "here")


def test_packed_files_read_like_plain_ones(tmp_path: Path) -> None:
    """The suffix .gz decides."""
    packed = tmp_path / "one.vnnlib.gz"
    packed.write_bytes(gzip.compress((INPUTS + REACHING).encode()))
    assert read_box_property(packed).label == 1
