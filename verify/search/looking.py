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
from verify.search.cutting import signs_of
from verify.search.root import Root


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What became of a batch.

    Attributes:
        found: the batch as it was climbed; None if nothing was left to climb.
        closed: what is proved, and by how much, (closed,).
        margin: of those.
        ruled: what some cut says nothing of its clause is in.
        open_: the rest, with neurons to split next.
        rows: where the rest was in the batch.
        short: how much less than the search's bound was proved, at most, where that kept one open.
    """

    found: Climbed | None
    closed: Domains
    margin: Tensor
    ruled: Domains
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
        children = self.filtered(self.base.frame, single, parents, self.slack)
        cuts = self.base.frame.cuts
        if cuts is None:
            return self(children)
        out = cuts.kept_by(signs_of(self.base.frame, children), children.clause)
        return self(children.take(~out), children.take(out))

    def __call__(self, domains: Domains, ruled: Domains | None = None) -> Looked:
        """Bound domains, prove what can be, and say what to split in the others."""
        base = self.base
        if ruled is None:
            ruled = domains.take(torch.arange(0))
        if not len(domains):
            none = torch.zeros(0, dtype=torch.float64)
            return Looked(None, domains, none, ruled, domains, none.long(), 0.0)
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
        closed = found.domains.take(good)
        return Looked(found, closed, margin, ruled, kept.take(keep), keep, short)
