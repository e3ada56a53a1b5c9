"""What all elementwise nonlinear operators share: how lines are pulled back, and their noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verify.errors import InternalError
from verify.graph.ir import Node
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

CHORD_ULPS = 8
"""Roundings in a line's offset computed from its slope; see `rounded_up`."""


def rounded_up(offset: Tensor, scale: Tensor) -> Tensor:
    """An offset moved up past the rounding of its own computation; scale bounds its terms.

    In float32 nothing is moved: that is the arithmetic of searches, and proofs are in float64.
    """
    if offset.dtype == torch.float32:
        return offset
    return offset + scale * (CHORD_ULPS * unit(offset.dtype))


def rows_times(rows: Tensor, offset: Tensor) -> Tensor:
    """Sum over the node of rows · offset; offset has one row or as many; gives (batch, row)."""
    flat, vector = rows.flatten(2), offset.flatten(2)
    if vector.shape[1] == 1:
        return torch.matmul(flat, vector.transpose(1, 2)).squeeze(2)
    return (flat * vector).sum(dim=2)


def pull_back_lines(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm]:
    """A·f(z) >= (A+·lower + A-·upper)(z): the lower line where A > 0, the upper where A < 0."""
    if lines is None:
        raise InternalError(f"node {node.name!r} ({node.op}) was pulled back without lines")
    negative = form.coeff.clamp(max=0)
    const = form.const
    if lines.upper_offset is not None:
        const = const + rows_times(negative, lines.upper_offset)
    if lines.lower_offset is not None:
        const = const + rows_times(form.coeff - negative, lines.lower_offset)
    coeff = form.coeff * lines.lower_slope
    coeff.addcmul_(negative, lines.upper_slope - lines.lower_slope)
    return (LinearForm(coeff, const, form.error),)


def elementwise(
    name: str,
    function: Callable[[Node, Tensor], Tensor],
    *,
    interval: Callable[[Node, Bounds], Bounds],
    relax: Callable[[Node, Bounds, Tensor | None], Relaxation],
    undecided: Callable[[Node, Bounds], Tensor],
    steepest: Callable[[Node], float],
    kernel: Callable[[Node, Rounding, Bounds], Tensor] | None = None,
    free: int = 0,
    initial: Callable[[Node, Bounds], Tensor] | None = None,
    ascend: Callable[[Node, Bounds, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Op:
    """Register an elementwise nonlinear operator.

    Args:
        name: of the operator.
        function: (node, x) -> f(x).
        interval: see `Op.interval`.
        relax: see `Op.relax`.
        undecided: see `Op.undecided`.
        steepest: node -> the largest |slope| of f, and of any line `relax` returns.
        kernel: (node, rounding, bounds) -> how far the executed function may be from f, shape
            (batch, *node); None where executing f is exact.
        free: see `Op.free`.
        initial: see `Op.initial`.
        ascend: see `Op.ascend`.
    """

    def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds) -> Tensor:
        # One rounding per slope product and a dot product over the offsets, of terms that are at
        # most |f| + slope·|z|.
        size = x.magnitude()
        at_zero = function(node, torch.zeros_like(x.lower)).abs()
        terms = at_zero + 2 * steepest(node) * size
        error = 2 * gamma(node.size + 8, unit(dtype)) * terms
        return error if kernel is None else error + kernel(node, rounding, x)

    return register(
        Op(
            name=name,
            forward=function,
            interval=interval,
            pull_back=pull_back_lines,
            noise=noise,
            rounds=kernel is not None,
            relax=relax,
            undecided=undecided,
            free=free,
            initial=initial,
            ascend=ascend,
        )
    )
