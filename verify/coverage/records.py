"""Records: what a stream of activations has covered so far; sets can be joined and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.coverage.criteria import MaskCriterion
from verify.coverage.layers import Layer
from verify.errors import SettingError


@dataclass(frozen=True, slots=True)
class LayerShare:
    """How much of one layer is covered.

    Attributes:
        layer: its name; "" for a figure about all layers together.
        covered: what was reached, in the criterion's own count.
        total: what there is to reach; None where there is no end to it.
    """

    layer: str
    covered: float
    total: int | None

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None without a total, or with nothing to cover."""
        return self.covered / self.total if self.total else None


Evidence = Mapping[str, NDArray[np.generic]]
"""What a batch shows, in arrays that can be stored and sent."""


class CoverageRecord(Protocol):
    """What one criterion knows of the inputs seen so far; mutable."""

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Take in activations of shape (batch, neurons), by layer."""
        ...

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """What these activations show, whatever was seen before; nothing is taken in."""
        ...

    def admit(self, evidence: Evidence) -> None:
        """Take in what `evidence` gave for some activations, as `update` of them would."""
        ...

    def shares(self) -> tuple[LayerShare, ...]:
        """What is covered, layer by layer."""
        ...


def overall(shares: Sequence[LayerShare]) -> LayerShare:
    """Covered and total over all layers; without a total if any layer has none."""
    totals = [share.total for share in shares]
    known = [total for total in totals if total is not None]
    covered = sum(share.covered for share in shares)
    return LayerShare("", covered, sum(known) if len(known) == len(totals) else None)


class MaskRecord:
    """The union of what each batch covers under a criterion that ticks off sections.

    Attributes:
        criterion: which obligations there are.
        layers: that are watched.
        totals: how many obligations there are, by layer.
        covered: bool, (neurons, sections), by layer.
    """

    def __init__(self, criterion: MaskCriterion, layers: Sequence[Layer]) -> None:
        """Nothing is covered yet."""
        self.criterion, self.layers = criterion, tuple(layers)
        self.totals = {layer.name: int(criterion.meant(layer).sum()) for layer in layers}
        self.covered = {
            layer.name: torch.zeros(layer.neurons, criterion.sections(), dtype=torch.bool)
            for layer in layers
        }

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Tick off what these values cover."""
        for layer in self.layers:
            covered = self.covered[layer.name]
            covered |= self.criterion.hits(layer, values[layer.name], covered)

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """The mask of each layer, eight obligations to a byte."""
        return {
            layer.name: np.packbits(self.criterion.hits(layer, values[layer.name]).cpu().numpy())
            for layer in self.layers
        }

    def admit(self, evidence: Evidence) -> None:
        """Tick off what a batch covered."""
        for name, covered in self.covered.items():
            flat = np.unpackbits(evidence[name].view(np.uint8), count=covered.numel())
            covered |= torch.from_numpy(flat).bool().view_as(covered)

    def adds(self, values: Mapping[str, Tensor]) -> int:
        """How many obligations these values would newly cover."""
        return sum(
            int((self.criterion.hits(layer, values[layer.name], covered) & ~covered).sum())
            for layer, covered in ((layer, self.covered[layer.name]) for layer in self.layers)
        )

    def union(self, other: MaskRecord) -> MaskRecord:
        """What either test set covers.

        Raises:
            SettingError: if the two are about different layers or sections.
        """
        return self._with(other, lambda one, two: one | two)

    def difference(self, other: MaskRecord) -> MaskRecord:
        """What this test set covers and the other does not.

        Raises:
            SettingError: as for `union`.
        """
        return self._with(other, lambda one, two: one & ~two)

    def shares(self) -> tuple[LayerShare, ...]:
        """Obligations covered, of those there are."""
        return tuple(
            LayerShare(name, int(mask.count_nonzero()), self.totals[name])
            for name, mask in self.covered.items()
        )

    def _with(self, other: MaskRecord, rule: MaskRule) -> MaskRecord:
        joined = MaskRecord(self.criterion, self.layers)
        for name, mask in self.covered.items():
            theirs = other.covered.get(name)
            if (
                theirs is None
                or theirs.shape != mask.shape
                or len(other.covered) != len(self.covered)
            ):
                raise SettingError(
                    "two coverage records are about different layers or sections; measure both "
                    "with the same layers and the same criterion"
                )
            joined.covered[name] = rule(mask, theirs)
        return joined


class MaskRule(Protocol):
    """How two masks become one."""

    def __call__(self, one: Tensor, two: Tensor, /) -> Tensor:
        """Of the same shape."""
        ...
