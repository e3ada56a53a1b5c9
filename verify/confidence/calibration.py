"""Calibration error of a whole test set, when each input may be moved within its region.

    N·ECE = sum_m |sum_{n in bin m} (c_n - z_n)|,   c: correct (1 or 0), z: confidence

with M bins of equal width. Moving input n chooses c_n, z_n and so the bin. Because |a| is the
maximum of s·a over s in [-1, 1], attained at s = 1 or -1,

    max N·ECE = max over s in {1, -1}^M of sum_n max over n's choices of s_bin·(c - z),
    min N·ECE >= max over s in [-1, 1]^M of sum_n min over n's choices of s_bin·(c - z),

since for given signs the inputs no longer depend on each other. The first is exact over the boxes
(it is a sum of suprema: at a bin's open end the value is approached, not attained). The second is
the dual of a linear relaxation that lets an input be in several bins by parts; any s is sound.

Source:
    Both derived for this project. Emde et al. 2024, arXiv:2405.13922, state the first problem as a
    mixed-integer programme and solve it approximately.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse
import torch
from torch import Tensor

from verify.confidence.scores import Scores
from verify.errors import DataError, SettingError
from verify.values.rounding import UNIT_FLOAT64

MOST_BINS = 20
"""Bins beyond which the signs are too many: 2^20 of them take seconds per thousand inputs."""
AT_ONCE = 2**22
"""Numbers in one table of partial maxima."""
EDGE = 2.0**-48
"""How far an interval is stretched before it is cut at the bins' edges: whoever computes m / M
another way may put a confidence at an edge into the neighbouring bin."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What each input may turn into: alternatives of one correctness and a range of confidence.

    Attributes:
        low, high: of the confidence, in [0, 1], shape (inputs, alternatives), float64.
        correct: whether the prediction is the label there, same shape, bool.
        possible: which alternatives exist, same shape, bool; at least one for each input.
    """

    low: Tensor
    high: Tensor
    correct: Tensor
    possible: Tensor

    def __post_init__(self) -> None:
        """Refuse what is no range of confidence."""
        held = self.possible & ~((self.low >= 0) & (self.high <= 1) & (self.low <= self.high))
        if bool(held.any()) or not bool(self.possible.any(dim=1).all()):
            raise DataError(
                "a calibration error needs at least one range of confidence in [0, 1] for each "
                "input, its lower end first; correct the ranges"
            )


def outcomes(found: Scores) -> Outcomes:
    """Right and wrong as alternatives, each with the confidence that it may have."""
    own = torch.nn.functional.one_hot(found.labels, found.possible.shape[1]).bool()
    upper = torch.where(found.possible, found.probability.upper, 0.0)
    high = torch.stack((upper[own], upper.masked_fill(own, 0).amax(dim=1)), dim=1)
    low = found.confidence.lower[:, None].expand(-1, 2)
    high = torch.minimum(high, found.confidence.upper[:, None])
    right = torch.tensor([True, False]).expand(len(low), -1)
    possible = torch.stack((found.may_be_right, found.may_be_wrong), dim=1) & (low <= high)
    return Outcomes(low, torch.maximum(high, low), right, possible)


def points(confidence: Tensor, correct: Tensor) -> Outcomes:
    """Alternatives that are single points, shape (inputs, alternatives); as attacks attain them."""
    everything = torch.ones_like(correct, dtype=torch.bool)
    wide = confidence.to(torch.float64)
    return Outcomes(wide, wide, correct, everything)


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """The bin of each confidence, of intervals (m/M, (m+1)/M] with 0 in the first; int64."""
    return ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """ECE of fixed predictions: sum_m (n_m / N) |accuracy - mean confidence|, bins of equal width.

    Source:
        Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    check_bins(bins)
    gaps = torch.zeros(bins, dtype=torch.float64)
    gap = correct.to(torch.float64) - confidence.to(torch.float64)
    gaps.index_add_(0, bin_of(confidence, bins), gap)
    return float(gaps.abs().sum()) / max(1, len(confidence))


@dataclass(frozen=True, slots=True)
class Range:
    """A quantity of a whole test set lies between these two."""

    low: float
    high: float


def error_range(possible: Outcomes, bins: int = 15) -> Range:
    """The certified range of the ECE, over everything that the inputs may turn into.

    Raises:
        SettingError: if bins is not between 1 and `MOST_BINS`.
    """
    check_bins(bins)
    count = len(possible.low)
    if not count:
        return Range(0.0, 0.0)
    gains = signed(possible, bins, closed=True)
    most, _ = greatest(gains)
    losses = -signed(possible, bins, closed=True, least=True)
    # Each sum has `count` terms of size at most 1; the bins' ends are rounded.
    slack = 4 * (count + bins) * UNIT_FLOAT64 + 2 * EDGE
    low = least(losses) / count - slack
    return Range(min(1.0, max(0.0, low)), min(1.0, most / count + slack))


