"""Milp: exact search for small networks, by linear programs over the signs of neurons.

The mixed-integer program of a ReLU network (Tjeng, Xiao and Tedrake 2019, arXiv:1711.07356) has
one binary per neuron whose sign is open, and its relaxation is the triangle relaxation. A solver's
"infeasible" holds up to its tolerances only, and its tree cannot be looked into. So the tree is our
own, its nodes are solved by HiGHS, and each leaf is closed by a rigorous evaluation of the leaf's
dual values (`verify.bounders.multipliers`), which covers every float32 execution.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.lp import Vector, program
from verify.bounders.memo import Memo
from verify.bounders.multipliers import KINKED, Ledger, ledger
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Simplex
from verify.errors import UnsupportedOperator
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.problem import Problem
from verify.search.lp_clipping import clipper
from verify.search.lp_tree import LpTree
from verify.search.outcome import Outcome, Progress, Refuter, Watcher
from verify.search.recorder import ProgramRecorder
from verify.traverse import run
from verify.values.bounds import Bounds
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case, Halfspaces
from verify.values.region import Box
from verify.values.result import StopReason, Verdict
from verify.values.rounding import FLOAT32, Rounding
from verify.values.semantics import proof_by

METHOD = "lp-tree"
INWARD = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
"""How far towards the middle of the input constraints candidates are moved, as a share."""
WITHIN_ROUNDING = (
    "some part of the box is within rounding of the property's edge: no exact program can tell"
)


@dataclass(frozen=True, slots=True)
class Milp:
    """Branch and bound on signs of neurons with a linear program at every node.

    Attributes:
        most_neurons: with more neurons of open sign than this it leaves the case to others.
        most_entries: likewise, stored entries of the program's matrix.
        bounder: of the neurons, before the first program; it is given the rounding.
        rounding: which executions a proof is to hold for.
        recorder: is told what proves what.
        memo: given the slopes that bounded the neurons and the rows; for certificates.
    """

    most_neurons: int = 2000
    most_entries: int = 20_000_000
    bounder: AlphaCrown = AlphaCrown(enough=0.0)
    rounding: Rounding = FLOAT32
    recorder: ProgramRecorder | None = None
    memo: Memo | None = None

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """The verdict within the budget; see `verify.search.outcome.Search`."""
        neurons = sum(node.size for node in graph.nodes if node.op in KINKED)
        why = f"{neurons} neurons: their signs by linear programs"
        reason = unfit(graph)
        if reason:
            return Outcome(Verdict.UNKNOWN, METHOD, why, reason)
        shape = (1, *graph.input.shape)
        region = Box(case.lower.view(shape), case.upper.view(shape))
        try:
            bounder = replace(self.bounder, rounding=self.rounding)
            enclosure = bounder(Problem(graph, region, case.spec()), budget, self.memo)
        except OutOfTime:
            return Outcome(Verdict.UNKNOWN, METHOD, why, StopReason.OUT_OF_TIME.value)
        hunt = Hunt(graph, case, refute, budget, watch, enclosure.bounds, why)
        return hunt.over(self, enclosure.margin[0])


def unfit(graph: Graph) -> str:
    """Why the network has no program here, or empty."""
    for node in graph.nodes[1:]:
        if node.op not in KINKED and lookup(node).relax is not None:
            return f"node {node.name!r} ({node.op}) is not linear on either side of 0"
    return ""


@dataclass(eq=False)
class Hunt:
    """One case: its clauses one after the other."""

    graph: Graph
    case: Case
    refute: Refuter | None
    budget: Budget
    watch: Watcher | None
    bounds: Mapping[str, Bounds]
    why: str
    domains: int = 0
    witness: Tensor | None = None
    missed: bool = False
    clause: Halfspaces | None = None
    middle: Tensor | None = None

    def over(self, settings: Milp, margin: Tensor) -> Outcome:
        """Clauses from the least proved to the best; the first that stays open ends the matter."""
        sizes = [len(clause) for clause in self.case.clauses]
        best = [float(rows.nan_to_num(-math.inf).max()) for rows in margin.split(sizes)]
        order = sorted(range(len(sizes)), key=lambda i: best[i])
        least = min((b for b in best if b > 0), default=math.inf)
        account = ledger(self.graph, self.bounds, settings.rounding)
        for i in order:
            if math.isfinite(best[i]) and best[i] > 0:
                continue
            tree = self.tree(account, i, settings)
            if isinstance(tree, str):
                return self.unknown(tree, best[i])
            closed = tree.run(self.budget.deadline, tell=partial(self.tell, tree))
            self.domains += tree.nodes
            if self.witness is not None:
                return Outcome(
                    Verdict.FALSIFIED, METHOD, self.why, domains=self.domains, witness=self.witness
                )
            if not closed:
                late = time.monotonic() >= self.budget.deadline
                reason = StopReason.OUT_OF_TIME.value if late else WITHIN_ROUNDING
                return self.unknown(reason, min(best[i], tree.least()) if tree.open_ else best[i])
            least = min(least, tree.bound)
        proof = proof_by(settings.rounding)
        return Outcome(proof, METHOD, self.why, bound=least, domains=self.domains)

    def unknown(self, reason: str, bound: float) -> Outcome:
        """No decision."""
        return Outcome(Verdict.UNKNOWN, METHOD, self.why, reason, bound=bound, domains=self.domains)

    def tree(self, account: Ledger, number: int, settings: Milp) -> LpTree | str:
        """The tree of one clause, or why there is none."""
        clause, recorder = self.case.clauses[number], settings.recorder
        inputs = (self.case.inputs.coeff, self.case.inputs.const)
        try:
            relaxed = program(self.graph, self.bounds, clause.coeff, clause.const, inputs=inputs)
        except UnsupportedOperator as error:
            return str(error)
        if relaxed.open_count > settings.most_neurons:
            most = settings.most_neurons
            return f"{relaxed.open_count} neurons of open sign, more than {most}"
        if relaxed.matrix.nnz > settings.most_entries:
            most = settings.most_entries
            return f"a program of {relaxed.matrix.nnz} entries, more than {most}"
        shape = self.graph.output.shape
        prover = Prover(account, relaxed, clause.coeff.view(-1, *shape), clause.const, inputs)
        self.clause = clause
        simplex = Simplex(relaxed)
        slack = slack_of(prover, simplex)
        if recorder is not None:
            recorder.begin(prover, number)
        clip = clipper(prover, recorder)
        return LpTree(simplex, prover, self.judged, slack=slack, clip=clip, recorder=recorder)

    def judged(self, point: Vector) -> bool:
        """Whether the runtime confirms a program's optimum as a counterexample.

        Optima lie on the edges of input constraints, where rounding to float32 can put them
        outside; so points a little further inside are tried too.
        """
        assert self.clause is not None
        x = torch.from_numpy(point.copy())[None]
        if len(self.case.inputs):
            x = torch.lerp(x, self.inner(), torch.tensor(INWARD, dtype=torch.float64)[:, None])
        x = within(x, self.case)
        output = run(self.graph, x.to(torch.float64).view(-1, *self.graph.input.shape))
        met = self.clause.contain(output) & self.case.inputs.contain(x)
        if not bool(met.any()) or self.refute is None:
            return False
        self.witness = self.refute.check(x[met])
        return self.witness is not None

    def inner(self) -> Tensor:
        """A point of the box far from the edges of the input constraints, (1, inputs)."""
        if self.middle is None:
            self.middle = innermost(self.case)
        return self.middle

    def tell(self, tree: LpTree) -> None:
        """Report progress."""
        if self.watch is not None:
            done = self.domains + tree.nodes
            self.watch(Progress(done, len(tree.open_), tree.least()))


def within(points: Tensor, case: Case) -> Tensor:
    """The nearest float32 points inside the box, (batch, inputs)."""
    x = points.clamp(case.lower, case.upper).to(torch.float32)
    wide = x.to(torch.float64)
    up, down = x.new_full((), math.inf), x.new_full((), -math.inf)
    x = torch.where(wide < case.lower, torch.nextafter(x, up), x)
    return torch.where(wide > case.upper, torch.nextafter(x, down), x)


def innermost(case: Case) -> Tensor:
    """The point that keeps the most distance to the input constraints; the centre if none can."""
    rows, const = case.inputs.coeff.numpy(), case.inputs.const.numpy()
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    found = linprog(
        np.append(np.zeros(rows.shape[1]), -1.0),
        A_ub=np.hstack([rows, size]),
        b_ub=-const,
        bounds=[*zip(case.lower.tolist(), case.upper.tolist(), strict=True), (None, 1.0)],
    )
    if not found.success:
        return ((case.lower + case.upper) / 2)[None]
    return torch.from_numpy(found.x[None, :-1].copy())


def slack_of(prover: Prover, simplex: Simplex) -> float:
    """How much rounding takes from the root's bound, doubled; found by trying."""
    solved = simplex.solve()
    if solved.duals is None or not math.isfinite(solved.bound):
        return 0.0
    proved = float(prover.prove([simplex.whole], [solved.duals])[0])
    return max(0.0, 2 * (solved.bound - proved)) if math.isfinite(proved) else 0.0
