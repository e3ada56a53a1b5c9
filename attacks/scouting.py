"""Searches begun at random points, near the input or far from it.

The searches of a portfolio all begin at the input, so all may end in the same valley of a net whose
nearest misclassified point lies in another.
"""

import torch
from torch import Tensor

from attacks.fmn import FMN
from attacks.nearest import Nearest
from attacks.randomness import uniform
from attacks.refinement import refine
from attacks.result import RadiusResult
from attacks.wrong_starts import to_boundary, wrong_starts

# Short, for the refinement does the rest.
SCOUT = FMN(steps=30, classes=3)
# Random points tried until one is misclassified, and halvings of the way back from it.
TRIES, HALVINGS = 20, 10


def from_afar(oracle: Nearest, rows: Tensor, search: FMN, seed: int) -> tuple[Tensor, RadiusResult]:
    """What a search finds that comes back from a misclassified point anywhere in the range.

    Where the gradient at the input is zero or leads nowhere, every search that begins there fails;
    at the boundary it begins with a find.

    Args:
        oracle, rows, seed: as for `scout`.
        search: begun on the boundary.

    Returns:
        The samples, shape (some,), for which a misclassified point was met, and what came of it.
    """
    keys = oracle.lane_keys(rows, "afar", seed, torch.zeros_like(rows))
    starts = wrong_starts(oracle, rows, None, keys, TRIES)
    points = to_boundary(oracle, starts.rows, starts.points, HALVINGS)
    rows = starts.rows
    found = search(
        oracle.model,
        oracle.region.centre[rows],
        oracle.labels[rows],
        oracle.ball.rows(rows, oracle.region.centre),
        targets=None if oracle.targets is None else oracle.targets[rows],
        start=points,
        sample_keys=oracle.keys[rows],
    )
    return rows, found


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
