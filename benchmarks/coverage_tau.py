"""Kendall's tau between pairs of test sets that may be compared, and its bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tau:
    """Kendall's tau-b and what it would be on other draws of the sets.

    Attributes:
        value: 0 where one side is constant.
        draws: shape (draws,), of the bootstrap.
    """

    value: float
    draws: Array

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval."""
        low, high = np.percentile(self.draws, [2.5, 97.5])
        return float(low), float(high)


def resampled(stratum: NDArray[np.int64], draws: int, seed: int) -> Array:
    """How often each set is in each bootstrap draw, shape (draws, sets); strata keep their size."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((draws, len(stratum)))
    for kind in np.unique(stratum):
        rows = np.flatnonzero(stratum == kind)
        share = np.full(len(rows), 1 / len(rows))
        counts[:, rows] = generator.multinomial(len(rows), share, size=draws)
    return counts


def tau(x: Array, y: Array, comparable: NDArray[np.bool_], counts: Array) -> Tau:
    """Tau-b over the pairs of sets that may be compared.

    Comparing only sets of one size controls for size: what size alone brings about cannot make a
    pair concordant. With all pairs comparable this is the usual tau-b.

    Args:
        x, y: shape (sets,).
        comparable: shape (sets, sets), symmetric.
        counts: as from `resampled`.

    Source:
        Kendall 1945, Biometrika 33 (ties); a weighted sum over strata as in Korn 1984.
    """
    first = np.sign(x[:, None] - x[None]) * comparable
    second = np.sign(y[:, None] - y[None]) * comparable

    def level(weights: Array) -> Array:
        def total(pairs: Array) -> Array:
            found: Array = ((weights @ pairs) * weights).sum(axis=1)
            return found

        scale = np.sqrt(total(first**2) * total(second**2))
        agreed = total(first * second)
        found: Array = np.divide(agreed, scale, out=np.zeros_like(agreed), where=scale > 0)
        return found

    return Tau(float(level(np.ones((1, len(x))))[0]), level(counts))


def of_nets(found: list[Tau], seed: int) -> tuple[float, float, float]:
    """The mean over nets, and its 95 % interval when nets and sets are both drawn again."""
    draws = np.stack([one.draws for one in found])
    generator = np.random.default_rng(seed)
    count = draws.shape[1]
    nets = generator.integers(0, len(found), (count, len(found)))
    columns = generator.integers(0, count, (count, len(found)))
    means = draws[nets, columns].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean([one.value for one in found])), float(low), float(high)
