"""Bounds of the real-valued network beside exact minima in rationals: our own rounding is paid for.

On boxes this narrow hardly a neuron is open, so a bound is the minimum but for rounding, and every
charge that is missing shows sooner or later: weights of up to 2^40 cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.exact_minimum import least
from benchmarks.exact_problems import ROWS, tiny
from benchmarks.provocative import Net, Single, graph_of
from verify.bounders import lp
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.beta_proof import prove
from verify.bounders.crown import Crown
from verify.bounders.dense import dense_planes
from verify.bounders.interval import Interval
from verify.bounders.multipliers import ledger, through_kink
from verify.bounders.planes import CrownPlanes, Goal, PlaneBounder, Planes
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Simplex
from verify.bounders.slopes import Ascent
from verify.bounders.staged_planes import staged_planes
from verify.bounders.zonotope import Zonotope
from verify.graph.ir import Graph, Node
from verify.problem import Problem
from verify.protocols import Bounder
from verify.search.root import root_of
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.property import Case, Halfspaces
from verify.values.region import Box
from verify.values.rounding import REAL
from verify.values.spec import Spec

NETS = 60
WIDTHS = (1e-6, 1e-6, 1e-3)
Asked = tuple[Graph, Box, Tensor]
"""A network, a box of its inputs, and a row of its outputs."""


def narrow(seed: int) -> tuple[Net, Single, Single, tuple[int, int]]:
    """A net that cancels, a small box, a row."""
    generator = np.random.default_rng([seed, 5])
    net = tiny(generator)
    width = np.zeros(net.shape[0])
    width[:2] = generator.choice(WIDTHS)
    centre = generator.standard_normal(net.shape[0])
    low, high = ((centre + s * width).astype(np.float32) for s in (-1, 1))
    return net, low, high, ROWS[seed % len(ROWS)]


def bounded(bounder: Bounder) -> Callable[[Asked], float]:
    """A bounder's margin."""

    def margin(asked: Asked) -> float:
        graph, box, row = asked
        spec = Spec(row[None, None], torch.zeros(1, 1, dtype=torch.float64))
        return float(bounder(Problem(graph, box, spec), Budget()).margin)

    return margin


def case_of(asked: Asked, other: Tensor | None = None) -> Case:
    """Unsafe is that the row is at most 0, and another one too if there is one."""
    _, box, row = asked
    rows = row[None] if other is None else torch.stack((row, other))
    none = torch.zeros(0, dtype=torch.float64)
    inputs = box.lower.numel()
    free = Halfspaces(none.view(0, 1).expand(0, inputs), none, none.bool())
    clause = Halfspaces(rows, rows.new_zeros(len(rows)), torch.zeros(len(rows)).bool())
    return Case(box.lower.flatten(), box.upper.flatten(), free, (clause,))


def by_planes(asked: Asked, kind: str) -> float:
    """What input splitting closes boxes with: of a clause of one row, every plane is below it."""
    graph, box, row = asked
    goal = Goal(row[None], torch.zeros(1, dtype=torch.float64), ((0,),))
    planes: PlaneBounder | None = CrownPlanes(graph, goal, REAL)
    if kind == "chain":
        planes = dense_planes(graph, goal, rounding=REAL)
    elif kind == "staged":
        planes = staged_planes(graph, goal, box.lower.flatten(), box.upper.flatten(), REAL)
    assert planes is not None
    found = planes(box.lower.flatten(1), box.upper.flatten(1), Budget())
    return max(lowest_of(found, row, box) for row in range(found.const.shape[1]))


def lowest_of(found: Planes, row: int, box: Box) -> float:
    """The larger of what is said of a plane, and the plane itself, at its lowest corner."""
    own = found.coeff[0, row].tolist()
    at = [
        Fraction(c) * Fraction(low if c > 0 else high)
        for c, low, high in zip(
            own, box.lower.flatten().tolist(), box.upper.flatten().tolist(), strict=True
        )
    ]
    if not np.isfinite(float(found.const[0, row])):
        return -np.inf
    # Clipping believes the plane.
    lowest = sum(at, Fraction(float(found.const[0, row])))
    return max(float(found.least[0, row]), float(np.nextafter(float(lowest), -np.inf)))


def by_domains(asked: Asked) -> float:
    """What activation splitting closes leaves with, before any split."""
    root = root_of(asked[0], case_of(asked), Ascent(2), Budget(), rounding=REAL)
    domains = root.domains if len(root.domains) else root.closed
    value = prove(root.proof, root.frame, root.clauses, domains, root.others)
    return max(float(value.max()), float(root.margin.max()))


def by_duals(asked: Asked) -> float:
    """What the tree of linear programs closes nodes with."""
    return dual_value(asked, asked[2][None], None)


def dual_value(asked: Asked, rows: Tensor, weights: Tensor | None) -> float:
    """The rigorous value of the solver's multipliers, for weighted rows."""
    graph, box, row = asked
    spec = Spec(row[None, None], torch.zeros(1, 1, dtype=torch.float64))
    bounds = Crown(REAL)(Problem(graph, box, spec), Budget()).bounds
    zero = torch.zeros(len(rows), dtype=torch.float64)
    program = lp.program(graph, bounds, rows, zero, inputs=None)
    prover = Prover(ledger(graph, bounds, REAL), program, rows, zero, None)
    simplex = Simplex(program)
    solved = simplex.solve()
    if solved.duals is None:
        return -np.inf
    return float(prover.prove([simplex.whole], [solved.duals], weights)[0])


