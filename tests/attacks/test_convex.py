"""The shortest move under several inequalities, against a convex solver."""

import math

import numpy as np
import pytest

from attacks.convex import Vector, nearly_least_maximum, shortest

PS = [math.inf, 2.0, 1.0]


def problem(count: int, size: int, seed: int) -> tuple[Vector, Vector, Vector, Vector]:
    """Inequalities that a random point of a box around 0 fulfils; the first is not met at 0."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=(count, size)) * rng.uniform(0.1, 10, size=(count, 1))
    high, low = rng.uniform(0, 1, size), -rng.uniform(0, 1, size)
    high[0] = 0.0
    point = rng.uniform(0.5 * low, 0.5 * high)
    slopes[0] *= np.sign(slopes[0] @ point)
    least = slopes @ point - rng.uniform(0, 1, count)
    least[0] = 0.9 * slopes[0] @ point
    return slopes, least, low, high


def solved(slopes: Vector, least: Vector, low: Vector, high: Vector, p: float) -> float:
    cvxpy = pytest.importorskip("cvxpy")
    v = cvxpy.Variable(slopes.shape[1])
    limits = [slopes @ v >= least, v >= low, v <= high]
    norm = cvxpy.norm(v, p if p != math.inf else "inf")
    return float(cvxpy.Problem(cvxpy.Minimize(norm), limits).solve(solver="CLARABEL"))


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_shortest_move_is_the_solver_s(p: float, count: int) -> None:
    """Inside box and inequalities, and as short as the solver's."""
    slopes, least, low, high = problem(count, 12, count)
    found = shortest(slopes, least, low, high, p)
    assert found is not None
    assert bool((slopes @ found.delta >= least - 1e-6).all())
    assert bool(((found.delta >= low - 1e-12) & (found.delta <= high + 1e-12)).all())
    best = solved(slopes, least, low, high, p)
    assert np.linalg.norm(found.delta, ord=p) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("count", [1, 4, 20])
def test_large_problems_in_the_maximum_norm_are_solved_nearly(count: int) -> None:
    """Within a relative 1e-4 of the solver, by proximal steps."""
    slopes, least, low, high = problem(count, 300, count)
    unit = np.linalg.norm(slopes, axis=1)
    found = nearly_least_maximum(slopes / unit[:, None], least / unit, low, high)
    assert found is not None
    assert bool((slopes @ found.delta >= least - 1e-4 * unit).all())
    best = solved(slopes, least, low, high, math.inf)
    assert np.abs(found.delta).max() == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("p", PS)
def test_forces_name_what_holds_the_solution_back(p: float) -> None:
    """Of x + y >= 1, x <= 0.2 and x >= -5, the last has no say."""
    slopes = np.array([[1.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    far = np.full(2, math.inf)
    found = shortest(slopes, np.array([1.0, -0.2, -5.0]), -far, far, p)
    assert found is not None
    assert found.force[0] > 0
    assert found.force[2] == pytest.approx(0.0, abs=1e-9)
    assert found.delta.sum() == pytest.approx(1.0, abs=1e-6)
    if p != 1:  # both split the way in L1
        assert found.delta == pytest.approx([0.2, 0.8], abs=1e-5)
        assert found.force[1] > 0.01


@pytest.mark.parametrize("p", PS)
def test_sane_ends(p: float) -> None:
    """Nothing to do; a row without slope that cannot be met; inequalities that contradict."""
    low, high = -np.ones(3), np.ones(3)
    still = shortest(np.eye(3)[:1], np.array([-1.0]), low, high, p)
    assert still is not None
    assert still.delta == pytest.approx([0.0] * 3, abs=1e-12)
    assert shortest(np.zeros((1, 3)), np.array([1.0]), low, high, p) is None
    contrary = shortest(np.eye(3)[[0, 0]] * [[1.0], [-1.0]], np.array([0.5, 0.5]), low, high, p)
    assert contrary is None or bool(np.isfinite(contrary.delta).all())
