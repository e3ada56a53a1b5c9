"""KMNC: equal sections of each neuron's usual range, found for a whole batch by bit masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verify.coverage.criteria import own
from verify.coverage.layers import Layer
from verify.coverage.profile import Profile
from verify.errors import SettingError
from verify.values.bounds import Bounds

LITTLE_ENDIAN = "<i8"
MOST_BITS = 61
"""Sections that fit in one integer beside what is below and above."""


@dataclass(frozen=True, slots=True, eq=False)
class MultisectionCoverage:
    """KMNC: each neuron's range on training data in k equal sections, each to be reached.

    A neuron that never changed on the training data has no sections, and is left out.

    Attributes:
        profile: of the training data.
        k: sections per neuron.

    Source:
        Ma et al. 2018 (DeepGauge), arXiv:1803.07519, section 3.1.
    """

    profile: Profile
    k: int = 10

    def __post_init__(self) -> None:
        """Refuse what is no number of sections."""
        if self.k < 1:
            raise SettingError(f"k is {self.k}, expected at least 1 section")

    def sections(self) -> int:
        """The number k."""
        return self.k

    def meant(self, layer: Layer) -> Tensor:
        """Those of neurons that changed."""
        seen = self.profile[layer.name]
        return (seen.high > seen.low)[:, None].expand(-1, self.k).clone()

    def place(self, layer: Layer, values: Tensor) -> Tensor:
        """The section of each value, -1 below the range, k above; like the values.

        The uppermost section holds its upper end.
        """
        seen = self.profile[layer.name]
        index = self._raw(layer, values)
        return torch.where((index == self.k) & (values <= seen.high), self.k - 1, index)

    def hits(self, layer: Layer, values: Tensor, known: Tensor | None = None) -> Tensor:
        """The sections that values fall in."""
        if self.k > MOST_BITS:
            # One column more at each end for what is outside.
            reached = torch.zeros(layer.neurons, self.k + 2, dtype=torch.bool)
            index = self.place(layer, values).nan_to_num(nan=-1.0).to(torch.int64)
            reached.scatter_(1, index.T + 1, True)
            return reached[:, 1:-1] & self.meant(layer)
        index = self._raw(layer, values).add_(1).to(torch.int64 if self.k > 29 else torch.int32)
        bits = torch.bitwise_left_shift(torch.ones((), dtype=index.dtype), index)
        union = np.bitwise_or.reduce(bits.numpy(), axis=0).astype(LITTLE_ENDIAN)
        unpacked = np.unpackbits(union[:, None].view(np.uint8), axis=1, bitorder="little")
        reached = torch.from_numpy(unpacked[:, 1 : self.k + 2].view(np.bool_))
        # At or above the end: those at it are in the uppermost section.
        at = reached[:, self.k] & ~reached[:, self.k - 1]
        end = (at if known is None else at & ~known[:, self.k - 1]).nonzero().flatten()
        if len(end):
            seen = self.profile[layer.name]
            few = values.index_select(1, end)
            # Subtracting and dividing are monotone, so none below the end can be among them.
            at_end = (few <= seen.high[end]) & (self._raw(layer, few, end) == self.k)
            reached[end, self.k - 1] |= at_end.any(dim=0)
        return reached[:, : self.k] & self.meant(layer)

    def _raw(self, layer: Layer, values: Tensor, neurons: Tensor | None = None) -> Tensor:
        """floor(k * share of the range), from -1 to k; NaN stays."""
        seen = self.profile[layer.name]
        low, high = seen.low, seen.high
        if neurons is not None:
            low, high = low[neurons], high[neurons]
        width = torch.where(high > low, high - low, 1.0)
        return (values.detach() - low).div_(width).mul_(self.k).floor_().clamp_(-1, self.k)

    def edges(self, layer: Layer) -> Tensor:
        """The ends of the sections, shape (neurons, k + 1)."""
        seen = self.profile[layer.name]
        share = torch.arange(self.k + 1, dtype=seen.low.dtype) / self.k
        return seen.low[:, None] + (seen.high - seen.low)[:, None] * share

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """Sections that overlap the bounds, rounding of their ends included."""
        edges = self.edges(layer).double()
        slack = 8 * 2.0**-24 * (edges.abs().amax(dim=1, keepdim=True) * 2)
        low, high = bounds.lower[0][:, None], bounds.upper[0][:, None]
        return ~((high < edges[:, :-1] - slack) | (low > edges[:, 1:] + slack)) & self.meant(layer)

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """The distance from the section's middle, less half its width."""
        edges = self.edges(layer)[neuron]
        low = edges.gather(1, section[:, None])[:, 0]
        high = edges.gather(1, section[:, None] + 1)[:, 0]
        return (own(values, neuron) - (low + high) / 2).abs() - (high - low) / 2
