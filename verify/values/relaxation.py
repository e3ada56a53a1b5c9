"""Relaxation: two lines around a function of one entry, or two planes around one of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """lower_slope·z + lower_offset <= f(z) <= upper_slope·z + upper_offset on the node's bounds.

    Attributes:
        lower_slope, upper_slope: shape (batch, row, *node), where row is 1 if all rows of a linear
            form share the lines.
        lower_offset, upper_offset: same shape, or None where they are zero everywhere.
        lower_source, upper_source: for functions of several inputs (max pooling), the flat index
            of the input entry that each line reads, shape (batch, *node); None for elementwise
            functions.
        second: for functions of two inputs, the slopes in the second one (its offsets are None).
        mixed: whether the slopes are matrices that only the operator's own rules can apply
            (MatMul, Softmax); the offsets are per entry, as always.
    """

    lower_slope: Tensor
    lower_offset: Tensor | None
    upper_slope: Tensor
    upper_offset: Tensor | None
    lower_source: Tensor | None = None
    upper_source: Tensor | None = None
    second: Relaxation | None = None
    mixed: bool = False

    def to(self, dtype: torch.dtype) -> Relaxation:
        """The same lines in another dtype, rounded to nearest: for searches, not for proofs."""

        def cast(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(dtype)

        return Relaxation(
            self.lower_slope.to(dtype),
            cast(self.lower_offset),
            self.upper_slope.to(dtype),
            cast(self.upper_offset),
            self.lower_source,
            self.upper_source,
            None if self.second is None else self.second.to(dtype),
            self.mixed,
        )
