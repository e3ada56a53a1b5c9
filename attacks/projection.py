"""Exact Euclidean projection onto, and linear maximisation over, an L2 or L1 ball cut by a box.

Everything is relative to the ball's centre, which lies in the box: 0 is feasible, and by symmetry
only the magnitude of a coordinate and its room in its own direction matter. Each problem has one
dual variable per row, found exactly by an active-set walk (L2) or by a sort (L1), vectorised over
the batch. Clipping and then rescaling, or rescaling alone, is not the projection.
"""

import math

import torch
from torch import Tensor

# The least normal double, in place of the largest slope of a row that has none.
TINY = 2.0**-1022


def room_towards(direction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far each coordinate may move from 0 in its direction; shape (batch, n), at least 0."""
    return torch.where(direction > 0, high, -low)


def capped_scale(size: Tensor, room: Tensor, eps: Tensor, limit: float) -> Tensor:
    """The largest s <= limit with |min(s * size, room)|_2 <= eps.

    Starting from no capped coordinate, s = sqrt((eps^2 - sum_capped room^2) / sum_free size^2)
    never exceeds the solution, and caps more coordinates until the set no longer changes; then it
    is the solution.

    Args:
        size: shape (batch, n), at least 0.
        room: same shape, at least 0, may be inf.
        eps: shape (batch,), may be inf.
        limit: may be inf.

    Returns:
        Shape (batch,); `limit` where even that stays within eps.
    """
    scale = torch.zeros_like(eps)
    capped = torch.zeros_like(size, dtype=torch.bool)
    while True:
        used = torch.where(capped, room, 0.0).square().sum(dim=1)
        free = torch.where(capped, 0.0, size).square().sum(dim=1)
        left = (eps.square() - used).clamp(min=0).sqrt()
        wanted = torch.where(free > 0, left / torch.where(free > 0, free, 1.0).sqrt(), math.inf)
        scale = torch.maximum(scale, wanted).clamp(max=limit)
        now = (size > 0) & (torch.where(size > 0, scale[:, None] * size, 0.0) >= room)
        if not (now & ~capped).any():
            return scale
        capped = capped | now


def project_l2(delta: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to `delta` with low <= v <= high and |v|_2 <= eps.

    v = clip(s * delta, low, high), with s the largest number in [0, 1] that keeps |v|_2 <= eps.

    Args:
        delta, low, high: shape (batch, n), float64, low <= 0 <= high.
        eps: shape (batch,), float64.
    """
    size, room = delta.abs(), room_towards(delta, low, high)
    scale = capped_scale(size, room, eps, limit=1.0)
    return delta.sign() * torch.minimum(scale[:, None] * size, room)


def farthest_l2(gradient: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """The point that maximises gradient . v over the box and the L2 ball: clip(t * gradient)."""
    size, room = gradient.abs(), room_towards(gradient, low, high)
    size = size / size.amax(dim=1, keepdim=True).clamp(min=TINY)  # its square must not underflow
    scale = capped_scale(size, room, eps, limit=math.inf)
    grown = torch.where(size > 0, scale[:, None] * size, 0.0)
    return gradient.sign() * torch.minimum(grown, room)


def project_l1(delta: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to `delta` with low <= v <= high and |v|_1 <= eps.

    v = clip(soft(delta, t), low, high), with the least t >= 0 that keeps |v|_1 <= eps.

    Args:
        delta, low, high: shape (batch, n), float64, low <= 0 <= high.
        eps: shape (batch,), float64.

    Source:
        Croce, Hein 2021 (APGD-L1), arXiv:2103.01208, prove the form; the threshold is found here
        by sorting the 2n kinks of the piecewise linear t -> |v(t)|_1.
    """
    size = delta.abs()
    room = torch.minimum(room_towards(delta, low, high), size)
    outside = (room.sum(dim=1) > eps).nonzero().flatten()
    inside = room.clone()
    if len(outside):
        size_out, room_out = size[outside], room[outside]
        threshold = l1_threshold(size_out, room_out, eps[outside])
        shrunk = (size_out - threshold[:, None]).clamp(min=0)
        inside[outside] = torch.minimum(shrunk, room_out)
    return delta.sign() * inside


def l1_threshold(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The t with sum_i min(max(size_i - t, 0), room_i) = eps, for rows whose sum of room is larger.

    Args:
        size, room: shape (batch, n), 0 <= room <= size.
        eps: shape (batch,), finite.
    """
    kinks, order = torch.cat((size - room, size), dim=1).sort(dim=1)
    ones = torch.ones_like(size)
    turn = torch.cat((-ones, ones), dim=1).gather(1, order)
    slope = turn.cumsum(dim=1)  # of the sum, to the right of each kink
    falls = slope[:, :-1] * kinks.diff(dim=1)
    total = room.sum(dim=1, keepdim=True)
    value = torch.cat((total, total + falls.cumsum(dim=1)), dim=1)  # of the sum, at each kink
    # value falls from above eps to 0, so the crossing lies right of the last kink above eps.
    last = (value > eps[:, None]).sum(dim=1, keepdim=True) - 1
    last = last.clamp(0, kinks.shape[1] - 2)
    steepness = (-slope.gather(1, last)).clamp(min=1)
    crossing = kinks.gather(1, last) + (value.gather(1, last) - eps[:, None]) / steepness
    # One Newton step removes what the long cumulative sum lost.
    shrunk = (size - crossing).clamp(min=0)
    moving = ((shrunk > 0) & (shrunk < room)).sum(dim=1, keepdim=True).clamp(min=1)
    excess = torch.minimum(shrunk, room).sum(dim=1, keepdim=True) - eps[:, None]
    return (crossing + excess / moving).clamp(min=0).squeeze(1)


def farthest_l1(gradient: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """The point that maximises gradient . v over the box and the L1 ball.

    Greedy: the coordinate of largest slope moves as far as it may, then the next, until eps is
    spent. Coordinates of slope 0 stay.

    Args:
        gradient, low, high: shape (batch, n), float64, low <= 0 <= high.
        eps: shape (batch,), float64; inf only where the box is finite.
    """
    size = gradient.abs()
    room = torch.minimum(room_towards(gradient, low, high), eps[:, None])
    room = torch.where(size > 0, room, 0.0)
    order = size.argsort(dim=1, descending=True, stable=True)
    room_sorted = room.gather(1, order)
    spent_before = room_sorted.cumsum(dim=1) - room_sorted
    left = (eps[:, None] - spent_before).clamp(min=0)
    moved = torch.zeros_like(room).scatter(1, order, torch.minimum(left, room_sorted))
    return gradient.sign() * moved
