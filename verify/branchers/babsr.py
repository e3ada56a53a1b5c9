"""BaBSR: which neurons are worth a split, from one backward walk that is there anyway."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.bounders.beta_crown import Climbed
from verify.bounders.domains import Domains, Frame


def candidates(frame: Frame, climbed: Climbed, count: int) -> tuple[Tensor, Tensor]:
    """Columns to try, and |coefficient| of each: the best by three scores in turn.

    With A the coefficient at the relu's output, s and t the chord's slope and offset, b the bias:

        babsr:      | min(b A (s - 1), b A s) + min(A, 0) t |     what a split may give
        intercept:  | min(A, 0) t |                               the chord's own part of it
        gap:        A (relu(z) - line(z)) at the minimiser        what the relaxation loses there

    Args:
        frame: what the domains share.
        climbed: of the domains, with coefficients and pre-activations at the minimisers.
        count: how many.

    Returns:
        int64 and float, (batch, count); the number of columns and 0 where nothing is left to split.

    Source:
        Bunel et al. 2020 (BaBSR), arXiv:1909.06588; De Palma et al. 2021 (filtered smart
        branching), arXiv:2104.06718. The third score is ours.
    """
    chords, coeff, reached = climbed.chords, climbed.coeff, climbed.reached
    open_ = chords.open > 0
    intercept = coeff.clamp(max=0) * chords.offset
    tilt = frame.bias * coeff
    babsr = (torch.minimum(tilt * (chords.slope - 1), tilt * chords.slope) + intercept).abs()
    line = torch.where(
        coeff < 0, chords.slope * reached + chords.offset, climbed.domains.alpha * reached
    )
    gap = coeff * (reached.clamp(min=0) - line)
    count = min(count, frame.columns)
    each = -(-count // 3)
    ranked = []
    for score in (babsr, gap, intercept.abs()):
        score = torch.where(open_, score, -1.0)
        ranked.append(score.topk(min(count, frame.columns), dim=1).indices[:, : 2 * each])
    picks = distinct(torch.stack(ranked, dim=2).flatten(1), frame.columns, count)
    known = torch.cat((open_, open_.new_zeros(len(open_), 1)), dim=1)
    picks = torch.where(known.gather(1, picks), picks, frame.columns)
    pulls = torch.nn.functional.pad(coeff.abs(), (0, 1)).gather(1, picks)
    return picks, pulls


def distinct(ranked: Tensor, blank: int, count: int) -> Tensor:
    """The first `count` different entries of each row, filled up with blanks."""
    same = ranked[:, :, None] == ranked[:, None, :]
    width = ranked.shape[1]  # there may be no rows
    earlier = same.new_ones(width, width).tril(-1)
    repeated = (same & earlier).any(dim=2)
    marked = torch.where(repeated, blank, ranked)
    order = (marked == blank).to(torch.uint8).argsort(dim=1, stable=True)
    return marked.gather(1, order)[:, :count]


def scale_of(domains: Domains, which: Tensor) -> Tensor:
    """A step size for the multiplier of a pick: its coefficient, or a share of the largest one."""
    own = domains.pulls.gather(1, which[:, None])[:, 0]
    least = 0.1 * domains.pulls.amax(dim=1)
    return torch.maximum(own, least)
