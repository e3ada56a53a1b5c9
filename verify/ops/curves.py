"""Exp, Log, Sqrt, Reciprocal, Power, Softplus, Erf, Gelus, Sin, Cos: what each is, as a `Curve`.

How far deployed float32 kernels deviate is twice what `benchmarks/kernel_sweep.py` found of ONNX
Runtime, or more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.curve import Curve, Deviation, clamped, curve
from verify.values.bounds import Bounds
from verify.values.rounding import FOLDED_STRETCH, SMALLEST_FLOAT32

FLUSHED = SMALLEST_FLOAT32 * FOLDED_STRETCH
"""Below this an executed number may have become zero."""
FARTHEST = 2.0**20
"""|z| beyond which sine and cosine are only bounded by -1 and 1: turns are not computed so far out,
nor are deployed kernels measured there."""
TWO_BY_ROOT_PI = 2 / math.sqrt(math.pi)
ROOT_TWO_PI = math.sqrt(2 * math.pi)
GELU_TURN = -0.7517915246935645
"""Where x·Phi(x) is least: the zero of Phi(x) + x·phi(x)."""


def everywhere(_node: Node, z: Tensor) -> Tensor:
    """Convex all over."""
    return torch.ones_like(z, dtype=torch.bool)


def nowhere(_node: Node, z: Tensor) -> Tensor:
    """Concave all over."""
    return torch.zeros_like(z, dtype=torch.bool)


Function = Callable[[Node, Tensor], Tensor]


def positive(_node: Node, x: Bounds) -> Tensor:
    """Bounds away from zero by more than what may be flushed."""
    return x.lower > FLUSHED


def not_negative(_node: Node, x: Bounds) -> Tensor:
    """Bounds that no negative number, however small, is in."""
    return x.lower >= 0


def not_zero(_node: Node, x: Bounds) -> Tensor:
    """Bounds on one side of zero."""
    return (x.lower > FLUSHED) | (x.upper < -FLUSHED)


def plain(function: Callable[[Tensor], Tensor]) -> Function:
    """A function of z alone."""
    return lambda _node, z: function(z)


# Powers.


def exponent(node: Node) -> int:
    """The power of a Power node: an integer of at least 2."""
    return node.scalar("exponent")


def power_curve() -> Curve:
    """z^n for integer n >= 2: convex for even n, and bent over at 0 for odd n."""

    def bend(node: Node, z: Tensor) -> Tensor:
        n = exponent(node)
        return n * (n - 1) * z.pow(n - 2)

    return Curve(
        value=lambda node, z: z.pow(exponent(node)),
        slope=lambda node, z: exponent(node) * z.pow(exponent(node) - 1),
        bend=bend,
        convex=lambda node, z: (z > 0) | (exponent(node) % 2 == 0),
        knots=lambda node, x: clamped(x, 0.0) if exponent(node) % 2 else [],
        turns=lambda node, x: clamped(x, 0.0),
    )


# Sine and cosine.


def along_period(x: Bounds, start: float, period: float, count: int) -> list[Tensor]:
    """The first places start + k·period in the bounds, moved into them; enough if count fit."""
    first = torch.ceil((x.lower - start) / period) * period + start
    # One earlier, lest rounding has put the first one just below the bounds.
    return [
        torch.minimum(torch.maximum(first + k * period, x.lower), x.upper) for k in range(-1, count)
    ]


def within_a_period(_node: Node, x: Bounds) -> Tensor:
    """Bounds no wider than a period and not too far out."""
    return (x.upper - x.lower <= 2 * math.pi) & (x.magnitude() < FARTHEST)


def wave(phase: float) -> Curve:
    """sin(z + phase) for phase 0 (sine) or pi/2 (cosine)."""
    sine = phase == 0.0

    def value(_node: Node, z: Tensor) -> Tensor:
        return z.sin() if sine else z.cos()

    def slope(_node: Node, z: Tensor) -> Tensor:
        return z.cos() if sine else -z.sin()

    return Curve(
        value=value,
        slope=slope,
        bend=lambda node, z: -value(node, z),
        convex=lambda node, z: value(node, z) < 0,
        knots=lambda node, x: along_period(x, -phase, math.pi, 3),
        turns=lambda node, x: along_period(x, math.pi / 2 - phase, math.pi, 3),
        tame=within_a_period,
        rest=(-1.0, 1.0),
    )


def near(_node: Node, x: Bounds) -> Tensor:
    """Arguments for which kernels of sine and cosine were measured."""
    return x.magnitude() < FARTHEST


# Gelu.


def density(z: Tensor) -> Tensor:
    """The normal density."""
    return torch.exp(-z.square() / 2) / ROOT_TWO_PI


def phi(z: Tensor) -> Tensor:
    """The normal distribution function, without cancellation for negative z."""
    tail: Tensor = torch.special.erfc(-z / math.sqrt(2))
    return tail / 2


# Gelu by tanh: z·sigmoid(2u), u = sqrt(2/pi)·(z + 0.044715·z^3).

CUBE = 0.044715
ROOT_TWO_BY_PI = math.sqrt(2 / math.pi)
TANH_GELU_TURN = -0.7524614220710163
TANH_GELU_KNOT = 1.4185040087908285
"""Where it is least, and where it bends over: zeros of its derivatives."""
CUBED = 1e12
"""|z| beyond which an executed z^3 may overflow."""


def gate(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sigmoid(2u) and its first two derivatives in z."""
    # Beyond this the gate is 0 or 1, and its derivatives are 0.
    near = z.clamp(-100.0, 100.0)
    rate = 2 * ROOT_TWO_BY_PI * (1 + 3 * CUBE * near.square())
    bent = 12 * ROOT_TWO_BY_PI * CUBE * near
    value = torch.sigmoid(2 * ROOT_TWO_BY_PI * (near + CUBE * near.pow(3)))
    steep = value * torch.sigmoid(-2 * ROOT_TWO_BY_PI * (near + CUBE * near.pow(3)))
    return value, steep * rate, steep * (bent + (1 - 2 * value) * rate.square())


