"""Pass: a batch of boxes on its way through the stages of a network; see `staged_planes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.staged import OUTWARD, Read, Stage, Staged
from verify.ops.curve import CURVES, quick_lines
from verify.ops.registry import lines_of, lookup, undecided_of
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.relaxation import Relaxation
from verify.values.rounding import UNIT_FLOAT64, gamma


@dataclass(frozen=True, slots=True, eq=False)
class Lined:
    """The lines of one stage on each box; float64, entries flat.

    Attributes:
        below, above: slopes in every input, (batch, row, entries); row is 1 if all rows share them.
            The same tensors where both sides have one slope.
        sunk, lifted: offsets, moved apart by what executing the stage may be off by, same shape.
    """

    below: tuple[Tensor, ...]
    above: tuple[Tensor, ...]
    sunk: Tensor
    lifted: Tensor

    def take(self, boxes: Tensor) -> Lined:
        """Those of some boxes."""
        below = tuple(slope[boxes] for slope in self.below)
        shared = self.below[0] is self.above[0]
        above = below if shared else tuple(slope[boxes] for slope in self.above)
        return Lined(below, above, self.sunk[boxes], self.lifted[boxes])


class Pass:
    """One batch.

    Attributes:
        middles, radii: of the inputs' bounds, then of each stage's outputs, (batch, entries).
        known: bounds of what stages read, by the name of the node.
        lined: lines of the stages that were entered.
    """

    def __init__(self, network: Staged, lower: Tensor, upper: Tensor, budget: Budget) -> None:
        """The boxes; their radius a little larger, for the rounding of minima over them."""
        self.network, self.lower, self.upper, self.budget = network, lower, upper, budget
        self.centre = (lower + upper) / 2
        reach = torch.maximum(upper - self.centre, self.centre - lower)
        self.inputs = lower.shape[1]
        charge = 4 * gamma(2 * self.inputs + 16, UNIT_FLOAT64) * network.largest
        self.radius = (reach + charge) * (1 + 2.0**-40)
        self.middles = [self.centre]
        self.radii = [self.radius]
        self.known: dict[str, Bounds] = {}
        self.lined: list[Lined] = []

    def take(self, boxes: Tensor) -> Pass:
        """The same for some of the boxes, every stage entered; lines have to be drawn anew."""
        part = Pass(self.network, self.lower[boxes], self.upper[boxes], self.budget)
        part.known = {name: bounds.take(boxes) for name, bounds in self.known.items()}
        return part

    def charge(self, read: Read) -> Tensor:
        """What an entry read so may be off by, ours and theirs; (entries,)."""
        return (read.off + self.network.own * read.size) * OUTWARD

    def interval(self, read: Read) -> Bounds:
        """Bounds of an image from those of the stages, (batch, entries)."""
        middle, spread = read.bias, self.charge(read)
        for piece in read.pieces:
            middle = middle + self.middles[piece.stage + 1] @ piece.weight.T
            spread = spread + self.radii[piece.stage + 1] @ piece.weight.abs().T
        if middle.ndim == 1:
            middle, spread = (t.expand(len(self.lower), -1) for t in (middle, spread))
        spread = spread * (1 + 2.0**-40)
        return Bounds(middle - spread, middle + spread)

    def enter(self, stage: Stage) -> None:
        """Bounds of what a stage reads, its lines, and bounds of what it gives."""
        node = stage.node
        found = [self.known.get(read.source) or self.interval(read) for read in stage.reads]
        for place, read in enumerate(stage.reads):
            if read.source in self.known:
                continue
            mask = undecided_of(node, shaped(stage, found), place)
            if mask is not None and not read.direct:
                found[place] = self.refined(read, found[place], mask.flatten(1))
            self.known[read.source] = found[place]
        self.lined.append(self.lines(stage, found))
        given = lookup(node).interval(node, *shaped(stage, found))
        low = given.lower.flatten(1) - stage.kernel
        high = given.upper.flatten(1) + stage.kernel
        middle = (low + high) / 2
        spread = torch.maximum(high - middle, middle - low)
        # Middles and radii are rounded, and so are sums over them.
        size = torch.maximum(low.abs(), high.abs())
        self.middles.append(middle)
        self.radii.append((spread + size * self.network.own) * (1 + 2.0**-40))

    def refined(self, read: Read, bounds: Bounds, mask: Tensor) -> Bounds:
        """Rows for all entries that are undecided on some box, both sides."""
        index = mask.any(dim=0).nonzero().flatten()
        if not len(index):
            return bounds
        low, high = bounds.lower.clone(), bounds.upper.clone()
        rows = len(index)
        sign = torch.cat((torch.ones(rows), -torch.ones(rows))).to(torch.float64)
        twice = torch.cat((index, index))
        bias, charge = read.bias[twice] * sign, self.charge(read)[twice]
        start = {p.stage: (p.weight[twice] * sign[:, None])[None] for p in read.pieces}
        least = self.least(*self.pulled(start, bias - charge, self.lined))
        low[:, index] = torch.maximum(low[:, index], least[:, :rows])
        high[:, index] = torch.minimum(high[:, index], -least[:, rows:])
        return Bounds(low, high)

    def lines(self, stage: Stage, inputs: Sequence[Bounds]) -> Lined:
        """The lines that all rows share."""
        if stage.node.op == "Mul":
            return self.middle_planes(stage, *inputs)
        (given,) = shaped(stage, inputs)
        if stage.node.op in CURVES:
            return self.flat(stage, quick_lines(stage.node, given))
        return self.flat(stage, lines_of(stage.node, (given,)))

    def middle_planes(self, stage: Stage, x: Bounds, y: Bounds) -> Lined:
        """x·y = x·c + d·y - d·c + (x - d)·(y - c), the last at most the product of the radii."""
        in_y, in_x = (x.lower + x.upper) / 2, (y.lower + y.upper) / 2
        wide = torch.maximum(x.upper - in_y, in_y - x.lower)
        high = torch.maximum(y.upper - in_x, in_x - y.lower)
        size = x.magnitude() * y.magnitude()
        # A dozen roundings of terms that are at most 4·size: centres, radii, products, sums.
        gap = wide * high + size * (256 * UNIT_FLOAT64 + 8 * self.network.own) + stage.kernel
        centre = in_x * in_y
        slopes = (in_x[:, None], in_y[:, None])
        return Lined(slopes, slopes, (-centre - gap)[:, None], (gap - centre)[:, None])

    def flat(self, stage: Stage, lines: Relaxation) -> Lined:
        """Lines with flat entries, and what a stage may be off by in their offsets."""
        below, above = [lines.lower_slope.flatten(2)], [lines.upper_slope.flatten(2)]
        if lines.second is not None:
            below.append(lines.second.lower_slope.flatten(2))
            above.append(lines.second.upper_slope.flatten(2))
        sides = []
        for offset, side in ((lines.lower_offset, -1), (lines.upper_offset, 1)):
            moved = side * stage.kernel.expand(len(self.lower), 1, -1)
            if offset is not None:
                flat = offset.flatten(2)
                moved = moved + flat + side * flat.abs() * (8 * self.network.own)
            sides.append(moved)
        return Lined(tuple(below), tuple(above), *sides)

    def pulled(
        self,
        start: dict[int, Tensor],
        const: Tensor,
        lined: Sequence[Lined],
        met: dict[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Rows as planes over the inputs.

        Args:
            start: coefficients over the outputs of stages (-1: the inputs), (batch or 1, row,
                entries).
            const: (row,) or (batch, row), lowered by what reading the start may be off by.
            lined: the lines to take.
            met: if given, filled with the coefficients at the output of each stage.

        Returns:
            Coefficients (batch, row, inputs) and constants (batch, row), lowered by all rounding.
        """
        self.budget.check()
        batch, rows = len(self.lower), const.shape[-1]
        const = const.expand(batch, rows)
        pending = dict(start)
        for number in reversed(range(len(lined))):
            coeff = pending.pop(number, None)
            if coeff is None:
                continue
            coeff = coeff.expand(batch, rows, -1)
            if met is not None:
                met[number] = coeff
            lines, stage = lined[number], self.network.stages[number]
            negative = coeff.clamp(max=0)
            positive = coeff - negative
            const = const + times(positive, lines.sunk) + times(negative, lines.lifted)
            for own, below, above in zip(stage.reads, lines.below, lines.above, strict=True):
                inner = coeff * below if below is above else positive * below + negative * above
                flat = inner.reshape(-1, inner.shape[2])
                paid = torch.mv(flat, own.bias) - torch.mv(flat.abs(), self.charge(own))
                const = const + paid.view(batch, rows)
                for piece in own.pieces:
                    moved = (flat @ piece.weight).view(batch, rows, -1)
                    before = pending.get(piece.stage)
                    pending[piece.stage] = moved if before is None else before + moved
        found = pending.pop(-1, None)
        if found is None:
            found = self.lower.new_zeros(1, 1, self.inputs)
        return found.expand(batch, rows, self.inputs), const

    def least(self, coeff: Tensor, const: Tensor) -> Tensor:
        """Minima of planes over the boxes, (batch, row)."""
        middle = torch.matmul(coeff, self.centre[:, :, None])[:, :, 0]
        spread = torch.matmul(coeff.abs(), self.radius[:, :, None])[:, :, 0]
        total = const + middle - spread
        return total - (const.abs() + middle.abs() + spread) * 2.0**-45


def times(rows: Tensor, offset: Tensor) -> Tensor:
    """Sum over entries of rows · offset; (batch, row)."""
    if offset.shape[1] == 1:
        return torch.matmul(rows, offset.transpose(1, 2))[:, :, 0]
    return (rows * offset).sum(dim=2)


def shaped(stage: Stage, inputs: Sequence[Bounds]) -> tuple[Bounds, ...]:
    """Flat bounds in the shapes of a stage's inputs."""
    return tuple(
        Bounds(b.lower.reshape(-1, *s), b.upper.reshape(-1, *s))
        for b, s in zip(inputs, stage.node.input_shapes, strict=True)
    )
