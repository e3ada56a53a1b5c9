"""Boxes without hints: combinations of rows and cutting prove nothing that is false."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.check.models import dense_bytes, runs
from tests.readers.onnx_models import model
from verify.check import leaf
from verify.check.bounds import Planes, crown
from verify.check.leaf import Goal, combined, cut_down, rows_over, settled
from verify.check.onnx_bytes import read_model
from verify.check.operators import read_network


def random_goal(seed: int, clauses: int = 3) -> Goal:
    """Clauses of one to three random rows over three outputs."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, clauses)
    numbers = np.repeat(np.arange(clauses), sizes)
    rows = int(sizes.sum())
    return Goal(
        rng.normal(size=(rows, 3)), rng.normal(0.3, 0.5, rows), np.zeros(rows), numbers, clauses
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_clause_that_some_input_meets_is_never_settled(seed: int) -> None:
    """Against ONNX Runtime at random points of random boxes; and some are settled."""
    data = dense_bytes(seed)
    net, run = read_network(read_model(data)), runs(data)[0]
    goal, rng = random_goal(seed), np.random.default_rng(seed)
    low = rng.uniform(-1, 0.8, (30, 2))
    high = low + rng.uniform(0.01, 0.5, (30, 2))
    found = settled(net, low, high, goal, np.arange(goal.count), real=False).proved
    for box in range(30):
        points = rng.uniform(low[box], high[box], (60, 2)).astype(np.float32)
        points = points[((points >= low[box]) & (points <= high[box])).all(axis=1)]
        values = np.array([goal.coeff @ run(x) + goal.const for x in points])
        for clause in range(goal.count):
            met = (values[:, goal.clause == clause] <= 0).all(axis=1).any()
            assert not (met and found[box, clause])
    assert found.any()


def test_cutting_keeps_every_point_where_all_rows_may_be_met() -> None:
    """Random planes on random boxes; what is left holds all points with all planes <= 0."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = rng.uniform(-1, 0, (1, 3))
        high = low + rng.uniform(0, 1, (1, 3))
        coeff = rng.normal(size=(1, 2, 3)) * rng.integers(0, 2, (1, 2, 3))
        const = rng.normal(0, 0.5, (1, 2))
        planes = Planes(coeff, const, np.zeros((1, 2)), const)
        left, right, empty = cut_down([planes], low, high)
        points = rng.uniform(low[0], high[0], (500, 3))
        met = points[((points @ coeff[0].T + const[0]) <= 0).all(axis=1)]
        assert not (len(met) and empty[0])
        assert ((met >= left) & (met <= right)).all()


def test_rows_that_only_exclude_each_other_need_a_combination() -> None:
    """y0 <= -0.1 and y1 = -y0 <= -0.1 cannot both hold, though either can."""
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    data = model([node], [1, 1], {"w": np.float32([[1, -1]])}).SerializeToString()
    net = read_network(read_model(data))
    low, high = np.array([[-1.0]]), np.array([[1.0]])
    goal = Goal(np.eye(2), np.full(2, 0.1), np.zeros(2), np.zeros(2, np.int64), 1)
    done = crown(net, low, high, real=False)
    planes = rows_over(done, goal)
    assert (planes.least < 0).all()
    assert combined(done, goal, planes, np.arange(2)).least[0, 0] > 0
    assert settled(net, low, high, goal, np.zeros(1, np.int64), real=False).proved.all()


def test_a_combined_row_is_never_above_its_largest_row_and_often_above_their_bounds() -> None:
    """Its plane against ONNX Runtime; climbing slopes gives more than the rows' own lines."""
    better = np.zeros(2, int)
    for seed in range(8):
        data = dense_bytes(seed)
        net, run = read_network(read_model(data)), runs(data)[0]
        rng = np.random.default_rng(seed)
        low = rng.uniform(-1, 0.5, (10, 2))
        high = low + rng.uniform(0.2, 0.8, (10, 2))
        goal = Goal(rng.normal(size=(2, 3)), np.zeros(2), np.zeros(2), np.zeros(2, np.int64), 1)
        done = crown(net, low, high, real=False)
        plain = rows_over(done, goal)
        for count in (1, 2):
            mine = plain.of(np.arange(10), np.arange(count))
            one = combined(done, goal, mine, np.arange(count))
            for box in range(10):
                points = rng.uniform(low[box], high[box], (60, 2)).astype(np.float32)
                points = points[((points >= low[box]) & (points <= high[box])).all(axis=1)]
                most = np.array([(goal.coeff[:count] @ run(x)).max() for x in points])
                below = points @ one.coeff[box, 0] + one.const[box, 0] - one.error[box, 0]
                assert (below <= most).all()
                assert one.least[box, 0] <= most.min()
                better[count - 1] += one.least[box, 0] > mine.least[box].max() + 1e-9
    assert (better > 5).all()


def test_the_error_of_planes_is_part_of_every_conclusion(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error larger than the margin nothing is settled; without it, it would be."""
    data = dense_bytes(3)
    net = read_network(read_model(data))
    low, high = np.full((1, 2), 0.4), np.full((1, 2), 0.5)
    run = runs(data)[0]
    level = float(run(np.float32([0.45, 0.45]))[0]) - 0.5
    goal = Goal(np.eye(3)[:1], np.array([-level]), np.zeros(1), np.zeros(1, np.int64), 1)
    clauses = np.zeros(1, np.int64)
    assert settled(net, low, high, goal, clauses, real=False).proved.all()
    paid = Goal(goal.coeff, goal.const, np.array([10.0]), goal.clause, 1)
    assert not settled(net, low, high, paid, clauses, real=False).proved.any()
    monkeypatch.setattr(leaf, "ROUNDS", 1)
    assert not settled(net, low, high, paid, clauses, real=False).proved.any()
