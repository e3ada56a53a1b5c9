"""DensePlanes: CROWN for chains of dense layers and Relu, on hundreds of boxes at a time.

The same bounds as `CrownPlanes`, laid out for speed: boxes with about as many undecided neurons
side by side, no Python per box or neuron, and rounding charged through the lines' offsets, so that
it costs nothing per row. Its own rounding is charged as the deployed one is (docs/guarantees.md),
so it may compute in float32 too; but that is hardly faster, and the larger charge costs many boxes.

At z = W·h + b an executed or pulled-back entry is off by at most

    noise = (2·gamma_k(own) + gamma_{n+c}(2^-24)) · (|W|·|h| + |b|) + underflow,

and a row with coefficients A at h = relu(z) pays |A|·slope·noise with the slope of the line that it
reads: so the lower line sinks by slope·noise, and the upper one rises.

Beside the goal's rows stands one row more for each clause, a convex combination of the clause's
rows that is chosen box by box (`verify.bounders.sharpening`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.chain import Chain, Layer, chain_of
from verify.bounders.planes import Goal, Planes
from verify.bounders.sharpening import Layered, Lines, sharpened
from verify.graph.ir import Graph
from verify.ops.sparse import linear, times
from verify.values.budget import Budget
from verify.values.rounding import FLOAT32, SPARE, Rounding, gamma, single_is_single, unit

CHORD_ROUNDINGS = 8
"""Roundings in a chord's offset computed from its slope, in units of the interval's ends."""
WORKING = 2**18
"""Entries of the coefficients of rows that are pulled back together: about what a cache holds."""
SUMMED = 2.0**-45
"""Relative rounding of the constants, which are summed in float64 over at most 2^7 parts."""
LOST = 2.0**-126
"""What one float32 product or sum loses where it underflows, flushed or not."""


@dataclass(frozen=True, slots=True, eq=False)
class DensePlanes:
    """A `PlaneBounder` for chains.

    Attributes:
        chain: the network, in the dtype to compute in.
        goal: the rows.
        rounding: which executions the planes hold for.
    """

    chain: Chain
    goal: Goal
    rounding: Rounding = FLOAT32

    @property
    def clauses(self) -> tuple[tuple[int, ...], ...]:
        """The rows of each clause, and the one that combines them."""
        first = len(self.goal.const)
        return tuple((*rows, first + i) for i, rows in enumerate(self.goal.clauses))

    @property
    def batch(self) -> int:
        """Enough boxes to hide Python behind arithmetic."""
        return max(8, min(512, WORKING // (8 * self.chain.widest)))

    def __call__(
        self,
        lower: Tensor,
        upper: Tensor,
        budget: Budget = Budget(),
        open_: Tensor | None = None,
    ) -> Planes:
        """Bound each layer's undecided neurons, then the rows."""
        return Pass(self, lower, upper, budget).planes()


def dense_planes(
    graph: Graph,
    goal: Goal,
    dtype: torch.dtype = torch.float64,
    rounding: Rounding = FLOAT32,
) -> DensePlanes | None:
    """The bounder, if the network is a chain that it can read; else None."""
    if dtype == torch.float32 and not single_is_single():
        return None  # products may be computed in bfloat16, which the noise does not cover
    if dtype == torch.float32 and rounding.execution < FLOAT32.execution:
        return None  # the weights' own rounding is charged as one of the execution's
    chain = chain_of(graph, dtype)
    if chain is None or gamma(2 * chain.widest + 16, unit(dtype)) > 2.0**-10:
        return None
    return DensePlanes(chain, goal, rounding)


