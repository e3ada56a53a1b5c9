"""Bins of confidences: (low, high], 0 in the first, 1 in the last; one rule for every metric."""

from dataclasses import dataclass

import numpy as np

from uncertainty.arrays import Floats, Integers, choose
from uncertainty.errors import UncertaintyInputError

BINNINGS = ("width", "mass")
BIN_CONFIDENCES = ("mean", "midpoint")
MOST_BINS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class BinTable:
    """What lies in each bin; arrays of shape (bins,).

    Attributes:
        low: lower edges, not in the bin (but 0 is in the first).
        high: upper edges, in the bin.
        counts: inputs in it.
        confidence: their mean confidence, or the bin's midpoint; NaN where a bin is empty.
        accuracy: the share of them that is correct; NaN where a bin is empty.
    """

    low: Floats
    high: Floats
    counts: Integers
    confidence: Floats
    accuracy: Floats


def edges_of_equal_width(bins: int) -> Floats:
    """k / bins for k = 0 ... bins, each the number that the decimal fraction is read as.

    So a confidence of 0.07 lies on the seventh edge of a hundred, as 0.07 * 100 > 7 does not.

    Raises:
        UncertaintyInputError: if `bins` is below 1 or out of proportion.
    """
    if not 1 <= bins <= MOST_BINS:
        raise UncertaintyInputError(f"bins is {bins}, expected 1 to {MOST_BINS}; take 15.")
    return np.arange(bins + 1) / bins


def edges_of_equal_mass(confidence: Floats, bins: int) -> Floats:
    """Edges with about as many confidences in each bin; equal ones always share a bin.

    The k-th edge is the ceil(n k / bins)-th smallest confidence. Ties make bins fall together, so
    there may be fewer than asked for, and the result does not depend on the order of the inputs.
    """
    edges_of_equal_width(bins)
    ordered = np.sort(confidence)
    if not len(ordered):
        return np.array([0.0, 1.0])
    last = np.ceil(len(ordered) * np.arange(1, bins) / bins).astype(np.int64) - 1
    inner = ordered[np.maximum(last, 0)]
    return np.unique(np.concatenate(([0.0], inner[inner < ordered[-1]], [1.0])))


def find_edges(confidence: Floats, bins: int, binning: str) -> Floats:
    """The edges of either kind."""
    if choose(binning, BINNINGS, "binning") == "width":
        return edges_of_equal_width(bins)
    return edges_of_equal_mass(confidence, bins)


def bin_of(confidence: Floats, edges: Floats) -> Integers:
    """The number of the bin (low, high] that each confidence lies in; 0 in the first."""
    found = np.searchsorted(edges, confidence, side="left") - 1
    return np.asarray(np.clip(found, 0, len(edges) - 2), dtype=np.int64)
