"""Parts: sub-problems of one network in which entries of nonlinear nodes' inputs end at points.

A part knows bounds of those entries: the root's, or a point where one was cut in two, z >= p in one
child and z <= p in the other, both closed at p, so that every execution is in one of them. What
follows for entries above is found by interval arithmetic; lines are drawn anew over the part's
bounds, and every cut has a multiplier (`verify.bounders.point_climb`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.values.bounds import Bounds


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The entries that may be cut: of every input of a nonlinear node, side by side.

    Attributes:
        first: the first column of each such node.
        shapes: theirs.
        count: of all columns.
    """

    first: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    count: int

    def of(self, name: str, values: Tensor) -> Tensor:
        """A node's part of something over all columns, (batch, columns) -> (batch, *node)."""
        shape = self.shapes[name]
        first = self.first[name]
        size = int(torch.Size(shape).numel())
        return values[:, first : first + size].reshape(len(values), *shape)

    def laid(self, found: Mapping[str, Tensor], like: Tensor, batch: int) -> Tensor:
        """Values of nodes side by side, 0 where a node has none; (batch, columns)."""
        parts = [
            found[name].expand(batch, *shape).flatten(1)
            if name in found
            else like.new_zeros(batch, int(torch.Size(shape).numel()))
            for name, shape in self.shapes.items()
        ]
        return torch.cat(parts, dim=1) if parts else like.new_zeros(batch, 0)


def columns_of(graph: Graph) -> Columns:
    """The inputs of all nonlinear nodes, in graph order."""
    first: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    count = 0
    for node in graph.nodes[1:]:
        if lookup(node).relax is None:
            continue
        for name, shape in zip(node.inputs, node.input_shapes, strict=True):
            if name not in first:
                first[name], shapes[name] = count, shape
                count += int(torch.Size(shape).numel())
    return Columns(first, shapes, count)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A batch of parts; every tensor's first axis is the part, of slopes the second.

    Attributes:
        clause: which clause each is about, int64, (batch,).
        weight: multipliers >= 0 of the clause's rows, (batch, row).
        low, high: bounds of the columns, float64, (batch, columns).
        slots: columns that were cut, int64, (batch, depth); -1 where a part has fewer cuts.
        side: +1 where the part is above the point, -1 below, 0 in unused slots.
        point: where they were cut, float64 holding float32 numbers.
        beta: multipliers >= 0.
        value: lower bound, (batch,).
        alpha: slopes of free nodes, (free, batch, 1, *node).
    """

    clause: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    slots: Tensor
    side: Tensor
    point: Tensor
    beta: Tensor
    value: Tensor
    alpha: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: Tensor) -> Parts:
        """Some of the batch, by index."""
        rest = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "alpha"}
        return Parts(**rest, alpha={name: a[:, rows] for name, a in self.alpha.items()})

    def cut(self, column: Tensor, point: Tensor, side: float) -> Parts:
        """One child of every part.

        Args:
            column: what to cut, int64, (batch,).
            point: where, (batch,).
            side: +1 for z >= point, -1 for z <= point.
        """
        index, at = column[:, None], point[:, None]
        low, high = self.low, self.high
        if side > 0:
            low = low.scatter(1, index, torch.maximum(low.gather(1, index), at))
        else:
            high = high.scatter(1, index, torch.minimum(high.gather(1, index), at))
        signs = torch.full_like(at, side)
        return replace(
            self,
            low=low,
            high=high,
            slots=torch.cat((self.slots, index), dim=1),
            side=torch.cat((self.side, signs), dim=1),
            point=torch.cat((self.point, at), dim=1),
            beta=torch.cat((self.beta, torch.zeros_like(at, dtype=self.beta.dtype)), dim=1),
        )


def joined(parts: Sequence[Parts]) -> Parts:
    """Several batches as one, slots filled up to the deepest."""
    depth = max(part.slots.shape[1] for part in parts)
    fill = {"slots": -1, "side": 0, "point": 0, "beta": 0}

    def column(name: str) -> Tensor:
        pieces = [getattr(part, name) for part in parts]
        if name in fill:
            pieces = [
                torch.nn.functional.pad(p, (0, depth - p.shape[1]), value=fill[name])
                for p in pieces
            ]
        return torch.cat(pieces)

    rest = {f.name: column(f.name) for f in fields(Parts) if f.name != "alpha"}
    names = parts[0].alpha
    return Parts(
        **rest, alpha={name: torch.cat([p.alpha[name] for p in parts], dim=1) for name in names}
    )


def under(base: BackwardPass, columns: Columns, parts: Parts) -> tuple[BackwardPass, Tensor]:
    """A pass over a batch of parts: bounds, and lines of nodes without slopes to choose.

    Args:
        base: a pass that visited every node, a batch of one.
        columns: of its graph.
        parts: with bounds within the pass's.

    Returns:
        The pass, and which parts are empty, bool, (batch,). In float64 with rounding charged, no
        execution is in an empty part.
    """
    walk = copy.copy(base)
    walk.bounds, walk.lines, walk.noise, walk.sizes = {}, {}, {}, {}
    walk.raw, walk.exact, walk.asked = {}, {}, {}
    dtype = walk.graph.dtype
    empty = torch.zeros(len(parts), dtype=torch.bool)
    start = walk.graph.input.name
    for name in (start, *walk.names()):
        known = base.bounds[name]
        lower = known.lower.expand(len(parts), *known.lower.shape[1:])
        upper = known.upper.expand(len(parts), *known.upper.shape[1:])
        if name != start:
            node = walk.graph.node(name)
            walk.visit(name, lines=not lookup(node).free)
            lower = torch.maximum(lower, walk.bounds[name].lower)
            upper = torch.minimum(upper, walk.bounds[name].upper)
        if name in columns.first:
            lower = torch.maximum(lower, columns.of(name, parts.low).to(dtype))
            upper = torch.minimum(upper, columns.of(name, parts.high).to(dtype))
        empty = empty | (lower > upper).flatten(1).any(dim=1)
        walk.bounds[name] = Bounds(lower, torch.maximum(lower, upper))
    return walk, empty
