"""Sharpening: one row per clause, combined from the clause's rows, with slopes of its own.

A clause of rows r_1, r_2, ... can only be met where every row is <= 0, so for any weights l_i >= 0
sum l_i·r_i > 0 rules it out. Weights and the slopes of the lines below Relu are moved together, a
few steps along their gradient, which is read off one walk forward from the row's minimiser
(Danskin). Each step's bound is rigorous, and the best is kept. There are few such rows, so all the
steps together cost less than the rows of undecided neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verify.bounders.chain import Layer
from verify.bounders.planes import Planes, smear
from verify.values.rounding import SPARE

if TYPE_CHECKING:
    from verify.bounders.dense import Pass

STEPS = 6
"""Evaluations of each row; more gain little over the parts' own halving."""
FIRST, SHRINK = 0.4, 0.7
"""The first step of slopes, of [0, 1], and its factor from step to step."""
EDGES = 0.3
"""Share of `smear` in the weights of inputs, beside what relaxations lose."""
MANY = 64
"""Inputs beyond which their share of the loss is not worked out."""
SUMMED = 2.0**-45
"""Relative rounding of constants and of combined rows, of at most 2^7 terms in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The lines of one Relu layer on each box; tensors of shape (batch, neurons), own dtype.

    Attributes:
        lower: slope of the line below.
        chord: slope of the line above.
        sunk: how far the line below is lowered.
        gap: by how much the line above is raised, plus `sunk`.
        lift: by how much the line above is raised.
        own: what a row's products with slopes may be off by.
        dot: relative rounding of offsets' dot products.
        loose: the largest distance of the lines, per width of the interval.
        open_: which neurons are undecided; the slope below is free there.
    """

    lower: Tensor
    chord: Tensor
    sunk: Tensor
    gap: Tensor
    lift: Tensor
    own: Tensor
    dot: float
    loose: Tensor
    open_: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Layered:
    """What is known of one layer on a batch: the layer without dead neurons, its lines, its noise.

    Dead neurons' noise is still there: their lines have none.
    """

    layer: Layer
    lines: Lines | None
    noise: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """One evaluation of rows.

    Attributes:
        coeff, const, least: the planes, (batch, clause, ...), and their minima.
        met: coefficients at the output of each layer, from the last layer to the first.
    """

    coeff: Tensor
    const: Tensor
    least: Tensor
    met: list[Tensor]


def sharpened(walk: Pass, planes: Planes, size: Tensor) -> Planes:
    """The planes with one more row for each clause.

    Args:
        walk: a pass whose layers are done.
        planes: of the goal's rows.
        size: the largest |output|, (batch, out), float64.
    """
    goal = walk.method.goal
    member = membership(goal.clauses, len(goal.const))
    known = torch.where(torch.isnan(planes.least), -torch.inf, planes.least)
    best = torch.stack([known[:, list(rows)].amax(dim=1) for rows in goal.clauses], dim=1)
    boxes = (~(best > 0)).any(dim=1).nonzero().flatten()
    count, clauses, inputs = len(best), best.shape[1], planes.coeff.shape[2]
    coeff = planes.coeff.new_zeros(count, clauses, inputs)
    const = planes.const.new_full((count, clauses), -torch.inf)
    least = const.clone()
    weight = coeff.clone()
    if len(boxes):
        # Rows that are nearly positive count for more at the start.
        start = (known[boxes, None] - best[boxes, :, None]).masked_fill(~member, -torch.inf)
        scale = start.masked_fill(~member, 0.0).abs().amax(dim=2, keepdim=True).clamp(min=1e-30)
        shares = torch.softmax(start / scale, dim=2)
        found, causes = ascended(walk, boxes, shares, member, size[boxes])
        coeff[boxes], const[boxes], least[boxes] = found.coeff, found.const, found.least
        weight[boxes] = causes
    return Planes(
        torch.cat((planes.coeff, coeff), dim=1),
        torch.cat((planes.const, const), dim=1),
        torch.cat((planes.least, least), dim=1),
        weight,
    )


def membership(clauses: tuple[tuple[int, ...], ...], rows: int) -> Tensor:
    """Which rows each clause has; bool, (clause, row)."""
    member = torch.zeros(len(clauses), rows, dtype=torch.bool)
    for number, own in enumerate(clauses):
        member[number, list(own)] = True
    return member


def ascended(
    walk: Pass, boxes: Tensor, shares: Tensor, member: Tensor, size: Tensor
) -> tuple[Walked, Tensor]:
    """The best of a few steps, and how much each input matters.

    Args:
        walk: the pass.
        boxes: which boxes of it.
        shares: weights of the rows to start from, (batch, clause, row), float64, sums of 1.
        member: see `membership`.
        size: the largest |output|, (batch, out).
    """
    slopes = [
        None if done.lines is None else done.lines.lower[boxes, None].expand(-1, len(member), -1)
        for done in walk.done
    ]
    best = now = evaluated(walk, boxes, shares, slopes, size)
    step = FIRST
    for _ in range(1, STEPS):
        if bool((best.least > 0).all()):
            break
        shares, slopes = climbed(walk, boxes, shares, slopes, now, step)
        now = evaluated(walk, boxes, shares, slopes, size)
        better = now.least > best.least
        best = Walked(
            torch.where(better[:, :, None], now.coeff, best.coeff),
            torch.where(better, now.const, best.const),
            torch.where(better, now.least, best.least),
            now.met,
        )
        step *= SHRINK
    causes = blamed(walk, boxes, now.met)
    width = 2 * walk.radius[boxes].to(torch.float64)
    moved = smear(best.coeff, width)
    return best, share_of(causes) + EDGES * share_of(moved)


