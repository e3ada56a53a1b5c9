"""What has to be shown of a leaf, and how a box shows it without hints.

A clause is out of reach on a box if one of its rows is positive there; or a combination of its rows
with weights >= 0; or if the parts of the box where each row may be <= 0 have nothing in common.
What such cutting leaves is smaller, and is bounded again.
"""

from dataclasses import dataclass, replace

import numpy as np

from verify.check.bounds import SPARE, UNDERFLOW, Bounds, Hints, Pass, Planes, crown, gamma
from verify.check.curves import UNIT
from verify.check.network import Array, Network
from verify.check.refusal import Refusal
from verify.check.vnnlib import Case

ROUNDS = 3
"""How often a box, or what is left of it, is bounded with rows for its neurons."""
SHRUNK = 0.9
"""A box is bounded again if an edge has shrunk to less than this share."""
STEPS = 20
"""In the search for weights."""


NEAR, ORDER = 60.0, 2.0**-14
"""Of inputs of a Softmax: how far below the largest, and how far apart, so that it orders them.

Twice (60 + 1) * 2^-24 for each rounding of the exponent, and of exp itself, is below 2^-15.
"""


@dataclass(frozen=True)
class Goal:
    """Rows over the outputs; of each clause, one must be > 0 everywhere.

    `slack` is what rounding a rational constant to float64 may have cost, and an output that is
    denormal and flushed to zero.
    """

    coeff: Array  # (row, outputs)
    const: Array
    slack: Array
    clause: np.ndarray  # (row,)
    count: int

    @property
    def rank(self) -> np.ndarray:
        """The place of each row in its clause; clauses stand one after another."""
        found: np.ndarray = np.arange(len(self.clause)) - np.searchsorted(self.clause, self.clause)
        return found

    @property
    def most(self) -> int:
        """Rows of the longest clause."""
        return int(self.rank.max(initial=-1)) + 1

    def proved(self, margins: Array) -> np.ndarray:
        """Which clauses are proved by margins of shape (box, row); (box, clause)."""
        found = np.zeros((len(margins), self.count), dtype=bool)
        for clause in range(self.count):
            found[:, clause] = (margins[:, self.clause == clause] > 0).any(axis=1)
        return found


def goal_of(case: Case, outputs: int) -> Goal:
    """The goal of a case."""
    rows = [(number, row) for number, clause in enumerate(case.clauses) for row in clause]
    coeff = np.zeros((len(rows), outputs))
    const, slack = np.zeros(len(rows)), np.zeros(len(rows))
    for i, (_, row) in enumerate(rows):
        for place, value in row.coefficients.items():
            coeff[i, place] = value
        const[i] = float(row.constant)
        slack[i] = abs(const[i]) * 2.0**-52 + 2.0**-1000 + UNDERFLOW * np.abs(coeff[i]).sum()
    numbers = np.array([number for number, _ in rows], dtype=np.int64)
    return Goal(coeff, const, slack, numbers, len(case.clauses))


def ordered(goal: Goal, logits: Bounds) -> Goal:
    """The goal about the inputs x of a Softmax or LogSoftmax, for rows y_a - y_b of its outputs.

    As executed, x_k - max x is rounded, then exp of it (by far less than `ORDER`), then quotients
    by one sum, or differences from one logarithm. So x_a > x_b + ORDER gives y_a > y_b, if x_a is
    so near to the largest that nothing of it is lost to underflow.
    """
    coeff, first = np.sort(goal.coeff, axis=1), goal.coeff.argmax(axis=1)
    pairs = (coeff[:, 0] == -1) & (coeff[:, -1] == 1) & (np.abs(coeff).sum(axis=1) == 2)
    near = logits.lower[0, first] >= logits.upper[0].max() - NEAR
    if not (pairs & near & (goal.const == 0)).all():
        raise Refusal("behind a Softmax, only the order of outputs near the largest is known")
    return replace(goal, const=goal.const - ORDER)


def rows_over(done: Pass, goal: Goal, hints: Hints | None = None) -> Planes:
    """Bounds of all rows of the goal over each box."""
    boxes = len(done.values[done.network.input_name].lower)
    coeff, const, slack = (
        np.broadcast_to(part, (boxes, *part.shape)) for part in (goal.coeff, goal.const, goal.slack)
    )
    starts = {done.network.output_name: coeff}
    return done.planes(starts, const, slack, hints or Hints(), interval=True)


@dataclass(frozen=True)
class Settled:
    """Which clauses are out of reach, (box, clause); and |slopes| of the rows, (box, inputs)."""

    proved: np.ndarray
    slopes: Array


