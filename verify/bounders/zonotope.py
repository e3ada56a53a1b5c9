"""Zonotope: forward bounds by affine arithmetic (DeepZ), with a box beside the generators.

A node is centre + sum of symbols in [-1, 1] times generators + a box. The box collects rounding,
and the generators that no longer fit the memory. What a method needs beyond the four rules of an
operator is in `PARALLEL`: the slope and the range of f(z) - slope·z.

Over an L1 or L2 ball the zonotope starts from the ball's box: sound, but loose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.registry import lookup, noise_of
from verify.ops.s_shaped import CURVES
from verify.problem import Problem
from verify.traverse import interval_step
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.enclosure import Enclosure
from verify.values.rounding import FLOAT32, REAL, SPARE, Rounding, gamma, unit


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """centre + sum_g symbol_g · generator_g +- box, symbols in [-1, 1].

    Attributes:
        centre: shape (batch, *node).
        generators: shape (batch, symbol, *node); all nodes share their symbols by position, so a
            new symbol goes after every one in use anywhere; a node with fewer has zeros there.
        box: shape (batch, *node), >= 0.
    """

    centre: Tensor
    generators: Tensor
    box: Tensor

    def spread(self) -> Tensor:
        """Half width of each entry, rounded up; shape (batch, *node)."""
        return (self.generators.abs().sum(dim=1) + self.box) * SPARE[self.box.dtype]

    def bounds(self) -> Bounds:
        """The interval of each entry."""
        spread = self.spread() + self.centre.abs() * (4 * unit(self.centre.dtype))
        return Bounds(self.centre - spread, self.centre + spread)


@dataclass(frozen=True, slots=True, eq=False)
class Parallel:
    """low <= f(z) - slope·z <= high on the node's bounds; shapes (batch, *node)."""

    slope: Tensor
    low: Tensor
    high: Tensor


def piecewise(node: Node, x: Bounds, kinks: tuple[Tensor | float, ...]) -> Parallel:
    """For a piecewise linear f: the chord's slope, and f - slope·z at the ends and kinks."""
    function = lookup(node).forward
    run = x.upper - x.lower
    rise = function(node, x.upper) - function(node, x.lower)
    slope = torch.where(run > 0, rise / torch.where(run > 0, run, 1.0), 0.0)
    points = [x.lower, x.upper]
    for kink in kinks:
        at = torch.as_tensor(kink, dtype=run.dtype, device=run.device)
        points.append(torch.minimum(torch.maximum(at.expand_as(run), x.lower), x.upper))
    gaps = torch.stack([function(node, z) - slope * z for z in points])
    slack = (x.magnitude() * (1 + slope.abs()) + gaps.abs().amax(dim=0)) * (16 * unit(run.dtype))
    return Parallel(slope, gaps.amin(dim=0) - slack, gaps.amax(dim=0) + slack)


def s_shaped(node: Node, x: Bounds) -> Parallel:
    """slope = min(f'(l), f'(u)): f - slope·z then rises from l to u (Singh et al. 2018)."""
    curve = CURVES[node.op]
    # A derivative that is computed too large would break monotony; a little less is always safe.
    slope = torch.minimum(curve.slope(x.lower), curve.slope(x.upper))
    slope = (slope * (1 - 2.0**-20) - 2.0**-40).clamp(min=0)
    low = curve.value(x.lower) - slope * x.lower
    high = curve.value(x.upper) - slope * x.upper
    slack = (1 + x.magnitude()) * (32 * unit(slope.dtype))
    return Parallel(slope, low - slack, high + slack)


PARALLEL: dict[str, Callable[[Node, Bounds], Parallel]] = {
    "Relu": lambda node, x: piecewise(node, x, (0.0,)),
    "TwoPiece": lambda node, x: piecewise(node, x, (0.0,)),
    "Clip": lambda node, x: piecewise(node, x, (node.tensors["low"], node.tensors["high"])),
    "Sigmoid": s_shaped,
    "Tanh": s_shaped,
}


