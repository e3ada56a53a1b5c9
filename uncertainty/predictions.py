"""Predictive distributions: what an average over several networks says about each input.

    CategoricalMixture   class probabilities of I members -> their mean, entropy and its two parts
    GaussianMixture      mean and variance of I members -> moments, density, cdf, quantiles

Members come first: (I, N, K) for classes, (I, N) or (I, N, D) for numbers. Entropies are in nats,
variances in squared units of the target. Everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, log_softmax, logsumexp, ndtr, ndtri
from torch import Tensor

from uncertainty.arrays import as_floats
from uncertainty.errors import UncertaintyInputError
from uncertainty.measures import entropy, expected_entropy
from uncertainty.seeding import derived_seed

Array = NDArray[np.float64]

BISECTIONS = 200
"""More than enough to reach neighbouring float64 numbers; the loop stops when it does."""


@dataclass(frozen=True, slots=True, eq=False)
class CategoricalMixture:
    """Class probabilities of several members, and of their equal-weight average.

    The prediction is the mean of the probabilities, never the softmax of the mean logits.

    Attributes:
        log_probs: shape (I, N, K), normalised over K.
    """

    log_probs: Array

    @classmethod
    def from_logits(cls, logits: ArrayLike | Tensor) -> CategoricalMixture:
        """From members' logits, shape (I, N, K); (N, K) is one member.

        Raises:
            UncertaintyInputError: if the shape is another, or a logit is not finite.
        """
        array = as_floats(logits, "logits")
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[2] < 2 or not array.shape[0]:
            raise UncertaintyInputError(
                f"logits have shape {array.shape}, expected (members, inputs, classes) with at "
                "least one member and two classes."
            )
        return cls(log_softmax(array, axis=2))

    @property
    def members(self) -> int:
        """Number of members I."""
        return len(self.log_probs)

    @property
    def log_prob(self) -> Array:
        """Logarithm of the mean probability, shape (N, K)."""
        pooled: Array = logsumexp(self.log_probs, axis=0) - math.log(self.members)
        return pooled

    @property
    def probs(self) -> Array:
        """Mean probability, shape (N, K)."""
        return np.exp(self.log_prob)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of the largest mean probability, shape (N,); the lowest index of equals."""
        return np.asarray(self.log_prob.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> Array:
        """The largest mean probability, shape (N,)."""
        return np.asarray(np.exp(self.log_prob.max(axis=1)), dtype=np.float64)

    @property
    def total(self) -> Array:
        """Entropy of the mean, shape (N,), in nats: 0 to log K."""
        return entropy(self.probs)

    @property
    def aleatoric(self) -> Array:
        """Mean of the members' entropies, shape (N,), in nats."""
        return expected_entropy(np.exp(self.log_probs))

    @property
    def epistemic(self) -> Array:
        """Mutual information between class and member, shape (N,): total - aleatoric, in nats.

        Of a finite ensemble: at most log min(I, K), and low by about (I - 1)/I of what infinitely
        many members would show. Computed as the mean divergence of the members from their mean,
        which does not cancel where both entropies are large and equal.
        """
        gap = np.where(np.exp(self.log_probs) > 0, self.log_probs - self.log_prob, 0.0)
        divergence = (np.exp(self.log_probs) * gap).sum(axis=2).mean(axis=0)
        return np.asarray(np.maximum(divergence, 0.0), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixture:
    """An equal-weight mixture of normal distributions for each target.

    Attributes:
        means: shape (I, N) or (I, N, D), in units of the target.
        variances: same shape, > 0, in squared units. Several outputs D are treated one by one.

    Raises:
        UncertaintyInputError: if the shapes differ, or a variance is not positive and finite.
    """

    means: Array
    variances: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", as_floats(self.means, "means"))
        object.__setattr__(self, "variances", as_floats(self.variances, "variances"))
        if self.means.shape != self.variances.shape or self.means.ndim < 2 or not len(self.means):
            raise UncertaintyInputError(
                f"means have shape {self.means.shape} and variances {self.variances.shape}, "
                "expected the same (members, inputs) or (members, inputs, outputs) for both."
            )
        if not (self.variances > 0).all():
            raise UncertaintyInputError(
                "a variance is not > 0; a network's log-variance cannot give that, so check what "
                "was passed as variances."
            )

    @property
    def mean(self) -> Array:
        """Mean of the mixture, shape (N,) or (N, D)."""
        return np.asarray(self.means.mean(axis=0), dtype=np.float64)

    @property
    def aleatoric(self) -> Array:
        """Mean of the members' variances: the noise they see in the data."""
        return np.asarray(self.variances.mean(axis=0), dtype=np.float64)

    @property
    def epistemic(self) -> Array:
        """Variance of the members' means (divisor I): what they do not agree on."""
        return np.asarray(self.means.var(axis=0), dtype=np.float64)

    @property
    def variance(self) -> Array:
        """Variance of the mixture by the law of total variance: aleatoric + epistemic."""
        return self.aleatoric + self.epistemic

    def scaled(self, scale: ArrayLike, shift: ArrayLike = 0.0) -> GaussianMixture:
        """The distribution of scale * y + shift, to undo a standardised target.

        Raises:
            UncertaintyInputError: if a scale is 0.
        """
        factor, offset = as_floats(scale, "scale"), as_floats(shift, "shift")
        if not (factor != 0).all():
            raise UncertaintyInputError("scale is 0: a constant target has no distribution.")
        return GaussianMixture(self.means * factor + offset, self.variances * factor**2)

    def log_prob(self, y: ArrayLike | Tensor) -> Array:
        """Log density of the mixture at y, shape (N,) or (N, D), in nats."""
        logs = -0.5 * (np.log(2 * np.pi * self.variances) + self._z(y) ** 2)
        return np.asarray(logsumexp(logs, axis=0) - math.log(len(self.means)), dtype=np.float64)

    def moment_matched_log_prob(self, y: ArrayLike | Tensor) -> Array:
        """Log density at y of the one normal distribution with the mixture's mean and variance.

        Lakshminarayanan et al. 2017 (arXiv:1612.01474) report this; it is not the mixture's own.
        """
        z = (self._targets(y) - self.mean) ** 2 / self.variance
        return -0.5 * (np.log(2 * np.pi * self.variance) + z)

    def cdf(self, y: ArrayLike | Tensor) -> Array:
        """Probability of a target <= y."""
        return np.asarray(ndtr(self._z(y)).mean(axis=0), dtype=np.float64)

    def log_cdf(self, y: ArrayLike | Tensor) -> Array:
        """Its logarithm, accurate far out in the tail."""
        logs = logsumexp(log_ndtr(self._z(y)), axis=0) - math.log(len(self.means))
        return np.asarray(logs, dtype=np.float64)

    def quantile(self, level: float) -> Array:
        """The y with cdf(y) = level, shape (N,) or (N, D), by bisection to float64's resolution.

        The members' own quantiles bracket it, so nothing has to be searched for.

        Raises:
            UncertaintyInputError: if the level does not lie strictly between 0 and 1.
        """
        if not 0 < level < 1:
            raise UncertaintyInputError(f"level is {level}, expected strictly between 0 and 1.")
        own = self.means + np.sqrt(self.variances) * ndtri(level)
        low, high = own.min(axis=0), own.max(axis=0)
        # Above the middle, 1 - cdf is what float64 resolves: the mirrored mixture's lower tail.
        sign = 1.0 if level <= 0.5 else -1.0
        target = level if level <= 0.5 else 1.0 - level
        deviation = np.sqrt(self.variances)
        for _ in range(BISECTIONS):
            middle = low + (high - low) / 2
            if ((middle <= low) | (middle >= high)).all():
                break
            below = ndtr(sign * (middle - self.means) / deviation).mean(axis=0)
            left = below < target if sign > 0 else below > target
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        return np.asarray(low + (high - low) / 2, dtype=np.float64)

    def interval(self, coverage: float) -> tuple[Array, Array]:
        """The central interval that holds this share of the mixture: lower and upper end.

        Raises:
            UncertaintyInputError: if the coverage does not lie strictly between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise UncertaintyInputError(f"coverage is {coverage}, expected between 0 and 1.")
        return self.quantile((1 - coverage) / 2), self.quantile((1 + coverage) / 2)

    def sample(self, count: int, seed: int = 0) -> Array:
        """Draws from the mixture, shape (count, N) or (count, N, D)."""
        numbers = np.random.default_rng(derived_seed(seed, "mixture"))
        which = numbers.integers(len(self.means), size=(count, *self.means.shape[1:]))
        means = np.take_along_axis(self.means, which, axis=0)
        deviations = np.sqrt(np.take_along_axis(self.variances, which, axis=0))
        return np.asarray(means + deviations * numbers.standard_normal(means.shape))

    def _z(self, y: ArrayLike | Tensor) -> Array:
        return (self._targets(y) - self.means) / np.sqrt(self.variances)

    def _targets(self, y: ArrayLike | Tensor) -> Array:
        targets = as_floats(y, "y")
        if targets.shape not in {(), self.means.shape[1:]}:
            raise UncertaintyInputError(
                f"y has shape {targets.shape}, expected {self.means.shape[1:]}: one target for "
                "each prediction."
            )
        return targets
