"""Sigmoid and Tanh: convex left of 0, concave right of it, point-symmetric about 0.

Lines are chosen by slope; the offset that makes a slope valid is then computed over the convex and
the concave piece apart. So no choice of slope, however badly rounded, can be unsound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from verify.graph.ir import Node
from verify.ops.elementwise import elementwise, rounded_up
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding

KERNEL_DEVIATION = {"Sigmoid": 5e-7, "Tanh": 8e-7}
"""How far a deployed float32 kernel may be from the true function, absolute: twice the worst known.
A sweep of ONNX Runtime over every float32 (benchmarks/kernel_sweep.py) found 1.8e-7 and 3.3e-7; the
same clamped rational functions computed without fused multiply-add reach 2.2e-7 and 4.1e-7."""
FUNCTION_FACTOR = 4.0
"""How much more a value of the function may be off than a product: some 32 roundings in all."""
NARROWINGS = 8
"""Steps in the search for a tangent point; they decide tightness, never validity."""
HALVINGS = 3
"""How many of these steps halve the interval before false position takes over."""
NARROW = 1e-6
"""Intervals narrower than this take the slope at their middle: the chord's quotient is noise."""


@dataclass(frozen=True, slots=True)
class Curve:
    """An S-shaped function with f(z) + f(-z) constant, and its derivatives in terms of y = f(z).

    Attributes:
        value: z -> f(z).
        slope_of: f(z) -> f'(z).
        bend_of: f(z) -> f''(z).
        rise: f(z) + f(-z).
        steepest: the largest f'.
    """

    value: Callable[[Tensor], Tensor]
    slope_of: Callable[[Tensor], Tensor]
    bend_of: Callable[[Tensor], Tensor]
    rise: float
    steepest: float

    def slope(self, z: Tensor) -> Tensor:
        """f'(z)."""
        return self.slope_of(self.value(z))

    def bend(self, z: Tensor) -> Tensor:
        """f''(z)."""
        return self.bend_of(self.value(z))


