"""Temperature scaling: one number, that never changes the predicted class.

    T = argmin_T  mean_n -log softmax(z_n / T)[y_n]

The loss is convex in b = 1/T, with the slope mean_n (E_p z_k - z_y) and the curvature
mean_n Var_p z_k for p = softmax(b z): Newton's method, kept inside a bracket of the slope's sign.
It minimises the likelihood, not the calibration error, which may rise.

Source:
    Guo et al. 2017, arXiv:1706.04599.
"""

from __future__ import annotations

import numpy as np

from uncertainty.arrays import BLOCK, Floats, Integers
from uncertainty.calibrators.base import Calibrator
from uncertainty.errors import UncertaintyInputError

BOUNDS = (0.05, 100.0)
ITERATIONS = 200
PRECISION = 1e-13
"""Relative, of 1/T: a few roundings."""


class TemperatureScaling(Calibrator):
    """Divides the logits by one temperature T > 0.

    Args:
        bounds: least and largest T. Held-out data that the model classifies without a mistake
            call for T = 0, and logits that say less than nothing of the labels for T = infinity;
            then T is the bound, and `at_bound_` is true.

    Attributes:
        temperature_: T, by which logits are divided. (Not 1/T, as in netcal.)
        at_bound_: whether the optimum lies at or beyond a bound: do not trust it, get more data.
    """

    temperature_: float
    at_bound_: bool

    def __init__(self, bounds: tuple[float, float] = BOUNDS) -> None:
        low, high = bounds
        if not 0 < low < high < np.inf:
            raise UncertaintyInputError(
                f"bounds are {bounds}, expected 0 < low < high; take {BOUNDS}."
            )
        self.bounds = (float(low), float(high))

    def _fit(self, z: Floats, y: Integers) -> None:
        # Relative to the label's logit: the loss is mean_n log sum_k exp(b d_k).
        d = z - z[np.arange(len(z)), y][:, None]
        low, high = 1 / self.bounds[1], 1 / self.bounds[0]
        self.at_bound_ = False
        if not d.any():
            self.temperature_ = 1.0  # logits that are all alike are the same at every temperature
            return
        # Without a mistake the loss falls for ever, though its slope may underflow at both ends.
        warmest = bool((d > 0).any()) and derivatives(d, low)[0] >= 0
        if warmest or derivatives(d, high)[0] <= 0:
            self.temperature_ = self.bounds[1] if warmest else self.bounds[0]
            self.at_bound_ = True
            return
        b = min(max(1.0, low), high)
        for _ in range(ITERATIONS):
            slope, curvature = derivatives(d, b)
            low, high = (b, high) if slope < 0 else (low, b)
            step = b - slope / curvature if curvature > 0 else np.nan
            # Outside the bracket (or not a number), halve it on the scale of logarithms.
            new = step if low < step < high else float(np.sqrt(low * high))
            if abs(new - b) <= PRECISION * b:
                break
            b = new
        self.temperature_ = 1 / b

    def _transform(self, z: Floats) -> Floats:
        return z / self.temperature_

    def affine(self) -> tuple[Floats, Floats]:
        """Scale and shift of each class's logit, shape (classes,) each."""
        return np.full(self.classes_, 1 / self.temperature_), np.zeros(self.classes_)


def derivatives(d: Floats, b: float) -> tuple[float, float]:
    """Slope and curvature in b of mean_n log sum_k exp(b d_nk)."""
    slope = curvature = 0.0
    step = max(1, BLOCK // d.shape[1])
    for start in range(0, len(d), step):
        part = d[start : start + step]
        top = part.max(axis=1, keepdims=True)
        p = np.exp(b * (part - top))
        p /= p.sum(axis=1, keepdims=True)
        mean = np.einsum("nk,nk->n", p, part)
        slope += float(mean.sum())
        curvature += float((np.einsum("nk,nk->n", p, (part - mean[:, None]) ** 2)).sum())
    return slope / len(d), curvature / len(d)
