"""A network as steps on flat vectors: affine maps, Relus, maxima of windows, curves.

Every tensor is flattened, the batch axis (of length 1) included, so there is no batch to get wrong.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from verify.check.refusal import Refusal

Array = NDArray[np.float64]
Index = NDArray[np.int64]
LARGEST = 2.0**60
"""Weights beyond this are refused, so that products of two of them stay far from overflow."""

MOST = 2**21
"""Of numbers in one value: what longer sums round is not paid for (`bounds.SPARE`)."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear map W of vectors (batch, n) to (batch, m).

    Attributes:
        weight: its numbers.
        forward: W·x of x and its numbers, or |W|·x of x and their absolute values.
        adjoint: A·W of rows A, (row, m) to (row, n).
        terms, back: products that an output, or an entry of A·W, sums up.
    """

    weight: Array
    forward: Callable[[Array, Array], Array]
    adjoint: Callable[[Array], Array]
    terms: int
    back: int

    def __post_init__(self) -> None:
        """Refuse what could overflow."""
        if np.abs(self.weight).max(initial=0.0) > LARGEST:
            raise Refusal(f"a weight is larger than {LARGEST:g}")

    def apply(self, x: Array, *, absolute: bool = False) -> Array:
        """W·x, or |W|·x."""
        return self.forward(x, np.abs(self.weight) if absolute else self.weight)


def dense(weight: Array) -> Linear:
    """x·W on the last axis, for W of shape (n, m); the axes before it are kept."""
    n, m = weight.shape
    return Linear(
        weight,
        lambda x, w: (x.reshape(-1, n) @ w).reshape(len(x), -1),
        lambda rows: (rows.reshape(-1, m) @ weight.T).reshape(len(rows), -1),
        n,
        m,
    )


def scale(factor: Array) -> Linear:
    """Every entry times a number of its own."""
    return Linear(factor, lambda x, s: x * s, lambda rows: rows * factor, 1, 1)


def pick(index: Index, size: int) -> Linear:
    """Entry i is entry index[i] of `size`, or 0 where that is -1; none is picked twice."""
    kept = index >= 0

    def adjoint(rows: Array) -> Array:
        found = np.zeros((len(rows), size))
        found[:, index[kept]] = rows[:, kept]
        return found

    return Linear(np.ones(1), lambda x, _: np.where(kept, x[:, index], 0.0), adjoint, 0, 0)


def conv(kernel: Array, groups: int, places: int, taps: Index) -> Linear:
    """A convolution of maps (channels, places) with a kernel (out, channels / groups, taps).

    `taps[p, k]` is the place under tap k at p, or the number of places where that is padding.
    """
    out, inner, count = kernel.shape
    kernel = kernel.reshape(groups, out // groups, inner, count)

    def forward(x: Array, w: Array) -> Array:
        maps = np.pad(x.reshape(len(x), groups, inner, places), ((0, 0), (0, 0), (0, 0), (0, 1)))
        patches = maps[..., taps].swapaxes(2, 3).reshape(len(x), groups, len(taps), inner * count)
        found = patches @ w.reshape(groups, -1, inner * count).swapaxes(1, 2)
        return np.asarray(found.swapaxes(2, 3).reshape(len(x), -1))

    def adjoint(rows: Array) -> Array:
        maps = rows.reshape(len(rows), groups, out // groups, -1)
        found = np.zeros((len(rows), groups, inner, places + 1))
        for tap in range(count):  # under one tap, no place is met twice
            found[..., taps[:, tap]] += kernel[..., tap].swapaxes(1, 2) @ maps
        whole: Array = found[..., :-1].reshape(len(rows), -1)
        return whole

    return Linear(kernel, forward, adjoint, inner * count, out // groups * count)


@dataclass(frozen=True)
class Affine:
    """Sum of linear maps of earlier values, plus a bias.

    `bias_size` bounds what the bias was computed from, where it is a difference; `exact` is set
    for moves of data, which no execution rounds.
    """

    parts: Sequence[tuple[str, Linear]]
    bias: Array
    bias_size: Array
    exact: bool = False


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""

    source: str


@dataclass(frozen=True)
class MaxPool:
    """The largest of some entries; `windows[i]` lists them, padded by repeating."""

    source: str
    windows: Index


@dataclass(frozen=True)
class Curve:
    """Sigmoid or Tanh, by its name in ONNX."""

    source: str
    kind: str


Step = Affine | Relu | MaxPool | Curve


@dataclass
class Network:
    """Steps by the name of what they compute, in order; names are those of the file.

    `ordered` says that a Softmax of the output follows, which keeps its order.
    """

    input_name: str
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, Step] = field(default_factory=dict)
    output_name: str = ""
    ordered: bool = False

    def size(self, name: str) -> int:
        """How many numbers a value holds."""
        return math.prod(self.shapes[name])

    def widest(self) -> int:
        """The largest number of entries of a value."""
        return max(self.size(name) for name in self.shapes)
