"""StagedPlanes: CROWN with fresh bounds of every undecided entry, for small networks of any shape.

What `CrownPlanes` does node by node, done stage by stage (`verify.bounders.staged`) on boxes by the
thousand. Rows go through a stage by its lines, A·f(z) >= A_z·z + const, and pay there

    |A|·kernel + |A_z|·(off + own·size),

which is the execution's rounding and ours: `own·size` sums up to own·T over the stages, T being the
sum of the row's |terms|, as `verify.bounders.staged.own_of` wants it.

Only clauses that some box of the batch has open get rows. Where one is left open by them, there is
one row more, a combination of the clause's rows whose own planes and slopes are moved to where they
lose least at the row's minimiser (`verify.bounders.staged_climb`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.crown import Crown
from verify.bounders.planes import Goal, Planes, smear
from verify.bounders.staged import Staged, staged
from verify.bounders.staged_climb import climbed
from verify.bounders.staged_pass import Pass
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.values.budget import Budget
from verify.values.region import Box
from verify.values.rounding import FLOAT32, Rounding
from verify.values.spec import Spec

WORKING = 2**17
"""Entries of the bounds of one stage, over a batch, that fill matrix products."""
EDGES = 0.1
"""Share of `smear` in the weights of inputs, beside what relaxations lose."""
MOST, LEAST = 2048, 64
"""Boxes at once."""


@dataclass(frozen=True, slots=True, eq=False)
class StagedPlanes:
    """A `PlaneBounder` for networks that are small once their affine parts are multiplied out.

    Attributes:
        network: as stages.
        goal: the rows.
    """

    network: Staged
    goal: Goal

    @property
    def clauses(self) -> tuple[tuple[int, ...], ...]:
        """The rows of each clause, and the one that combines them."""
        first = len(self.goal.const)
        return tuple((*rows, first + i) for i, rows in enumerate(self.goal.clauses))

    @property
    def batch(self) -> int:
        """Enough boxes to hide Python behind arithmetic."""
        widest = max(len(stage.kernel) for stage in self.network.stages)
        return max(LEAST, min(MOST, WORKING // widest))

    def __call__(
        self,
        lower: Tensor,
        upper: Tensor,
        budget: Budget = Budget(),
        open_: Tensor | None = None,
    ) -> Planes:
        """Bound every stage, then the rows of clauses that are open on some box."""
        walk = Pass(self.network, lower.to(torch.float64), upper.to(torch.float64), budget)
        for stage in self.network.stages:
            walk.enter(stage)
        every, rows = len(self.goal.clauses), len(self.goal.const)
        asked = torch.ones(every, dtype=torch.bool) if open_ is None else open_.any(dim=0)
        planes = Planes(
            walk.lower.new_zeros(len(lower), rows + every, walk.inputs),
            walk.lower.new_full((len(lower), rows + every), -torch.inf),
            walk.lower.new_full((len(lower), rows + every), -torch.inf),
            walk.lower.new_zeros(len(lower), every, walk.inputs),
        )
        index = torch.tensor(
            [r for c, own in enumerate(self.goal.clauses) if asked[c] for r in own]
        )
        self.plain(walk, index, planes)
        for clause, own in enumerate(self.goal.clauses):
            if not asked[clause]:
                continue
            best = planes.least[:, list(own)].amax(dim=1)
            left = ~(best > 0) if open_ is None else ~(best > 0) & open_[:, clause]
            boxes = left.nonzero().flatten()
            if len(boxes):
                place = rows + clause
                found = climbed(walk, boxes, torch.tensor(own), planes.least[boxes][:, list(own)])
                planes.coeff[boxes, place], planes.const[boxes, place] = found.coeff, found.const
                planes.least[boxes, place] = found.least
                width = (walk.upper - walk.lower)[boxes]
                edges = smear(found.coeff[:, None], width)[:, 0]
                planes.weight[boxes, clause] = share_of(found.blame) + EDGES * share_of(edges)
        return planes

    def plain(self, walk: Pass, index: Tensor, planes: Planes) -> None:
        """Some of the goal's rows by the lines that all share, in place."""
        goal = self.network.goal
        start = {piece.stage: piece.weight[index][None] for piece in goal.pieces}
        bias = (goal.bias - walk.charge(goal))[index]
        coeff, const = walk.pulled(start, bias, walk.lined)
        low = walk.interval(goal).lower[:, index]
        planes.coeff[:, index], planes.const[:, index] = coeff, const
        planes.least[:, index] = torch.maximum(walk.least(coeff, const), low)


def share_of(values: Tensor) -> Tensor:
    """Entries as shares of their sum over inputs; 0 where that is 0."""
    total = values.sum(dim=1, keepdim=True)
    return torch.where(total > 0, values / torch.where(total > 0, total, 1.0), 0.0)


def staged_planes(
    graph: Graph, goal: Goal, lower: Tensor, upper: Tensor, rounding: Rounding = FLOAT32
) -> StagedPlanes | None:
    """The bounder, if the network is small and made of operators that it knows; else None.

    Args:
        graph: float64.
        goal: the rows.
        lower, upper: the root: boxes that are bounded later must lie within, (inputs,).
        rounding: which executions the planes hold for.
    """
    shape = (1, *graph.input.shape)
    region = Box(lower.to(torch.float64).view(shape), upper.to(torch.float64).view(shape))
    spec = Spec(goal.coeff[None], goal.const[None])
    bounds = Crown(rounding=rounding)(Problem(graph, region, spec)).bounds
    bounds = {graph.input.name: region.bounds(), **bounds}
    network = staged(graph, bounds, goal.coeff, goal.const, rounding)
    return None if network is None else StagedPlanes(network, goal)
