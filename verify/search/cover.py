"""Cover: which parts of the space of signs are closed, which are open; so that another search, of a
smaller or a larger box, can begin with these parts instead of with the whole.

A part is a few splits, "these neurons are >= 0, those <= 0". What no part of a finished tree leaves
out in one box, none leaves out in any other: the splits say nothing of the box. Their shares of the
space of signs, 2^-depth each, add up to what they were cut from, by which it is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.domains import Domains, Frame, Layer, joined
from verify.errors import InternalError
from verify.search.root import Root

Part = tuple[Root, Domains]
"""Domains, and the root whose columns they speak of."""
ROUNDED = 1e-9
"""What sums of shares, which are powers of two, may be off by."""
Mark = tuple[Tensor | None, int, int]
"""A state of a cover to come back to."""


def share_of(domains: Domains, clauses: int) -> Tensor:
    """The share of the space of signs that domains make up, for each clause; (clause,)."""
    depth = (domains.sign != 0).sum(dim=1).to(torch.float64)
    share = torch.zeros(clauses, dtype=torch.float64)
    return share.index_add_(0, domains.clause, torch.exp2(-depth))


@dataclass(eq=False)
class Cover:
    """What a search has closed and what it is working on.

    Attributes:
        most: entries of closed parts that are remembered; past it they are forgotten.
        leaves: closed parts; None where they were forgotten.
        held: parts that left the pool and are not decided yet.
        unsettled: parts that nothing can decide.
        closed: the share of each clause that is closed, (clause,); NaN before anything is.
    """

    most: int = 0
    leaves: list[Part] | None = field(default_factory=list)
    held: list[Part] = field(default_factory=list)
    unsettled: list[Part] = field(default_factory=list)
    closed: Tensor | None = None
    entries: int = 0

    def begin(self, root: Root, gone: Sequence[Part] = ()) -> None:
        """Closed are the root's clauses, and parts that are empty in its box, if not in others."""
        self.closed = torch.zeros(len(root.margin), dtype=torch.float64)
        for base, domains in ((root, root.closed), *gone):
            self.close(base, domains)
        self.closed = torch.zeros_like(self.closed)

    def close(self, base: Root, leaves: Domains) -> None:
        """Remember parts that need nothing more."""
        if self.closed is None or not len(leaves):
            return
        self.closed = self.closed + share_of(leaves, len(self.closed))
        if self.leaves is None:
            return
        self.entries += leaves.alpha.numel() + 6 * leaves.slots.numel()
        if self.entries > self.most:
            self.leaves = None
        else:
            # Where else they could be split, the next search finds out itself.
            bare = replace(leaves, picks=leaves.picks[:, :0], pulls=leaves.pulls[:, :0])
            self.leaves.append((base, bare))

    def mark(self) -> Mark:
        """Where the parts of a base begin."""
        return self.closed, self.entries, len(self.leaves or ())

    def back_to(self, mark: Mark) -> None:
        """Forget what was closed since: the base is begun again."""
        self.closed, self.entries, count = mark
        if self.leaves is not None:
            del self.leaves[count:]

    def whole(self) -> bool:
        """Whether the closed parts that are remembered make up every clause."""
        if self.leaves is None or self.closed is None:
            return False
        total = torch.zeros_like(self.closed)
        for _, domains in self.leaves:
            total += share_of(domains, len(total))
        return bool((total >= 1 - ROUNDED).all())

    def check(self, whole: Tensor, open_: Sequence[Part]) -> None:
        """Refuse a tree that has lost a part.

        Args:
            whole: share of each clause that the search began with.
            open_: all that is open now.

        Raises:
            InternalError: if closed and open parts are not all of it.
        """
        if self.closed is None:
            raise InternalError("a search over activations had not begun")
        total = self.closed.clone()
        for _, domains in open_:
            total += share_of(domains, len(total))
        if bool((total < whole * (1 - ROUNDED)).any()):
            raise InternalError("a search over activations has lost a part of its space")