CURVES = {
    "Sigmoid": Curve(
        torch.sigmoid,
        lambda y: y * (1 - y),
        lambda y: y * (1 - y) * (1 - 2 * y),
        rise=1.0,
        steepest=0.25,
    ),
    "Tanh": Curve(
        torch.tanh,
        lambda y: 1 - y.square(),
        lambda y: -2 * y * (1 - y.square()),
        rise=0.0,
        steepest=1.0,
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """Where an upper line may touch the curve: a chord, or a tangent between two points.

    Attributes:
        chord: slope of the chord over [l, u].
        chord_offset: offset of that chord.
        is_chord: where the chord is the upper hull.
        first, last: the admissible tangent points elsewhere.
        best: the share of the way from first to last whose tangent is lowest in the middle.
    """

    chord: Tensor
    chord_offset: Tensor
    is_chord: Tensor
    first: Tensor
    last: Tensor
    best: Tensor

    def side(self, which: int) -> Touch:
        """One of two intervals that were stacked."""
        return Touch(
            self.chord[which],
            self.chord_offset[which],
            self.is_chord[which],
            self.first[which],
            self.last[which],
            self.best[which],
        )


TOUCHES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Places to touch, kept as long as the bounds they belong to: an optimisation of slopes asks for
them in every iteration, and the bisection behind them costs more than all the rest."""


def touches(node: Node, x: Bounds) -> tuple[Touch, Touch]:
    """Where lower lines (on the mirrored interval) and upper lines may touch."""
    found = TOUCHES.get(x.lower)
    if found is None or found[0] is not x.upper or found[1] != node.op:
        both = mirrored(x)
        stacked = Bounds(torch.stack((both.lower, x.lower)), torch.stack((both.upper, x.upper)))
        place = touch(CURVES[node.op], stacked)
        found = (x.upper, node.op, place.side(0), place.side(1))
        TOUCHES[x.lower] = found
    return found[2], found[3]


def touch(curve: Curve, x: Bounds) -> Touch:
    """Admissible upper lines on [l, u].

    If the chord from l to u lies above the curve (u <= 0, or f'(u) >= its slope) it is the hull.
    Otherwise any tangent at d in [first, u] does, where the tangent at `first` passes through
    (l, f(l)), or first = l where l >= 0.
    """
    width = x.upper - x.lower
    value_l, value_u = curve.value(x.lower), curve.value(x.upper)
    chord = (value_u - value_l) / torch.where(width > NARROW, width, 1.0)
    chord = torch.where(width > NARROW, chord, curve.slope((x.lower + x.upper) / 2))
    offset = torch.maximum(value_l - chord * x.lower, value_u - chord * x.upper)
    is_chord = (x.upper <= 0) | ((x.lower < 0) & (curve.slope_of(value_u) >= chord))
    first = torch.where(x.lower >= 0, x.lower, first_tangent(curve, x, value_l))
    # A tangent's height in the middle of [l, u] falls as its point comes nearer to the middle.
    nearest = torch.maximum((x.lower + x.upper) / 2, first)
    run = x.upper - first
    best = ((nearest - first) / torch.where(run > 0, run, 1.0)).clamp(0, 1)
    return Touch(chord, offset, is_chord, first, x.upper, best)


def first_tangent(curve: Curve, x: Bounds, value_l: Tensor) -> Tensor:
    """The least d in [0, u] whose tangent is not below (l, f(l)), or a little more.

    h(d) = f(d) + f'(d)(l - d) - f(l) rises in d. Its zero is enclosed by false position (Illinois
    variant); the end returned has h >= 0, so the answer is on the valid side however far it got.
    """

    def h(d: Tensor) -> Tensor:
        y = curve.value(d)
        return torch.addcmul(y - value_l, curve.slope_of(y), x.lower - d)

    low, high = torch.zeros_like(x.lower), x.upper.clamp(min=0)
    below, above = h(low), h(high)
    for step in range(NARROWINGS):
        run = above - below
        share = torch.where(run > 0, above / torch.where(run > 0, run, 1.0), 0.5)
        # False position starts slowly on a long interval: halve first.
        share = torch.full_like(share, 0.5) if step < HALVINGS else share.clamp(0.01, 0.99)
        guess = high - share * (high - low)
        found = h(guess)
        valid = found >= 0
        # Illinois: an end that stays twice has its value halved, or it would stay for ever.
        below = torch.where(valid, below / 2, found)
        above = torch.where(valid, found, above / 2)
        low, high = torch.where(valid, low, guess), torch.where(valid, guess, high)
    return high


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Slope and offset of lines above the curve, shape (batch, row, *node)."""

    slope: Tensor
    offset: Tensor


def upper_line(curve: Curve, x: Bounds, place: Touch, share: Tensor) -> Line:
    """The chord where it is the hull, else the tangent at a share of the way from first to last.

    Args:
        curve: the function.
        x: bounds, shape (batch, *node).
        place: where lines may touch.
        share: in [0, 1], shape (batch, row, *node).
    """
    point = torch.lerp(place.first[:, None], place.last[:, None], share)
    is_chord = place.is_chord[:, None]
    value = curve.value(point)
    tangent = curve.slope_of(value)
    slope = torch.where(is_chord, place.chord[:, None], tangent)
    if point.dtype == torch.float32:
        # The arithmetic of searches: valid up to rounding, at one evaluation of the curve.
        offset = value - tangent * point
        return Line(slope, torch.where(is_chord, place.chord_offset[:, None], offset))
    return Line(
        slope, rigorous_offset(curve, x, slope, torch.where(is_chord, x.upper[:, None], point))
    )


def rigorous_offset(curve: Curve, x: Bounds, slope: Tensor, point: Tensor) -> Tensor:
    """The least offset, rounded up, that lifts lines of given slopes over the curve on [l, u].

    sup of g = f - slope·z. On the convex piece [l, min(u, 0)] it is at an end. On the concave one
    [max(l, 0), u] g lies below its tangent at any c: g(c) + max(g'(c)(a - c), g'(c)(b - c), 0).

    Args:
        curve: the function.
        x: bounds, shape (batch, *node).
        slope: shape (batch, row, *node).
        point: c, best where the line touches; same shape.
    """
    lower, upper = x.lower[:, None], x.upper[:, None]
    left = curve.value(lower) - slope * lower
    knee = upper.clamp(max=0)
    convex = torch.maximum(left, curve.value(knee) - slope * knee)
    start = lower.clamp(min=0)
    centre = torch.minimum(torch.maximum(point, start), upper)
    at_centre = curve.value(centre)
    tilt = curve.slope_of(at_centre) - slope
    reach = torch.maximum(tilt * (start - centre), tilt * (upper - centre)).clamp(min=0)
    concave = at_centre - slope * centre + reach
    offset = torch.where(
        upper <= 0,
        convex,
        torch.where(lower >= 0, concave, torch.maximum(convex, concave)),
    )
    size = 1 + slope.abs() * torch.maximum(lower.abs(), upper.abs())
    return rounded_up(offset, size * FUNCTION_FACTOR)


def mirrored(x: Bounds) -> Bounds:
    """The bounds of -x."""
    return Bounds(-x.upper, -x.lower)


def initial(node: Node, x: Bounds) -> Tensor:
    """The shares of smallest area: of the lower line (on the mirrored interval), of the upper."""
    return torch.stack([place.best[:, None] for place in touches(node, x)])


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Chords where they enclose, tangents elsewhere; alpha moves the tangent points.

    f(z) >= s·z + t  follows from  f(-w) = rise - f(w): the lower line on [l, u] is the upper line
    on [-u, -l] with offset rise - t.

    Source:
        Zhang et al. 2018 (CROWN), arXiv:1811.00866; offsets by pieces instead of tables.
    """
    curve = CURVES[node.op]
    shares = initial(node, x) if alpha is None else alpha
    below, above = touches(node, x)
    down = upper_line(curve, mirrored(x), below, shares[0])
    up = upper_line(curve, x, above, shares[1])
    return Relaxation(down.slope, curve.rise - down.offset, up.slope, up.offset)


def ascend(node: Node, x: Bounds, alpha: Tensor, coeff: Tensor, value: Tensor) -> Tensor:
    """Gradient of A+·(lower line at z) + A-·(upper line at z) in both tangent points.

    d (f(d) + f'(d)(z - d)) / d d  =  f''(d)(z - d);  the lower line is the mirrored upper one.
    """
    curve = CURVES[node.op]
    parts = []
    for place, share, read, at in zip(
        touches(node, x),
        alpha,
        (-coeff.clamp(min=0), coeff.clamp(max=0)),
        (-value, value),
        strict=True,
    ):
        first, run = place.first[:, None], (place.last - place.first)[:, None]
        point = torch.addcmul(first, run, share)
        moved = read * curve.bend(point) * (at - point) * run
        parts.append(moved.masked_fill(place.is_chord[:, None], 0.0))
    return torch.stack(parts)


def kernel(node: Node, rounding: Rounding, x: Bounds) -> Tensor:
    """The measured deviation of deployed kernels."""
    return torch.full_like(x.lower, KERNEL_DEVIATION[node.op] if rounding.kernels else 0.0)


for _name, _curve in CURVES.items():
    elementwise(
        _name,
        lambda node, x: CURVES[node.op].value(x),
        interval=lambda node, x: Bounds(
            CURVES[node.op].value(x.lower), CURVES[node.op].value(x.upper)
        ),
        relax=relax,
        undecided=lambda node, x: x.upper - x.lower > NARROW,
        steepest=lambda node: CURVES[node.op].steepest,
        kernel=kernel,
        free=2,
        initial=initial,
        ascend=ascend,
    )
