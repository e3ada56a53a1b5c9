"""InputSplit: complete search by splitting the box of inputs until each part is decided.

A part is closed when each clause has a row that is positive on all of it. What stays open is cut
down to where its rows may fail (`clipping`), halved, and waits in the `frontier`. Bounds are
rigorous wherever they close something; the search itself only proposes witnesses, which the
refuter replays.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.crew import available
from verify.bounders.dense import dense_planes
from verify.bounders.planes import CrownPlanes, Goal, PlaneBounder
from verify.bounders.staged_planes import staged_planes
from verify.graph.ir import Graph
from verify.search.clipping import down, hull, up
from verify.search.frontier import Boxes, Frontier
from verify.search.outcome import Outcome, Progress, Refuter, Watcher
from verify.traverse import run
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.result import StopReason, Verdict
from verify.values.rounding import FLOAT32, Rounding
from verify.values.semantics import proof_by

NAME = "input-split"
TRIED = 64
"""Candidates of one batch that are shown to the runtime at most."""
GLANCE = 0.1
"""Share of the time that looking for counterexamples may take."""
LONG = 3.0
"""Seconds of search after which every other glance is at the whole box."""
MANY = 10.0
"""Effort of such a glance: some hundred starts, which cost a small network hardly more than few."""
WORST = 16
"""Boxes that one glance looks into."""
TOO_FINE = (
    "some boxes cannot be split further: their inputs are neighbouring float32 numbers and the "
    "margin there is within rounding"
)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What became of a batch of boxes, for who records the tree.

    Attributes:
        boxes: as they were bounded.
        closed: which of them need nothing more.
        low, high: what clipping left of the others, float32, shape (open, inputs).
        axis, value: where those were cut, (open,); axis -1 where no cut is possible.
        children: numbers of the lower and the upper part, (open, 2).
    """

    boxes: Boxes
    closed: Tensor
    low: Tensor
    high: Tensor
    axis: Tensor
    value: Tensor
    children: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What one worker found of its boxes.

    Attributes:
        boxes: as given.
        open_: which clauses may still be met, (batch, clause).
        bound: the least margin known to hold, (batch,).
        low, high: what clipping left, float64, (batch, inputs).
        weight: how much each input matters to the rows that are open, (batch, inputs).
        candidates: float32 inputs that meet the case in our arithmetic.
    """

    boxes: Boxes
    open_: Tensor
    bound: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor
    candidates: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class InputSplit:
    """Branch and bound over boxes of inputs.

    Attributes:
        workers: threads that bound at the same time; 0 for one per processor that we may use.
        clip: whether boxes are cut down to where rows may fail.
        batch: boxes that one thread bounds at once; 0 for what its bounder likes best.
        on_step: told what became of each batch.
        why: why this search was chosen.
        rounding: which executions a proof is to hold for.

    Source:
        Wang et al. 2018 (ReluVal), arXiv:1804.10829; Wang et al. 2021 (beta-CROWN), for bounding in
        batches; Zhou et al. 2025, arXiv:2512.11087, for clipping.
    """

    workers: int = 0
    clip: bool = True
    batch: int = 0
    on_step: Callable[[Step], None] | None = None
    why: str = "few inputs vary, so their box is split"
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
        if not case.clauses or bool((case.lower > case.upper).any()):
            return Outcome(proof_by(self.rounding), NAME, self.why, bound=float("inf"))
        if any(not len(clause) for clause in case.clauses):
            return self.unconditional(graph, case, refute)
        workers = self.workers or available()
        root = down(case.lower), up(case.upper)
        bounder = bounder_for(graph, goal_of(case), self.rounding, *root)
        threads = torch.get_num_threads()
        # Each worker computes alone: many small products gain nothing from threads of their own.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                hunt = Hunt(self, graph, case, bounder, refute, budget, watch)
                return hunt.run(pool, workers)
        finally:
            torch.set_num_threads(threads)

    def unconditional(self, graph: Graph, case: Case, refute: Refuter | None) -> Outcome:
        """A clause without rows is met by every input of the case."""
        middle = ((case.lower + case.upper) / 2)[None].to(torch.float32)
        found = None if refute is None else refute.check(middle)
        if found is None:
            reason = "every input of the case meets it, but none was confirmed"
            return Outcome(Verdict.UNKNOWN, NAME, self.why, reason)
        return Outcome(Verdict.FALSIFIED, NAME, self.why, witness=found)


class Hunt:
    """One search: its frontier, its clock, and what it has seen."""

    def __init__(
        self,
        search: InputSplit,
        graph: Graph,
        case: Case,
        bounder: PlaneBounder,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None,
    ) -> None:
        """Start with the whole box, rounded out to float32."""
        self.search, self.graph, self.case = search, graph, case
        self.bounder, self.refute, self.budget, self.watch = bounder, refute, budget, watch
        self.single = graph.to(torch.float32)
        # Linear constraints on the inputs cut every clause's part.
        tied = range(-len(case.inputs), 0)
        self.own = [list(rows) for rows in bounder.clauses]
        self.clauses = [[*rows, *tied] for rows in self.own]
        root = Boxes(
            down(case.lower)[None].to(torch.float32),
            up(case.upper)[None].to(torch.float32),
            torch.full((1,), -torch.inf, dtype=torch.float64),
            torch.ones(1, len(self.own), dtype=torch.bool),
            torch.zeros(1, dtype=torch.int64),
        )
        per_box = 8 * case.lower.numel() + len(self.own) + 16
        # Half of the memory: past it the newest go first, and each level adds a batch at most.
        self.frontier = Frontier(root, max(1024, budget.memory // (2 * per_box)))
        self.bounded, self.numbers = 0, 1
        self.stuck = 0
        self.bound = float("inf")
        self.started = time.monotonic()
        self.spent = 0.0
        self.glances = 0

    def run(self, pool: ThreadPoolExecutor, workers: int) -> Outcome:
        """Until everything is decided, or the time is over."""
        size = self.search.batch or self.bounder.batch
        while len(self.frontier):
            part = self.frontier.pop(workers * size)
            try:
                self.budget.check()
                shares = [part.take(rows) for rows in torch.arange(len(part)).chunk(workers)]
                looked = list(pool.map(self.look, shares))
            except OutOfTime:
                left = min(float(part.bound.min()), self.frontier.bound)
                return self.outcome(Verdict.UNKNOWN, StopReason.OUT_OF_TIME.value, left)
            self.bounded += len(part)
            for found in looked:
                witness = self.confirmed(found.candidates)
                if witness is not None:
                    return self.outcome(Verdict.FALSIFIED, "", float("nan"), witness)
                self.split(found)
            witness = self.glance(looked)
            if witness is not None:
                return self.outcome(Verdict.FALSIFIED, "", float("nan"), witness)
            if self.watch is not None:
                self.watch(Progress(self.bounded, len(self.frontier), self.frontier.bound))
        if self.stuck:
            return self.outcome(Verdict.UNKNOWN, TOO_FINE, self.bound)
        return self.outcome(proof_by(self.search.rounding), "", self.bound)

    def outcome(
        self, verdict: Verdict, reason: str, bound: float, witness: Tensor | None = None
    ) -> Outcome:
        """With what the search has counted."""
        return Outcome(verdict, NAME, self.search.why, reason, bound, self.bounded, witness)

    def look(self, boxes: Boxes) -> Looked:
        """Bound boxes, clip them, and try their likeliest points; runs in a worker."""
        lower, upper = boxes.lower.to(torch.float64), boxes.upper.to(torch.float64)
        planes = self.bounder(lower, upper, self.budget, boxes.open_)
        coeff, const = planes.coeff, planes.const
        if len(self.case.inputs):
            every = len(boxes)
            coeff = torch.cat((coeff, self.case.inputs.coeff.expand(every, -1, -1)), dim=1)
            const = torch.cat((const, self.case.inputs.const.expand(every, -1)), dim=1)
        best = torch.stack([known(planes.least[:, rows]).amax(dim=1) for rows in self.own], dim=1)
        open_ = boxes.open_ & ~(best > 0)
        best = torch.where(open_, best, torch.inf)
        bound = torch.maximum(boxes.bound, best.amin(dim=1))
        low, high = lower, upper
        if self.search.clip:
            low, high, open_ = hull(lower, upper, coeff, const, self.clauses, open_)
        alive = open_.any(dim=1)
        weight = torch.where(open_[:, :, None], planes.weight, 0.0).sum(dim=1)
        # The row nearest to being positive, of the worst clause, is lowest in a corner.
        worst = best.argmin(dim=1)
        rows = torch.stack([known(planes.least[:, r]).argmax(dim=1) for r in self.own], dim=1)
        firsts = torch.stack([torch.tensor(r)[rows[:, i]] for i, r in enumerate(self.own)], dim=1)
        chosen = firsts.gather(1, worst[:, None])[:, :, None].expand(-1, -1, lower.shape[1])
        corner = torch.where(planes.coeff.gather(1, chosen)[:, 0] > 0, lower, upper)
        points = torch.cat((((lower + upper) / 2)[alive], corner[alive]))
        return Looked(boxes, open_, bound, low, high, weight, self.meeting(points))

    def meeting(self, points: Tensor) -> Tensor:
        """Those that meet the case in our float32 arithmetic; (some, inputs), float32."""
        x = points.to(torch.float32)
        output = run(self.single, x.view(-1, *self.graph.input.shape)).flatten(1)
        hit = torch.zeros(len(x), dtype=torch.bool)
        for clause in self.case.clauses:
            hit |= clause.contain(output)
        if len(self.case.inputs):
            hit &= self.case.inputs.contain(x)
        return x[hit][:TRIED]

    def confirmed(self, candidates: Tensor) -> Tensor | None:
        """The first that the refuter confirms."""
        if self.refute is None or not len(candidates):
            return None
        return self.refute.check(candidates)

    def glance(self, looked: list[Looked]) -> Tensor | None:
        """A short search in the worst boxes, now and then."""
        elapsed = time.monotonic() - self.started
        if self.refute is None or self.spent > GLANCE * elapsed:
            return None
        self.glances += 1
        if elapsed > LONG and self.glances % 2:
            # Counterexamples may be where bounds are not the worst: from many new starts, all over.
            begun = time.monotonic()
            found = self.refute(self.case.lower[None], self.case.upper[None], effort=MANY)
            self.spent += time.monotonic() - begun
            return found
        alive = [found.open_.any(dim=1) for found in looked]
        bound = torch.cat([f.bound[a] for f, a in zip(looked, alive, strict=True)])
        if not len(bound):
            return None
        low = torch.cat([f.low[a] for f, a in zip(looked, alive, strict=True)])
        high = torch.cat([f.high[a] for f, a in zip(looked, alive, strict=True)])
        index = bound.topk(min(WORST, len(bound)), largest=False).indices
        begun = time.monotonic()
        low, high = low[index], high[index]
        low = torch.maximum(low, self.case.lower)
        high = torch.minimum(high, self.case.upper)
        inside = (low <= high).all(dim=1)
        found = self.refute(low[inside], high[inside], effort=0.01) if bool(inside.any()) else None
        self.spent += time.monotonic() - begun
        return found

    def split(self, found: Looked) -> None:
        """Halve what is left of boxes, and let the halves wait."""
        alive = found.open_.any(dim=1)
        # What clipping closed has no margin of its own to report.
        shown = found.bound[~alive & (found.bound > 0)]
        low, high, bound = found.low[alive], found.high[alive], found.bound[alive]
        axis, value, possible = cuts(low, high, found.weight[alive])
        left = torch.cat((shown, bound[~possible]))
        self.bound = min(self.bound, float(left.min()) if len(left) else float("inf"))
        self.stuck += int((~possible).sum())
        count = int(possible.sum())
        names = torch.full((len(low), 2), -1)
        names[possible] = torch.arange(self.numbers, self.numbers + 2 * count).view(-1, 2)
        self.numbers += 2 * count
        self.put(low, high, bound, found.open_[alive], axis, value, names, possible)
        if self.search.on_step is not None:
            self.search.on_step(
                Step(
                    found.boxes,
                    ~alive,
                    low.to(torch.float32),
                    high.to(torch.float32),
                    torch.where(possible, axis, -1),
                    value.to(torch.float32),
                    names,
                )
            )

    def put(
        self,
        low: Tensor,
        high: Tensor,
        bound: Tensor,
        open_: Tensor,
        axis: Tensor,
        value: Tensor,
        names: Tensor,
        possible: Tensor,
    ) -> None:
        """The halves of what can be split."""
        low, high = low[possible].to(torch.float32), high[possible].to(torch.float32)
        axis, value = axis[possible, None], value[possible, None].to(torch.float32)
        bound, open_, names = bound[possible], open_[possible], names[possible]
        self.frontier.put(Boxes(low, high.scatter(1, axis, value), bound, open_, names[:, 0]))
        self.frontier.put(Boxes(low.scatter(1, axis, value), high, bound, open_, names[:, 1]))


def goal_of(case: Case) -> Goal:
    """The rows that must be positive, and which of them make a clause."""
    spec = case.spec()
    sizes = [len(clause) for clause in case.clauses]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    clauses = tuple(tuple(range(e - n, e)) for n, e in zip(sizes, ends, strict=True))
    return Goal(spec.coeff[0], spec.const[0], clauses)


def bounder_for(
    graph: Graph, goal: Goal, rounding: Rounding, lower: Tensor, upper: Tensor
) -> PlaneBounder:
    """The fastest bounder that can read the network, for boxes between the root's ends."""
    planes = dense_planes(graph, goal, rounding=rounding)
    if planes is not None:
        return planes
    return staged_planes(graph, goal, lower, upper, rounding) or CrownPlanes(graph, goal, rounding)


def known(values: Tensor) -> Tensor:
    """NaN proves nothing."""
    return torch.where(torch.isnan(values), -torch.inf, values)


def cuts(low: Tensor, high: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where to halve boxes: the input that matters most.

    Args:
        low, high: float64 holding float32 numbers, shape (batch, inputs).
        weight: how much halving each input may gain, same shape.

    Returns:
        Per box the axis, the value there, and whether there is a float32 strictly inside.
    """
    middle = (low / 2 + high / 2).to(torch.float32).to(torch.float64)
    splittable = (middle > low) & (middle < high)
    width = high - low
    score = torch.where(torch.isfinite(weight), weight, width)
    axis = torch.where(splittable, score, -1.0).argmax(dim=1)
    return axis, middle.gather(1, axis[:, None])[:, 0], splittable.any(dim=1)
