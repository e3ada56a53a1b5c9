"""Cutting: closed domains are proved again with fewer splits, and what is left becomes a cut.

A domain deep in the tree is closed by a few of its splits; the others were made for its neighbours.
Splits that cost little are dropped, half of them at first, as long as a few iterations close the
domain all the same; and then the rigorous evaluation must agree, or the cut is not taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from verify.bounders.beta_crown import Climb, climb, walk_of
from verify.bounders.beta_proof import prove
from verify.bounders.crew import Crew
from verify.bounders.cuts import Cuts
from verify.bounders.domain_walk import settled
from verify.bounders.domains import Domains, Frame
from verify.search.root import Root


@dataclass(frozen=True, slots=True)
class Cutting:
    """How cuts are made.

    Attributes:
        most: cuts of a base.
        at_once: domains that are strengthened together.
        first: batches before the first time; the next is after twice as many, and so on, so that
            the effort stays a small share of the search's.
        rounds: attempts to drop splits, each halving what is not known of how many.
        shorter: a cut is kept if it has at most this share of the domain's splits.
        climb: how a domain with fewer splits is optimised.

    Source:
        Zhou et al. 2024 (BICCOS), arXiv:2501.00200, for dropping splits by their influence.
    """

    most: int = 64
    at_once: int = 16
    first: int = 4
    rounds: int = 4
    shorter: float = 0.75
    climb: Climb = Climb(iterations=6)

    def __call__(self, base: Root, leaves: Domains, slack: float) -> Cuts | None:
        """Cuts from closed domains, proved below the base; None if none is worth it."""
        frame, single = base.frame, base.clauses.to(torch.float32)
        own = splits_of(base)
        now, before = leaves, free_splits(leaves, own)
        influence = influence_of(base, now, own)
        rank = influence.argsort(dim=1).argsort(dim=1)
        dropped, step = torch.zeros(len(now)), torch.full((len(now),), 0.5)
        for _ in range(self.rounds):
            count = ((dropped + step) * before).long()
            out = (rank < count[:, None]) & torch.isfinite(influence)
            tried = climb(frame, single, without(now, out), slack, self.climb).domains
            good = tried.value > slack
            now, dropped = chosen(good, tried, now), torch.where(good, dropped + step, dropped)
            step = step / 2
        short = (free_splits(now, own) <= self.shorter * before) & (free_splits(now, own) > 0)
        if not bool(short.any()):
            return None
        found = now.take(short.nonzero().flatten())
        margin = prove(base.proof, frame, base.clauses, found, base.others)
        proved = (margin > 0).nonzero().flatten()
        if not len(proved):
            return None
        return fresh(frame, found.take(proved), margin[proved], own)


def spread(count: int, wanted: int) -> Tensor:
    """Up to so many indices below `count`, evenly."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()


def splits_of(base: Root) -> Tensor:
    """The columns that a base has split itself, as a mask with one too many, (columns + 1,)."""
    mask = torch.zeros(base.frame.columns + 1, dtype=torch.bool)
    if len(base.domains):
        first = base.domains.take(torch.arange(1))
        mask[first.slots[first.sign != 0]] = True
    mask[-1] = False
    return mask


def free_splits(domains: Domains, own: Tensor) -> Tensor:
    """How many splits of each are not those of the base, (batch,)."""
    return ((domains.sign != 0) & ~own[domains.slots]).sum(dim=1)


def without(domains: Domains, out: Tensor) -> Domains:
    """The domains with some of their splits undone; out is a mask over the slots."""
    return replace(
        domains,
        sign=torch.where(out, 0.0, domains.sign),
        beta=torch.where(out, 0.0, domains.beta),
    )


def influence_of(base: Root, domains: Domains, own: Tensor) -> Tensor:
    """What each split brings to the bound as things stand, (batch, depth); infinite if it stays."""
    frame, single = base.frame, base.clauses.to(torch.float32)
    batch, depth = domains.sign.shape
    every = torch.arange(batch).repeat_interleave(depth)
    one = torch.eye(depth, dtype=torch.bool).repeat(batch, 1)
    less = without(domains.take(every), one)
    value = walk_of(frame, single, *settled(frame, less)).value.view(batch, depth)
    stays = (domains.sign == 0) | own[domains.slots]
    return torch.where(stays, torch.inf, domains.value[:, None] - value)


def chosen(good: Tensor, new: Domains, old: Domains) -> Domains:
    """The new domain where it is good, else the old one."""

    def part(name: str) -> Tensor:
        one, other = getattr(new, name), getattr(old, name)
        if name == "cut":  # the climb has widened it
            other = torch.nn.functional.pad(other, (0, one.shape[1] - other.shape[1]))
        return torch.where(good.view(-1, *[1] * (one.dim() - 1)), one, other)

    return Domains(*(part(name) for name in Domains.__slots__))


def fresh(frame: Frame, domains: Domains, margin: Tensor, own: Tensor) -> Cuts:
    """One cut per domain, without repetitions; the base's splits hold anyway and are left out."""
    literal = torch.where(own[domains.slots], 0.0, domains.sign)
    sign = torch.zeros(len(domains), frame.columns + 1)
    sign.scatter_add_(1, domains.slots, literal)
    sign = sign[:, :-1]
    keyed = torch.cat((sign, domains.clause[:, None].to(sign.dtype)), dim=1)
    each, which = torch.unique(keyed, dim=0, return_inverse=True)
    least = margin.new_full((len(each),), torch.inf).scatter_reduce(0, which, margin, "amin")
    return Cuts(each[:, :-1].contiguous(), each[:, -1].long(), least)


def signs_of(frame: Frame, domains: Domains) -> Tensor:
    """The splits of each domain laid over the columns, (batch, columns)."""
    wide = domains.sign.new_zeros(len(domains), frame.columns + 1)
    return wide.scatter_add_(1, domains.slots, domains.sign)[:, :-1]


def grown(base: Root, cutting: Cutting, leaves: Domains, slack: float, crew: Crew) -> Root:
    """The base with cuts from some of its closed leaves, if there is room for more."""
    cuts = base.frame.cuts
    if not len(leaves) or (cuts is not None and len(cuts) >= cutting.most):
        return base
    some = leaves.take(spread(len(leaves), cutting.at_once))
    shares = (some.take(rows) for rows in crew.shares(torch.arange(len(some))))
    for made in crew.each(partial(cutting, base, slack=slack), shares):
        if made is None:
            continue
        if cuts is not None:
            # What an earlier cut says already is left out.
            made = made.take((~cuts.kept_by(made.sign, made.clause)).nonzero().flatten())
        cuts = made if cuts is None else cuts.joined(made)
    return replace(base, frame=replace(base.frame, cuts=cuts), conditional=True)
