"""Detectors that look at features: distances to what was seen, and features put into shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from uncertainty.errors import UncertaintyError, UncertaintyInputError
from uncertainty.ood.activations import Activations, Head
from uncertainty.ood.detectors import Detector, predicted

Array = NDArray[np.float64]
BLOCK = 2**24
"""Distances held at once: 128 MiB."""


def ready(value: Array | None, who: str) -> Array:
    """What `fit` learned.

    Raises:
        UncertaintyError: if it has not been called.
    """
    if value is None:
        raise UncertaintyError(f"{who} has not been fitted; call fit with in-distribution data.")
    return value


def same_width(values: Array, width: int, who: str) -> Array:
    """The values, if they have as many columns as what was fitted.

    Raises:
        UncertaintyInputError: if not.
    """
    if values.shape[1] != width:
        raise UncertaintyInputError(f"{who} was fitted on {width} columns, got {values.shape[1]}.")
    return values


@dataclass
class Mahalanobis(Detector):
    """Squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

    Args:
        relative: subtract the distance to the mean of all data under the covariance of all data.
        jitter: added to the covariance's diagonal, as a share of its mean: without a share, the
            score would depend on the features' units.

    Source:
        Lee et al. 2018, arXiv:1807.03888; relative: Ren et al. 2021, arXiv:2106.09022.
    """

    relative: bool = False
    jitter: float = 1e-6
    means_: Array | None = field(default=None, init=False)
    root_: Array | None = field(default=None, init=False)
    all_mean_: Array | None = field(default=None, init=False)
    all_root_: Array | None = field(default=None, init=False)

    def fit(self, seen: Activations, labels: ArrayLike | None = None) -> Mahalanobis:
        """Means of the classes that occur, and the covariance around them."""
        features, labels = seen.need("features", "mahalanobis"), predicted(seen, labels)
        classes, index = np.unique(labels, return_inverse=True)
        self.means_ = np.stack([features[index == i].mean(axis=0) for i in range(len(classes))])
        self.root_ = self._whitening(features - self.means_[index])
        self.all_mean_ = features.mean(axis=0)
        self.all_root_ = self._whitening(features - self.all_mean_)
        return self

    def _whitening(self, centred: Array) -> Array:
        """A with |A^T v|^2 = v^T covariance^-1 v."""
        covariance = centred.T @ centred / len(centred)
        mean = np.trace(covariance) / len(covariance)
        if not mean > 0:
            raise UncertaintyInputError(
                "the features do not vary within the classes, so there is no distance to measure "
                "by; use another layer or method."
            )
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors / np.sqrt(np.maximum(values, 0) + self.jitter * mean))

    def score(self, seen: Activations) -> Array:
        """In squared deviations."""
        means, root = ready(self.means_, "mahalanobis"), ready(self.root_, "mahalanobis")
        features = same_width(seen.need("features", "mahalanobis"), len(root), "mahalanobis")
        nearest = np.full(len(features), np.inf)
        for mean in means:
            nearest = np.minimum(nearest, (((features - mean) @ root) ** 2).sum(axis=1))
        if not self.relative:
            return nearest
        away = (features - ready(self.all_mean_, "")) @ ready(self.all_root_, "")
        return np.asarray(nearest - (away**2).sum(axis=1), dtype=np.float64)


@dataclass
class Nearest(Detector):
    """Euclidean distance to the k-th nearest in-distribution point.

    Args:
        k: which neighbour.
        normalise: divide each vector by its length first, as the paper does for features.
        of: "features" or "inputs"; raw inputs are the honest baseline on small images.

    Source:
        Sun et al. 2022, arXiv:2204.06507.
    """

    k: int = 5
    normalise: bool = True
    of: Literal["features", "inputs"] = "features"
    bank_: Array | None = field(default=None, init=False)

    def fit(self, seen: Activations, labels: ArrayLike | None = None) -> Nearest:
        """Keep the points."""
        points = self._vectors(seen)
        if not 1 <= self.k <= len(points):
            raise UncertaintyInputError(f"k is {self.k}, but there are {len(points)} points.")
        self.bank_ = points
        return self

    def _vectors(self, seen: Activations) -> Array:
        values = seen.need(self.of, "knn")
        if self.normalise:
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
            values = values / np.where(lengths > 0, lengths, 1.0)
        return values

    def score(self, seen: Activations) -> Array:
        """In units of the features, or of unit vectors."""
        bank = ready(self.bank_, "knn")
        points = same_width(self._vectors(seen), bank.shape[1], "knn")
        found = np.empty(len(points))
        step = max(1, BLOCK // max(1, bank.size))
        for i in range(0, len(points), step):
            # Differences, not |a|^2 + |b|^2 - 2 a.b, which cancels for near points.
            gaps = points[i : i + step, None, :] - bank[None]
            squares = np.einsum("nmd,nmd->nm", gaps, gaps)
            found[i : i + step] = np.partition(squares, self.k - 1, axis=1)[:, self.k - 1]
        return np.asarray(np.sqrt(found), dtype=np.float64)


@dataclass
class ViM(Detector):
    """Virtual logit: the features' part outside their principal space, against the energy.

    Args:
        dims: of the principal space; by default half the features, at most 512.

    Source:
        Wang et al. 2022, arXiv:2203.10807.
    """

    dims: int | None = None
    origin_: Array | None = field(default=None, init=False)
    residual_: Array | None = field(default=None, init=False)
    alpha_: float = field(default=0.0, init=False)

    def fit(self, seen: Activations, labels: ArrayLike | None = None) -> ViM:
        """Principal space around the origin -W^+ b, and the scale of the virtual logit."""
        head, features = seen.need_head("vim"), seen.need("features", "vim")
        width = features.shape[1]
        dims = min(512, width // 2) if self.dims is None else self.dims
        if not 0 < dims < width:
            raise UncertaintyInputError(f"vim's dims is {dims}, expected 1 to {width - 1}.")
        self.origin_ = -np.linalg.pinv(head.weight) @ head.bias
        centred = features - self.origin_
        _, vectors = np.linalg.eigh(centred.T @ centred / len(centred))  # ascending
        self.residual_ = vectors[:, : width - dims]
        lengths = np.linalg.norm(centred @ self.residual_, axis=1)
        if not lengths.mean() > 0:
            raise UncertaintyInputError("the features have no residual; lower vim's dims.")
        self.alpha_ = float(seen.logits.max(axis=1).mean() / lengths.mean())
        return self

    def score(self, seen: Activations) -> Array:
        """Virtual logit minus log sum exp of the logits."""
        residual, origin = ready(self.residual_, "vim"), ready(self.origin_, "vim")
        features = same_width(seen.need("features", "vim"), len(residual), "vim")
        virtual = self.alpha_ * np.linalg.norm((features - origin) @ residual, axis=1)
        return np.asarray(virtual - logsumexp(seen.logits, axis=1), dtype=np.float64)


def energy_behind(head: Head, features: Array) -> Array:
    """-log sum exp of the logits that the head makes of changed features."""
    return np.asarray(-logsumexp(head(features), axis=1), dtype=np.float64)


@dataclass
class ReAct(Detector):
    """Energy after features are cut off at a percentile of in-distribution activations.

    Source:
        Sun, Guo, Li 2021, arXiv:2111.12797.
    """

    percentile: float = 90.0
    limit_: float | None = field(default=None, init=False)

    def fit(self, seen: Activations, labels: ArrayLike | None = None) -> ReAct:
        """The percentile of all activations."""
        if not 0 < self.percentile <= 100:
            raise UncertaintyInputError(f"percentile is {self.percentile}, expected in (0, 100].")
        self.limit_ = float(np.percentile(seen.need("features", "react"), self.percentile))
        return self

    def score(self, seen: Activations) -> Array:
        """In units of the logits."""
        if self.limit_ is None:
            raise UncertaintyError("react has not been fitted; call fit.")
        features = np.minimum(seen.need("features", "react"), self.limit_)
        return energy_behind(seen.need_head("react"), features)


@dataclass
class ASH(Detector):
    """Energy after small activations of each input are set to 0 and the others put into shape.

    Args:
        percentile: share of activations removed, in percent.
        variant: "s" scales the rest by exp(sum before / sum after), "p" leaves it, "b" gives each
            the same value, so that the sum is kept.

    Source:
        Djurisic et al. 2023, arXiv:2209.09858.
    """

    percentile: float = 65.0
    variant: Literal["s", "p", "b"] = "s"

    def score(self, seen: Activations) -> Array:
        """In units of the logits."""
        if not 0 <= self.percentile < 100 or self.variant not in {"s", "p", "b"}:
            raise UncertaintyInputError(
                f"percentile is {self.percentile} and variant {self.variant!r}; expected [0, 100) "
                "and s, p or b."
            )
        head, features = seen.need_head("ash"), seen.need("features", "ash")
        if (features < 0).any():
            raise UncertaintyInputError("ash needs features >= 0, as a ReLU gives; name another.")
        width = features.shape[1]
        kept = max(1, width - round(width * self.percentile / 100))
        order = np.argsort(-features, axis=1, kind="stable")[:, :kept]
        mask = np.zeros_like(features)
        np.put_along_axis(mask, order, 1.0, axis=1)
        pruned = features * mask
        before = features.sum(axis=1, keepdims=True)
        if self.variant == "s":
            after = pruned.sum(axis=1, keepdims=True)
            pruned = pruned * np.exp(np.where(after > 0, before / np.where(after > 0, after, 1), 0))
        elif self.variant == "b":
            pruned = mask * before / kept
        return energy_behind(head, pruned)