def carried(parts: Sequence[Part], root: Root) -> tuple[Domains, list[Part]]:
    """Parts of one search as domains of another root of the same network and clauses.

    Splits that the root's bounds imply are left out. Parts that they contradict are empty in the
    root's box; they are returned beside the others, since in a larger box they may not be. Parts
    about clauses that the root has closed are left out.
    """
    wanted = ~(root.margin > 0)
    found, gone = [root.domains.take(torch.arange(0))], []
    tables: dict[int, Table] = {}
    for base, domains in parts:
        table = tables.setdefault(id(base), table_of(base, root))
        domains = domains.take(wanted[domains.clause].nonzero().flatten())
        empty = table.empty(domains)
        if bool(empty.any()):
            gone.append((base, domains.take(empty.nonzero().flatten())))
        found.append(table.carry(domains.take((~empty).nonzero().flatten())))
    return joined(found, root.frame.columns), gone


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """From the columns of one frame to those of another.

    Attributes:
        place: the new column of each old one, or one too many; (old + 1,).
        lower, upper: rigorous bounds in the new box of each old column, float64.
        slopes: what slopes start from, (new,).
    """

    place: Tensor
    lower: Tensor
    upper: Tensor
    slopes: Tensor

    def empty(self, domains: Domains) -> Tensor:
        """Which domains the bounds contradict, (batch,); not where bounds are NaN."""
        low, high = self.lower[domains.slots], self.upper[domains.slots]
        contrary = ((domains.sign > 0) & (high < 0)) | ((domains.sign < 0) & (low > 0))
        return contrary.any(dim=1)

    def carry(self, domains: Domains) -> Domains:
        """The domains in the new columns, without splits of neurons that have none."""
        blank = len(self.slopes)
        slots = self.place[domains.slots]
        gone = (slots == blank) | (domains.sign == 0)
        # Used slots come first.
        order = gone.to(torch.uint8).argsort(dim=1, stable=True)
        gone = gone.gather(1, order)
        depth = int((~gone).sum(dim=1).max()) if gone.numel() else 0

        def kept(values: Tensor, fill: float) -> Tensor:
            return values.gather(1, order).masked_fill(gone, fill)[:, :depth]

        alpha = self.slopes.expand(len(domains), -1).clone()
        known = (self.place[:-1] < blank).nonzero().flatten()
        alpha[:, self.place[known]] = domains.alpha[:, known]
        none = domains.beta.new_zeros(len(domains), 0)
        return replace(
            domains,
            slots=kept(slots, blank),
            sign=kept(domains.sign, 0.0),
            beta=kept(domains.beta, 0.0),
            scale=kept(domains.scale, 1.0),
            alpha=alpha,
            value=torch.full_like(domains.value, -torch.inf),
            picks=none.long(),
            pulls=none,
            target=torch.full_like(domains.target, blank),
            push=torch.zeros_like(domains.push),
            cut=none,
        )


def table_of(base: Root, root: Root) -> Table:
    """The table between the frames of two roots of the same network."""
    old, new = base.frame, root.frame
    place = torch.full((old.columns + 1,), new.columns)
    lower = torch.full((old.columns + 1,), -torch.inf, dtype=torch.float64)
    upper = torch.full((old.columns + 1,), torch.inf, dtype=torch.float64)
    for before, after in zip(old.layers, new.layers, strict=True):
        entry = original(base.proof, before)
        bounds = whole_bounds(root.proof, after)
        size = len(bounds[0])
        column = torch.full((size,), new.columns)
        column[original(root.proof, after)] = torch.arange(after.first, after.last)
        here = slice(before.first, before.last)
        place[here], lower[here], upper[here] = column[entry], bounds[0][entry], bounds[1][entry]
    return Table(place, lower, upper, slopes_of(new))


def slopes_of(frame: Frame) -> Tensor:
    """The chord's side of every column."""
    return (frame.upper > -frame.lower).to(frame.upper.dtype)


def original(proof: BackwardPass, layer: Layer) -> Tensor:
    """The neuron of the unpruned network behind each column of a layer."""
    entry = torch.arange(layer.size) if layer.columns is None else layer.columns
    kept = proof.kept.get(layer.name)
    return entry if kept is None else kept[entry]


def whole_bounds(proof: BackwardPass, layer: Layer) -> tuple[Tensor, Tensor]:
    """Bounds of all neurons of the unpruned layer, flat."""
    kept = proof.kept.get(layer.name)
    now = proof.bounds[layer.source]
    if kept is None:
        return now.lower.flatten(), now.upper.flatten()
    before = proof.whole[layer.source]
    lower, upper = before.lower.flatten().clone(), before.upper.flatten().clone()
    lower[kept], upper[kept] = now.lower.flatten(), now.upper.flatten()
    return lower, upper
