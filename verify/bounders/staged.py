"""Staged: a small network as stages, each nonlinear in one affine image of the stages before it.

All that lies between two nonlinear nodes is multiplied out once, for the root box: additions,
selections, constants computed from constants. What is left is a vector v, the inputs and then the
outputs of every nonlinear node, and for each of these its own inputs W·v + b. A row is pulled back
stage by stage, by few and small products.

What executing the affine nodes in between may be off by is worked out here once too, over the root
box, which bounds it on all of its parts:

    |executed - (W·v + b)| <= off        for the executed v, all within the root's bounds.

An affine node y = L·x + c on images x = W·v + b of error e gives L·W, L·b + c, and the error
|L|·e + (what `noise_of` charges the execution) + (our own product's rounding, against |L|·|W|·|v|).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.elementwise import pull_back_lines
from verify.ops.registry import lookup, noise_of
from verify.values.bounds import Bounds
from verify.values.rounding import SPARE, UNIT_FLOAT64, Rounding, gamma

CONSTANTS = ("bias", "shift", "value")
"""Names of what an affine node adds."""
MOST_COLUMNS = 512
"""Up to so many entries of v: images are dense matrices over them."""
MOST_WEIGHTS = 2**18
"""Up to so many entries of all images that stages read."""
OUTWARD = SPARE[torch.float32]
"""Widening that pays for rounding sums of errors, by far."""


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """W·v + b, up to an error; float64, entries flat.

    Attributes:
        weight: shape (entries, columns).
        bias: shape (entries,).
        off: how far the executed value may be from it, (entries,).
        size: at least |W|·|v| + |b| of what it was computed from, (entries,).
    """

    weight: Tensor
    bias: Tensor
    off: Tensor
    size: Tensor

    @property
    def constant(self) -> bool:
        """Whether it depends on nothing."""
        return not bool(self.weight.any())


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The columns of an image that belong to one stage, or to the inputs.

    Attributes:
        stage: number of the stage, -1 for the inputs.
        weight: shape (entries, columns of that stage).
    """

    stage: int
    weight: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """An image as a pass reads it.

    Attributes:
        source: name of the node whose image it is; stages that read one node share its bounds.
        pieces: the parts of the weight that are not 0.
        bias: shape (entries,).
        off: see `Image`.
        size: at least |W|·V + |b| with V the largest |v| over the root, (entries,).
    """

    source: str
    pieces: tuple[Piece, ...]
    bias: Tensor
    off: Tensor
    size: Tensor

    @property
    def direct(self) -> bool:
        """Whether it is over the inputs alone, where intervals are exact."""
        return all(piece.stage < 0 for piece in self.pieces)


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One nonlinear node.

    Attributes:
        node: whose rules draw its lines.
        reads: its inputs.
        kernel: how far executing it on its executed inputs may be off, (entries,).
    """

    node: Node
    reads: tuple[Read, ...]
    kernel: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """A network as stages.

    Attributes:
        stages: in order.
        goal: the rows that are asked for.
        largest: V of the inputs: the largest |x| over the root, (inputs,).
        own: relative rounding of a pass, against the sum of all |terms| of a row (see `own_of`).
    """

    stages: tuple[Stage, ...]
    goal: Read
    largest: Tensor
    own: float


class Unstaged(Exception):
    """The network has something that stages cannot hold."""


def may_be_staged(graph: Graph) -> bool:
    """Whether a network is small enough, and its nonlinear operators are known."""
    nonlinear = [node for node in graph.nodes[1:] if lookup(node).relax is not None]
    columns = graph.input.size + sum(node.size for node in nonlinear)
    return columns <= MOST_COLUMNS and all(
        node.op in ("Mul", "MatMul")
        or (len(node.inputs) == 1 and lookup(node).pull_back is pull_back_lines)
        for node in nonlinear
    )


def staged(
    graph: Graph, bounds: dict[str, Bounds], rows: Tensor, offsets: Tensor, rounding: Rounding
) -> Staged | None:
    """The network as stages, or None where it is too large, or holds other operators.

    Args:
        graph: float64.
        bounds: of every node over the root box, for every execution; a batch of one.
        rows: of the goal, shape (row, out).
        offsets: shape (row,).
        rounding: which executions errors are to hold for.
    """
    if not may_be_staged(graph):
        return None
    columns = graph.input.size + sum(n.size for n in graph.nodes[1:] if lookup(n).relax is not None)
    try:
        return Builder(graph, bounds, rounding, columns).build(rows, offsets)
    except Unstaged:
        return None


class Builder:
    """Images of nodes, in graph order."""

    def __init__(
        self, graph: Graph, bounds: dict[str, Bounds], rounding: Rounding, columns: int
    ) -> None:
        """Start with the inputs, which are the first columns."""
        self.graph, self.bounds, self.rounding, self.columns = graph, bounds, rounding, columns
        self.stages: list[Stage] = []
        self.ends = [graph.input.size]
        self.images: dict[str, Image] = {}
        self.reads: dict[str, Read] = {}
        self.weights = 0
        self.reach = torch.zeros(columns, dtype=torch.float64)
        self.images[graph.input.name] = self.unit_image(graph.input, 0)

    def unit_image(self, node: Node, first: int) -> Image:
        """The columns of v that a node itself is."""
        eye = torch.zeros(node.size, self.columns, dtype=torch.float64)
        place = torch.arange(node.size)
        eye[place, first + place] = 1.0
        reach = self.bounds[node.name].magnitude()[0].flatten()
        if not bool(torch.isfinite(reach).all()):
            raise Unstaged
        self.reach[first : first + node.size] = reach
        zero = torch.zeros(node.size, dtype=torch.float64)
        return Image(eye, zero, zero, reach)

    def build(self, rows: Tensor, offsets: Tensor) -> Staged:
        """All nodes, then the rows; raises Unstaged."""
        for node in self.graph.nodes[1:]:
            self.images[node.name] = self.image(node)
        output = self.images[self.graph.output.name]
        goal = self.combined(output, rows, offsets)
        read = self.read("", goal)
        total = self.columns + sum(len(s.kernel) for s in self.stages)
        own = own_of(total + len(offsets), len(self.stages))
        return Staged(tuple(self.stages), read, self.reach[: self.ends[0]], own)

    def image(self, node: Node) -> Image:
        """Of one node; a nonlinear one becomes a stage."""
        images = [self.images[name] for name in node.inputs]
        if lookup(node).relax is None:
            return self.through(node, images)
        if node.op == "MatMul":
            return self.product(node, *images)
        if node.op == "Mul" and any(image.constant for image in images):
            return self.scaled(node, *images)
        if images[0].constant and len(images) == 1:
            return self.valued(node)
        kernel = self.noise(node)
        if kernel is None:
            kernel = torch.zeros(node.size, dtype=torch.float64)
        reads = tuple(self.read(name, self.images[name]) for name in node.inputs)
        self.stages.append(Stage(node, reads, kernel * OUTWARD))
        first = self.ends[-1]
        self.ends.append(first + node.size)
        return self.unit_image(node, first)

    def noise(self, node: Node) -> Tensor | None:
        """What executing a node on executed inputs may be off by; raises Unstaged if infinite."""
        inputs = tuple(self.bounds[name] for name in node.inputs)
        found = noise_of(node, self.rounding, torch.float64, inputs)
        if found is None:
            return None
        if not bool(torch.isfinite(found).all()):
            raise Unstaged
        return found.expand(1, *node.shape)[0].flatten()

    def through(self, node: Node, images: Sequence[Image]) -> Image:
        """An affine node; movements have no |W| of their own, being it."""
        op = lookup(node)
        cleared = {n: torch.zeros_like(t) for n, t in node.tensors.items() if n in CONSTANTS}
        linear = replace(node, tensors={**node.tensors, **cleared})
        absolute = op.absolute or (lambda _node, *xs: op.forward(linear, *xs))
        shapes = node.input_shapes

        def shaped(parts: list[Tensor]) -> list[Tensor]:
            return [p.reshape(-1, *shape) for p, shape in zip(parts, shapes, strict=True)]

        def flat(found: Tensor) -> Tensor:
            return found.reshape(len(found), -1)

        weight = flat(op.forward(linear, *shaped([image.weight.T for image in images]))).T
        bias = flat(op.forward(node, *shaped([image.bias[None] for image in images])))[0]
        zeros = shaped([torch.zeros_like(image.bias)[None] for image in images])
        added = flat(op.forward(node, *zeros))[0].abs()
        size = flat(absolute(node, *shaped([image.size[None] for image in images])))[0] + added
        off = flat(absolute(node, *shaped([image.off[None] for image in images])))[0]
        terms = 1 if op.fan is None else max(op.fan(node))
        off = off + 4 * gamma(terms + len(images) + 16, UNIT_FLOAT64) * size
        noise = self.noise(node)
        if noise is not None:
            off = off + noise
        return Image(weight.contiguous(), bias, off * OUTWARD, size * OUTWARD)

    def valued(self, node: Node) -> Image:
        """A function of a constant: the middle of its bounds, and half their width."""
        bounds = self.bounds[node.name]
        middle = ((bounds.lower + bounds.upper) / 2)[0].flatten()
        size = bounds.magnitude()[0].flatten()
        off = ((bounds.upper - bounds.lower) / 2)[0].flatten() + 4 * UNIT_FLOAT64 * size
        weight = torch.zeros(node.size, self.columns, dtype=torch.float64)
        return Image(weight, middle, off * OUTWARD, size * OUTWARD)

    def scaled(self, node: Node, first: Image, second: Image) -> Image:
        """A product entry by entry of which one factor is constant: affine in the other."""
        fixed, other = (first, second) if first.constant else (second, first)
        size = fixed.size * other.size
        off = (fixed.size + fixed.off) * other.off + fixed.off * other.size
        off = off + 8 * UNIT_FLOAT64 * size
        noise = self.noise(node)
        if noise is not None:
            off = off + noise
        weight = fixed.bias[:, None] * other.weight
        return Image(weight, fixed.bias * other.bias, off * OUTWARD, size * OUTWARD)

    def product(self, node: Node, first: Image, second: Image) -> Image:
        """A product of matrices of which one is constant: affine in the other."""
        if not first.constant and not second.constant:
            raise Unstaged
        shapes = node.input_shapes
        x, y = (
            (i.bias.view(s), i.off.view(s), i.size.view(s))
            for i, s in zip((first, second), shapes, strict=True)
        )
        bias = (x[0] @ y[0]).flatten()
        size = (x[2] @ y[2]).flatten()
        off = ((x[2] + x[1]) @ y[1] + x[1] @ y[2]).flatten()
        if first.constant:
            other = second.weight.T.reshape(-1, *shapes[1])
            weight = (x[0] @ other).reshape(self.columns, -1).T
        else:
            other = first.weight.T.reshape(-1, *shapes[0])
            weight = (other @ y[0]).reshape(self.columns, -1).T
        off = off + 4 * gamma(shapes[0][-1] + 16, UNIT_FLOAT64) * size
        noise = self.noise(node)
        if noise is not None:
            off = off + noise
        return Image(weight.contiguous(), bias, off * OUTWARD, size * OUTWARD)

    def combined(self, image: Image, rows: Tensor, offsets: Tensor) -> Image:
        """Rows of an image, exact numbers, as an image."""
        size = rows.abs() @ image.size + offsets.abs()
        off = rows.abs() @ image.off + 4 * gamma(rows.shape[1] + 16, UNIT_FLOAT64) * size
        return Image(
            rows @ image.weight, rows @ image.bias + offsets, off * OUTWARD, size * OUTWARD
        )

    def read(self, source: str, image: Image) -> Read:
        """An image cut into the columns of each stage; raises Unstaged where it grows too large."""
        if source in self.reads:
            return self.reads[source]
        pieces = []
        begin = 0
        for number, end in enumerate(self.ends):
            part = image.weight[:, begin:end]
            if bool(part.any()):
                pieces.append(Piece(number - 1, part.contiguous()))
                self.weights += part.numel()
            begin = end
        if self.weights > MOST_WEIGHTS:
            raise Unstaged
        if not all(bool(torch.isfinite(t).all()) for t in (image.weight, image.bias, image.off)):
            raise Unstaged
        size = (image.weight.abs() @ self.reach + image.bias.abs()) * OUTWARD
        found = Read(source, tuple(pieces), image.bias, image.off, size)
        if source:
            self.reads[source] = found
        return found


def own_of(columns: int, stages: int) -> float:
    """What float64 may cost a row that is pulled back, relative to the sum T of all its |terms|.

    At each of at most `stages` steps, coefficients A' = A + A_z·W are computed within
    gamma_{m+4}·(|A| + |A_z|·|W|) for m entries of a stage, and the slopes' products within u·|A_z|;
    times |v| that is at most gamma_{m+5} of T, since |A|·V of any step is at most the terms summed
    before it. Constants are sums of terms of T. So the whole is below stages·gamma·T; four times
    that is charged, for the charge's own rounding too.
    """
    return 4 * (stages + 2) * gamma(columns + 64, UNIT_FLOAT64)
