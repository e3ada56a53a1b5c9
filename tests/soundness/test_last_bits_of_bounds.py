"""Charges of bounds, searches and clipping that only the last bits need, beside rationals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.exact_minimum import least
from tests.contracts.samples import node as made
from tests.soundness.exactly import dotted, drawn, exact
from tests.soundness.test_exact_minima import case_of, narrow
from verify.bounders import lp
from verify.bounders.beta_proof import weighted_rows, with_cuts
from verify.bounders.crown import Crown
from verify.bounders.cuts import Cuts
from verify.bounders.dense import dense_planes
from verify.bounders.multipliers import ledger, through_kink
from verify.bounders.planes import CrownPlanes, Goal
from verify.bounders.point_climb import multipliers
from verify.bounders.point_parts import columns_of
from verify.bounders.safe_lp import Prover
from verify.bounders.staged_planes import staged_planes
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.readers.builder import GraphBuilder
from verify.search.clipping import clipped
from verify.search.halving import Halving, parts
from verify.search.outcome import Outcome
from verify.search.root import root_of
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import Box
from verify.values.result import Verdict
from verify.values.rounding import (
    REAL,
)
from verify.values.spec import Spec


@pytest.mark.parametrize("scale", [1.0, 1e9, 1e14])
@pytest.mark.parametrize("way", ["margin", "planes", "chain", "staged", "domains", "duals"])
def test_large_constants_of_a_row_are_rounded_and_paid(way: str, scale: float) -> None:
    """y - c with a c that dwarfs y: the bound is not above the exact minimum less c."""
    for seed in range(14):
        net, low, high, row = narrow(seed)
        graph = graph_of_mild(seed)
        del net
        const = float(drawn(seed, 1, scale=scale))
        box = Box(*(torch.from_numpy(s[:2]).double().view(1, 2) for s in (low, high)))
        minimum = least(mild_net(seed), low[:2], high[:2], row)[0] + Fraction(const)
        rows, offset = torch.tensor([row]).double(), torch.tensor([const], dtype=torch.float64)
        for bound in bounds_by(way, graph, box, rows, offset):
            assert not np.isfinite(float(bound)) or Fraction(bound) <= minimum, (seed, bound)


def mild_net(seed: int) -> Any:
    """Two inputs, four neurons, numbers near 1."""
    from benchmarks.provocative import Net, Step

    generator = np.random.default_rng([seed, 21])
    one, two = (generator.standard_normal(s).astype(np.float32) for s in ((4, 2), (2, 4)))
    biases = generator.standard_normal((2, 4)).astype(np.float32)
    return Net(
        "dense",
        (2,),
        (Step("affine", one, biases[0]), Step("Relu"), Step("affine", two, biases[1, :2])),
    )


def graph_of_mild(seed: int) -> Graph:
    """The same as a graph."""
    from benchmarks.provocative import graph_of

    return graph_of(mild_net(seed))


def bounds_by(way: str, graph: Graph, box: Box, rows: Tensor, offset: Tensor) -> list[Any]:
    """What one method says of rows·y + offset over a box; also the plane that it draws."""
    if way == "margin":
        spec = Spec(rows[None], offset[None])
        return [float(Crown(REAL)(Problem(graph, box, spec), Budget()).margin)]
    if way in ("planes", "chain", "staged"):
        goal = Goal(rows, offset, ((0,),))
        planes = {
            "planes": lambda: CrownPlanes(graph, goal, REAL),
            "chain": lambda: dense_planes(graph, goal, rounding=REAL),
            "staged": lambda: staged_planes(
                graph, goal, box.lower.flatten(), box.upper.flatten(), REAL
            ),
        }[way]()
        assert planes is not None
        found = planes(box.lower.flatten(1), box.upper.flatten(1), Budget())
        ends = zip(box.lower.flatten().tolist(), box.upper.flatten().tolist(), strict=True)
        at = [
            Fraction(c) * Fraction(low if c > 0 else high)
            for c, (low, high) in zip(found.coeff[0, 0].tolist(), ends, strict=True)
        ]
        lowest = sum(at, Fraction(float(found.const[0, 0])))
        return [float(found.least[0, 0]), lowest]
    case = case_of((graph, box, rows[0]))
    clause = replace(case.clauses[0], const=offset)
    if way == "domains":
        from verify.bounders.beta_proof import prove
        from verify.bounders.slopes import Ascent

        root = root_of(graph, replace(case, clauses=(clause,)), Ascent(2), Budget(), rounding=REAL)
        domains = root.domains if len(root.domains) else root.closed
        value = prove(root.proof, root.frame, root.clauses, domains, root.others)
        return [float(value), float(root.margin)]
    from verify.bounders.simplex import Simplex

    spec = Spec(rows[None], offset[None])
    bounds = Crown(REAL)(Problem(graph, box, spec), Budget()).bounds
    program = lp.program(graph, bounds, rows, offset, inputs=None)
    prover = Prover(ledger(graph, bounds, REAL), program, rows, offset, None)
    simplex = Simplex(program)
    solved = simplex.solve()
    assert solved.duals is not None
    return [float(prover.prove([simplex.whole], [solved.duals])[0])]


def prover_of(sizes: tuple[float, float], seed: int) -> Prover:
    """A prover with six output rows and five constraints that tie inputs, at some scales."""
    graph = graph_of_mild(seed)
    box = Box(torch.full((1, 2), -1.0).double(), torch.full((1, 2), 1.0).double())
    spec = Spec(torch.eye(2).double()[None], torch.zeros(1, 2).double())
    bounds = Crown(REAL)(Problem(graph, box, spec), Budget()).bounds
    rows, const = drawn(seed, 6, 2, scale=sizes[0]), drawn(seed + 1, 6, scale=sizes[1])
    ties = drawn(seed + 2, 5, 2, scale=sizes[0]), drawn(seed + 3, 5, scale=sizes[1])
    program = lp.program(graph, bounds, rows, const, inputs=ties)
    return Prover(ledger(graph, bounds, REAL), program, rows, const, ties)


SCALES = [(1.0, 1.0), (1.0, 1e-9), (1e-9, 1.0)]


@pytest.mark.parametrize("scales", SCALES)
def test_weighted_rows_are_paid_at_both_scales(scales: tuple[float, float]) -> None:
    """Of multipliers of programs and of clauses: never above the exact sum at a corner."""
    for seed in range(12):
        prover = prover_of(scales, seed)
        weights = drawn(seed + 9, 1, 6).abs()
        size = prover.ledger.sizes[prover.ledger.graph.output.name].flatten()
        clauses = SimpleNamespace(coeff=prover.coeff[None], const=prover.const[None])
        # A domain's weights are float32.
        single = weights.float()
        domains = Sized(weight=single, clause=torch.zeros(1).long())
        whole = Bounds(-size.view(1, 2), size.view(1, 2))
        output = prover.ledger.graph.output
        proof = SimpleNamespace(
            graph=prover.ledger.graph, bounds={output.name: whole}, rounding=REAL
        )
        forms = (
            (prover.start(weights), weights),
            (weighted_rows(cast(Any, proof), cast(Any, clauses), cast(Any, domains)), single),
        )
        for form, given in forms:
            assert form.error is not None
            for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                y = exact(size * torch.tensor(signs).double())
                claim = dotted(exact(form.coeff), y) + Fraction(float(form.const))
                claim -= Fraction(float(form.error))
                total = sum(
                    w * (dotted(exact(r), y) + c)
                    for w, r, c in zip(exact(given), prover.coeff, exact(prover.const), strict=True)
                )
                assert claim <= total


@pytest.mark.parametrize("scales", [*SCALES, (1e6, 1.0), (1e-9, 1e-9)])
@pytest.mark.parametrize("own", [(1.0, 0.3), (1e-9, 0.3e-9), (1.0, 0.0), (0.0, 1.0)])
def test_constraints_of_inputs_are_added_and_paid(
    scales: tuple[float, float], own: tuple[float, float]
) -> None:
    """Where they hold they only lower a form: by multipliers that are cut off at 0."""
    for seed in range(12):
        prover = prover_of(scales, seed)
        assert prover.inputs is not None
        rows, const = prover.inputs
        values = drawn(seed + 11, 1, prover.program.matrix.shape[0])
        zero = torch.zeros(1, 1, dtype=torch.float64)
        form = LinearForm(drawn(seed + 12, 1, 1, 2, scale=own[0]), zero + own[1], zero)
        found = prover.with_inputs(form, values)
        first = prover.program.first_input
        weights = (-values[0, first : first + 5]).clamp(min=0)
        assert found.error is not None
        for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            x = [Fraction(c) for c in corner]
            claim = dotted(exact(found.coeff), x) + Fraction(float(found.const))
            claim -= Fraction(float(found.error))
            total = dotted(exact(form.coeff), x) + Fraction(float(form.const))
            for w, r, c in zip(exact(weights), rows, exact(const), strict=True):
                total += w * (dotted(exact(r), x) + c)
            assert claim <= total


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.0, 1e-12), (1e-12, 1.0)])
def test_cuts_of_one_entry_pay_for_their_sums(scales: tuple[float, float]) -> None:
    """Five cuts of one column: the sum of -beta·s·(z - p), at both ends of z."""
    builder = GraphBuilder("x", (3,))
    graph = builder.build(builder.add("Sigmoid", ("x",), "s"))
    columns = columns_of(graph)
    for seed in range(30):
        reach = drawn(seed, 1, 3, scale=scales[0]).abs()
        walk = SimpleNamespace(graph=graph, rounding=REAL, bounds={"x": Bounds(-reach, reach)})
        cuts = Sized(
            slots=torch.tensor([[1, 1, 1, 1, 1]]),
            side=torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]]).double(),
            point=drawn(seed + 1, 1, 5, scale=scales[1]).float().double(),
            beta=(drawn(seed + 2, 1, 5).abs() * torch.logspace(-12, 0, 5)).float(),
        )
        found = multipliers(cast(Any, walk), columns, cast(Any, cuts))["x"]
        assert found.error is not None
        for sign in (1, -1):
            z = exact(sign * reach)
            claim = dotted(exact(found.coeff), z) + Fraction(float(found.const))
            claim -= Fraction(float(found.error))
            total = -sum(
                b * s * (z[1] - p)
                for b, s, p in zip(
                    exact(cuts.beta.double()), exact(cuts.side), exact(cuts.point), strict=True
                )
            )
            assert claim <= total


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e9, 1e-9), (1e-9, 1e9)])
def test_kinks_pay_at_both_scales(scales: tuple[float, float]) -> None:
    """A row over relu(z) beside any coefficient of z: the least of three points, summed."""
    size = 24
    node = made("Relu", (size,))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    for seed in range(40):
        low, high = -drawn(seed, 1, size).abs() - 0.01, drawn(seed + 1, 1, size).abs() + 0.01
        coeff = drawn(seed + 2, 1, 1, size, scale=scales[0])
        nu = drawn(seed + 3, 1, 1, size, scale=scales[1])
        found = through_kink(node, LinearForm(coeff, zero, zero), nu, Bounds(low, high))
        assert found.error is not None
        total = Fraction(0)
        for a, v, left, right in zip(*map(exact, (coeff, nu, low, high)), strict=True):
            total += min(-v * left, (a - v) * right, Fraction(0))
        assert Fraction(float(found.const)) - Fraction(float(found.error)) <= total


@pytest.mark.parametrize("count", [3, 40])
def test_constants_and_coefficients_of_cuts_pay_for_their_sums(count: int) -> None:
    """Multipliers times |P| - 1 and signs: at any values of v, beside rationals."""
    columns = 6
    for seed in range(20):
        sign = drawn(seed, count, columns).sign().float()
        sign[drawn(seed + 1, count, columns) > 0.5] = 0.0
        cuts = Cuts(sign, torch.zeros(count).long(), torch.ones(count).double())
        used = (drawn(seed + 2, 1, count).abs() * torch.logspace(-12, 0, count)).float()
        zero = torch.zeros(1, 1, dtype=torch.float64)
        domains = Sized(cut=used, clause=torch.zeros(1).long())
        frame = SimpleNamespace(cuts=cuts, layers=())
        form, _ = with_cuts(
            cast(Any, None), cast(Any, frame), cast(Any, domains), LinearForm(zero, zero, zero)
        )
        assert form.error is not None
        step = exact(used.double() @ sign.double())
        rates = exact(used)
        for v in ([Fraction(1)] * columns, [Fraction(int(s > 0)) for s in sign[0]]):
            claim = Fraction(float(form.const)) - Fraction(float(form.error)) + dotted(step, v)
            total = sum(
                (
                    rate * (dotted(exact(sign[k]), v) + 1 - int((sign[k] > 0).sum()))
                    for k, rate in enumerate(rates)
                ),
                Fraction(0),
            )
            assert claim <= total


class Sized(SimpleNamespace):
    """One domain, or part."""

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_clipped_boxes_keep_every_input_that_meets_the_row(scale: float) -> None:
    """In rationals: the largest and least x_i of the box with a·x + b <= 0."""
    for seed in range(60):
        count = 2 + seed % 6
        middle, radius = drawn(seed, 1, count), drawn(seed + 1, 1, count).abs()
        lower, upper = (middle - radius).float().double(), (middle + radius).float().double()
        a = drawn(seed + 2, 1, count)
        a[0, -1] *= scale
        # The edge of the first input is a float32 number, but for the rounding of b.
        place = torch.lerp(lower[0, 0], upper[0, 0], 0.4).float().double()
        least_of = exact(torch.minimum(a * lower, a * upper)[0, 1:])
        edge_of = sum(least_of, Fraction(float(a[0, 0])) * Fraction(float(place)))
        b = -torch.tensor([float(edge_of)], dtype=torch.float64)
        low, high = clipped(lower, upper, a, b)
        for i in range(count):
            rest = sum(
                min(c * left, c * right)
                for k, (c, left, right) in enumerate(
                    zip(exact(a), exact(lower), exact(upper), strict=True)
                )
                if k != i
            )
            own = Fraction(float(a[0, i]))
            edge = (-Fraction(float(b)) - rest) / own
            ends = Fraction(float(lower[0, i])), Fraction(float(upper[0, i]))
            most = min(ends[1], edge) if own > 0 else ends[1]
            least_ = max(ends[0], edge) if own < 0 else ends[0]
            assert Fraction(float(high[0, i])) >= most
            assert Fraction(float(low[0, i])) <= least_


def test_halves_are_both_searched_and_say_what_they_are_worth() -> None:
    """A search that proves only small boxes, in real arithmetic: the whole says so."""
    graph = graph_of_mild(1)
    box = Box(torch.tensor([[-1.0, -1.0]]).double(), torch.tensor([[1.0, 1.0]]).double())
    case = case_of((graph, box, torch.tensor([1.0, 0.0]).double()))
    rows = replace(case.clauses[0], const=torch.tensor([-1e3]).double())  # unsafe all over
    case = replace(case, clauses=(rows,))
    seen: list[tuple[list[float], list[float]]] = []

    def small(_graph: Graph, part: Any, *_: object) -> Outcome:
        if float((part.upper - part.lower).max()) > 1:
            return Outcome(Verdict.UNKNOWN, "small")
        seen.append((part.lower.tolist(), part.upper.tolist()))
        return Outcome(Verdict.VERIFIED_REAL, "small", bound=1.0)

    done = Halving(inner=small)(graph, case, None, Budget())
    assert done.verdict is Verdict.VERIFIED_REAL
    area = sum((b[0] - a[0]) * (b[1] - a[1]) for a, b in seen)
    assert area == 4.0
    left, right = parts(case, 0, torch.tensor([0.25, 0.0]).double())
    assert float(left.upper[0]) == float(right.lower[0]) == 0.25
