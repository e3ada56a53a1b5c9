"""Entropy and Brier score over all class probabilities that a box allows, by Lagrangian duality.

For p in [lo, up] with sum p = 1 and any number v, since sum_k v·p_k = v,

    max sum_k f_k(p_k) <= v + sum_k max_{lo <= p <= up} (f_k(p) - v·p),

and the same for the minimum with both signs turned. The inner problems have one variable each:
convex ones are largest, and concave ones least, at an end of the interval; the other two cases have
a closed form. The multiplier v that a greedy fill or a bisection finds makes the bound exact over
box and simplex (the problems are a fractional knapsack and water-filling); any other is as sound,
so only the last evaluation has to be rounded outward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from verify.confidence import directed
from verify.values.bounds import Bounds

HALVINGS = 60
"""Of the bisections for a multiplier: more than float64 can tell apart."""
QUADRATIC = 2.0**-46
"""Charged per class, relative to 1 + |v|, where squares of probabilities are computed to nearest:
a dozen roundings of numbers below 4, of which each is 2**-51 at most."""


def entropy(p: Bounds) -> Bounds:
    """Bounds of -sum_k p_k log p_k in nats, shape (batch,), from bounds (batch, classes) of p."""
    lower, upper = p.lower.clamp(0, 1), p.upper.clamp(0, 1)
    least = _least_entropy(lower, upper).clamp(min=0)
    most = _most_entropy(lower, upper)
    cap = math.log(p.lower.shape[1]) * (1 + directed.ELEMENTARY)
    return Bounds(least, torch.where(torch.isnan(most), cap, most.clamp(max=cap)))


def _most_entropy(lower: Tensor, upper: Tensor) -> Tensor:
    """Water-filling: with v = -1 - log t, each p_k is t cut to its interval."""
    low, high = torch.zeros_like(lower[:, :1]), torch.ones_like(lower[:, :1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = torch.clamp(middle, lower, upper).sum(dim=1, keepdim=True) > 1
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    v = -1 - high.clamp(min=2.0**-HALVINGS).log()
    # max over all p of -p log p - v p = e^(-1 - v), at p = e^(-1 - v).
    peak_down = directed.exp_down(directed.added_down(-v, -1.0))
    peak_up = directed.exp_up(directed.added_up(-v, -1.0))

    def at(end: Tensor) -> Tensor:
        tilt = -directed.scaled_down(v.expand_as(end), end)
        return directed.added_up(directed.entropy_term_up(end), tilt)

    term = torch.where(
        lower >= peak_up, at(lower), torch.where(upper <= peak_down, at(upper), peak_up)
    )
    return directed.added_up(v[:, 0], directed.sum_up(term, 1))


def _least_entropy(lower: Tensor, upper: Tensor) -> Tensor:
    """A knapsack: mass goes where the chord of -p log p is flattest."""
    height_low, height_high = torch.special.entr(lower), torch.special.entr(upper)
    v = _marginal_slope(lower, upper, height_low, height_high)

    def at(end: Tensor) -> Tensor:
        tilt = -directed.scaled_up(v.expand_as(end), end)
        return directed.added_down(directed.entropy_term_down(end), tilt)

    term = torch.minimum(at(lower), at(upper))
    return directed.added_down(v[:, 0], directed.sum_down(term, 1))


def _marginal_slope(lower: Tensor, upper: Tensor, at_lower: Tensor, at_upper: Tensor) -> Tensor:
    """The chord slope at which a fill in ascending order of slopes reaches mass 1; (batch, 1)."""
    width = upper - lower
    slope = (at_upper - at_lower) / torch.where(width > 0, width, 1.0)
    order = slope.argsort(dim=1)
    filled = width.gather(1, order).cumsum(dim=1)
    rest = (1 - lower.sum(dim=1, keepdim=True)).clamp(min=0)
    place = (filled < rest).sum(dim=1, keepdim=True).clamp(max=lower.shape[1] - 1)
    return slope.gather(1, order).gather(1, place)


def brier(p: Bounds, labels: Tensor) -> Bounds:
    """Bounds of sum_k (p_k - [k = label])² in [0, 2], shape (batch,)."""
    lower, upper = p.lower.clamp(0, 1), p.upper.clamp(0, 1)
    aim = torch.nn.functional.one_hot(labels, lower.shape[1]).to(lower.dtype)

    def loss(q: Tensor) -> Tensor:
        return (q - aim).square()

    v = -_marginal_slope(lower, upper, -loss(lower), -loss(upper))
    term = torch.maximum(loss(lower) - v * lower, loss(upper) - v * upper)
    slack = QUADRATIC * lower.shape[1] * (1 + v[:, 0].abs())
    most = v[:, 0] + term.sum(dim=1) + slack
    # min over all q of (q - aim)² - v q is at aim + v / 2, cut to its interval.
    low, high = -2 * torch.ones_like(v), 2 * torch.ones_like(v)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        over = torch.clamp(aim + middle / 2, lower, upper).sum(dim=1, keepdim=True) > 1
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    nearest = torch.clamp(aim + low / 2, lower, upper)
    term = loss(nearest) - low * nearest
    slack = QUADRATIC * lower.shape[1] * (1 + low[:, 0].abs())
    least = low[:, 0] + term.sum(dim=1) - slack
    return Bounds(least.clamp(min=0), most.clamp(max=2))
