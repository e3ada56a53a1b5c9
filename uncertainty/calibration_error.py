"""Calibration errors over bins: how far the confidence of a bin is from its accuracy.

    ECE = sum_m (n_m / n) |accuracy_m - confidence_m|

An ECE is biased upward: also a perfectly calibrated model shows one. `calibration_floor`
(`uncertainty.sampling`) says how large, and belongs beside every ECE that is told.

Source:
    Naeini et al. 2015 (ECE, MCE); Guo et al. 2017, arXiv:1706.04599; Kull et al. 2019,
    arXiv:1910.12656 (classwise); Kumar et al. 2019, arXiv:1909.10155 (debiased).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uncertainty.arrays import Flags, Floats, Integers, choose, needs_inputs
from uncertainty.binning import BIN_CONFIDENCES, BinTable, bin_of, find_edges
from uncertainty.errors import UncertaintyInputError
from uncertainty.scored import ClassBins, Scored

NORMS = ("l1", "l2", "max", "debiased")
BINS = 15


@dataclass(frozen=True, slots=True)
class Binning:
    """How a calibration error is binned and summed up.

    Attributes:
        bins: how many.
        norm: "l1" (the ECE), "l2" (its root mean square), "max" (the MCE), or "debiased": the
            l2 error less what chance adds to it. That one may be below 0, and is told with its
            sign: sign(v) sqrt(|v|) of v = sum_m w_m [(acc - conf)^2 - acc (1 - acc) / (n_m - 1)].
            Bins of one input, whose chance cannot be told, count as they are.
        binning: bins of equal "width" or of equal "mass".
        bin_confidence: the "mean" of a bin's confidences, or the "midpoint" of its edges, which
            shows an error of 1/(2 bins) for a model that is always certain and right.
    """

    bins: int = BINS
    norm: str = "l1"
    binning: str = "width"
    bin_confidence: str = "mean"

    def __post_init__(self) -> None:
        choose(self.norm, NORMS, "norm")
        choose(self.bin_confidence, BIN_CONFIDENCES, "bin_confidence")


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationError:
    """A calibration error and the table it came from, which `plot_reliability` draws.

    Attributes:
        value: the error.
        how: it was binned and summed up.
        table: the bins.
        count: inputs.
    """

    value: float
    how: Binning
    table: BinTable
    count: int

    @property
    def worst_bin(self) -> int:
        """The bin with the largest gap. Look at its count: of one input, a gap says nothing."""
        return int(np.nanargmax(np.abs(self.table.accuracy - self.table.confidence)))


def calibration_error(
    scored: Scored,
    *,
    bins: int = BINS,
    norm: str = "l1",
    binning: str = "width",
    bin_confidence: str = "mean",
) -> CalibrationError:
    """The error of the confidence in the predicted class (or of an event's probability).

    Args:
        scored: by `score_logits`, `score_probabilities` or `score_events`.
        bins: see `Binning`, as for the others.
        norm: "l1" is the ECE, "max" the MCE.
        binning: "width" or "mass".
        bin_confidence: "mean" or "midpoint".
    """
    how = Binning(bins, norm, binning, bin_confidence)
    needs_inputs(len(scored), "a calibration error")
    edges = find_edges(scored.confidence, bins, binning)
    index = bin_of(scored.confidence, edges)
    size = len(edges) - 1
    whole = np.bincount(index, minlength=size).astype(np.int64)
    counts = whole.astype(np.float64)
    sums = _sums(index, scored.confidence, size)
    hits = _sums(index, scored.correct, size)
    held = bin_confidences(counts, sums, edges, how)
    value = float(summed_up(counts, held, hits, how))
    with np.errstate(invalid="ignore"):
        table = BinTable(edges[:-1], edges[1:], whole, held / counts, hits / counts)
    return CalibrationError(value, how, table, len(scored))


def maximum_calibration_error(scored: Scored, *, bins: int = BINS) -> CalibrationError:
    """MCE: the largest gap of a bin of equal width."""
    return calibration_error(scored, bins=bins, norm="max")


def classwise_calibration_error(scored: Scored, *, norm: str = "l1") -> float:
    """The mean over all classes of the error of p_k against [label = k].

    Every probability counts, not only the predicted class's; with many classes most of them are
    small and right to be, so values are small: compare only at the same number of classes. The
    bins are those that the predictions were scored with, of equal width.

    Raises:
        UncertaintyInputError: if events were scored, which have one class only.
    """
    needs_inputs(len(scored), "a calibration error")
    table = class_bins_of(scored)
    how = Binning(bins=table.counts.shape[1], norm=norm)
    values = summed_up(table.counts, table.probability, table.hits, how)
    return float(np.mean(values))


def class_bins_of(scored: Scored) -> ClassBins:
    """The table of the classes.

    Raises:
        UncertaintyInputError: if there is none.
    """
    if scored.class_bins is None:
        raise UncertaintyInputError(
            "events have one class; use calibration_error, or score the probabilities of all "
            "classes with score_probabilities."
        )
    return scored.class_bins


def _sums(index: Integers, values: Floats | Flags, size: int) -> Floats:
    return np.asarray(np.bincount(index, values, minlength=size), dtype=np.float64)


def bin_confidences(counts: Floats, sums: Floats, edges: Floats, how: Binning) -> Floats:
    """The confidence held in each bin, times its count; the last axis is that of the bins."""
    if how.bin_confidence == "mean":
        return sums
    return np.asarray(counts * (edges[:-1] + edges[1:]) / 2)


def summed_up(counts: Floats, held: Floats, hits: Floats, how: Binning) -> Floats:
    """The error from sums over bins; the last axis is that of the bins.

    Args:
        counts: inputs in each bin.
        held: their confidences, summed.
        hits: correct ones among them.
        how: which norm.
    """
    total = counts.sum(axis=-1)
    some = np.maximum(counts, 1)
    gap = np.abs(hits - held)
    if how.norm == "l1":
        return np.asarray(gap.sum(axis=-1) / total)
    if how.norm == "max":
        return np.asarray((gap / some).max(axis=-1))
    squared = gap**2 / some
    if how.norm == "debiased":
        share = hits / some
        squared = squared - counts * share * (1 - share) / np.maximum(counts - 1, 1)
    mean = squared.sum(axis=-1) / total
    return np.asarray(np.sign(mean) * np.sqrt(np.abs(mean)))
