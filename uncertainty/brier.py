"""The Brier score in its parts: reliability, resolution, uncertainty, and what bins leave out."""

from dataclasses import dataclass

import numpy as np

from uncertainty.arrays import Flags, Floats, needs_inputs
from uncertainty.binning import bin_of, find_edges
from uncertainty.calibration_error import BINS, class_bins_of
from uncertainty.scored import Scored


@dataclass(frozen=True, slots=True)
class BrierParts:
    """Brier score = reliability - resolution + uncertainty + within_bins, exactly.

    Attributes:
        reliability: mean squared gap of confidence and accuracy over bins; lower is better.
        resolution: mean squared distance of the bins' accuracies from the base rate; higher is
            better.
        uncertainty: of the base rate itself; the model has no part in it.
        within_bins: variance of the confidences within bins less twice their covariance with the
            outcomes: 0 if all confidences of a bin are equal, as in Murphy's formula.

    Source:
        Murphy 1973; Stephenson, Coelho, Jolliffe 2008, doi:10.1175/2007WAF2006116.1 (within bins).
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float

    @property
    def brier(self) -> float:
        """The score itself."""
        return self.reliability - self.resolution + self.uncertainty + self.within_bins


def brier_decomposition(scored: Scored) -> BrierParts:
    """The parts of the Brier score of all classes, summed over the classes.

    The bins are those that the predictions were scored with; of events, 15 of equal width.
    """
    needs_inputs(len(scored), "a Brier score")
    if scored.class_bins is None:
        return confidence_brier_decomposition(scored)
    t = class_bins_of(scored)
    return _parts(t.counts, t.probability, t.squared, t.hits, t.hit_probability)


def confidence_brier_decomposition(
    scored: Scored, *, bins: int = BINS, binning: str = "width"
) -> BrierParts:
    """The parts of mean (confidence - correct)^2: of the predicted class alone, or of the event."""
    needs_inputs(len(scored), "a Brier score")
    edges = find_edges(scored.confidence, bins, binning)
    index, c, y = bin_of(scored.confidence, edges), scored.confidence, scored.correct

    def sums(values: Floats | Flags) -> Floats:
        return np.asarray(np.bincount(index, values, len(edges) - 1), dtype=np.float64)[None]

    return _parts(sums(np.ones_like(c)), sums(c), sums(np.square(c)), sums(y), sums(c * y))


def _parts(n: Floats, p: Floats, p2: Floats, y: Floats, py: Floats) -> BrierParts:
    total, some = n[0].sum(), np.maximum(n, 1)
    base = y.sum(axis=1, keepdims=True) / total
    reliability = ((p - y) ** 2 / some).sum() / total
    resolution = (n * (y / some - base) ** 2).sum() / total
    # sum (p - y)^2 over a bin, less that of its means: y is its own square.
    variance = (p2 - p**2 / some).sum() / total
    covariance = (py - p * y / some).sum() / total
    return BrierParts(
        float(reliability),
        float(resolution),
        float((base * (1 - base)).sum()),
        float(variance - 2 * covariance),
    )
