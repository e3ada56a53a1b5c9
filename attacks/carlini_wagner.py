"""Carlini and Wagner's L2 attack: a penalty for the margin, and a search over its weight."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.adam import Adam
from attacks.ball import Ball
from attacks.nearest import Nearest, cosine, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.result import RadiusResult
from attacks.weights import WeightSearch


@dataclass(frozen=True, slots=True)
class CarliniWagner:
    """min_d  |d|_2^2 + c * max(margin(x + d), 0),  c searched per sample.

    Attributes:
        rounds: values of c per sample: growing until something is found, then by bisection.
        steps: Adam's steps per round.
        step_size: Adam's, as a fraction of the largest entry of the linearised move; it falls to a
            tenth of that.
        halvings: of the segment from the input to the point found, at the end; each is a query.

    Source:
        Carlini, Wagner 2017, arXiv:1608.04644. Departs from it by projection onto the range after
        each step (one of the paper's three ways) in place of a hyperbolic tangent, whose slope is
        0 at entries that lie at an end of their range, as most pixels of a drawing do; and by the
        first c, which would be right if the model were linear. There is no confidence: what is kept
        is the nearest misclassified point.
    """

    rounds: int = 6
    steps: int = 50
    step_size: float = 0.1
    halvings: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if self.rounds < 1 or self.steps < 1 or self.halvings < 0:
            complaint = (
                f"rounds = {self.rounds}, steps = {self.steps}, halvings = {self.halvings}; "
                "expected at least 1, 1 and 0"
            )
        elif not self.step_size > 0:
            complaint = f"step_size = {self.step_size}; expected a positive fraction"
        refuse_setting("CarliniWagner", complaint)

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
        """rounds * steps gradients per sample; see `Minimiser`. L2 only."""
        refuse_norm("CarliniWagner", float(ball.p), (2.0,))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if not len(rows):
            return oracle.outcome()
        oracle.begin(rows, start)
        seen = oracle.view(rows, oracle.region.centre[rows])
        steepness = seen.slope.square().sum(dim=1)
        # On a linear model the minimiser is -c * g / 2, and it reaches the boundary at this c.
        linear = 2 * seen.value.abs().nan_to_num() / torch.where(steepness > 0, steepness, 1.0)
        search = WeightSearch.begin(torch.where((steepness > 0) & (linear > 0), 2 * linear, 1.0))
        largest = oracle.first_move(rows, oracle.region.centre[rows], seen).abs().amax(dim=1)
        stride = self.step_size * torch.where(largest > 0, largest, 1.0)
        for _ in range(self.rounds):
            search.note(self._descend(oracle, rows, stride, search.weight))
        oracle.shorten(rows, self.halvings)
        return oracle.outcome()

    def _descend(self, oracle: Nearest, rows: Tensor, stride: Tensor, weight: Tensor) -> Tensor:
        """One round; which samples it found misclassified, shape (rows,), bool."""
        at = oracle.region.centre[rows]
        adam = Adam.zeros(oracle.moved(rows, at))
        found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for step in range(self.steps):
            seen = oracle.view(rows, at)
            found |= seen.goal < 0
            penalty = torch.where(seen.goal >= 0, weight, 0.0)
            delta = oracle.moved(rows, at)
            direction = adam.direction(2 * delta + penalty[:, None] * seen.slope)
            size = stride * cosine(step, self.steps, 1.0, 0.1)
            at = oracle.place(rows, delta - size[:, None] * direction)
        return found | (oracle.ask(rows, at) < 0)
