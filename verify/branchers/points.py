"""Points: which entry of a nonlinear node's input to cut in two, and where.

An entry's score is what the relaxations that read it lose at the minimiser of the part's bound, by
the coefficients of the walk that is there anyway. The best few are tried: one more walk bounds both
children of each. Relu and its like are cut at 0, smooth functions where both halves' lines enclose
the least area, others in the middle.

Source:
    Shi et al. 2024 (GenBaB), arXiv:2405.21063, scores candidates by coefficients as well; De Palma
    et al. 2021, arXiv:2104.06718, for trying them. The score by loss at the minimiser is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses, Climb
from verify.bounders.point_climb import Seen, climbed
from verify.bounders.point_parts import Columns, Parts, joined
from verify.bounders.slopes import along_lines
from verify.graph.ir import Node
from verify.ops.registry import lines_of, lookup
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation

AT_ZERO = ("Relu", "TwoPiece", "Sign")
"""Operators that are simpler on either side of 0."""
NARROW = 1e-5
"""Entries narrower than this, relative to their place, are not cut."""
SHARES = (0.5, 0.25, 0.375, 0.625, 0.75)
"""Where smooth functions may be cut, as shares of the interval; the middle wins ties."""
MOST_TRIED = 2_000_000
"""Entries of a node, over a batch, whose areas are computed; others are cut in the middle."""
ONCE = Climb(iterations=1)
"""One walk, nothing optimised."""


def losses(found: Seen, columns: Columns) -> Tensor:
    """What relaxations lose at the minimiser, by the entry that they read; (batch, columns)."""
    walk = found.walk
    shares: dict[str, Tensor] = {}
    for name, coeff in found.coeff.items():
        node = walk.graph.node(name)
        given = [
            torch.minimum(
                torch.maximum(found.values[s], walk.bounds[s].lower), walk.bounds[s].upper
            )
            for s in node.inputs
        ]
        for source, share in zip(node.inputs, shares_of(found, node, coeff, given), strict=True):
            shares[source] = shares[source] + share if source in shares else share
    batch = len(found.point)
    return columns.laid(shares, found.point, batch)


def shares_of(found: Seen, node: Node, coeff: Tensor, given: list[Tensor]) -> list[Tensor]:
    """A node's loss, shared out to the entries of its inputs; (batch, *input) each."""
    walk, lines = found.walk, found.lines[node.name]
    radii = [(walk.bounds[s].upper - walk.bounds[s].lower) / 2 for s in node.inputs]
    if node.op == "MatMul":
        # The gap of an entry is the sum of products of radii: half a radius, half its product.
        size = coeff.abs()
        return [
            radii[0] * (size @ radii[1].transpose(-1, -2)),
            radii[1] * (radii[0].transpose(-1, -2) @ size),
        ]
    rule = lookup(node).along
    wide = [value[:, None] for value in given]
    row = coeff[:, None]
    line = along_lines(lines, row, *wide) if rule is None else rule(node, lines, row, *wide)
    lost = (coeff * (lookup(node).forward(node, *given) - line[:, 0])).clamp(min=0)
    if node.op == "Softmax":
        steep = torch.maximum(lines.lower_slope[:, 0].abs(), lines.upper_slope[:, 0].abs())
        moved = (coeff.abs()[..., None, :] @ steep)[..., 0, :] * radii[0]
        total = moved.sum(dim=-1, keepdim=True)
        part = moved / torch.where(total > 0, total, 1.0)
        return [part * lost.sum(dim=-1, keepdim=True)]
    if lines.upper_source is not None:
        flat = lost.new_zeros(len(lost), given[0][0].numel())
        flat.scatter_add_(1, lines.upper_source.expand(len(lost), -1), lost.flatten(1))
        return [flat.view_as(given[0])]
    if lines.mixed:
        return [radius * 0 for radius in radii]
    return [lost] * len(given)


def cuttable(found: Seen, columns: Columns) -> Tensor:
    """Which entries may be cut at all; bool, (batch, columns)."""
    walk = found.walk
    batch = len(found.point)
    fit: dict[str, Tensor] = {}
    for name in columns.first:
        bounds = walk.bounds[name]
        wide = bounds.upper - bounds.lower > NARROW * (1 + bounds.magnitude())
        readers = [node for node in walk.graph.nodes if name in node.inputs]
        kinks = [n for n in readers if lookup(n).relax is not None]
        if all(node.op in AT_ZERO for node in kinks):
            wide = wide & (bounds.lower < 0) & (bounds.upper > 0)
        fit[name] = (wide & torch.isfinite(bounds.magnitude())).to(found.point.dtype)
    return columns.laid(fit, found.point, batch) > 0