def tanh_gelu_slope(z: Tensor) -> Tensor:
    """d (z·gate) / d z."""
    value, first, _ = gate(z)
    return value + z * first


def tanh_gelu_bend(z: Tensor) -> Tensor:
    """d^2 (z·gate) / d z^2."""
    _, first, second = gate(z)
    return 2 * first + z * second


curve(
    "Exp",
    Curve(plain(torch.exp), plain(torch.exp), plain(torch.exp), everywhere),
    Deviation(relative=2.0**-21),
)
curve(
    "Log",
    Curve(plain(torch.log), plain(torch.reciprocal), plain(lambda z: -z.pow(-2)), nowhere),
    Deviation(relative=2.0**-21, absolute=2.0**-22, domain=positive),
)
curve(
    "Sqrt",
    Curve(
        plain(torch.sqrt),
        plain(lambda z: 0.5 / z.sqrt()),
        plain(lambda z: -0.25 / (z * z.sqrt())),
        nowhere,
    ),
    # What is flushed below 2^-86 may have had a root of up to 2^-43.
    Deviation(relative=2.0**-22, absolute=math.sqrt(FLUSHED), domain=not_negative),
)
curve(
    "Reciprocal",
    Curve(
        plain(torch.reciprocal),
        plain(lambda z: -z.pow(-2)),
        plain(lambda z: 2 * z.pow(-3)),
        plain(lambda z: z > 0),
        tame=not_zero,
    ),
    Deviation(relative=2.0**-22, domain=not_zero),
)
curve("Power", power_curve(), Deviation(relative=2.0**-21))
curve(
    "Softplus",
    Curve(
        plain(lambda z: z.clamp(min=0) + torch.exp(-z.abs()).log1p()),
        plain(torch.sigmoid),
        plain(lambda z: torch.sigmoid(z) * torch.sigmoid(-z)),
        everywhere,
    ),
    Deviation(relative=2.0**-21, absolute=2.0**-22),
)
curve(
    "Erf",
    Curve(
        plain(torch.erf),
        plain(lambda z: TWO_BY_ROOT_PI * torch.exp(-z.square())),
        plain(lambda z: -2 * TWO_BY_ROOT_PI * z * torch.exp(-z.square())),
        plain(lambda z: z < 0),
        knots=lambda node, x: clamped(x, 0.0),
    ),
    Deviation(relative=0.0, absolute=5e-7),
)
curve(
    "Gelu",
    Curve(
        plain(lambda z: z * phi(z)),
        plain(lambda z: phi(z) + z * density(z)),
        plain(lambda z: (2 - z.square()) * density(z)),
        plain(lambda z: z.abs() < math.sqrt(2)),
        knots=lambda node, x: clamped(x, -math.sqrt(2), math.sqrt(2)),
        turns=lambda node, x: clamped(x, GELU_TURN),
        scale=1.0,
    ),
    Deviation(relative=2.0**-20, absolute=2e-6),
)
curve(
    "GeluTanh",
    Curve(
        plain(lambda z: z * gate(z)[0]),
        plain(tanh_gelu_slope),
        plain(tanh_gelu_bend),
        plain(lambda z: z.abs() < TANH_GELU_KNOT),
        knots=lambda node, x: clamped(x, -TANH_GELU_KNOT, TANH_GELU_KNOT),
        turns=lambda node, x: clamped(x, TANH_GELU_TURN),
        scale=1.0,
    ),
    Deviation(relative=2.0**-20, absolute=2.5e-6, domain=lambda _node, x: x.magnitude() < CUBED),
)
curve("Sin", wave(0.0), Deviation(relative=0.0, absolute=2.5e-7, domain=near))
curve("Cos", wave(math.pi / 2), Deviation(relative=0.0, absolute=2.5e-7, domain=near))
