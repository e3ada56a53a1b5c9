"""Decide a property: attack, bounds from cheap to dear, then a complete search; and say why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.backward import row_products
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.protocols import Bounder
from verify.search.choosing import is_few, plan, splits_neurons
from verify.search.outcome import Diary, Outcome, Refuter, Watcher
from verify.search.replaying import MOST_REPLAYED
from verify.search.rooting import Open, narrowed, opened
from verify.search.stating import refuse_misfit, searchable
from verify.search.whole_inputs import in_whole_parts
from verify.values.budget import LEAST_SHARE, Budget
from verify.values.property import Case, Property
from verify.values.result import StopReason, Verdict
from verify.values.rounding import FLOAT32, PARTIAL_SUMS, Rounding
from verify.values.semantics import EXECUTED, IDEAL, Semantics

RefuterFor = Callable[[int, Case], Refuter]
"""The number of a case and what the search makes of it -> what looks for its counterexamples."""

MORE, LONG_EFFORT, LAST_ROUNDS = 0.2, 4.0, 10
"""Effort of the attack before bounds of large networks, of one that is all that is left to do, and
how often that is repeated."""
MOST_ATTACKED = 32
"""Of many open cases so many are attacked, the least proved first; the search looks into all."""
FEW_CASES = 8
"""Up to so many cases are attacked before anything is bounded."""
CASE_SHARE = 0.5
"""Of the time that is left, for one of many cases, at least."""
STAGE_SHARE = 0.4
"""Of the time that is left, for one bounder before the search."""

CLOSELY_CHARGED = 1_000_000
"""Multiplications of a row through convolutions, from which on rounding is charged more closely: it
costs a few forward passes, and there rows take much longer than those."""

Stage = tuple[str, Bounder]
"""A bounder and its name."""

GLANCE, FEW_EFFORT = 0.02, 0.3
"""Effort of the attack before any bound, and before boxes of few inputs are halved, where every
part is looked into as well."""
ITERATIONS = 20
"""Of the slopes at the root."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """A verdict on a property.

    Attributes:
        verdict: `VERIFIED`: no input of any case is unsafe, in any float32 execution;
            `VERIFIED_REAL`: in real arithmetic; `FALSIFIED`: the witness is, in the model's own
            runtime.
        method: what decided.
        why: what was chosen and for what reason, a line for each step.
        reason: empty, or why nothing was decided and what to try.
        late: whether time ran out.
        bound: the least margin proved over all that was left open; > 0 if verified, NaN if unknown.
        domains: sub-problems bounded.
        case: number of the case that the witness meets, or that was left open; or None.
        witness: float32, shape (*input), or None.
        seconds: wall-clock time.
        interrupted: whether Ctrl-C ended it.
    """

    verdict: Verdict
    method: str
    why: tuple[str, ...] = ()
    reason: str = ""
    late: bool = False
    bound: float = math.nan
    domains: int = 0
    case: int | None = None
    witness: Tensor | None = None
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def answer(self) -> str:
        """As the competition writes it, but for a proof in real arithmetic."""
        if self.verdict is Verdict.UNKNOWN:
            return "timeout" if self.late else "unknown"
        if self.verdict is Verdict.FALSIFIED:
            return "sat"
        return "unsat" if self.verdict is Verdict.VERIFIED else f"unsat{IDEAL.remark}"


@dataclass(eq=False)
class Course:
    """One run: what is still open, and what was said on the way."""

    graph: Graph
    refuter_for: RefuterFor
    budget: Budget
    watch: Watcher | None
    started: float
    why: list[str]
    domains: int = 0
    left: list[Open] = field(default_factory=list)
    method: str = ""
    bound: float = math.inf
    slow: bool = False
    semantics: Semantics = EXECUTED
    diary: Diary | None = None

    def say(self, why: str) -> None:
        """Keep a reason, once."""
        if why not in self.why:
            self.why.append(why)

    def rounding(self) -> Rounding:
        """What bounds charge: through many convolutions, more closely, since they multiply it."""
        usual = self.semantics.rounding
        if usual != FLOAT32 or row_products(self.graph) < CLOSELY_CHARGED:
            return usual
        return PARTIAL_SUMS

    def over(self) -> bool:
        """Whether time is over, or all but."""
        return time.monotonic() + LEAST_SHARE > self.budget.deadline

    def decision(self, verdict: Verdict, method: str, **fields: object) -> Decision:
        """The decision with what is known of the run."""
        return Decision(
            verdict,
            method,
            why=tuple(self.why),
            domains=self.domains,
            seconds=time.monotonic() - self.started,
            **fields,  # type: ignore[arg-type]
        )

    def proved(self, method: str, bound: float = math.nan) -> Decision:
        """Nothing is left open."""
        return self.decision(self.semantics.proof, method, bound=bound)

    def falsified(self, number: int, witness: Tensor, method: str) -> Decision:
        """Decided by a witness."""
        return self.decision(Verdict.FALSIFIED, method, case=number, witness=witness)

    def try_parts(self) -> Decision | None:
        """Run the middle of every part of a case that whole inputs divide: often all there is."""
        if len(self.left) < 2 or len({entry.number for entry in self.left}) == len(self.left):
            return None
        self.say(f"whole inputs divide it into {len(self.left)} parts")
        for number in sorted({entry.number for entry in self.left}):
            parts = [entry.case for entry in self.left if entry.number == number]
            refute = self.refuter_for(number, parts[0])
            for i in range(0, len(parts), MOST_REPLAYED):
                some = parts[i : i + MOST_REPLAYED]
                if time.monotonic() > self.budget.deadline:
                    return None
                middles = torch.stack([case.lower / 2 + case.upper / 2 for case in some])
                found = refute.check(middles.to(torch.float32))
                if found is not None:
                    return self.falsified(number, found, "attack")
        return None

    def attack(self, cases: list[Open], effort: float) -> Decision | None:
        """Look for a counterexample in the cases, the least proved first."""
        for entry in sorted(cases, key=lambda e: e.bound)[:MOST_ATTACKED]:
            if time.monotonic() > self.budget.deadline:
                return None
            refute = self.refuter_for(entry.number, entry.case)
            share = effort / min(len(cases), MOST_ATTACKED)
            found = refute(entry.case.lower[None], entry.case.upper[None], effort=share)
            if found is not None:
                return self.falsified(entry.number, found, "attack")
        return None


def decide_property(
    graph: Graph,
    stated: Property,
    refuter_for: RefuterFor,
    budget: Budget = Budget(),
    watch: Watcher | None = None,
    semantics: Semantics = EXECUTED,
    diary: Diary | None = None,
) -> Decision:
    """Whether an input is unsafe.

    Args:
        graph: the network, float64.
        stated: what must never happen.
        refuter_for: makes what looks for counterexamples and replays them.
        budget: time for all of it, and memory for a chunk of rows.
        watch: called now and then.
        semantics: what a proof is to hold for.
        diary: keeps what proves what.

    Raises:
        PropertyError: if the property is not about a network of this shape.
    """
    refuse_misfit(graph, stated)
    began = time.monotonic()
    course = Course(graph, refuter_for, budget, watch, began, [], semantics=semantics, diary=diary)
    try:
        return decided(course, stated)
    except KeyboardInterrupt:
        bound = min((entry.bound for entry in course.left), default=math.nan)
        return course.decision(
            Verdict.UNKNOWN, "", reason="interrupted", bound=bound, interrupted=True
        )


def decided(course: Course, stated: Property) -> Decision:
    """The verdict on a property that fits the graph."""
    if not stated.cases:
        course.why.append("no input meets the constraints on inputs")
        return course.proved("empty", math.inf)
    course.graph, cases = searchable(course.graph, stated)
    course.left = left = opened(stated.cases if cases is None else cases)
    if cases is not None and not stated.mixed:
        course.left = left = in_whole_parts(course.graph, left)
        found = course.try_parts()
        if found is not None:
            return found
    free = [entry for entry in left if any(not len(c) for c in entry.case.clauses)]
    if free:
        return without_output(course, free)
    if len(left) <= FEW_CASES:
        found = course.attack(left, GLANCE)
        if found is not None:
            return found
    if cases is None:
        found = course.attack(left, 1.0)
        return found or course.decision(
            Verdict.UNKNOWN,
            "attack",
            reason="the file ends in a softmax that this property does more with than to order "
            "its outputs, which no bound here covers",
        )
    return bounded(course, left)


def without_output(course: Course, free: list[Open]) -> Decision:
    """Some clause says nothing of outputs: any input of its case is a counterexample."""
    found = course.attack(free, 1.0)
    return found or course.decision(
        Verdict.UNKNOWN, "attack", reason="no input was found that meets the constraints on inputs"
    )


def bounded(course: Course, left: list[Open]) -> Decision:
    """Cheap bounds on what is open, an attack, dear ones where they pay, then the search.

    Where few inputs vary, halving boxes proves more in the time that slopes would take. Where one
    case is open and neurons are to be split, that search begins with the slopes of all neurons.
    """
    rounding = course.rounding()
    found = staged(course, left, (("ibp", Interval(rounding)),))
    few = all(is_few(entry.case) for entry in course.left)
    if found is None and not few and len(course.left) <= FEW_CASES:
        # Large networks, where one pass of bounds costs more than many steps of an attack.
        found = course.attack(course.left, MORE)
    found = found or staged(course, course.left, (("crown", Crown(rounding=rounding)),))
    if found is not None:
        return found
    thorough = LONG_EFFORT if course.slow and len(course.left) <= FEW_CASES else 1.0
    found = course.attack(course.left, FEW_EFFORT if few else thorough)
    if found is not None:
        return found
    if not few and not course.slow:
        ascent = Ascent(ITERATIONS)
        every = AlphaCrown(ascent=ascent, enough=0.0, rounding=rounding)
        slopes = replace(every, intermediate=False)
        alone = len(course.left) == 1 and splits_neurons(course.graph)
        dear: tuple[Stage, ...] = (("alpha-crown (spec)", slopes), ("alpha-crown", every))
        found = staged(course, course.left, dear[:1] if alone else dear)
        if found is not None:
            return found
    return searched(course, course.left)


def staged(course: Course, left: list[Open], stages: tuple[Stage, ...]) -> Decision | None:
    """One bounder after another; None while something is open and time is left."""
    for name, bounder in stages:
        before = len(left)
        # A network may be so large that its bounds take all the time: attacks get theirs, too.
        share = course.budget.share(STAGE_SHARE)
        bounder = bounder if course.diary is None else course.diary.bounder(bounder)
        left, late = narrowed(course.graph, bounder, left, share)
        course.left = left
        course.domains += before
        if not left:
            return course.proved(name)
        if late and course.over():
            return undecided(course, left, name, late=True)
        if late:
            course.slow = True
            course.say(f"{name} took its share of the time")
    return None


def searched(course: Course, left: list[Open]) -> Decision:
    """The complete searches on every case that is open; one that stays open ends the matter."""
    waiting = sorted(left, key=lambda entry: entry.bound)
    while waiting:
        entry = waiting.pop(0)
        refute = course.refuter_for(entry.number, entry.case)
        outcome: Outcome | None = None
        for step in plan(course.graph, entry.case, course.rounding()):
            course.say(step.why)
            # All cases have to be proved: one that takes long leaves little to share anyway.
            part = max(CASE_SHARE, 1 / (1 + len(waiting)))
            budget = course.budget.share(step.share * part)
            search = step.search
            if course.diary is not None:
                search = course.diary.search(entry.number, entry.case, search)
            outcome = search(course.graph, entry.case, refute, budget, course.watch)
            course.domains += outcome.domains
            if outcome.witness is not None:
                return course.falsified(entry.number, outcome.witness, outcome.method)
            if outcome.verdict.proved or course.over():
                break
        course.left = [entry, *waiting]
        if outcome is None or not outcome.verdict.proved:
            found = last_attack(course, entry)
            if found is not None:
                return found
            late = course.over()
            reason = "" if outcome is None else outcome.reason
            method = "alpha-crown" if outcome is None else outcome.method
            return undecided(course, course.left, method, late=late, reason=reason)
        course.method = outcome.method
        course.bound = min(course.bound, outcome.bound)
    return course.proved(course.method, course.bound)


def last_attack(course: Course, entry: Open) -> Decision | None:
    """Spend what time is left on other random points; once, where there is no end to it."""
    for _ in range(1 if math.isinf(course.budget.deadline) else LAST_ROUNDS):
        found = course.attack([entry], LONG_EFFORT)
        if found is not None or course.over():
            return found
    return None


def undecided(
    course: Course, left: list[Open], method: str, *, late: bool, reason: str = ""
) -> Decision:
    """What is known where nothing was decided."""
    worst = min(left, key=lambda entry: entry.bound)
    usual = StopReason.OUT_OF_TIME if late else StopReason.BOUNDS_TOO_LOOSE
    return course.decision(
        Verdict.UNKNOWN,
        method,
        reason=usual.value if late or not reason else reason,
        late=late,
        bound=worst.bound,
        case=worst.number,
    )
