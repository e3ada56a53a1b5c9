"""Searches over the parameters of transformations: grid, random, gradient, pattern search.

Each works on the samples that are not settled, within the oracle's current box, and leaves what it
finds with the oracle. Points are asked about in rounds of a fixed size per sample, after which
settled samples drop out; so a sample's queries do not depend on its company.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from attacks.adam import Adam
from attacks.randomness import uniform
from attacks.spatial_oracle import SpatialOracle

ROUND = 64
# Beyond this many points a full grid is a mistake rather than a wish.
MOST_POINTS = 2**20
# Steps of descents start at this share of the box's half width.
FIRST_STEP = 0.25

# Which samples a search goes on with, asked again whenever some may have dropped out.
Rows = Callable[[], Tensor]


def unit_grid(points: tuple[int, ...]) -> Tensor:
    """All combinations of evenly spaced values in [-1, 1], ends included, far ones first.

    Args:
        points: for each parameter; a single point is 0, the middle.

    Returns:
        Shape (combinations, parameters), float64.
    """
    axes = [
        [0.0] if count == 1 else [2 * i / (count - 1) - 1 for i in range(count)] for count in points
    ]
    grid = torch.tensor(list(itertools.product(*axes)), dtype=torch.float64)
    # Large transformations fool most; a stable sort keeps the order the same on every machine.
    return grid[grid.abs().amax(dim=1).argsort(descending=True, stable=True)]


def points_per_parameter(queries: int, widths: Tensor) -> tuple[int, ...]:
    """The finest grid of at most `queries` points: as many for each parameter that has a range.

    An odd number, so that the middle is among them; at least 3 each, whatever `queries` says, for
    up to four parameters, and 2 (the corners) beyond.
    """
    free = int((widths > 0).sum())
    if not free:
        return (1,) * len(widths)
    count = round(math.exp(math.log(queries) / free) + 1e-9 - 0.5)  # the root, rounded down
    count = max(3 if free <= 4 else 2, count if count % 2 else count - 1)
    return tuple(count if width > 0 else 1 for width in widths.tolist())


def placed(oracle: SpatialOracle, rows: Tensor, unit: Tensor) -> Tensor:
    """Points of [-1, 1]^parameters as parameters in the samples' current boxes.

    Args:
        unit: shape (points, parameters), the same for all, or (rows, points, parameters).

    Returns:
        Shape (rows, points, parameters), float64.
    """
    low, high = oracle.low[rows][:, None], oracle.high[rows][:, None]
    return ((high + low) / 2 + (high - low) / 2 * unit.to(low)).clamp(low, high)


def sweep(oracle: SpatialOracle, rows: Rows, unit: Tensor) -> Tensor:
    """Ask about many points of each sample's box, in rounds.

    Args:
        unit: shape (points, parameters) or (batch, points, parameters), in [-1, 1].

    Returns:
        The margins, shape (batch, points); inf where a point was not asked about, or gave NaN.
    """
    count = unit.shape[-2]
    margins = oracle.margin.new_full((len(oracle.labels), count), torch.inf)
    for begin in range(0, count, ROUND):
        going = rows()
        if not len(going):
            break
        part = slice(begin, min(begin + ROUND, count))
        own = unit[going, part] if unit.dim() == 3 else unit[part]
        values = placed(oracle, going, own)
        lanes = going.repeat_interleave(values.shape[1])
        seen = oracle.ask(lanes, values.flatten(0, 1))
        margins[going, part] = seen.view(len(going), -1).nan_to_num(nan=torch.inf)
    return margins


def random_unit(oracle: SpatialOracle, attack: str, count: int, seed: int) -> Tensor:
    """Uniform points of [-1, 1]^parameters, each sample's own; shape (batch, count, parameters)."""
    rows = torch.arange(len(oracle.labels), device=oracle.labels.device)
    size = oracle.low.shape[1]
    draws = uniform(oracle.lane_keys(rows, attack, seed), count * size)
    return (2 * draws - 1).view(len(rows), count, size)


def best_points(margins: Tensor, unit: Tensor, count: int) -> Tensor:
    """Each sample's points of lowest margin, shape (batch, <= count, parameters)."""
    chosen = margins.argsort(dim=1, stable=True)[:, :count]
    if unit.dim() == 2:
        return unit.to(margins.device)[chosen]
    return unit.gather(1, chosen[:, :, None].expand(-1, -1, unit.shape[2]))


def descend(
    oracle: SpatialOracle, rows: Rows, unit: Tensor, steps: int, first: float = FIRST_STEP
) -> None:
    """Follow the margin's slope in the parameters from several points of each sample's box.

    Adam in units of the box's half width, with steps that fall to 0 along half a cosine; parameters
    are clamped to the box.

    Args:
        unit: starts, shape (batch, starts, parameters), in [-1, 1].
        first: the first step.
    """
    going = rows()
    starts = unit.shape[1]
    if not len(going) or not starts:
        return
    lanes = going.repeat_interleave(starts)
    at = unit[going].flatten(0, 1).to(oracle.low)
    adam = Adam.zeros(at)
    for step in range(steps):
        half = (oracle.high[lanes] - oracle.low[lanes]) / 2
        middle = (oracle.high[lanes] + oracle.low[lanes]) / 2
        slope = oracle.probe(lanes, middle + half * at).slope * half
        # Each parameter's share of the lane's slope, so that Adam's guard is small beside it.
        slope = slope / slope.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
        size = first * 0.5 * (1 + math.cos(math.pi * step / steps))
        at = (at - size * adam.direction(slope)).clamp(-1, 1)
        left = torch.isin(lanes, rows())
        if not bool(left.all()):
            lanes, at = lanes[left], at[left]
            adam.mean, adam.square = adam.mean[left], adam.square[left]
        if not len(lanes):
            return
    half = (oracle.high[lanes] - oracle.low[lanes]) / 2
    oracle.ask(lanes, (oracle.high[lanes] + oracle.low[lanes]) / 2 + half * at)


def refine(oracle: SpatialOracle, rows: Rows, rounds: int, first: float) -> None:
    """Compass search from each sample's lowest margin: steps are halved where none helps.

    Args:
        first: the first step, as a share of the box's half width.
    """
    size = oracle.low.shape[1]
    compass = torch.cat([torch.eye(size), -torch.eye(size)]).to(oracle.low)
    step = torch.full_like(oracle.share, first)
    for _ in range(rounds):
        going = rows()
        if not len(going):
            return
        before = oracle.margin[going].clone()
        half = (oracle.high[going] - oracle.low[going]) / 2
        moves = step[going, None, None] * half[:, None] * compass
        values = oracle.values[going][:, None] + moves
        oracle.ask(going.repeat_interleave(len(compass)), values.flatten(0, 1))
        better = oracle.margin[going] < before
        step[going] = torch.where(better, step[going], step[going] / 2)
