"""DDN: the direction by gradient, the length of the perturbation by success and failure."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.aims import aims
from attacks.ball import Ball
from attacks.losses import loss_named
from attacks.nearest import Nearest, cosine, norm_of, refuse_norm, refuse_setting, unit
from attacks.protocol import Model
from attacks.result import RadiusResult


@dataclass(frozen=True, slots=True)
class DDN:
    """Decoupled direction and norm: steps on a sphere that shrinks at successes, else grows.

    The perturbation is not quantised to grey levels, as it is in the paper: that would lengthen
    it, and make no sense of inputs that are not images.

    Attributes:
        steps: gradient steps.
        step_size: the first step as a fraction of the sphere's radius; the last is a hundredth.
        gamma: relative change of the radius at each step.
        loss: "ce", "margin" or "dlr".
        classes: how many classes are aimed at besides, each in a lane of its own, nearest first to
            first order; 0 just leaves the label, as in the paper.
        halvings: of the segment from the input to the point found, at the end; each is a query.
        seed: of the directions taken where the gradient is 0.

    Source:
        Rony et al. 2019, arXiv:1811.09600. Departs from it by the first radius, which is where the
        linearised margin flips, and by steps relative to the radius, so that units do not matter.
    """

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    loss: str = "ce"
    classes: int = 0
    halvings: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        loss_named(self.loss)
        complaint = None
        if self.steps < 1 or self.halvings < 0 or self.classes < 0:
            complaint = (
                f"steps = {self.steps}, halvings = {self.halvings}, classes = {self.classes}; "
                "expected at least 1, 0 and 0"
            )
        elif not (self.step_size > 0 and 0 < self.gamma < 1):
            complaint = (
                f"step_size = {self.step_size}, gamma = {self.gamma}; expected a positive fraction "
                "and a number between 0 and 1"
            )
        refuse_setting("DDN", complaint)

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
        """One gradient per step and sample; see `Minimiser`. L2 only."""
        refuse_norm("DDN", float(ball.p), (2.0,))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if not len(rows):
            return oracle.outcome()
        oracle.begin(rows, start)
        lanes = aims(oracle, rows, self.classes)
        everyone, rows = rows, lanes.rows
        low, high = oracle.room(rows)
        farthest = norm_of(torch.maximum(-low, high), 2.0)
        keys = oracle.lane_keys(rows, "ddn", self.seed, rows * 0)
        at = oracle.region.centre[rows]
        delta = torch.zeros_like(low)
        seen = oracle.view(rows, at, lanes.towards)
        radius = norm_of(oracle.first_move(rows, at, seen), 2.0)
        radius = torch.where(radius > 0, radius, farthest.clamp(max=1.0))
        for step in range(self.steps):
            look = oracle.view(rows, at, lanes.towards, loss_named(self.loss))
            if step:
                grown = radius * (1 + self.gamma)
                radius = torch.where(look.goal < 0, radius * (1 - self.gamma), grown)
                radius = torch.minimum(radius, farthest)
            size = cosine(step, self.steps, self.step_size, self.step_size / 100)
            delta = delta - (size * radius)[:, None] * unit(look.slope, keys + step)
            length = norm_of(delta, 2.0)
            delta = delta * (radius / torch.where(length > 0, length, 1.0))[:, None]
            at = oracle.place(rows, delta)
            delta = oracle.moved(rows, at)
        oracle.ask(rows, at)
        oracle.shorten(everyone, self.halvings)
        return oracle.outcome()
