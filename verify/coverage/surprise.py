"""Surprise: how unlike its class's training data an input's activations are; and its coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from scipy.stats import gaussian_kde
from torch import Tensor

from verify.coverage.records import Evidence, LayerShare
from verify.coverage.reference import Reference, side_by_side
from verify.errors import DataError, SettingError

LEAST_VARIANCE = 1e-5
"""Neurons that vary less on the training data of a class are left out of its density, as in the
paper: their density is a spike."""
AT_ONCE = 512
Kind = Literal["likelihood", "distance"]


class Surprise:
    """LSA and DSA of inputs, by the class that the network predicts for them.

    LSA is -log of a Gaussian kernel density (Scott's bandwidth) of the class's training traces.
    DSA is |a - a_s| / |a_s - a_o|, where a_s is the nearest training trace of the same class and
    a_o the nearest to a_s of any other.

    Attributes:
        reference: the training data.

    Source:
        Kim, Feldt, Yoo 2019 (Surprise Adequacy), arXiv:1808.08444, section 2.
    """

    def __init__(self, reference: Reference) -> None:
        """Look at the classes that the network predicts on the training data."""
        self.reference = reference
        self.classes = sorted(set(reference.predicted.tolist()))
        self._densities: dict[int, tuple[np.ndarray, gaussian_kde | None]] = {}

    def likelihood(self, traces: Tensor, predicted: Tensor) -> Tensor:
        """LSA; shape (batch,), float64; infinite for a class that training data never got.

        Args:
            traces: shape (batch, neurons).
            predicted: int64, shape (batch,).

        Raises:
            DataError: if a class has too few training inputs for a density of so many neurons.
        """
        found = torch.full((len(traces),), math.inf, dtype=torch.float64)
        for label in set(predicted.tolist()):
            rows = (predicted == label).nonzero().flatten()
            if label not in self.classes:
                continue
            kept, density = self._density(label)
            if density is None:
                found[rows] = 0.0
                continue
            points = traces[rows].double().numpy()[:, kept].T
            found[rows] = -torch.from_numpy(density.logpdf(points))
        return found

    def distance(self, traces: Tensor, predicted: Tensor, *, own: Tensor | None = None) -> Tensor:
        """DSA; shape (batch,), float64; infinite where there is no other or no own class.

        Args:
            traces, predicted: as for `likelihood`.
            own: int64, (batch,): places of the traces in the training data themselves, which then
                do not count as their own neighbours.
        """
        theirs, labels = self.reference.traces, self.reference.predicted
        found = torch.full((len(traces),), math.inf, dtype=torch.float64)
        for first in range(0, len(traces), AT_ONCE):
            part = traces[first : first + AT_ONCE].double()
            same = labels[None, :] == predicted[first : first + AT_ONCE, None]
            away = torch.cdist(part, theirs)
            if own is not None:
                away[torch.arange(len(part)), own[first : first + AT_ONCE]] = math.inf
            near = torch.where(same, away, math.inf).min(dim=1)
            between = torch.cdist(theirs[near.indices], theirs)
            other = torch.where(same, math.inf, between).amin(dim=1)
            ratio = near.values / other
            known = near.values.isfinite() & other.isfinite()
            found[first : first + AT_ONCE] = torch.where(known, ratio, math.inf)
        return found

    def of_training(self, kind: Kind) -> Tensor:
        """The surprise of the training data themselves, each without itself."""
        traces, predicted = self.reference.traces, self.reference.predicted
        if kind == "likelihood":
            found = self.likelihood(traces, predicted)
            for label in self.classes:
                rows = predicted == label
                found[rows] = self._without_itself(label, found[rows])
            return found
        return self.distance(traces, predicted, own=torch.arange(len(traces)))

    def _without_itself(self, label: int, level: Tensor) -> Tensor:
        """LSA of training inputs with their own kernel taken out of the mean."""
        _, density = self._density(label)
        if density is None:
            return level
        whole = -level + math.log(density.n)
        _, size = np.linalg.slogdet(2 * math.pi * density.covariance)
        share = (-0.5 * size - whole).clamp(max=0).exp()
        rest = whole + torch.log1p(-share) - math.log(max(1, density.n - 1))
        return torch.where(share < 1 - 1e-12, -rest, math.inf)

    def _density(self, label: int) -> tuple[np.ndarray, gaussian_kde | None]:
        if label not in self._densities:
            rows = self.reference.predicted == label
            traces = self.reference.traces[rows].numpy()
            kept = np.flatnonzero(traces.var(axis=0) > LEAST_VARIANCE)
            density = None
            if len(kept):
                try:
                    density = gaussian_kde(traces[:, kept].T)
                except (ValueError, np.linalg.LinAlgError):
                    raise DataError(
                        f"class {label} has {len(traces)} training inputs, too few for a density "
                        f"of {len(kept)} neurons; watch one small layer (--layers), or give more"
                    ) from None
            self._densities[label] = (kept, density)
        return self._densities[label]


class SurpriseRecord:
    """LSC or DSC: which of equal sections of surprise, from 0 to the largest, a test set shows.

    Attributes:
        kind: "likelihood" or "distance".
        edges: shape (buckets + 1,): the sections' ends.

    Source:
        Kim, Feldt, Yoo 2019, section 2.4; there the largest surprise is chosen by hand, here it is
        that of the training data unless given.
    """

    def __init__(
        self,
        surprise: Surprise,
        kind: Kind,
        *,
        buckets: int = 100,
        largest: float | None = None,
    ) -> None:
        """Nothing is covered yet; raises SettingError for sections that cannot be."""
        if buckets < 1 or (largest is not None and not 0 < largest < math.inf):
            raise SettingError(
                f"{buckets} sections up to {largest}, expected at least 1, up to a number > 0"
            )
        self.surprise, self.kind = surprise, kind
        least = 0.0
        if largest is None or kind == "likelihood":
            seen = surprise.of_training(kind)
            seen = seen[seen.isfinite()]
            if not len(seen):
                raise DataError(
                    "the training data are all of one class, so no distance to another is known; "
                    "give data of two classes at least"
                )
            least = float(seen.min()) if kind == "likelihood" else 0.0
            largest = float(seen.max()) if largest is None else largest
        self.edges = torch.linspace(least, max(largest, least + 1e-12), buckets + 1).double()
        self.covered = torch.zeros(buckets, dtype=torch.bool)

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Tick off the sections; the values must hold the network's output, too."""
        self.admit(self.evidence(values))

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """The mask of the sections."""
        reference = self.surprise.reference
        predicted = values[reference.output.name].argmax(dim=1)
        traces = side_by_side(dict(values), reference.layers)
        level = (
            self.surprise.likelihood(traces, predicted)
            if self.kind == "likelihood"
            else self.surprise.distance(traces, predicted)
        )
        inside = (level >= self.edges[0]) & (level <= self.edges[-1])
        place = torch.bucketize(level[inside], self.edges, right=True) - 1
        covered = torch.zeros_like(self.covered)
        covered[place.clamp(max=len(covered) - 1)] = True
        return {"sections": covered.numpy()}

    def admit(self, evidence: Evidence) -> None:
        """Tick off what a batch showed."""
        self.covered |= torch.from_numpy(evidence["sections"].astype(bool))

    def shares(self) -> tuple[LayerShare, ...]:
        """Sections shown, over all layers together."""
        return (LayerShare("", int(self.covered.sum()), len(self.covered)),)
