"""Calibrators of one class's probability, each class against the rest, then divided by the sum.

A row whose classes all come out as 0 keeps the probabilities that it had.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from uncertainty.arrays import Floats, Integers, choose
from uncertainty.binning import BINNINGS, bin_of, find_edges
from uncertainty.calibrators.base import Calibrator
from uncertainty.measures import log_softmax

LEAST_LOG = -745.0
"""exp of it is the smallest number above 0: a probability of 0, as a finite logit."""


class OneVersusRest(Calibrator):
    """Fits `_fit_class` to each class's log-odds and outcomes; see the subclasses."""

    fits_: list[tuple[Floats, Floats]]

    def _fit(self, z: Floats, y: Integers) -> None:
        odds = log_odds(z)
        self.fits_ = [self._fit_class(odds[:, k], y == k) for k in range(z.shape[1])]

    def _transform(self, z: Floats) -> Floats:
        odds = log_odds(z)
        columns = [self._apply_class(odds[:, k], *fit) for k, fit in enumerate(self.fits_)]
        p = np.stack(columns, axis=1)
        total = p.sum(axis=1, keepdims=True)
        p = np.where(total > 0, p / np.where(total > 0, total, 1), np.exp(log_softmax(z)))
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(p), LEAST_LOG)

    @abstractmethod
    def _fit_class(self, odds: Floats, hit: Floats) -> tuple[Floats, Floats]: ...

    @abstractmethod
    def _apply_class(self, odds: Floats, first: Floats, second: Floats) -> Floats: ...


class PlattScaling(OneVersusRest):
    """p -> sigmoid(a logit(p) + b), by maximum likelihood with Platt's smoothed targets.

    Targets are (N+ + 1)/(N+ + 2) and 1/(N- + 2), so there is an optimum for separable data too.

    Source:
        Platt 1999, "Probabilistic outputs for support vector machines"; here of the log-odds.
    """

    def _fit_class(self, odds: Floats, hit: Floats) -> tuple[Floats, Floats]:
        positive = float(hit.sum())
        negative = len(hit) - positive
        target = np.where(hit, (positive + 1) / (positive + 2), 1 / (negative + 2))
        return logistic(odds[:, None], target, bounds=None)

    def _apply_class(self, odds: Floats, first: Floats, second: Floats) -> Floats:
        return np.asarray(expit(odds * first[0] + second[0]))


class BetaCalibration(OneVersusRest):
    """p -> sigmoid(a log p - b log(1 - p) + c) with a, b >= 0.

    Source:
        Kull, Silva Filho, Flach 2017, "Beta calibration", AISTATS.
    """

    def _fit_class(self, odds: Floats, hit: Floats) -> tuple[Floats, Floats]:
        return logistic(self._features(odds), hit.astype(np.float64), bounds=(0.0, 1e3))

    def _apply_class(self, odds: Floats, first: Floats, second: Floats) -> Floats:
        return np.asarray(expit(self._features(odds) @ first + second[0]))

    @staticmethod
    def _features(odds: Floats) -> Floats:
        """log p and -log(1 - p), from log-odds."""
        return np.stack((-np.logaddexp(0, -odds), np.logaddexp(0, odds)), axis=1)


class IsotonicCalibration(OneVersusRest):
    """p -> the best non-decreasing function (least squares), linear between its knots.

    Confidences that are equal get one value; beyond the ends it is constant.

    Source:
        Zadrozny and Elkan 2002, doi:10.1145/775047.775151.
    """

    def _fit_class(self, odds: Floats, hit: Floats) -> tuple[Floats, Floats]:
        p, where, counts = np.unique(expit(odds), return_inverse=True, return_counts=True)
        mean = np.bincount(where, hit) / counts
        return p, np.asarray(isotonic_regression(mean, weights=counts).x, dtype=np.float64)

    def _apply_class(self, odds: Floats, first: Floats, second: Floats) -> Floats:
        return np.asarray(np.interp(expit(odds), first, second))


class HistogramBinning(OneVersusRest):
    """p -> how often the class was right in the bin of p; the mean p of an empty bin's edges.

    Args:
        bins: how many.
        binning: of equal "mass" or "width".

    Source:
        Zadrozny and Elkan 2001, "Obtaining calibrated probability estimates".
    """

    def __init__(self, bins: int = 15, binning: str = "mass") -> None:
        self.bins = bins
        self.binning = choose(binning, BINNINGS, "binning")

    def _fit_class(self, odds: Floats, hit: Floats) -> tuple[Floats, Floats]:
        p = expit(odds)
        edges = find_edges(p, self.bins, self.binning)
        index, size = bin_of(p, edges), len(edges) - 1
        counts, hits = np.bincount(index, minlength=size), np.bincount(index, hit, minlength=size)
        middle = (edges[:-1] + edges[1:]) / 2
        return edges, np.where(counts > 0, hits / np.maximum(counts, 1), middle)

    def _apply_class(self, odds: Floats, first: Floats, second: Floats) -> Floats:
        return np.asarray(second[bin_of(expit(odds), first)])


def log_odds(z: Floats) -> Floats:
    """log p_k - log(1 - p_k) of the softmax, which has digits also where p_k rounds to 1."""
    found = np.empty_like(z)
    for k in range(z.shape[1]):
        others = np.delete(z, k, axis=1)
        top = others.max(axis=1, initial=LEAST_LOG)
        rest = np.exp(others - top[:, None]).sum(axis=1)
        found[:, k] = z[:, k] - top - np.log(np.maximum(rest, np.exp(LEAST_LOG)))
    return found


def logistic(
    x: Floats, target: Floats, bounds: tuple[float, float] | None
) -> tuple[Floats, Floats]:
    """Weights and intercept of a logistic regression without penalty, weights within bounds."""
    # In units of their own size, so that the optimiser's first step is of the right order.
    unit = np.maximum(np.abs(x).max(axis=0), 1e-12)
    scaled = x / unit

    def loss(theta: Floats) -> tuple[float, Floats]:
        score = scaled @ theta[:-1] + theta[-1]
        residual = (expit(score) - target) / len(x)
        value = (np.logaddexp(0, score) - target * score).mean()
        return float(value), np.append(scaled.T @ residual, residual.sum())

    limits = (
        [(None, None)] * len(unit) if bounds is None else [tuple(bounds * u) for u in unit[:, None]]
    )
    start = np.append(unit, 0.0)
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[*limits, (-1e3, 1e3)],
        options={"maxiter": 500, "ftol": 1e-15, "gtol": 1e-10},
    )
    return np.asarray(found.x[:-1] / unit), np.asarray(found.x[-1:])
