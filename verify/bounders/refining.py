"""Refining: bounds of neurons anew, under splits and for inputs that meet a clause only.

To refute a clause it is enough to look at executions that meet it, all its rows <= 0. Their
pre-activations are bounded by

    min z >= max over weight, beta >= 0 of  min (z + weight·rows - beta·s·z_split)

which is the same walk from the output, with z's own coefficient added on the way. A bound found so
holds for every execution in the domain that meets the clause, and a leaf that is proved by such
bounds holds no execution that does.

Source:
    Kotha et al. 2023 (INVPROP), arXiv:2302.01404, for the output constraint.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses, Climb, Climbed, climb
from verify.bounders.beta_proof import prove
from verify.bounders.crew import ALONE, Crew
from verify.bounders.domains import Domains, Frame, Layer, bounds_under, frame_of, joined
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Rows that were bounded, each by itself or over a tree of splits.

    Attributes:
        least: proved lower bounds of the rows, (batch,): the least over each one's leaves.
        leaves: of all trees.
        tree: the row that each leaf belongs to, int64.
    """

    least: Tensor
    leaves: Domains
    tree: Tensor


Deepen = Callable[
    [BackwardPass, Frame, Clauses, dict[str, Relaxation], Climbed],
    Bounded,
]
"""(pass, frame, clauses, other lines, rows) -> the rows bounded further."""

MOST_ENTRIES = 4_000_000
"""Of a chunk of rows over all nodes: what one look at the clock may cost, a second or so."""


