"""Distances that are never too small, and points that are never too far out.

An attack's radius is a claim: "a misclassified input lies within this distance". Evaluated in
float32, centre + eps may lie an ulp outside the ball, and a rounded distance may be an ulp below
the true one; either makes the claim false. Everything here works in float64 and errs outwards
when it measures and inwards when it places.
"""

import math

import torch
from torch import Tensor

# Unit of slack per summand: twice the unit round-off 2**-53 of float64, so that the first-order
# error bound of a sum of n terms in any order, n * 2**-53, is covered with its higher orders.
SLACK = 2.0**-52
# Roundings besides those of the sum: square, root, scaling in and out, the final product.
EXTRA_ROUNDINGS = 16


def difference_up(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| in float64, rounded up: the least double that is at least the exact value.

    Source:
        Knuth's TwoSum: a - b = s + e exactly, so e says on which side of s the exact value is.
    """
    a, b = a.double(), b.double()
    s = a - b
    b_seen = s - a
    error = (a - (s - b_seen)) + (-b - b_seen)
    magnitude = s.abs()
    above = torch.nextafter(magnitude, torch.full_like(magnitude, math.inf))
    return torch.where(s.sign() * error > 0, above, magnitude)


def norm_up(delta: Tensor, p: float) -> Tensor:
    """An upper bound of the p-norm of each row, within a relative n * 2**-51 of the exact value.

    Args:
        delta: shape (batch, n), float64; taken as exact.
        p: inf, 2 or 1.

    Returns:
        Shape (batch,), float64; 0 exactly where the row is 0.
    """
    magnitude = delta.abs()
    largest = magnitude.amax(dim=1)
    if p == math.inf:
        return largest
    # Scaled by the largest entry, squares of tiny differences do not underflow to distance 0.
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    unit = magnitude / scale[:, None]
    length = unit.sum(dim=1) if p == 1 else unit.square().sum(dim=1).sqrt()
    length = scale * (length * (1 + (delta.shape[1] + EXTRA_ROUNDINGS) * SLACK))
    above = torch.nextafter(length, torch.full_like(length, math.inf))
    return torch.where(largest > 0, above, largest)


def shrink_factor(size: int) -> float:
    """The factor below 1 that keeps a vector of `size` entries inside after all roundings."""
    return 1 - 4 * (size + EXTRA_ROUNDINGS) * SLACK


def fit(delta: Tensor, eps: Tensor, p: float) -> Tensor:
    """Scale rows of `delta` down, where needed, so that their norm is certainly below `eps`.

    Args:
        delta: shape (batch, n), float64.
        eps: shape (batch,), float64; inf leaves the row alone.
    """
    length = norm_up(delta, p)
    aim = eps * shrink_factor(delta.shape[1])
    outside = length > aim
    return delta * torch.where(outside, aim / torch.where(outside, length, 1.0), 1.0)[:, None]


def place(centre: Tensor, delta: Tensor) -> Tensor:
    """centre + delta in the dtype of `centre`, each entry rounded towards the centre.

    Rounding to nearest could leave the ball by an ulp; towards the centre it cannot, and the
    result stays between centre and centre + delta, hence also inside any box that holds both.

    Args:
        centre: shape (batch, n), the dtype in which the model is fed.
        delta: shape (batch, n), float64.
    """
    point = (centre.double() + delta).to(centre.dtype)
    too_far = (point.double() - centre.double()).abs() > delta.abs()
    return torch.where(too_far, torch.nextafter(point, centre), point)


def highest_within(centre: Tensor, eps: Tensor) -> Tensor:
    """The largest number of the dtype of `centre` whose exact distance from it is at most eps.

    Args:
        centre: any shape.
        eps: float64, broadcastable to `centre`; may be inf.
    """
    high = (centre.double() + eps).to(centre.dtype)
    below = torch.nextafter(high, torch.full_like(high, -math.inf))
    high = torch.where(difference_up(high, centre) > eps, below, high)
    return torch.maximum(high, centre)
