"""Splitting: scores over a region as the union over parts in which some neurons keep their sign.

Where a Relu's sign is not known, its relaxation is what makes bounds loose. Of a part in which the
sign is given the function is linear there; every execution lies in one of the two parts, so the
hull of the parts' scores holds for all. Each round takes the parts of least certified confidence
and splits the neuron whose relaxation costs the row of the confidence most.

Source:
    Branch and bound over Relu signs: Bunel et al. 2018, arXiv:1711.00455; choice of the neuron:
    the intercept score of BaBSR (Bunel et al. 2020, arXiv:1909.06588), applied to the tangent row
    of the confidence. The signs only tighten bounds; no multiplier enforces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.slopes import Ascent
from verify.confidence.certifying import scores_over
from verify.confidence.joint import ranges, tangents
from verify.confidence.reach import Reach
from verify.confidence.scores import Scores, hull, of_parts
from verify.confidence.unrolled import unrolled
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.protocols import Bounder
from verify.values.bounds import Bounds
from verify.values.budget import Budget, OutOfTime
from verify.values.question import Question

AT_ONCE = 32
"""Parts that are split in one round."""

Signs = dict[str, Bounds]
"""Per node that feeds a Relu, what its entries are limited to; shape (parts, entries)."""


@dataclass(eq=False)
class Parts:
    """The parts of one input's region, and what is certified of each.

    Attributes:
        signs: the limits.
        scores: one batch entry per part.
        place: the neuron to split next, (parts,), an index into all entries side by side; -1 where
            no sign is open.
    """

    signs: Signs
    scores: Scores
    place: Tensor


BY_PART = AlphaCrown(ascent=Ascent(iterations=6), intermediate=False)
"""How a part is bounded: its neurons by the signs and plain lines, its own rows by slopes."""


def splittable(graph: Graph) -> Graph:
    """The network in the form that can be split, where it has one; else as it is.

    Convolutions and max pooling of a small network become dense layers and Relus.
    """
    if relu_sources(graph):
        return graph
    flat = unrolled(graph)
    return flat if flat is not None and relu_sources(flat) else graph


def split_scores(
    graph: Graph,
    asked: Question,
    bounder: Bounder,
    whole: Scores,
    *,
    temperature: float,
    rounds: int,
    budget: Budget,
    neurons: Mapping[str, Bounds] = MappingProxyType({}),
) -> Scores:
    """Scores of each input, tightened by `rounds` rounds of splits.

    Args:
        graph, asked, temperature: as for `certify_scores`.
        bounder: `Crown`, or the dearer `AlphaCrown`, which is tighter from the first round on.
        whole: what is certified without splits.
        rounds: of splits per input, each of up to `AT_ONCE` parts.
        budget: for the batch.
        neurons: bounds of the graph's nodes over the whole regions, as far as they are known; every
            part starts from them.
    """
    sources = relu_sources(graph)
    if not sources or rounds < 1:
        return whole
    tight = []
    for row in range(len(asked.x)):
        one = asked.take(torch.tensor([row]))
        own = whole.take(torch.tensor([row]))
        try:
            known = {
                name: bounds.take(torch.tensor([row])) for name, bounds in (neurons or {}).items()
            }
            parts = one_input(graph, one, bounder, sources, temperature, rounds, budget, known)
        except OutOfTime:
            parts = None
        tight.append(own if parts is None else own.intersect(hull(parts)))
    return of_parts(tight)


def relu_sources(graph: Graph) -> list[str]:
    """The flat nodes that feed a Relu, in order; none if anything else is nonlinear."""
    names = []
    for node in graph.nodes[1:]:
        if lookup(node).relax is None:
            continue
        if node.op != "Relu" or len(node.shape) != 1:
            return []
        names.append(node.inputs[0])
    return names


def one_input(
    graph: Graph,
    one: Question,
    bounder: Bounder,
    sources: list[str],
    temperature: float,
    rounds: int,
    budget: Budget,
    known: Mapping[str, Bounds],
) -> Scores:
    """The scores of all parts that one input's region ends up in."""
    infinite = {
        name: torch.full((1, graph.node(name).size), torch.inf, dtype=torch.float64)
        for name in sources
    }
    signs = {name: known.get(name, Bounds(-limit, limit)) for name, limit in infinite.items()}
    parts = measured(graph, one, bounder, signs, None, temperature, budget)
    assert parts is not None
    for _ in range(rounds):
        open_ = (parts.place >= 0).nonzero().flatten()
        if not len(open_):
            break
        order = parts.scores.confidence.lower[open_].argsort()
        chosen = open_[order[:AT_ONCE]]
        keep = torch.ones(len(parts.place), dtype=torch.bool)
        keep[chosen] = False
        # What is certified of a part holds of both its halves.
        parents = parts.scores.take(torch.cat((chosen, chosen)))
        children = measured(
            graph, one, bounder, halves(parts, chosen, sources), parents, temperature, budget
        )
        old = keep.nonzero().flatten()
        pieces = [
            Parts(
                {name: parts.signs[name].take(old) for name in sources},
                parts.scores.take(old),
                parts.place[old],
            )
        ]
        if children is not None:
            pieces.append(children)
        parts = joined([piece for piece in pieces if len(piece.place)], sources)
    return parts.scores


