"""Exact values, ranges and gradients of bilinear interpolation over rectangles of sampled points.

All tensors are (channel, box, pixel): the indices of a box serve every channel. The image is zero
outside, which two rings of zeros stand for; what lies further out sees those.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from verify.values.bounds import Bounds

RINGS = 2
"""Of zeros around the image: a cell whose four corners are zero is all that lies outside."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One image, ready to be sampled.

    Attributes:
        padded: shape (channel, padded height · padded width), float64.
        height, width: of the image, without the rings.
    """

    padded: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, image: Tensor) -> Picture:
        """From an image of shape (channel, height, width)."""
        rings = functional.pad(image.to(torch.float64), (RINGS,) * 4)
        return cls(rings.flatten(1), image.shape[1], image.shape[2])

    def centred(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row of points given about the centre, shape (box, 2, pixel)."""
        return points[:, 0] + (self.width - 1) / 2, points[:, 1] + (self.height - 1) / 2

    def corner(self, column: Tensor, row: Tensor) -> Tensor:
        """The pixels at whole columns and rows (as floats), zero outside."""
        across = column.clamp(-RINGS, self.width + RINGS - 1).long() + RINGS
        down = row.clamp(-RINGS, self.height + RINGS - 1).long() + RINGS
        return self.padded[:, down * (self.width + 2 * RINGS) + across]

    def at(self, column: Tensor, row: Tensor) -> Tensor:
        """The interpolated values at any points, shape (channel, *column)."""
        # Far outside, where the fraction means nothing, all corners are zero.
        left = column.floor().clamp(-RINGS, self.width)
        top = row.floor().clamp(-RINGS, self.height)
        across, down = (column - left).clamp(0, 1), (row - top).clamp(0, 1)
        upper = torch.lerp(self.corner(left, top), self.corner(left + 1, top), across)
        lower = torch.lerp(self.corner(left, top + 1), self.corner(left + 1, top + 1), across)
        return torch.lerp(upper, lower, down)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Rectangles of points and the values at the corners of the pieces that cells cut them into.

    Bilinear interpolation less any plane is bilinear on each piece, so its extremes over the
    rectangle are among these points (Ruoss et al. 2021, arXiv:2009.09318, use the same).

    Attributes:
        columns, rows: the cuts along either axis, ends included, lists of (box, pixel).
        values: values[i][j] at rows[i] and columns[j], shape (channel, box, pixel).
    """

    columns: list[Tensor]
    rows: list[Tensor]
    values: list[list[Tensor]]

    def range(self) -> Bounds:
        """The exact range over each rectangle, up to rounding."""
        flat = torch.stack([value for line in self.values for value in line])
        return Bounds(flat.amin(dim=0), flat.amax(dim=0))


def cuts(low: Tensor, high: Tensor, size: int) -> list[Tensor]:
    """low, the whole numbers between, and high; as many for all as the widest needs.

    Beyond the rings all is zero, and nothing is cut there.
    """
    first = low.clamp(-RINGS, size + 1).floor()
    count = int((high.clamp(-RINGS, size + 1).floor() - first).amax())
    between = [torch.minimum(torch.maximum(first + i, low), high) for i in range(1, count + 1)]
    return [low, *between, high]


def patch(picture: Picture, middle: Tensor, reach: Tensor) -> Patch:
    """The values over the rectangles middle ± reach, each of shape (box, 2, pixel)."""
    left, top = picture.centred(middle - reach)
    right, bottom = picture.centred(middle + reach)
    across, down = cuts(left, right, picture.width), cuts(top, bottom, picture.height)
    values = [[picture.at(column, row) for column in across] for row in down]
    return Patch(across, down, values)


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Enclosures of both partial derivatives over rectangles, across all cells that they touch.

    Attributes:
        across: of d value / d column, shape (channel, box, pixel).
        down: of d value / d row.
    """

    across: Bounds
    down: Bounds


def gradients(picture: Picture, middle: Tensor, reach: Tensor) -> Gradients:
    """The derivatives over middle ± reach; where they jump, the hull of both sides.

    Within a cell, d/dcolumn is affine in the row and does not depend on the column.
    """
    left, top = picture.centred(middle - reach)
    right, bottom = picture.centred(middle + reach)
    first_column, first_row = left.floor(), top.floor()
    # Whole far ends touch the next cell too, whose derivative counts at the shared border.
    columns = int((right.floor() - first_column).amax()) + 1
    rows = int((bottom.floor() - first_row).amax()) + 1
    grid = [
        [picture.corner(first_column + j, first_row + i) for j in range(columns + 1)]
        for i in range(rows + 1)
    ]
    across: Bounds | None = None
    down: Bounds | None = None
    for i in range(rows):
        for j in range(columns):
            # The first cell is always touched; others may lie beyond the rectangle.
            touched = (first_column + j <= right) & (first_row + i <= bottom)
            nw, ne, sw, se = grid[i][j], grid[i][j + 1], grid[i + 1][j], grid[i + 1][j + 1]
            v0 = (top - (first_row + i)).clamp(0, 1)
            v1 = (bottom - (first_row + i)).clamp(0, 1)
            u0 = (left - (first_column + j)).clamp(0, 1)
            u1 = (right - (first_column + j)).clamp(0, 1)
            north, south, west, east = ne - nw, se - sw, sw - nw, se - ne
            ends = (torch.lerp(north, south, v0), torch.lerp(north, south, v1))
            sides = (torch.lerp(west, east, u0), torch.lerp(west, east, u1))
            here = Bounds(torch.minimum(*ends), torch.maximum(*ends))
            there = Bounds(torch.minimum(*sides), torch.maximum(*sides))
            across = here if across is None else hull(across, here, touched)
            down = there if down is None else hull(down, there, touched)
    assert across is not None
    assert down is not None
    return Gradients(across, down)


def hull(old: Bounds, new: Bounds, where: Tensor) -> Bounds:
    """The hull of both where the mask says so, else the old one."""
    return Bounds(
        torch.where(where, torch.minimum(old.lower, new.lower), old.lower),
        torch.where(where, torch.maximum(old.upper, new.upper), old.upper),
    )
