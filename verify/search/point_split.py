"""PointSplit: branch and bound over entries of any nonlinear node's input, cut at points.

What activation splitting does for signs of Relus, for sigmoids, products, softmaxes and all others:
slower by part, since lines are drawn anew in each, and for every network that has lines at all.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses, Climb
from verify.bounders.point_climb import Seen, climbed, proved
from verify.bounders.point_parts import Columns, Parts, columns_of, joined
from verify.bounders.slopes import Ascent
from verify.branchers.points import Cutting
from verify.graph.ir import Graph
from verify.search.outcome import Outcome, Progress, Refuter, Watcher
from verify.search.root import Root, root_of, to_input
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.region import Box
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32, Rounding

METHOD = "point splitting"
WORK = 400_000
"""Entries of the widest node, over a batch of children, that fill matrix products."""
MOST = 64
"""Parts cut at once."""
GLANCES = 4
"""Minimisers of a batch that are tried as inputs."""
STEADIER = 3
"""How many times longer the first part's slopes are optimised."""


@dataclass(frozen=True, slots=True)
class PointSplit:
    """Cut entries until every part is proved or a counterexample is met.

    Attributes:
        ascent: how slopes are optimised at the root.
        climb: how each batch of parts is.
        cutting: how the entry to cut is chosen.
        batch: parts cut at once; None to choose by the network's size.
        rounding: which executions a proof holds for.
    """

    ascent: Ascent = Ascent()
    climb: Climb = Climb(iterations=8, alpha_rate=0.1, beta_rate=0.3)
    cutting: Cutting = Cutting()
    batch: int | None = None
    rounding: Rounding = FLOAT32

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """The verdict within the budget."""
        tree = Tree(self, graph, case, refute, budget, watch)
        try:
            return tree.run()
        except OutOfTime as error:
            return tree.outcome(Verdict.UNKNOWN, reason=str(error))


