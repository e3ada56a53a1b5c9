"""The shortest move that satisfies several linear inequalities within a box, in each norm.

    min |v|_p  such that  A v >= b,  low <= v <= high,  with low <= 0 <= high

L1 and small L-inf problems are linear programs (HiGHS). L2 is solved in its dual, which has one
variable per inequality and a closed form for the rest; so are larger L-inf problems, as a few such
steps (a proximal point method), which takes hundredths of HiGHS's time on thousands of entries.
For a single inequality see `attacks.hyperplane`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
# The dual ascent of L2 stops at gradients below this, relative to rows of unit length: a violation
# of an inequality by that much of the inputs' unit.
GRADIENT, ITERATIONS, MEMORY = 1e-10, 1000, 20
# Up to so many entries L-inf goes to HiGHS, which is exact.
ENTRIES_FOR_HIGHS = 200
# Beyond, proximal steps at most, the relative change of the maximum that ends them, the weight of
# the first relative to the maximum expected, and what the weight falls by at each.
PROXIMAL_STEPS, SETTLED, FIRST_WEIGHT, WEIGHT_FALL = 25, 1e-4, 0.1, 0.4
# Halvings of the interval that holds the maximum, given the dual variables.
HALVINGS = 35


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """A shortest move, and which inequalities hold it back.

    Attributes:
        delta: shape (n,).
        force: shape (inequalities,), >= 0: by how much the norm (for L2: half its square) falls
            per unit by which that inequality, scaled to a row of unit L2 length, is relaxed.
    """

    delta: Vector
    force: Vector


def shortest(slopes: Vector, least: Vector, low: Vector, high: Vector, p: float) -> Move | None:
    """The shortest move with slopes @ delta >= least in the box; None where there is none.

    Accurate to about 1e-7 relative to the rows' lengths; whoever needs more asks the model.

    Args:
        slopes: shape (inequalities, n), finite.
        least: shape (inequalities,).
        low, high: shape (n,), low <= 0 <= high, may be infinite.
        p: inf, 2 or 1.
    """
    length = np.linalg.norm(slopes, axis=1)
    if bool(((length == 0) & (least > 0)).any()):
        return None
    length = np.where(length > 0, length, 1.0)
    rows, need = slopes / length[:, None], least / length
    if p == 2:
        return least_squares(rows, need, low, high)
    if p == 1:
        return least_sum(rows, need, low, high)
    small = len(low) <= ENTRIES_FOR_HIGHS
    return (least_maximum if small else nearly_least_maximum)(rows, need, low, high)


def least_sum(rows: Vector, need: Vector, low: Vector, high: Vector) -> Move | None:
    """p = 1: how far each entry moves up, then how far down."""
    from scipy.optimize import linprog

    count = rows.shape[1]
    room = np.concatenate((high, -low))
    found = linprog(
        np.ones(2 * count),
        A_ub=np.hstack((-rows, rows)),
        b_ub=-need,
        bounds=np.stack((np.zeros_like(room), room), axis=1),
        method="highs",
    )
    if not found.success:
        return None
    return Move(found.x[:count] - found.x[count:], -found.ineqlin.marginals)


def least_maximum(rows: Vector, need: Vector, low: Vector, high: Vector) -> Move | None:
    """p = inf: the move, and the bound on all its entries."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, vstack

    count = rows.shape[1]
    cuts = csr_array(np.hstack((-rows, np.zeros((len(rows), 1)))))
    each = np.arange(count)
    twice = np.concatenate((each, each))
    sign = np.repeat((1.0, -1.0), count)
    # Rows of d_i - t <= 0 and of -d_i - t <= 0.
    height = np.arange(2 * count)
    entries = np.concatenate((sign, np.full(2 * count, -1.0)))
    places = (np.concatenate((height, height)), np.concatenate((twice, np.full_like(twice, count))))
    within = coo_array((entries, places), shape=(2 * count, count + 1))
    cost = np.zeros(count + 1)
    cost[-1] = 1.0
    found = linprog(
        cost,
        A_ub=vstack((cuts, within), format="csr"),
        b_ub=np.concatenate((-need, np.zeros(2 * count))),
        bounds=np.stack((np.append(low, 0.0), np.append(high, math.inf)), axis=1),
        method="highs",
    )
    if not found.success:
        return None
    return Move(found.x[:count], -found.ineqlin.marginals[: len(rows)])