def worst_choice(attained: Outcomes, bins: int = 15) -> Tensor:
    """Which attained point of each input makes the ECE largest, shape (inputs,), int64.

    Exact over the points given, so the ECE of the chosen ones is one that an attacker reaches.
    """
    check_bins(bins)
    _, signs = greatest(signed(attained, bins, closed=False))
    value = attained.correct.to(torch.float64) - attained.low
    value = value * signs[bin_of(attained.low, bins)]
    return value.masked_fill(~attained.possible, -torch.inf).argmax(dim=1)


def check_bins(bins: int) -> None:
    """Refuse numbers of bins that cannot be meant, or whose signs are too many."""
    if not 1 <= bins <= MOST_BINS:
        raise SettingError(
            f"bins is {bins}, expected 1 to {MOST_BINS}: the certified calibration error tries "
            "all signs of all bins"
        )


def signed(possible: Outcomes, bins: int, *, closed: bool, least: bool = False) -> Tensor:
    """The best s·(c - z) of each input in each bin, for s = 1 and s = -1; (inputs, bins, 2).

    Args:
        possible: the alternatives.
        bins: M.
        closed: whether bins include both ends, so that what is only approached counts too.
        least: the best of -s·(c - z) instead.

    Returns:
        -inf where an input cannot be in that bin.
    """
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    low, high = possible.low[..., None], possible.high[..., None]
    if closed:
        a = torch.maximum(low - EDGE, edges[:-1])
        b = torch.minimum(high + EDGE, edges[1:])
        meets = a <= b + 2 * EDGE
        b = torch.maximum(a, b)
    else:
        a = b = possible.low[..., None].expand(*possible.low.shape, bins)
        meets = bin_of(possible.low, bins)[..., None] == torch.arange(bins)
    c = possible.correct.to(torch.float64)[..., None]
    up, down = c - a, b - c
    if least:
        up, down = b - c, c - a
    value = torch.stack((up, down), dim=3)
    meets = meets & possible.possible[..., None]
    return value.masked_fill(~meets[..., None], -torch.inf).amax(dim=1)


def greatest(gains: Tensor) -> tuple[float, Tensor]:
    """The largest sum over the inputs of their best bin, over all signs; and those signs.

    A table over the signs of the first bins is doubled bin by bin, so M bins cost 2^(M+1) per input
    and not M·2^M.
    """
    # Bins that no input can reach have no sign worth trying.
    reached = torch.isfinite(gains).any(dim=2).any(dim=0).nonzero().flatten()
    total = torch.zeros(2 ** len(reached), dtype=torch.float64)
    for part in gains.split(max(1, AT_ONCE // len(total))):
        best = part.new_full((1, len(part)), -torch.inf)
        for m in reached.tolist():
            best = torch.cat(
                (torch.maximum(best, part[:, m, 0]), torch.maximum(best, part[:, m, 1]))
            )
        total += best.sum(dim=1)
    where = int(total.argmax())
    signs = torch.ones(gains.shape[1], dtype=torch.float64)
    for place, m in enumerate(reached.tolist()):
        # The last bin that was doubled is the highest bit.
        if where >> place & 1:
            signs[m] = -1
    return float(total[where]), signs


def least(losses: Tensor) -> float:
    """A lower bound of min N·ECE: the dual's value at signs that a linear programme finds.

    Args:
        losses: the least s·(c - z) of each input in each bin, for s = 1 and s = -1, shape
            (inputs, bins, 2); +inf where an input cannot be in that bin.
    """
    signs = torch.as_tensor(dual_signs(losses.numpy()))

    def value(s: Tensor) -> float:
        # s·(c - z) over an interval of z is least at an end: |s| times that of its sign.
        side = (s < 0).long()
        one = losses[:, torch.arange(len(s)), side] * s.abs()
        one = torch.where(torch.isfinite(losses[:, :, 0]), one, torch.inf)
        return float(one.amin(dim=1).sum())

    return max(value(signs), value(torch.zeros_like(signs)))


def dual_signs(losses: np.ndarray) -> np.ndarray:
    """max_s,u sum_n u_n with u_n <= s_m·(c - z) at both ends of each possible choice; s in [-1, 1].

    losses[..., 0] is the least c - z, losses[..., 1] the least z - c, so s·(c - z) at the ends is
    s·losses[..., 0] and -s·losses[..., 1].
    """
    count, bins, _ = losses.shape
    inputs, places = np.nonzero(np.isfinite(losses[:, :, 0]))
    rows = np.arange(len(inputs))
    columns, values, lines = [], [], []
    for end, sign in ((0, 1.0), (1, -1.0)):
        lines += [rows + end * len(rows)] * 2
        columns += [inputs, count + places]
        values += [np.ones(len(rows)), -sign * losses[inputs, places, end]]
    matrix = scipy.sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(lines), np.concatenate(columns))),
        shape=(2 * len(rows), count + bins),
    )
    objective = np.concatenate((-np.ones(count), np.zeros(bins)))
    limits = [(None, None)] * count + [(-1, 1)] * bins
    found = scipy.optimize.linprog(
        objective, A_ub=matrix, b_ub=np.zeros(matrix.shape[0]), bounds=limits, method="highs"
    )
    signs = np.zeros(bins) if found.x is None else found.x[count:]
    return np.clip(signs, -1, 1)
