"""Frontier: the boxes that a search still has to look at, worst first while memory allows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Parts of the input, and what is known of them.

    Attributes:
        lower, upper: float32, shape (batch, inputs).
        bound: the least margin known to hold there, (batch,), float64.
        open_: which clauses may still be met, bool, (batch, clause).
        number: int64, (batch,): names of the boxes for who records the tree.
    """

    lower: Tensor
    upper: Tensor
    bound: Tensor
    open_: Tensor
    number: Tensor

    def __len__(self) -> int:
        return len(self.bound)

    def take(self, rows: Tensor) -> Boxes:
        """Some of the boxes, by index or mask."""
        return Boxes(
            self.lower[rows],
            self.upper[rows],
            self.bound[rows],
            self.open_[rows],
            self.number[rows],
        )


class Frontier:
    """A store of boxes in arrays that grow by doubling.

    Attributes:
        limit: how many boxes may wait before the newest go first, so that few more come.
        peak: the most that ever waited.
    """

    def __init__(self, first: Boxes, limit: int) -> None:
        """Hold the first boxes."""
        self.limit = limit
        self.peak = 0
        self._count = 0
        self._held = first.take(torch.zeros(0, dtype=torch.int64))
        self.put(first)

    def __len__(self) -> int:
        return self._count

    @property
    def bound(self) -> float:
        """The least bound of all that wait; infinite if nothing does."""
        return float(self._held.bound[: self._count].min()) if self._count else float("inf")

    def put(self, boxes: Boxes) -> None:
        """Add boxes."""
        total = self._count + len(boxes)
        if total > len(self._held):
            self._held = grown(self._held, max(1024, 2 * total))
        for held, new in zip(columns(self._held), columns(boxes), strict=True):
            held[self._count : total] = new
        self._count = total
        self.peak = max(self.peak, total)

    def pop(self, count: int) -> Boxes:
        """Take out the worst boxes, or the newest once too many wait."""
        count = min(count, self._count)
        start = self._count - count
        newest = torch.arange(start, self._count)
        if self._count > self.limit or count == self._count:
            index = newest
        else:
            index = self._held.bound[: self._count].topk(count, largest=False, sorted=False).indices
        taken = self._held.take(index)
        # The last boxes move into the holes.
        holes = index[index < start]
        left = torch.ones(count, dtype=torch.bool)
        left[index[index >= start] - start] = False
        moved = newest[left]
        for held in columns(self._held):
            held[holes] = held[moved]
        self._count = start
        return taken


def columns(boxes: Boxes) -> tuple[Tensor, ...]:
    """The arrays, in order."""
    return boxes.lower, boxes.upper, boxes.bound, boxes.open_, boxes.number


def grown(boxes: Boxes, size: int) -> Boxes:
    """The same boxes in longer arrays."""

    def longer(old: Tensor) -> Tensor:
        new = old.new_empty(size, *old.shape[1:])
        new[: len(old)] = old
        return new

    return Boxes(*(longer(old) for old in columns(boxes)))
