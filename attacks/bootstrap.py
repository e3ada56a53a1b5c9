"""Intervals of shares by resampling the samples that they were counted on."""

import torch
from torch import Tensor

from attacks.randomness import derive_keys, uniform


def resampled(count: int, resamples: int, seed: int) -> Tensor:
    """How often each of `count` samples is drawn in each resample; (resamples, count), float64.

    The same arguments give the same draws, so that differences between two things counted on the
    same samples are resampled in pairs.
    """
    keys = torch.arange(resamples, dtype=torch.int64)
    draws = uniform(derive_keys(keys, "bootstrap", seed), count)
    picks = (draws * count).long().clamp(max=max(0, count - 1))
    return torch.zeros(resamples, count, dtype=torch.float64).scatter_add(
        1, picks, torch.ones_like(draws)
    )


def share_interval(hits: Tensor, counted: Tensor, weights: Tensor, level: float) -> Tensor:
    """Percentile intervals of hits / counted.

    Where all or none of n are hits, resampling would give an interval of width 0; there it is the
    exact one of Clopper and Pearson, whose open end is at (1 - level) / 2 = p^n of missing all.

    Args:
        hits: shape (cells, samples), bool; only where counted.
        counted: the same shape, bool.
        weights: of `resampled`.
        level: of confidence, such as 0.95.

    Returns:
        Shape (cells, 2), float64: low and high; NaN where nothing was counted.

    Source:
        Efron 1979, doi:10.1214/aos/1176344552; Clopper, Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    tail = (1 - level) / 2
    rates = (weights @ hits.double().T) / (weights @ counted.double().T)
    ends = quantiles(rates, level)
    number, total = hits.sum(dim=1), counted.sum(dim=1).double()
    open_end = 1 - tail ** (1 / total.clamp(min=1))
    zero = torch.zeros_like(open_end)
    ends = torch.where((number == 0)[:, None], torch.stack([zero, open_end], dim=1), ends)
    full = torch.stack([1 - open_end, zero + 1], dim=1)
    ends = torch.where((number == total)[:, None], full, ends)
    return torch.where((total > 0)[:, None], ends, torch.nan)


def quantiles(values: Tensor, level: float) -> Tensor:
    """The middle `level` of each column, resamples without a value left out; shape (columns, 2)."""
    tail = (1 - level) / 2
    cuts = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    return values.nanquantile(cuts, dim=0).T