def places(found: Seen, columns: Columns) -> Tensor:
    """Where to cut every entry, float32 numbers in float64, (batch, columns)."""
    walk = found.walk
    batch = len(found.point)
    where: dict[str, Tensor] = {}
    for name in columns.first:
        bounds = walk.bounds[name]
        readers = [node for node in walk.graph.nodes if name in node.inputs]
        smooth = [n for n in readers if lookup(n).free == 2 and len(n.inputs) == 1]
        place = (bounds.lower + bounds.upper) / 2
        if smooth and place.numel() * len(SHARES) <= MOST_TRIED:
            place = least_area(smooth[0], bounds)
        if any(node.op in AT_ZERO for node in readers):
            place = torch.where((bounds.lower < 0) & (bounds.upper > 0), 0.0, place)
        where[name] = place
    return columns.laid(where, found.point, batch).to(torch.float32).to(torch.float64)


def least_area(node: Node, bounds: Bounds) -> Tensor:
    """Of a few points, the one whose halves' lines enclose the least area."""
    best, least = (bounds.lower + bounds.upper) / 2, torch.full_like(bounds.lower, torch.inf)
    for share in SHARES:
        point = torch.lerp(bounds.lower, bounds.upper, share)
        size = area(node, Bounds(bounds.lower, point)) + area(node, Bounds(point, bounds.upper))
        better = size < least * (1 - 1e-3)
        best, least = torch.where(better, point, best), torch.where(better, size, least)
    return best


def area(node: Node, bounds: Bounds) -> Tensor:
    """Of the region between a node's lines: width times the gap in the middle."""
    lines: Relaxation = lines_of(node, (bounds,))
    middle = ((bounds.lower + bounds.upper) / 2)[:, None]
    gap = (lines.upper_slope - lines.lower_slope) * middle
    for offset, sign in ((lines.upper_offset, 1), (lines.lower_offset, -1)):
        gap = gap if offset is None else gap + sign * offset
    return gap[:, 0] * (bounds.upper - bounds.lower)


@dataclass(frozen=True, slots=True)
class Cutting:
    """Cut every part at the entry whose children gain most, of the few that lose most.

    Attributes:
        tried: entries per part.
    """

    tried: int = 3

    def __call__(
        self,
        search: BackwardPass,
        columns: Columns,
        clauses: Clauses,
        parts: Parts,
        found: Seen,
        goal: float,
    ) -> tuple[Parts | None, Tensor]:
        """Both children of every part that can be cut, and which those are, (batch,).

        Args:
            search: the pass that parts are bounded from.
            columns: of its graph.
            clauses: in its arithmetic.
            parts: as they were climbed.
            found: their last walk.
            goal: gains beyond it count no more.
        """
        fit = cuttable(found, columns)
        alive = fit.any(dim=1)
        rows = alive.nonzero().flatten()
        if not len(rows):
            return None, alive
        score = losses(found, columns)
        # Where nothing is lost at the minimiser, the widest entries go first.
        score = torch.where(fit, score.clamp(min=0), -1.0)[rows]
        tried = min(self.tried, score.shape[1])
        top = score.topk(tried, dim=1)
        at = places(found, columns)[rows].gather(1, top.indices)
        parents = parts.take(rows)
        choice = torch.zeros(len(rows), dtype=torch.long)
        if tried > 1:
            usable = top.values >= 0
            gains = [
                self.gain(search, columns, clauses, parents, top.indices[:, k], at[:, k], goal)
                for k in range(tried)
            ]
            ranked = torch.where(usable, torch.stack(gains, dim=1), -torch.inf)
            choice = ranked.argmax(dim=1)
        column = top.indices.gather(1, choice[:, None])[:, 0]
        point = at.gather(1, choice[:, None])[:, 0]
        return joined([parents.cut(column, point, side) for side in (1.0, -1.0)]), alive

    def gain(
        self,
        search: BackwardPass,
        columns: Columns,
        clauses: Clauses,
        parents: Parts,
        column: Tensor,
        point: Tensor,
        goal: float,
    ) -> Tensor:
        """The product of both children's gains, each counted up to the goal; (batch,)."""
        both = joined([parents.cut(column, point, side) for side in (1.0, -1.0)])
        both = replace(both, value=torch.full_like(both.value, -torch.inf))
        value = climbed(search, columns, clauses, both, goal, ONCE)[0].value.view(2, -1)
        room = (goal - parents.value).clamp(min=1e-9)
        gain = ((value - parents.value) / room).clamp(max=1.0)
        low, high = gain.amin(dim=0), gain.amax(dim=0)
        return torch.where(low > 0, low * high + 1e-3 * low, low) + 1e-2 * high
