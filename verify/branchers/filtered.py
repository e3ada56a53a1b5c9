"""Filtered smart branching: candidates are tried by one backward walk of both children each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.beta_crown import Clauses, walk_of
from verify.bounders.domain_walk import settled
from verify.bounders.domains import Domains, Frame, joined
from verify.branchers.babsr import scale_of


@dataclass(frozen=True, slots=True)
class Filtered:
    """Try the best picks of every domain and split the one whose children gain most.

    Attributes:
        tried: candidates per domain.
        batch: domains walked at once.

    Source:
        De Palma et al. 2021, arXiv:2104.06718; the product of both gains is what strong branching
        for integer programs ranks by (Achterberg et al. 2005).
    """

    tried: int = 3
    batch: int = 512

    def __call__(self, frame: Frame, clauses: Clauses, parents: Domains, goal: float) -> Domains:
        """Both children of each parent, those with z >= 0 first; (2 * batch,)."""
        tried = min(self.tried, parents.picks.shape[1])
        first = torch.zeros(len(parents), dtype=torch.long)
        best = self.score(frame, clauses, parents, first, goal) if tried > 1 else None
        choice = first
        for k in range(1, tried):
            assert best is not None
            which = torch.full_like(first, k)
            score = self.score(frame, clauses, parents, which, goal)
            score = torch.where(parents.picks[:, k] < frame.columns, score, -torch.inf)
            choice = torch.where(score > best, k, choice)
            best = torch.maximum(score, best)
        return children(frame, parents, choice)

    def score(
        self, frame: Frame, clauses: Clauses, parents: Domains, which: Tensor, goal: float
    ) -> Tensor:
        """The product of the children's gains, each counted up to the goal at most; (batch,)."""
        both = children(frame, parents, which)
        values = []
        for part in torch.arange(len(both)).split(self.batch):
            some = both.take(part)
            values.append(walk_of(frame, clauses, *settled(frame, some)).value)
        value = torch.cat(values).view(2, -1)
        room = (goal - parents.value).clamp(min=1e-9)
        gain = ((value - parents.value) / room).clamp(max=1.0)
        low, high = gain.amin(dim=0), gain.amax(dim=0)
        return torch.where(low > 0, low * high + 1e-3 * low, low) + 1e-2 * high


def children(frame: Frame, parents: Domains, which: Tensor) -> Domains:
    """Both sides of a split of one pick of each parent."""
    column = parents.picks.gather(1, which[:, None])[:, 0]
    scale = scale_of(parents, which)
    return joined(
        [parents.split(column, side, scale, frame.columns) for side in (1.0, -1.0)], frame.columns
    )
