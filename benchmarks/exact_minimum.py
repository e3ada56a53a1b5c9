"""The exact minimum of a small piecewise linear net over a box, in rational numbers: a judge.

Two inputs vary at most. Over them the net is linear on convex polygons, which are found by cutting
the box at every neuron's zero, layer by layer; a cell carries the values of all entries at its
corners, and what is linear between corners needs nothing else. The minimum lies at a corner. There
is no solver, no tolerance, and no code of the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from benchmarks.provocative import Net, Single, Step

Corner = list[Fraction]
"""The inputs, then the values of the step that was done last."""
Cell = list[Corner]
"""Corners of a convex polygon in order; or the two ends of an interval, or a point."""


def least(
    net: Net, low: Single, high: Single, row: Sequence[int | Fraction]
) -> tuple[Fraction, Corner]:
    """The least row·output over the box, and an input that has it.

    Args:
        net: of affine steps, Relus and the larger of pairs.
        low, high: corners of the box, shape (inputs,); at most two entries may differ.
        row: a rational number for each output.

    Raises:
        ValueError: if more inputs vary, or the net has other steps.
    """
    count = len(low)
    cells = [[[*corner, *corner] for corner in corners(low, high)]]
    for step in net.steps:
        if step.op == "affine":
            weight, bias = exact(step)
            cells = [[applied(corner, count, weight, bias) for corner in cell] for cell in cells]
        elif step.op in ("Relu", "max"):
            pairs = step.op == "max"
            if pairs:
                cells = [[apart(corner, count) for corner in cell] for cell in cells]
            last = len(cells[0][0])
            for k in range(count, (count + last) // 2 if pairs else last):
                cells = [part for cell in cells for part in bent(cell, k)]
            if pairs:
                cells = [[together(corner, count) for corner in cell] for cell in cells]
        else:
            raise ValueError(f"{step.op} is not for this judge")
    best = min(
        (
            (sum((c * v for c, v in zip(row, corner[count:], strict=True)), Fraction(0)), corner)
            for cell in cells
            for corner in cell
        ),
        key=lambda found: found[0],
    )
    return best[0], best[1][:count]


def corners(low: Single, high: Single) -> Cell:
    """Those of the box, in order around it."""
    ends = [[Fraction(float(a)), Fraction(float(b))] for a, b in zip(low, high, strict=True)]
    wide = [i for i, (a, b) in enumerate(ends) if a < b]
    if len(wide) > 2:
        raise ValueError(f"{len(wide)} inputs vary, at most 2 may")
    turns = [(0, 0), (1, 0), (1, 1), (0, 1)][: 1 << len(wide)]
    found = []
    for turn in turns:
        side = dict(zip(wide, turn, strict=False))
        found.append([pair[side.get(i, 0)] for i, pair in enumerate(ends)])
    return found


def exact(step: Step) -> tuple[list[list[Fraction]], list[Fraction]]:
    """Weights and biases as rational numbers."""
    rows = [[Fraction(v) for v in row] for row in step.weight.tolist()]
    return rows, [Fraction(v) for v in step.bias.tolist()]


def applied(
    corner: Corner, count: int, weight: list[list[Fraction]], bias: list[Fraction]
) -> Corner:
    """The corner with the values of an affine step in place of those before it."""
    values = corner[count:]
    after = [
        sum((w * v for w, v in zip(row, values, strict=True) if w and v), offset)
        for row, offset in zip(weight, bias, strict=True)
    ]
    return [*corner[:count], *after]


def apart(corner: Corner, count: int) -> Corner:
    """Pairs (a, b) as all a - b, then all b."""
    values = corner[count:]
    gaps = [a - b for a, b in zip(values[::2], values[1::2], strict=True)]
    return [*corner[:count], *gaps, *values[1::2]]


def together(corner: Corner, count: int) -> Corner:
    """The larger of each pair, b + max(a - b, 0)."""
    half = (len(corner) - count) // 2
    gaps, others = corner[count : count + half], corner[count + half :]
    return [*corner[:count], *(g + b for g, b in zip(gaps, others, strict=True))]


def bent(cell: Cell, k: int) -> list[Cell]:
    """The parts of a cell on either side of entry k's zero; where it is negative it becomes 0."""
    values = [corner[k] for corner in cell]
    if min(values) >= 0:
        return [cell]
    if max(values) <= 0:
        return [[without(corner, k) for corner in cell]]
    above: Cell = []
    below: Cell = []
    # Of an interval both ends are neighbours once, of a polygon each corner of the next one.
    for i, here in enumerate(cell):
        if here[k] >= 0:
            above.append(here)
        if here[k] <= 0:
            below.append(without(here, k))
        there = cell[(i + 1) % len(cell)]
        if here[k] * there[k] < 0 and not (len(cell) == 2 and i == 1):
            share = here[k] / (here[k] - there[k])
            middle = [a + share * (b - a) for a, b in zip(here, there, strict=True)]
            above.append(middle)
            below.append(without(middle, k))
    return [above, below]


def without(corner: Corner, k: int) -> Corner:
    """With entry k at 0."""
    return [*corner[:k], Fraction(0), *corner[k + 1 :]]
