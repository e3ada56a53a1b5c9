"""Linear maps on flat vectors: applied, applied with absolute weights, and transposed.

A map takes vectors of shape (batch, n) to (batch, m); its adjoint takes rows of shape (row, m) to
(row, n). `terms` bounds how many products an output sums up, `back` how many an adjoint's entry.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from verify.check.refusal import Refusal

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Linear(Protocol):
    """What every linear map can do."""

    @property
    def terms(self) -> int:
        """Products in one output."""
        ...

    @property
    def back(self) -> int:
        """Products in one entry of a row pulled back."""
        ...

    def apply(self, x: Array, *, absolute: bool = False) -> Array:
        """W·x, or |W|·x."""
        ...

    def adjoint(self, rows: Array) -> Array:
        """A·W for rows A."""
        ...


@dataclass(frozen=True)
class Dense:
    """x·W on the last axis, of length n; the axes before it are kept."""

    weight: Array  # (n, m)

    @property
    def terms(self) -> int:
        """Products in one output."""
        return len(self.weight)

    @property
    def back(self) -> int:
        """Products in one entry of a row pulled back."""
        return int(self.weight.shape[1])

    def apply(self, x: Array, *, absolute: bool = False) -> Array:
        """W·x, or |W|·x."""
        weight = np.abs(self.weight) if absolute else self.weight
        found: Array = (x.reshape(-1, len(weight)) @ weight).reshape(len(x), -1)
        return found

    def adjoint(self, rows: Array) -> Array:
        """A·W."""
        flat = rows.reshape(-1, self.weight.shape[1])
        found: Array = (flat @ self.weight.T).reshape(len(rows), -1)
        return found


@dataclass(frozen=True)
class Conv:
    """A convolution of maps (channels, places); `taps[p, k]` is the place under tap k at p, or the
    number of places where that lies in the padding."""

    kernel: Array  # (out, in / groups, taps)
    groups: int
    channels: int
    places: int
    taps: Index  # (out places, taps)

    @property
    def terms(self) -> int:
        """Products in one output."""
        return int(self.kernel.shape[1] * self.kernel.shape[2])

    @property
    def back(self) -> int:
        """Products in one entry of a row pulled back."""
        return int(self.kernel.shape[0] * self.kernel.shape[2])

    def apply(self, x: Array, *, absolute: bool = False) -> Array:
        """W·x, or |W|·x."""
        kernel = np.abs(self.kernel) if absolute else self.kernel
        maps = x.reshape(len(x), self.channels, self.places)
        maps = np.concatenate((maps, np.zeros((len(x), self.channels, 1))), axis=2)
        patches = maps[:, :, self.taps]  # (batch, channels, out places, taps)
        inner, outer = self.channels // self.groups, len(kernel) // self.groups
        parts = [
            np.einsum(
                "bcpk,ock->bop",
                patches[:, g * inner : (g + 1) * inner],
                kernel[g * outer : (g + 1) * outer],
                optimize=True,
            )
            for g in range(self.groups)
        ]
        return np.concatenate(parts, axis=1).reshape(len(x), -1)

    def adjoint(self, rows: Array) -> Array:
        """A·W, a tap at a time: under one tap, no place is met twice."""
        inner, outer = self.channels // self.groups, len(self.kernel) // self.groups
        found = np.zeros((len(rows), self.channels, self.places + 1))
        maps = rows.reshape(len(rows), len(self.kernel), -1)
        for g in range(self.groups):
            part = maps[:, g * outer : (g + 1) * outer].transpose(0, 2, 1)
            kernel = self.kernel[g * outer : (g + 1) * outer]
            for tap in range(kernel.shape[2]):
                moved = (part @ kernel[:, :, tap]).transpose(0, 2, 1)
                found[:, g * inner : (g + 1) * inner, self.taps[:, tap]] += moved
        return found[:, :, :-1].reshape(len(rows), -1)


@dataclass(frozen=True)
class Scale:
    """Every entry times a number of its own."""

    factor: Array  # (n,)
    terms: int = 1
    back: int = 1

    def apply(self, x: Array, *, absolute: bool = False) -> Array:
        """s·x, or |s|·x."""
        return x * (np.abs(self.factor) if absolute else self.factor)

    def adjoint(self, rows: Array) -> Array:
        """A·s."""
        return rows * self.factor


@dataclass(frozen=True)
class Pick:
    """Entry i of the output is entry index[i] of the input, or 0 where that is -1."""

    index: Index  # (m,)
    size: int
    terms: int = 0

    @property
    def back(self) -> int:
        """An entry that is picked n times is summed n times; once is no sum."""
        counts = np.bincount(self.index[self.index >= 0], minlength=1)
        return int(counts.max()) if counts.max() > 1 else 0

    def apply(self, x: Array, *, absolute: bool = False) -> Array:
        """The picked entries."""
        del absolute
        return np.where(self.index >= 0, x[:, self.index], 0.0)

    def adjoint(self, rows: Array) -> Array:
        """Every coefficient goes back to where its entry came from."""
        found = np.zeros((self.size, len(rows)))
        kept = self.index >= 0
        np.add.at(found, self.index[kept], rows.T[kept])
        return np.ascontiguousarray(found.T)


def window_taps(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    ceil: bool = False,
) -> tuple[Index, tuple[int, ...]]:
    """Places under each tap of each window, and the shape of the map of windows.

    Places outside the map are numbered as one past the last. Pads are all begins, then all ends.
    """
    if ceil:
        raise Refusal("pooling with ceil_mode is not known to the checker")
    rank = len(space)
    axes, lengths = [], []
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        length = (space[axis] + pads[axis] + pads[rank + axis] - reach) // strides[axis] + 1
        if length < 1:
            raise Refusal("a window is larger than its map")
        starts = np.arange(length) * strides[axis] - pads[axis]
        axes.append(starts[:, None] + np.arange(kernel[axis]) * dilations[axis])
        lengths.append(length)
    place = np.zeros((*lengths, *kernel), dtype=np.int64)
    inside = np.ones(place.shape, dtype=bool)
    for axis, along in enumerate(axes):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = along.shape
        place = place * space[axis] + along.reshape(shape)
        inside &= ((along >= 0) & (along < space[axis])).reshape(shape)
    flat = np.where(inside, place, int(np.prod(space)))
    return flat.reshape(int(np.prod(lengths)), -1), tuple(lengths)
