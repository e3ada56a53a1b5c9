"""Window: where the coefficients of local rows lie, when only a patch of the map can be non-zero.

A row for one output of a convolution reads a small patch of each earlier map. Kept as patches, the
pull-back costs as much as the patches hold, not as much as the maps. Patches may overhang the map;
what overhangs stands for padding and is zeroed before it could meet anything but zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Patch p starts at `stride * position(p) + offset` on a map, position running over a grid.

    Attributes:
        place: which grid position each row sits at, flat, int64, shape (batch, places); rows of a
            form are `repeats` blocks of these, in the same order.
        repeats: blocks of rows that share the places (2 where rows come with their negations).
        grid: positions along height and width, of the node the rows started at.
        stride: cells of this map per grid step, along height and width.
        offset: first cell of position 0; negative where padding precedes the map.
    """

    place: Tensor
    repeats: int
    grid: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]

    def through(self, stride: tuple[int, int], padding: tuple[int, int]) -> Window:
        """The window over the input of a convolution with these settings."""
        return replace(
            self,
            stride=(self.stride[0] * stride[0], self.stride[1] * stride[1]),
            offset=(
                self.offset[0] * stride[0] - padding[0],
                self.offset[1] * stride[1] - padding[1],
            ),
        )

    def pads(self, shape: tuple[int, ...], kernel: tuple[int, int]) -> tuple[int, int, int, int]:
        """How far patches overhang a map (channels, height, width): left, right, top, bottom."""
        over = []
        for axis in (1, 0):
            last = (self.grid[axis] - 1) * self.stride[axis] + self.offset[axis] + kernel[axis]
            over += [max(0, -self.offset[axis]), max(0, last - shape[1 + axis])]
        return (over[0], over[1], over[2], over[3])

    def overhangs(self, shape: tuple[int, ...], kernel: tuple[int, int]) -> bool:
        """Whether some patch leaves the map."""
        return any(self.pads(shape, kernel))

    def table(self, values: Tensor, kernel: tuple[int, int], fill: float = 0.0) -> Tensor:
        """The patches of a map, one per grid position.

        Args:
            values: shape (batch, channels, height, width).
            kernel: height and width of a patch.
            fill: what overhanging cells hold.

        Returns:
            Shape (batch, positions, channels * kernel height * kernel width).
        """
        patches = self.patches(values, kernel, fill)
        return patches.reshape(values.shape[0], self.grid[0] * self.grid[1], -1)

    def patches(self, values: Tensor, kernel: tuple[int, int], fill: float = 0.0) -> Tensor:
        """The same as a view: (batch, *grid, channels, *kernel); nothing is copied but a frame."""
        left, right, top, bottom = self.pads(tuple(values.shape[1:]), kernel)
        if left or right or top or bottom:
            values = functional.pad(values, (left, right, top, bottom), value=fill)
        start_y, start_x = self.offset[0] + top, self.offset[1] + left
        batch_step, channel_step, row_step, cell_step = values.stride()
        return values.as_strided(
            (values.shape[0], *self.grid, values.shape[1], *kernel),
            (
                batch_step,
                self.stride[0] * row_step,
                self.stride[1] * cell_step,
                channel_step,
                row_step,
                cell_step,
            ),
            values.storage_offset() + start_y * row_step + start_x * cell_step,
        )

    def gather(self, values: Tensor, kernel: tuple[int, int], step: int = 1) -> Tensor:
        """The patch under each row; shape (batch, 1, places, channels, *kernel).

        The axis of length 1 stands for the blocks of rows. With a step, patches are split into
        step² interleaved parts: (batch, 1, places, channels * step², *(kernel / step)).
        """
        table = self.some(values, kernel) if self.few() else self.table(values, kernel)
        if step > 1:
            patches = table.view(-1, values.shape[1], *kernel)
            table = functional.pixel_unshuffle(patches, step).reshape(table.shape)
        if self.few():
            rows = table
        elif len(self.place) == 1 and len(table) == 1:
            rows = table[0].index_select(0, self.place[0])[None]
        else:
            # One map for the whole batch is still read at each entry's own places.
            index = self.place[:, :, None].expand(-1, -1, table.shape[2])
            rows = table.expand(len(index), -1, -1).gather(1, index)
        parts = (values.shape[1] * step * step, kernel[0] // step, kernel[1] // step)
        return rows.view(len(rows), 1, -1, *parts)

    def few(self) -> bool:
        """Whether rows sit at fewer places than there are: then only their patches are copied."""
        return self.place.shape[1] < self.grid[0] * self.grid[1]

    def some(self, values: Tensor, kernel: tuple[int, int]) -> Tensor:
        """The patch under each row, flat: (batch, places, channels * kernel height * width)."""
        patches = self.patches(values, kernel).expand(len(self.place), *[-1] * 5)
        y, x = self.place // self.grid[1], self.place % self.grid[1]
        if len(self.place) == 1:
            return patches[:, y[0], x[0]].flatten(2)
        entry = torch.arange(len(self.place), device=self.place.device)[:, None]
        return patches[entry, y, x].flatten(2)

    def inside(self, shape: tuple[int, ...], kernel: tuple[int, int], like: Tensor) -> Tensor:
        """1 on cells of the map, 0 on overhanging ones; (batch, 1, places, 1, *kernel)."""
        ones = like.new_ones(len(self.place), 1, *shape[1:])
        return self.gather(ones, kernel)

    def scatter(self, coeff: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Patches laid into zeros.

        Args:
            coeff: shape (batch, row, channels, *kernel).
            shape: of the map (channels, height, width).

        Returns:
            Shape (batch, row, *shape).
        """
        batch, row, channels, height, width = coeff.shape
        left, right, top, bottom = self.pads(shape, (height, width))
        tall, wide = shape[1] + top + bottom, shape[2] + left + right
        device = coeff.device
        y, x = self.place // self.grid[1], self.place % self.grid[1]
        base = (y * self.stride[0] + self.offset[0] + top) * wide
        base = base + x * self.stride[1] + self.offset[1] + left
        cells = (torch.arange(height, device=device) * wide)[:, None]
        cells = (cells + torch.arange(width, device=device)).reshape(-1)
        target = (base[:, :, None] + cells).repeat(1, self.repeats, 1)
        target = target[:, :, None].expand(batch, row, channels, -1)
        laid = coeff.new_zeros(batch, row, channels, tall * wide)
        laid.scatter_(3, target, coeff.reshape(batch, row, channels, -1))
        laid = laid.view(batch, row, channels, tall, wide)
        return laid[:, :, :, top : top + shape[1], left : left + shape[2]]

    def grown(self, coeff: Tensor, other: Window, kernel: tuple[int, int]) -> Tensor:
        """Coefficients padded so that their patches also cover the other window's."""
        height, width = coeff.shape[3:]
        top = max(0, self.offset[0] - other.offset[0])
        left = max(0, self.offset[1] - other.offset[1])
        bottom = max(0, other.offset[0] + kernel[0] - self.offset[0] - height)
        right = max(0, other.offset[1] + kernel[1] - self.offset[1] - width)
        return functional.pad(coeff, (left, right, top, bottom))

    def union(self, other: Window) -> Window:
        """The window of patches that cover both."""
        return replace(
            self,
            offset=(
                min(self.offset[0], other.offset[0]),
                min(self.offset[1], other.offset[1]),
            ),
        )


@dataclass(frozen=True, slots=True)
class Phases:
    """A map kept as its step² interleaved sub-maps, as a strided transposed convolution makes it.

    Interleaving them costs as much as the convolution; a minimum over a box does not need it, since
    the box can be split the same way.

    Attributes:
        step: cells of the map per cell of a sub-map.
        top, left: cells before the map's first one.
    """

    step: int
    top: int
    left: int

    def split(self, values: Tensor, height: int, width: int) -> Tensor:
        """Values over the map, (batch, channels, ...), as sub-maps of the given size; 0 outside."""
        below = height * self.step - self.top - values.shape[2]
        right = width * self.step - self.left - values.shape[3]
        framed = functional.pad(values, (self.left, right, self.top, below))
        return functional.pixel_unshuffle(framed, self.step)

    def joined(self, coeff: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Coefficients (batch, row, sub-maps, height, width) over the map (channels, ...) again."""
        whole = functional.pixel_shuffle(coeff.flatten(0, 1), self.step)
        below = max(0, self.top + shape[1] - whole.shape[2])
        right = max(0, self.left + shape[2] - whole.shape[3])
        if below or right:
            whole = functional.pad(whole, (0, right, 0, below))
        whole = whole[:, :, self.top : self.top + shape[1], self.left : self.left + shape[2]]
        return whole.reshape(*coeff.shape[:2], *whole.shape[1:])
