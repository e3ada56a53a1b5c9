"""Detectors on logits, the list of all of them, and the threshold that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from uncertainty.arrays import as_floats
from uncertainty.errors import UncertaintyInputError
from uncertainty.measures import entropy, softmax
from uncertainty.ood.activations import Activations

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


class Detector(ABC):
    """Scores inputs: higher is more out of distribution."""

    def fit(self, seen: Activations, labels: ArrayLike | None = None) -> Detector:
        """Learn from in-distribution data; nothing to learn unless the detector says so.

        Args:
            seen: of data that neither the threshold nor the evaluation uses.
            labels: shape (N,); by default the predicted classes.
        """
        return self

    @abstractmethod
    def score(self, seen: Activations) -> Array:
        """Shape (N,)."""


@dataclass
class MSP(Detector):
    """1 - the largest softmax probability, accurate also where that rounds to 1.

    Source:
        Hendrycks and Gimpel 2017, arXiv:1610.02136.
    """

    def score(self, seen: Activations) -> Array:
        """In [0, 1 - 1/K]."""
        return np.asarray(-np.expm1(log_largest(seen.logits)), dtype=np.float64)


@dataclass
class MaxLogit(Detector):
    """Minus the largest logit. Not invariant to a shift of all logits.

    Source:
        Hendrycks et al. 2022, arXiv:1911.11132.
    """

    def score(self, seen: Activations) -> Array:
        """In units of the logits."""
        return np.asarray(-seen.logits.max(axis=1), dtype=np.float64)


@dataclass
class Energy(Detector):
    """-T log sum exp(z / T). Not invariant to a shift of all logits.

    Source:
        Liu et al. 2020, arXiv:2010.03759.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UncertaintyInputError(f"temperature is {self.temperature}, expected > 0.")

    def score(self, seen: Activations) -> Array:
        """In units of the logits."""
        found = logsumexp(seen.logits / self.temperature, axis=1)
        return np.asarray(-self.temperature * found, dtype=np.float64)


@dataclass
class Entropy(Detector):
    """Entropy of the softmax, in nats."""

    def score(self, seen: Activations) -> Array:
        """In [0, log K]."""
        return entropy(softmax(seen.logits))


@dataclass
class GradNorm(Detector):
    """Minus the L1 norm of the last layer's gradient of KL(uniform | softmax).

    That gradient is an outer product, so the norm is |features|_1 * sum_k |p_k - 1/K|.

    Source:
        Huang, Geng, Li 2021, arXiv:2110.00218.
    """

    def score(self, seen: Activations) -> Array:
        """At most 0."""
        features = seen.need("features", "gradnorm")
        away = np.abs(softmax(seen.logits) - 1 / seen.logits.shape[1]).sum(axis=1)
        return np.asarray(-np.abs(features).sum(axis=1) * away, dtype=np.float64)


def log_largest(logits: Array) -> Array:
    """Log of the largest softmax probability, as -log(1 + sum of the others' ratios)."""
    rest = np.sort(logits - logits.max(axis=1, keepdims=True), axis=1)[:, :-1]
    return np.asarray(-np.log1p(np.exp(rest).sum(axis=1)), dtype=np.float64)


def predicted(seen: Activations, labels: ArrayLike | None) -> Labels:
    """The labels given, or the predicted classes.

    Raises:
        UncertaintyInputError: if their number is not that of the inputs, or there are no inputs.
    """
    if not len(seen):
        raise UncertaintyInputError("there is no in-distribution data to fit a detector on.")
    if labels is None:
        return np.asarray(seen.logits.argmax(axis=1), dtype=np.int64)
    found = np.asarray(labels).astype(np.int64)
    if found.shape != (len(seen),):
        raise UncertaintyInputError(f"labels have shape {found.shape}, expected ({len(seen)},).")
    return found


def threshold(scores: ArrayLike, tpr: float = 0.95) -> float:
    """The smallest threshold that keeps at least this share of in-distribution scores.

    An input is kept if score <= threshold, and called out of distribution above it.

    Args:
        scores: of in-distribution data that nothing was fitted on, shape (N,).
        tpr: share to keep, in (0, 1].

    Raises:
        UncertaintyInputError: if there are no scores, or the share is out of its range.
    """
    values = np.sort(as_floats(scores, "scores", axes=1))
    if not len(values) or not 0 < tpr <= 1:
        raise UncertaintyInputError(
            f"{len(values)} scores and a true-positive rate of {tpr}; expected at least one score "
            "and a rate in (0, 1]."
        )
    # 0.07 * 100 > 7 in floating point: a share that is whole up to rounding is whole.
    return float(values[int(np.ceil(round(tpr * len(values), 9))) - 1])


def detectors() -> dict[str, Callable[[], Detector]]:
    """Name -> detector with its usual settings."""
    from uncertainty.ood.features import ASH, Mahalanobis, Nearest, ReAct, ViM

    return {
        "msp": MSP,
        "max-logit": MaxLogit,
        "energy": Energy,
        "entropy": Entropy,
        "mahalanobis": Mahalanobis,
        "relative-mahalanobis": lambda: Mahalanobis(relative=True),
        "knn": Nearest,
        "input-knn": lambda: Nearest(normalise=False, of="inputs"),
        "vim": ViM,
        "react": ReAct,
        "ash": ASH,
        "gradnorm": GradNorm,
    }


DETECTORS = (
    "msp",
    "max-logit",
    "energy",
    "entropy",
    "mahalanobis",
    "relative-mahalanobis",
    "knn",
    "input-knn",
    "vim",
    "react",
    "ash",
    "gradnorm",
)


def detector_named(name: str) -> Detector:
    """A detector with its usual settings.

    Raises:
        UncertaintyInputError: if there is none of that name.
    """
    known = detectors()
    if name not in known:
        raise UncertaintyInputError(f"there is no method {name!r}; there are: {', '.join(known)}.")
    return known[name]()
