"""FMN: gradient steps projected onto a ball whose radius follows the boundary."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.aims import aims
from attacks.ball import Ball
from attacks.nearest import Nearest, View, cosine, norm_of, refuse_norm, refuse_setting, unit
from attacks.protocol import Model
from attacks.result import RadiusResult

NORMS = (math.inf, 2.0, 1.0, 0.0)
# From the points `at` of the samples `rows`, at a step, to what is known of the margin there.
Look = Callable[[Tensor, Tensor, int], View]


@dataclass(frozen=True, slots=True)
class FMN:
    """Fast minimum-norm attack, for L-inf, L2, L1 and (with a `SparseBall`) L0.

    Each step goes down the margin's gradient and projects, in the Euclidean sense, onto the ball
    of the current radius and the range. The radius is where the linearised margin flips until
    something is found; then it shrinks at successes and grows at failures.

    Attributes:
        steps: gradient steps.
        step_size: the first step as a fraction of the ball's Euclidean extent; the last is a
            hundredth of it.
        gamma: relative change of the radius at the first step; at the last, a fiftieth of it.
        classes: how many classes are aimed at besides, each in a lane of its own, nearest first to
            first order; 0 just leaves the label, as in the paper.
        halvings: of the segment from the input to the point found, at the end; each is a query.
        seed: of the directions taken where the gradient is 0.

    Source:
        Pintor et al. 2021, arXiv:2102.12827. Departs from it by step sizes relative to the radius.
    """

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    classes: int = 0
    halvings: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
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
        refuse_setting("FMN", complaint)

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
        refuse_norm("FMN", float(ball.p), NORMS)
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if len(rows):
            lanes = aims(oracle, rows, self.classes)
            keys = oracle.lane_keys(lanes.rows, "fmn", self.seed, lanes.rows * 0)

            def look(rows: Tensor, points: Tensor, step: int) -> View:
                return oracle.view(rows, points, lanes.towards)

            oracle.begin(rows, start)
            self.search(oracle, lanes.rows, start, keys, look)
            oracle.shorten(rows, self.halvings)
        return oracle.outcome()

    def search(
        self, oracle: Nearest, rows: Tensor, start: Tensor | None, keys: Tensor, look: Look
    ) -> None:
        """The loop, whatever the gradient comes from; the oracle keeps what is found.

        Args:
            rows: shape (rows,), int64: the samples to work on; may repeat.
            start: as for `Minimiser`.
            keys: shape (rows,), int64: of random directions.
            look: one view of each point.
        """
        p = oracle.region.p
        at = oracle.region.centre[rows]
        if start is not None:
            at = oracle.region.rows(rows).project(start[rows])
        extent = entry_extent(oracle, rows)
        largest = oracle.region.rows(rows).reach()
        radius = torch.full_like(largest, math.inf)
        for step in range(self.steps):
            seen = look(rows, at, step)
            gamma = cosine(step, self.steps, self.gamma, self.gamma / 50)
            radius = next_radius(oracle, rows, at, seen, radius, gamma)
            radius = torch.minimum(radius, largest)
            size = cosine(step, self.steps, self.step_size, self.step_size / 100)
            blind = torch.where(radius.isfinite(), radius, 1.0)
            stride = size * euclidean_extent(blind, oracle.region.centre[0].numel(), p, extent)
            delta = oracle.moved(rows, at) - stride[:, None] * unit(seen.slope, keys + step)
            region = oracle.within(rows, radius)
            at = region.project(oracle_point(oracle, rows, delta))
        oracle.ask(rows, at)


def oracle_point(oracle: Nearest, rows: Tensor, delta: Tensor) -> Tensor:
    """The inputs moved by `delta`, not clipped: projection must see how far out they are."""
    centre = oracle.region.centre[rows]
    return (centre.flatten(1).double() + delta).to(centre.dtype).view_as(centre)


def entry_extent(oracle: Nearest, rows: Tensor) -> Tensor:
    """How far an entry may move, on average over those with an end; 1 if none has; (rows,)."""
    low, high = oracle.room(rows)
    room = torch.maximum(-low, high)
    bounded = room.isfinite()
    total = torch.where(bounded, room, 0.0).sum(dim=1)
    return torch.where(bounded.any(dim=1), total / bounded.sum(dim=1).clamp(min=1), 1.0)


def euclidean_extent(radius: Tensor, size: int, p: float, extent: Tensor) -> Tensor:
    """The typical L2 length of a point on the sphere of the p-norm; shape (rows,)."""
    if p == math.inf:
        return radius * math.sqrt(size)
    if p == 0:
        return radius.clamp(min=1).sqrt() * extent
    return radius


def next_radius(
    oracle: Nearest, rows: Tensor, at: Tensor, seen: View, radius: Tensor, gamma: float
) -> Tensor:
    """The radius after seeing the points `at`; shape (rows,), float64."""
    p = oracle.region.p
    move = oracle.first_move(rows, at, seen)
    length = norm_of(oracle.moved(rows, at), p)
    # A little farther than the linearised boundary, or the search would creep up to it for ever.
    guess = (1 + gamma) * (length + norm_of(move, p))
    guess = torch.where((move != 0).any(dim=1), guess.ceil() if p == 0 else guess, math.inf)
    best = oracle.radius[rows]
    shrunk, grown = radius * (1 - gamma), radius * (1 + gamma)
    if p == 0:
        shrunk, grown = torch.minimum(shrunk.floor(), radius - 1), grown.ceil()
        grown, shrunk = torch.maximum(grown, radius + 1), shrunk.clamp(min=1)
    shrunk = torch.minimum(torch.where(shrunk.isfinite(), shrunk, length), best)
    later = torch.where(seen.goal < 0, shrunk, torch.where(grown.isfinite(), grown, best))
    return torch.where(best.isfinite(), later, guess)
