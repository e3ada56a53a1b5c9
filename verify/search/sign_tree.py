"""SignTree: what activation splitting has open, what is closed, and what is done next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verify.bounders.beta_crown import Climbed, climb
from verify.bounders.beta_proof import prove
from verify.bounders.crew import ALONE, Crew, available
from verify.bounders.domains import Domains, joined
from verify.bounders.refining import moved, refine
from verify.graph.ir import Graph
from verify.search import pacing
from verify.search.cover import Cover, Mark, Part, carried, share_of
from verify.search.cutting import grown
from verify.search.deepening import Deepening
from verify.search.leaf import Settled, settle_leaf, spelled_out
from verify.search.lengthening import lengthened
from verify.search.looking import Looked, Looking
from verify.search.outcome import Outcome, Progress, Refuter, Watcher
from verify.search.pool import Pool
from verify.search.recorder import telling
from verify.search.root import Root, root_of, to_input
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.result import Verdict

if TYPE_CHECKING:
    from verify.search.activation_split import ActivationSplit

METHOD = "activation splitting (beta-CROWN)"
HOPELESS = "the tree grows too fast to end in the time granted; give more with --timeout"
SMALLEST = 5e-324
"""The least margin above 0."""


@dataclass(eq=False)
class SignTree:
    """One search: what is open, and what it has cost so far.

    Attributes:
        bounded: domains bounded.
        proved: the least margin among what is closed, or could not be.
        slack: what the search must find for the proof to find more than 0.
        stuck: whether a leaf without open neurons could not be decided.
        bases: waiting, the next one last.
        base, pool, share: the one being searched, its open domains, and the share that is closed.
        root: the first base.
        witness: a counterexample, once there is one.
        cost: seconds that the root took.
        crew: shares batches.
        start: parts to begin with, for boxes that they cover; None for the whole.
        cover: what is closed, for who wants to go on in another box; what is open is `left`.
        floor: the base that the pool's domains are of.
        hopeless: a search that seems to need so many times the time it has left ends at once.
    """

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
    bases: list[Root] = field(default_factory=list)
    base: Root | None = None
    root: Root | None = None
    pool: Pool = field(default_factory=Pool)
    share: float = 0.0
    witness: Tensor | None = None
    cost: float = 0.0
    crew: Crew = ALONE
    start: Sequence[Part] | None = None
    cover: Cover = field(default_factory=Cover)
    floor: Root | None = None
    hopeless: float = float("inf")

    def outcome(self, verdict: Verdict, *, reason: str = "") -> Outcome:
        """What is known by now."""
        bound = float("nan")
        if self.base is not None:
            bound = min(self.proved, self.least())
        return Outcome(
            verdict, METHOD, reason=reason, bound=bound, domains=self.bounded, witness=self.witness
        )

    def left(self) -> list[Part]:
        """All that is open, with the base that each part is a domain of; once there is a root."""
        assert self.root is not None
        waiting = [(base, base.domains) for base in self.bases]
        pool = [] if self.floor is None else [(self.floor, block) for block in self.pool.blocks]
        parts = [*self.cover.held, *self.cover.unsettled, *pool, *waiting]
        self.cover.check(share_of(self.root.domains, len(self.root.margin)), parts)
        return parts

    def least(self) -> float:
        """The least bound of what is open."""
        waiting = (float(base.domains.value.min()) for base in self.bases)
        return min(self.pool.least(), min(waiting, default=float("inf")))

    def run(self) -> Outcome:
        """Root, then bases until nothing is open; raises OutOfTime."""
        begun = time.monotonic()
        how = self.how
        root = root_of(self.graph, self.case, how.ascent, self.budget, how.memo, how.rounding)
        self.base = self.root = root
        if how.recorder is not None and len(root.closed):
            how.recorder.closed(root, root.closed, root, root.closed)
        self.slack = root.slack
        self.bounded += len(root.margin)
        closed = root.margin[root.margin > 0]
        if len(closed):
            self.proved = float(closed.min())
        gone: list[Part] = []
        if self.start is not None:
            domains, gone = carried(self.start, root)
            self.base = self.root = root = replace(root, domains=domains)
        self.cover.begin(root, gone)
        self.cover.held = [(root, root.domains)]
        if len(root.domains) and not bool(root.frame.open().any()):
            return lengthened(self, root)
        self.cost = time.monotonic() - begun
        with Crew(available()) as self.crew:
            return self.grow(root)

    def grow(self, root: Root) -> Outcome:
        """The search below the root."""
        if len(root.domains):
            self.explore(root, self.cost)
        while self.bases and self.witness is None:
            begun = time.monotonic()
            waiting = self.bases.pop()
            self.cover.held = [(waiting, waiting.domains)]
            base = self.sharpen(waiting)
            if base is not None and self.witness is None:
                self.explore(base, time.monotonic() - begun)
        if self.witness is not None:
            return self.outcome(Verdict.FALSIFIED)
        self.cover.check(share_of(root.domains, len(root.margin)), self.cover.unsettled)
        if self.stuck:
            return self.outcome(Verdict.UNKNOWN, reason="leaves without open neurons are left")
        return self.outcome(root.worth)

    def sharpen(self, base: Root) -> Root | None:
        """Bound a base's neurons anew as long as that helps; None if it is closed thereby."""
        assert self.how.refining is not None
        longer = replace(self.how.climb, iterations=pacing.LONG_CLIMB)
        self.base, self.share = base, 0.0
        deepen: Deepening | None = None
        for _ in range(pacing.SWEEPS):
            self.bounded += 1
            before = float(base.domains.value)
            known = (base.proof, base.frame, base.clauses, base.others)
            until = self.budget.share(pacing.MOST_SWEEPING).deadline
            told = telling(self.how.recorder, base, base.domains)
            how = self.how.refining
            found = refine(*known, base.domains, how, deepen, self.crew, until, told)
            if found.empty:
                self.cover.close(base, base.domains)
                return None
            self.base = base = replace(base, proof=found.proof, frame=found.frame, conditional=True)
            single = base.clauses.to(torch.float32)
            climbed = climb(base.frame, single, found.domain, self.slack, longer)
            base = self.base = replace(base, domains=climbed.domains)
            value = float(base.domains.value)
            if value > self.slack and self.close(base.domains):
                return None
            self.witness = self.glance(climbed, torch.arange(1))
            if self.witness is not None:
                break
            if value - before < pacing.HELPS * (self.slack - before):
                if deepen is not None or not pacing.affordable(self.cost, self.budget):
                    break
                deepen = Deepening(rounds=pacing.ROUNDS[0])
        return base

    def deepen(self, base: Root) -> Root | None:
        """Bound the root's neurons over small trees, for all clauses; None if that closes all."""
        assert self.how.refining is not None
        still = replace(self.how.refining.climb, weight_rate=0.0)
        plain = replace(self.how.refining, first_weight=0.0, climb=still)
        longer = replace(self.how.climb, iterations=pacing.LONG_CLIMB)
        for rounds in pacing.ROUNDS:
            if not pacing.affordable(self.cost, self.budget):
                break
            before = float(base.domains.value.min())
            one = base.domains.take(torch.arange(1))
            told = telling(self.how.recorder, base, one)
            known = (base.proof, base.frame, base.clauses, base.others)
            until = self.budget.share(pacing.MOST_DEEPENING).deadline
            found = refine(*known, one, plain, Deepening(rounds), self.crew, until, told)
            if found.empty:
                self.cover.close(base, base.domains)
                return None
            domains = moved(base.domains, base.frame, found.frame)
            self.base = base = replace(base, proof=found.proof, frame=found.frame)
            single = base.clauses.to(torch.float32)
            domains = climb(base.frame, single, domains, self.slack, longer).domains
            margin = prove(base.proof, base.frame, base.clauses, domains, base.others)
            self.closed_at_top(base, domains, margin)
            left = (~(margin > 0)).nonzero().flatten()
            if not len(left):
                return None
            base = self.base = replace(base, domains=domains.take(left))
            value = float(base.domains.value.min())
            if value - before < pacing.DEEPENING_HELPS * (self.slack - before):
                break
        return base

    def closed_at_top(self, base: Root, domains: Domains, margin: Tensor) -> None:
        """Account for clauses that are proved without a split."""
        good = (margin > 0).nonzero().flatten()
        self.bounded += len(domains)
        if len(good):
            self.base = replace(base, domains=domains)
            self.closed(domains.take(good), margin[good])

    def looking(self, base: Root) -> Looking:
        """How batches below a base are bounded now."""
        return Looking(base, self.slack, self.how.climb, self.how.filtered)

    def explore(self, base: Root, cost: float) -> None:
        """Search below a base; divide it if it takes long compared to `cost` seconds."""
        self.base, self.share, self.pool = base, 0.0, Pool(base.frame.columns)
        self.floor, self.cover.held = base, [(base, base.domains)]
        batch = (self.how.batch or pacing.batch_for(base)) * self.crew.workers
        top = self.looked_over(base, max(batch, pacing.TOP))
        if top is None:
            return
        first = base is self.root and not bool((base.domains.sign != 0).any())
        mark = self.cover.mark()
        # A certificate has no words for a cut.
        before = self.bounded
        cutting, rounds, turns = (None if self.how.recorder else self.how.cutting), 0, 0
        begun, patience = time.monotonic(), pacing.PATIENCE * cost
        while self.witness is None and len(self.pool):
            self.budget.check()
            spent = time.monotonic() - begun
            if self.how.refining is not None and spent > patience:
                lacked, waiting = self.slack - top.value, self.slack - self.pool.values()
                rest = spent * pacing.remaining(lacked, waiting, self.bounded - before)
                few = len(top) <= pacing.MOST_PARTS
                if rest > self.hopeless * max(0.0, self.budget.deadline - time.monotonic()):
                    raise OutOfTime(HOPELESS)
                long = few and rest > pacing.WORTH_WAITING * cost
                if long and self.divide(base, top, first, mark):
                    return
                patience = 1.5 * spent
            parents = self.pool.draw(batch)
            self.cover.held = [(base, parents)]
            whole = pacing.splittable(base, parents)
            for leaf in (~whole).nonzero().flatten():
                self.finish(parents.take(leaf[None]))
            parents = parents.take(whole.nonzero().flatten())
            if len(parents) and self.witness is None:
                self.cover.held = [(base, parents)]
                look = self.looking(base)
                shares = [
                    parents.take(rows) for rows in self.crew.shares(torch.arange(len(parents)))
                ]
                seen = self.crew.each(look.split, shares)
                for looked in seen:
                    self.take_in(looked)
                self.cover.held = []
                rounds += 1
                if cutting is not None and rounds == cutting.first * (1 << turns):
                    turns += 1
                    closed = joined([looked.closed for looked in seen], base.frame.columns)
                    self.base = base = grown(base, cutting, closed, self.slack, self.crew)

    def looked_over(self, base: Root, batch: int) -> Domains | None:
        """Bound a base's own domains; what is open of them, or None."""
        for rows in torch.arange(len(base.domains)).split(batch):
            self.budget.check()
            self.take_in(self.looking(base)(base.domains.take(rows)))
        self.cover.held = []
        return joined(self.pool.blocks, base.frame.columns) if len(self.pool) else None

    def divide(self, base: Root, top: Domains, first: bool, mark: Mark) -> bool:
        """Put the base's parts on the stack: open clauses, or both sides of a split.

        Where the base is the first one, its neurons are bounded over small trees before.
        """
        if len(top) == 1:
            if not bool(pacing.splittable(base, top).all()):
                return False
            single = base.clauses.to(torch.float32)
            parts = self.how.filtered(base.frame, single, top, self.slack)
        else:
            parts = top
        if self.how.recorder is not None:
            self.how.recorder.divided(base, top)
        # What was closed below the top counts no more: the search begins there again.
        self.cover.back_to(mark)
        self.cover.held = [(base, top)]
        if first:
            # Once for all clauses, before each is looked at alone.
            clauses = torch.cat([block.clause for block in self.pool.blocks]).unique()
            self.pool = Pool(base.frame.columns)
            top = replace(top, picks=top.picks[:, :0], pulls=top.pulls[:, :0])
            left = torch.isin(top.clause, clauses)
            self.cover.close(base, top.take(~left))
            self.cover.held = [(base, top.take(left))]
            deeper = self.deepen(replace(base, domains=top.take(left)))
            self.cover.held = []
            if deeper is None:
                return True
            base, parts = deeper, deeper.domains
        self.pool, self.cover.held = Pool(base.frame.columns), []
        for i in range(len(parts)):
            self.bases.append(replace(base, domains=parts.take(torch.tensor([i]))))
        return True

    def take_in(self, looked: Looked) -> None:
        """Account for a batch: what is proved, what stays open, and whether it shows a witness."""
        self.closed(looked.closed, looked.margin)
        cuts = None if self.base is None else self.base.frame.cuts
        if cuts is not None and len(looked.ruled):
            # Each lies in a domain that was proved with fewer splits, by at least this.
            self.closed(looked.ruled, cuts.margin.amin().expand(len(looked.ruled)))
        if looked.short > 0:
            self.slack = max(self.slack, 1.5 * looked.short)
        if len(looked.open_):
            self.pool.push(looked.open_)
        if self.watch is not None:
            self.watch(Progress(self.bounded, len(self.pool), self.least()))
        if looked.found is not None:
            self.bounded += len(looked.found.domains)
            if self.witness is None:
                self.witness = self.glance(looked.found, looked.rows)

    def closed(
        self,
        leaves: Domains,
        margin: Tensor,
        by: Root | None = None,
        spelled: Domains | None = None,
    ) -> None:
        """Account for leaves that are proved, by the base or as domains of another one."""
        base = self.base
        assert base is not None
        if not len(leaves):
            return
        # Refined bounds and cuts hold for executions that meet the clause: where nothing does, they
        # say no more than that no value is 0 or less.
        least = SMALLEST if base.conditional else float(margin.min())
        self.proved = min(self.proved, least)
        deeper = (leaves.sign != 0).sum(dim=1) - (base.domains.sign != 0).sum(dim=1).max()
        self.cover.close(base, leaves)
        self.share += float(torch.exp2(-deeper.to(torch.float64)).sum()) / len(base.domains)
        if self.how.recorder is not None:
            self.how.recorder.closed(base, leaves, by or base, spelled or leaves)

    def finish(self, leaf: Domains) -> None:
        """Decide a domain without open neurons."""
        root, base = self.root, self.base
        assert root is not None
        assert base is not None
        self.budget.check()
        whole = spelled_out(root, base, leaf)
        found = Settled(None, None) if whole is None else settle_leaf(root, whole)
        if found.domain is not None:
            margin = prove(root.proof, root.frame, root.clauses, found.domain, root.others)
            if bool(margin > 0):
                self.closed(leaf, margin, root, found.domain)
                return
        if found.point is not None and self.refute is not None:
            entry = root.proof.graph.input.name
            self.witness = self.refute.check(to_input(self.graph, entry, found.point))
        self.cover.unsettled.append((base, leaf))
        if self.witness is None:
            self.stuck = True
            self.proved = min(self.proved, float(leaf.value[0]))

    def close(self, leaf: Domains) -> bool:
        """Whether a single leaf is proved by its multipliers."""
        base = self.base
        assert base is not None
        margin = prove(base.proof, base.frame, base.clauses, leaf, base.others)
        if bool(margin > 0):
            self.closed(leaf, margin)
        return bool(margin > 0)

    def glance(self, found: Climbed, rows: Tensor) -> Tensor | None:
        """Try the minimisers of the least bounds as inputs."""
        if self.refute is None or self.base is None or not len(rows):
            return None
        some = rows[found.domains.value[rows].argsort()[:4]]
        entry = self.base.proof.graph.input.name
        return self.refute.check(to_input(self.graph, entry, found.point[some]))