WAYS: dict[str, Callable[[Asked], float]] = {
    "ibp": bounded(Interval(REAL)),
    "crown": bounded(Crown(REAL)),
    "alpha-crown": bounded(AlphaCrown(ascent=Ascent(2), rounding=REAL)),
    "zonotope": bounded(Zonotope(REAL)),
    "planes": lambda asked: by_planes(asked, "any"),
    "planes of a chain": lambda asked: by_planes(asked, "chain"),
    "planes of stages": lambda asked: by_planes(asked, "staged"),
    "domains": by_domains,
    "duals": by_duals,
}
PLAIN = bounded(Crown(None))


def minima() -> Iterator[tuple[Asked, Fraction]]:
    """Questions and their answers."""
    for seed in range(NETS):
        net, low, high, row = narrow(seed)
        graph = graph_of(net)
        ends = [torch.from_numpy(side).double().view(1, *net.shape) for side in (low, high)]
        asked = graph, Box(*ends), torch.tensor(row, dtype=torch.float64)
        yield asked, least(net, low, high, row)[0]


@pytest.fixture(scope="module")
def known() -> list[tuple[Asked, Fraction]]:
    """All of them, once."""
    return list(minima())


@pytest.mark.parametrize("way", WAYS)
def test_no_bound_lies_above_an_exact_minimum(
    way: str, known: list[tuple[Asked, Fraction]]
) -> None:
    """Not by the last bit; and most are finite, or nothing would be tested."""
    found = [(WAYS[way](asked), minimum) for asked, minimum in known]
    wrong = [i for i, (bound, least_) in enumerate(found) if np.isfinite(bound) and bound > least_]
    assert not wrong
    assert sum(np.isfinite(bound) for bound, _ in found) > NETS / 2


def test_no_weighted_rows_are_proved_above_their_minimum() -> None:
    """Two rows of a clause, weighed: by domains and by multipliers of linear programs."""
    other, finite = torch.tensor([1.0, 3.0], dtype=torch.float64), 0
    for seed in range(NETS):
        net, low, high, row = narrow(seed)
        graph = graph_of(net)
        ends = [torch.from_numpy(side).double().view(1, *net.shape) for side in (low, high)]
        asked = graph, Box(*ends), torch.tensor(row, dtype=torch.float64)
        weights = np.random.default_rng(seed).random(2).astype(np.float32).tolist()
        whole = [
            Fraction(weights[0]) * a + Fraction(weights[1]) * int(b)
            for a, b in zip(row, other.tolist(), strict=True)
        ]
        minimum = least(net, low, high, whole)[0]
        root = root_of(graph, case_of(asked, other), Ascent(2), Budget(), rounding=REAL)
        domains = root.domains if len(root.domains) else root.closed
        domains = replace(domains, weight=torch.tensor([weights]))
        given = torch.tensor([weights], dtype=torch.float64)
        for value in (
            float(prove(root.proof, root.frame, root.clauses, domains, root.others)),
            dual_value(asked, torch.stack((asked[2], other)), given),
        ):
            finite += np.isfinite(value)
            assert not np.isfinite(value) or value <= minimum
    assert finite > NETS


def test_without_the_charge_they_do(known: list[tuple[Asked, Fraction]]) -> None:
    """The same nets tell: plain float64 is above the minimum on a part of them."""
    assert sum(PLAIN(asked) > minimum for asked, minimum in known) > NETS / 10


@pytest.mark.parametrize("seed", range(21))
def test_a_kink_pays_for_our_rounding(seed: int) -> None:
    """A·f(z) >= v·z + const - error in rationals, at the worst ends of ranges of all scales."""
    generator = torch.Generator().manual_seed(seed)
    size = 6

    def numbers(scale: float) -> Tensor:
        return torch.randn(1, 1, size, generator=generator, dtype=torch.float64) * scale

    middle, reach = numbers(1.0)[0], numbers(1.0)[0].abs()
    bounds = Bounds(middle - reach * 1e9, middle + reach * 1e-6)
    # One neuron is decided, and goes by the function's own slope.
    bounds.lower[0, seed % size], bounds.upper[0, seed % size] = reach[0, 0], 1e9
    below, above = ((0.0, 1.0), (0.25, -1.5), (-0.5, -2.0))[seed % 3]
    slopes = {"below": torch.tensor(below).double(), "above": torch.tensor(above).double()}
    node = Node("r", "TwoPiece" if seed % 3 else "Relu", ("z",), (size,), ((size,),), slopes)
    nu = numbers(1.0)
    nu[0, 0, seed % size] = torch.nan
    error = torch.full((1, 1), 3.0, dtype=torch.float64)
    form = LinearForm(numbers(1.0), torch.zeros(1, 1, dtype=torch.float64), error)
    found = through_kink(node, form, nu, bounds)
    assert found.error is not None
    total = Fraction(float(found.const)) - Fraction(float(found.error))
    slack = Fraction(0)
    rows = zip(
        form.coeff.flatten().tolist(),
        found.coeff.flatten().tolist(),
        bounds.lower.flatten().tolist(),
        bounds.upper.flatten().tolist(),
        strict=True,
    )
    for a, v, low, high in rows:
        ends = [Fraction(low), Fraction(high)]
        if low < 0 < high:
            ends.append(Fraction(0))
        slack += min(
            Fraction(a) * z * Fraction(above if z > 0 else below) - Fraction(v) * z for z in ends
        )
    # What the form owed before, it still owes.
    assert total + 3 <= slack
