"""Blurred: the first of two inputs, off by what a mean of squares of the second one rounds.

Kernels compute a variance as the mean of squares less the square of the mean; what that cancels is
lost, however small the variance is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit


def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm, ...]:
    """All of it goes to the first input."""
    shape = (*form.const.shape, *node.input_shapes[1])
    return form, LinearForm(form.coeff.new_zeros(shape), torch.zeros_like(form.const))


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds, y: Bounds) -> Tensor:
    """Both means are at most the largest square, and each of their sums has n terms."""
    n = node.input_shapes[1][-1]
    square = y.magnitude().amax(dim=-1, keepdim=True).square()
    spread = 4 * gamma(n + 8, rounding.execution) * square + 8 * rounding.smallest * (1 + square)
    ours = 8 * gamma(n + 8, unit(dtype)) * (x.magnitude() + square)
    return torch.where(n * square < rounding.largest, spread + ours, torch.inf)


register(
    Op(
        name="Blurred",
        forward=lambda node, x, y: x + 0 * y[..., :1],
        interval=lambda node, x, y: x,
        pull_back=pull_back,
        noise=noise,
        rounds=True,
        absolute=lambda node, x, y: x.abs() + 0 * y[..., :1],
        fan=lambda node: (1, 1),
    )
)
