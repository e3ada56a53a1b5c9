"""Text from the command line to numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.cli import parsing
from verify.errors import SettingError


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_radius_comes_back_as_it_was_written(value: float) -> None:
    """Every finite number >= 0, in Python's own notation."""
    assert parsing.radius(repr(value)) == value


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions_are_divided(above: int, below: int) -> None:
    """8/255 and its like."""
    assert parsing.radius(f"{above}/{below}") == above / below


@pytest.mark.parametrize("text", ["", "a", "1/2/3", "1/0", "inf", "nan", "-inf", "1e999", "0x10"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    """With the option named and an example."""
    with pytest.raises(SettingError, match="--eps is .* 8/255"):
        parsing.radius(text)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=20))
def test_single_indices_come_back_in_order(numbers: list[int]) -> None:
    """Written with commas between."""
    assert parsing.indices(",".join(map(str, numbers))) == tuple(numbers)


@given(st.integers(0, 1000), st.integers(0, 100))
def test_a_range_of_indices_includes_both_ends(first: int, more: int) -> None:
    """As people count rows."""
    found = parsing.indices(f"{first}-{first + more}")
    assert found == tuple(range(first, first + more + 1))


@pytest.mark.parametrize("text", ["", "1,", "-1", "1.5", "a", "5-2", "1-2-3", "0-100000000"])
def test_strange_indices_are_refused(text: str) -> None:
    """Empty parts, signs, fractions, reversed and endless ranges."""
    with pytest.raises(SettingError, match="--indices has the part"):
        parsing.indices(text)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("2GB", 2 * 10**9),
        ("2 gb", 2 * 10**9),
        ("2GiB", 2 * 2**30),
        ("2G", 2 * 2**30),
        ("1500MB", 1500 * 10**6),
        ("0.5k", 512),
        ("123", 123),
        ("7B", 7),
    ],
)
def test_sizes_in_the_usual_units(text: str, bytes_: int) -> None:
    """Units of ten with B, units of two with iB or nothing."""
    assert parsing.size(text) == bytes_


@pytest.mark.parametrize("text", ["", "GB", "1.2.3MB", "-1GB", "2 TB", "two"])
def test_strange_sizes_are_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(SettingError, match="write for example 2GB"):
        parsing.size(text)


@pytest.mark.parametrize(
    ("text", "ends"),
    [("0 1", (0, 1)), ("-1,1", (-1, 1)), (" 0  1/2 ", (0, 0.5)), ("none", None), (None, None)],
)
def test_input_ranges(text: str | None, ends: tuple[float, float] | None) -> None:
    """Two numbers with a blank or a comma between, or none."""
    assert parsing.interval(text) == ends


@pytest.mark.parametrize("text", ["0:0:3", "1:0:3", "0:1:1", "0:1:99999", "a:b:c", "0:1:2:3"])
def test_strange_grids_are_refused(text: str) -> None:
    """Empty, reversed, of one point, of too many, of words."""
    with pytest.raises(SettingError, match="--eps-grid is"):
        parsing.grid(text)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_listed_grid_is_sorted_and_without_repeats(values: list[float]) -> None:
    """So that curves can be drawn."""
    assert parsing.grid(",".join(map(repr, values))) == tuple(sorted(set(values)))


def test_norms() -> None:
    """As written in papers and in other tools."""
    assert [parsing.norm(name) for name in ("inf", "Linf", "2", "l2", "1")] == [
        math.inf,
        math.inf,
        2,
        2,
        1,
    ]