def share_of(values: Tensor) -> Tensor:
    """Entries as shares of their sum over inputs; 0 where that is 0."""
    total = values.sum(dim=2, keepdim=True)
    return torch.where(total > 0, values / torch.where(total > 0, total, 1.0), 0.0)


def evaluated(
    walk: Pass, boxes: Tensor, shares: Tensor, slopes: list[Tensor | None], size: Tensor
) -> Walked:
    """The combined rows' planes with given slopes; rigorous for any shares >= 0 and any slopes."""
    goal = walk.method.goal
    coeff = shares @ goal.coeff
    const = shares @ goal.const
    # The combination itself is rounded: each entry by so much of its terms.
    terms = (shares @ goal.coeff.abs() * size[:, None]).sum(dim=2) + shares @ goal.const.abs()
    rounded = coeff.to(walk.dtype)
    off = ((coeff - rounded.to(torch.float64)).abs() * size[:, None]).sum(dim=2)
    const = const - terms * SUMMED - off * (1 + 2.0**-30)
    mass = const.abs()
    rows, met = rounded, []
    for done, slope in zip(reversed(walk.done), reversed(slopes), strict=True):
        if done.lines is not None and slope is not None:
            lines = done.lines
            met.append(rows)
            negative = rows.clamp(max=0)
            sunk, lift = offsets(boxes, lines, done.noise, slope)
            part = (negative * lift).sum(dim=2) - ((rows - negative) * sunk).sum(dim=2)
            rows = rows * slope + negative * (lines.chord[boxes, None] - slope)
        else:
            noise = done.noise[boxes, None] * SPARE[torch.float32]
            part = -(rows.abs() * noise).sum(dim=2)
        part = part.to(torch.float64)
        own = (rows @ done.layer.bias).to(torch.float64)
        const = const + part + own
        mass = mass + part.abs() + own.abs()
        rows = rows @ done.layer.weight
    const = const - mass * SUMMED - walk.lost[boxes]
    return Walked(rows.to(torch.float64), const, walk.least(rows, const, boxes), met)


def offsets(boxes: Tensor, lines: Lines, noise: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """How far the line below sinks, and what is lost where the line above is read, per row."""
    own = lines.own[boxes, None]
    sunk = torch.where(slope > 0, slope * noise[boxes, None], 0.0) + own
    return sunk * SPARE[torch.float32], lines.lift[boxes, None]


def climbed(
    walk: Pass,
    boxes: Tensor,
    shares: Tensor,
    slopes: list[Tensor | None],
    now: Walked,
    step: float,
) -> tuple[Tensor, list[Tensor | None]]:
    """Shares and slopes after one step along the gradient at the rows' minimisers.

    With the minimiser x and the lines that the row reads, z is what they make of x; then
    d bound / d slope = A+·z, and d bound / d share_r = row r there.
    """
    goal = walk.method.goal
    centre, radius = walk.centre[boxes, None], walk.radius[boxes, None]
    value = centre - now.coeff.sign().to(walk.dtype) * radius
    moved: list[Tensor | None] = []
    met = list(now.met)
    for done, slope in zip(walk.done, slopes, strict=True):
        value = value @ done.layer.weight.T + done.layer.bias
        if done.lines is None or slope is None:
            moved.append(None)
            continue
        lines, rows = done.lines, met.pop()
        # Normed by the row: steps are of the slopes' own size, signs and ratios come from A+·z.
        gain = rows.clamp(min=0) * value * lines.open_[boxes, None]
        size = gain.abs().mean(dim=2, keepdim=True)
        change = gain / (gain.abs() + torch.where(size > 0, size, 1.0))
        free = (slope + step * change).clamp(0, 1)
        moved.append(torch.where(lines.open_[boxes, None], free, slope))
        above = lines.chord[boxes, None] * value + lines.lift[boxes, None]
        value = torch.where(rows > 0, slope * value, above)
    if goal.longest == 1:
        return shares, moved
    reached = value.to(torch.float64) @ goal.coeff.T + goal.const
    middle = (reached * shares).sum(dim=2, keepdim=True)
    spread = ((reached - middle).abs() * shares).sum(dim=2, keepdim=True)
    push = (reached - middle) / torch.where(spread > 0, spread, 1.0)
    shares = shares * torch.exp((2 * step * push).clamp(-2, 2))
    total = shares.sum(dim=2, keepdim=True)
    return torch.where(total > 0, shares / total, shares), moved


def blamed(walk: Pass, boxes: Tensor, met: list[Tensor]) -> Tensor:
    """How much rows lose at undecided neurons, laid at the inputs that widen these.

    A neuron's loss is |A| times the distance of its lines; an input's share of it is by how much of
    the neuron's width it causes, with chords as slopes. Shape (batch, clause, inputs).
    """
    radius = walk.radius[boxes]
    found = radius.new_zeros(len(boxes), walk.clauses, radius.shape[1], dtype=torch.float64)
    if radius.shape[1] > MANY:
        return found
    met = list(met)
    reach = torch.diag_embed(radius)
    for done in walk.done:
        reach = reach @ done.layer.weight.T
        if done.lines is None:
            continue
        share = reach.abs() * done.lines.loose[boxes, None]
        found += torch.bmm(met.pop().abs(), share.transpose(1, 2))
        reach = reach * done.lines.chord[boxes, None]
    return found
