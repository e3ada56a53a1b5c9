"""TwoPiece: below·x for x < 0 and above·x for x > 0, which is LeakyRelu, PRelu and Abs."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.elementwise import elementwise, rounded_up
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding


def function(node: Node, x: Tensor) -> Tensor:
    """below·min(x, 0) + above·max(x, 0)."""
    return node.tensors["below"] * x.clamp(max=0) + node.tensors["above"] * x.clamp(min=0)


def interval(node: Node, x: Bounds) -> Bounds:
    """The extremes lie at the ends, or at 0 where the interval holds it."""
    ends = function(node, x.lower), function(node, x.upper)
    lower, upper = torch.minimum(*ends), torch.maximum(*ends)
    holds_zero = unstable(node, x)
    return Bounds(
        torch.where(holds_zero, lower.clamp(max=0), lower),
        torch.where(holds_zero, upper.clamp(min=0), upper),
    )


def unstable(_node: Node, x: Bounds) -> Tensor:
    """Entries on both sides of the kink."""
    return (x.lower < 0) & (x.upper > 0)


def initial(node: Node, x: Bounds) -> Tensor:
    """The slope of the wider side: the triangle of smaller area."""
    return (x.upper > -x.lower).to(x.lower.dtype)[None, :, None]


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """The chord on one side, a free line through 0 with slope between the two on the other.

    Args:
        node: holds the slopes `below` and `above`; convex where above >= below, else concave.
        x: bounds of the input, shape (batch, *node).
        alpha: 0 for slope `below`, 1 for slope `above`, shape (1, batch, row, *node).

    Source:
        As for Relu (Zhang et al. 2018, arXiv:1811.00866), of which this is the affine image.
    """
    below, above = node.tensors["below"], node.tensors["above"]
    lower, upper = x.lower.clamp(max=0), x.upper.clamp(min=0)
    open_ = unstable(node, x)
    width = torch.where(open_, upper - lower, 1.0)
    stable = torch.where(x.lower >= 0, above, below)
    chord = torch.where(open_, (above * upper - below * lower) / width, stable)
    scale = torch.maximum(-lower, upper) * 2 * torch.maximum(below.abs(), above.abs())
    over = torch.maximum(below * lower - chord * lower, above * upper - chord * upper)
    over = torch.where(open_, rounded_up(over, scale), 0.0)
    under = torch.minimum(below * lower - chord * lower, above * upper - chord * upper)
    under = torch.where(open_, -rounded_up(-under, scale), 0.0)
    share = (initial(node, x) if alpha is None else alpha)[0]
    free = torch.where(open_[:, None], torch.lerp(below, above, share), stable[:, None])
    convex = (above >= below).expand_as(x.lower)[:, None]
    chord = chord[:, None]
    zero = torch.zeros_like(over)[:, None]
    return Relaxation(
        lower_slope=torch.where(convex, free, chord),
        lower_offset=torch.where(convex, zero, under[:, None]),
        upper_slope=torch.where(convex, chord, free),
        upper_offset=torch.where(convex, over[:, None], zero),
    )


def ascend(node: Node, x: Bounds, alpha: Tensor, coeff: Tensor, value: Tensor) -> Tensor:
    """d (A±·slope·z) / d alpha, with the sign of A that reads the free line."""
    below, above = node.tensors["below"], node.tensors["above"]
    convex = (above >= below).expand_as(x.lower)[:, None]
    read = torch.where(convex, coeff.clamp(min=0), coeff.clamp(max=0))
    return (read * (above - below) * value * unstable(node, x)[:, None])[None]


def steepest(node: Node) -> float:
    """The larger of the two |slopes|."""
    return float(torch.maximum(node.tensors["below"].abs(), node.tensors["above"].abs()).max())


def kernel(node: Node, rounding: Rounding, x: Bounds) -> Tensor:
    """The executed product rounds twice at most (slope and product); it may flush or overflow."""
    slope, size = steepest(node), x.magnitude()
    error = size * (3 * rounding.execution * slope) + 4 * rounding.smallest * (1 + slope)
    return torch.where(size * slope < rounding.largest, error, torch.inf)


elementwise(
    "TwoPiece",
    function,
    interval=interval,
    relax=relax,
    undecided=unstable,
    steepest=steepest,
    kernel=kernel,
    free=1,
    initial=initial,
    ascend=ascend,
)
