"""Clipped bounds against the exact minimum below the plane, in rationals, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from verify.bounders.simplex import Domain
from verify.search.lp_clipping import Clipper
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm

INPUTS, NEURONS = 3, 4


@dataclass(frozen=True)
class Planes:
    """Stands for a prover: a plane that is known, over a box that is known."""

    form: LinearForm
    box: Bounds

    @property
    def ledger(self) -> Any:
        """What a clipper reads of it."""
        graph = SimpleNamespace(input=SimpleNamespace(name="x"))
        return SimpleNamespace(bounds={"x": self.box}, graph=graph)

    def plane(self, _domains: object, _duals: object) -> LinearForm:
        """The plane."""
        return self.form


def least_below(
    row: Tensor, const: Tensor, plane: LinearForm, box: Bounds, aim: float
) -> Fraction | None:
    """min of row·x + const over the box where the plane, less its error, is <= aim; None if empty.

    The dual in one multiplier is concave and piecewise linear: its best value is at 0 or a kink.
    """
    assert plane.error is not None
    a = [Fraction(float(v)) for v in plane.coeff.flatten()]
    w = [Fraction(float(v)) for v in row]
    low = [Fraction(float(v)) for v in box.lower.flatten()]
    high = [Fraction(float(v)) for v in box.upper.flatten()]
    shift = Fraction(float(plane.const)) - Fraction(float(plane.error)) - Fraction(aim)
    if sum(min(c * x, c * y) for c, x, y in zip(a, low, high, strict=True)) + shift > 0:
        return None

    def dual(t: Fraction) -> Fraction:
        ends = ((u + t * c, x, y) for u, c, x, y in zip(w, a, low, high, strict=True))
        return sum((min(s * x, s * y) for s, x, y in ends), t * shift)

    kinks = [-u / c for u, c in zip(w, a, strict=True) if c != 0 and -u / c > 0]
    return max(dual(t) for t in [Fraction(0), *kinks]) + Fraction(float(const))


def clipped(
    seed: int, error: float = 0.0, plane_error: float = 0.0, kind: str = "constants"
) -> list[tuple[Fraction, Fraction]]:
    """Pairs (what is claimed of a neuron's sign · z, what is true), where the plane leaves some.

    What cancels is inputs with constants, or inputs among themselves; or constants are all there is
    to round ("tiny").
    """
    make = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    base, width = (0.0, 2.0**-20) if kind == "tiny" else (100.0, 1.0)
    lower = base + width * numbers(1, INPUTS)
    upper = lower + width * torch.rand(1, INPUTS, generator=make, dtype=torch.float64)
    box = Bounds(lower, upper)
    middle = (lower + upper)[0] / 2
    a, coeff = numbers(1, 1, INPUTS), numbers(NEURONS, INPUTS)
    if kind == "inputs":
        a[..., -1] = -(a[..., :-1] @ middle[:-1]) / middle[-1]
        coeff[:, -1] = -(coeff[:, :-1] @ middle[:-1]) / middle[-1]
    # The plane goes through the box's middle.
    const = -(a[0, 0] @ middle).view(1, 1)
    bias = numbers(NEURONS) if kind == "tiny" else -(coeff @ middle)
    plane = LinearForm(a, const, torch.full((1, 1), plane_error, dtype=torch.float64))
    twice, both = torch.cat([coeff, -coeff]), torch.cat([bias, -bias])
    off = torch.full((2 * NEURONS,), error, dtype=torch.float64)
    prover: Any = Planes(plane, box)
    whole = Domain(np.zeros(NEURONS, np.int8), np.full(NEURONS, -np.inf), np.full(NEURONS, np.inf))
    clip = Clipper(prover, torch.arange(NEURONS), twice, both, off)
    aim = 0.0
    (found,) = clip([whole], [np.zeros(1)], aim)
    assert found is not None
    pairs = []
    for i in range(2 * NEURONS):
        exact = least_below(twice[i], both[i], plane, box, aim)
        side = found.lower[i] if i < NEURONS else -found.upper[i - NEURONS]
        if exact is not None:
            pairs.append((Fraction(float(side)), exact - Fraction(error)))
    return pairs


@pytest.mark.parametrize("kind", ["constants", "inputs", "tiny"])
def test_no_bound_is_above_the_exact_one(kind: str) -> None:
    """However numbers cancel, what is charged covers it; and the bound is the best there is."""
    pairs = [pair for seed in range(60) for pair in clipped(seed, kind=kind)]
    assert len(pairs) > 300
    assert all(claimed <= true for claimed, true in pairs)
    assert all(true - claimed < Fraction(1, 10**9) for claimed, true in pairs)


@pytest.mark.parametrize(("error", "plane_error"), [(0.125, 0.0), (0.0, 0.25)])
def test_what_executions_and_planes_are_off_by_is_paid(error: float, plane_error: float) -> None:
    """A neuron's own error lowers its bound, a plane's error lets more inputs stay."""
    pairs = [pair for seed in range(20) for pair in clipped(seed, error, plane_error)]
    assert all(claimed <= true for claimed, true in pairs)
    assert all(true - claimed < Fraction(1, 10**9) for claimed, true in pairs)
