"""DeepFool: again and again to the nearest boundary of the linearised model."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.losses import without
from attacks.nearest import Nearest, norm_of, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.result import RadiusResult

NORMS = (math.inf, 2.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class DeepFool:
    """Steps to the nearest linearised boundary, until the class changes.

    Attributes:
        steps: linearisations per sample, at most.
        overshoot: how much farther than the linearised boundary each step goes, relative.
        classes: how many of the likeliest other classes are considered.
        halvings: of the segment from the input to the point found, at the end; each is a query.

    Source:
        Moosavi-Dezfooli et al. 2016, arXiv:1511.04599. Departs from it by steps that take the
        input range into account instead of being clipped to it, and by the final halvings, which
        take back the overshoot.
    """

    steps: int = 30
    overshoot: float = 0.02
    classes: int = 9
    halvings: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if self.steps < 1 or self.classes < 1 or self.halvings < 0:
            complaint = (
                f"steps = {self.steps}, classes = {self.classes}, halvings = {self.halvings}; "
                "expected at least 1, 1 and 0"
            )
        elif not self.overshoot >= 0:
            complaint = f"overshoot = {self.overshoot}; expected at least 0"
        refuse_setting("DeepFool", complaint)

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
    ) -> RadiusResult:
        """Walk from each input until it is misclassified; see `Minimiser`."""
        refuse_norm("DeepFool", float(ball.p), NORMS)
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        oracle.begin(rows, start)
        aims = self._aims(oracle)
        at = oracle.region.centre[rows]
        for _ in range(self.steps):
            if not len(rows):
                break
            move = self._move(oracle, rows, at, aims)
            at = oracle.place(rows, oracle.moved(rows, at) + (1 + self.overshoot) * move)
            going = ~(oracle.ask(rows, at) < 0) & (move != 0).any(dim=1)
            rows, at = rows[going], at[going]
        oracle.shorten(oracle.rows(), self.halvings)
        return oracle.outcome()

    def _aims(self, oracle: Nearest) -> Tensor:
        """The classes to consider, likeliest first; shape (batch, aims)."""
        if oracle.targets is not None:
            return oracle.targets[:, None]
        others = oracle.logits.shape[1] - 1
        rivals = without(oracle.logits, oracle.labels).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        return rivals.topk(min(self.classes, others), dim=1).indices

    def _move(self, oracle: Nearest, rows: Tensor, at: Tensor, aims: Tensor) -> Tensor:
        """The least move to a linearised boundary; shape (rows, n)."""
        count = aims.shape[1]
        lanes = rows.repeat_interleave(count)
        points = at.repeat_interleave(count, dim=0)
        view = oracle.view(lanes, points, aims[rows].flatten())
        move = oracle.first_move(lanes, points, view)
        gained = -(view.slope * move).sum(dim=1)
        length = norm_of(move, oracle.region.p)
        # A boundary that the range cuts off, or without a slope, is the last resort.
        reached = (gained >= 0.999 * view.value) & (gained > 0)
        cost = torch.where(reached, length, math.inf).view(len(rows), count)
        nearest = cost.argmin(dim=1)
        each = torch.arange(len(rows), device=rows.device)
        return move.view(len(rows), count, -1)[each, nearest]
