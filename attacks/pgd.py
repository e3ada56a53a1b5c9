"""Projected gradient descent with restarts, optionally towards each other class in turn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Descent, Lanes, walk
from attacks.errors import AttackInputError
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.result import AttackResult

STARTS = ("centre-first", "random", "centre")


@dataclass(frozen=True, slots=True)
class PGD:
    """Projected gradient descent on a loss, from several starting points, towards several classes.

    First one path per sample leaves the label however it can. The samples that withstand it are
    then attacked along one path per restart and class of `targeted`, side by side.

    Attributes:
        steps: gradient steps per path.
        restarts: how many starting points.
        loss: "margin", "ce" or "dlr".
        step_size: the first step as a fraction of the ball's radius.
        schedule: "cosine" (steps shrink to 0) or "constant".
        momentum: the share of the last move in the next, in [0, 1).
        leap: make the first step to the worst point of the linearised loss, as FGSM does.
        start: "centre-first": the first restart begins at the input, the others at random points
            of the ball; "random": all at random; "centre": all at the input.
        targeted: None: each restart just leaves the label. "runner-up": move to the likeliest
            other class. "all": move to each other class in turn, one path each. A number: to that
            many of the likeliest. The aim stays any class but the label, unless the call names
            targets; then there is one path per restart.
        early_stop: drop a sample at its first misclassified point, instead of walking on for a
            lower margin.
        seed: of the random starting points, together with the sample's key.
        max_lanes: paths walked at once; bounds memory, changes no result.

    Source:
        Madry et al. 2018, arXiv:1706.06083. Departs from it by the margin loss towards each class
        (as Gowal et al. 2019, arXiv:1910.09338), by momentum and shrinking steps (as Croce, Hein
        2020, arXiv:2003.01690), by the leap, and by returning the best point evaluated instead of
        the last.
    """

    steps: int = 20
    restarts: int = 2
    loss: str = "margin"
    step_size: float = 0.5
    schedule: str = "cosine"
    momentum: float = 0.25
    leap: bool = True
    start: str = "centre-first"
    targeted: str | int | None = 9
    early_stop: bool = True
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
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
        """Walk all paths; the very first begins at `start` where that is given. See `Attack`."""
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        aims = self._aims(oracle)
        rows = self._rows(oracle)
        if start is not None:
            # A leap would forget the point that the caller took the trouble to give.
            region = oracle.region.rows(rows)
            walk(
                oracle,
                self._descent(leap=False),
                Lanes(rows, region.project(start[rows])),
                self.max_lanes,
            )
        elif aims is not None:
            walk(oracle, self._descent(), self._lanes(oracle, rows, range(1), None), self.max_lanes)
        for restarts in (range(1), range(1, self.restarts)):
            lanes = self._lanes(oracle, self._rows(oracle), restarts, aims)
            walk(oracle, self._descent(), lanes, self.max_lanes)
        return oracle.result("pgd")

    def _rows(self, oracle: Oracle) -> Tensor:
        """The samples to walk on with; shape (rows,), int64."""
        if self.early_stop:
            return oracle.open_rows()
        return torch.arange(len(oracle.labels), device=oracle.labels.device)

    def _lanes(self, oracle: Oracle, rows: Tensor, restarts: range, aims: Tensor | None) -> Lanes:
        """One lane per (sample, restart, class to move to), in this order."""
        count = 1 if aims is None else aims.shape[1]
        each = torch.arange(len(restarts) * count, device=rows.device)
        lane = (restarts.start * count + each).repeat(len(rows))
        rows = rows.repeat_interleave(len(each))
        region = oracle.region.rows(rows)
        if self.start == "centre" or (self.start == "centre-first" and restarts.start == 0):
            points = region.centre
        else:
            points = region.sample(oracle.lane_keys(rows, "pgd", self.seed, lane))
        return Lanes(rows, points, None if aims is None else aims[rows, lane % count])

    def _aims(self, oracle: Oracle) -> Tensor | None:
        """The classes to move to, likeliest first, shape (batch, aims); None to just leave."""
        if self.targeted is None or oracle.targets is not None:
            return None
        others = oracle.logits.shape[1] - 1
        wanted = {"all": others, "runner-up": 1}.get(str(self.targeted), self.targeted)
        return oracle.rivals(int(wanted))

    def _descent(self, *, leap: bool | None = None) -> Descent:
        return Descent(
            steps=self.steps,
            step_size=self.step_size,
            schedule=self.schedule,
            momentum=self.momentum,
            leap=self.leap if leap is None else leap,
            loss=self.loss,
            early_stop=self.early_stop,
        )
