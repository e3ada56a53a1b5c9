"""Domains: many sub-problems of one network side by side, and what they share.

A domain is the region under splits: some neurons' pre-activations are known to be >= 0 or <= 0. All
domains of a frame share the network, the box and the bounds of the neurons; what differs fits in a
few rows of numbers each, so thousands are bounded in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.cuts import Cuts
from verify.graph.ir import Graph, Node
from verify.values.bounds import Bounds
from verify.values.region import Box
from verify.values.relaxation import Relaxation

SPARSE_SHARE = 0.4
"""A Relu of which fewer neurons than this are open is worked on by those alone; gathering them
costs as much as a few elementwise operations on all."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A Relu whose neurons may be split.

    Attributes:
        name, source: the node and its input.
        shape: of the node.
        columns: flat indices of the neurons that have a column, or None if all have.
        first, last: their columns among those of all layers.
        fixed: slopes of all neurons, 1 or 0 where the sign is known, shape (size,).
    """

    name: str
    source: str
    shape: tuple[int, ...]
    columns: Tensor | None
    first: int
    last: int
    fixed: Tensor

    @property
    def size(self) -> int:
        """Neurons of the layer."""
        return len(self.fixed)

    def pick(self, values: Tensor) -> Tensor:
        """The columns of values over the node: (batch, ...) -> (batch, columns)."""
        flat = values.flatten(1)
        return flat if self.columns is None else flat.index_select(1, self.columns)

    def of(self, values: Tensor) -> Tensor:
        """This layer's part of something over all columns."""
        return values[:, self.first : self.last]

    def laid(self, values: Tensor) -> Tensor:
        """Columns laid into zeros over the node, (batch, size)."""
        if self.columns is None:
            return values
        return values.new_zeros(len(values), self.size).index_copy_(1, self.columns, values)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What the domains of a batch share, in the arithmetic of the search.

    Attributes:
        graph: the network, pruned.
        region: the box of inputs, a batch of one.
        layers: the Relus, in graph order.
        lower, upper: bounds of the columns' pre-activations, shape (columns,).
        lines: of the other nonlinear nodes, a batch of one.
        bias: of the affine step before each column; what scores of neurons need.
        cuts: what closed domains of this frame say of the others, or None.
    """

    graph: Graph
    region: Box
    layers: tuple[Layer, ...]
    lower: Tensor
    upper: Tensor
    lines: Mapping[str, Relaxation]
    bias: Tensor
    cuts: Cuts | None = None

    @property
    def columns(self) -> int:
        """Columns of all layers."""
        return len(self.lower)

    def open(self) -> Tensor:
        """Which columns' signs the bounds leave open; bool, (columns,)."""
        return (self.lower < 0) & (self.upper > 0)


def frame_of(
    proof: BackwardPass,
    lines: Mapping[str, Relaxation],
    dtype: torch.dtype = torch.float32,
    kept: Mapping[str, Tensor] | None = None,
) -> Frame:
    """The frame of a pass that has visited every node.

    Args:
        proof: bounds of all nodes, a batch of one.
        lines: what to use at nonlinear nodes that are no Relu.
        dtype: arithmetic of the search.
        kept: neurons that need a column though their sign is known, flat masks by layer.
    """
    graph = proof.graph.to(dtype)
    layers, lower, upper, bias = [], [], [], []
    first = 0
    for node in proof.graph.nodes:
        if node.op != "Relu":
            continue
        bounds = proof.bounds[node.inputs[0]]
        low, high = bounds.lower.flatten(), bounds.upper.flatten()
        open_ = (low < 0) & (high > 0)
        if kept is not None and node.name in kept:
            open_ = open_ | kept[node.name]
        columns = None
        if int(open_.sum()) < SPARSE_SHARE * len(open_):
            columns = open_.nonzero().flatten()
        picked = slice(None) if columns is None else columns
        last = first + len(low[picked])
        fixed = (low >= 0).to(dtype)
        layers.append(Layer(node.name, node.inputs[0], node.shape, columns, first, last, fixed))
        lower.append(low[picked])
        upper.append(high[picked])
        bias.append(bias_before(proof.graph, node.inputs[0]).flatten()[picked])
        first = last
    region = proof.region.to(dtype)
    assert isinstance(region, Box)
    empty = [torch.zeros(0, dtype=torch.float64)]
    return Frame(
        graph,
        region,
        tuple(layers),
        torch.cat(lower or empty).to(dtype),
        torch.cat(upper or empty).to(dtype),
        {name: line.to(dtype) for name, line in lines.items()},
        torch.cat(bias or empty).to(dtype),
    )


