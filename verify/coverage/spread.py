"""NLC: how far the activations of each layer spread, as a matrix of covariances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.coverage.layers import Layer
from verify.coverage.records import Evidence, LayerShare


class SpreadRecord:
    """NLC: the mean absolute covariance of the neurons of a layer.

    Per layer with m neurons, sum |Cov| / m^2, where the covariance divides by the number of inputs.
    Batches are joined as by Chan, Golub, LeVeque (1983), in float64, so their order changes the
    figure by rounding only. Memory is m^2 per layer.

    Source:
        Yuan, Pang, Wang 2023 (Revisiting Neuron Coverage), arXiv:2112.01955, section 4.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Nothing seen yet."""
        self.layers = tuple(layers)
        self.count = 0
        sizes = {layer.name: layer.neurons for layer in layers}
        self.mean = {name: torch.zeros(m, dtype=torch.float64) for name, m in sizes.items()}
        self.scatter = {name: torch.zeros(m, m, dtype=torch.float64) for name, m in sizes.items()}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Join the moments of a batch."""
        self.admit(self.evidence(values))

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """The batch's own moments: "count", and mean and scatter of each layer."""
        found: dict[str, NDArray[np.generic]] = {}
        for layer in self.layers:
            wide = values[layer.name].detach().double().cpu()
            found[f"mean {layer.name}"] = wide.mean(dim=0).numpy()
            found[f"scatter {layer.name}"] = scatter_of(wide).numpy()
        return {"count": np.array([len(values[self.layers[0].name])]), **found}

    def admit(self, evidence: Evidence) -> None:
        """Join the moments of a batch; in the same order the figure is the same to the bit."""
        (count,) = evidence["count"].tolist()
        if not count:
            return
        for layer in self.layers:
            mean, scatter = (
                torch.from_numpy(evidence[f"{what} {layer.name}"]) for what in ("mean", "scatter")
            )
            self._join(layer.name, mean, scatter, count)
        self.count += count

    def union(self, other: SpreadRecord) -> SpreadRecord:
        """The moments over both test sets; an input in both counts twice."""
        joined = SpreadRecord(self.layers)
        for part in (self, other):
            if part.count:
                for name in part.mean:
                    joined._join(name, part.mean[name], part.scatter[name], part.count)
                joined.count += part.count
        return joined

    def shares(self) -> tuple[LayerShare, ...]:
        """sum |Cov| / m^2 of each layer; it has no upper end."""
        found = []
        for layer in self.layers:
            spread = self.scatter[layer.name].abs().sum() / max(1, self.count)
            found.append(LayerShare(layer.name, float(spread) / layer.neurons**2, None))
        return tuple(found)

    def _join(self, name: str, mean: Tensor, scatter: Tensor, count: int) -> None:
        total = self.count + count
        apart = mean - self.mean[name]
        weight = self.count * count / total
        self.scatter[name] = self.scatter[name] + scatter + weight * torch.outer(apart, apart)
        self.mean[name] = self.mean[name] + apart * (count / total)


def scatter_of(values: Tensor) -> Tensor:
    """The sum of outer products of the deviations from the mean, shape (m, m)."""
    centred = values - values.mean(dim=0)
    return centred.T @ centred
