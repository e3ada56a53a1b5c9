"""Boxes: parts of a range of parameters, that together cover it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.geometric.sampling import Cells, sampled
from verify.geometric.transforms import Transform

TRAVEL = 1.5
"""Pixels that a sampled point may move by in a first box of one parameter (measured: beyond, most
boxes of trained networks need a split)."""
WIDE_TRAVEL = 1.0
"""The same per parameter where there are several: translations are then cut at whole pixels."""
MOST_FIRST = 256
"""First boxes at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Some boxes.

    Attributes:
        low, high: shape (box, parameter), float64, in the units of the steps.
    """

    low: Tensor
    high: Tensor

    def __len__(self) -> int:
        """How many."""
        return len(self.low)

    def take(self, rows: Tensor) -> Boxes:
        """Some of them, by indices or a mask."""
        return Boxes(self.low[rows], self.high[rows])

    def joined(self, other: Boxes) -> Boxes:
        """These and others."""
        return Boxes(torch.cat((self.low, other.low)), torch.cat((self.high, other.high)))

    def halved(self, score: Tensor) -> Boxes:
        """Both halves of each, along the parameter of the highest score that can be split.

        They share the cut, so that they cover the box.
        """
        wide = self.high > self.low
        axis = torch.where(wide, score, -1.0).argmax(dim=1, keepdim=True)
        low, high = self.low.gather(1, axis), self.high.gather(1, axis)
        middle = low + (high - low) / 2
        below = Boxes(self.low, self.high.scatter(1, axis, middle))
        return below.joined(Boxes(self.low.scatter(1, axis, middle), self.high))

    def least_share(self, transform: Transform) -> Tensor:
        """The least share of the range that touches each box, rounded down; shape (box,)."""
        origin = transform.origin
        nearest = torch.minimum(torch.maximum(origin, self.low), self.high)
        return transform.share(nearest) * (1 - 2.0**-48)

    def volume(self, transform: Transform) -> Tensor:
        """Each box's part of the whole range; a parameter without a range counts as whole."""
        room = transform.high - transform.low
        part = torch.where(room > 0, (self.high - self.low) / torch.where(room > 0, room, 1.0), 1.0)
        return part.prod(dim=1)


def coarse(transform: Transform, image: Tensor) -> Boxes:
    """A grid over the range whose boxes move sampled points by a pixel or so."""
    low, high = transform.low, transform.high
    counts = [1] * len(transform.steps)
    if transform.spatial:
        whole = sampled(transform, Cells.between(low[None], high[None]), *image.shape[1:])
        allowed = TRAVEL if len(transform.steps) == 1 else WIDE_TRAVEL
        for k, i in enumerate(transform.spatial):
            travel = 2 * float((whole.slope[0, k].abs() + whole.bend[0, k] / 4).amax())
            counts[i] = max(1, math.ceil(travel / allowed)) if math.isfinite(travel) else 1
    while math.prod(counts) > MOST_FIRST:
        widest = counts.index(max(counts))
        counts[widest] = (counts[widest] + 1) // 2
    ends = []
    for i, count in enumerate(counts):
        cut = low[i] + (high[i] - low[i]) * torch.arange(count + 1, dtype=torch.float64) / count
        cut[-1] = high[i]
        ends.append(cut)
    grid = torch.cartesian_prod(*(torch.arange(count) for count in counts)).view(-1, len(counts))
    return Boxes(
        torch.stack([ends[i][grid[:, i]] for i in range(len(counts))], dim=1),
        torch.stack([ends[i][grid[:, i] + 1] for i in range(len(counts))], dim=1),
    )
