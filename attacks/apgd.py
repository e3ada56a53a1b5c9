"""Auto-PGD: projected gradient descent that chooses its own step sizes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.adaptive import AdaptiveDescent
from attacks.ball import Ball
from attacks.descent import Lanes, walk
from attacks.errors import AttackInputError
from attacks.expectation import averaged, counted
from attacks.losses import Loss, loss_named
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.region import Region
from attacks.result import AttackResult

NAMES = {"ce": "apgd-ce", "dlr": "apgd-dlr", "margin": "apgd-margin"}
# L1: balls walked in before the one that counts, as multiples of its radius, and the share of the
# steps spent in each.
LARGER = (3.0, 2.0)
LARGER_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class APGD:
    """Auto-PGD, without a step size to tune.

    Attributes:
        steps: gradients per path.
        restarts: random starting points, each tried on the samples that are left.
        loss: "ce", "dlr" or "margin". The DLR loss needs three classes; with two it is the margin.
        targeted: None to just leave the label (APGD-CE, APGD-DLR), or how many of the likeliest
            other classes to move to in turn, one path each (APGD-T). The aim stays any class but
            the label, unless the call names targets.
        larger_balls: L1 only: spend three tenths of the steps each in balls of three and two times
            the radius before the rest in the ball itself.
        average: calls of the model that make one evaluation, for models that answer at random.
        early_stop: drop a sample at its first misclassified point.
        seed: of the random starting points, together with the sample's key.
        max_lanes: paths walked at once; bounds memory, changes no result.

    Source:
        Croce, Hein 2020, arXiv:2003.01690; L1: Croce, Hein 2021, arXiv:2103.01208. The paths
        towards several classes are walked side by side, not one after the other.
    """

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    targeted: int | None = None
    larger_balls: bool = True
    average: int = 1
    early_stop: bool = True
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        loss_named(self.loss)
        for name in ("steps", "restarts", "targeted", "average", "max_lanes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AttackInputError(
                    f"APGD got {name} = {value}; expected at least 1. Correct that setting."
                )

    @property
    def name(self) -> str:
        """As in the registry and in results."""
        return NAMES[self.loss] if self.targeted is None else "apgd-t"

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        start: Tensor | None = None,
        sample_keys: Tensor | None = None,
    ) -> AttackResult:
        """Walk from random points; the first paths begin at `start` if given. See `Attack`."""
        larger = ball.p == 1 and self.larger_balls and self.steps > len(LARGER)
        oracle = Oracle(
            averaged(model, self.average),
            x,
            labels,
            ball,
            targets=targets,
            sample_keys=sample_keys,
            roaming=larger,
        )
        aims = None
        if self.targeted is not None and oracle.targets is None:
            aims = oracle.rivals(self.targeted)
        loss = self._loss(oracle.logits.shape[1])
        phases = self._phases(oracle, ball if larger else None)
        for restart in range(self.restarts):
            rows = oracle.open_rows()
            if not self.early_stop:
                rows = torch.arange(len(oracle.labels), device=rows.device)
            begin = start if restart == 0 else None
            lanes = self._lanes(oracle, rows, restart, aims, begin)
            walk(oracle, Phases(phases, loss, self.early_stop), lanes, self.max_lanes)
        return counted(oracle.result(self.name), self.average)

    def _loss(self, classes: int) -> Loss:
        return loss_named("margin" if self.loss == "dlr" and classes < 3 else self.loss)

    def _phases(self, oracle: Oracle, ball: Ball | None) -> "tuple[Phase, ...]":
        """In which balls to walk for how long; `ball` is given if larger ones come first."""
        if ball is None:
            return (Phase(None, self.steps),)
        centre = oracle.region.centre
        short = max(1, round(LARGER_SHARE * self.steps))
        short = min(short, (self.steps - 1) // len(LARGER))
        first = [Phase(ball.with_eps(by * ball.eps).around(centre), short) for by in LARGER]
        return (*first, Phase(None, self.steps - len(LARGER) * short))

    def _lanes(
        self,
        oracle: Oracle,
        rows: Tensor,
        restart: int,
        aims: Tensor | None,
        start: Tensor | None,
    ) -> Lanes:
        """One lane per sample and class to move to."""
        count = 1 if aims is None else aims.shape[1]
        each = torch.arange(count, device=rows.device).repeat(len(rows))
        rows = rows.repeat_interleave(count)
        region = oracle.region.rows(rows)
        if start is not None:
            points = region.project(start[rows])
        else:
            keys = oracle.lane_keys(rows, self.name, self.seed, restart * count + each)
            points = region.sample(keys)
        return Lanes(rows, points, None if aims is None else aims[rows, each])


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """Some steps in one ball: a larger one around all samples, or the oracle's own for None."""

    region: Region | None
    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """Walks one after the other, each from the best points of the one before."""

    phases: tuple[Phase, ...]
    loss: Loss
    early_stop: bool

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk the lanes through all phases."""
        for phase in self.phases:
            if not len(lanes.rows):
                return
            region = (phase.region or oracle.region).rows(lanes.rows)
            lanes = replace(lanes, points=region.project(lanes.points))
            descent = AdaptiveDescent(phase.steps, self.loss, self.early_stop, phase.region)
            lanes = descent.walk(oracle, lanes)
