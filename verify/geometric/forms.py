"""Forms: a node between two affine functions of the parameters, and how operators carry them on.

In float64, or in float32, which is several times as fast: either way every rounded step is charged
to the constants, so that the forms hold in exact arithmetic and for the executions asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import gamma, unit

OUTWARD = {torch.float32: 2.0**-20, torch.float64: 2.0**-30}
"""Relative; pays for sums of up to nine terms and some five more roundings in float32 (16 units),
and for sums of up to 2**22 nonnegative terms in float64."""
FAINT = {torch.float32: 2.0**-90, torch.float64: 2.0**-900}
"""Absolute; pays for a few products that underflow or are flushed to zero."""
AFFINE_ROUNDINGS = 12
"""Roundings of one term of an affine step beside those of its sum: the weight and the bias may be
rounded to float32 (1 each), centre and radius (2), the bias is added (1), centre ± radius (1), the
bias leaves again (1); and some to spare."""


@dataclass(frozen=True, slots=True, eq=False)
class Forms:
    """lower(t) <= node <= upper(t) for t in [-1, 1]^parameter.

    Attributes:
        lower, upper: shape (1 + parameter, box, *node): the constant, then the slopes.
    """

    lower: Tensor
    upper: Tensor

    def spread(self) -> Bounds:
        """How far the slopes can move either form, shape (box, *node)."""
        upward = 1.0 + OUTWARD[self.lower.dtype]
        return Bounds(*(f[1:].abs().sum(dim=0) * upward for f in (self.lower, self.upper)))

    def bounds(self) -> Bounds:
        """What the forms say of the node alone, rounded outward."""
        spread = self.spread()
        outward = OUTWARD[self.lower.dtype]
        low, high = self.lower[0] - spread.lower, self.upper[0] + spread.upper
        return Bounds(
            low - outward * (self.lower[0].abs() + spread.lower),
            high + outward * (self.upper[0].abs() + spread.upper),
        )

    def magnitude(self) -> Tensor:
        """Sum over coefficients of the larger of both forms', shape (box, *node)."""
        largest = torch.maximum(self.lower.abs(), self.upper.abs()).sum(dim=0)
        return largest * (1.0 + OUTWARD[self.lower.dtype])

    def take(self, boxes: Tensor) -> Forms:
        """Some of the boxes."""
        return Forms(self.lower[:, boxes], self.upper[:, boxes])

    def to(self, dtype: torch.dtype) -> Forms:
        """The same or wider forms in another dtype."""
        lower, upper = self.lower.to(dtype), self.upper.to(dtype)
        if dtype == torch.float32 and self.lower.dtype == torch.float64:
            lower[0] -= OUTWARD[dtype] * self.lower.abs().sum(dim=0).to(dtype) + FAINT[dtype]
            upper[0] += OUTWARD[dtype] * self.upper.abs().sum(dim=0).to(dtype) + FAINT[dtype]
        return Forms(lower, upper)


def widened(bounds: Bounds, dtype: torch.dtype) -> Bounds:
    """The same or wider bounds in another dtype."""
    lower, upper = bounds.lower.to(dtype), bounds.upper.to(dtype)
    if dtype != torch.float32:
        return Bounds(lower, upper)
    outward, faint = OUTWARD[dtype], FAINT[dtype]
    return Bounds(lower - outward * lower.abs() - faint, upper + outward * upper.abs() + faint)


def paid(error: float) -> float:
    """A relative error that still holds when measured by a value that has the same error."""
    return error / (1.0 - error) * (1.0 + 2.0**-50) if error < 0.5 else float("inf")


