"""One input within a radius: attack, certified intervals, verdict, the bracket of its radius."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.api import certify_each, radius_each
from verify.confidence import Scores, certify_scores
from verify.confidence.differences import Differences
from verify.explore.course import Course, narrower
from verify.protocols import Falsifier, Model, Proposal
from verify.recipes import recipe
from verify.values.question import Question
from verify.values.result import Bracket, Verdict

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
"""Behind certified intervals, from quick to tight; each tightens what the others found."""
QUICK = ("ibp", "crown-ibp")
"""Those that come before the attack, so that something is seen at once."""
TOLERANCE = 0.01
"""Relative width at which a bracket counts as closed."""
ATTACK_SHARE, QUICK_SHARE, VERDICT_SHARE, INTERVALS_SHARE = 0.25, 0.15, 0.4, 0.6
"""Parts of the time, counted from the start, by which each step is over."""
NEAREST_SHARE = 0.15
"""Of the time, for attacks that look for the nearest counterexample."""


@dataclass(eq=False)
class BallCourse(Course):
    """All inputs within the radius, in the session's norm.

    Attributes:
        asked: the question at the radius.
        attained: logits of inputs in the ball, (any, class).
        tightest: what is certified so far.
        searching: who looks for counterexamples at the moment.
    """

    asked: Question = field(init=False)
    attained: Tensor = field(init=False)
    searching: str = field(default="clean", init=False)
    tightest: tuple[Scores, Differences] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Put the question."""
        super().__post_init__()
        self.asked = self.subject.question(self.ask.x, self.ask.held, self.ask.size)
        self.attained = self.logits(self.ask.x)

    def answer(self) -> None:
        """All of it, as it is found.

        Raises:
            Stopped: once nobody waits any more.
            InternalError: if two findings contradict each other.
        """
        self.clean()
        for method in QUICK:
            self.intervals(method, QUICK_SHARE)
        self.attack()
        self.verdict()
        for method in METHODS[len(QUICK) :]:
            self.intervals(method, INTERVALS_SHARE)
        self.bracket()

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        """What the file itself says; a counterexample nearer than all others is taken over."""
        wrong = super().misclassified(x, labels)
        # Nothing but the class that must hold is asked about while this input's bracket closes.
        mine = wrong & (labels == self.ask.held)
        if bool(mine.any()):
            few = self.asked.take(torch.zeros(len(x), dtype=torch.int64))
            points = x.to(torch.float32)
            inside = few.at(torch.full((len(x),), math.inf)).holds(points)
            distance = few.distance(points)[mine & inside]
            if len(distance):
                self.refute(float(distance.min()), self.searching)
        return wrong

    def attack(self) -> None:
        """The chosen attack at the radius; the file itself decides whether it succeeded."""
        self.check()
        if self.ask.size == 0 or self.ends.high == 0:
            return
        self.searching = self.ask.attack
        seconds = self.left(ATTACK_SHARE)
        falsifier = self.tools.falsifier(self.ask.attack, self, seconds)
        proposal = falsifier.propose(self.model, self.asked)
        candidate = proposal.candidate.detach().to(torch.float32)
        if not bool(self.asked.holds(candidate)[0]):
            candidate = self.ask.x
        wrong = bool(self.misclassified(candidate, self.asked.labels)[0])
        distance = float(self.asked.distance(candidate)[0])
        if wrong:
            self.refute(distance, self.ask.attack)
        self.attained = torch.cat((self.attained, self.logits(candidate)))
        self.emit(
            "attack",
            {
                **self.says(candidate),
                "name": self.ask.attack,
                "found": wrong,
                "distance": distance,
                "size": self.ask.size,
            },
        )

    def intervals(self, method: str, part: float) -> None:
        """Certified intervals by one more method, together with those before it."""
        self.check()
        bounder = recipe(method).stages[-1].bounder
        certified = certify_scores(
            self.subject.network.graph, self.asked, bounder, budget=self.budget(part)
        )
        self.check()
        if certified.late:
            self.emit("late", {"what": method})
            return
        scores, found = certified.scores, certified.differences
        if self.tightest is not None:
            before, differences = self.tightest
            scores, found = scores.intersect(before), narrower(found, differences)
        self.tightest = (scores, found)
        self.scored(scores, found, method, self.attained)

    def verdict(self) -> None:
        """`verify certify` at the radius; what an attack found needs no proof."""
        self.check()
        if self.settled in (Verdict.VERIFIED, Verdict.FALSIFIED) or self.ask.size == 0:
            if self.ask.size == 0 and self.settled is None:
                self.decide(Verdict.UNKNOWN, "", "a radius of 0 asks about nothing else")
            return
        parts = certify_each(
            replace(self.subject.network, judge=self),
            self.asked,
            timeout=self.left(VERDICT_SHARE),
            cancelled=self.cancelled,
        )
        (result,) = [found for part in parts for found in part]
        self.check()
        if result.verdict is Verdict.VERIFIED:
            self.certify(self.ask.size, result.method)
        self.decide(result.verdict, result.method, result.reason)

    def bracket(self) -> None:
        """`verify radius --exact`, told as it closes."""
        low, high = self.ends.low, self.ends.high
        if self.ends.finished or is_closed(low, high):
            self.finish(self.ends.finished or closed(low, high))
            return
        self.searching = "portfolio"
        parts = radius_each(
            replace(self.subject.network, judge=self),
            self.asked.at(torch.tensor([self.subject.largest])),
            falsifier=Interruptible(self, NEAREST_SHARE * self.seconds),
            timeout=self.left(),
            tolerance=TOLERANCE,
            exact=math.isinf(self.asked.p),
            refuters=self.tools.refuters,
            watch=self.told,
            cancelled=self.cancelled,
        )
        (found,) = [bracket for part in parts for bracket in part]
        self.check()
        self.told([found])
        self.finish(found.reason or closed(self.ends.low, self.ends.high))

    def told(self, found: list[Bracket]) -> None:
        """What the search for the radius knows."""
        self.check()
        (bracket,) = found
        self.certify(bracket.certified, bracket.method)
        self.refute(bracket.attacked, bracket.attack)


@dataclass(frozen=True, slots=True, eq=False)
class Interruptible:
    """The search for the nearest counterexample, given up once nobody waits for it."""

    course: BallCourse
    seconds: float

    def propose(self, model: Model, asked: Question) -> Proposal:
        """A candidate inside the ball."""
        return self.falsifier().propose(self.course.model, asked)

    def nearest(self, model: Model, asked: Question) -> Proposal:
        """A misclassified candidate as near as possible."""
        return self.falsifier().nearest(self.course.model, asked)

    def falsifier(self) -> Falsifier:
        """Starts its clock now."""
        return self.course.tools.falsifier("auto", self.course, self.seconds)


def is_closed(low: float, high: float) -> bool:
    """Whether both ends are known and near each other."""
    return math.isfinite(high) and high - low <= TOLERANCE * high


def closed(low: float, high: float) -> str:
    """Why a bracket needs no more searching."""
    if high == 0:
        return "the input itself is misclassified: its radius is 0"
    if is_closed(low, high):
        return f"closed: the ends are within {TOLERANCE:.0%} of each other"
    return "the search is over; what lies between the ends is not known"
