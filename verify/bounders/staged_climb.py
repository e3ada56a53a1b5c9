"""One row per open clause: a combination of its rows, with planes of its own, moved a few steps.

A clause can only be met where all of its rows are <= 0, so for shares l_i >= 0 a combination
sum l_i·r_i > 0 rules it out. Shares and slopes are moved along their gradient at the row's
minimiser (Danskin), which is read off one walk forward along the lines that the row reads. Every
step's bound is rigorous, whatever the shares and slopes, and the best is kept.

Products gain most: on a small box a row is nearly linear, its minimiser is a corner, and there one
of McCormick's two planes is exact in every factor that is an input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.staged import OUTWARD
from verify.bounders.staged_pass import Lined, Pass, shaped
from verify.ops.registry import lines_of, lookup
from verify.values.bounds import Bounds

STEPS = 5
"""Evaluations of each row."""
FIRST, SHRINK = 0.5, 0.7
"""The first step of slopes, of [0, 1], and its factor from step to step."""
MOVED = ("Mul", "Relu", "TwoPiece")
"""Operators whose lines are moved; lines of smooth functions hardly gain on small boxes."""


@dataclass(frozen=True, slots=True, eq=False)
class Climbed:
    """Planes (batch, inputs), (batch,), their minima (batch,), and what inputs cost (`blamed`)."""

    coeff: Tensor
    const: Tensor
    least: Tensor
    blame: Tensor


def climbed(walk: Pass, boxes: Tensor, rows: Tensor, known: Tensor) -> Climbed:
    """The best plane met below a combination of rows, on some of the boxes.

    Args:
        walk: with every stage entered.
        boxes: which of its boxes.
        rows: of the goal.
        known: their lower bounds so far, (boxes, row).
    """
    part = walk.take(boxes)
    free: dict[int, Tensor] = {}
    for number, stage in enumerate(walk.network.stages):
        initial = lookup(stage.node).initial
        if stage.node.op in MOVED and initial is not None:
            free[number] = initial(stage.node, *shaped(stage, bounds_of(part, number)))
    fixed = [lines.take(boxes) for lines in walk.lined]
    # Rows that are nearly positive count for more at the start.
    known = torch.where(torch.isfinite(known), known, -1e300)
    best = known.amax(dim=1, keepdim=True)
    scale = (known - best).abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
    shares = torch.softmax((known - best) / scale, dim=1)
    step, found = FIRST, None
    for number in range(STEPS):
        lined = [
            part.flat(stage, lines_of(stage.node, shaped(stage, bounds_of(part, i)), free[i]))
            if i in free
            else fixed[i]
            for i, stage in enumerate(walk.network.stages)
        ]
        met: dict[int, Tensor] = {}
        now = evaluated(part, rows, shares, lined, met)
        found = now if found is None else better_of(found, now)
        if number == STEPS - 1 or bool((found.least > 0).all()):
            break
        shares = moved(part, rows, shares, lined, met, now, free, step)
        step *= SHRINK
    assert found is not None
    return replace(found, blame=blamed(part, fixed, met))


def blamed(walk: Pass, fixed: list[Lined], met: dict[int, Tensor]) -> Tensor:
    """How much rows lose at stages, laid at the inputs that widen what these read.

    A stage's loss is |A| times the largest distance of its lines; an input's share of it is by how
    much of the width of what is read it causes, with slopes as lines have them. (batch, inputs).
    """
    network = walk.network
    reaches = [torch.diag_embed(walk.radius)]
    found = torch.zeros_like(walk.radius)
    for number, (stage, lines) in enumerate(zip(network.stages, fixed, strict=True)):
        gap = (lines.lifted - lines.sunk)[:, 0]
        given, share = torch.zeros_like(reaches[0][:, :, :1]), torch.zeros_like(gap[:, None])
        for read, below, above in zip(stage.reads, lines.below, lines.above, strict=True):
            reach = torch.zeros_like(share)
            for piece in read.pieces:
                reach = reach + reaches[piece.stage + 1] @ piece.weight.T
            given = given + reach * (below + above) / 2
            size = reach.abs()
            total = size.sum(dim=1, keepdim=True)
            share = share + size / torch.where(total > 0, total, 1.0)
        reaches.append(given)
        if len(stage.reads) == 1:
            bounds = walk.known[stage.reads[0].source]
            tilt = (lines.above[0] - lines.below[0])[:, 0]
            gap = torch.maximum(gap + tilt * bounds.lower, gap + tilt * bounds.upper)
        coeff = met.get(number)
        if coeff is not None:
            lost = coeff[:, 0].abs() * gap
            found = found + (share * lost[:, None]).sum(dim=2)
    return found


def bounds_of(walk: Pass, number: int) -> list[Bounds]:
    """What a stage reads."""
    return [walk.known[read.source] for read in walk.network.stages[number].reads]


def better_of(old: Climbed, new: Climbed) -> Climbed:
    """The higher minimum of each."""
    better = new.least > old.least
    return Climbed(
        torch.where(better[:, None], new.coeff, old.coeff),
        torch.where(better, new.const, old.const),
        torch.where(better, new.least, old.least),
        new.blame,
    )


def evaluated(
    walk: Pass, rows: Tensor, shares: Tensor, lined: list[Lined], met: dict[int, Tensor]
) -> Climbed:
    """The combined rows' planes; rigorous for any shares >= 0."""
    goal = walk.network.goal
    start = {p.stage: (shares @ p.weight[rows])[:, None] for p in goal.pieces}
    # The combination is rounded: by less than own of its |terms|, beside the reading's own.
    charge = shares @ (walk.charge(goal) + walk.network.own * goal.size)[rows] * OUTWARD
    const = (shares @ goal.bias[rows] - charge)[:, None]
    coeff, const = walk.pulled(start, const, lined, met)
    least = walk.least(coeff, const)
    return Climbed(coeff[:, 0], const[:, 0], least[:, 0], coeff[:, 0])