def through_affine(node: Node, inputs: list[Forms], noise: Tensor | None) -> Forms:
    """W+·lower + W-·upper, coefficient by coefficient.

    The interval rule of an affine operator is linear in both ends, so it maps coefficients as it
    maps bounds, less the constant that it adds each time.

    Args:
        node: affine.
        inputs: forms of its inputs.
        noise: how far an executed entry may be off, shape (box or 1, *node); None for operators
            that do not round, or for plain arithmetic.
    """
    op = lookup(node)
    size, boxes = inputs[0].lower.shape[:2]
    ends = [Bounds(part.lower.flatten(0, 1), part.upper.flatten(0, 1)) for part in inputs]
    found = op.interval(node, *ends)
    lower, upper = found.lower.unflatten(0, (size, boxes)), found.upper.unflatten(0, (size, boxes))
    if op.absolute is None or op.fan is None:
        return Forms(lower, upper)  # moves entries, adds nothing, rounds nothing
    constant = op.forward(node, *(torch.zeros_like(part.lower[0, :1]) for part in inputs))
    lower[1:] -= constant
    upper[1:] -= constant
    if noise is None:
        return Forms(lower, upper)
    # n terms a sum, of |W|·|centre| + |W|·|radius| = |W|·max(|lower|, |upper|) a coefficient.
    error = paid(gamma(op.fan(node)[0] + AFFINE_ROUNDINGS, unit(lower.dtype)))
    reach = op.absolute(node, *(part.magnitude() for part in inputs))
    # The last factor is for these few steps, and for our products that underflow: each loses one
    # smallest float32, of which the noise holds 2**40 a term.
    slack = (error * (reach + size * constant.abs()) + noise) * (1.0 + 2.0**-10)
    lower[0] -= slack
    upper[0] += slack
    return Forms(lower, upper)


def through_lines(z: Forms, lines: Relaxation, noise: Tensor | None) -> Forms:
    """A node's own lines, each reading the form that its slope's sign asks for.

    Args:
        z: of the input.
        lines: in float64.
        noise: how far an executed entry may be off, or None.
    """
    dtype = z.lower.dtype
    outward, faint = OUTWARD[dtype], FAINT[dtype]
    up, down = (slope[:, 0].to(dtype) for slope in (lines.upper_slope, lines.lower_slope))
    above, below = read(z, lines.upper_source, up), read(z, lines.lower_source, down)
    upper = torch.where(up >= 0, above.upper, above.lower) * up
    lower = torch.where(down >= 0, below.lower, below.upper) * down
    # Slopes and offsets are rounded too; all of it is relative to the terms themselves.
    slack = (lower.abs().sum(dim=0) + upper.abs().sum(dim=0)) * outward + faint
    for form, offset, sign in ((upper, lines.upper_offset, 1), (lower, lines.lower_offset, -1)):
        extra = slack
        if offset is not None:
            moved = offset[:, 0].to(dtype)
            form[0] += moved
            extra = extra + moved.abs() * outward
        if noise is not None:
            extra = extra + noise.to(dtype) * (1.0 + outward)
        form[0] += sign * extra * (1.0 + outward)
    return Forms(lower, upper)


def read(z: Forms, source: Tensor | None, slope: Tensor) -> Forms:
    """The forms that lines read: entry by entry, or the entries named by flat indices."""
    if source is None:
        return z
    size = len(z.lower)
    index = source.flatten(1).expand(size, -1, -1)
    lower, upper = (
        f.flatten(2).gather(2, index).view(size, *slope.shape) for f in (z.lower, z.upper)
    )
    return Forms(lower, upper)


def through_relu(z: Forms, known: Bounds) -> Forms:
    """relu(z) <= relu(upper(t)) <= the chord over upper's own range; below likewise.

    Upper's own range is narrower than the neuron's, so its chord is lower than the neuron's. Below,
    the slope is 1 or 0, whichever leaves the smaller triangle: 1 where lower's middle is positive.

    Args:
        z: of the input.
        known: bounds of the input; where they decide the sign, they do better.
    """
    outward, faint = OUTWARD[z.lower.dtype], FAINT[z.lower.dtype]
    spread = z.upper[1:].abs().sum(dim=0) * (1.0 + outward)
    slack = outward * (z.upper[0].abs() + spread) + faint
    high = (z.upper[0] + spread + slack).clamp(min=0)
    low = (z.upper[0] - spread - slack).clamp(max=0)
    on, off = known.lower >= 0, known.upper <= 0
    # So clamped, the chord is 1 where upper >= 0 everywhere and 0 where it is <= 0 everywhere.
    chord = high / torch.where(high > low, high - low, 1.0)
    chord = torch.where(off, 0.0, torch.where(on, 1.0, chord))
    offset = torch.maximum(-chord * low, high - chord * high) + slack
    upper = z.upper * chord
    # Forms of neurons that are always on or off pass unrounded.
    upper[0] += torch.where(on | off, 0.0, offset)
    keep = on | ((z.lower[0] > 0) & ~off)
    return Forms(z.lower * keep, upper)
