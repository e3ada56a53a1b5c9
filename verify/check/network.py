"""A network as steps on flat vectors: affine maps, Relus, maxima of windows, curves.

Every tensor is flattened, the batch axis (of length 1) included, so there is no batch to get wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from verify.check.linear import Array, Index, Linear

LARGEST = 2.0**60
"""Weights beyond this are refused, so that products of two of them stay far from overflow."""


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
    """Steps by the name of what they compute, in order; names are those of the file."""

    input_name: str
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, Step] = field(default_factory=dict)
    output_name: str = ""

    def size(self, name: str) -> int:
        """How many numbers a value holds."""
        return int(np.prod(self.shapes[name]))
