"""IDC: combinations of how the neurons that matter most behave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.cluster.vq import ClusterError, kmeans2
from torch import Tensor

from verify.coverage.records import Evidence, LayerShare
from verify.coverage.reference import Reference, side_by_side
from verify.errors import SettingError

MOST_CLUSTERS = 4
ROUNDS = 50


class ImportanceRecord:
    """IDC: the share of all combinations of clusters of the most relevant neurons.

    The m neurons of largest mean relevance on the training data are kept; each one's training
    activations are clustered in one dimension, with the number of clusters (2 to 4) of the best
    silhouette; an input's combination names the nearest centre of each neuron.

    Attributes:
        neurons: the places of the chosen neurons among all watched ones.
        centres: per neuron, its clusters' centres, ascending.

    Source:
        Gerasimou, Eniser, Sen, Cakan 2020 (Importance-Driven Deep Learning System Testing),
        arXiv:2002.03433, section 3. Relevance: see `Reference.relevance`.
    """

    def __init__(self, reference: Reference, most: int = 6) -> None:
        """Choose and cluster; raises SettingError if `most` is no number of neurons."""
        if most < 1:
            raise SettingError(f"{most} neurons are to be chosen, expected at least 1")
        self.reference = reference
        traces = reference.traces
        varied = (traces.amax(dim=0) > traces.amin(dim=0)).nonzero().flatten()
        order = reference.relevance[varied].argsort(descending=True, stable=True)
        self.neurons = varied[order[:most]]
        self.centres = [
            torch.from_numpy(clustered(traces[:, n].numpy())) for n in self.neurons.tolist()
        ]
        self.seen: set[tuple[int, ...]] = set()

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add the combinations of a batch."""
        self.admit(self.evidence(values))

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """The distinct combinations, shape (combinations, neurons)."""
        chosen = side_by_side(dict(values), self.reference.layers).double()[:, self.neurons]
        places = [
            (chosen[:, i, None] - centres[None]).abs().argmin(dim=1)
            for i, centres in enumerate(self.centres)
        ]
        found = torch.stack(places, dim=1) if places else torch.zeros(0, 0, dtype=torch.int64)
        return {"combinations": torch.unique(found, dim=0).numpy() if places else found.numpy()}

    def admit(self, evidence: Evidence) -> None:
        """Add the combinations of a batch."""
        self.seen.update(map(tuple, evidence["combinations"].tolist()))

    def shares(self) -> tuple[LayerShare, ...]:
        """Combinations shown, of all that there could be."""
        total = int(np.prod([len(centres) for centres in self.centres], dtype=np.int64))
        return (LayerShare("", len(self.seen), total if self.centres else None),)


def clustered(values: np.ndarray) -> np.ndarray:
    """The centres, ascending, of the clustering of numbers with the best silhouette."""
    distinct = np.unique(values)
    best, chosen = -np.inf, np.array([values.mean()])
    for count in range(2, min(MOST_CLUSTERS, len(distinct)) + 1):
        share = (np.arange(count) + 0.5) / count
        # Starts that the data alone decide: evenly spread, and at even quantiles.
        for start in (distinct[0] + np.ptp(distinct) * share, np.quantile(values, share)):
            try:
                centres, labels = kmeans2(
                    values, start, iter=ROUNDS, minit="matrix", missing="raise"
                )
            except ClusterError:  # there are fewer clusters than that
                continue
            level = silhouette(values, labels)
            if level > best:
                best, chosen = level, np.sort(centres)
    return chosen


def silhouette(values: np.ndarray, labels: np.ndarray) -> float:
    """The mean silhouette of a clustering of numbers (Rousseeuw 1987); -1 for one cluster."""
    kinds, sizes = np.unique(labels, return_counts=True)
    if len(kinds) < 2:
        return -1.0
    mean = np.stack([mean_distance(values, np.sort(values[labels == kind])) for kind in kinds])
    mine = np.searchsorted(kinds, labels)
    size = sizes[mine]
    within = mean[mine, np.arange(len(values))] * size / np.maximum(size - 1, 1)
    mean[mine, np.arange(len(values))] = np.inf
    nearest = mean.min(axis=0)
    larger = np.maximum(within, nearest)
    score = np.where(
        (size > 1) & (larger > 0), (nearest - within) / np.where(larger > 0, larger, 1), 0
    )
    return float(score.mean())


def mean_distance(values: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The mean of |v - w| over the sorted numbers w of a cluster, for each v."""
    prefix = np.concatenate(([0.0], np.cumsum(cluster)))
    below = np.searchsorted(cluster, values)
    total = values * below - prefix[below] + (prefix[-1] - prefix[below])
    found: np.ndarray = (total - values * (len(cluster) - below)) / len(cluster)
    return found
