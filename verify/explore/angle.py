"""One image turned by up to an angle: the worst turn found, what is certified, the bracket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.bounders.crown import Crown
from verify.confidence import Scores
from verify.confidence.certifying import scores_over
from verify.confidence.differences import Differences
from verify.confidence.reach import Reach
from verify.confidence.scores import checked, hull, of_parts
from verify.explore.course import Course, narrower
from verify.explore.subject import MOST_DEGREES
from verify.geometric.boxes import Boxes, coarse
from verify.geometric.certify import certify_image
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.region import Transformed
from verify.geometric.transforms import Step, Transform
from verify.protocols import Bounder
from verify.values.bounds import Bounds
from verify.values.budget import OutOfTime
from verify.values.result import Verdict

METHODS: tuple[tuple[str, Callable[[], Bounder]], ...] = (
    ("crown-ibp", lambda: Crown(intermediate=False)),
    ("crown", Crown),
)
"""Behind certified intervals, from quick to tight."""
BOXES = "boxes of angles"
"""How `verify.geometric` proves, in words."""
AT_ONCE = 8
"""Parts of the range of angles that are bounded together."""
VERDICT_SHARE, INTERVALS_SHARE = 0.35, 0.65
"""Parts of the time, counted from the start, by which each step is over."""
ROUNDED = 2.0**-46
"""Relative; pays for shares turned into degrees, outward."""


@dataclass(eq=False)
class AngleCourse(Course):
    """All rotations of the image by up to the angle, either way; see `verify.geometric`.

    Attributes:
        attained: logits of rotated images, (any, class).
        tightest: what is certified so far.
        suggested: angles that mislead, (any, 1).
    """

    attained: Tensor = field(init=False)
    tightest: tuple[Scores, Differences] | None = field(default=None, init=False)
    suggested: list[float] = field(default_factory=list, init=False)

    def answer(self) -> None:
        """All of it, as it is found.

        Raises:
            Stopped: once nobody waits any more.
            InternalError: if two findings contradict each other.
        """
        self.attained = self.logits(self.ask.x)
        self.clean()
        if self.ask.size == 0:
            if self.settled is None:
                self.decide(Verdict.UNKNOWN, "", "an angle of 0 asks about nothing else")
        else:
            if self.ends.high > 0:
                self.attack()
                self.verdict()
            for method in METHODS:
                self.intervals(*method)
        self.bracket()

    def range(self, degrees: float) -> Transform:
        """Rotations by up to so many degrees."""
        return Transform((Step("rotation", -degrees, degrees),))

    def attack(self) -> None:
        """The worst angle that a search finds; the file itself decides whether it misleads."""
        self.check()
        label = torch.tensor([self.ask.held])
        angle = self.tools.turning(self.model, self.ask.x, label, self.ask.size)
        angle = min(max(angle, -self.ask.size), self.ask.size)
        image = self.range(self.ask.size)(self.ask.x, torch.tensor([[angle]], dtype=torch.float64))
        wrong = bool(self.misclassified(image, label)[0])
        if wrong:
            self.suggested.append(angle)
            self.refute(abs(angle), "angles")
        self.attained = torch.cat((self.attained, self.logits(image)))
        self.emit(
            "attack",
            {
                **self.says(image),
                "name": "angles",
                "found": wrong,
                "distance": abs(angle),
                "angle": angle,
                "size": self.ask.size,
            },
        )

    def verdict(self) -> None:
        """`verify geometric` up to the angle; what a search found needs no proof."""
        if self.settled is not None:
            return
        self.check()
        found = certify_image(
            self.subject.network.graph,
            self,
            self.ask.x[0],
            self.ask.held,
            self.range(self.ask.size),
            budget=self.budget(VERDICT_SHARE),
        )
        self.check()
        if found.verdict is Verdict.VERIFIED:
            self.certify(self.ask.size, BOXES)
        elif found.verdict is Verdict.FALSIFIED:
            size = self.ask.size
            self.refute(min(size, found.attacked * size * (1 + ROUNDED)), BOXES)
        else:
            self.decide(Verdict.UNKNOWN, BOXES, found.reason)

    def intervals(self, method: str, bounder: Callable[[], Bounder]) -> None:
        """Certified intervals over the whole range: the hull of those over its parts."""
        transform, image = self.range(self.ask.size), self.ask.x[0]
        boxes = coarse(transform, image)
        parts: list[Scores] = []
        logits: list[Bounds] = []
        upper: list[Tensor] = []
        try:
            for start in range(0, len(boxes), AT_ONCE):
                self.check()
                some = boxes.take(torch.arange(start, min(start + AT_ONCE, len(boxes))))
                scores, found = self.over(some, transform, bounder())
                parts.append(scores)
                logits.append(found.logits)
                upper.append(found.upper)
        except OutOfTime:
            self.emit("late", {"what": method})
            return
        whole = Bounds(
            torch.cat([part.lower for part in logits]).amin(dim=0)[None],
            torch.cat([part.upper for part in logits]).amax(dim=0)[None],
        )
        found = Differences(torch.cat(upper).amax(dim=0)[None], whole)
        scores = hull(of_parts(parts))
        if self.tightest is not None:
            scores, found = scores.intersect(self.tightest[0]), narrower(found, self.tightest[1])
        self.tightest = (checked(scores), found)
        self.scored(scores, found, method, self.attained)

    def over(
        self, boxes: Boxes, transform: Transform, bounder: Bounder
    ) -> tuple[Scores, Differences]:
        """What is certified of each part of the range; raises OutOfTime."""
        budget = self.budget(INTERVALS_SHARE)
        budget.check()
        region = Transformed(pixel_forms(transform, self.ask.x[0], boxes.low, boxes.high))
        reach = Reach(self.subject.network.graph, region, budget, bounder)
        one = self.subject.question(self.ask.x, self.ask.held, 0.0)
        asked = one.take(torch.zeros(len(boxes), dtype=torch.int64))
        return scores_over(reach, asked, 1.0)

    def bracket(self) -> None:
        """`verify geometric` over the widest range; angles near 0 are decided first."""
        if self.ends.finished or self.ends.high == 0:
            self.finish(self.ends.finished or "the image itself is misclassified")
            return
        self.check()
        known = torch.tensor(self.suggested, dtype=torch.float64)[:, None]
        found = certify_image(
            self.subject.network.graph,
            self,
            self.ask.x[0],
            self.ask.held,
            self.range(MOST_DEGREES),
            budget=self.budget(),
            known=known if len(known) else None,
            attack="angles",
            watch=self.told,
        )
        self.check()
        self.told(found.certified, found.attacked)
        if self.settled is None:
            self.decide(Verdict.UNKNOWN, "", found.reason)
        whole = self.ends.low >= MOST_DEGREES
        over = (
            "nothing is left to decide" if whole else "closed: the ends are within 1% of each other"
        )
        self.finish(found.reason or over)

    def told(self, certified: float, attacked: float) -> None:
        """Shares of the widest range, in degrees."""
        self.check()
        reached = MOST_DEGREES if certified >= 1 else certified * MOST_DEGREES * (1 - ROUNDED)
        self.certify(reached, BOXES)
        self.refute(attacked * MOST_DEGREES * (1 + ROUNDED), BOXES)