class Pass:
    """One batch on its way through the layers."""

    def __init__(self, method: DensePlanes, lower: Tensor, upper: Tensor, budget: Budget) -> None:
        """Centre and radius of the boxes, the radius a little larger, and the first magnitude."""
        self.method, self.budget = method, budget
        self.dtype = method.chain.dtype
        self.own = unit(self.dtype)
        self.clauses = len(method.goal.clauses)
        lower, upper = lower.to(torch.float64), upper.to(torch.float64)
        centre = ((lower + upper) / 2).to(self.dtype)
        reach = torch.maximum(upper - centre, centre - lower) * (1 + 2.0**-40)
        size = torch.maximum(lower.abs(), upper.abs())
        # A·c - |A|·r is summed in the own dtype: its rounding is charged through the radius.
        terms = lower.shape[1]
        charge = gamma(2 * terms + 16, self.own) * (size + reach) * SPARE[torch.float32]
        self.centre = centre
        self.radius = upward(reach + charge, self.dtype)
        self.size = upward(size, self.dtype)
        self.done: list[Layered] = []
        # Underflow is an absolute loss: the products of one step lose at most this much a row.
        self.lost = lower.shape[1] * LOST * size.sum(dim=1, keepdim=True)

    def planes(self) -> Planes:
        """Of the spec's rows."""
        middle, spread = self.centre, self.radius
        size = self.size
        alive: Tensor | None = None
        for place, whole in enumerate(self.method.chain.layers):
            layer = whole if alive is None else whole.reading(alive)
            noise = self.noise(layer, size)
            centre = linear(middle, layer.weight, layer.bias)
            width = linear(spread, layer.size) + noise
            low, high = centre - width, centre + width
            if not layer.relu:
                self.done.append(Layered(layer, None, noise))
                middle, spread, alive = centre, width, None
                size = torch.maximum(low.abs(), high.abs())
                continue
            if place:
                self.refine(layer, noise, low, high)
            low, high, layer, noise, alive = without_dead(low, high, layer, noise)
            lines = self.lines(low, high, noise)
            self.done.append(Layered(layer, lines, noise))
            low, size = low.clamp(min=0), high.clamp(min=0)
            middle = (low + size) / 2
            # Half the difference is rounded, and so is the middle.
            spread = (size - low) / 2 + size * (4 * self.own)
            self.lost = self.lost + len(layer.bias) * LOST * size.sum(dim=1, keepdim=True).double()
        return self.rows(middle, spread)

    def noise(self, layer: Layer, size: Tensor) -> Tensor:
        """How far an entry of the layer may be off, (batch, out)."""
        parts = layer.parts or (layer,)
        # What the product of several layers was rounded by is charged with each of them.
        fan = sum(max(part.weight.shape) + 12 for part in parts) * len(parts)
        total: Tensor | None = None
        for part in parts:
            reach = linear(size, part.size, part.magnitude)
            off = self.noise_of(part, size, reach, fan)
            # Errors of the layers before go through this one.
            total = off if total is None else linear(total, part.size) * SPARE[torch.float32] + off
            size = reach * SPARE[torch.float32] + total
        assert total is not None
        return total

    def noise_of(self, layer: Layer, size: Tensor, reach: Tensor, fan: int) -> Tensor:
        """Of one layer of the file, from |inputs| and |W|·|inputs| + |bias|."""
        rounding = self.method.rounding
        terms = layer.terms
        ours = 2 * gamma(fan, self.own)
        theirs = gamma(terms + layer.extra, rounding.execution)
        biggest = size.amax(dim=1, keepdim=True)
        flushed = 2 * (terms + layer.extra) * (rounding.smallest + LOST) * (biggest + layer.largest)
        safe = terms * (biggest + 1.0) * layer.largest < rounding.largest
        noise = reach * ((ours + theirs) * SPARE[torch.float32]) + flushed
        return torch.where(safe, noise, torch.inf)

    def lines(self, low: Tensor, high: Tensor, noise: Tensor) -> Lines:
        """Chord above; below 0 or the identity, whichever leaves the smaller triangle."""
        below, above = low.clamp(max=0), high.clamp(min=0)
        chord = above / torch.where(above > below, above - below, 1.0)
        open_ = (low < 0) & (high > 0)
        largest = torch.maximum(-below, above)
        raised = torch.maximum(-chord * below, above - chord * above)
        # One unit per rounding of the offset, four of the slope's products with a row.
        own = torch.where(open_, largest * (CHORD_ROUNDINGS * self.own), 0.0)
        raised = torch.where(open_, raised + own, 0.0)
        lower = torch.where(open_, (above > -below).to(chord.dtype), chord)
        spare = SPARE[torch.float32]
        # The offsets' dot products are summed in the own dtype.
        dot = 4 * gamma(2 * low.shape[1] + 16, self.own)
        lift = raised * (1 + dot) + (chord * noise + own) * spare
        # Dead neurons have no slope, and inf·0 must not make them NaN.
        dead = high <= 0
        noise, lift = torch.where(dead, 0.0, noise), torch.where(dead, 0.0, lift)
        sunk = (lower * noise + own) * spare
        loose = raised / torch.where(open_, above - below, 1.0)
        gap = lift + sunk * (1 + dot)
        return Lines(lower, chord, sunk, gap, lift, own, dot, loose, open_)

    def refine(self, layer: Layer, noise: Tensor, low: Tensor, high: Tensor) -> None:
        """Rows for undecided neurons, in place: the likelier side, then the other."""
        positive = low + high > 0
        for turn in range(2):
            mask = (low < 0) & (high > 0)
            counts, order = mask.sum(dim=1).sort(descending=True)
            numbers = counts.tolist()
            first = 0
            side = positive if turn == 0 else ~positive
            while first < len(numbers) and numbers[first]:
                count = numbers[first]
                last = first + max(1, WORKING // (count * self.method.chain.widest))
                boxes = order[first:last]
                while not numbers[min(last, len(numbers)) - 1]:
                    last -= 1
                    boxes = order[first:last]
                index = mask[boxes].to(torch.uint8).argsort(dim=1, descending=True)[:, :count]
                self.bound(layer, noise, low, high, boxes, index, side)
                first = last

    def bound(
        self,
        layer: Layer,
        noise: Tensor,
        low: Tensor,
        high: Tensor,
        boxes: Tensor,
        index: Tensor,
        side: Tensor,
    ) -> None:
        """One side of some neurons on some boxes."""
        self.budget.check()
        at = (boxes[:, None], index)
        below = side[at]
        sign = torch.where(below, 1.0, -1.0).to(self.dtype)
        coeff = layer.weight[index] * sign[:, :, None]
        const = layer.bias[index] * sign - noise[at] * SPARE[torch.float32]
        coeff, total = self.pulled(coeff, const.to(torch.float64), boxes)
        least = self.least(coeff, total, boxes)
        # Towards minus infinity in the own dtype.
        least = downward(least, self.dtype)
        low[at] = torch.where(below, torch.maximum(low[at], least), low[at])
        high[at] = torch.where(below, high[at], torch.minimum(high[at], -least))

    def pulled(self, coeff: Tensor, const: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Rows over the last layer that is done, as rows over the input.

        Args:
            coeff: own dtype, shape (batch, row, neurons).
            const: float64, shape (batch, row).
            boxes: which boxes of the pass the batch is.

        Returns:
            Coefficients over the input and the constant, lowered by all that rounding may cost.
        """
        mass = const.abs()
        for done in reversed(self.done):
            if done.lines is not None:
                lines = done.lines
                negative = coeff.clamp(max=0)
                lower = lines.lower[boxes, None]
                part = torch.bmm(negative, lines.gap[boxes, :, None])
                part -= torch.bmm(coeff, lines.sunk[boxes, :, None])
                coeff = coeff * lower
                coeff.addcmul_(negative, lines.chord[boxes, None] - lower)
            else:
                part = -torch.bmm(coeff.abs(), done.noise[boxes, :, None] * SPARE[torch.float32])
            part = part[:, :, 0].to(torch.float64)
            shape = coeff.shape
            flat = coeff.reshape(-1, shape[2])
            own = torch.mv(flat, done.layer.bias).view(shape[:2]).to(torch.float64)
            const = const + part + own
            mass = mass + part.abs() + own.abs()
            coeff = times(flat, done.layer.weight).view(shape[0], shape[1], -1)
        return coeff, const - mass * SUMMED - self.lost[boxes]

    def least(self, coeff: Tensor, const: Tensor, boxes: Tensor) -> Tensor:
        """Minima of rows over the boxes, (batch, row), float64."""
        middle = torch.bmm(coeff, self.centre[boxes, :, None])[:, :, 0].to(torch.float64)
        spread = torch.bmm(coeff.abs(), self.radius[boxes, :, None])[:, :, 0].to(torch.float64)
        return const + middle - spread - (const.abs() + middle.abs() + spread) * SUMMED

    def rows(self, middle: Tensor, spread: Tensor) -> Planes:
        """The goal's rows and the clauses'; intervals from the last layer bound rows too."""
        goal = self.method.goal
        every = torch.arange(len(middle))
        coeff = goal.coeff.to(self.dtype)
        start = coeff.expand(len(middle), -1, -1)
        const = goal.const.expand(len(middle), -1)
        # Rounding the rows' own coefficients to the own dtype costs this much.
        size = (middle.abs() + spread).to(torch.float64)
        off = (goal.coeff - coeff.to(torch.float64)).abs()
        const = const - size @ off.T * (1 + 2.0**-30)
        pulled, total = self.pulled(start, const, every)
        inner = middle.to(torch.float64) @ goal.coeff.T + goal.const
        outer = spread.to(torch.float64) @ goal.coeff.abs().T
        mass = size @ goal.coeff.abs().T + goal.const.abs()
        interval = inner - outer - mass * SUMMED
        least = torch.maximum(self.least(pulled, total, every), interval)
        planes = Planes(pulled.to(torch.float64), total, least, pulled.new_zeros(0))
        return sharpened(self, planes, size)


def without_dead(
    low: Tensor, high: Tensor, layer: Layer, noise: Tensor
) -> tuple[Tensor, Tensor, Layer, Tensor, Tensor | None]:
    """The layer without neurons that are never positive in any box; and which stayed, or None."""
    # NaN counts as alive.
    alive = (~(high <= 0)).any(dim=0).nonzero().flatten()
    if not 0 < len(alive) < high.shape[1]:
        return low, high, layer, noise, None
    return low[:, alive], high[:, alive], layer.giving(alive), noise[:, alive], alive


def upward(values: Tensor, dtype: torch.dtype) -> Tensor:
    """At least each value >= 0, in a dtype."""
    found = values.to(dtype)
    return torch.where(found.to(torch.float64) < values, found * (1 + 2.0**-22), found)


def downward(values: Tensor, dtype: torch.dtype) -> Tensor:
    """At most each value, in a dtype."""
    if dtype == torch.float64:
        return values
    found = values.to(dtype)
    lower = torch.nextafter(found, found.new_tensor(-torch.inf))
    return torch.where(found.to(torch.float64) > values, lower, found)
