"""Smooth calibration error: no bins, hence no jumps; the width of the kernel finds itself."""

import numpy as np
from scipy.fft import dct, idct

from uncertainty.arrays import Floats, needs_inputs
from uncertainty.scored import Scored

GRID = 4096
"""Cells of [0, 1]; each residual is shared between the two cell centres around it."""

NARROWEST = 1 / 1024
BISECTIONS = 40


def smooth_calibration_error(scored: Scored) -> float:
    """smECE: the integral of |kernel-smoothed (confidence - outcome)|, where it equals the width.

    The Gaussian kernel is reflected at 0 and 1. Its width is the fixed point s = smECE(s), which
    exists and is unique, as the error falls while the width rises; it is not sought below 1/1024.

    Returns:
        In [0, 1]; consistent, and biased upward as every plug-in error: compare with
        `calibration_floor`.

    Source:
        Błasiok and Nakkiran 2023, arXiv:2309.12236.
    """
    needs_inputs(len(scored), "a calibration error")
    spectrum = dct(_residuals(scored), type=2)
    low, high = NARROWEST, 1.0
    if _smoothed(spectrum, low) <= low:
        return _smoothed(spectrum, low)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _smoothed(spectrum, middle) > middle else (low, middle)
    return _smoothed(spectrum, 0.5 * (low + high))


def _residuals(scored: Scored) -> Floats:
    """Mean residual mass in each cell, shape (GRID,)."""
    mass = (scored.correct - scored.confidence) / len(scored)
    place = np.clip(scored.confidence * GRID - 0.5, 0, GRID - 1)
    left = np.minimum(place.astype(np.int64), GRID - 2)
    share = place - left
    found = np.bincount(left, mass * (1 - share), GRID)
    return np.asarray(found + np.bincount(left + 1, mass * share, GRID), dtype=np.float64)


def _smoothed(spectrum: Floats, width: float) -> float:
    """Integral of the absolute residuals under a kernel of this standard deviation.

    Reflecting at both ends is what the cosine transform does, in which a Gaussian is a Gaussian.
    """
    frequency = np.pi * np.arange(GRID)
    kernel = np.exp(-0.5 * (width * frequency) ** 2)
    return float(np.abs(idct(spectrum * kernel, type=2)).sum())
