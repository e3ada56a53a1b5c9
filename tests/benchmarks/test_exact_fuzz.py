"""The exact judge of tiny nets, and the searches under it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

from benchmarks.curved_problems import curved_problems
from benchmarks.digits import gaps
from benchmarks.exact_files import model_of
from benchmarks.exact_fuzz import table, through_prop
from benchmarks.exact_minimum import least
from benchmarks.exact_problems import (
    CHANGES,
    halves,
    met_at,
    problems,
    tiny,
    value_of,
    whole_problems,
)
from benchmarks.exact_searches import CURVED, SEARCHES, answered, judgement
from benchmarks.provocative import Net, Step, exactly, graph_of
from tests.exact import NoOracle, least_worst
from verify.traverse import run


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
    for seed, name in enumerate(SEARCHES):
        for asked in list(problems(seed, kind="branchy" if seed % 2 else "tiny"))[:2]:
            for meaning in ("float32", "real"):
                word, _, _ = answered(asked, name, meaning)
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


@pytest.mark.parametrize("kind", ["plain", "curved", "whole"])
def test_prop_and_the_checker_are_right(kind: str, tmp_path: Path) -> None:
    """From the file to the certificate."""
    records = [one for seed in (2, 8) for one in through_prop(seed, tmp_path, kind)]
    text, wrong = table(records)
    assert wrong == 0, text
    assert {"unsat", "sat"} & {one["said"] for one in records}
    assert kind != "plain" or "accepted" in text
    assert kind != "whole" or any("whole parts" in str(one["reached"]) for one in records)


def test_paths_are_reached_and_counted() -> None:
    """Cuts, bases that are divided, halves, points and clipped programs, each by its search."""
    wanted = {
        "cuts": {"signs split", "leaf by a program"},
        "bases divided": {"base divided", "base bounded anew"},
        "halving": {"halves of a box"},
        "point split": {"points cut"},
        "lp tree": {"programs clipped"},
        "input split": {"boxes clipped"},
    }
    for name, pieces in wanted.items():
        seen: set[str] = set()
        for seed in (1, 3, 5, 7, 9):
            for asked in list(problems(seed, kind="branchy"))[:2]:
                seen |= answered(asked, name, "float32", count=True)[2].keys()
            if pieces <= seen:
                break
        assert pieces <= seen, (name, seen)


def test_the_larger_of_pairs_has_its_minimum() -> None:
    """max(x, -x) + max(y - 1/3, 1/3 - y), no corner of the box."""
    third = np.float32(1 / 3)
    first = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    bias = np.array([0, 0, -third, third], dtype=np.float32)
    last = np.array([[1, 1], [0, 0]], dtype=np.float32)
    steps = (Step("affine", first, bias), Step("max"), Step("affine", last, bias[:2]))
    ends = np.float32([-1, -1]), np.float32([1, 1])
    minimum, where = least(Net("pools", (2,), steps), *ends, (1, 0))
    assert (minimum, where) == (0, [0, Fraction(float(third))])


def test_digits_are_those_of_float64_and_of_the_file() -> None:
    """Of every curved function, up to rounding; and ONNX Runtime reads the file the same way."""
    seen: set[str] = set()
    for seed in range(40):
        for asked in list(curved_problems(seed, mild=True))[:1]:
            if max(np.abs(step.weight).max(initial=0) for step in asked.net.steps) > 100:
                continue  # float64 would be no judge
            seen |= {step.op for step in asked.net.steps}
            values = [float(v) for v in gaps(asked.net, asked.places, (1, 0), 0.0)]
            wide = torch.from_numpy(asked.places).double()
            near = run(graph_of(asked.net), wide)[:, 0].tolist()
            size = max(1.0, *map(abs, near))
            assert values == pytest.approx(near, abs=1e-9 * size)
            session = InferenceSession(model_of(asked), providers=["CPUExecutionProvider"])
            (found,) = session.run(None, {"x": asked.places[:1]})
            assert float(found.ravel()[0]) == pytest.approx(values[0], rel=0.05, abs=0.01 * size)
    assert seen >= {"Sigmoid", "Tanh", "times", "Softmax", "Gelu", "Sin", "max", "Exp"}


def test_a_proof_below_what_a_curved_net_attains_is_seen() -> None:
    """The threshold is that of a place; the search is right, and a lie is noticed."""
    generator, proofs = np.random.default_rng(0), 0
    for seed in range(10):
        for k, asked in enumerate(curved_problems(seed)):
            name = CURVED[(seed + k) % len(CURVED)]
            word, _, _ = answered(asked, name, "real")
            proofs += word == "proved"
            assert not judgement(asked, word, "real", generator), (seed, k, name)
            if asked.truth:
                assert judgement(asked, "proved", "real", generator) == "wrong"
                assert judgement(asked, "false witness", "real", generator) == "wrong"
    assert proofs > 3


def test_whole_inputs_are_cut_before_they_are_judged() -> None:
    """A threshold is met at a whole number, or nowhere."""
    for seed in range(4):
        for asked in whole_problems(seed):
            assert asked.whole is not None
            moved = asked.places.copy()
            moved[:, asked.whole] = np.trunc(moved[:, asked.whole])
            assert met_at(asked, asked.places) == met_at(replace(asked, whole=None), moved)
