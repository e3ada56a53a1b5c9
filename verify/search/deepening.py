"""Deepening: a neuron's bound as the least over a small tree of splits of the neurons below it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses, Climb, Climbed, climb
from verify.bounders.beta_proof import prove
from verify.bounders.domains import Domains, Frame, joined
from verify.bounders.refining import Bounded
from verify.branchers.babsr import candidates
from verify.branchers.filtered import children
from verify.values.relaxation import Relaxation


@dataclass(frozen=True, slots=True)
class Deepening:
    """Split the weakest leaf of every row's tree, round after round.

    Attributes:
        rounds: splits per row.
        climb: how each leaf is optimised.
        chunk: leaves proved at once.
    """

    rounds: int = 8
    climb: Climb = Climb(iterations=6, alpha_rate=0.2, weight_rate=0.0, leave=0.3)
    chunk: int = 1024

    def __call__(
        self,
        proof: BackwardPass,
        frame: Frame,
        clauses: Clauses,
        others: dict[str, Relaxation],
        rows: Climbed,
    ) -> Bounded:
        """Proved lower bounds of the rows: the least of each row's leaves."""
        single = clauses.to(frame.graph.dtype)
        count = len(rows.domains)
        leaves, tree = picked(frame, rows), torch.arange(count)
        for _ in range(self.rounds):
            proof.budget.check()
            weakest = weakest_leaves(leaves, tree, count)
            ready = leaves.take(weakest)
            go = ~(ready.value > 0) & (ready.picks[:, 0] < frame.columns) & (ready.pulls[:, 0] > 0)
            chosen = weakest[go]
            if not len(chosen):
                break
            both = children(frame, leaves.take(chosen), torch.zeros_like(chosen))
            fresh = picked(frame, climb(frame, single, both, 0.0, self.climb))
            stay = torch.ones(len(leaves), dtype=torch.bool)
            stay[chosen] = False
            left = stay.nonzero().flatten()
            leaves = joined([leaves.take(left), fresh], frame.columns)
            tree = torch.cat((tree[left], tree[chosen], tree[chosen]))
        parts = []
        for part in torch.arange(len(leaves)).split(self.chunk):
            proof.budget.check()
            parts.append(prove(proof, frame, clauses, leaves.take(part), others))
        found = torch.cat(parts)
        # NaN proves nothing, and must not be passed over by the minimum.
        found = torch.where(torch.isnan(found), -torch.inf, found)
        least = found.new_full((count,), torch.inf)
        return Bounded(least.scatter_reduce(0, tree, found, "amin"), leaves, tree)


def picked(frame: Frame, climbed: Climbed) -> Domains:
    """The domains with neurons to split next."""
    picks, pulls = candidates(frame, climbed, 3)
    return replace(climbed.domains, picks=picks, pulls=pulls)


def weakest_leaves(leaves: Domains, tree: Tensor, count: int) -> Tensor:
    """The index of each tree's leaf of least value, (tree,)."""
    least = leaves.value.new_full((count,), torch.inf)
    least = least.scatter_reduce(0, tree, leaves.value, "amin")
    lowest = (leaves.value <= least[tree]).nonzero().flatten()
    return torch.zeros(count, dtype=torch.long).scatter(0, tree[lowest], lowest)
