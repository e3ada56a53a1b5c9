"""ActivationSplit: branch and bound over the signs of pre-activations, batched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.beta_crown import Climb, Climbed, climb
from verify.bounders.beta_proof import prove
from verify.bounders.domains import Domains
from verify.bounders.slopes import Ascent
from verify.branchers.babsr import candidates
from verify.branchers.filtered import Filtered
from verify.graph.ir import Graph
from verify.search.leaf import settle_leaf
from verify.search.outcome import Outcome, Progress, Refuter, Watcher
from verify.search.pool import Pool
from verify.search.root import Root, root_of, to_input
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.result import Verdict

METHOD = "activation splitting (beta-CROWN)"

OnLeaf = Callable[[Domains], None]
"""Told of closed domains with the splits, slopes and multipliers that prove them."""


@dataclass(frozen=True, slots=True)
class ActivationSplit:
    """Split neurons until every part is proved or a counterexample is met.

    Attributes:
        ascent: how slopes are optimised at the root.
        climb: how each batch of domains is.
        filtered: how the neuron to split is chosen.
        batch: domains split at once; None to choose by the network's size.
        on_leaf: told of every closed leaf; for certificates.
    """

    ascent: Ascent = Ascent()
    climb: Climb = Climb()
    filtered: Filtered = Filtered()
    batch: int | None = None
    on_leaf: OnLeaf | None = None

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """The verdict within the budget."""
        tree = Tree(self, graph, case, refute, budget, watch)
        try:
            return tree.run()
        except OutOfTime as error:
            return tree.outcome(Verdict.UNKNOWN, reason=str(error))


@dataclass(eq=False)
class Tree:
    """One search: what is open, and what it has cost so far."""

    how: ActivationSplit
    graph: Graph
    case: Case
    refute: Refuter | None
    budget: Budget
    watch: Watcher | None
    bounded: int = 0
    proved: float = float("inf")
    slack: float = 0.0
    stuck: bool = False
    root: Root | None = None
    pool: Pool = field(default_factory=Pool)

    def outcome(
        self, verdict: Verdict, *, reason: str = "", witness: Tensor | None = None
    ) -> Outcome:
        """What is known by now."""
        bound = float("nan")
        if self.root is not None:
            bound = min(self.proved, self.pool.least())
        return Outcome(
            verdict, METHOD, reason=reason, bound=bound, domains=self.bounded, witness=witness
        )

    def run(self) -> Outcome:
        """Root, then batches until nothing is open; raises OutOfTime."""
        root = self.root = root_of(self.graph, self.case, self.how.ascent, self.budget)
        self.slack = root.slack
        self.pool.blank = root.frame.columns
        self.bounded += len(root.margin)
        closed = root.margin[root.margin > 0]
        if len(closed):
            self.proved = float(closed.min())
        if not len(root.domains):
            return self.outcome(Verdict.VERIFIED)
        witness = self.settle(root.domains)
        batch = self.how.batch or batch_for(root)
        while witness is None and len(self.pool):
            self.budget.check()
            parents = self.pool.draw(batch)
            whole = (
                (parents.picks[:, 0] < root.frame.columns)
                if parents.picks.shape[1]
                else (torch.zeros(len(parents), dtype=torch.bool))
            )
            for leaf in (~whole).nonzero().flatten():
                witness = witness if witness is not None else self.finish(parents.take(leaf[None]))
            parents = parents.take(whole.nonzero().flatten())
            if len(parents) and witness is None:
                clauses = root.clauses.to(torch.float32)
                both = self.how.filtered(root.frame, clauses, parents, self.slack)
                witness = self.settle(both)
        if witness is not None:
            return self.outcome(Verdict.FALSIFIED, witness=witness)
        if self.stuck:
            return self.outcome(Verdict.UNKNOWN, reason="leaves without open neurons are left")
        return self.outcome(Verdict.VERIFIED)

    def settle(self, domains: Domains) -> Tensor | None:
        """Bound domains; prove what can be, keep the rest; a witness if one is met."""
        root = self.root
        assert root is not None
        found = climb(
            root.frame, root.clauses.to(torch.float32), domains, self.slack, self.how.climb
        )
        self.bounded += len(domains)
        value = found.domains.value
        ready = (value > self.slack).nonzero().flatten()
        left = value <= self.slack
        if len(ready):
            leaves = found.domains.take(ready)
            margin = prove(root.proof, root.frame, root.clauses, leaves, root.others)
            good = margin > 0
            if bool(good.any()):
                self.proved = min(self.proved, float(margin[good].min()))
                if self.how.on_leaf is not None:
                    self.how.on_leaf(leaves.take(good.nonzero().flatten()))
            if not bool(good.all()):
                short = float((leaves.value.to(torch.float64) - margin)[~good].max())
                self.slack = max(self.slack, 1.5 * short)
                left[ready[~good]] = True
        keep = left.nonzero().flatten()
        if len(keep):
            self.keep(domains, found, keep)
        if self.watch is not None:
            self.watch(Progress(self.bounded, len(self.pool), self.pool.least()))
        return self.glance(found, keep)

    def keep(self, before: Domains, found: Climbed, rows: Tensor) -> None:
        """Put open domains back, with candidates for their next split."""
        root = self.root
        assert root is not None
        picks, pulls = candidates(root.frame, found, max(3, self.how.filtered.tried))
        value = torch.maximum(found.domains.value, before.value.clamp(max=self.slack))
        self.pool.push(replace(found.domains, picks=picks, pulls=pulls, value=value).take(rows))

    def finish(self, leaf: Domains) -> Tensor | None:
        """Decide a domain without open neurons; a witness if it holds one."""
        root = self.root
        assert root is not None
        self.budget.check()
        found = settle_leaf(root, leaf)
        if found.domain is not None and self.close(found.domain):
            return None
        if found.point is not None and self.refute is not None:
            entry = root.proof.graph.input.name
            witness = self.refute.check(to_input(self.graph, entry, found.point))
            if witness is not None:
                return witness
        self.stuck = True
        self.proved = min(self.proved, float(leaf.value[0]))
        return None

    def close(self, leaf: Domains) -> bool:
        """Whether a single leaf is proved by its multipliers."""
        root = self.root
        assert root is not None
        margin = float(prove(root.proof, root.frame, root.clauses, leaf, root.others)[0])
        if not margin > 0:
            return False
        self.proved = min(self.proved, margin)
        if self.how.on_leaf is not None:
            self.how.on_leaf(leaf)
        return True

    def glance(self, found: Climbed, rows: Tensor) -> Tensor | None:
        """Try the minimisers of the least bounds as inputs."""
        if self.refute is None or self.root is None or not len(rows):
            return None
        some = rows[found.domains.value[rows].argsort()[:4]]
        entry = self.root.proof.graph.input.name
        return self.refute.check(to_input(self.graph, entry, found.point[some]))


def batch_for(root: Root) -> int:
    """Domains to split at once: enough to fill matrix products, few enough for the caches."""
    widest = sum(node.size for node in root.frame.graph.nodes)
    return max(4, min(256, 400_000 // widest))
