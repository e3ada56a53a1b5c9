"""HopSkipJump: the boundary's normal from decisions alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.nearest import Nearest, norm_of, refuse_norm, refuse_setting, unit
from attacks.protocol import Model
from attacks.randomness import derive_keys, normal
from attacks.result import RadiusResult
from attacks.wrong_starts import to_boundary, wrong_starts


@dataclass(frozen=True, slots=True)
class HopSkipJump:
    """From a misclassified point along the boundary towards the input; needs decisions alone.

    Each step estimates the boundary's normal from the decisions at random points around, jumps
    along it, and returns to the boundary on the way to the input.

    Attributes:
        steps: jumps.
        first_samples: random points of the first estimate; the t-th takes sqrt(t) times as many.
        most_samples: at most so many.
        halvings: of the segment to the input, after each jump.
        tries: random points asked for a first misclassified one.
        seed: of all random points.

    Source:
        Chen, Jordan, Wainwright 2020, arXiv:1904.02144.
    """

    steps: int = 20
    first_samples: int = 60
    most_samples: int = 300
    halvings: int = 12
    tries: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        numbers = (self.steps, self.first_samples, self.most_samples, self.halvings, self.tries)
        complaint = None
        if min(numbers) < 1:
            complaint = (
                f"steps = {self.steps}, first_samples = {self.first_samples}, most_samples = "
                f"{self.most_samples}, halvings = {self.halvings}, tries = {self.tries}; "
                "expected at least 1 each"
            )
        refuse_setting("HopSkipJump", complaint)

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
        p = float(ball.p)
        refuse_norm("HopSkipJump", p, (math.inf, 2.0))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        keys = oracle.lane_keys(rows, "hopskipjump", self.seed, torch.zeros_like(rows))
        starts = wrong_starts(oracle, rows, start, keys, self.tries)
        keys = oracle.lane_keys(starts.rows, "jumps", self.seed, torch.zeros_like(starts.rows))
        rows = starts.rows
        if not len(rows):
            return oracle.outcome()
        at = to_boundary(oracle, rows, starts.points, self.halvings)
        entries = at[0].numel()
        # The width of the first ball of samples, relative to the distance; then as in the paper.
        width = 0.1
        for step in range(self.steps):
            far = norm_of(oracle.moved(rows, at), 2.0)
            count = min(int(self.first_samples * math.sqrt(step + 1)), self.most_samples)
            normal_to = self._normal(oracle, rows, at, derive_keys(keys, step), far * width, count)
            jumped = self._jump(oracle, rows, at, normal_to, step)
            at = to_boundary(oracle, rows, jumped, self.halvings)
            width = max(1 / entries, width * 0.8)
        return oracle.outcome()

    def _normal(
        self, oracle: Nearest, rows: Tensor, at: Tensor, keys: Tensor, width: Tensor, count: int
    ) -> Tensor:
        """The estimated direction into the misclassified side; shape (rows, n), L2 length 1."""
        lanes = rows.repeat_interleave(count)
        index = torch.arange(count, device=rows.device).repeat(len(rows))
        direction = normal(derive_keys(keys.repeat_interleave(count), index), at[0].numel())
        direction = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        delta = oracle.moved(rows, at).repeat_interleave(count, dim=0)
        around = oracle.place(lanes, delta + width.repeat_interleave(count)[:, None] * direction)
        vote = torch.where(oracle.ask(lanes, around) < 0, 1.0, -1.0).double().view(-1, count)
        # Less its mean, the votes' variance is least; where all agree, they are the estimate.
        balance = vote.sum(dim=1, keepdim=True) / count
        vote = torch.where(balance.abs() < 1, vote - balance, vote)
        went = (oracle.moved(lanes, around) - delta).view(len(rows), count, -1)
        return unit((vote[:, :, None] * went).sum(dim=1), keys + 1)

    def _jump(
        self, oracle: Nearest, rows: Tensor, at: Tensor, direction: Tensor, step: int
    ) -> Tensor:
        """Along the normal, halving the length until the point is misclassified."""
        delta = oracle.moved(rows, at)
        p = oracle.region.p
        if p == math.inf:
            direction = direction.sign()
        length = norm_of(delta, p) / math.sqrt(step + 1)
        result = at
        waiting = torch.arange(len(rows), device=rows.device)
        for _ in range(self.halvings):
            if not len(waiting):
                break
            move = length[waiting][:, None] * direction[waiting]
            there = oracle.place(rows[waiting], delta[waiting] + move)
            good = oracle.ask(rows[waiting], there) < 0
            result = result.index_copy(0, waiting[good], there[good])
            waiting = waiting[~good]
            length = length / 2
        return result
