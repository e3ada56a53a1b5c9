"""Inputs as PNG inside the page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError
from verify.report.pictures import as_image

MOST_PIXELS = 256
"""Of a side; larger images are thinned."""
MIDDLE = 128


@dataclass(frozen=True, slots=True)
class Triple:
    """Input, perturbation and counterexample, ready for `src`.

    Attributes:
        clean, change, adversarial: data URIs.
        amplified: by how much the perturbation is enlarged.
    """

    clean: str
    change: str
    adversarial: str
    amplified: float


def drawn(clean: NDArray[np.float32], adversarial: NDArray[np.float32]) -> Triple | None:
    """The three pictures, or None for what is no image.

    Both images share one scale. The perturbation is grey where nothing changed and is enlarged
    until its largest change spans the scale.
    """
    try:
        before, after = (as_image(values).astype(np.float64) for values in (clean, adversarial))
    except DataError:
        return None
    if before.shape != after.shape or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    low = min(float(before.min()), float(after.min()))
    span = max(float(before.max()), float(after.max())) - low or 1.0
    change = after - before
    largest = float(np.abs(change).max()) or 1.0
    return Triple(
        png(255 * (before - low) / span),
        png(MIDDLE + (MIDDLE - 1) * change / largest),
        png(255 * (after - low) / span),
        span / (2 * largest),
    )


def alone(values: NDArray[np.float32]) -> str | None:
    """An input by itself as a data URI, or None for what is no image."""
    try:
        image = as_image(values).astype(np.float64)
    except DataError:
        return None
    if not np.isfinite(image).all():
        return None
    low = float(image.min())
    return png(255 * (image - low) / (float(image.max()) - low or 1.0))


def png(values: NDArray[np.float64]) -> str:
    """Values from 0 to 255 as a data URI."""
    from PIL import Image

    step = max(1, math.ceil(max(values.shape[:2]) / MOST_PIXELS))
    pixels = np.clip(np.rint(values[::step, ::step]), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
