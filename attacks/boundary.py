"""The boundary attack: a random walk along the boundary, drawn towards the input."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.nearest import Nearest, norm_of, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.randomness import derive_keys, normal
from attacks.result import RadiusResult
from attacks.wrong_starts import to_boundary, wrong_starts

# How step lengths answer to success; a fifth of successes keeps them as they are.
RISE, FALL = 1.1, 0.975


@dataclass(frozen=True, slots=True)
class Boundary:
    """Random steps at equal distance, then one towards the input, kept if misclassified.

    The lengths of both steps adapt per sample, by success.

    Attributes:
        steps: proposals.
        aside: length of the first step at equal distance, relative to the distance.
        inward: length of the first step towards the input, likewise.
        halvings: of the segment to the input, before the first proposal and after the last.
        tries: random points asked for a first misclassified one.
        seed: of all random numbers.

    Source:
        Brendel, Rauber, Bethge 2018, arXiv:1712.04248. Departs from it by one query per proposal:
        both lengths answer to the same decision.
    """

    steps: int = 1000
    aside: float = 0.1
    inward: float = 0.02
    halvings: int = 12
    tries: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if min(self.steps, self.halvings, self.tries) < 1:
            complaint = (
                f"steps = {self.steps}, halvings = {self.halvings}, tries = {self.tries}; "
                "expected at least 1 each"
            )
        elif not (self.aside > 0 and 0 < self.inward < 1):
            complaint = (
                f"aside = {self.aside}, inward = {self.inward}; expected a positive fraction and "
                "one below 1"
            )
        refuse_setting("Boundary", complaint)

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
        """Evaluations only, no gradient; begins at `start` if misclassified; see `Minimiser`."""
        refuse_norm("Boundary", float(ball.p), (2.0,))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        keys = oracle.lane_keys(rows, "boundary", self.seed, torch.zeros_like(rows))
        starts = wrong_starts(oracle, rows, start, keys, self.tries)
        rows = starts.rows
        if not len(rows):
            return oracle.outcome()
        keys = oracle.lane_keys(rows, "proposals", self.seed, torch.zeros_like(rows))
        at = to_boundary(oracle, rows, starts.points, self.halvings)
        delta = oracle.moved(rows, at)
        aside = torch.full_like(delta[:, 0], self.aside)
        inward = torch.full_like(aside, self.inward)
        for step in range(self.steps):
            far = norm_of(delta, 2.0)
            noise = normal(derive_keys(keys, step), delta.shape[1])
            towards = delta / torch.where(far > 0, far, 1.0)[:, None]
            noise = noise - (noise * towards).sum(dim=1, keepdim=True) * towards
            noise = noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True).clamp(min=1e-300)
            moved = delta + (aside * far)[:, None] * noise
            length = norm_of(moved, 2.0)
            shorter = (1 - inward) * far / torch.where(length > 0, length, 1.0)
            there = oracle.place(rows, moved * shorter[:, None])
            good = oracle.ask(rows, there) < 0
            gone = oracle.moved(rows, there)
            delta = torch.where((good & (norm_of(gone, 2.0) < far))[:, None], gone, delta)
            aside = (aside * torch.where(good, RISE, FALL)).clamp(1e-6, 0.5)
            inward = (inward * torch.where(good, RISE, FALL)).clamp(1e-7, 0.3)
        oracle.shorten(oracle.rows(), self.halvings)
        return oracle.outcome()
