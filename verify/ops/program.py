"""Program: a tensor that the file computes from whole numbers, step by step, such as a mask.

Inputs are read as the nearest whole numbers. Nothing is known of it but its values at those, so
bounds are the hull of all of them; over
too many combinations there are none.
"""

from __future__ import annotations

from itertools import product
from math import prod

import torch
from torch import Tensor

from verify.errors import InternalError
from verify.graph.ir import Node, Program
from verify.ops.counting import LARGEST_WHOLE, flat
from verify.values.bounds import Bounds

MOST_COMBINATIONS = 128
"""Whole numbers, over all inputs together, that bounds are the hull of."""


def program_of(node: Node) -> Program:
    """The steps that a node runs."""
    if node.program is None:
        raise InternalError(f"node {node.name!r} (Program) holds no program")
    return node.program


def forward(node: Node, *inputs: Tensor) -> Tensor:
    """The result at each sample's whole numbers."""
    program = program_of(node)
    rows = torch.cat([x.flatten(1) for x in inputs], dim=1)
    known = torch.isfinite(rows).all(dim=1) & (rows.abs() < LARGEST_WHOLE).all(dim=1)
    found = [
        program(*(round(number) for number in row)) if fine else None
        for row, fine in zip(rows.tolist(), known.tolist(), strict=True)
    ]
    shape = node.shape or program(*(0,) * len(inputs)).shape
    blank = torch.full(shape, torch.nan, dtype=torch.float64)
    parts = [blank if part is None else part for part in found]
    return torch.stack(parts).to(inputs[0].dtype) if parts else rows.new_zeros(0, *shape)


def interval(node: Node, *inputs: Bounds) -> Bounds:
    """The hull of the results at all whole numbers between the bounds."""
    program = program_of(node)
    low = torch.cat([x.lower.flatten(1) for x in inputs], dim=1)
    high = torch.cat([x.upper.flatten(1) for x in inputs], dim=1)
    size = torch.maximum(low.abs(), high.abs())
    known = torch.isfinite(size).all(dim=1) & (size < LARGEST_WHOLE).all(dim=1)
    lower = low.new_full((len(low), *node.shape), -torch.inf)
    upper = torch.full_like(lower, torch.inf)
    for row in known.nonzero().flatten().tolist():
        # The inputs hold whole numbers; bounds may be a little wider than them.
        spans = [
            range(round(a), round(b) + 1)
            for a, b in zip(low[row].tolist(), high[row].tolist(), strict=True)
        ]
        if not 0 < prod(len(span) for span in spans) <= MOST_COMBINATIONS:
            continue
        values = torch.stack([program(*whole) for whole in product(*spans)]).to(low.dtype)
        if not bool(torch.isnan(values).any()):
            lower[row], upper[row] = values.amin(dim=0), values.amax(dim=0)
    return Bounds(lower, upper)


def undecided(node: Node, *inputs: Bounds) -> tuple[Tensor, ...]:
    """Whole numbers that are not settled: rows are of no use, but boxes may be split there."""
    return tuple(x.lower < x.upper for x in inputs)


flat("Program", forward, interval, undecided, mixes=True, largest=LARGEST_WHOLE)
