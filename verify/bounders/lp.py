"""Lp: the triangle relaxation of a network as a sparse linear program, for HiGHS.

Columns are the inputs, then per kinked node its input z for every neuron that is not identically
zero, and its output h for every neuron whose sign is open. Each z has one equality row, so that a
split, or a tighter bound, changes bounds and one coefficient and never the matrix's pattern.

    convex kink (Relu):  h >= below·z,  h >= above·z,  h <= chord;  concave: the other way round.

The program is about the real-valued network. Nothing that it says is believed: its dual values go
through `verify.bounders.multipliers`, and its points through the model's own runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.bounders.multipliers import KINKED, slopes_of
from verify.errors import UnsupportedOperator
from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm

Vector = NDArray[np.float64]
Index = NDArray[np.int64]
CHUNK_ROWS = 512
"""Rows pulled back at once through the affine nodes between two kinks."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The columns and rows of one kinked node.

    Attributes:
        name, source: of the node and of its input.
        kept: flat indices of the neurons that have a column z.
        open_: which of the kept have a column h, as positions among the kept.
        first_z, first_h: where the columns start; z rows start at `first_row`.
        first_chord: where the chord rows of the open neurons start.
        below, above: slopes of the open neurons.
        lower, upper: bounds of the open neurons' z over the whole region.
    """

    name: str
    source: str
    kept: Index
    open_: Index
    first_z: int
    first_h: int
    first_row: int
    first_chord: int
    below: Vector
    above: Vector
    lower: Vector
    upper: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Minimise an objective row over low <= matrix·c <= high, lower <= c <= upper.

    Attributes:
        layers: of the kinked nodes, in graph order.
        inputs: how many columns are inputs; they come first.
        objectives, offsets: of the output rows, or of the largest of them.
        matrix, low, high: the rows.
        lower, upper: of the columns.
        first_unsafe: the first of the rows `output row - t <= -const`, where there are several.
        first_input: the first of the rows that tie inputs together.
    """

    layers: tuple[Layer, ...]
    inputs: int
    objectives: sp.csr_matrix
    offsets: Vector
    matrix: sp.csr_matrix
    low: Vector
    high: Vector
    lower: Vector
    upper: Vector
    first_unsafe: int | None
    first_input: int

    @property
    def open_count(self) -> int:
        """How many neurons can be split."""
        return sum(len(layer.open_) for layer in self.layers)


