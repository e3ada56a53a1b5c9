"""Ladder: one radius after another, each search over signs beginning with the last one's tree.

A proof at one radius divides the signs of neurons into parts. At a larger radius the same parts are
bounded first, with the slopes and multipliers they had, and only those that are open then are split
further. A search that ended early, by a counterexample or the clock, leaves open parts; what it had
closed stays closed at any smaller radius, whose box lies inside.

Every part has a plane below its rows all over the box. Where the plane is positive on a smaller
box, so are the rows: the largest radius at which the planes of all open parts are positive is
certified without any further search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_proof import planes
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.protocols import Judge
from verify.search import pacing
from verify.search.activation_split import ActivationSplit
from verify.search.cover import Cover, Part
from verify.search.outcome import Outcome, Progress, Refuter
from verify.search.questions import LabelReplay, RefuterFor, case_of
from verify.search.sign_tree import METHOD, SMALLEST, SignTree
from verify.search.stating import searchable
from verify.values.budget import Budget, Cancelled, OutOfTime
from verify.values.linear_form import LinearForm
from verify.values.property import Property
from verify.values.question import Question
from verify.values.region import Box, Region
from verify.values.result import Bracket, StopReason, Verdict
from verify.values.semantics import Semantics

RUNG_SHARE, TOP_SHARE = 0.4, 0.3
"""Of the time that is left, for one radius, and for the attacked one where it is far off."""
FAR = 0.9
"""The certified radius is far off below this share of the attacked one."""
FIRST_STEP = 0.125
"""Of the way to a radius at which time ran out; steps double while they succeed."""
HOPELESS = 30.0
"""A radius is given up where its search seems to need so many times the time it has left."""
MOST_RUNGS = 40
"""Radii of one input."""
STEPS = 16
"""Radii at which planes are evaluated at once, and points of a segment that are run at once."""
ROUNDS = 3
"""How often such a grid is refined."""
AT_ONCE = 256
"""Parts whose planes are pulled back at once."""
ATTACK = "attack"
"""What a counterexample of the refuter is called."""
ENTRY_BYTES = 8
"""Of the memory granted, for a remembered number of a closed part, with what it takes to use it."""
NOT_CLOSED = "complete search did not close the bracket; open below radius {:.6g}: {}"


@dataclass(eq=False)
class Ladder:
    """The bracket of one input, and the parts to begin the next search with.

    Attributes:
        graph: the network.
        judge: its runtime.
        asked: the question, a batch of one; its eps caps the search.
        refuters: what looks for counterexamples.
        budget: for all radii.
        tolerance: relative width at which the bracket is closed.
        semantics: what a proof is to hold for.
        bracket: what is known.
        watch: told the bracket whenever one of its ends has moved.
        parts: to begin with, and the largest radius that they may be used at.
        failed: the least radius at which time ran out, since the attacked one moved.
        step: to the next radius, once one has failed.
        domains: bounded so far.
    """

    graph: Graph
    judge: Judge
    asked: Question
    refuters: RefuterFor | None
    budget: Budget
    tolerance: float
    semantics: Semantics
    bracket: Bracket
    watch: Callable[[list[Bracket]], None] | None = None
    how: ActivationSplit = field(default_factory=ActivationSplit)
    parts: Sequence[Part] | None = None
    up_to: float = math.inf
    failed: float = math.inf
    step: float = 0.0
    domains: int = 0

    def run(self) -> Bracket:
        """The bracket, closed as far as the time allows."""
        reason = ""
        for _ in range(MOST_RUNGS):
            low, high = self.ends()
            if self.bracket.attacked == 0 or high - low <= self.tolerance * high:
                return replace(self.bracket, reason="")
            if self.failed - low <= self.tolerance * high / 2:
                break
            eps = self.next_radius(low, high)
            before = (low, high, self.failed)
            outcome = self.rung(eps)
            if outcome is None or (*self.ends(), self.failed) == before:
                break
            reason = outcome.reason
            if self.watch is not None:
                self.watch([self.bracket])
        low, high = self.ends()
        if high - low > self.tolerance * high:
            cause = reason or StopReason.OUT_OF_TIME.value
            return replace(self.bracket, reason=NOT_CLOSED.format(high, cause))
        return replace(self.bracket, reason="")

    def ends(self) -> tuple[float, float]:
        """The certified radius, and the one that bounds the search."""
        cap = float(self.asked.eps[0])
        return self.bracket.certified, min(self.bracket.attacked, cap)

    def next_radius(self, low: float, high: float) -> float:
        """First just below the attacked radius, which is often exact; then by growing steps.

        Searches grow exponentially with the radius, so those far below one that succeeds cost
        little beside it.
        """
        if math.isinf(self.failed):
            whole = math.isinf(self.bracket.attacked)
            return high if whole else max((low + high) / 2, high * (1 - self.tolerance / 2))
        wide = min(self.failed, high) - low
        self.step = min(self.step, wide / 2) if self.step else wide * FIRST_STEP
        return low + self.step

    def rung(self, eps: float) -> Outcome | None:
        """Search at one radius, and move the ends; None where the time is over."""
        low, high = self.ends()
        at_top = math.isinf(self.failed) and low < FAR * high
        budget = self.budget.share(TOP_SHARE if at_top else RUNG_SHARE)
        if budget.deadline >= self.budget.deadline < math.inf or self.budget.cancelled():
            return None
        one = self.asked.at(torch.tensor([eps], dtype=torch.float64))
        stated = case_of(one, self.graph.output.size)
        graph, cases = searchable(
            self.graph, Property((stated,), self.graph.input.size, self.graph.output.size)
        )
        if cases is None:
            return None
        (case,) = cases
        replay = LabelReplay(stated, one, self.judge)
        refute: Refuter = (
            replay if self.refuters is None else self.refuters(graph, replay, case, budget)
        )
        begin = self.parts if eps <= self.up_to else None
        tree = SignTree(self.how, graph, case, refute, budget, self.noticed)
        tree.start, tree.hopeless = begin, HOPELESS
        tree.cover = Cover(most=self.budget.memory // ENTRY_BYTES)
        try:
            outcome = tree.run()
        except OutOfTime as error:
            outcome = tree.outcome(Verdict.UNKNOWN, reason=str(error))
        self.domains += outcome.domains
        first = math.isinf(self.failed)
        self.learn(eps, tree, outcome, fresh=begin is None)
        if first and math.isfinite(self.failed):
            # Where no proof comes soon, a thorough attack may pay: once.
            found = refute(case.lower[None], case.upper[None], effort=1.0)
            if found is not None:
                self.refuted(found, ATTACK)
        return outcome

    def refuted(self, witness: Tensor, method: str) -> None:
        """Lower the upper end to a counterexample, or to a nearer one behind it."""
        point = nearest_on_segment(self.judge, self.asked, witness)
        distance = float(self.asked.distance(point[None])[0])
        if distance < self.bracket.attacked:
            self.bracket = replace(self.bracket, attacked=distance, attack=method, witness=point)

    def noticed(self, progress: Progress) -> None:
        """Leave a search that nobody waits for."""
        if self.budget.cancelled():
            raise Cancelled

    def learn(self, eps: float, tree: SignTree, outcome: Outcome, *, fresh: bool) -> None:
        """Take over what a search says."""
        if outcome.verdict.proved:
            self.certify(eps, outcome.bound)
            self.step *= 2
            self.parts = tree.cover.leaves
            # Of a search that began with open parts, the rest is closed up to their radius only.
            self.up_to = math.inf if fresh or self.parts is None else self.up_to
            if self.parts is not None and math.isinf(self.up_to) and not tree.cover.whole():
                raise InternalError("a proof over activations does not make up the whole space")
            return
        if outcome.witness is not None:
            self.failed = math.inf
            self.refuted(outcome.witness, outcome.method)
        else:
            self.failed = min(self.failed, eps)
        if tree.root is None or tree.cover.closed is None:
            return
        left = coarser(tree)
        self.parts, self.up_to = left, eps
        if outcome.witness is None:
            self.extend(eps, tree, left)

    def extend(self, eps: float, tree: SignTree, left: Sequence[Part]) -> None:
        """Certify what the planes of the open parts show, if it is more than what is known."""
        reached, margin = extended(self, eps, tree, left)
        if reached > self.bracket.certified:
            self.certify(reached, margin)

    def entry(self, graph: Graph, eps: float) -> Region:
        """The region that a pass at this radius starts from."""
        box = self.asked.at(torch.tensor([eps], dtype=torch.float64)).region().bounds()
        shape = (1, *graph.input.shape)
        region = Box(box.lower.view(shape), box.upper.view(shape))
        return BackwardPass(graph, region, self.semantics.rounding, self.budget).region

    def certify(self, eps: float, margin: float) -> None:
        """Raise the lower end."""
        self.bracket = replace(self.bracket, certified=eps, margin=margin, method=METHOD, reason="")


def coarser(tree: SignTree) -> list[Part]:
    """What a search leaves open, for another to begin with.

    Below a base whose neurons were bounded anew the parts need those bounds: where they are many,
    the base is begun again as a whole.
    """
    left = tree.left()
    count = sum(len(domains) for _, domains in left)
    if count <= pacing.MOST_PARTS:
        return left
    found, whole = [], set()
    for base, domains in left:
        if base is tree.root or not base.conditional:
            found.append((base, domains))
        elif id(base.domains) not in whole:
            whole.add(id(base.domains))
            found.append((base, base.domains))
    return found


def extended(
    ladder: Ladder, eps: float, tree: SignTree, left: Sequence[Part]
) -> tuple[float, float]:
    """The largest radius found at which all open parts are positive, and the margin there.

    Args:
        ladder: the certified radius is where the search for more begins.
        eps: the radius that the tree is of; all but `left` is closed there.
        tree: the search.
        left: its open parts.
    """
    reached, margin = ladder.bracket.certified, math.nan
    forms, step = list(forms_of(left)), eps - reached
    for _ in range(ROUNDS):
        step /= STEPS
        radii = [reached + step * k for k in range(1, STEPS)]
        for radius in radii:
            # Smaller boxes lie inside: the first that fails ends it.
            least = least_over(ladder.entry(tree.graph, radius), forms)
            if not least > 0:
                break
            reached, margin = radius, least
    # What is closed has a margin > 0; where something could not be, its size is not known.
    return reached, min(margin, tree.proved if tree.proved > 0 else SMALLEST)


def forms_of(parts: Sequence[Part]) -> Iterator[LinearForm]:
    """The planes of parts, in batches."""
    for base, domains in parts:
        for rows in torch.arange(len(domains)).split(AT_ONCE):
            some = domains.take(rows)
            yield planes(base.proof, base.frame, base.clauses, some, base.others)


def least_over(region: Region, forms: Sequence[LinearForm]) -> float:
    """The least value of all planes; -inf where one is not known."""
    least = math.inf
    for form in forms:
        value = float(region.minimise(form).min())
        least = min(least, value if not math.isnan(value) else -math.inf)
    return least


def nearest_on_segment(judge: Judge, asked: Question, witness: Tensor) -> Tensor:
    """The misclassified point nearest to the input that is found between it and a witness."""
    x, best = asked.x[0].to(torch.float64), witness
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        shares = torch.linspace(low, high, STEPS + 1, dtype=torch.float64)[1:]
        moved = x + shares.view(-1, *[1] * x.ndim) * (witness.to(torch.float64) - x)
        points = moved.to(torch.float32)
        wide = points.to(torch.float64)
        inside = ((wide >= asked.lower) & (wide <= asked.upper)).flatten(1).all(dim=1)
        wrong = judge.misclassified(points, asked.labels.expand(len(points))) & inside
        if not bool(wrong.any()):
            break
        first = int(wrong.nonzero()[0])
        near = asked.take(torch.zeros(2, dtype=torch.int64))
        both = near.distance(torch.stack((points[first], best)))
        if float(both[0]) < float(both[1]):
            best = points[first]
        low, high = float(shares[first]) - (high - low) / STEPS, float(shares[first])
    return best
