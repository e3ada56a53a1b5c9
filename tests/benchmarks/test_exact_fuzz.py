"""The exact judge of tiny nets, and the searches under it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks.exact_fuzz import SEARCHES, answered, judgement, proved_whole, table
from benchmarks.exact_minimum import least
from benchmarks.exact_problems import CHANGES, halves, problems, tiny, value_of
from benchmarks.provocative import Net, Step, exactly, graph_of
from tests.exact import NoOracle, least_worst


def mild(seed: int) -> tuple[Net, np.random.Generator]:
    """A net without huge weights, and what else is random."""
    generator = np.random.default_rng(seed)
    net = tiny(generator, mild=True)
    steps = [
        replace(step, weight=np.clip(step.weight, -3, 3), bias=np.clip(step.bias, -3, 3))
        for step in net.steps
    ]
    return replace(net, steps=tuple(steps)), generator


def test_a_kink_is_found_where_it_is() -> None:
    """|x0 - 1/3| + |x1 + 1/4|, whose minimum is at no corner of the box."""
    third = np.float32(1 / 3)
    first = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    bias = np.array([-third, third, 0.25, -0.25], dtype=np.float32)
    last = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], dtype=np.float32)
    steps = (Step("affine", first, bias), Step("Relu"), Step("affine", last, bias[:2] * 0))
    ends = np.float32([-1, -1]), np.float32([1, 1])
    minimum, where = least(Net("dense", (2,), steps), *ends, (1, 0))
    assert minimum == 0
    assert where == [Fraction(float(third)), Fraction(-1, 4)]
    flipped, _ = least(Net("dense", (2,), steps), *ends, (-1, 0))
    assert flipped == -(1 + Fraction(float(third)) + Fraction(5, 4))


@pytest.mark.parametrize("seed", range(12))
def test_the_minimum_is_that_of_the_program(seed: int) -> None:
    """The mixed-integer program agrees up to its tolerance, and no sample lies below."""
    net, generator = mild(seed)
    low = generator.standard_normal(net.shape[0]).astype(np.float32)
    high = low.copy()
    wide = generator.choice(len(low), 2, replace=False)
    high[wide] += np.float32([0.7, 1.3])
    minimum, where = least(net, low, high, (1, -1))
    rows, zero = np.array([[1.0, -1.0]]), np.zeros(1)
    try:
        found, _ = least_worst(graph_of(net), low.astype(float), high.astype(float), rows, zero)
    except NoOracle as stumbled:
        pytest.skip(str(stumbled))
    assert float(minimum) == pytest.approx(found, abs=2e-5)
    points = low + generator.random((200, len(low))).astype(np.float32) * (high - low)
    points = np.clip(points.astype(np.float32), low, high)
    assert min(value_of((1, -1), y) for y in exactly(net, points)) >= minimum
    at = [[float(v) for v in where]]
    (close,) = exactly(net, np.array(at, dtype=np.float32))
    assert float(value_of((1, -1), close)) == pytest.approx(float(minimum), abs=1e-4)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_leaves_the_minimum_alone(change: str) -> None:
    """Exactly, not up to rounding."""
    tried = 0
    for seed in range(8):
        for asked in list(problems(seed))[:1]:
            net = CHANGES[change](asked.net, np.random.default_rng(seed))
            if net is None:
                continue
            tried += 1
            ends = asked.low, asked.high, asked.row
            assert least(net, *ends)[0] == least(asked.net, *ends)[0]
    assert tried > 4


def test_halves_hold_the_whole() -> None:
    """A box is unsafe if, and only if, one of its parts is."""
    for seed in range(6):
        for asked in problems(seed):
            assert asked.truth == any(part.truth for part in halves(asked))


def test_searches_are_right_next_to_the_minimum() -> None:
    """Both semantics, thresholds down to a rounding away; something is proved and refuted."""
    generator, said = np.random.default_rng(0), set()
    for seed in range(9):
        name = list(SEARCHES)[seed % 3]
        for asked in list(problems(seed))[:2]:
            for meaning in ("float32", "real"):
                word, _ = answered(asked, name, meaning)
                said.add(word)
                assert not judgement(asked, word, meaning, generator), (seed, name, meaning)
    assert said >= {"proved", "refuted"}


def test_a_wrong_answer_is_seen() -> None:
    """Proofs of what is unsafe, and a witness of what is safe."""
    generator = np.random.default_rng(0)
    by_truth = {asked.truth: asked for asked in problems(1)}
    assert judgement(by_truth[True], "proved", "real", generator) == "wrong"
    assert judgement(by_truth[False], "refuted", "real", generator) == "wrong"
    assert judgement(by_truth[False], "proved", "real", generator) == ""


def test_prop_and_the_checker_are_right(tmp_path: Path) -> None:
    """From the file to the certificate."""
    records = [one for seed in (2, 8) for one in proved_whole(seed, tmp_path)]
    text, wrong = table(records)
    assert wrong == 0, text
    assert "accepted" in text
