"""sigma-zero: few changed entries, by a smooth stand-in for their number and a moving threshold."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.adam import Adam
from attacks.ball import Ball
from attacks.fmn import entry_extent
from attacks.nearest import Nearest, cosine, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.result import RadiusResult


@dataclass(frozen=True, slots=True)
class SigmaZero:
    """Minimises how many entries change; for a `SparseBall`.

    min_d  max(margin(x + d), 0) + mean_i d_i^2 / (d_i^2 + sigma),  entries below a threshold set to
    0; the threshold rises while x + d is misclassified and falls while it is not.

    Attributes:
        steps: gradient steps.
        step_size: the first, as a fraction of how far an entry may move; the last is a tenth.
        sigma: sharpness of the stand-in, relative to the square of how far an entry may move.
        threshold: the first, as a fraction of how far an entry may move.
        threshold_rate: its change per step, in the same unit, times the step size.
        prune: how often, at the end, the smallest changes are undone by halves; each is a query.

    Source:
        Cina et al. 2024, arXiv:2402.01879; Adam as there.
    """

    steps: int = 200
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_rate: float = 0.01
    prune: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if self.steps < 1 or self.prune < 0:
            complaint = f"steps = {self.steps}, prune = {self.prune}; expected at least 1 and 0"
        elif not (self.step_size > 0 and self.sigma > 0 and self.threshold_rate >= 0):
            complaint = (
                f"step_size = {self.step_size}, sigma = {self.sigma}, threshold_rate = "
                f"{self.threshold_rate}; expected positive, positive and at least 0"
            )
        elif not 0 <= self.threshold < 1:
            complaint = f"threshold = {self.threshold}; expected a fraction in [0, 1)"
        refuse_setting("SigmaZero", complaint)

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
        refuse_norm("SigmaZero", float(ball.p), (0.0,))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if not len(rows):
            return oracle.outcome()
        oracle.begin(rows, start)
        at = oracle.region.centre[rows]
        if start is not None:
            at = oracle.region.rows(rows).project(start[rows])
        extent = entry_extent(oracle, rows)[:, None]
        threshold = torch.full_like(extent, self.threshold)
        entries = oracle.region.centre[0].numel()
        adam = Adam.zeros(oracle.moved(rows, at))
        for step in range(self.steps):
            seen = oracle.view(rows, at)
            delta = oracle.moved(rows, at) / extent
            square = delta.square()
            sparse = 2 * delta * self.sigma / (square + self.sigma).square() / entries
            hinge = torch.where((seen.goal >= 0)[:, None], seen.slope * extent, 0.0)
            slope = hinge + sparse
            largest = slope.abs().amax(dim=1, keepdim=True)
            slope = slope / torch.where(largest > 0, largest, 1.0)
            size = cosine(step, self.steps, self.step_size, self.step_size / 10)
            delta = delta - size * adam.direction(slope)
            moved = oracle.moved(rows, oracle.place(rows, delta * extent)) / extent
            moved = torch.where(moved.abs() < threshold, 0.0, moved)
            at = oracle.place(rows, moved * extent)
            change = self.threshold_rate * size
            found = (seen.goal < 0)[:, None]
            threshold = (threshold + torch.where(found, change, -change)).clamp(0.0, 0.999)
        oracle.ask(rows, at)
        undo_smallest(oracle, rows, self.prune)
        return oracle.outcome()


def undo_smallest(oracle: Nearest, rows: Tensor, tries: int) -> None:
    """Undo the smallest changes of what is held: half of them, and ever fewer where that fails."""
    rows = rows[oracle.radius[rows].isfinite()]
    share = torch.full_like(oracle.radius[rows], 0.5)
    for _ in range(tries):
        if not len(rows):
            return
        delta = oracle.moved(rows, oracle.candidate[rows])
        changed = oracle.radius[rows]
        drop = (share * changed).floor().clamp(min=1)
        rank = torch.where(delta != 0, delta.abs(), torch.inf).argsort(dim=1, stable=True)
        place = torch.arange(delta.shape[1], device=rows.device).expand_as(rank)
        order = torch.empty_like(rank).scatter(1, rank, place)
        kept = torch.where(order < drop[:, None], 0.0, delta)
        gone = oracle.ask(rows, oracle.place(rows, kept)) < 0
        share = torch.where(gone, share, share / 2)