def anchored(graph: Graph, start: str, coeff: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Rows over a node as rows over the kinked nodes and the input below it, and their constants.

    Args:
        graph: whose nonlinear operators are all kinked.
        start: name of the node.
        coeff: shape (row, *start), float64.
    """
    pending = {start: LinearForm(coeff[None], torch.zeros(1, len(coeff), dtype=torch.float64))}
    found: dict[str, Tensor] = {}
    const = torch.zeros(len(coeff), dtype=torch.float64)
    for node in reversed(graph.nodes):
        if node.name not in pending:
            continue
        here = pending.pop(node.name)
        if node.op in KINKED or not node.inputs:
            found[node.name] = here.coeff[0].flatten(1)
            const = const + here.const[0]
            continue
        op = lookup(node)
        if op.relax is not None:
            raise UnsupportedOperator(
                f"node {node.name!r} ({node.op}) is neither linear nor linear on either side of 0; "
                "linear programs are written for Relu, LeakyRelu and Abs only"
            )
        for name, piece in zip(node.inputs, op.pull_back(node, here, None), strict=True):
            if name in pending:
                old = pending[name]
                piece = LinearForm(old.coeff + piece.coeff, old.const + piece.const)
            pending[name] = piece
    return found, const


class Builder:
    """Columns and rows as they come."""

    def __init__(self, graph: Graph, bounds: Mapping[str, Bounds]) -> None:
        """Start with the input's columns."""
        self.graph, self.bounds = graph, bounds
        box = bounds[graph.input.name]
        self.lower = [box.lower.flatten().numpy()]
        self.upper = [box.upper.flatten().numpy()]
        self.columns = graph.input.size
        self.rows = 0
        self.blocks: list[sp.csr_matrix] = []
        self.low: list[Vector] = []
        self.high: list[Vector] = []
        # Per anchor: what its entries are in terms of columns, a sparse (entries, columns) matrix.
        self.values = {graph.input.name: sp.identity(graph.input.size, format="csr")}

    def widen(self, block: sp.csr_matrix) -> sp.csr_matrix:
        """A block made when there were fewer columns."""
        return sp.csr_matrix(
            (block.data, block.indices, block.indptr), shape=(block.shape[0], self.columns)
        )

    def add_columns(self, lower: Vector, upper: Vector) -> int:
        """New columns; returns the first."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.columns += len(lower)
        return self.columns - len(lower)

    def add_rows(self, block: sp.csr_matrix, low: Vector, high: Vector) -> int:
        """New rows; returns the first."""
        self.blocks.append(block)
        self.low.append(low)
        self.high.append(high)
        self.rows += len(low)
        return self.rows - len(low)

    def over_columns(self, start: str, coeff: Tensor) -> tuple[sp.csr_matrix, Vector]:
        """Rows over a node as rows over columns, and their constants."""
        parts, consts = [], []
        for first in range(0, max(1, len(coeff)), CHUNK_ROWS):
            found, const = anchored(self.graph, start, coeff[first : first + CHUNK_ROWS])
            whole = sp.csr_matrix((len(const), self.columns))
            for name, dense in found.items():
                whole = whole + sp.csr_matrix(dense.numpy()) @ self.widen(self.values[name])
            parts.append(whole)
            consts.append(const.numpy())
        return sp.vstack(parts, format="csr"), np.concatenate(consts)

    def add_kink(self, node: Node) -> Layer:
        """Columns and rows of one kinked node."""
        (source,) = node.inputs
        lower = self.bounds[source].lower[0].flatten().numpy()
        upper = self.bounds[source].upper[0].flatten().numpy()
        below, above = (s.expand(node.shape).flatten().numpy() for s in slopes_of(node))
        zero = ((upper <= 0) & (below == 0)) | ((lower >= 0) & (above == 0))
        kept = np.flatnonzero(~zero)
        open_ = np.flatnonzero((lower[kept] < 0) & (upper[kept] > 0))
        first_z = self.add_columns(lower[kept], upper[kept])
        one_hot = torch.zeros(len(kept), node.size, dtype=torch.float64)
        one_hot[torch.arange(len(kept)), torch.from_numpy(kept)] = 1.0
        shape = self.graph.node(source).shape
        rows, const = self.over_columns(source, one_hot.view(len(kept), *shape))
        unit = sp.csr_matrix(
            (np.ones(len(kept)), (np.arange(len(kept)), first_z + np.arange(len(kept)))),
            shape=(len(kept), self.columns),
        )
        first_row = self.add_rows(unit - rows, const, const)
        chosen = kept[open_]
        low, high = lower[chosen], upper[chosen]
        below, above = below[chosen], above[chosen]
        floor = 0.0 if node.op == "Relu" else -np.inf
        first_h = self.add_columns(np.full(len(chosen), floor), np.full(len(chosen), np.inf))
        first_chord = self.add_triangles(first_z + open_, first_h, below, above, low, high)
        self.place(node, kept, open_, first_z, first_h, lower, upper)
        return Layer(
            node.name, source, kept, open_, first_z, first_h, first_row, first_chord,
            below, above, low, high,
        )  # fmt: skip

    def add_triangles(
        self, z: Index, first_h: int, below: Vector, above: Vector, low: Vector, high: Vector
    ) -> int:
        """Two sides and a chord per open neuron; returns the first chord row.

        Where `below` is 0 everywhere, the node is a Relu.
        """
        count = len(z)
        place = np.arange(count)
        convex = above >= below
        sides = ((below, convex), (above, convex))
        for slope, over in sides:
            if not slope.any():
                continue  # h >= 0 is a bound of the column
            self.add_rows(
                self.pairs(first_h + place, z, -slope),
                np.where(over, 0.0, -np.inf),
                np.where(over, np.inf, 0.0),
            )
        slope, offset = chord(below, above, low, high)
        return self.add_rows(
            self.pairs(first_h + place, z, -slope),
            np.where(convex, -np.inf, offset),
            np.where(convex, offset, np.inf),
        )

    def pairs(self, ones: Index, others: Index, weights: Vector) -> sp.csr_matrix:
        """Rows with a 1 and one other entry, which is stored even where it is 0."""
        count = len(ones)
        columns = np.stack([others, ones], axis=1).reshape(-1)
        data = np.stack([weights, np.ones(count)], axis=1).reshape(-1)
        pointer = np.arange(0, 2 * count + 1, 2)
        return sp.csr_matrix((data, columns, pointer), shape=(count, self.columns))

    def place(
        self,
        node: Node,
        kept: Index,
        open_: Index,
        first_z: int,
        first_h: int,
        lower: Vector,
        upper: Vector,
    ) -> None:
        """Note what the node's outputs are in terms of columns."""
        below, above = (s.expand(node.shape).flatten().numpy() for s in slopes_of(node))
        is_open = np.zeros(len(kept), dtype=bool)
        is_open[open_] = True
        weight = np.where(is_open, 1.0, np.where(lower[kept] >= 0, above[kept], below[kept]))
        column = first_z + np.arange(len(kept))
        column[open_] = first_h + np.arange(len(open_))
        self.values[node.name] = sp.csr_matrix(
            (weight, (kept, column)), shape=(node.size, self.columns)
        )


def chord(below: Vector, above: Vector, low: Vector, high: Vector) -> tuple[Vector, Vector]:
    """Slope and offset of the line through (low, f(low)) and (high, f(high))."""
    slope = (above * high - below * low) / (high - low)
    return slope, below * low - slope * low


def program(
    graph: Graph,
    bounds: Mapping[str, Bounds],
    coeff: Tensor,
    const: Tensor,
    *,
    inputs: tuple[Tensor, Tensor] | None = None,
    joint: bool = True,
) -> Program:
    """The relaxation, with rows over the output to minimise.

    Args:
        graph: float64, whose nonlinear nodes are kinked.
        bounds: of every node, shape (1, *node).
        coeff, const: rows over the output, shapes (row, *out) and (row,).
        inputs: coefficients (constraint, input) and constants of g·x + h <= 0, or None.
        joint: whether the largest of the rows is minimised; else each row is an objective.
    """
    builder = Builder(graph, bounds)
    layers = tuple(builder.add_kink(node) for node in graph.nodes if node.op in KINKED)
    rows, shift = builder.over_columns(graph.output.name, coeff.view(-1, *graph.output.shape))
    shift = shift + const.numpy()
    first_unsafe = None
    if joint and len(coeff) > 1:
        top = builder.add_columns(np.array([-np.inf]), np.array([np.inf]))
        last = sp.csr_matrix(np.full((len(coeff), 1), -1.0))
        block = sp.hstack([rows, last], format="csr")
        first_unsafe = builder.add_rows(block, np.full(len(coeff), -np.inf), -shift)
        rows = sp.csr_matrix(([1.0], ([0], [top])), shape=(1, builder.columns))
        shift = np.zeros(1)
    first_input = builder.rows
    if inputs is not None and len(inputs[0]):
        block = sp.csr_matrix(inputs[0].numpy())
        builder.add_rows(block, np.full(len(inputs[1]), -np.inf), -inputs[1].numpy())
    return Program(
        layers=layers,
        inputs=graph.input.size,
        objectives=builder.widen(rows),
        offsets=shift,
        matrix=sp.vstack([builder.widen(block) for block in builder.blocks], format="csr"),
        low=np.concatenate(builder.low),
        high=np.concatenate(builder.high),
        lower=np.concatenate(builder.lower),
        upper=np.concatenate(builder.upper),
        first_unsafe=first_unsafe,
        first_input=first_input,
    )