def start(bounds: Bounds) -> Affine:
    """One symbol per input entry that can move in some region of the batch."""
    centre = (bounds.lower + bounds.upper) / 2
    radius = torch.maximum(bounds.upper - centre, centre - bounds.lower)
    flat = radius.flatten(1)
    moving = (flat > 0).any(dim=0).nonzero().flatten()
    generators = flat.new_zeros(len(flat), len(moving), flat.shape[1])
    generators[:, torch.arange(len(moving)), moving] = flat[:, moving]
    return Affine(
        centre,
        generators.view(len(flat), len(moving), *centre.shape[1:]),
        torch.zeros_like(centre),
    )


def widened(generators: Tensor, count: int) -> Tensor:
    """The generators with zero ones appended up to the count."""
    missing = count - generators.shape[1]
    if not missing:
        return generators
    shape = (len(generators), missing, *generators.shape[2:])
    return torch.cat((generators, generators.new_zeros(shape)), dim=1)


def through_affine(node: Node, rounding: Rounding, inputs: tuple[Affine, ...]) -> Affine:
    """Centre, generators and box through an affine operator."""
    op = lookup(node)
    count = max(x.generators.shape[1] for x in inputs)
    batch = len(inputs[0].centre)
    centre = op.forward(node, *(x.centre for x in inputs))
    bias = op.forward(node, *(torch.zeros_like(x.centre[:1]) for x in inputs))
    columns = [widened(x.generators, count).flatten(0, 1) for x in inputs]
    moved = (op.forward(node, *columns) - bias).unflatten(0, (batch, count))
    # Interval arithmetic on [-box, box] gives |W|·box, around the bias.
    boxes = op.interval(node, *(Bounds(-x.box, x.box) for x in inputs))
    box = (boxes.upper - bias).clamp(min=0)
    reach = tuple(Bounds(-m, m) for m in (x.centre.abs() + x.spread() for x in inputs))
    noise = noise_of(node, rounding, centre.dtype, reach)
    if noise is not None:
        # Each generator also loses one rounding of the bias that was added and taken off.
        box = box + 2 * noise + bias.abs() * (8 * (count + 2) * unit(centre.dtype))
    return Affine(centre, moved, box)


def through_curve(
    node: Node, rounding: Rounding, x: Affine, bounds: Bounds, symbols: int
) -> Affine:
    """slope·z + a new symbol, after those in use, for what lies between the parallel lines."""
    lines = PARALLEL[node.op](node, bounds)
    middle, half = (lines.low + lines.high) / 2, (lines.high - lines.low) / 2
    size = x.centre.abs() + x.spread()
    noise = noise_of(node, rounding, x.centre.dtype, (Bounds(-size, size),))
    error = (size * lines.slope.abs() + middle.abs() + half) * (16 * unit(size.dtype))
    half = half * SPARE[half.dtype] + error + (0.0 if noise is None else noise)
    generators = widened(x.generators * lines.slope[:, None], symbols)
    fresh = new_symbols(half, bounds)
    return Affine(
        x.centre * lines.slope + middle,
        torch.cat((generators, fresh), dim=1),
        x.box * lines.slope.abs() + (half - fresh.sum(dim=1)).clamp(min=0),
    )


def new_symbols(half: Tensor, bounds: Bounds) -> Tensor:
    """One symbol for each entry whose two lines are apart by more than rounding."""
    wide = bounds.upper - bounds.lower + bounds.magnitude() * 2.0**-30
    apart = (half > 2.0**-30 * wide).flatten(1)
    index = apart.any(dim=0).nonzero().flatten()
    flat = half.flatten(1)
    fresh = flat.new_zeros(len(flat), len(index), flat.shape[1])
    fresh[:, torch.arange(len(index)), index] = flat[:, index]
    return fresh.view(len(flat), len(index), *half.shape[1:])


