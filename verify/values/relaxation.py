"""Relaxation: two lines around an elementwise function."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """lower_slope·z + lower_offset <= f(z) <= upper_slope·z + upper_offset on the node's bounds.

    Attributes:
        lower_slope, lower_offset, upper_slope, upper_offset: shape (batch, row, *node), where row
            is 1 if all rows of a linear form share the lines.
        source: for functions of several inputs (max pooling), which flat entry of the input each
            line reads: shapes as the slopes; None for elementwise functions.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    lower_source: Tensor | None = None
    upper_source: Tensor | None = None
