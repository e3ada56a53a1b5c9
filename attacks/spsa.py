"""SPSA: the margin's gradient from pairs of evaluations, for models that have none."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.errors import AttackInputError
from attacks.fmn import FMN, entry_extent
from attacks.nearest import Nearest, View, known, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.randomness import derive_keys, normal, uniform
from attacks.result import RadiusResult

DIRECTIONS = ("signs", "gaussian")


@dataclass(frozen=True, slots=True)
class SPSA:
    """FMN on a gradient that is estimated from scores; needs nothing of the model but its logits.

    g = mean over pairs of  (m(x + h u) - m(x - h u)) / (2 h) * u,  every sample with directions u
    of its own.

    Attributes:
        steps: estimated gradients.
        pairs: evaluations at x + h u and x - h u per gradient.
        width: h, as a fraction of how far an entry may move.
        directions: "signs": entries of u are 1 or -1 (SPSA); "gaussian": normal (NES).
        step_size, gamma, halvings: as for `FMN`.
        seed: of the directions.

    Source:
        SPSA: Spall 1992, doi:10.1109/9.119632; as an attack, Uesato et al. 2018,
        arXiv:1802.05666. NES: Ilyas et al. 2018, arXiv:1804.08598. The search around it is FMN's.
    """

    steps: int = 40
    pairs: int = 32
    width: float = 0.01
    directions: str = "signs"
    step_size: float = 1.0
    gamma: float = 0.05
    halvings: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        self._fmn()
        complaint = None
        if self.pairs < 1 or not self.width > 0:
            complaint = f"pairs = {self.pairs}, width = {self.width}; expected positive numbers"
        elif self.directions not in DIRECTIONS:
            complaint = f"directions = {self.directions!r}; expected one of {', '.join(DIRECTIONS)}"
        refuse_setting("SPSA", complaint)

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
        """steps * (2 * pairs + 1) evaluations per sample, no gradient; see `Minimiser`."""
        refuse_norm("SPSA", float(ball.p), (math.inf, 2.0, 1.0))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if len(rows):
            keys = oracle.lane_keys(rows, "spsa", self.seed, torch.zeros_like(rows))
            width = self.width * entry_extent(oracle, rows)

            def look(at: Tensor, points: Tensor, step: int) -> View:
                return self.estimate(oracle, at, points, derive_keys(keys, step), width)

            oracle.begin(rows, start)
            self._fmn().search(oracle, rows, start, keys, look)
            oracle.shorten(rows, self.halvings)
        return oracle.outcome()

    def estimate(
        self, oracle: Nearest, rows: Tensor, points: Tensor, keys: Tensor, width: Tensor
    ) -> View:
        """The margin at each point, and its gradient from `pairs` pairs of points around it.

        Args:
            rows: shape (rows,), int64, without repeats.
            points: shape (rows, *input), in the range; the pairs are clipped to it.
            keys: shape (rows,), int64: of the directions.
            width: shape (rows,): h.
        """
        goal = oracle.ask(rows, points).double()
        lanes = rows.repeat_interleave(self.pairs)
        pair = torch.arange(self.pairs, device=rows.device).repeat(len(rows))
        lane_keys = derive_keys(keys.repeat_interleave(self.pairs), pair)
        size = points[0].numel()
        if self.directions == "signs":
            direction = (uniform(lane_keys, size) - 0.5).sign()
        else:
            direction = normal(lane_keys, size)
        move = direction * width.repeat_interleave(self.pairs)[:, None]
        delta = oracle.moved(lanes, points.repeat_interleave(self.pairs, dim=0))
        up, down = oracle.place(lanes, delta + move), oracle.place(lanes, delta - move)
        rise = oracle.ask(lanes, up).double() - oracle.ask(lanes, down).double()
        # Clipped pairs are not symmetric any more: each entry counts by how far it really went.
        gone = (up - down).flatten(1).double()
        spread = gone.square().sum(dim=1) / size
        slope = rise.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)[:, None] * gone
        slope = slope / torch.where(spread > 0, spread, 1.0)[:, None]
        slope = slope.view(len(rows), self.pairs, size).sum(dim=1) / self.pairs
        return View(value=goal.nan_to_num(), slope=slope, goal=known(goal))

    def _fmn(self) -> FMN:
        """The search around the estimate; it complains in SPSA's name."""
        try:
            return FMN(
                steps=self.steps,
                step_size=self.step_size,
                gamma=self.gamma,
                halvings=self.halvings,
                seed=self.seed,
            )
        except AttackInputError as error:
            raise AttackInputError(str(error).replace("FMN", "SPSA", 1)) from None
