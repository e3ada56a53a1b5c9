"""Recalibration of predicted distributions of numbers: of their width, or of their quantiles."""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression

from uncertainty.arrays import Array, Floats, as_confidences, as_floats, as_positive, needs_inputs
from uncertainty.errors import NotFittedError
from uncertainty.regression_scores import gaussian_log_score

LEAST_SCALE = 1e-12
"""Of deviations: 0 is none."""


class SigmaScaling:
    """Multiplies every predicted standard deviation by one number.

    The maximum of the Gaussian likelihood is sqrt(mean ((y - mu)/sigma)^2), in closed form.

    Attributes:
        scale_: that number.
        nll_before_: mean Gaussian NLL of the fitting data before, in nats.
        nll_after_: and after.

    Source:
        Levi et al. 2022, arXiv:1905.11659; Laves et al. 2020.
    """

    scale_: float
    nll_before_: float
    nll_after_: float

    def fit(self, targets: Array, means: Array, deviations: Array) -> SigmaScaling:
        """Fit to held-out predictions of shape (inputs,).

        Where every mean is exactly right the scale is LEAST_SCALE, not 0.
        """
        before = gaussian_log_score(targets, means, deviations)
        needs_inputs(len(before), "calibration")
        sigma = as_positive(deviations, "deviations")
        z = (as_floats(targets, "targets") - as_floats(means, "means")) / sigma
        self.scale_ = max(float(np.sqrt((z**2).mean())), LEAST_SCALE)
        self.nll_before_ = float(before.mean())
        self.nll_after_ = float(gaussian_log_score(targets, means, sigma * self.scale_).mean())
        return self

    def transform(self, deviations: Array) -> Floats:
        """Calibrated standard deviations, of the same shape."""
        if not hasattr(self, "scale_"):
            raise NotFittedError("SigmaScaling is not fitted; call fit first.")
        return as_positive(deviations, "deviations") * self.scale_


class QuantileRecalibration:
    """Maps a predicted probability level to the share of targets that really lie below it.

    The isotonic regression of the empirical distribution of PIT values, linear between them, 0 at 0
    and 1 at 1: the recalibrated distribution function is map(F(y)).

    Attributes:
        levels_: predicted levels, ascending.
        shares_: observed shares.

    Source:
        Kuleshov, Fenner, Ermon 2018, arXiv:1807.00263.
    """

    levels_: Floats
    shares_: Floats

    def fit(self, pit: Array) -> QuantileRecalibration:
        """Fit to held-out PIT values of shape (inputs,): `gaussian_pit`, `mixture_pit`."""
        found = as_confidences(pit, "pit")
        needs_inputs(len(found), "calibration")
        ordered, counts = np.unique(found, return_counts=True)
        # Each value in the middle of its step, so that the map of a calibrated model is about x.
        share = (np.cumsum(counts) - 0.5 * counts) / len(found)
        share = isotonic_regression(share).x
        inner = (ordered > 0) & (ordered < 1)
        self.levels_ = np.concatenate(([0.0], ordered[inner], [1.0]))
        self.shares_ = np.concatenate(([0.0], share[inner], [1.0]))
        return self

    def transform(self, pit: Array) -> Floats:
        """Recalibrated PIT values or probability levels."""
        self._fitted()
        return np.asarray(np.interp(as_confidences(pit, "pit"), self.levels_, self.shares_))

    def level_for(self, share: Array) -> Floats:
        """The predicted level whose quantile has these shares of targets below it."""
        self._fitted()
        return np.asarray(np.interp(as_confidences(share, "share"), self.shares_, self.levels_))

    def _fitted(self) -> None:
        if not hasattr(self, "levels_"):
            raise NotFittedError("QuantileRecalibration is not fitted; call fit first.")
