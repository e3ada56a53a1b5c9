"""Boxes: parts of a range of parameters, that together cover it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.geometric.sampling import Cells, sampled
from verify.geometric.transforms import Transform

TRAVEL = 1.0
"""Pixels that a sampled point may move by in a first box of one parameter (measured: beyond, most
boxes of trained networks need a split)."""
WIDE_TRAVEL = 0.75
"""The same per parameter where there are several."""
MOST_PARTS = 8
"""Parts that a box is cut into at once at most."""
ORDER = 2.0
"""How fast gaps fall with the width of a box: as its square, but for pixels at a cell's border."""
AIM = 0.9
"""Part of the margin at a box's centre that the gaps of its parts are to take at most."""
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
        return self.cut(1 + torch.zeros_like(score).scatter(1, axis, 1.0).long())

    def cut(self, counts: Tensor) -> Boxes:
        """Each cut into a grid of so many parts per parameter, which share their cuts.

        Args:
            counts: at least 1 each, shape (box, parameter).
        """
        parts = self
        for axis in range(counts.shape[1]):
            many = counts[:, axis]
            # The position of each part within its box: 0 .. count - 1.
            place = torch.cat([torch.arange(int(n)) for n in many])[:, None]
            row = torch.arange(len(many)).repeat_interleave(many)
            parts, counts = parts.take(row), counts[row]
            low, high = parts.low[:, axis : axis + 1], parts.high[:, axis : axis + 1]
            step, total = high - low, counts[:, axis : axis + 1]
            # The same expression for the end of one part and the start of the next.
            start = torch.where(place == 0, low, low + step * (place / total))
            end = torch.where(place + 1 == total, high, low + step * ((place + 1) / total))
            index = torch.full_like(place, axis)
            parts = Boxes(parts.low.scatter(1, index, start), parts.high.scatter(1, index, end))
        return parts

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


def parts_for(score: Tensor, excess: float, most: int = MOST_PARTS) -> list[int]:
    """Into how many parts to cut each parameter, so that a gap falls to 1 / excess of itself.

    Each parameter is taken to cause a part of the gap proportional to its score, which falls with
    `ORDER` as it is cut.

    Args:
        score: shape (parameter,), not negative and not all 0; 0 where there is no width to cut.
        excess: the gap over what is allowed; at least one cut is made anyway.
        most: parts in all.
    """
    share: list[float] = (score / score.sum()).tolist()
    counts = [1] * len(share)

    def left(i: int, count: int) -> float:
        return share[i] / math.pow(count, ORDER)

    while True:
        gains = [left(i, n) - left(i, n + 1) for i, n in enumerate(counts)]
        best = max(range(len(counts)), key=gains.__getitem__)
        grown = [n + (i == best) for i, n in enumerate(counts)]
        if math.prod(counts) > 1 and (
            math.prod(grown) > most or sum(left(i, n) for i, n in enumerate(counts)) * excess <= 1.0
        ):
            return counts
        counts = grown


def parts(boxes: Boxes, moved: Tensor, middle: Tensor, margin: Tensor) -> Tensor:
    """Into how many parts to cut each box along each parameter, shape (box, parameter).

    At the centre the margin is known; the gap from there down to the bound must shrink to less
    than that, and is expected to with the size of the box.

    Args:
        boxes: not proved.
        moved: how much each parameter moves the worst row, shape (box, parameter), not negative.
        middle: the margins at their centres, shape (box,).
        margin: the bounds of their worst rows, shape (box,).
    """
    excess = (middle - margin) / (middle * AIM)
    # Beyond a counterexample, and wherever nothing is known: halves.
    excess = torch.where((middle > 0) & torch.isfinite(excess), excess, 1.0)
    score = moved.nan_to_num(1.0, posinf=1.0).clamp(min=1e-300)
    score = torch.where(boxes.high > boxes.low, score, 0.0)
    return torch.tensor([parts_for(*row) for row in zip(score, excess.tolist(), strict=True)])


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
