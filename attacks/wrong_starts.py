"""Misclassified points to begin from, for attacks that are told nothing but the class."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.nearest import Nearest
from attacks.randomness import derive_keys, normal, uniform

# Without a range, noise grows by this factor from try to try.
GROWTH = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Starts:
    """Samples with a misclassified point.

    Attributes:
        rows: shape (rows,), int64: the samples for which one was found.
        points: shape (rows, *input): misclassified, in the range, perhaps farther than eps.
    """

    rows: Tensor
    points: Tensor


def wrong_starts(
    oracle: Nearest, rows: Tensor, start: Tensor | None, keys: Tensor, tries: int
) -> Starts:
    """The caller's starting point where it is misclassified, else the first random one that is.

    Random points are uniform in the range of each entry, or Gaussian, ever wider, where it has no
    ends.

    Args:
        rows: shape (rows,), int64, without repeats.
        keys: shape (rows,), int64.
    """
    points = oracle.region.centre[rows]
    wrong = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    if start is not None and len(rows):
        points = oracle.region.rows(rows).project(start[rows])
        wrong = oracle.ask(rows, points) < 0
    low, high = oracle.room(rows)
    bounded = low.isfinite() & high.isfinite()
    for attempt in range(tries):
        left = (~wrong).nonzero().flatten()
        if not len(left):
            break
        fresh = derive_keys(keys[left], attempt)
        even = uniform(fresh, low.shape[1])
        wide = GROWTH**attempt * normal(fresh, low.shape[1])
        inner = torch.where(bounded[left], low[left], 0.0)
        spread = torch.where(bounded[left], high[left] - low[left], 0.0)
        there = oracle.place(rows[left], torch.where(bounded[left], inner + even * spread, wide))
        points = points.index_copy(0, left, there)
        wrong = wrong.index_copy(0, left, oracle.ask(rows[left], there) < 0)
    return Starts(rows[wrong], points[wrong])


def to_boundary(oracle: Nearest, rows: Tensor, points: Tensor, halvings: int) -> Tensor:
    """Each misclassified point moved towards its input until it is about to flip back.

    Along the segment for L2 and L1; for L-inf by clipping the perturbation, which shortens it in
    that norm without giving up the entries that are small already.

    Returns:
        Shape (rows, *input): points seen misclassified.
    """
    delta = oracle.moved(rows, points)
    longest = delta.abs().amax(dim=1, keepdim=True)
    keeps = torch.zeros_like(longest)
    flips = torch.ones_like(longest)
    for _ in range(halvings):
        middle = (keeps + flips) / 2
        flipped = (oracle.ask(rows, between(oracle, rows, delta, longest, middle)) < 0)[:, None]
        flips = torch.where(flipped, middle, flips)
        keeps = torch.where(flipped, keeps, middle)
    inward = between(oracle, rows, delta, longest, flips)
    return torch.where((flips == 1).view(-1, *[1] * (points.dim() - 1)), points, inward)


def between(oracle: Nearest, rows: Tensor, delta: Tensor, longest: Tensor, share: Tensor) -> Tensor:
    """The point at `share` of the way from the inputs to the perturbed ones."""
    if oracle.region.p == math.inf:
        cap = share * longest
        return oracle.place(rows, torch.minimum(torch.maximum(delta, -cap), cap))
    return oracle.place(rows, share * delta)
