"""Relu: exact on stable neurons, a triangle on unstable ones."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.elementwise import elementwise, rounded_up
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation


def interval(_node: Node, x: Bounds) -> Bounds:
    """Relu is increasing: the ends map to the ends."""
    return Bounds(x.lower.clamp(min=0), x.upper.clamp(min=0))


def unstable(_node: Node, x: Bounds) -> Tensor:
    """Neurons whose sign is not known."""
    return (x.lower < 0) & (x.upper > 0)


def initial(_node: Node, x: Bounds) -> Tensor:
    """Slope 1 where upper > -lower, else 0: the triangle of smaller area."""
    return (x.upper > -x.lower).to(x.lower.dtype)[None, :, None]


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """Lines enclosing max(x, 0): below the chord, above alpha·x.

    Args:
        node: unused; relu has no parameters.
        x: pre-activation bounds, shape (batch, *node).
        alpha: lower slopes in [0, 1], shape (1, batch, row, *node); stable neurons ignore theirs.

    Source:
        Zhang et al. 2018 (CROWN), arXiv:1811.00866. Free alpha: Xu et al. 2021, arXiv:2011.13824.
    """
    lower, upper = x.lower.clamp(max=0), x.upper.clamp(min=0)
    # So clamped, the chord is exactly 1 on active and 0 on inactive neurons: neither needs a case.
    # The width is guarded before the division: where() alone would leave a NaN at 0/0.
    chord = upper / torch.where(upper > lower, upper - lower, 1.0)
    open_ = unstable(node, x)
    # The quotient is rounded, so the offset that lifts the chord over both ends is not -chord·l.
    offset = torch.maximum(-chord * lower, upper - chord * upper)
    offset = torch.where(open_, rounded_up(offset, torch.maximum(-lower, upper)), 0.0)
    slope = (initial(node, x) if alpha is None else alpha)[0]
    return Relaxation(
        lower_slope=torch.where(open_[:, None], slope, chord[:, None]),
        lower_offset=None,
        upper_slope=chord[:, None],
        upper_offset=offset[:, None],
    )


def ascend(node: Node, x: Bounds, alpha: Tensor, coeff: Tensor, value: Tensor) -> Tensor:
    """d (A+·alpha·z) / d alpha  =  A+·z  on unstable neurons."""
    return (coeff.clamp(min=0) * value * unstable(node, x)[:, None])[None]


elementwise(
    "Relu",
    lambda node, x: x.clamp(min=0),
    interval=interval,
    relax=relax,
    undecided=unstable,
    steepest=lambda node: 1.0,
    free=1,
    initial=initial,
    ascend=ascend,
)