def bias_before(graph: Graph, name: str) -> Tensor:
    """The constant that the affine steps right before a node add, shape (*node)."""
    node: Node = graph.node(name)
    if node.op == "Add":
        total = torch.zeros(node.shape, dtype=graph.dtype)
        for source, sign in zip(node.inputs, node.settings["signs"], strict=True):
            total = total + sign * bias_before(graph, source)
        return total
    bias = node.tensors.get("bias")
    if bias is None:
        return torch.zeros(node.shape, dtype=graph.dtype)
    if node.op == "Conv":
        bias = bias.view(-1, *[1] * (len(node.shape) - 1))
    return bias.expand(node.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Domains:
    """A batch of domains; every tensor's first axis is the domain.

    Attributes:
        clause: which clause each is about, int64, (batch,).
        weight: multipliers >= 0 of the clause's rows, (batch, row).
        slots: columns that were split, int64, (batch, depth); the number of columns (one too many)
            where a domain has fewer splits.
        sign: +1 where the split says >= 0, -1 where <= 0, 0 in unused slots; (batch, depth).
        beta: multipliers >= 0 of the splits, (batch, depth).
        scale: the size of steps that suits each multiplier, (batch, depth).
        alpha: slopes of the lower lines, (batch, columns).
        value: lower bound, (batch,).
        picks: columns that are worth a split, the best first, int64, (batch, picks); one too many
            where there is none.
        pulls: |coefficient| of each pick, (batch, picks).
        target: a column whose pre-activation is bounded too, int64, (batch,); one too many for
            none.
        push: its coefficient: what is bounded is push·z[target] + weight·rows. Then weights are
            free multipliers of "all rows are <= 0" and need not sum to 1. 0 for none.
        cut: multipliers >= 0 of the frame's first cuts, (batch, cuts); those of later ones are 0.
    """

    clause: Tensor
    weight: Tensor
    slots: Tensor
    sign: Tensor
    beta: Tensor
    scale: Tensor
    alpha: Tensor
    value: Tensor
    picks: Tensor
    pulls: Tensor
    target: Tensor
    push: Tensor
    cut: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: Tensor) -> Domains:
        """Some of the batch, by index or mask."""
        return Domains(*(getattr(self, part.name)[rows] for part in fields(self)))

    def split(self, column: Tensor, sign: float, scale: Tensor, blank: int) -> Domains:
        """Each domain under one more split.

        Args:
            column: to split in each domain, int64, (batch,).
            sign: +1 for >= 0, -1 for <= 0.
            scale: of the new multiplier's steps, (batch,).
            blank: what unused slots hold.
        """
        depth = int((self.sign != 0).sum(dim=1).max()) if self.sign.numel() else 0
        where = (self.sign != 0).sum(dim=1, keepdim=True)

        def with_(old: Tensor, new: Tensor, fill: float) -> Tensor:
            wide = old.new_full((len(old), depth + 1), fill)
            wide[:, : min(depth, old.shape[1])] = old[:, :depth]
            return wide.scatter(1, where, new[:, None])

        signs = self.sign.new_full((len(self),), sign)
        return Domains(
            self.clause,
            self.weight,
            with_(self.slots, column, blank),
            with_(self.sign, signs, 0.0),
            with_(self.beta, torch.zeros_like(signs), 0.0),
            with_(self.scale, scale, 1.0),
            self.alpha,
            self.value,
            self.picks,
            self.pulls,
            self.target,
            self.push,
            self.cut,
        )


def joined(parts: Sequence[Domains], blank: int) -> Domains:
    """Several batches as one; slots are filled up to the deepest."""
    fill = {"slots": blank, "sign": 0, "beta": 0, "scale": 1, "cut": 0}

    def column(name: str) -> Tensor:
        pieces = [getattr(part, name) for part in parts]
        if name in fill:
            depth = max(piece.shape[1] for piece in pieces)
            pieces = [
                torch.nn.functional.pad(p, (0, depth - p.shape[1]), value=fill[name])
                for p in pieces
            ]
        return torch.cat(pieces)

    return Domains(*(column(part.name) for part in fields(Domains)))


def bounds_under(frame_bounds: Bounds, layer: Layer, domains: Domains) -> Bounds:
    """Bounds of a layer's pre-activations under each domain's splits, (batch, *node).

    Args:
        frame_bounds: without splits, a batch of one; in the arithmetic to answer in.
        layer: the Relu.
        domains: with signs; a split z >= 0 lifts the lower bound to 0, z <= 0 lowers the upper.
    """
    batch = len(domains)
    lower = frame_bounds.lower.flatten(1).expand(batch, -1).clone()
    upper = frame_bounds.upper.flatten(1).expand(batch, -1).clone()
    here = (domains.slots >= layer.first) & (domains.slots < layer.last) & (domains.sign != 0)
    row, slot = here.nonzero(as_tuple=True)
    if len(row):
        column = domains.slots[row, slot] - layer.first
        entry = column if layer.columns is None else layer.columns[column]
        positive = domains.sign[row, slot] > 0
        lower[row[positive], entry[positive]] = lower[row[positive], entry[positive]].clamp(min=0)
        upper[row[~positive], entry[~positive]] = upper[row[~positive], entry[~positive]].clamp(
            max=0
        )
    shape = (batch, *layer.shape)
    return Bounds(lower.view(shape), upper.view(shape))