@dataclass(frozen=True, slots=True)
class Refining:
    """How neurons are bounded anew.

    Attributes:
        climb: how each row is optimised.
        chunk: rows at once, at most.
        first_weight: multiplier of the clause's rows to begin with, where 1 would lower the row's
            bound by twice the neuron's width.
    """

    climb: Climb = Climb(iterations=12, alpha_rate=0.2, beta_rate=0.3, weight_rate=0.2, leave=0.3)
    chunk: int = 512
    first_weight: float = 0.1

    def rows_at_once(self, frame: Frame) -> int:
        """Rows between two looks at the clock."""
        entries = sum(node.size for node in frame.graph.nodes)
        return max(16, min(self.chunk, MOST_ENTRIES // entries))


@dataclass(eq=False)
class Refined:
    """Bounds under a domain's splits and its clause.

    Attributes:
        proof: the pass with the tighter bounds.
        frame: their frame; the splits keep their columns.
        domain: the domain in the new frame's columns.
        empty: whether some neuron has no value left: nothing in the domain meets the clause.
    """

    proof: BackwardPass
    frame: Frame
    domain: Domains
    empty: bool


def refine(
    proof: BackwardPass,
    frame: Frame,
    clauses: Clauses,
    others: dict[str, Relaxation],
    domain: Domains,
    how: Refining,
    deepen: Deepen | None = None,
    crew: Crew = ALONE,
    until: float = math.inf,
    told: Callable[[Bounded], None] | None = None,
) -> Refined:
    """Bound every open neuron of one domain again, layer by layer; raises OutOfTime.

    Args:
        proof, frame: bounds so far; the pass is left as it is.
        clauses: float64.
        others: rigorous lines of nonlinear nodes that are no Relu.
        domain: a batch of one.
        how: the settings.
        deepen: bounds rows further, for example by splits below them.
        crew: shares the rows of a chunk.
        until: on the clock of `time.monotonic`; what is not bounded by then keeps its bounds.
        told: called with the rows that bound something better, one layer at a time.
    """
    tighter = copy.copy(proof)
    tighter.bounds = dict(proof.bounds)
    for layer in frame.layers:
        tighter.bounds[layer.source] = bounds_under(proof.bounds[layer.source], layer, domain)
    # Rows of neurons start anywhere, and a cut needs every neuron that it counts.
    frame, domain = replace(reread(frame, tighter), cuts=None), replace(domain, cut=none_of(domain))
    for layer in frame.layers:
        near = nearer(layer, tighter.bounds[layer.source])
        for sign in (1.0, -1.0):
            targets = still_open(layer, tighter.bounds[layer.source])
            if not how.first_weight and layer.first == 0:
                # No neuron is below, and no clause is asked: box and weights said all there is.
                continue
            sides = sign * near[targets - layer.first]
            for part in torch.arange(len(targets)).split(how.rows_at_once(frame)):
                tighter.budget.check()
                if time.monotonic() > until:
                    break
                bound = Rebound(tighter, frame, clauses, others, how, deepen)
                rows = rows_of(frame, domain, targets[part], sides[part], how)
                shares = [rows.take(some) for some in crew.shares(torch.arange(len(rows)))]
                for asked, found in zip(shares, crew.each(bound, shares), strict=True):
                    if told is not None:
                        told(improving(tighter, layer, asked, found))
                    take_over(tighter, layer, asked, found.least)
                frame = reread(frame, tighter)
    empty = any(
        bool((tighter.bounds[name].lower > tighter.bounds[name].upper).any())
        for name in (layer.source for layer in frame.layers)
    )
    kept = {layer.name: splits_of(layer, domain) for layer in frame.layers}
    fresh = frame_of(tighter, others, frame.graph.dtype, kept)
    return Refined(tighter, fresh, moved(domain, frame, fresh), empty)


@dataclass(frozen=True, slots=True, eq=False)
class Rebound:
    """Optimises and proves rows of neurons; changes nothing, so that rows may be shared out."""

    proof: BackwardPass
    frame: Frame
    clauses: Clauses
    others: dict[str, Relaxation]
    how: Refining
    deepen: Deepen | None

    def __call__(self, rows: Domains) -> Bounded:
        """What is proved of each row, by itself or over a tree."""
        known = (self.proof, self.frame, self.clauses, self.others)
        single = self.clauses.to(self.frame.graph.dtype)
        climbed = climb(self.frame, single, rows, 0.0, self.how.climb)
        least = prove(self.proof, self.frame, self.clauses, climbed.domains, self.others)
        plain = Bounded(least, climbed.domains, torch.arange(len(rows)))
        if self.deepen is None:
            return plain
        deep = self.deepen(*known, climbed)
        better = deep.least > least
        some, rest = better[deep.tree], (~better).nonzero().flatten()
        parts = [
            replace(leaves, picks=leaves.picks[:, :0], pulls=leaves.pulls[:, :0])
            for leaves in (deep.leaves.take(some), plain.leaves.take(rest))
        ]
        leaves = joined(parts, self.frame.columns)
        tree = torch.cat((deep.tree[some], rest))
        return Bounded(torch.where(better, deep.least, least), leaves, tree)


def none_of(domain: Domains) -> Tensor:
    """Multipliers of no cuts."""
    return domain.beta.new_zeros(len(domain), 0)


def reread(frame: Frame, proof: BackwardPass) -> Frame:
    """The frame with the pass's present bounds, over the same columns."""
    if not frame.layers:
        return frame
    lower, upper = [], []
    for layer in frame.layers:
        bounds = proof.bounds[layer.source]
        lower.append(layer.pick(bounds.lower)[0])
        upper.append(layer.pick(bounds.upper)[0])
    dtype = frame.graph.dtype
    return replace(frame, lower=torch.cat(lower).to(dtype), upper=torch.cat(upper).to(dtype))


def nearer(layer: Layer, bounds: Bounds) -> Tensor:
    """Which side of each column is nearer to 0, and so likelier to settle its sign: +1 below."""
    lower, upper = layer.pick(bounds.lower)[0], layer.pick(bounds.upper)[0]
    return torch.where(upper > -lower, 1.0, -1.0).to(torch.float32)


def still_open(layer: Layer, bounds: Bounds) -> Tensor:
    """The columns of a layer whose sign is open."""
    lower, upper = layer.pick(bounds.lower)[0], layer.pick(bounds.upper)[0]
    return ((lower < 0) & (upper > 0)).nonzero().flatten() + layer.first


def rows_of(
    frame: Frame, domain: Domains, targets: Tensor, sides: Tensor, how: Refining
) -> Domains:
    """One row per target; slopes above it are the domain's, those below of least area."""
    count = len(targets)
    every = torch.zeros(count, dtype=torch.long)
    rows = domain.take(every)
    width = (frame.upper - frame.lower)[targets].clamp(min=1e-9)
    reach = (-domain.value).clamp(min=1e-3)
    # A power of two, so that dividing by it again is exact.
    push = torch.exp2(torch.log2(2 * reach / width).round())
    least_area = (frame.upper > -frame.lower).to(rows.alpha.dtype)
    layers = torch.zeros_like(targets)
    for layer in frame.layers:
        layers = torch.where(targets >= layer.first, layer.first, layers)
    below = torch.arange(frame.columns)[None] < layers[:, None]
    return replace(
        rows,
        weight=rows.weight * how.first_weight,
        beta=torch.zeros_like(rows.beta),
        alpha=torch.where(below, least_area[None], rows.alpha),
        value=rows.alpha.new_full((count,), -torch.inf),
        target=targets,
        push=sides * push,
    )


def improving(proof: BackwardPass, layer: Layer, rows: Domains, found: Bounded) -> Bounded:
    """What bounds its target better than it was; trees are those of the rows that were given."""
    bounds = proof.bounds[layer.source]
    column = rows.target - layer.first
    entry = column if layer.columns is None else layer.columns[column]
    lower, upper = bounds.lower.flatten()[entry], bounds.upper.flatten()[entry]
    bound = found.least / rows.push.to(torch.float64)
    better = torch.where(rows.push > 0, bound > lower, bound < upper)[found.tree]
    return Bounded(found.least, found.leaves.take(better), found.tree[better])


def take_over(proof: BackwardPass, layer: Layer, rows: Domains, least: Tensor) -> None:
    """Tighten a pass by what was proved of a layer's neurons: push·z >= least."""
    bounds = proof.bounds[layer.source]
    lower, upper = bounds.lower.flatten().clone(), bounds.upper.flatten().clone()
    column = rows.target - layer.first
    entry = column if layer.columns is None else layer.columns[column]
    bound = least / rows.push.to(torch.float64)
    below = (rows.push > 0) & ~torch.isnan(least)
    above = (rows.push < 0) & ~torch.isnan(least)
    lower[entry[below]] = torch.maximum(lower[entry[below]], bound[below])
    upper[entry[above]] = torch.minimum(upper[entry[above]], bound[above])
    proof.bounds[layer.source] = Bounds(lower.view_as(bounds.lower), upper.view_as(bounds.upper))


def splits_of(layer: Layer, domain: Domains) -> Tensor:
    """The neurons of a layer that a single domain has split, as a flat mask."""
    here = (domain.slots >= layer.first) & (domain.slots < layer.last) & (domain.sign != 0)
    column = domain.slots[here] - layer.first
    mask = torch.zeros(layer.size, dtype=torch.bool)
    mask[column if layer.columns is None else layer.columns[column]] = True
    return mask


def moved(domains: Domains, old: Frame, new: Frame) -> Domains:
    """Domains in the columns of another frame of the same network.

    Splits must have columns in both; slopes of neurons without a column before begin at the chord's
    side. Picks are dropped.
    """
    place = torch.full((old.columns + 1,), new.columns)
    alpha = (new.upper > -new.lower).to(domains.alpha.dtype).expand(len(domains), -1).clone()
    for before, after in zip(old.layers, new.layers, strict=True):
        every = torch.arange(before.size)
        entry = every if before.columns is None else before.columns
        column = torch.full((before.size,), -1)
        column[every if after.columns is None else after.columns] = torch.arange(
            after.first, after.last
        )
        target = column[entry]
        both = (target >= 0).nonzero().flatten()
        place[before.first + both] = target[both]
        alpha[:, target[both]] = domains.alpha[:, before.first + both]
    none = domains.beta.new_zeros(len(domains), 0)
    return replace(
        domains,
        slots=place[domains.slots],
        alpha=alpha,
        picks=none.long(),
        pulls=none,
        target=torch.full_like(domains.target, new.columns),
        cut=none,
    )
