"""How a search over activations spends its time: when to wait, to divide, to bound neurons anew."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from verify.bounders.domains import Domains
from verify.search.root import Root
from verify.values.budget import Budget

PATIENCE = 2.0
"""How long a base is searched before it may be divided, in units of the time its bounds took."""
WORTH_WAITING = 6.0
"""A base whose search would end within so many units is not divided."""
ROUNDS = (8, 16, 32)
"""Splits of the small trees over which the root's neurons are bounded, one pass after another."""
DEEPENING_COSTS = 6.0
"""What the first such pass costs, in units of the root's time."""
MOST_DEEPENING = 0.2
"""Of the time left, what such a pass may take."""
MOST_SWEEPING = 0.25
"""Of the time left, what bounding a base's neurons anew may take at a time."""
DEEPENING_HELPS = 0.2
"""It is repeated if it closes at least this share of the gap."""
STEEPEST = 60.0
"""exp of it domains are more than any search bounds."""
LONG_CLIMB = 20
"""Iterations for a base's own domains; those below begin from what their parents reached."""
LONGER = (5, 25, 100)
"""Iterations of the root's slopes where nothing can be split, in units of the usual number."""
LAST_RATE = 0.05
"""How far the step size falls over such an optimisation."""
SWEEPS = 12
"""How often a base's neurons are bounded anew while that helps."""
TOP = 256
"""Domains that a search begins with are bounded so many at once."""
MOST_PARTS = 128
"""A base with more open domains at its top is not divided: each part's neurons would be bounded."""
HELPS = 0.02
"""A sweep helps if it closes at least this share of the gap."""


def affordable(cost: float, budget: Budget) -> bool:
    """Whether deepening every neuron leaves most of the time, if the root took `cost` seconds."""
    return DEEPENING_COSTS * cost < MOST_DEEPENING * (budget.deadline - time.monotonic())


def remaining(top: Tensor, waiting: Tensor, bounded: int) -> float:
    """How much is left of a search, in units of what was done.

    The tree below a domain is taken to grow exponentially with what its bound lacks, at the rate k
    at which what was begun, less what waits, is what was done:

        sum_top exp(k gap) - sum_waiting exp(k gap) = bounded.

    The share of the space that is closed says less: the hardest part is worked on first, and while
    it is, hardly any of the space is closed.

    Args:
        top: what the bounds of the first domains lacked, >= 0.
        waiting: the same for those that wait.
        bounded: domains bounded so far.
    """
    if not len(waiting):
        return 0.0
    start, rest = top.clamp(min=0).to(torch.float64), waiting.clamp(min=0).to(torch.float64)
    scale = float(start.max())
    if not scale > 0:
        return float("inf")
    start, rest = start / scale, rest / scale
    low, high = 0.0, STEEPEST
    for _ in range(40):
        rate = (low + high) / 2
        done = float(torch.exp(rate * start).sum() - torch.exp(rate * rest).sum())
        low, high = (rate, high) if done < bounded else (low, rate)
    return float(torch.exp(high * rest).sum()) / max(1, bounded)


def splittable(base: Root, domains: Domains) -> Tensor:
    """Which domains have a neuron left to split; bool, (batch,)."""
    if not domains.picks.shape[1]:
        return torch.zeros(len(domains), dtype=torch.bool)
    return domains.picks[:, 0] < base.frame.columns


def batch_for(base: Root) -> int:
    """Domains to split at once: enough to fill matrix products, few enough for the caches."""
    widest = sum(node.size for node in base.frame.graph.nodes)
    return max(4, min(256, 400_000 // widest))
