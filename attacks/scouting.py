"""Searches begun at random points near the input, each refined on its own before it is compared.

The searches of a portfolio all begin at the input, so all may end in the same valley of a net whose
nearest misclassified point lies in another.
"""

import torch
from torch import Tensor

from attacks.fmn import FMN
from attacks.nearest import Nearest
from attacks.randomness import uniform
from attacks.refinement import refine

# Short, for the refinement does the rest.
SCOUT = FMN(steps=30, classes=3)


def scout(oracle: Nearest, rows: Tensor, count: int, seed: int) -> None:
    """Ask the oracle about what searches find that begin within the distance held.

    Args:
        oracle: with the points held; a sample without one is left alone.
        rows: shape (rows,): the samples to work on.
        count: searches per sample.
        seed: of the random points, besides the sample's key.
    """
    held = oracle.radius[rows]
    rows = rows[held.isfinite() & (held > 0)]
    if not len(rows) or oracle.region.p == 0:
        return
    x, labels = oracle.region.centre[rows], oracle.labels[rows]
    ball = oracle.ball.rows(rows, oracle.region.centre)
    targets = None if oracle.targets is None else oracle.targets[rows]
    keys = oracle.keys[rows]
    for lane in range(count):
        random = oracle.lane_keys(rows, "scout", seed, torch.full_like(rows, lane))
        noise = 2 * uniform(random, x[0].numel()) - 1
        near = oracle.within(rows, oracle.radius[rows])
        start = near.project(oracle.place(rows, oracle.radius[rows][:, None] * noise))
        found = SCOUT(oracle.model, x, labels, ball, targets=targets, start=start, sample_keys=keys)
        alone = Nearest(oracle.model, x, labels, ball, targets=targets, sample_keys=keys)
        hits = found.found.nonzero().flatten()
        alone.ask(hits, found.candidate[hits])
        refine(alone, hits)
        oracle.forward[rows] += found.forward + alone.forward
        oracle.backward[rows] += found.backward + alone.backward
        nearer = (alone.radius < oracle.radius[rows]).nonzero().flatten()
        if len(nearer):
            oracle.ask(rows[nearer], alone.candidate[nearer])
