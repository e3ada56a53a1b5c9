"""Bounds: an elementwise enclosure of one node's value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.errors import ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Elementwise enclosure of a node: lower <= value <= upper for every input in the region.

    Attributes:
        lower: shape (batch, *node), in the units of the node.
        upper: same shape, dtype and device as `lower`.

    A batch row with lower > upper somewhere is empty: nothing in that domain is reachable.
    It is kept, not rejected, so that a search can prune it.

    Raises:
        ShapeError: if `lower` and `upper` differ in shape.
    """

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape:
            raise ShapeError(
                f"Bounds need one shape, got lower {tuple(self.lower.shape)} "
                f"and upper {tuple(self.upper.shape)}."
            )

    def intersect(self, other: Bounds) -> Bounds:
        """The tighter of two enclosures of the same value; sound whenever both are."""
        return Bounds(
            torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        )

    def magnitude(self) -> Tensor:
        """The largest absolute value each entry can take; shape (batch, *node)."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def to(self, dtype: torch.dtype) -> Bounds:
        """The same enclosure in another dtype, rounded to nearest: for searches, not for proofs."""
        return Bounds(self.lower.to(dtype), self.upper.to(dtype))

    def take(self, rows: Tensor) -> Bounds:
        """The batch rows named by `rows` (indices or a mask)."""
        return Bounds(self.lower[rows], self.upper[rows])
