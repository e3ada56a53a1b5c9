"""Simplex: HiGHS on one linear program whose neurons' bounds move, warm from solve to solve."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from highspy import _core
from numpy.typing import NDArray

from verify.bounders.lp import Index, Program, Vector, chord

Flags = NDArray[np.int8]
OPTIMAL = highspy.HighsModelStatus.kOptimal
CUT_OFF = highspy.HighsModelStatus.kObjectiveBound
INFEASIBLE = highspy.HighsModelStatus.kInfeasible
LATE = highspy.HighsModelStatus.kTimeLimit
PRIMAL = 4
LONGEST = 20.0
"""Seconds for one program."""
ITERATIONS_PER_ROW = 20
"""Far more than a program takes that is not cycling."""


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """What is assumed of the open neurons of a program, all layers in one row.

    Attributes:
        side: +1 where z >= 0, -1 where z <= 0, 0 where its sign is open.
        lower, upper: bounds of z; on a known side within that side.
        splits: which neurons were split on the way, and which side this is, in order.
    """

    side: Flags
    lower: Vector
    upper: Vector
    splits: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """What HiGHS says.

    Attributes:
        status: `OPTIMAL`, `CUT_OFF` (the bound asked for is exceeded), `INFEASIBLE`, or another:
            then nothing is known.
        bound: the objective, or +inf if infeasible.
        columns: values of the columns, or None.
        duals: of the rows, or of the ray that shows infeasibility, or None.
        ray: whether the duals are a ray.
    """

    status: Any
    bound: float
    columns: Vector | None
    duals: Vector | None
    ray: bool = False


class Simplex:
    """HiGHS with one program loaded; the dual simplex method, one thread."""

    def __init__(self, program: Program) -> None:
        """Load the program with the bounds over the whole region."""
        self.program = program
        layers = program.layers
        self.z = concatenated([layer.first_z + layer.open_ for layer in layers])
        self.h = concatenated([layer.first_h + np.arange(len(layer.open_)) for layer in layers])
        self.row = concatenated(
            [layer.first_chord + np.arange(len(layer.open_)) for layer in layers]
        )
        self.below = np.concatenate([np.zeros(0), *(layer.below for layer in layers)])
        self.above = np.concatenate([np.zeros(0), *(layer.above for layer in layers)])
        self.whole = Domain(
            np.zeros(len(self.z), dtype=np.int8),
            np.concatenate([np.zeros(0), *(layer.lower for layer in layers)]),
            np.concatenate([np.zeros(0), *(layer.upper for layer in layers)]),
        )
        self.now = self.whole
        self.offset = float(program.offsets[0])
        self.highs: Any = _core._Highs()  # the outer class prints a banner
        self.highs.setOptionValue("output_flag", False)
        for name, value in (("threads", 1), ("presolve", "off"), ("solver", "simplex")):
            self.highs.setOptionValue(name, value)
        # HiGHS may cycle on degenerate programs; then nothing is known, and it starts afresh.
        most = ITERATIONS_PER_ROW * (sum(program.matrix.shape) + 50)
        self.highs.setOptionValue("simplex_iteration_limit", most)
        self.highs.passModel(model_of(program))
        self.solves = 0

    def move(self, domain: Domain) -> None:
        """Take over a domain's bounds and sides; only what differs is touched."""
        now = self.now
        differs = (domain.side != now.side) | (domain.lower != now.lower)
        changed = np.flatnonzero(differs | (domain.upper != now.upper))
        self.now = domain
        if not len(changed):
            return
        z = self.z[changed]
        low, high = domain.lower[changed], domain.upper[changed]
        self.highs.changeColsBounds(len(z), z.astype(np.int32), low, high)
        side, below, above = domain.side[changed], self.below[changed], self.above[changed]
        open_ = side == 0
        slope, offset = np.where(side > 0, above, below), np.zeros(len(changed))
        slope[open_], offset[open_] = chord(below[open_], above[open_], low[open_], high[open_])
        convex = above >= below
        rows = self.row[changed]
        for row, column, weight in zip(rows.tolist(), z.tolist(), (-slope).tolist(), strict=True):
            self.highs.changeCoeff(row, column, weight)
        self.highs.changeRowsBounds(
            len(rows),
            rows.astype(np.int32),
            np.where(convex, -np.inf, offset),
            np.where(convex, offset, np.inf),
        )

    def aim(self, row: int) -> None:
        """Minimise another of the program's objectives."""
        program = self.program
        cost = program.objectives[row].toarray()[0]
        every = np.arange(len(cost), dtype=np.int32)
        self.highs.changeColsCost(len(cost), every, cost)
        # Its optimum stays feasible under another cost, which is where the primal method starts.
        self.highs.setOptionValue("simplex_strategy", PRIMAL)
        self.offset = float(program.offsets[row])

    def solve(self, *, enough: float = math.inf, deadline: float = math.inf) -> Solved:
        """Minimise over the present domain.

        Args:
            enough: stop as soon as the objective is known to exceed this.
            deadline: on the clock of `time.monotonic`.
        """
        highs, offset = self.highs, self.offset
        highs.setOptionValue("objective_bound", enough - offset if enough < math.inf else 1e200)
        left = deadline - time.monotonic()
        if left <= 0:
            return Solved(LATE, math.nan, None, None)
        highs.setOptionValue("time_limit", highs.getRunTime() + min(left, LONGEST))
        self.solves += 1
        highs.run()
        status = highs.getModelStatus()
        if status not in (OPTIMAL, CUT_OFF, INFEASIBLE, LATE):
            highs.clearSolver()
            highs.run()
            status = highs.getModelStatus()
        if status == INFEASIBLE:
            _, found, ray = highs.getDualRay()
            duals = np.array(ray) if found else None
            return Solved(status, math.inf, None, duals, ray=True)
        solution = highs.getSolution()
        if status not in (OPTIMAL, CUT_OFF) or not solution.dual_valid:
            return Solved(status, math.nan, None, None)
        value = highs.getInfo().objective_function_value + offset
        return Solved(
            status,
            value,
            np.array(solution.col_value) if solution.value_valid else None,
            np.array(solution.row_dual),
        )


def concatenated(parts: list[Index]) -> Index:
    """One index array; empty if there are no parts."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def model_of(program: Program) -> Any:
    """The program as HiGHS takes it."""
    matrix = program.matrix
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = matrix.shape[1], matrix.shape[0]
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = (
        program.objectives[0].toarray()[0],
        program.lower,
        program.upper,
    )
    lp.row_lower_, lp.row_upper_ = program.low, program.high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = matrix.indptr
    lp.a_matrix_.index_ = matrix.indices
    lp.a_matrix_.value_ = matrix.data
    return lp
