"""Sigmoid and Tanh: convex left of 0, concave right of it, point-symmetric about 0.

Lines are chosen by slope; the offset that makes a slope valid is then computed over the convex and
the concave piece apart. So no choice of slope, however badly rounded, can be unsound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.elementwise import elementwise, rounded_up
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding

KERNEL_DEVIATION = 1e-6
"""How far a deployed float32 sigmoid or tanh may be from the true one, absolute. ONNX Runtime's
clamped rational kernels were swept in benchmarks/kernel_sweep.py: at most 4.2e-7."""
FUNCTION_FACTOR = 4.0
"""How much more a value of the function may be off than a product: some 32 roundings in all."""
BISECTIONS = 24
"""Halvings in the search for a tangent point; it decides tightness, never validity."""
NARROW = 1e-6
"""Intervals narrower than this take the slope at their middle: the chord's quotient is noise."""


@dataclass(frozen=True, slots=True)
class Curve:
    """An S-shaped function with its derivative; `rise` is f(z) + f(-z), constant in z."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    rise: float
    steepest: float


def sigmoid_slope(z: Tensor) -> Tensor:
    """d sigmoid / dz."""
    y = torch.sigmoid(z)
    return y * (1 - y)


CURVES = {
    "Sigmoid": Curve(torch.sigmoid, sigmoid_slope, rise=1.0, steepest=0.25),
    "Tanh": Curve(torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, rise=0.0, steepest=1.0),
}


@dataclass(frozen=True, slots=True)
class Touch:
    """Where an upper line may touch the curve: a chord, or a tangent between two points."""

    chord: Tensor
    is_chord: Tensor
    first: Tensor
    last: Tensor


def touch(curve: Curve, x: Bounds) -> Touch:
    """Admissible tangent points of upper lines on [l, u].

    If the chord from l to u lies above the curve (u <= 0, or f'(u) >= its slope) it is the hull.
    Otherwise any tangent at d in [first, u] does, where the tangent at `first` passes through
    (l, f(l)), or first = l where l >= 0.
    """
    width = x.upper - x.lower
    value_l = curve.value(x.lower)
    chord = (curve.value(x.upper) - value_l) / torch.where(width > NARROW, width, 1.0)
    chord = torch.where(width > NARROW, chord, curve.slope((x.lower + x.upper) / 2))
    is_chord = (x.upper <= 0) | ((x.lower < 0) & (curve.slope(x.upper) >= chord))
    low, high = torch.zeros_like(x.lower), x.upper.clamp(min=0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = curve.value(middle) + curve.slope(middle) * (x.lower - middle) >= value_l
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    first = torch.where(x.lower >= 0, x.lower, high)
    return Touch(chord, is_chord, first, x.upper)


def upper_line(curve: Curve, x: Bounds, share: Tensor | None) -> tuple[Tensor, Tensor]:
    """Slope and offset above the curve, shape (batch, row, *node).

    Args:
        curve: the function.
        x: bounds, shape (batch, *node).
        share: where between first and last the tangent touches, in [0, 1], (batch, row, *node);
            None for the smallest area, which is the tangent nearest to the middle.
    """
    place = touch(curve, x)
    lower, upper = x.lower[:, None], x.upper[:, None]
    if share is None:
        share = smallest(x, place)
    point = torch.lerp(place.first[:, None], place.last[:, None], share)
    is_chord = place.is_chord[:, None]
    slope = torch.where(is_chord, place.chord[:, None], curve.slope(point))
    # sup of g = f - slope·z. On the convex piece [l, min(u, 0)] it is at an end. On the concave one
    # [max(l, 0), u] g lies below its tangent at any point c: g(c) + max(g'(c)(a - c), g'(c)(b - c)).
    left = curve.value(lower) - slope * lower
    knee = upper.clamp(max=0)
    convex = torch.maximum(left, curve.value(knee) - slope * knee)
    start = lower.clamp(min=0)
    centre = torch.minimum(torch.maximum(torch.where(is_chord, upper, point), start), upper)
    tilt = curve.slope(centre) - slope
    reach = torch.maximum(tilt * (start - centre), tilt * (upper - centre)).clamp(min=0)
    concave = curve.value(centre) - slope * centre + reach
    offset = torch.where(
        upper <= 0,
        convex,
        torch.where(lower >= 0, concave, torch.maximum(convex, concave)),
    )
    size = 1 + slope.abs() * torch.maximum(lower.abs(), upper.abs())
    return slope, rounded_up(offset, size * FUNCTION_FACTOR)


def smallest(x: Bounds, place: Touch) -> Tensor:
    """The share whose tangent is lowest at the middle of [l, u]; shape (batch, 1, *node)."""
    middle = torch.maximum((x.lower + x.upper) / 2, place.first)
    run = place.last - place.first
    share = (middle - place.first) / torch.where(run > 0, run, 1.0)
    return share.clamp(0, 1)[:, None]


def mirrored(x: Bounds) -> Bounds:
    """The bounds of -x."""
    return Bounds(-x.upper, -x.lower)


def initial(node: Node, x: Bounds) -> Tensor:
    """The shares of smallest area: of the lower line (on the mirrored interval), of the upper."""
    curve = CURVES[node.op]
    return torch.stack(
        [smallest(b, touch(curve, b)) for b in (mirrored(x), x)],
    )


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Chords where they enclose, tangents elsewhere; alpha moves the tangent points.

    f(z) >= s·z + t  follows from  f(-w) = rise - f(w): the lower line on [l, u] is the upper line
    on [-u, -l] with offset rise - t.

    Source:
        Zhang et al. 2018 (CROWN), arXiv:1811.00866; offsets by pieces instead of tables.
    """
    curve = CURVES[node.op]
    lower_share, upper_share = (None, None) if alpha is None else (alpha[0], alpha[1])
    slope_down, offset_down = upper_line(curve, mirrored(x), lower_share)
    slope_up, offset_up = upper_line(curve, x, upper_share)
    return Relaxation(slope_down, curve.rise - offset_down, slope_up, offset_up)


def ascend(node: Node, x: Bounds, alpha: Tensor, coeff: Tensor, value: Tensor) -> Tensor:
    """Gradient of A+·(lower line at z) + A-·(upper line at z) in both tangent points."""
    with torch.enable_grad():
        free = alpha.detach().requires_grad_(True)
        lines = relax(node, x, free)
        assert lines.lower_offset is not None
        assert lines.upper_offset is not None
        bound = coeff.clamp(min=0) * (lines.lower_slope * value + lines.lower_offset)
        bound = bound + coeff.clamp(max=0) * (lines.upper_slope * value + lines.upper_offset)
        (gradient,) = torch.autograd.grad(bound.sum(), free)
    return gradient


def kernel(_node: Node, rounding: Rounding, x: Bounds) -> Tensor:
    """The measured deviation of deployed kernels."""
    return torch.full_like(x.lower, KERNEL_DEVIATION if rounding.kernels else 0.0)


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
