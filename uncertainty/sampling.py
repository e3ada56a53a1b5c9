"""What chance does to a calibration error: its floor, and an interval by bootstrap.

Both redraw, and depend on the seed and the set of inputs, not on their order. Beyond LARGE inputs,
confidences closer than 1/CELLS of a bin are drawn as one (Binomial for Bernoulli, their mean for
each), which makes a million inputs as quick as twenty thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from uncertainty.arrays import Floats, Integers, needs_inputs
from uncertainty.binning import bin_of, find_edges
from uncertainty.calibration_error import BINS, Binning, bin_confidences, summed_up
from uncertainty.errors import UncertaintyInputError
from uncertainty.scored import Scored

LARGE = 20_000
CELLS = 256
REPLICATES = 1000
AT_ONCE = 2**22
"""Random numbers drawn at once."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The calibration error that a perfectly calibrated model would show with these confidences.

    Attributes:
        mean: over the simulated label sets.
        quantile: 95 % of them show no more: an error below it is no evidence of miscalibration.
        p_value: share of simulations, this data set counted among them, that show at least the
            error of these labels.
    """

    mean: float
    quantile: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: its lower end.
        high: its upper end.
        level: the share of data sets whose interval is to hold the truth.
    """

    low: float
    high: float
    level: float


def calibration_floor(
    scored: Scored, how: Binning | None = None, *, replicates: int = REPLICATES, seed: int = 0
) -> Floor:
    """Redraw every label from its confidence and look at the calibration error.

    Args:
        scored: the predictions; their labels matter for the p-value only.
        how: the calibration error is binned; the ECE of 15 bins by default.
        replicates: how often.
        seed: of the draws.
    """
    how = Binning(bins=BINS) if how is None else how
    cells = _Cells.of(scored, how)
    found = np.empty(_checked(replicates))
    rng = np.random.default_rng([seed, 1])
    count = cells.counts
    chance = np.clip(cells.confidence / count, 0, 1)
    for part in cells.parts(replicates):
        size = part.stop - part.start
        if cells.single:
            hits = (rng.random((size, len(count))) < chance).astype(np.float64)
        else:
            hits = rng.binomial(count.astype(np.int64), chance, (size, len(count))).astype(float)
        found[part] = cells.error(np.broadcast_to(count, hits.shape), hits)
    observed = cells.error(count[None], cells.hits[None])[0]
    above = int((found >= observed - 1e-12).sum())
    return Floor(
        float(found.mean()), float(np.quantile(found, 0.95)), (above + 1) / (replicates + 1)
    )


def bootstrap_calibration_error(
    scored: Scored,
    how: Binning | None = None,
    *,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """An interval of the population's binned calibration error, by resampling the inputs.

    Replicates carry the bias of the error twice, so their quantiles lie too high. They are taken
    about the error itself instead (the basic bootstrap, 2 e - quantile), which removes the bias to
    first order, and cut at 0. At perfect calibration the error has a kink, where no bootstrap
    works: so the lower end is 0 unless the floor's test refutes perfect calibration at this level.
    Bins stay those of the data.

    Args:
        scored: the predictions.
        how: the calibration error is binned; the ECE of 15 bins by default.
        level: in (0, 1).
        replicates: how often.
        seed: of the draws.
    """
    how = Binning(bins=BINS) if how is None else how
    _check_level(level)
    cells = _Cells.of(scored, how).split_by_outcome()
    found = np.empty(_checked(replicates))
    rng = np.random.default_rng([seed, 2])
    total = int(cells.counts.sum())
    mean_hits = cells.hits / cells.counts
    for part in cells.parts(replicates):
        drawn = rng.multinomial(total, cells.counts / total, part.stop - part.start).astype(float)
        found[part] = cells.error(drawn, drawn * mean_hits)
    observed = float(cells.error(cells.counts[None], cells.hits[None])[0])
    tail = (1 - level) / 2
    ends = 2 * observed - np.quantile(found, [1 - tail, tail])
    if how.norm != "debiased":
        ends = np.maximum(ends, 0.0)
        floor = calibration_floor(scored, how, replicates=replicates, seed=seed)
        ends[0] = ends[0] if floor.p_value <= 1 - level else 0.0
    return Interval(float(ends[0]), float(ends[1]), level)


def bootstrap_mean(
    values: Floats, *, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> Interval:
    """An interval of the mean of per-input values (NLL, Brier, their differences), percentile kind.

    Args:
        values: shape (inputs,), finite.
        level: in (0, 1).
        replicates: how often.
        seed: of the draws.
    """
    _check_level(level)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    needs_inputs(len(ordered), "an interval")
    if not np.isfinite(ordered).all():
        raise UncertaintyInputError("a value is not finite, and so is no mean; leave it out.")
    rng = np.random.default_rng([seed, 3])
    found = np.empty(_checked(replicates))
    step = max(1, AT_ONCE // len(ordered))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        found[start : start + size] = ordered[
            rng.integers(0, len(ordered), (size, len(ordered)))
        ].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high), level)


