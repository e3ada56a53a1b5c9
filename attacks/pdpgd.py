"""Primal-dual proximal gradient: the norm by proximal steps, its weight by success and failure."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.aims import aims
from attacks.ball import Ball
from attacks.nearest import Nearest, cosine, norm_of, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.proximal import proximal
from attacks.result import RadiusResult

DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}
# The weight stays within this factor of its first value either way.
WEIGHT_RANGE = 1e6


@dataclass(frozen=True, slots=True)
class PDPGD:
    """Primal-dual proximal gradient descent for L-inf, L2 and L1.

    min_d  |d|_p + w * softplus(margin(x + d) / s),  with w rising while x + d keeps its class and
    falling while it does not; s is the margin at x.

    Attributes:
        steps: gradient steps.
        step_size: the first step as a fraction of the first linearised move; the last is a
            hundredth of it.
        weight_rate: change of log w per step at the start; a tenth of it at the end.
        memory: share of the past in the running mean of successes that drives w.
        classes: how many classes are aimed at besides, each in a lane of its own, nearest first to
            first order; 0 just leaves the label, as in the paper.
        halvings: of the segment from the input to the point found, at the end; each is a query.

    Source:
        Matyasko, Chau 2021, arXiv:2106.01538, in outline. Departs from it by plain steps scaled by
        the linearised move in place of Adam's, so that the proximal step is the exact one.
    """

    steps: int = 100
    step_size: float = 0.5
    weight_rate: float = 0.2
    memory: float = 0.5
    classes: int = 0
    halvings: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if self.steps < 1 or self.halvings < 0 or self.classes < 0:
            complaint = (
                f"steps = {self.steps}, halvings = {self.halvings}, classes = {self.classes}; "
                "expected at least 1, 0 and 0"
            )
        elif not (self.step_size > 0 and self.weight_rate > 0 and 0 <= self.memory < 1):
            complaint = (
                f"step_size = {self.step_size}, weight_rate = {self.weight_rate}, memory = "
                f"{self.memory}; expected positive, positive, and a number in [0, 1)"
            )
        refuse_setting("PDPGD", complaint)

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
        """One gradient per step and sample; begins at `start` where given; see `Minimiser`."""
        p = float(ball.p)
        refuse_norm("PDPGD", p, tuple(DUAL))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if not len(rows):
            return oracle.outcome()
        oracle.begin(rows, start)
        lanes = aims(oracle, rows, self.classes)
        everyone, rows = rows, lanes.rows
        low, high = oracle.room(rows)
        at = oracle.region.centre[rows]
        seen = oracle.view(rows, at, lanes.towards)
        steepness = norm_of(seen.slope, DUAL[p])
        scale = seen.value.abs().nan_to_num()
        scale = torch.where(scale > 0, scale, 1.0)
        base = scale / torch.where(steepness > 0, steepness, 1.0)
        stride = norm_of(oracle.first_move(rows, at, seen), DUAL[p])
        trend = torch.zeros_like(scale)
        log_weight = torch.full_like(scale, math.log(4.0))
        if start is not None:
            at = oracle.region.rows(rows).project(start[rows])
        for step in range(self.steps):
            seen = oracle.view(rows, at, lanes.towards)
            trend = self.memory * trend + (1 - self.memory) * torch.where(seen.goal < 0, -1.0, 1.0)
            rate = cosine(step, self.steps, self.weight_rate, self.weight_rate / 10)
            limit = math.log(WEIGHT_RANGE)
            log_weight = (log_weight + rate * trend).clamp(-limit, limit)
            size = cosine(step, self.steps, self.step_size, self.step_size / 100) * stride
            pull = size * log_weight.exp() * base * torch.sigmoid(seen.value / scale) / scale
            delta = oracle.moved(rows, at) - pull[:, None] * seen.slope
            at = oracle.place(rows, proximal(delta, size, low, high, p))
        oracle.ask(rows, at)
        oracle.shorten(everyone, self.halvings)
        return oracle.outcome()
