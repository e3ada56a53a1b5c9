"""Lines of every nonlinear operator enclose it: extended precision, no tolerance of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.contracts.samples import POSITIVE, SAMPLES, kinks
from verify.graph.ir import Node
from verify.ops.curve import CURVES
from verify.ops.registry import REGISTRY, lookup, noise_of
from verify.values.bounds import Bounds
from verify.values.relaxation import Relaxation
from verify.values.rounding import REAL, gamma, unit

Wide = NDArray[np.longdouble]
ROUNDINGS = 8 * float(np.finfo(np.longdouble).eps)
"""What evaluating a line and the function in extended precision may lose, relative."""
SEVERAL = ("MaxPool", "Mul", "MatMul", "Softmax", "ArgMax", "Trunc", "Level", "Exceeds", "Equal",
           "Program")  # fmt: skip
"""Nonlinear operators that are not functions of one entry, or have no lines but their bounds:
tests/contracts/test_planes.py."""
STEPS = ("Sign", "Floor", "Ceil")
FARTHEST = {"Exp": 300.0, "Power": 1e6, "Sin": 1e5, "Cos": 1e5}
"""How far out an operator is tried, where its values would not be finite or not be known beyond."""
ELEMENTWISE = [
    (op, i)
    for op, rules in REGISTRY.items()
    if rules.relax is not None and op not in SEVERAL
    for i in range(len(SAMPLES[op]))
]


def wide(tensor: Tensor) -> Wide:
    """Float64 numbers in extended precision, exactly."""
    return tensor.numpy().astype(np.longdouble)


def sigmoid(_node: Node, z: Wide) -> Wide:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def two_piece(node: Node, z: Wide) -> Wide:
    below, above = wide(node.tensors["below"]), wide(node.tensors["above"])
    return below * np.minimum(z, 0) + above * np.maximum(z, 0)


def clip(node: Node, z: Wide) -> Wide:
    return np.minimum(np.maximum(z, wide(node.tensors["low"])), wide(node.tensors["high"]))


def softplus(_node: Node, z: Wide) -> Wide:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def erf(_node: Node, z: Wide) -> Wide:
    """From float64: extended precision has none; `excess` allows for it."""
    return torch.erf(torch.from_numpy(z.astype(np.float64))).numpy().astype(np.longdouble)


def gelu(_node: Node, z: Wide) -> Wide:
    tail = torch.special.erfc(torch.from_numpy((-z / np.sqrt(np.longdouble(2))).astype(np.float64)))
    return z * tail.numpy().astype(np.longdouble) / 2


def tanh_gelu(_node: Node, z: Wide) -> Wide:
    """z / 2·(1 + tanh u), without its cancellation for negative u."""
    u = np.sqrt(2 / np.pi, dtype=z.dtype) * (z + z.dtype.type("0.044715") * z**3)
    small = np.exp(-2 * np.abs(u))
    return np.asarray(z * np.where(u > 0, 1 / (1 + small), small / (1 + small)))


EXACT: dict[str, Callable[[Node, Wide], Wide]] = {
    "Relu": lambda node, z: np.maximum(z, 0),
    "Tanh": lambda node, z: np.tanh(z),
    "Sigmoid": sigmoid,
    "TwoPiece": two_piece,
    "Clip": clip,
    "Exp": lambda node, z: np.exp(z),
    "Log": lambda node, z: np.log(z),
    "Sqrt": lambda node, z: np.sqrt(z),
    "Reciprocal": lambda node, z: 1 / z,
    "Softplus": softplus,
    "Erf": erf,
    "Gelu": gelu,
    "GeluTanh": tanh_gelu,
    "Sin": lambda node, z: np.sin(z),
    "Cos": lambda node, z: np.cos(z),
    "Power": lambda node, z: z ** node.scalar("exponent"),
    "Sign": lambda node, z: np.sign(z),
    "Floor": lambda node, z: np.floor(z),
    "Ceil": lambda node, z: np.ceil(z),
}
"""The functions, written here once more."""


def ends(node: Node, seed: int) -> list[tuple[float, float]]:
    """Intervals: points, tiny, moderate and huge ones, and ones that end at a kink."""
    generator = np.random.default_rng(seed)
    bends = kinks(node)
    found = [(z, z) for z in (*bends, -3.0, 1e-300, 7e5)]
    for power in range(-12, -5):
        width = 10.0**power
        for middle in (*bends, *generator.normal(size=2), 20.0, -9.0):
            found += [(middle - width, middle), (middle, middle + width)]
            found += [(middle - width, middle + width), (middle - width, middle + 1e-4)]
    for size in (1.0, 5.0, 40.0, 1e3, 1e6, 1e12):
        for low, high in generator.uniform(-size, size, (6, 2)):
            found.append((min(low, high), max(low, high)))
        found += [(-size, size * 1e-3), (-size * 1e-3, size), (-size, bends[-1]), (bends[0], size)]
    if node.op in POSITIVE:
        found = [tuple(sorted((abs(low) + 1e-9, abs(high) + 1e-9))) for low, high in found]
    most = FARTHEST.get(node.op, 1e13)
    found = [(min(max(low, -most), most), min(max(high, -most), most)) for low, high in found]
    return [(float(low), float(max(low, high))) for low, high in found]


def intervals(node: Node, seed: int) -> Bounds:
    """The same as bounds of the node's input, every entry another interval."""
    pairs = ends(node, seed)
    batch = -(-len(pairs) // node.size)
    pairs += pairs[: batch * node.size - len(pairs)]
    both = torch.tensor(pairs, dtype=torch.float64).view(batch, *node.shape, 2)
    return Bounds(both[..., 0], both[..., 1])


def points(node: Node, x: Bounds, count: int, seed: int) -> Tensor:
    """Points of the intervals, with both ends and the kinks; shape (count, batch, *node)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, *x.lower.shape, generator=generator, dtype=torch.float64)
    share[0], share[1] = 0.0, 1.0
    found = torch.lerp(x.lower.expand_as(share), x.upper.expand_as(share), share)
    marks = [torch.full_like(found[:1], kink) for kink in kinks(node)]
    return torch.minimum(torch.maximum(torch.cat((found, *marks)), x.lower), x.upper)


def slopes(node: Node, x: Bounds, seed: int) -> list[Tensor | None]:
    """None, and where lines are free rows of alphas: all 0, all 1 and random."""
    free = lookup(node).free
    if not free:
        return [None]
    generator = torch.Generator().manual_seed(seed)
    shape = (free, len(x.lower), 3, *node.shape)
    alpha = torch.rand(shape, generator=generator, dtype=torch.float64)
    alpha[:, :, 0], alpha[:, :, 1] = 0.0, 1.0
    return [None, alpha]


def excess(node: Node, x: Bounds, lines: Relaxation, count: int = 1000) -> float:
    """How far a line is on the wrong side, beyond the rounding of the check; <= 0 is sound."""
    worst = -np.inf
    z = wide(points(node, x, count, 1))
    value = EXACT[node.op](node, z)
    for slope, offset, side in (
        (lines.lower_slope, lines.lower_offset, 1),
        (lines.upper_slope, lines.upper_offset, -1),
    ):
        for row in range(slope.shape[1]):
            product = wide(slope[:, row]) * z
            start = 0 * product if offset is None else wide(offset[:, row % offset.shape[1]])
            noise = ROUNDINGS * (np.abs(product) + np.abs(start) + np.abs(value))
            worst = max(worst, float((side * (product + start - value) - noise).max()))
    return worst


@pytest.mark.parametrize(("op", "i"), ELEMENTWISE)
def test_lines_enclose_the_function(op: str, i: int) -> None:
    """At 1,000 points of each interval, its ends and the kinks, for any alpha in [0, 1]."""
    node = SAMPLES[op][i]
    x = intervals(node, i)
    rule = lookup(node).relax
    assert rule is not None
    for alpha in slopes(node, x, i):
        assert excess(node, x, rule(node, x, alpha)) <= 0


@pytest.mark.parametrize(("op", "i"), ELEMENTWISE)
def test_a_line_moved_by_a_billionth_of_its_terms_is_noticed(op: str, i: int) -> None:
    """The check above fails for mutants whose upper or lower lines are only a little off."""
    node = SAMPLES[op][i]
    x = intervals(node, i)
    rule = lookup(node).relax
    assert rule is not None
    lines = rule(node, x, None)
    size = 1e-9 * (1 + x.magnitude()[:, None])
    zero = torch.zeros_like(lines.upper_slope)
    upper = zero if lines.upper_offset is None else lines.upper_offset
    lower = zero if lines.lower_offset is None else lines.lower_offset
    assert excess(node, x, replace(lines, upper_offset=upper - size)) > 0
    assert excess(node, x, replace(lines, lower_offset=lower + size)) > 0


def test_chords_with_a_clamped_width_are_noticed() -> None:
    """The slope (f(u) - f(l)) / max(u - l, 1e-8), in wide use, cuts tanh on [-5e-9, 0]."""
    node = SAMPLES["Tanh"][0]
    lower = torch.full((1, 6), -5e-9, dtype=torch.float64)
    x = Bounds(lower, torch.zeros_like(lower))
    slope = (x.upper.tanh() - x.lower.tanh()) / (x.upper - x.lower).clamp(min=1e-8)
    offset = x.lower.tanh() - slope * x.lower
    rule = lookup(node).relax
    assert rule is not None
    lines = rule(node, x, None)
    assert excess(node, x, lines) <= 0
    mutant = replace(lines, upper_slope=slope[:, None], upper_offset=offset[:, None])
    assert excess(node, x, mutant) > 1e-9


@pytest.mark.parametrize(
    ("op", "i"), [case for case in ELEMENTWISE if case[0] in (*CURVES, *STEPS)]
)
def test_offsets_stay_below_the_terms_that_the_noise_is_a_share_of(op: str, i: int) -> None:
    """`noise` pays gamma_k of the largest offset and of the largest slope times z."""
    node = SAMPLES[op][i]
    x = intervals(node, i)
    rule = lookup(node).relax
    assert rule is not None
    charge = noise_of(node, REAL, torch.float64, (x,))
    assert charge is not None
    terms = charge[:, None] / (2 * gamma(node.size + 8, unit(torch.float64)))
    for alpha in slopes(node, x, i):
        lines = rule(node, x, alpha)
        assert lines.lower_offset is not None
        assert lines.upper_offset is not None
        for part in (lines.lower_offset, lines.upper_offset):
            assert bool((part.abs() <= terms * (1 + 1e-9) + 1e-300).all())
        for part in (lines.lower_slope, lines.upper_slope):
            assert bool((part.abs() * x.magnitude()[:, None] <= terms * (1 + 1e-9)).all())


@pytest.mark.parametrize(
    ("op", "i"), [case for case in ELEMENTWISE if case[0] not in (*CURVES, *STEPS)]
)
def test_lines_stay_within_what_the_noise_charges_for(op: str, i: int) -> None:
    """`noise` assumes |offset| <= |f(0)| + 2·steepest·|z|, up to rounding; here it holds."""
    node = SAMPLES[op][i]
    x = intervals(node, i)
    rule, noise = lookup(node).relax, lookup(node).noise
    assert rule is not None
    assert noise is not None
    zero = torch.zeros_like(x.lower)
    at_zero = lookup(node).forward(node, zero).abs()
    steep = (lookup(node).forward(node, zero + 1e-6) - at_zero).abs().max()
    for alpha in slopes(node, x, i):
        lines = rule(node, x, alpha)
        for slope, offset in (
            (lines.lower_slope, lines.lower_offset),
            (lines.upper_slope, lines.upper_offset),
        ):
            most = max(1.0, float(slope.abs().max()), float(steep))
            if offset is not None:
                allowed = at_zero[:, None] + (2 * most + 1e-12) * x.magnitude()[:, None] + 1e-13
                assert bool((offset.abs() <= allowed).all())


@pytest.mark.parametrize(("op", "i"), ELEMENTWISE)
def test_undecided_leaves_out_no_entry_whose_lines_differ(op: str, i: int) -> None:
    """Where no row is spent, the two lines agree at both ends but for rounding and curvature."""
    node = SAMPLES[op][i]
    x = intervals(node, i)
    rules = lookup(node)
    assert rules.relax is not None
    assert rules.undecided is not None
    left_out = ~rules.undecided(node, x)
    assert bool(left_out.any())
    lines = rules.relax(node, x, None)
    for z in (x.lower, x.upper):
        upper = lines.upper_slope[:, 0] * z
        lower = lines.lower_slope[:, 0] * z
        upper = upper if lines.upper_offset is None else upper + lines.upper_offset[:, 0]
        lower = lower if lines.lower_offset is None else lower + lines.lower_offset[:, 0]
        # Intervals narrower than 1e-6 of a smooth curve bend by less than 1e-12.
        gap = (upper - lower) / (1 + x.magnitude() + lower.abs())
        assert bool((gap[left_out] <= 1e-11).all())


def test_lines_of_one_curve_are_never_those_of_another() -> None:
    """Sigmoid and Tanh of one value, as in a gated unit, share bounds but not their lines."""
    x = Bounds(torch.full((1, 6), -2.0).double(), torch.full((1, 6), 1.5).double())
    first = lookup(SAMPLES["Sigmoid"][0]).relax
    second = lookup(SAMPLES["Tanh"][0]).relax
    assert first is not None
    assert second is not None
    first(SAMPLES["Sigmoid"][0], x, None)
    after = second(SAMPLES["Tanh"][0], x, None)
    alone = second(SAMPLES["Tanh"][0], Bounds(x.lower.clone(), x.upper.clone()), None)
    torch.testing.assert_close(after.lower_slope, alone.lower_slope)
    torch.testing.assert_close(after.upper_slope, alone.upper_slope)