def boxed(node: Node, rounding: Rounding, bounds: tuple[Bounds, ...], symbols: int) -> Affine:
    """The interval image with symbols of its own: for operators without parallel lines."""
    image = interval_step(node, rounding, bounds)
    middle = (image.lower + image.upper) / 2
    half = torch.maximum(image.upper - middle, middle - image.lower) * SPARE[middle.dtype]
    fresh = new_symbols(half, image)
    old = middle.new_zeros(len(middle), symbols, *node.shape)
    rest = (half - fresh.sum(dim=1)).clamp(min=0)
    return Affine(middle, torch.cat((old, fresh), dim=1), rest)


def reduced(x: Affine, most: int) -> Affine:
    """The same set with at most so many symbols; the smallest ones join the box.

    Symbols keep their positions where they are kept, so this is only done when one node is alive.
    """
    if x.generators.shape[1] <= most:
        return x
    weight = x.generators.abs().flatten(2).sum(dim=2).sum(dim=0)
    order = weight.argsort(descending=True)
    kept, dropped = order[:most], order[most:]
    box = x.box + x.generators[:, dropped].abs().sum(dim=1) * SPARE[x.box.dtype]
    return Affine(x.centre, x.generators[:, kept], box)


@dataclass(frozen=True, slots=True)
class Zonotope:
    """Forward zonotope bounds (DeepZ).

    Attributes:
        rounding: which executions the bounds hold for; None for the real-valued network.

    Source:
        Singh et al. 2018, Fast and Effective Robustness Certification (NeurIPS); order reduction by
        boxing the smallest generators: Girard 2005.
    """

    rounding: Rounding | None = FLOAT32

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Enclosure:
        """Bound every node, then the spec's rows; `margin` has shape (batch, row)."""
        rounding = REAL if self.rounding is None else self.rounding
        first, *rest = problem.graph.nodes
        bounds = {first.name: problem.region.bounds()}
        state = {first.name: start(bounds[first.name])}
        last_use = {name: node.name for node in rest for name in node.inputs}
        widest = max(node.size for node in problem.graph.nodes)
        width = torch.finfo(problem.graph.dtype).bits // 8
        most = max(16, budget.memory // (len(problem.spec.coeff) * widest * width * 4))
        symbols = state[first.name].generators.shape[1]
        for node in rest:
            budget.check()
            inputs = tuple(state[name] for name in node.inputs)
            before = tuple(bounds[name] for name in node.inputs)
            if lookup(node).relax is None:
                found = through_affine(node, rounding, inputs)
            elif node.op in PARALLEL:
                found = through_curve(node, rounding, inputs[0], before[0], symbols)
            else:
                found = boxed(node, rounding, before, symbols)
            for name in node.inputs:
                if last_use[name] == node.name:
                    state.pop(name, None)
            # Symbols may be dropped, and positions with them, only while no other node is in use.
            symbols = max(symbols, found.generators.shape[1])
            if not state:
                found = reduced(found, most)
                symbols = found.generators.shape[1]
            state[node.name] = found
            plain = interval_step(node, rounding, before)
            bounds[node.name] = plain.intersect(state[node.name].bounds())
        margin = spec_margin(problem, state[problem.graph.output.name])
        return Enclosure(margin, bounds, self.rounding is not None)


def spec_margin(problem: Problem, y: Affine) -> Tensor:
    """Rows over a zonotope: A·centre + b - sum |A·generator| - |A|·box, rounded down."""
    coeff = problem.spec.coeff
    flat = Affine(y.centre.flatten(1), y.generators.flatten(2), y.box.flatten(1))
    middle = torch.einsum("bro,bo->br", coeff, flat.centre) + problem.spec.const
    spread = torch.einsum("bro,bgo->brg", coeff, flat.generators).abs().sum(dim=2)
    box = torch.einsum("bro,bo->br", coeff.abs(), flat.box)
    size = torch.einsum("bro,bo->br", coeff.abs(), flat.centre.abs() + flat.spread())
    terms = coeff.shape[2] + flat.generators.shape[1] + 8
    own = gamma(2 * terms, unit(middle.dtype)) * (size + problem.spec.const.abs())
    return middle - (spread + box + 2 * own) * SPARE[middle.dtype]
