"""The Square attack: random search in windows, by the model's scores alone."""

import bisect
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Lanes, walk
from attacks.errors import AttackInputError
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.randomness import derive_keys
from attacks.result import AttackResult
from attacks.square_moves import squares, stripes, tiles, transfers

# Windows halve their area after these queries out of PLAN.
PLAN = 10_000
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, slots=True)
class Square:
    """Random search: change one window at a time, keep what lowers the margin. No gradient.

    A sign that gradients are of no use (masking) is that this attack finds what they do not.

    Attributes:
        queries: evaluations per start, the first point included.
        restarts: how many starts.
        first_share: the share of the entries that the first windows cover; it falls as in the
            paper, whose plan for 10,000 queries is stretched to `queries`.
        early_stop: drop a sample at its first misclassified point.
        seed: of all choices, together with the sample's key.
        max_lanes: samples searched at once; bounds memory, changes no result.

    Source:
        Andriushchenko et al. 2020, arXiv:1912.00049; L1: Croce, Hein 2021, arXiv:2103.01208.
        Departs from them in drawing windows and signs for each sample on its own.
    """

    queries: int = 5000
    restarts: int = 1
    first_share: float = 0.8
    early_stop: bool = True
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        for name in ("queries", "restarts", "max_lanes"):
            if getattr(self, name) < 1:
                raise AttackInputError(
                    f"Square got {name} = {getattr(self, name)}; expected at least 1. "
                    "Correct that setting."
                )
        if not 0 < self.first_share <= 1:
            raise AttackInputError(
                f"Square got first_share = {self.first_share}; expected a share of the entries in "
                "(0, 1]. Correct that setting."
            )

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
    ) -> AttackResult:
        """Search from stripes or tiles; the first search begins at `start` if given."""
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        for restart in range(self.restarts):
            rows = oracle.open_rows()
            if not self.early_stop:
                rows = torch.arange(len(oracle.labels), device=rows.device)
            region = oracle.region.rows(rows)
            if start is not None and restart == 0:
                points = region.project(start[rows])
            else:
                begin = stripes if region.p == torch.inf else tiles
                points = begin(region, self._keys(oracle, rows, restart))
            walk(oracle, Search(self, restart), Lanes(rows, points), self.max_lanes)
        return oracle.result("square")

    def share_at(self, query: int) -> float:
        """The share of the entries that a window covers."""
        planned = query * PLAN // self.queries
        return float(self.first_share / 2 ** bisect.bisect_left(HALVED_AFTER, planned))

    def _keys(self, oracle: Oracle, rows: Tensor, restart: int) -> Tensor:
        return oracle.lane_keys(rows, "square", self.seed, torch.full_like(rows, restart))


@dataclass(frozen=True, slots=True)
class Search:
    """One start's search, as something that walks lanes."""

    square: Square
    restart: int

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Ask at each lane's point, then at ever smaller changes of the best."""
        rows, best = lanes.rows, lanes.points
        region = oracle.region.rows(rows)
        keys = self.square._keys(oracle, rows, self.restart)
        level = oracle.ask(rows, best)
        move = squares if region.p == torch.inf else transfers
        for query in range(1, self.square.queries):
            going = oracle.going(rows) if self.square.early_stop else None
            if going is not None:
                rows, best, level = rows[going], best[going], level[going]
                keys, region = keys[going], region.rows(going)
            if not len(rows):
                return
            there = move(region, best, self.square.share_at(query), derive_keys(keys, query))
            seen = oracle.ask(rows, there)
            # NaN is no progress, and anything is progress from NaN.
            better = (seen < level) | (level.isnan() & ~seen.isnan())
            best = torch.where(better.view(-1, *[1] * (best.dim() - 1)), there, best)
            level = torch.where(better, seen, level)
