"""What has to be shown of a leaf, and how a box shows it without hints.

A clause is out of reach on a box if one of its rows is positive there; or a combination of its rows
with weights >= 0; or if the parts of the box where each row may be <= 0 have nothing in common.
What such cutting leaves is smaller, and is bounded again.
"""

from dataclasses import dataclass, replace

import numpy as np

from verify.check.bounds import (
    SPARE,
    UNDERFLOW,
    Bounds,
    Hints,
    Pass,
    Planes,
    crown,
    gamma,
    times,
)
from verify.check.curves import UNIT
from verify.check.network import Affine, Array, Network
from verify.check.refusal import Refusal
from verify.check.vnnlib import Case

ROUNDS = 3
"""How often a box, or what is left of it, is bounded with rows for its neurons."""
SHRUNK = 0.9
"""A box is bounded again if an edge has shrunk to less than this share."""
STEPS = 20
"""In the search for weights."""
CLIMB = tuple(0.4 * 0.7**i for i in range(6))
"""Steps of slopes, of [0, 1]."""


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
            boxes = (~proved[waiting, k]).nonzero()[0]
            if not len(boxes):
                continue
            plain, at = planes.of(boxes, mine), waiting[boxes]
            one = combined(done.of(boxes), goal, plain, mine)
            left, right, empty = cut_down([plain, one], low[at], high[at])
            proved[at, k] = (one.least[:, 0] > 0) | empty
            open_ = ~proved[at, k]
            left, right, boxes = left[open_], right[open_], boxes[open_]
            least[boxes] = np.minimum(least[boxes], left)
            most[boxes] = np.maximum(most[boxes], right)
        again = ~proved[waiting].all(axis=1)
        shrunk = (most - least < SHRUNK * (high[waiting] - low[waiting])).any(axis=1)
        low[waiting[again]], high[waiting[again]] = least[again], most[again]
        waiting = waiting[again & shrunk]
        if not len(waiting):
            break
    return Settled(proved, slopes)


def combined(done: Pass, goal: Goal, plain: Planes, rows: np.ndarray) -> Planes:
    """One row, a convex combination of some: where it is > 0, they are never all <= 0.

    Its slopes are moved along their gradient (Danskin), so that it may be larger than each of them.
    Any weights and slopes give a valid bound.
    """
    weight = weights(done, plain)[:, None]
    output = done.values[done.network.output_name].magnitude()
    coeff, const = weight @ goal.coeff[rows], weight @ goal.const[rows]
    sizes = times(weight @ np.abs(goal.coeff[rows]), output) + weight @ np.abs(goal.const[rows])
    error = (weight @ goal.slack[rows] + gamma(len(rows)) * sizes) * SPARE
    alpha: dict[str, Array] = {}
    best = None
    for step in CLIMB:
        met: dict[str, Array] = {}
        starts = {done.network.output_name: coeff}
        now = done.planes(starts, const, error, Hints(alpha), interval=True, met=met)
        best = now if best is None else best.or_better(now)
        if (best.least > 0).all():
            break
        alpha = climbed(done, now, alpha, met, step)
    assert best is not None
    return best


def climbed(
    done: Pass, now: Planes, alpha: dict[str, Array], met: dict[str, Array], step: float
) -> dict[str, Array]:
    """Slopes after one step: at the row's minimiser x, d least / d slope = (row > 0)·z(x)."""
    x = done.values[done.network.input_name]
    values = {done.network.input_name: np.where(now.coeff[:, 0] > 0, x.lower, x.upper)}
    moved = {}
    for name, node in done.network.steps.items():
        if isinstance(node, Affine):
            parts = (linear.apply(values[source]) for source, linear in node.parts)
            values[name] = node.bias + sum(parts, np.zeros(1))
            continue
        lines, z = done.lines(name), values[node.source]
        row = met[name][:, 0] if name in met else np.zeros_like(lines.high)
        low = alpha[name][:, 0] if name in alpha else lines.low
        below = above = z
        if lines.sources is not None:
            below, above = (np.take_along_axis(z, at, axis=1) for at in lines.sources)
        if lines.free is not None:
            gain = np.maximum(row, 0.0) * z * lines.free
            size = np.abs(gain)
            change = gain / (size + size.mean(axis=1, keepdims=True) + 1e-300)
            moved[name] = np.clip(low + step * change, 0.0, 1.0)[:, None]
        offset = 0.0 if lines.below is None else lines.below
        values[name] = np.where(row > 0, low * below + offset, lines.high * above + lines.above)
    return moved


def weights(done: Pass, planes: Planes) -> Array:
    """Weights of rows, (box, row), by exponentiated subgradient steps on their planes."""
    const = planes.const - planes.error
    x = done.values[done.network.input_name]
    weight = np.full(const.shape, 1.0 / const.shape[1])
    best, best_weight = np.full((len(const), 1), -np.inf), weight
    for step in range(STEPS if const.shape[1] > 1 else 0):
        mixed = np.matmul(weight[:, None], planes.coeff)[:, 0]
        point = np.where(mixed > 0, x.lower, x.upper)
        worth = times(planes.coeff, point) + const
        value = (weight * worth).sum(axis=1, keepdims=True)
        best_weight = np.where(value > best, weight, best_weight)
        best = np.maximum(best, value)
        scale = np.abs(worth).max(axis=1, keepdims=True) + 1e-300
        weight = weight * np.exp(2.0 / (1.0 + step) ** 0.5 * worth / scale)
        weight = weight / weight.sum(axis=1, keepdims=True)
    return np.where(np.isfinite(best_weight), best_weight, 0.0)


def cut_down(cuts: list[Planes], low: Array, high: Array) -> tuple[Array, Array, np.ndarray]:
    """Boxes cut down to where no plane is > 0, and which of them are empty.

    a_i x_i <= -b - sum over j of min(a_j l_j, a_j u_j), j other than i, for each input i; computed
    in float64 and moved outward past its rounding.
    """
    rows = [(planes, row) for planes in cuts for row in range(planes.coeff.shape[1])]
    for planes, row in [*rows, *rows] if len(rows) > 2 else rows:
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