@dataclass(eq=False)
class Tree:
    """One search.

    Attributes:
        root, search, columns: the bounds that parts inherit, in float64 and float32.
        waiting: batches of open parts, each sorted, the newest last and searched first.
        bounded: parts bounded.
        proved: the least margin among what is closed, or could not be.
        slack: what the search must find for the proof to find more than 0.
        stuck: whether a part without entries to cut could not be proved.
        witness: a counterexample, once there is one.
    """

    how: PointSplit
    graph: Graph
    case: Case
    refute: Refuter | None
    budget: Budget
    watch: Watcher | None
    waiting: list[Parts] = field(default_factory=list)
    bounded: int = 0
    proved: float = float("inf")
    slack: float = 0.0
    stuck: bool = False
    witness: Tensor | None = None
    root: Root = field(init=False)
    search: BackwardPass = field(init=False)
    columns: Columns = field(init=False)
    single: Clauses = field(init=False)

    def outcome(self, verdict: Verdict, *, reason: str = "") -> Outcome:
        """What is known by now."""
        bound = min([self.proved, *(float(part.value.min()) for part in self.waiting)])
        return Outcome(
            verdict, METHOD, reason=reason, bound=bound, domains=self.bounded, witness=self.witness
        )

    def run(self) -> Outcome:
        """Root, then parts until nothing is open; raises OutOfTime."""
        how = self.how
        root = root_of(self.graph, self.case, how.ascent, self.budget, None, how.rounding)
        self.root, self.slack = root, root.slack
        self.bounded += len(root.margin)
        closed = root.margin[root.margin > 0]
        if len(closed):
            self.proved = float(closed.min())
        if not len(root.domains):
            return self.outcome(root.worth)
        self.search = in_float32(root.proof)
        self.columns = columns_of(root.proof.graph)
        self.single = root.clauses.to(torch.float32)
        longer = replace(how.climb, iterations=STEADIER * how.climb.iterations)
        self.settle(self.first(), longer)
        widest = max(self.columns.count, *(n.size for n in root.proof.graph.nodes))
        batch = how.batch or max(1, min(MOST, WORK // widest))
        while self.waiting and self.witness is None:
            self.budget.check()
            parts = self.draw(batch)
            self.divide(parts)
            if self.watch is not None:
                open_ = sum(len(part) for part in self.waiting)
                self.watch(Progress(self.bounded, open_, float(parts.value.min())))
        if self.witness is not None:
            return self.outcome(Verdict.FALSIFIED)
        if self.stuck:
            return self.outcome(Verdict.UNKNOWN, reason="entries are too narrow to be cut further")
        return self.outcome(root.worth)

    def first(self) -> Parts:
        """One part per open clause, without cuts."""
        domains, count = self.root.domains, len(self.root.domains)
        ends = []
        for side in ("lower", "upper"):
            known = {n: getattr(self.root.proof.bounds[n], side) for n in self.columns.first}
            ends.append(self.columns.laid(known, torch.zeros(0, dtype=torch.float64), count))
        none = torch.zeros(count, 0, dtype=torch.float64)
        return Parts(
            domains.clause,
            domains.weight,
            ends[0],
            ends[1],
            none.long(),
            none,
            none,
            none.to(torch.float32),
            domains.value,
            {name: alpha[:, domains.clause] for name, alpha in self.root.slopes.items()},
        )

    def draw(self, count: int) -> Parts:
        """Up to `count` parts from the newest batches, those of least bound."""
        drawn = []
        while self.waiting and count > 0:
            block = self.waiting.pop()
            if len(block) > count:
                every = torch.arange(len(block))
                self.waiting.append(block.take(every[:-count]))
                block = block.take(every[-count:])
            drawn.append(block)
            count -= len(block)
        return joined(drawn)

    def divide(self, parts: Parts) -> None:
        """Cut parts in two and bound the children."""
        known = (self.search, self.columns, self.single)
        _, found = climbed(*known, parts, self.slack, replace(self.how.climb, iterations=1))
        children, alive = self.how.cutting(*known, parts, found, self.slack)
        left = parts.value[~alive]
        if len(left):
            self.stuck = True
            self.proved = min(self.proved, float(left.min()))
        if children is not None:
            self.settle(children, self.how.climb)

    def settle(self, parts: Parts, climb: Climb) -> None:
        """Bound parts; prove what can be, keep the rest, look for a witness."""
        inherited = parts.value.clamp(max=self.slack)
        known = (self.search, self.columns, self.single)
        best, found = climbed(*known, parts, self.slack, climb)
        self.bounded += len(parts)
        left = ~(best.value > self.slack)
        ready = (~left).nonzero().flatten()
        if len(ready):
            leaves = best.take(ready)
            margin = proved(self.root.proof, self.columns, self.root.clauses, leaves)
            good = margin > 0
            if bool(good.any()):
                self.proved = min(self.proved, float(margin[good].min()))
            if not bool(good.all()):
                short = float((leaves.value.to(torch.float64) - margin)[~good].max())
                self.slack = max(self.slack, 1.5 * short) if short < torch.inf else self.slack
                left[ready[~good]] = True
        keep = left.nonzero().flatten()
        if len(keep):
            kept = replace(best, value=torch.maximum(best.value, inherited)).take(keep)
            self.waiting.append(kept.take(kept.value.argsort(descending=True)))
            self.witness = self.glance(found, best, keep)

    def glance(self, found: Seen, best: Parts, rows: Tensor) -> Tensor | None:
        """Try the minimisers of the least bounds as inputs."""
        if self.refute is None:
            return None
        some = rows[best.value[rows].argsort()[:GLANCES]]
        entry = self.root.proof.graph.input.name
        return self.refute.check(to_input(self.graph, entry, found.point[some]))


def in_float32(proof: BackwardPass) -> BackwardPass:
    """The pass with its bounds, for a search."""
    search = copy.copy(proof)
    search.graph = proof.graph.to(torch.float32)
    region = proof.region.to(torch.float32)
    assert isinstance(region, Box)
    search.region, search.rounding = region, None
    search.bounds = {name: bounds.to(torch.float32) for name, bounds in proof.bounds.items()}
    return search
