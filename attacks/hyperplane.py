"""The nearest point of a half-space within a box, in each norm: the step of every linearisation.

    min |v|_p  such that  slope . v >= gap,  low <= v <= high,  with low <= 0 <= high

All entries move along the slope. L-inf: all by as much, v_i = min(t, room_i). L2: in proportion to
their slope, min(t |slope_i|, room_i). L1: the steepest first, as far as it may. L0: those first
that gain most by moving as far as they may. The dual variable t is found exactly, by a sort.
"""

import math

import torch
from torch import Tensor

from attacks.projection import room_towards


def least_move(slope: Tensor, gap: Tensor, low: Tensor, high: Tensor, p: float) -> Tensor:
    """The smallest move in the p-norm that gains `gap` along `slope` within the box.

    Where the box does not hold that much, all entries move as far as they may. Entries of slope 0
    stay. Where gap <= 0 nothing moves.

    Args:
        slope: shape (batch, n), float64, finite.
        gap: shape (batch,), float64.
        low, high: shape (batch, n), float64, low <= 0 <= high, may be infinite.
        p: inf, 2, 1 or 0.

    Source:
        Croce, Hein 2020 (FAB), arXiv:1907.02044, appendix; L1 and L0 are greedy.
    """
    scale = slope.abs().amax(dim=1)
    usable = (scale > 0) & (gap > 0)
    scale = torch.where(usable, scale, 1.0)
    steep = torch.where(usable[:, None], slope.abs() / scale[:, None], 0.0)
    need = torch.where(usable, gap / scale, 0.0)
    room = torch.where(steep > 0, room_towards(slope, low, high), 0.0)
    if p in (0.0, 1.0):
        size = greedy(steep, room, need, steep * room if p == 0 else steep)
    else:
        size = saturating(steep, room, need, torch.ones_like(steep) if p == math.inf else steep)
    return slope.sign() * size


def greedy(steep: Tensor, room: Tensor, need: Tensor, rank: Tensor) -> Tensor:
    """Entries of largest `rank` move first, as far as they may, until `need` is gained."""
    order = rank.argsort(dim=1, descending=True, stable=True)
    gain = (steep * room).nan_to_num(nan=0.0).gather(1, order)
    before = gain.cumsum(dim=1).roll(1, dims=1)
    before[:, 0] = 0.0
    left = (need[:, None] - before).clamp(min=0)
    left = torch.where(left.isnan(), 0.0, left)
    sorted_steep = steep.gather(1, order)
    share = left / torch.where(sorted_steep > 0, sorted_steep, 1.0)
    moved = torch.minimum(torch.where(sorted_steep > 0, share, 0.0), room.gather(1, order))
    return torch.zeros_like(steep).scatter(1, order, moved)


def saturating(steep: Tensor, room: Tensor, need: Tensor, pace: Tensor) -> Tensor:
    """min(t * pace, room) with the least t >= 0 such that steep . min(t * pace, room) >= need."""
    moving = (steep > 0) & (room > 0)
    stops = torch.where(moving, room / torch.where(moving, pace, 1.0), 0.0)
    kinks, order = stops.sort(dim=1, stable=True)
    rate = torch.where(moving, steep * pace, 0.0).gather(1, order)
    # At the k-th kink those before it have stopped: what they gained, and the pace of the others.
    stopped = torch.where(moving, steep * room, 0.0).gather(1, order)
    stopped = torch.where(stopped.isfinite(), stopped, 0.0).cumsum(dim=1)
    gained = torch.cat((torch.zeros_like(stopped[:, :1]), stopped[:, :-1]), dim=1)
    going = rate.flip(1).cumsum(dim=1).flip(1)  # of the k-th and all after it
    at = (need[:, None] - gained) / torch.where(going > 0, going, 1.0)
    fits = (at <= kinks) & (going > 0)
    first = fits.int().argmax(dim=1, keepdim=True)
    time = torch.where(fits.any(dim=1), at.gather(1, first).squeeze(1).clamp(min=0), math.inf)
    size = torch.where(moving, torch.minimum(time[:, None] * pace, room), 0.0)
    return torch.where(need[:, None] > 0, size, 0.0)