def halves(parts: Parts, chosen: Tensor, sources: list[str]) -> Signs:
    """The chosen parts twice: with their neuron at least 0, and at most 0."""
    low = torch.cat([parts.signs[name].lower[chosen] for name in sources], dim=1)
    high = torch.cat([parts.signs[name].upper[chosen] for name in sources], dim=1)
    place = parts.place[chosen][:, None]
    zero = torch.zeros_like(low[:, :1])
    above = low.scatter(1, place, torch.maximum(low.gather(1, place), zero))
    below = high.scatter(1, place, torch.minimum(high.gather(1, place), zero))
    lower, upper = torch.cat((above, low)), torch.cat((high, below))
    sizes = [parts.signs[name].lower.shape[1] for name in sources]
    pieces = zip(lower.split(sizes, dim=1), upper.split(sizes, dim=1), strict=True)
    return {name: Bounds(a, b) for name, (a, b) in zip(sources, pieces, strict=True)}


def measured(
    graph: Graph,
    one: Question,
    bounder: Bounder,
    signs: Signs,
    parents: Scores | None,
    temperature: float,
    budget: Budget,
) -> Parts | None:
    """Certify each part, no looser than its parent; None if none holds any execution."""
    sources = list(signs)
    count = len(signs[sources[0]].lower)
    asked = one.take(torch.zeros(count, dtype=torch.long))
    reach = Reach(graph, asked.region(), budget, bounder, signs)
    found, differences = scores_over(reach, asked, temperature)
    if parents is not None:
        found = found.intersect(parents)
    place = worst_neuron(reach, sources, ranges(differences), found)
    # A part that no class can win holds no execution either.
    alive = ~reach.empty & found.possible.any(dim=1)
    rows = alive.nonzero().flatten()
    if not len(rows):
        return None
    limits = {name: signs[name].intersect(reach.seen[name]).take(rows) for name in sources}
    return Parts(limits, found.take(rows), place[rows])


def worst_neuron(reach: Reach, sources: list[str], of: Bounds, found: Scores) -> Tensor:
    """The open neuron of largest |A|·intercept in the row of the likeliest class; (parts,)."""
    likeliest = found.probability.lower.amax(dim=0).argmax()[None]
    weights = of.upper[:, likeliest].softmax(dim=2)
    costs = reach.costs(-tangents(torch.nan_to_num(weights), likeliest))
    flat = torch.cat([costs[name] for name in sources], dim=1)
    best, place = flat.max(dim=1)
    return torch.where(best > 0, place, -1)


def joined(pieces: list[Parts], sources: list[str]) -> Parts:
    """Several lists of parts as one."""
    signs = {
        name: Bounds(
            torch.cat([piece.signs[name].lower for piece in pieces]),
            torch.cat([piece.signs[name].upper for piece in pieces]),
        )
        for name in sources
    }
    return Parts(
        signs,
        of_parts([piece.scores for piece in pieces]),
        torch.cat([piece.place for piece in pieces]),
    )
