"""Projected descent of a loss from many starting points at once: the loop of all iterative attacks.

A lane is one path: a sample, a starting point, perhaps a class to move to. Lanes of a sample end
together as soon as one of them finds a misclassified point, so the batch shrinks as it goes.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacks.errors import AttackInputError
from attacks.losses import loss_named
from attacks.oracle import Oracle
from attacks.stepping import Stepper

SCHEDULES = ("constant", "cosine")
# L1 steps begin on this share of the entries and narrow geometrically to a single one: early ones
# explore, late ones settle on the corner of the ball where a linear loss has its minimum.
FIRST_DENSITY = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """Paths to walk.

    Attributes:
        rows: shape (lanes,), int64: the sample of each lane.
        points: shape (lanes, *input): where it begins, inside the sample's region.
        towards: shape (lanes,), int64: the class it moves to, or None to just leave the label.
    """

    rows: Tensor
    points: Tensor
    towards: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Descent:
    """How to walk.

    Attributes:
        steps: gradient steps.
        step_size: the first step as a fraction of the ball's radius (or of what the input range
            leaves of it, where that is less).
        schedule: "constant", or "cosine": falling to 0 along half a cosine.
        momentum: the share of the last move in the next, in [0, 1).
        leap: make the first step to the worst point of the linearised loss over the whole ball;
            from the input itself, that is FGSM's point.
        loss: "ce", "dlr" or "margin".
        early_stop: end a sample's lanes at its first misclassified point.
    """

    steps: int
    step_size: float
    schedule: str = "constant"
    momentum: float = 0.0
    leap: bool = False
    loss: str = "margin"
    early_stop: bool = True

    def check(self, attack: str) -> None:
        """Refuse settings that cannot be meant, in the name of `attack`."""
        loss_named(self.loss)
        complaint = None
        if self.steps < 1:
            complaint = f"steps = {self.steps}; expected at least 1"
        elif not self.step_size > 0:
            complaint = f"step_size = {self.step_size}; expected a positive fraction of eps"
        elif not 0 <= self.momentum < 1:
            complaint = f"momentum = {self.momentum}; expected a number in [0, 1)"
        elif self.schedule not in SCHEDULES:
            complaint = f"schedule = {self.schedule!r}; expected one of {', '.join(SCHEDULES)}"
        if complaint:
            raise AttackInputError(f"{attack} got {complaint}. Correct that setting.")

    def size_at(self, step: int) -> float:
        """The step's size as a fraction of the radius."""
        if self.schedule == "constant":
            return self.step_size
        return self.step_size * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def density_at(self, step: int, entries: int) -> float:
        """The share of the entries that an L1 step moves."""
        narrowest = 1 / entries
        share = step / max(1, self.steps - 1)
        return float(max(FIRST_DENSITY, narrowest) ** (1 - share) * narrowest**share)

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk all lanes, asking the oracle at every point on the way; it keeps what is found."""
        loss = loss_named(self.loss)
        rows, at, towards = lanes.rows, lanes.points, lanes.towards
        before = at
        stepper = Stepper.within(oracle.region.rows(rows))
        entries = at[0].numel() if len(at) else 1
        for step in range(self.steps):
            if not len(rows):
                return
            slope = oracle.slope(rows, at, loss, towards)
            going = oracle.going(rows) if self.early_stop else None
            if going is not None:
                rows, at, before, slope = rows[going], at[going], before[going], slope[going]
                towards = None if towards is None else towards[going]
                stepper = stepper.rows(going)
            if step == 0 and self.leap:
                there = stepper.region.extreme(-slope)
            else:
                push = (at - before).mul_(self.momentum) if self.momentum else None
                size = self.size_at(step) * (1 - self.momentum)
                there = stepper.descend(at, slope, size, self.density_at(step, entries), push)
            at, before = there, at
        if len(rows):
            oracle.ask(rows, at)


class Walker(Protocol):
    """A way of walking lanes, such as `Descent`."""

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk all lanes, asking the oracle at every point on the way; it keeps what is found."""
        ...


def walk(oracle: Oracle, descent: Walker, lanes: Lanes, max_lanes: int) -> None:
    """Walk lanes in groups of at most `max_lanes`, never parting the lanes of one sample.

    Lanes must be sorted by sample. Samples do not see each other, so the grouping bounds the
    memory and changes nothing else.
    """
    samples, counts = torch.unique_consecutive(lanes.rows, return_counts=True)
    most = int(counts.max()) if len(samples) else 1
    per_group = max(1, max_lanes // most)
    ends = counts.cumsum(0)
    for first in range(0, len(samples), per_group):
        begin = int(ends[first - 1]) if first else 0
        end = int(ends[min(first + per_group, len(samples)) - 1])
        part = slice(begin, end)
        towards = None if lanes.towards is None else lanes.towards[part]
        descent.run(oracle, Lanes(lanes.rows[part], lanes.points[part], towards))
