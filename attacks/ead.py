"""The elastic-net attack: few entries change, by accelerated proximal steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.nearest import Nearest, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.proximal import shrink
from attacks.result import RadiusResult
from attacks.weights import WeightSearch


@dataclass(frozen=True, slots=True)
class EAD:
    """min_d  |d|_2^2 + beta * |d|_1 + c * max(margin(x + d), 0),  c per sample.

    Attributes:
        rounds: values of c per sample: growing until something is found, then by bisection.
        steps: proximal steps per round.
        step_size: the first; 0.5 would minimise |d|_2^2 at once. They fall with the square root
            of the steps that are left.
        sparsity: beta relative to the largest entry of the linearised L1 move.
        halvings: of the segment from the input to the point found, at the end; each is a query.

    Source:
        Chen et al. 2018, arXiv:1709.04114. Departs from it by the threshold: the proximal step of
        beta * |d|_1 with step size t has threshold t * beta, not beta; by relative units; and by
        the first c, which would be right if the model were linear.
    """

    rounds: int = 6
    steps: int = 50
    step_size: float = 0.1
    sparsity: float = 4.0
    halvings: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if self.rounds < 1 or self.steps < 1 or self.halvings < 0:
            complaint = (
                f"rounds = {self.rounds}, steps = {self.steps}, halvings = {self.halvings}; "
                "expected at least 1, 1 and 0"
            )
        elif not (self.step_size > 0 and self.sparsity >= 0):
            complaint = (
                f"step_size = {self.step_size}, sparsity = {self.sparsity}; expected a positive "
                "step and at least 0"
            )
        refuse_setting("EAD", complaint)

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
        """rounds * steps gradients per sample; see `Minimiser`. L1, and L2 for comparison."""
        refuse_norm("EAD", float(ball.p), (1.0, 2.0))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if not len(rows):
            return oracle.outcome()
        oracle.begin(rows, start)
        at = oracle.region.centre[rows]
        seen = oracle.view(rows, at)
        largest = oracle.first_move(rows, at, seen).abs().amax(dim=1)
        beta = self.sparsity * torch.where(largest > 0, largest, 1.0)
        steepest = seen.slope.abs().amax(dim=1)
        linear = (2 * largest + beta) / torch.where(steepest > 0, steepest, 1.0)
        search = WeightSearch.begin(torch.where(steepest > 0, linear, 1.0))
        for _ in range(self.rounds):
            search.note(self._descend(oracle, rows, beta, search.weight))
        oracle.shorten(rows, self.halvings)
        return oracle.outcome()

    def _descend(self, oracle: Nearest, rows: Tensor, beta: Tensor, weight: Tensor) -> Tensor:
        """One round of FISTA; which samples it found misclassified, shape (rows,), bool."""
        low, high = oracle.room(rows)
        before = torch.zeros_like(low)
        ahead = before
        found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for step in range(self.steps):
            seen = oracle.view(rows, oracle.place(rows, ahead))
            penalty = torch.where(seen.goal >= 0, weight, 0.0)
            slope = 2 * ahead + penalty[:, None] * seen.slope
            size = self.step_size * (1 - step / self.steps) ** 0.5
            delta = shrink(ahead - size * slope, size * beta, low, high)
            ahead = delta + step / (step + 3) * (delta - before)
            ahead = torch.minimum(torch.maximum(ahead, low), high)
            before = delta
            found |= oracle.ask(rows, oracle.place(rows, delta)) < 0
        return found
