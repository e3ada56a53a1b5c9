"""Curve: lines around any smooth function of one variable, from f, f', f'' and where it bends over.

The interval is cut into cells, at even steps and at every inflection, so that f is convex or
concave on each. A line is chosen by its slope; its offset is then computed over all cells: where
f - s·z is convex its maximum is at an end of the cell, where it is concave it lies below the
tangents at both ends, hence below their crossing. So no choice of slope, however badly rounded,
can be unsound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from verify.graph.ir import Node
from verify.ops.elementwise import pull_back_lines, rounded_up
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

CELLS = 8
"""Even steps that an interval is cut into; they decide tightness, never validity."""
NARROW = 1e-6
"""Intervals narrower than this, absolutely or (near 0) relative to their place, get no rows."""
STEEPEST = {torch.float32: 1e30, torch.float64: 1e300}
"""Stands for an infinite derivative at the end of a domain (sqrt at 0): its tangent then bounds
nothing, and the one at the cell's other end bounds alone."""
FUNCTION_FACTOR = 4.0
"""How much more a value of the function may be off than a product: some 32 roundings in all."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a deployed float32 kernel may be from the true function, beyond our own arithmetic.

    Attributes:
        relative: as a share of the largest |f| on the interval.
        absolute: in units of f.
        domain: (node, bounds) -> mask of the entries at which executions are defined at all and
            `relative` and `absolute` were measured; elsewhere nothing is known. None for all.
    """

    relative: float
    absolute: float = 0.0
    domain: Callable[[Node, Bounds], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A twice differentiable function of one variable.

    Attributes:
        value, slope, bend: (node, z) -> f(z), f'(z), f''(z).
        convex: (node, z) -> mask: whether f'' > 0 between the knots around z. From where z lies: a
            computed f'' may have become zero.
        knots: (node, bounds) -> the places where f'' may change its sign, each clamped into the
            bounds; how many there are must not depend on the values.
        turns: likewise the places where f' is zero, for the interval rule.
        scale: size of terms that cancel in computing f near its zeros; what f's own rounding error
            is relative to, beside |f|.
        tame: (node, bounds) -> mask of entries for which `knots` and `turns` are complete; the
            others get `rest` as bounds. None if that is everywhere.
        rest: the range of the whole function, only needed with `tame`.
    """

    value: Callable[[Node, Tensor], Tensor]
    slope: Callable[[Node, Tensor], Tensor]
    bend: Callable[[Node, Tensor], Tensor]
    convex: Callable[[Node, Tensor], Tensor]
    knots: Callable[[Node, Bounds], list[Tensor]] = lambda node, x: []
    turns: Callable[[Node, Bounds], list[Tensor]] = lambda node, x: []
    scale: float = 0.0
    tame: Callable[[Node, Bounds], Tensor] | None = None
    rest: tuple[float, float] = (float("-inf"), float("inf"))


CURVES: dict[str, Curve] = {}
DEVIATIONS: dict[str, Deviation] = {}


def clamped(x: Bounds, *places: float) -> list[Tensor]:
    """Fixed places, moved into the bounds."""
    return [x.lower.clamp(min=place).minimum(x.upper) for place in places]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The curve at the ends of its cells; `ends` are the first axis.

    Attributes:
        points, values, slopes: shape (ends, batch, *node).
        convex: bool, shape (ends - 1, batch, *node): whether the cell after each end is convex.
        low, high: interval bounds of f, shape (batch, *node).
        usable: where lines may be drawn at all; elsewhere the interval bounds stand alone.
    """

    points: Tensor
    values: Tensor
    slopes: Tensor
    convex: Tensor
    low: Tensor
    high: Tensor
    usable: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The lower (index 0) and upper (1) lines of smallest area.

    Attributes:
        share: where their tangent points lie, as shares of the interval; (2, batch, *node).
        is_chord: where the chord is better than any tangent, same shape.
        chord: slope of the chord, shape (batch, *node).
    """

    share: Tensor
    is_chord: Tensor
    chord: Tensor


KNOWN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Cells and choices, kept as long as the bounds they belong to."""


def prepared(node: Node, x: Bounds) -> tuple[Cells, Choice]:
    """The cells of a curve over its bounds, and the lines of smallest area."""
    found = KNOWN.get(x.lower)
    if found is None or found[0] is not x.upper or found[1] is not node:
        cells = cut(CURVES[node.op], node, x)
        found = (x.upper, node, cells, best_lines(node, x, cells))
        KNOWN[x.lower] = found
    return found[2], found[3]


def cut(curve: Curve, node: Node, x: Bounds, steps: int = CELLS) -> Cells:
    """Even steps and knots, in order, with f and f' at each."""
    even = [torch.lerp(x.lower, x.upper, k / steps) for k in range(1, steps)]
    inner = torch.stack([*even, *curve.knots(node, x)])
    inner = torch.minimum(torch.maximum(inner, x.lower), x.upper).sort(dim=0).values
    points = torch.cat((x.lower[None], inner, x.upper[None]))
    values = curve.value(node, points)
    most = STEEPEST[points.dtype]
    slopes = curve.slope(node, points).clamp(-most, most)
    middles = (points[1:] + points[:-1]) / 2
    found = interval(node, x)
    usable = torch.isfinite(values).all(dim=0) & ~torch.isnan(slopes).any(dim=0)
    if curve.tame is not None:
        usable = usable & curve.tame(node, x)
    return Cells(
        points, values, slopes, curve.convex(node, middles), found.lower, found.upper, usable
    )


def interval(node: Node, x: Bounds) -> Bounds:
    """The least and the largest of the values at both ends and at the turns between them."""
    curve = CURVES[node.op]
    values = [curve.value(node, z) for z in (x.lower, x.upper, *curve.turns(node, x))]
    stacked = torch.stack(values)
    low, high = stacked.amin(dim=0), stacked.amax(dim=0)
    known = ~torch.isnan(stacked).any(dim=0)
    if curve.tame is not None:
        known = known & curve.tame(node, x)
    return Bounds(torch.where(known, low, curve.rest[0]), torch.where(known, high, curve.rest[1]))


def peak(cells: Cells, slope: Tensor, side: int) -> Tensor:
    """An upper bound of side·(f - slope·z) over all cells, before rounding.

    On a concave cell with end values a, b, end slopes p > 0 > -q and width h, the tangents cross at
    height (q·a + p·b + p·q·h) / (p + q).

    Args:
        cells: the curve, shape (ends, batch, *node).
        slope: shape (batch, row, *node).
        side: 1 for f, -1 for -f.
    """
    value = side * (cells.values[:, :, None] - slope * cells.points[:, :, None])
    tilt = side * (cells.slopes[:, :, None] - slope)
    first, last = value[:-1], value[1:]
    up, down = tilt[:-1].clamp(min=0), (-tilt[1:]).clamp(min=0)
    width = (cells.points[1:] - cells.points[:-1])[:, :, None]
    total = up + down
    crossing = (down * first + up * last + up * down * width) / torch.where(total > 0, total, 1.0)
    concave = cells.convex if side < 0 else ~cells.convex
    over = torch.maximum(first, last)
    inside = (total > 0) & (up > 0) & (down > 0) & concave[:, :, None]
    return torch.where(inside, torch.maximum(over, crossing), over).amax(dim=0)


def slack(curve: Curve, cells: Cells, slope: Tensor) -> Tensor:
    """The size of the terms that `peak` computes with."""
    size = cells.values.abs().amax(dim=0) + curve.scale
    reach = cells.points.abs().amax(dim=0)
    steep = steepest(cells)
    return size[:, None] + (slope.abs() + steep[:, None]) * reach[:, None]


def steepest(cells: Cells) -> Tensor:
    """The largest finite |f'| at the cells' ends, shape (batch, *node)."""
    size = cells.slopes.abs()
    return torch.where(size >= STEEPEST[size.dtype], 0.0, size).amax(dim=0)


def best_lines(node: Node, x: Bounds, cells: Cells) -> Choice:
    """Of the tangents at the cells' ends and the chord, those nearest to f in the middle."""
    run = x.upper - x.lower
    wide = run > 0
    guarded = torch.where(wide, run, 1.0)
    middle_slope = CURVES[node.op].slope(node, (x.lower + x.upper) / 2)
    chord = torch.where(wide, (cells.values[-1] - cells.values[0]) / guarded, middle_slope)
    chord = torch.where(torch.isfinite(chord), chord, 0.0)
    candidates = torch.cat((cells.slopes, chord[None])).movedim(0, 1)  # (batch, candidate, *node)
    middle = ((x.lower + x.upper) / 2)[:, None]
    shares, chords = [], []
    for side in (-1, 1):
        height = peak(cells, candidates, side) + side * candidates * middle
        usable = torch.isfinite(height) & (candidates.abs() < STEEPEST[candidates.dtype])
        pick = torch.where(usable, height, torch.inf).argmin(dim=1)
        count = len(cells.points)
        place = cells.points.gather(0, pick.clamp(max=count - 1)[None])[0]
        shares.append(torch.where(wide, (place - x.lower) / guarded, 0.0).clamp(0, 1))
        chords.append(pick == count)
    return Choice(torch.stack(shares), torch.stack(chords), chord)


def initial(node: Node, x: Bounds) -> Tensor:
    """The shares of smallest area: of the lower line, of the upper."""
    return prepared(node, x)[1].share[:, :, None]


def quick_lines(node: Node, x: Bounds) -> Relaxation:
    """The chord on one side, the tangent at the middle on the other; for boxes by the thousand.

    Where f bends one way these are the lines of smallest area. Offsets are computed as always.
    """
    curve = CURVES[node.op]
    cells = cut(curve, node, x, 2)
    run = x.upper - x.lower
    tangent = curve.slope(node, (x.lower + x.upper) / 2)
    chord = (cells.values[-1] - cells.values[0]) / torch.where(run > 0, run, 1.0)
    chord = torch.where((run > 0) & torch.isfinite(chord), chord, tangent)
    slopes = torch.stack((tangent, chord), dim=1)
    slopes = torch.where(torch.isfinite(slopes), slopes, 0.0)
    room = slack(curve, cells, slopes) * FUNCTION_FACTOR
    middle = ((x.lower + x.upper) / 2)[:, None]
    sides = []
    for side, end in ((-1, cells.low), (1, cells.high)):
        offset = rounded_up(peak(cells, slopes, side), room)
        first = (offset + side * slopes * middle).diff(dim=1) >= 0  # the tangent is no worse
        slope = torch.where(first, slopes[:, :1], slopes[:, 1:])
        offset = torch.where(first, offset[:, :1], offset[:, 1:])
        usable = cells.usable[:, None] & torch.isfinite(offset)
        slope = torch.where(usable, slope, 0.0)
        sides.append((slope, torch.where(usable, side * offset, end[:, None])))
    (low, low_offset), (high, high_offset) = sides
    return Relaxation(low, low_offset, high, high_offset)


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Tangents at shares alpha of the interval, chords where they are better than any tangent."""
    curve = CURVES[node.op]
    cells, choice = prepared(node, x)
    shares = choice.share[:, :, None] if alpha is None else alpha
    sides = []
    for index, side in ((0, -1), (1, 1)):
        point = torch.lerp(x.lower[:, None], x.upper[:, None], shares[index])
        slope = curve.slope(node, point)
        slope = torch.where(choice.is_chord[index][:, None], choice.chord[:, None], slope)
        slope = torch.where(torch.isfinite(slope), slope, 0.0)
        offset = rounded_up(peak(cells, slope, side), slack(curve, cells, slope) * FUNCTION_FACTOR)
        end = (cells.low, cells.high)[index][:, None]
        usable = cells.usable[:, None] & torch.isfinite(offset)
        slope = torch.where(usable, slope, 0.0)
        sides.append((slope, torch.where(usable, side * offset, end)))
    (low, low_offset), (high, high_offset) = sides
    return Relaxation(low, low_offset, high, high_offset)


def undecided(node: Node, x: Bounds) -> Tensor:
    """Entries whose interval is wider than rounding."""
    return x.upper - x.lower > NARROW * x.magnitude().clamp(max=1)


def ascend(node: Node, x: Bounds, alpha: Tensor, coeff: Tensor, value: Tensor) -> Tensor:
    """Gradient of A+·(lower line at z) + A-·(upper line at z) in both tangent points.

    d (s·z + t(s)) / d s  =  z - c,  where f - s·z has its extremum in c: here the best of the
    cells' ends and the tangent point itself.
    """
    curve = CURVES[node.op]
    cells, choice = prepared(node, x)
    run = (x.upper - x.lower)[:, None]
    parts = []
    for index, side, read in ((0, -1, coeff.clamp(min=0)), (1, 1, coeff.clamp(max=0))):
        point = torch.addcmul(x.lower[:, None], run, alpha[index])
        slope = curve.slope(node, point)
        gaps = side * (cells.values[:, :, None] - slope * cells.points[:, :, None])
        top, where = gaps.max(dim=0)
        at_end = cells.points[:, :, None].expand_as(gaps).gather(0, where[None])[0]
        own = side * (curve.value(node, point) - slope * point)
        touch = torch.where(own >= top, point, at_end)
        moved = read * curve.bend(node, point) * (value - touch) * run
        fixed = choice.is_chord[index] | ~cells.usable
        moved = moved.masked_fill(fixed[:, None], 0.0)
        parts.append(torch.where(torch.isfinite(moved), moved, 0.0))
    return torch.stack(parts)


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds) -> Tensor:
    """One product per slope and a dot product over offsets, and the deployed kernel.

    Slopes of lines are at most the largest |f'| at the cells' ends: between them f' is monotone,
    and a chord's slope is attained.
    """
    curve, deviation = CURVES[node.op], DEVIATIONS[node.op]
    cells, choice = prepared(node, x)
    steep = torch.maximum(steepest(cells), choice.chord.abs())
    size = torch.maximum(cells.low.abs(), cells.high.abs())
    terms = size + curve.scale + 2 * steep * x.magnitude()
    error = 2 * gamma(node.size + 32, unit(dtype)) * terms
    error = torch.where(cells.usable, error, 4 * gamma(node.size + 8, unit(dtype)) * size)
    if rounding.kernels:
        error = error + deviation.relative * size + deviation.absolute
    error = error + rounding.smallest * (1 + steep)
    known = size < rounding.largest
    if deviation.domain is not None:
        known = known & deviation.domain(node, x)
    return torch.where(known, error, torch.inf)


def curve(name: str, shape: Curve, deviation: Deviation) -> Op:
    """Register a smooth function of one variable."""
    CURVES[name], DEVIATIONS[name] = shape, deviation
    return register(
        Op(
            name=name,
            forward=shape.value,
            interval=interval,
            pull_back=pull_back_lines,
            noise=noise,
            rounds=True,
            relax=relax,
            undecided=undecided,
            free=2,
            initial=initial,
            ascend=ascend,
        )
    )