def moved(
    walk: Pass,
    rows: Tensor,
    shares: Tensor,
    lined: list[Lined],
    met: dict[int, Tensor],
    now: Climbed,
    free: dict[int, Tensor],
    step: float,
) -> Tensor:
    """Slopes (in place) and shares after one step along the gradient at the rows' minimisers."""
    network = walk.network
    point = walk.centre - now.coeff.sign() * walk.radius
    values = [point[:, None]]
    for number, (stage, lines) in enumerate(zip(network.stages, lined, strict=True)):
        inputs = []
        for read in stage.reads:
            value = read.bias.expand(len(point), 1, -1)
            for piece in read.pieces:
                value = value + values[piece.stage + 1] @ piece.weight.T
            inputs.append(value)
        coeff = met.get(number)
        if coeff is None:
            values.append(torch.zeros_like(lines.sunk))
            continue
        low, high = lines.sunk, lines.lifted
        for value, below, above in zip(inputs, lines.below, lines.above, strict=True):
            low, high = low + below * value, high + above * value
        values.append(torch.where(coeff > 0, low, high))
        if number in free:
            ascend = lookup(stage.node).ascend
            assert ascend is not None
            shape = stage.node.shape
            given = shaped(stage, bounds_of(walk, number))
            at = [value.reshape(-1, 1, *shape) for value in inputs]
            others = [t for pair in zip(given[1:], at[1:], strict=True) for t in pair]
            alpha = free[number]
            gain = ascend(stage.node, given[0], alpha, coeff.reshape(-1, 1, *shape), at[0], *others)
            size = gain.abs().flatten(3).mean(dim=3).view(*gain.shape[:3], *[1] * len(shape))
            change = gain / (gain.abs() + torch.where(size > 0, size, 1.0))
            free[number] = (alpha + step * change).clamp(0, 1)
    if len(rows) == 1:
        return shares
    reached = network.goal.bias[rows].expand(len(point), -1)
    for piece in network.goal.pieces:
        reached = reached + values[piece.stage + 1][:, 0] @ piece.weight[rows].T
    middle = (reached * shares).sum(dim=1, keepdim=True)
    spread = ((reached - middle).abs() * shares).sum(dim=1, keepdim=True)
    push = (reached - middle) / torch.where(spread > 0, spread, 1.0)
    shares = shares * torch.exp((2 * step * push).clamp(-2, 2))
    return shares / shares.sum(dim=1, keepdim=True)
