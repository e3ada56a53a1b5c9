"""Planes of operators of several entries enclose them: Mul, MatMul, Softmax."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.contracts.samples import SAMPLES
from verify.graph.ir import Node
from verify.ops.registry import lines_of, lookup, undecided_of
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation

CASES = [(op, i) for op in ("Mul", "MatMul", "Softmax") for i in range(len(SAMPLES[op]))]
FLAT = [
    (op, i)
    for op in ("ArgMax", "Trunc", "Level", "Exceeds", "Equal")
    for i in range(len(SAMPLES[op]))
]
BATCH, POINTS = 7, 400
ROUNDING = 1e-12
"""What evaluating both sides in float64 may lose, as a share of the largest value there."""


def boxes(node: Node, seed: int, width: float = 1.0) -> tuple[Bounds, ...]:
    """Random boxes, some entries of which are points."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in node.input_shapes:
        middle = 2 * torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64)
        radius = width * torch.rand(BATCH, *shape, generator=generator, dtype=torch.float64)
        radius = radius * (torch.rand(BATCH, *shape, generator=generator) > 0.2)
        found.append(Bounds(middle - radius, middle + radius))
    return tuple(found)


def inside(box: Bounds, seed: int) -> Tensor:
    """Points of a box, half of them corners; shape (batch, point, *node)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(POINTS, *box.lower.shape, generator=generator, dtype=torch.float64)
    share[POINTS // 2 :] = share[POINTS // 2 :].round()
    return torch.lerp(box.lower.expand_as(share), box.upper.expand_as(share), share).movedim(0, 1)


def alphas(node: Node, seed: int) -> list[Tensor | None]:
    """None and, where planes are free, rows of alphas: all 0, all 1, random."""
    free = lookup(node).free
    if not free:
        return [None]
    generator = torch.Generator().manual_seed(seed)
    initial = lookup(node).initial
    assert initial is not None
    shape = initial(node, *boxes(node, seed)).shape[3:]
    alpha = torch.rand(free, BATCH, 3, *shape, generator=generator, dtype=torch.float64)
    alpha[:, :, 0], alpha[:, :, 1] = 0.0, 1.0
    return [None, alpha]


def escape(node: Node, lines: Relaxation, around: tuple[Bounds, ...], seed: int) -> float:
    """How far the function is outside its planes at sampled points; <= 0 is sound."""
    points = tuple(inside(box, seed + k) for k, box in enumerate(around))
    value = lookup(node).forward(node, *(p.flatten(0, 1) for p in points))
    value = value.unflatten(0, (BATCH, POINTS))
    rule = lookup(node).along
    assert rule is not None
    size = ROUNDING * (1 + value.abs().max() + lines.lower_slope.abs().max())
    worst = -float("inf")
    for side in (1.0, -1.0):
        coeff = torch.full_like(value[:, :1], side)
        for row in range(lines.lower_slope.shape[1]):
            mine = taken(lines, row)
            plane = rule(node, mine, coeff, *points)
            worst = max(worst, float((side * (plane - value)).max() - size))
    return worst


def taken(lines: Relaxation, row: int) -> Relaxation:
    """One row of lines."""

    def one(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[:, row : row + 1]

    low, high = one(lines.lower_slope), one(lines.upper_slope)
    assert low is not None
    assert high is not None
    second = None if lines.second is None else taken(lines.second, row)
    return Relaxation(low, one(lines.lower_offset), high, one(lines.upper_offset), second=second)


@pytest.mark.parametrize(("op", "i"), [*CASES, *FLAT])
@pytest.mark.parametrize("width", [1e-9, 0.1, 1.0, 30.0])
def test_planes_enclose_the_function(op: str, i: int, width: float) -> None:
    """At corners and inner points of random boxes, for any alpha in [0, 1]."""
    node = SAMPLES[op][i]
    around = boxes(node, i, width)
    for alpha in alphas(node, i):
        assert escape(node, lines_of(node, around, alpha), around, i) <= 0


@pytest.mark.parametrize(("op", "i"), CASES)
def test_moved_planes_are_noticed(op: str, i: int) -> None:
    """The check above fails for planes moved inward by a thousandth."""
    node = SAMPLES[op][i]
    around = boxes(node, i, 0.01)
    lines = lines_of(node, around)
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    assert escape(node, replace(lines, lower_offset=lines.lower_offset + 1e-3), around, i) > 0
    assert escape(node, replace(lines, upper_offset=lines.upper_offset - 1e-3), around, i) > 0


@pytest.mark.parametrize(("op", "i"), [*CASES, *FLAT])
def test_pulled_back_rows_are_below_the_row(op: str, i: int) -> None:
    """A·f(x) is at least the sum of the pulled-back forms, and equals A·(own planes)."""
    node = SAMPLES[op][i]
    around = boxes(node, i)
    lines = lines_of(node, around)
    generator = torch.Generator().manual_seed(i)
    coeff = torch.randn(BATCH, 3, *node.shape, generator=generator, dtype=torch.float64)
    form = LinearForm(coeff, torch.zeros(BATCH, 3, dtype=torch.float64))
    pieces = lookup(node).pull_back(node, form, lines)
    rule = lookup(node).along
    assert rule is not None
    for seed in range(20):
        points = tuple(inside(box, seed)[:, :1] for box in around)
        value = lookup(node).forward(node, *(p.flatten(0, 1) for p in points))
        row = torch.einsum("brn,bn->br", coeff.flatten(2), value.flatten(1))
        found = sum(
            (
                torch.einsum("brn,bn->br", p.coeff.flatten(2), x.flatten(1)) + p.const
                for p, x in zip(pieces, points, strict=True)
            ),
            torch.zeros_like(row),
        )
        assert bool((found <= row + 1e-9).all())
        along = rule(node, lines, coeff, *(p.expand(-1, 3, *p.shape[2:]) for p in points))
        torch.testing.assert_close((coeff * along).flatten(2).sum(dim=2), found)


@pytest.mark.parametrize(("op", "i"), CASES)
def test_planes_of_points_are_the_value(op: str, i: int) -> None:
    """Where no input moves, both planes meet at the function, and no entry wants a row."""
    node = SAMPLES[op][i]
    around = tuple(Bounds(b.lower, b.lower) for b in boxes(node, i))
    rule = lookup(node).along
    assert rule is not None
    points = tuple(b.lower[:, None] for b in around)
    value = lookup(node).forward(node, *(b.lower for b in around))
    for side in (1.0, -1.0):
        found = rule(node, lines_of(node, around), torch.full_like(value[:, None], side), *points)
        torch.testing.assert_close(found[:, 0], value, rtol=1e-9, atol=1e-9)
    for position in range(len(around)):
        mask = undecided_of(node, around, position)
        assert mask is not None
        assert not bool(mask.any())
