"""Layout: how the numbers of one input are laid out for the eye."""

from __future__ import annotations

import math
from dataclasses import dataclass

IMAGE, VALUES = "image", "values"
SMALLEST_SQUARE = 49
"""Entries from which a flat input of square length is taken for an image."""
COLUMNS = 16
"""Of the grid in which an input that is no image is shown."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A grid of cells; the cells of an image have one channel or three.

    Attributes:
        kind: `IMAGE` or `VALUES`.
        height, width, channels: of the grid; a grid of values may have empty cells at its end.
        channels_last: whether the channels of a cell lie side by side.
        size: entries of the input.
    """

    kind: str
    height: int
    width: int
    channels: int
    channels_last: bool
    size: int

    def to_record(self) -> dict[str, object]:
        """As the page gets it."""
        return {
            "kind": self.kind,
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "channels_last": self.channels_last,
            "size": self.size,
        }


def layout_of(shape: tuple[int, ...], image: tuple[int, int, int] | None = None) -> Layout:
    """How an input of this shape is shown.

    Args:
        shape: of one input.
        image: (channels, height, width) where a flat input is known to be one.
    """
    size = math.prod(shape)
    if image is not None and image[0] in (1, 3):
        return Layout(IMAGE, image[1], image[2], image[0], False, size)
    if len(shape) == 3 and min(shape) > 0:
        if shape[0] in (1, 3) and min(shape[1:]) > 1:
            return Layout(IMAGE, shape[1], shape[2], shape[0], False, size)
        if shape[2] in (1, 3) and min(shape[:2]) > 1:
            return Layout(IMAGE, shape[0], shape[1], shape[2], True, size)
    long = tuple(length for length in shape if length != 1)
    if len(long) == 2:
        return Layout(IMAGE, long[0], long[1], 1, False, size)
    side = math.isqrt(size)
    if len(long) == 1 and side * side == size >= SMALLEST_SQUARE:
        return Layout(IMAGE, side, side, 1, False, size)
    width = max(1, min(COLUMNS, size))
    return Layout(VALUES, math.ceil(size / width), width, 1, False, size)