def ascent(
    value: Callable[[Vector], tuple[float, Vector]], start: Vector, iterations: int = ITERATIONS
) -> Vector:
    """Where `value`, a smooth convex function of non-negative forces with its slope, is least."""
    from scipy.optimize import minimize

    found = minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * len(start),
        options={"maxiter": iterations, "gtol": GRADIENT, "ftol": 0.0, "maxcor": MEMORY},
    )
    return np.asarray(found.x, dtype=np.float64)


def least_squares(rows: Vector, need: Vector, low: Vector, high: Vector) -> Move | None:
    """p = 2: ascent of  max_{f >= 0}  f . b + min_{v in box} |v|^2 / 2 - f . A v,  v clipped."""

    def falling(force: Vector) -> tuple[float, Vector]:
        pull = rows.T @ force
        delta = pull.clip(low, high)
        value = force @ need + 0.5 * (delta @ delta) - pull @ delta
        return -float(value), rows @ delta - need

    force = ascent(falling, np.zeros(len(need)))
    return finite(Move((rows.T @ force).clip(low, high), force))


def nearly_least_maximum(rows: Vector, need: Vector, low: Vector, high: Vector) -> Move | None:
    """p = inf by proximal points: each step minimises |v|_inf + weight / 2 |v - last|^2.

    The last step's maximum exceeds the least by a relative 1e-5 or so on random problems.

    Source:
        Rockafellar 1976, doi:10.1137/0314056 (proximal point algorithm).
    """
    size = len(low)
    first = float(max(need[0], 0.0) / max(np.abs(rows[0]).sum(), 1e-300))
    if first == 0:
        return least_maximum(rows, need, low, high)
    weight = FIRST_WEIGHT / (first * size)
    last, force = np.zeros(size), np.zeros(len(need))
    for _ in range(PROXIMAL_STEPS):
        centre, strength = last, weight

        def falling(
            force: Vector, centre: Vector = centre, strength: float = strength
        ) -> tuple[float, Vector]:
            pull = rows.T @ force
            delta = capped(centre + pull / strength, low, high, strength)
            rest = delta - centre
            primal = float(np.abs(delta).max() + 0.5 * strength * (rest @ rest) - pull @ delta)
            return -float(force @ need) - primal, rows @ delta - need

        force = ascent(falling, force, 200)
        last = capped(centre + rows.T @ force / strength, low, high, strength)
        settled = abs(np.abs(last).max() - np.abs(centre).max()) < SETTLED * np.abs(last).max()
        if settled:
            break
        weight *= WEIGHT_FALL
    return finite(Move(last, force))


def capped(aim: Vector, low: Vector, high: Vector, weight: float) -> Vector:
    """min |v|_inf + weight / 2 |v - aim|^2 over the box: `aim` clipped, then capped at t.

    The derivative in t,  1 - weight sum_{|clipped| > t} (|aim| - t),  rises: halvings find where
    it is 0.
    """
    clipped = aim.clip(low, high)
    size, reach = np.abs(clipped), np.abs(aim)
    bottom, top = 0.0, float(size.max())
    for _ in range(HALVINGS):
        middle = 0.5 * (bottom + top)
        over = size > middle
        if 1 - weight * float((reach[over] - middle).sum()) > 0:
            top = middle
        else:
            bottom = middle
    return clipped.clip(-top, top)


def finite(move: Move) -> Move | None:
    """The move, unless the ascent ran away, as it does where the inequalities contradict."""
    return move if bool(np.isfinite(move.delta).all()) else None
