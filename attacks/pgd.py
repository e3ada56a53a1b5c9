"""Projected gradient descent with restarts, optionally towards each other class in turn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Descent, Lanes, walk
from attacks.errors import AttackInputError
from attacks.losses import without
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.result import AttackResult

STARTS = ("centre-first", "random", "centre")


@dataclass(frozen=True, slots=True)
class PGD:
    """Projected gradient descent on a loss, from several starting points.

    Attributes:
        steps: gradient steps per restart.
        restarts: how many starting points. Those after the first see only the samples that the
            first left standing, and walk side by side.
        loss: "margin", "ce" or "dlr".
        step_size: the first step as a fraction of the ball's radius.
        schedule: "cosine" (steps shrink to 0) or "constant".
        momentum: the share of the last move in the next, in [0, 1).
        start: "centre-first": the first restart begins at the input, the others at random points
            of the ball; "random": all at random; "centre": all at the input.
        targeted: None: just leave the label. "runner-up": move to the likeliest other class.
            "all": move to each other class in turn, one path each. A number: to that many of the
            likeliest. The aim stays any class but the label, unless the call names targets.
        early_stop: drop a sample at its first misclassified point, instead of walking on for a
            lower margin.
        seed: of the random starting points, together with the sample's key.
        max_lanes: paths walked at once; bounds memory, changes no result.

    Source:
        Madry et al. 2018, arXiv:1706.06083. Departs from it by the margin loss, by momentum and
        shrinking steps (as Croce, Hein 2020, arXiv:2003.01690), and by returning the best point
        evaluated instead of the last.
    """

    steps: int = 40
    restarts: int = 3
    loss: str = "margin"
    step_size: float = 0.5
    schedule: str = "cosine"
    momentum: float = 0.25
    start: str = "centre-first"
    targeted: str | int | None = None
    early_stop: bool = True
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        self._descent().check("PGD")
        if self.restarts < 1:
            raise AttackInputError(
                f"PGD got restarts = {self.restarts}; expected at least 1. Correct that setting."
            )
        if self.start not in STARTS:
            raise AttackInputError(
                f"PGD got start = {self.start!r}; expected one of {', '.join(STARTS)}. "
                "Correct that setting."
            )
        counted = isinstance(self.targeted, int) and self.targeted >= 1
        if not (counted or self.targeted in (None, "all", "runner-up")):
            raise AttackInputError(
                f"PGD got targeted = {self.targeted!r}; expected None, 'all', 'runner-up' or a "
                "number of classes. To look for particular classes, give targets in the call."
            )

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
        """Walk all restarts; the first begins at `start` where that is given. See `Attack`."""
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        descent = self._descent()
        for restarts in (range(1), range(1, self.restarts)):
            rows = oracle.open_rows() if self.early_stop else torch.arange(len(x), device=x.device)
            if len(rows) and len(restarts):
                walk(oracle, descent, self._lanes(oracle, rows, restarts, start), self.max_lanes)
        return oracle.result("pgd")

    def _lanes(self, oracle: Oracle, rows: Tensor, restarts: range, start: Tensor | None) -> Lanes:
        """One lane per (sample, restart, class to move to), in this order."""
        classes = self._classes(oracle)
        aims = 1 if classes is None else classes.shape[1]
        each = torch.arange(len(restarts) * aims, device=rows.device)
        lane = (restarts.start * aims + each).repeat(len(rows))
        rows = rows.repeat_interleave(len(each))
        towards = None if classes is None else classes[rows, lane % aims]
        region = oracle.region.rows(rows)
        if restarts.start == 0 and start is not None:
            points = region.project(start[rows])
        elif self.start == "centre" or (self.start == "centre-first" and restarts.start == 0):
            points = region.centre
        else:
            points = region.sample(oracle.lane_keys(rows, "pgd", self.seed, lane))
        return Lanes(rows, points, towards)

    def _classes(self, oracle: Oracle) -> Tensor | None:
        """The classes to move to, likeliest first, shape (batch, aims); None to just leave."""
        if self.targeted is None or oracle.targets is not None:
            return None
        others = oracle.logits.shape[1] - 1
        wanted = {"all": others, "runner-up": 1}.get(str(self.targeted), self.targeted)
        rivals = without(oracle.logits, oracle.labels).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        return rivals.topk(min(int(wanted), others), dim=1).indices

    def _descent(self) -> Descent:
        return Descent(
            steps=self.steps,
            step_size=self.step_size,
            schedule=self.schedule,
            momentum=self.momentum,
            loss=self.loss,
            early_stop=self.early_stop,
        )