def settled(
    network: Network, low: Array, high: Array, goal: Goal, clauses: np.ndarray, *, real: bool
) -> Settled:
    """Which clauses are out of reach on each box."""
    slopes = np.zeros(low.shape)
    proved = np.zeros((len(low), len(clauses)), dtype=bool)
    waiting = np.arange(len(low))
    low, high = low.copy(), high.copy()
    for attempt in range(1 + ROUNDS):
        done = crown(network, low[waiting], high[waiting], real=real, rows=attempt > 0)
        planes = rows_over(done, goal)
        proved[waiting] |= goal.proved(planes.least)[:, clauses]
        if not attempt:  # many a box takes no more than intervals and the rows of the goal
            waiting = waiting[~proved[waiting].all(axis=1)]
            if not len(waiting):
                break
            continue
        slopes[waiting] = np.abs(planes.coeff).sum(axis=1)
        least = np.full((len(waiting), low.shape[1]), np.inf)
        most = -least
        for k, clause in enumerate(clauses.tolist()):
            mine = (goal.clause == clause).nonzero()[0]
            out = combined(done, planes, mine) > 0 if len(mine) > 1 else np.zeros(1, dtype=bool)
            left, right, empty = cut_down(planes, mine, low[waiting], high[waiting])
            proved[waiting, k] |= out | empty
            open_ = ~proved[waiting, k, None]
            least = np.where(open_, np.minimum(least, left), least)
            most = np.where(open_, np.maximum(most, right), most)
        again = ~proved[waiting].all(axis=1)
        shrunk = (most - least < SHRUNK * (high[waiting] - low[waiting])).any(axis=1)
        low[waiting[again]], high[waiting[again]] = least[again], most[again]
        waiting = waiting[again & shrunk]
        if not len(waiting):
            break
    return Settled(proved, slopes)


def combined(done: Pass, planes: Planes, rows: np.ndarray) -> Array:
    """A lower bound of some convex combination of rows, (box,): if > 0, they are never all <= 0.

    The weights are looked for by exponentiated subgradient steps; any weights give a valid bound.
    """
    coeff, const = planes.coeff[:, rows], (planes.const - planes.error)[:, rows]
    x = done.values[done.network.input_name]
    weight = np.full(const.shape, 1.0 / len(rows))
    best, best_weight = np.full((len(const), 1), -np.inf), weight
    for step in range(STEPS):
        mixed = np.matmul(weight[:, None], coeff)[:, 0]
        point = np.where(mixed > 0, x.lower, x.upper)
        worth = np.matmul(coeff, point[:, :, None])[:, :, 0] + const
        value = (weight * worth).sum(axis=1, keepdims=True)
        best_weight = np.where(value > best, weight, best_weight)
        best = np.maximum(best, value)
        scale = np.abs(worth).max(axis=1, keepdims=True) + 1e-300
        weight = weight * np.exp(2.0 / (1.0 + step) ** 0.5 * worth / scale)
        weight = weight / weight.sum(axis=1, keepdims=True)
    weight = np.where(np.isfinite(best_weight), best_weight, 0.0)
    mixed = np.matmul(weight[:, None], coeff)
    sizes = np.matmul(np.abs(coeff), x.magnitude()[:, :, None])[:, :, 0] + np.abs(const)
    rounding = gamma(len(rows)) * (weight * sizes).sum(axis=1, keepdims=True)
    total = (weight * const).sum(axis=1, keepdims=True)
    found: Array = done.over_box(done.network.input_name, mixed, total, rounding)[:, 0]
    return found


def cut_down(
    planes: Planes, rows: np.ndarray, low: Array, high: Array
) -> tuple[Array, Array, np.ndarray]:
    """Boxes cut down to where all rows may be <= 0, and which of them are empty.

    a_i x_i <= -b - sum over j of min(a_j l_j, a_j u_j), j other than i, for each input i; computed
    in float64 and moved outward past its rounding.
    """
    for row in [*rows, *rows] if len(rows) > 1 else rows:
        a = planes.coeff[:, row]
        ends = np.abs(a) * np.maximum(np.abs(low), np.abs(high))
        terms = np.minimum(a * low, a * high)
        slack = planes.error[:, row] + gamma(2 * a.shape[1]) * (
            ends.sum(axis=1) + np.abs(planes.const[:, row])
        )
        room = (slack * SPARE - terms.sum(axis=1) - planes.const[:, row])[:, None] + terms
        limit = room / np.where(a == 0, 1.0, a)
        limit = limit + np.sign(a) * (np.abs(limit) + 2.0**-1000) * 8 * UNIT
        limit = np.where(np.isfinite(limit), limit, np.where(a > 0, np.inf, -np.inf))
        high = np.where((a > 0) & (limit < high), limit, high)
        low = np.where((a < 0) & (limit > low), limit, low)
    empty: np.ndarray = np.any(low > high, axis=1)
    return np.where(empty[:, None], np.inf, low), np.where(empty[:, None], -np.inf, high), empty
