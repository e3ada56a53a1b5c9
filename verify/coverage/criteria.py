"""Criteria that tick off sections of neurons: NC, KMNC, NBC, SNAC, TKNC.

Each says which obligations, (neuron, section) of a layer, a batch of values covers. What a test set
covers is the union over its inputs, so batches may come in any order, and sets may be joined and
compared. Each also says which obligations bounds prove to be out of reach, and how far a value is
from one, which a search can bring down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verify.coverage.layers import Layer
from verify.coverage.profile import Profile
from verify.errors import SettingError
from verify.values.bounds import Bounds


class MaskCriterion(Protocol):
    """A criterion whose coverage is a mask of (neurons, sections) per layer."""

    def sections(self) -> int:
        """Obligations per neuron."""
        ...

    def meant(self, layer: Layer) -> Tensor:
        """Which obligations exist; bool, (neurons, sections)."""
        ...

    def hits(self, layer: Layer, values: Tensor) -> Tensor:
        """Which obligations values of shape (batch, neurons) cover; bool, (neurons, sections)."""
        ...

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """Which obligations bounds of the neurons leave possible; bool, (neurons, sections).

        Args:
            layer: the layer.
            bounds: of shape (1, neurons), for every input of a region.
        """
        ...

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """How far each lane is from its own obligation; negative only where it is covered.

        Args:
            layer: the layer.
            values: shape (lanes, neurons); the gap is differentiable in them.
            neuron, section: shape (lanes,), int64: the obligation of each lane.

        Returns:
            Shape (lanes,).
        """
        ...


def own(values: Tensor, neuron: Tensor) -> Tensor:
    """Each lane's own neuron, shape (lanes,)."""
    return values.gather(1, neuron[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class NeuronCoverage:
    """NC: a neuron is covered once its activation exceeds a threshold.

    Attributes:
        threshold: exceeded strictly.
        scaled: whether each input's activations are first mapped to [0, 1] over the layer, as in
            DeepXplore; where all are equal they become 0.

    Source:
        Pei, Cao, Yang, Jana 2017 (DeepXplore), arXiv:1705.06640, section 4.1.
    """

    threshold: float = 0.25
    scaled: bool = True

    def __post_init__(self) -> None:
        """Refuse a threshold that means nothing."""
        if not math.isfinite(self.threshold):
            raise SettingError(f"the threshold is {self.threshold}, expected a finite number")

    def sections(self) -> int:
        """One: above the threshold."""
        return 1

    def meant(self, layer: Layer) -> Tensor:
        """All of them."""
        return torch.ones(layer.neurons, 1, dtype=torch.bool)

    def hits(self, layer: Layer, values: Tensor) -> Tensor:
        """Above the threshold for some input."""
        return (self.level(values) > self.threshold).any(dim=0)[:, None]

    def level(self, values: Tensor) -> Tensor:
        """What the threshold is compared with."""
        if not self.scaled:
            return values
        least = values.amin(dim=1, keepdim=True)
        width = values.amax(dim=1, keepdim=True) - least
        return torch.where(width > 0, (values - least) / width, torch.zeros_like(values))

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """Not possible where the upper bound is below what the threshold asks for at least.

        Scaled, n is above t only if v_n > (1 - t) min v + t max v, which for t in [0, 1] is at
        least (1 - t) min lower + t max lower.
        """
        if not self.scaled:
            return (bounds.upper[0] > self.threshold)[:, None]
        if not 0 <= self.threshold <= 1:
            beyond = self.threshold > 1
            return torch.full((layer.neurons, 1), not beyond)
        low = bounds.lower[0]
        asked = (1 - self.threshold) * low.amin() + self.threshold * low.amax()
        # Scaling rounds; what is within that of the threshold is not ruled out.
        slack = 8 * 2.0**-24 * (bounds.magnitude().amax() + asked.abs())
        out = bounds.upper[0] <= asked - slack
        # A neuron that is never above the least of its layer has level 0 exactly.
        out |= (bounds.upper[0] <= low.amin()) & (self.threshold >= 0)
        return ~out[:, None]

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """The threshold less the level."""
        return self.threshold - own(self.level(values), neuron)


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
        """The section of each value, -1 outside the range; int64, like the values."""
        seen = self.profile[layer.name]
        inside = (values >= seen.low) & (values <= seen.high) & (seen.high > seen.low)
        share = (values - seen.low) / (seen.high - seen.low)
        # The uppermost section holds its upper end.
        index = (share * self.k).floor().nan_to_num(nan=-1.0).clamp(-1, self.k - 1)
        return torch.where(inside, index, -torch.ones_like(index)).to(torch.int64)

    def hits(self, layer: Layer, values: Tensor) -> Tensor:
        """The sections that values fall in."""
        # One column more for what is outside.
        reached = torch.zeros(layer.neurons, self.k + 1, dtype=torch.bool)
        index = self.place(layer, values)
        index = torch.where(index < 0, self.k, index)
        reached.scatter_(1, index.T, True)
        return reached[:, : self.k]

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


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryCoverage:
    """NBC: values below and above what each neuron showed on training data.

    Attributes:
        profile: of the training data.
        deviations: how many standard deviations beyond the range a value must lie.

    Source:
        Ma et al. 2018 (DeepGauge), arXiv:1803.07519, section 3.1.
    """

    profile: Profile
    deviations: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a negative or infinite distance."""
        if not 0 <= self.deviations < math.inf:
            raise SettingError(f"deviations is {self.deviations}, expected a number >= 0")

    def sections(self) -> int:
        """Two: below and above."""
        return 2

    def meant(self, layer: Layer) -> Tensor:
        """All of them."""
        return torch.ones(layer.neurons, 2, dtype=torch.bool)

    def hits(self, layer: Layer, values: Tensor) -> Tensor:
        """Strictly beyond either end."""
        low, high = self.profile[layer.name].widened(self.deviations)
        below, above = (values < low).any(dim=0), (values > high).any(dim=0)
        return torch.stack((below, above), dim=1)

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """Where the bounds reach beyond the ends."""
        low, high = self.profile[layer.name].widened(self.deviations)
        return torch.stack((bounds.lower[0] < low, bounds.upper[0] > high), dim=1)

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """How far short of the end."""
        low, high = self.profile[layer.name].widened(self.deviations)
        value = own(values, neuron)
        return torch.where(section == 0, value - low[neuron], high[neuron] - value)


@dataclass(frozen=True, slots=True, eq=False)
class StrongActivationCoverage:
    """SNAC: values above what each neuron showed on training data.

    Attributes:
        profile, deviations: as for `BoundaryCoverage`.

    Source:
        Ma et al. 2018 (DeepGauge), arXiv:1803.07519, section 3.1.
    """

    profile: Profile
    deviations: float = 0.0

    def __post_init__(self) -> None:
        """As for `BoundaryCoverage`."""
        self.both()

    def both(self) -> BoundaryCoverage:
        """The criterion whose upper half this is."""
        return BoundaryCoverage(self.profile, self.deviations)

    def sections(self) -> int:
        """One: above."""
        return 1

    def meant(self, layer: Layer) -> Tensor:
        """All of them."""
        return torch.ones(layer.neurons, 1, dtype=torch.bool)

    def hits(self, layer: Layer, values: Tensor) -> Tensor:
        """Strictly above the upper end."""
        _, high = self.profile[layer.name].widened(self.deviations)
        return (values > high).any(dim=0)[:, None]

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """Where the bounds reach above the upper end."""
        return self.both().possible(layer, bounds)[:, 1:]

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """How far short of the upper end."""
        return self.both().gap(layer, values, neuron, torch.ones_like(section))


@dataclass(frozen=True, slots=True)
class TopNeuronCoverage:
    """TKNC: a neuron is covered once it is among the k most active of its layer.

    It is among them if fewer than k others are at least as active: neurons that tie for the last
    place, such as those that are all 0, are in only together.

    Attributes:
        k: how many are the top.

    Source:
        Ma et al. 2018 (DeepGauge), arXiv:1803.07519, section 3.2.
    """

    k: int = 3

    def __post_init__(self) -> None:
        """Refuse what is no number of neurons."""
        if self.k < 1:
            raise SettingError(f"k is {self.k}, expected at least 1 neuron")

    def sections(self) -> int:
        """One: at the top."""
        return 1

    def meant(self, layer: Layer) -> Tensor:
        """All of them."""
        return torch.ones(layer.neurons, 1, dtype=torch.bool)

    def level(self, values: Tensor) -> Tensor:
        """What a value must exceed, shape (batch, 1): the (k + 1)-th largest of its layer."""
        if values.shape[1] <= self.k:
            return torch.full_like(values[:, :1], -math.inf)
        return values.topk(self.k + 1, dim=1).values[:, -1:]

    def top(self, values: Tensor) -> Tensor:
        """Who is at the top; bool, (batch, neurons)."""
        return values > self.level(values)

    def hits(self, layer: Layer, values: Tensor) -> Tensor:
        """At the top for some input."""
        return self.top(values).any(dim=0)[:, None]

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """The (k + 1)-th largest value is at least the (k + 1)-th largest lower bound."""
        return (bounds.upper > self.level(bounds.lower))[0][:, None]

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """How far below the (k + 1)-th largest value; 0 is not yet at the top."""
        if values.shape[1] <= self.k:
            return own(values, neuron) * 0 - 1
        return self.level(values)[:, 0] - own(values, neuron)
