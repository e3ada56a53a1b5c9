"""How margins and times are compared: each rule on numbers worked out by hand."""

import math

import pytest
import torch

from benchmarks.outcome import Outcome, margin_rows
from benchmarks.records import Measured, Record, compare
from benchmarks.timing import alternate


def record(ours: float, peer: float) -> Record:
    """One instance with one margin each."""
    mine, his = (Measured(margins=(m,), seconds=(1.0,), build_seconds=0.0) for m in (ours, peer))
    return Record("net", "box", 0, "crown", ours=mine, peer=his)


def test_margin_rows_are_the_label_minus_each_other_output() -> None:
    """For label 1 of 3: y1 - y0 and y1 - y2."""
    rows = margin_rows(torch.tensor([1]), 3)
    assert rows.tolist() == [[[-1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]]


def test_margins_count_as_worse_beyond_the_tolerance_only() -> None:
    """Relative to max(1, |peer's|), and, stricter near zero, relative to |peer's|."""
    pairs = [(100.0, 100.005), (100.0, 100.02), (0.01, 0.01005), (2.0, 1.0)]
    result = compare([record(ours, peer) for ours, peer in pairs])
    assert (result.worse, result.worse_relative, result.better) == (1, 2, 1)
    assert result.mean_difference == pytest.approx((1.0 - 0.02 - 0.005 - 0.00005) / 4)


def test_nan_of_ours_counts_as_worse() -> None:
    """It proves nothing."""
    assert compare([record(math.nan, 1.0)]).worse == 1


def test_tools_alternate_and_a_slow_one_runs_once() -> None:
    """Who goes first changes with each round; past the patience a tool is not repeated."""
    order: list[str] = []

    def call(name: str, seconds: float) -> Outcome:
        order.append(name)
        return Outcome(torch.zeros(1, 1), seconds)

    calls = {"fast": lambda: call("fast", 1.0), "slow": lambda: call("slow", 9.0)}
    measured = alternate(calls, repeats=3, patience=5.0)
    assert order == ["fast", "slow", "fast", "fast"]
    assert measured["slow"].seconds == (9.0,)

    order.clear()
    alternate(calls, repeats=2, patience=10.0)
    assert order == ["fast", "slow", "slow", "fast"]
