"""Criteria that tick off sections of neurons: NC, NBC, SNAC, TKNC; KMNC is in `sections`.

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

PEAKS = 64
"""Of how many groups the largest values are taken to guess which neurons are at the top."""
FEW = 8
"""Up to how many neurons at the top a guess costs less than it saves."""


class MaskCriterion(Protocol):
    """A criterion whose coverage is a mask of (neurons, sections) per layer."""

    def sections(self) -> int:
        """Obligations per neuron."""
        ...

    def meant(self, layer: Layer) -> Tensor:
        """Which obligations exist; bool, (neurons, sections)."""
        ...

    def hits(self, layer: Layer, values: Tensor, known: Tensor | None = None) -> Tensor:
        """Which obligations values of shape (batch, neurons) cover; bool, (neurons, sections).

        Args:
            layer: the layer.
            values: shape (batch, neurons).
            known: obligations that are covered anyway; the answer may leave them out, which can
                save work. None for none.
        """
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


def highest(values: Tensor) -> Tensor:
    """Each neuron's largest value over the batch; -inf where there is none but NaN.

    A maximum and one comparison cost an eighth of as many comparisons and their union.
    """
    found = values.amax(dim=0)
    # A sum is NaN if anything is; where it is for another reason, this costs time only.
    if math.isnan(float(found.sum())):
        found = values.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf).amax(dim=0)
    return found


def lowest(values: Tensor) -> Tensor:
    """Each neuron's least value over the batch, as in `highest`."""
    found = values.amin(dim=0)
    return -highest(-values) if math.isnan(float(found.sum())) else found


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

    def hits(self, layer: Layer, values: Tensor, known: Tensor | None = None) -> Tensor:
        """Above the threshold for some input."""
        if known is None or len(open_ := (~known[:, 0]).nonzero().flatten()) == layer.neurons:
            return (highest(self.level(values)) > self.threshold)[:, None]
        found = torch.zeros(layer.neurons, 1, dtype=torch.bool)
        if len(open_):
            found[open_, 0] = highest(self.level(values, open_)) > self.threshold
        return found

    def level(self, values: Tensor, neurons: Tensor | None = None) -> Tensor:
        """What the threshold is compared with, for all neurons or some."""
        shown = values if neurons is None else values.index_select(1, neurons)
        if not self.scaled:
            return shown
        least = values.amin(dim=1, keepdim=True)
        width = values.amax(dim=1, keepdim=True) - least
        # Where all are equal every level is 0.
        return (shown - least) / torch.where(width > 0, width, math.inf)

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

    def hits(self, layer: Layer, values: Tensor, known: Tensor | None = None) -> Tensor:
        """Strictly beyond either end."""
        low, high = self.profile[layer.name].widened(self.deviations)
        return torch.stack((lowest(values) < low, highest(values) > high), dim=1)

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

    def hits(self, layer: Layer, values: Tensor, known: Tensor | None = None) -> Tensor:
        """Strictly above the upper end."""
        _, high = self.profile[layer.name].widened(self.deviations)
        return (highest(values) > high)[:, None]

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

    def hits(self, layer: Layer, values: Tensor, known: Tensor | None = None) -> Tensor:
        """At the top for some input.

        Exact levels cost most, so they are found only for inputs where a neuron that is not known
        exceeds something below the level: the (k + 1)-th largest of some of the values.
        """
        if known is None or values.shape[1] < 2 * PEAKS or self.k > FEW:
            return self.top(values).any(dim=0)[:, None]
        found = torch.zeros(layer.neurons, 1, dtype=torch.bool)
        rows, width = len(values), values.shape[1] // PEAKS * PEAKS
        peaks = values[:, :width].reshape(rows, -1, PEAKS).amax(dim=1)
        # The least of k + 1 values' is at most the (k + 1)-th largest; sorting costs far more.
        below = torch.stack([part.amax(dim=1) for part in peaks.tensor_split(self.k + 1, dim=1)])
        below = below.amin(dim=0)[:, None]
        excess = values - below
        places = ((highest(excess) > 0) & ~known[:, 0]).nonzero().flatten()
        if len(places):
            few = values[(excess.index_select(1, places) > 0).any(dim=1)]
            found[places, 0] = (few.index_select(1, places) > self.level(few)).any(dim=0)
        return found

    def possible(self, layer: Layer, bounds: Bounds) -> Tensor:
        """The (k + 1)-th largest value is at least the (k + 1)-th largest lower bound."""
        return (bounds.upper > self.level(bounds.lower))[0][:, None]

    def gap(self, layer: Layer, values: Tensor, neuron: Tensor, section: Tensor) -> Tensor:
        """How far below the (k + 1)-th largest value; 0 is not yet at the top."""
        if values.shape[1] <= self.k:
            return own(values, neuron) * 0 - 1
        return self.level(values)[:, 0] - own(values, neuron)
