"""The nearest counterexample of a tiny network by a mixed-integer program: its radius, proposed.

Every Relu of open sign gets a binary v with h <= u·v and h <= z - l·(1 - v), and t >= |x_i - c_i|
is minimised over the inputs where another class is at least the label. The solver's optimum holds
up to its tolerances, so it decides nothing: the runtime judges the point, and what lies below it
is for a rigorous search to prove.

Source:
    Tjeng, Xiao and Tedrake 2019, arXiv:1711.07356.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import Bounds as Limits
from scipy.optimize import LinearConstraint, milp
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.lp import Index, Program, Vector, program
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Judge
from verify.search.milp import unfit, within
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.question import Question
from verify.values.region import Box

METHOD = "milp"
GAP = 1e-4
"""Relative gap at which the solver stops."""
OUTWARD = (1.0, 1.00001, 1.0001, 1.001, 1.005, 1.02)
"""How far along its segment an optimum is pushed: it lies on the edge, up to tolerances."""
NO_CLOCK = 20.0
"""Seconds for the programs where no time limit was given."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Looks for the nearest counterexample of a case around a point, exactly if time allows.

    Attributes:
        most: with more neurons of open sign than this there is no program.
        bounder: of the neurons.
    """

    most: int = 60
    bounder: AlphaCrown = AlphaCrown(enough=0.0)

    def __call__(
        self, graph: Graph, case: Case, asked: Question, judge: Judge, budget: Budget
    ) -> Tensor | None:
        """A misclassified point, float32, or None.

        Args:
            graph: the network, float64, as it is searched.
            case: the question's, at the radius to search within.
            asked: a batch of one.
            judge: decides.
            budget: for all programs.
        """
        if unfit(graph) or any(len(clause) != 1 for clause in case.clauses):
            return None
        shape = (1, *graph.input.shape)
        region = Box(case.lower.view(shape), case.upper.view(shape))
        try:
            bounds = self.bounder(Problem(graph, region, case.spec()), budget).bounds
        except OutOfTime:
            return None
        coeff = torch.cat([clause.coeff for clause in case.clauses])
        const = torch.cat([clause.const for clause in case.clauses])
        relaxed = program(graph, bounds, coeff, const, joint=False)
        if relaxed.open_count > self.most or not only_relus(relaxed):
            return None
        return self.best(relaxed, case, asked, judge, budget)

    def best(
        self, relaxed: Program, case: Case, asked: Question, judge: Judge, budget: Budget
    ) -> Tensor | None:
        """The nearest confirmed optimum over the clauses."""
        centre = asked.x[0].flatten().to(torch.float64)
        cap = float(torch.maximum(case.upper - centre, centre - case.lower).max())
        best: Tensor | None = None
        for row in range(len(relaxed.offsets)):
            left = min(NO_CLOCK, budget.deadline - time.monotonic())
            if left <= 0:
                break
            point = nearest_point(relaxed, row, centre.numpy(), cap, left)
            found = None if point is None else confirmed(point, centre, case, asked, judge)
            if found is not None:
                best, cap = found, float(asked.distance(found[None])[0])
        return best


def only_relus(relaxed: Program) -> bool:
    """Whether every kinked node is max(z, 0)."""
    return all((la.below == 0).all() and (la.above == 1).all() for la in relaxed.layers)


def nearest_point(
    relaxed: Program, row: int, centre: Vector, cap: float, seconds: float
) -> Vector | None:
    """The input nearest to the centre where one row is <= 0, as far as the solver can tell."""
    first, inputs = relaxed.matrix.shape[1], relaxed.inputs
    count = relaxed.open_count
    z = np.concatenate([la.first_z + la.open_ for la in relaxed.layers] or [np.zeros(0, int)])
    h = np.concatenate(
        [la.first_h + np.arange(len(la.open_)) for la in relaxed.layers] or [np.zeros(0, int)]
    )
    low = np.concatenate([la.lower for la in relaxed.layers] or [np.zeros(0)])
    high = np.concatenate([la.upper for la in relaxed.layers] or [np.zeros(0)])
    total, place = first + count + 1, np.arange(count)

    def block(height: int, *parts: tuple[Index | Vector, Vector]) -> sp.csr_matrix:
        """Rows with one entry per part: (columns, values)."""
        rows = np.concatenate([np.arange(height)] * len(parts))
        columns = np.concatenate([np.broadcast_to(c, height) for c, _ in parts])
        values = np.concatenate([np.broadcast_to(v, height) for _, v in parts])
        return sp.csr_matrix((values, (rows, columns)), shape=(height, total))

    one, top, every = np.ones(1), np.array([total - 1]), np.arange(inputs)
    wide = sp.hstack([relaxed.matrix, sp.csr_matrix((relaxed.matrix.shape[0], count + 1))])
    unsafe = sp.hstack([relaxed.objectives[row], sp.csr_matrix((1, count + 1))])
    blocks = (
        (wide, relaxed.low, relaxed.high),
        (unsafe, -np.inf, -relaxed.offsets[row]),
        (block(count, (h, one), (z, -one), (first + place, -low)), -np.inf, -low),
        (block(count, (h, one), (first + place, -high)), -np.inf, 0.0),
        (block(inputs, (every, one), (top, -one)), -np.inf, centre),
        (block(inputs, (every, one), (top, one)), centre, np.inf),
    )
    found = milp(
        np.append(np.zeros(total - 1), 1.0),
        constraints=[LinearConstraint(a, lo, hi) for a, lo, hi in blocks if a.shape[0]],
        integrality=np.concatenate([np.zeros(first), np.ones(count), [0]]),
        bounds=Limits(
            np.concatenate([relaxed.lower, np.zeros(count + 1)]),
            np.concatenate([relaxed.upper, np.ones(count), [cap]]),
        ),
        options={"time_limit": seconds, "mip_rel_gap": GAP},
    )
    return None if found.x is None else np.asarray(found.x[:inputs], dtype=np.float64)


def confirmed(
    point: Vector, centre: Tensor, case: Case, asked: Question, judge: Judge
) -> Tensor | None:
    """The point, pushed outward until the runtime confirms it; None if it never does."""
    moved = torch.from_numpy(point) - centre
    steps = torch.tensor(OUTWARD, dtype=torch.float64)[:, None]
    points = within(centre + steps * moved, case).view(-1, *asked.x.shape[1:])
    wrong = judge.misclassified(points, asked.labels.expand(len(points)))
    inside = asked.take(torch.zeros(len(points), dtype=torch.int64)).holds(points)
    hits = (wrong & inside).nonzero().flatten()
    return points[int(hits[0])] if len(hits) and not math.isnan(float(points.sum())) else None
