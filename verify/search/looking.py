"""Looking: one batch of domains split, bounded and proved; what a search over activations repeats.

Nothing here changes the search, so that several batches are looked at side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.beta_crown import Climb, Climbed, climb
from verify.bounders.beta_proof import prove
from verify.bounders.domains import Domains
from verify.branchers.babsr import candidates
from verify.branchers.filtered import Filtered
from verify.search.root import Root


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What became of a batch.

    Attributes:
        found: the batch as it was climbed.
        closed: what is proved, and by how much, (closed,).
        margin: of those.
        open_: the rest, with neurons to split next.
        rows: where the rest was in the batch.
        short: how much less than the search's bound was proved, at most, where that kept one open.
    """

    found: Climbed
    closed: Domains
    margin: Tensor
    open_: Domains
    rows: Tensor
    short: float


@dataclass(frozen=True, slots=True, eq=False)
class Looking:
    """How a batch below a base is split and bounded.

    Attributes:
        base: whose bounds the domains inherit.
        slack: what the search must find for the proof to find more than 0.
        climb: how domains are optimised.
        filtered: how the neuron to split is chosen.
    """

    base: Root
    slack: float
    climb: Climb
    filtered: Filtered

    def split(self, parents: Domains) -> Looked:
        """Both children of every parent."""
        single = self.base.clauses.to(torch.float32)
        return self(self.filtered(self.base.frame, single, parents, self.slack))

    def __call__(self, domains: Domains) -> Looked:
        """Bound domains, prove what can be, and say what to split in the others."""
        base = self.base
        found = climb(base.frame, base.clauses.to(torch.float32), domains, self.slack, self.climb)
        value = found.domains.value
        left = ~(value > self.slack)
        ready = (~left).nonzero().flatten()
        margin, short = torch.zeros(0, dtype=torch.float64), 0.0
        good = ready
        if len(ready):
            leaves = found.domains.take(ready)
            proved = prove(base.proof, base.frame, base.clauses, leaves, base.others)
            holds = proved > 0
            good, margin = ready[holds], proved[holds]
            if not bool(holds.all()):
                short = float((leaves.value.to(torch.float64) - proved)[~holds].max())
                left[ready[~holds]] = True
        keep = left.nonzero().flatten()
        picks, pulls = candidates(base.frame, found, max(3, self.filtered.tried))
        value = torch.maximum(value, domains.value.clamp(max=self.slack))
        kept = replace(found.domains, picks=picks, pulls=pulls, value=value)
        return Looked(found, found.domains.take(good), margin, kept.take(keep), keep, short)