def wilson(hits: Floats, counts: Floats, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's interval of a share, lower and upper ends; (0, 1) where nothing was counted.

    Args:
        hits: any shape.
        counts: same shape.
        level: in (0, 1).

    Source:
        Wilson 1927; Brown, Cai, DasGupta 2001, doi:10.1214/ss/1009213286.
    """
    _check_level(level)
    z2 = float(ndtri((1 + level) / 2)) ** 2
    n = np.asarray(counts, dtype=np.float64)
    k = np.asarray(hits, dtype=np.float64)
    centre = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2 * (k * (n - k) / np.maximum(n, 1) + z2 / 4)) / (n + z2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Inputs, or groups of close ones, ordered by bin: counts, summed confidence, correct ones."""

    counts: Floats
    confidence: Floats
    hits: Floats
    starts: Integers
    edges: Floats
    how: Binning
    single: bool

    @classmethod
    def of(cls, scored: Scored, how: Binning) -> _Cells:
        needs_inputs(len(scored), "a calibration error")
        edges = find_edges(scored.confidence, how.bins, how.binning)
        # By outcome second, so that inputs of one confidence have one order.
        order = np.lexsort((scored.correct, scored.confidence))
        confidence, hits = scored.confidence[order], scored.correct[order].astype(np.float64)
        index = bin_of(confidence, edges)
        counts = np.ones_like(confidence)
        single = len(confidence) <= LARGE
        if not single:
            width = edges[index + 1] - edges[index]
            place = np.clip((confidence - edges[index]) / width, 0, 1) * CELLS
            cell = index * CELLS + np.minimum(place.astype(np.int64), CELLS - 1)
            _, inverse = np.unique(cell, return_inverse=True)
            first = np.unique(inverse, return_index=True)[1]
            counts = np.bincount(inverse).astype(np.float64)
            confidence = np.bincount(inverse, confidence).astype(np.float64)
            hits = np.bincount(inverse, hits).astype(np.float64)
            index = index[first]
        starts = np.searchsorted(index, np.arange(len(edges) - 1), side="left")
        return cls(counts, confidence, hits, starts, edges, how, single)

    def split_by_outcome(self) -> _Cells:
        """Each group as two, of the correct and of the others, so that groups can be resampled."""
        if self.single:
            return self
        mean = self.confidence / self.counts
        wrong = self.counts - self.hits
        counts = np.stack((wrong, self.hits), axis=1).ravel()
        confidence = np.stack((wrong * mean, self.hits * mean), axis=1).ravel()
        hits = np.stack((np.zeros_like(wrong), self.hits), axis=1).ravel()
        kept = counts > 0
        starts = np.concatenate(([0], np.cumsum(kept)))[2 * self.starts]
        return _Cells(
            counts[kept], confidence[kept], hits[kept], starts, self.edges, self.how, False
        )

    def parts(self, replicates: int) -> list[slice]:
        step = max(1, AT_ONCE // len(self.counts))
        return [slice(i, min(i + step, replicates)) for i in range(0, replicates, step)]

    def error(self, counts: Floats, hits: Floats) -> Floats:
        """Calibration errors of redrawn counts and hits, shape (replicates, cells)."""
        held = counts * (self.confidence / self.counts)
        n, c, a = (self._per_bin(values) for values in (counts, held, hits))
        return summed_up(n, bin_confidences(n, c, self.edges, self.how), a, self.how)

    def _per_bin(self, values: Floats) -> Floats:
        sums = np.concatenate((np.zeros((len(values), 1)), np.cumsum(values, axis=1)), axis=1)
        ends = np.append(self.starts[1:], values.shape[1])
        return np.asarray(sums[:, ends] - sums[:, self.starts])


def _checked(replicates: int) -> int:
    if replicates < 1:
        raise UncertaintyInputError(f"replicates is {replicates}, expected at least 1; take 1000.")
    return replicates


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UncertaintyInputError(f"level is {level}, expected between 0 and 1; take 0.95.")
