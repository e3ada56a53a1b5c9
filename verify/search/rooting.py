"""Bounds of whole cases, many at once: what cheap methods prove leaves the search."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.region import Box
from verify.values.spec import Spec

WORTH_BATCHING = 4_000_000
"""Multiplications of one forward pass over a batch, beyond which a larger one gains nothing."""
MOST_AT_ONCE = 256
"""Cases bounded at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """A case, or what is left of it, that no bound proved yet.

    Attributes:
        number: of the case in its property.
        case: with the clauses that are still open.
        margins: the best known lower bound of each of them, float64.
    """

    number: int
    case: Case
    margins: Tensor

    @property
    def bound(self) -> float:
        """The least margin."""
        return float(self.margins.amin())


def at_once(graph: Graph) -> int:
    """How many cases to bound together."""
    products = sum(
        node.tensors["weight"].numel() * max(1, node.size // node.tensors["weight"].shape[0])
        for node in graph.nodes
        if "weight" in node.tensors
    )
    return max(1, min(MOST_AT_ONCE, WORTH_BATCHING // max(1, products)))


def opened(cases: Sequence[Case]) -> list[Open]:
    """All cases, with nothing known of them."""
    return [
        Open(i, case, torch.full((len(case.clauses),), -math.inf, dtype=torch.float64))
        for i, case in enumerate(cases)
    ]


def narrowed(
    graph: Graph, bounder: Bounder, cases: list[Open], budget: Budget
) -> tuple[list[Open], bool]:
    """What a bounder leaves open, and whether time ran out.

    Clauses that are proved out of reach leave their case. Cases with clauses of the same sizes are
    bounded together.

    Raises:
        InternalError: if the bounder does not account for rounding.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, entry in enumerate(cases):
        groups[tuple(len(clause) for clause in entry.case.clauses)].append(i)
    left: dict[int, Open] = dict(enumerate(cases))
    size = at_once(graph)
    for members in groups.values():
        for start in range(0, len(members), size):
            part = members[start : start + size]
            try:
                found = clause_margins(graph, bounder, [cases[i].case for i in part], budget)
            except OutOfTime:
                return list(left.values()), True
            for i, margins in zip(part, found, strict=True):
                rest = remaining(cases[i], margins)
                if rest is None:
                    del left[i]
                else:
                    left[i] = rest
    return list(left.values()), False


def remaining(entry: Open, margins: Tensor) -> Open | None:
    """The clauses that are still open; None if there are none."""
    best = torch.maximum(entry.margins, margins)
    # NaN and infinity prove nothing.
    open_ = ~(torch.isfinite(best) & (best > 0))
    if not bool(open_.any()):
        return None
    keep = open_.nonzero().flatten().tolist()
    case = replace(entry.case, clauses=tuple(entry.case.clauses[i] for i in keep))
    return Open(entry.number, case, best[open_])


def clause_margins(graph: Graph, bounder: Bounder, cases: list[Case], budget: Budget) -> Tensor:
    """The best row's lower bound of each clause of each case, (case, clause), float64."""
    first = cases[0].spec()
    spec = Spec(
        torch.cat([case.spec().coeff for case in cases]),
        torch.cat([case.spec().const for case in cases]),
        clause=first.clause,
    )
    shape = graph.input.shape
    box = Box(
        torch.stack([case.lower for case in cases]).view(-1, *shape),
        torch.stack([case.upper for case in cases]).view(-1, *shape),
    )
    enclosure = bounder(Problem(graph, box, spec), budget)
    if not enclosure.rigorous:
        raise InternalError("a bounder behind a verdict does not account for rounding")
    rows = enclosure.margin.to(torch.float64)
    rows = torch.where(torch.isfinite(rows), rows, -math.inf)
    best = rows.new_full((len(cases), len(cases[0].clauses)), -math.inf)
    assert first.clause is not None
    return best.scatter_reduce(1, first.clause.expand_as(rows), rows, "amax")
