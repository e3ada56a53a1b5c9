"""Exact search by linear programs: verdicts in both directions, and leaves that must be sound."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import FEASIBILITY, NoOracle, least_worst
from tests.nets import FAMILIES, dense_net
from verify.bounders import lp, multipliers, safe_lp
from verify.bounders.crown import Crown
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Domain, Simplex
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.search.lp_clipping import clipper
from verify.search.lp_tree import half
from verify.search.milp import Milp
from verify.traverse import evaluate, run
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.region import Box
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32

MARGIN = 1e-3
"""How far the properties are from their edge; the charge for float32 is a hundredth of it."""


@dataclass
class Judge:
    """A refuter that only judges, in float64."""

    graph: Graph
    case: Case

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        return None

    def check(self, candidates: Tensor) -> Tensor | None:
        x = candidates.to(torch.float64)
        inside = ((x >= self.case.lower) & (x <= self.case.upper)).all(dim=1)
        inside &= self.case.inputs.contain(x)
        output = run(self.graph, x.view(-1, *self.graph.input.shape)).flatten(1)
        unsafe = torch.stack([clause.contain(output) for clause in self.case.clauses]).any(dim=0)
        met = (inside & unsafe).nonzero().flatten()
        return candidates[met[0]] if len(met) else None


def halfspaces(coeff: Tensor, const: Tensor) -> Halfspaces:
    return Halfspaces(coeff, const, torch.zeros(len(const), dtype=torch.bool))


def asked(seed: int, *, rows: int = 1, tied: bool = False, activation: str = "Relu"):  # type: ignore[no-untyped-def]
    """A net, a case of one clause, and the exact least of the clause's largest row."""
    generator = np.random.default_rng(seed)
    sizes = (int(generator.integers(2, 5)), *generator.integers(3, 8, 2).tolist(), 3)
    graph = dense_net(seed, tuple(sizes), activation)
    low = generator.random(sizes[0])
    high = low + generator.uniform(0.1, 1.5, sizes[0])
    coeff, const = generator.normal(size=(rows, 3)), generator.normal(size=rows)
    g = generator.normal(size=(2, sizes[0])) if tied else np.zeros((0, sizes[0]))
    h = -(g @ ((low + high) / 2)) - 0.05 * tied * np.ones(len(g))
    found, _ = least_worst(graph, low, high, coeff, const, (g, h))
    case = Case(
        torch.from_numpy(low),
        torch.from_numpy(high),
        halfspaces(torch.from_numpy(g), torch.from_numpy(h)),
        (halfspaces(torch.from_numpy(coeff), torch.from_numpy(const)),),
    )
    return graph, case, found


def shifted(case: Case, by: float) -> Case:
    """The case with every row raised."""
    (clause,) = case.clauses
    return replace(case, clauses=(replace(clause, const=clause.const + by),))


@pytest.mark.parametrize("activation", ["Relu", "TwoPiece", "Concave", "Abs"])
@pytest.mark.parametrize(("rows", "tied"), [(1, False), (2, False), (1, True), (2, True)])
def test_tiny_nets_are_always_decided(rows: int, tied: bool, activation: str) -> None:
    """A margin above the exact minimum is verified, one below it is falsified."""
    for seed in range(4):
        graph, case, least = asked(seed, rows=rows, tied=tied, activation=activation)
        if np.isinf(least):
            outcome = Milp()(graph, case, Judge(graph, case), Budget())
            assert outcome.verdict is Verdict.VERIFIED
            continue
        for by, verdict in ((MARGIN, Verdict.VERIFIED), (-MARGIN, Verdict.FALSIFIED)):
            here = shifted(case, by - least)
            outcome = Milp()(graph, here, Judge(graph, here), Budget())
            assert outcome.verdict is verdict, (seed, by, outcome)
            if verdict is Verdict.VERIFIED:
                assert 0 < outcome.bound <= MARGIN + FEASIBILITY


def test_several_clauses_are_decided_by_the_least() -> None:
    """All clauses verified is verified; one that can be met is falsified."""
    graph, case, least = asked(5)
    coeff = case.clauses[0].coeff
    raised = shifted(case, MARGIN - least).clauses[0]
    easy = halfspaces(coeff, raised.const + 1)
    met = halfspaces(coeff, raised.const - 2 * MARGIN)
    for clauses, verdict in (
        ((easy, raised), Verdict.VERIFIED),
        ((easy, raised, met), Verdict.FALSIFIED),
    ):
        here = replace(case, clauses=clauses)
        assert Milp()(graph, here, Judge(graph, here), Budget()).verdict is verdict


def pieces(graph: Graph, case: Case):  # type: ignore[no-untyped-def]
    """Program and prover of a case's one clause over CROWN's bounds."""
    (clause,) = case.clauses
    shape = (1, *graph.input.shape)
    box = Box(case.lower.view(shape), case.upper.view(shape))
    bounds = Crown()(Problem(graph, box, case.spec())).bounds
    inputs = (case.inputs.coeff, case.inputs.const)
    program = lp.program(graph, bounds, clause.coeff, clause.const, inputs=inputs)
    account = multipliers.ledger(graph, bounds, FLOAT32)
    return program, Prover(
        account, program, clause.coeff.view(-1, *graph.output.shape), clause.const, inputs
    )


@pytest.mark.parametrize("activation", ["Relu", "TwoPiece", "Concave"])
def test_any_dual_values_give_a_sound_bound(activation: str) -> None:
    """Random numbers, and the solver's own: never above the exact minimum; the solver's come near.

    The solver's bound is the exact minimum of the relaxation, and the rigorous one loses only what
    float32 is charged.
    """
    generator = np.random.default_rng(0)
    for seed in range(6):
        graph, case, least = asked(seed, rows=2, tied=seed % 2 == 1, activation=activation)
        program, prover = pieces(graph, case)
        simplex = Simplex(program)
        solved = simplex.solve()
        assert solved.duals is not None
        (proved,) = prover.prove([simplex.whole], [solved.duals]).tolist()
        assert proved <= least + FEASIBILITY
        assert solved.bound - 1e-4 <= proved <= solved.bound + FEASIBILITY
        noise = generator.normal(size=(20, len(solved.duals)))
        wild = [solved.duals + noise[i] * 0.1 ** (i % 5) for i in range(20)]
        total = prover.weights(torch.from_numpy(np.stack(wild))).sum(dim=1)
        values = prover.prove([simplex.whole] * 20, wild)
        assert bool((values <= total * least + FEASIBILITY * (1 + total)).all() or least < 0)
        even = torch.full((20, 2), 0.5, dtype=torch.float64)
        assert bool((prover.prove([simplex.whole] * 20, wild, even) <= least + FEASIBILITY).all())


def test_bounds_of_domains_hold_in_them() -> None:
    """Under random splits: no sampled input of the domain lies below the rigorous bound."""
    graph, case, _ = asked(3)
    program, prover = pieces(graph, case)
    simplex = Simplex(program)
    share = torch.rand(4000, len(case.lower), generator=torch.Generator().manual_seed(0))
    x = torch.lerp(case.lower, case.upper, share.double())
    values = evaluate(graph, x)
    margins = case.clauses[0].values(values[graph.output.name])[:, 0]
    z = torch.cat(
        [values[layer.source][:, layer.kept[layer.open_]] for layer in program.layers], dim=1
    ).numpy()
    generator = np.random.default_rng(1)
    seen = 0
    for _ in range(30):
        domain = simplex.whole
        for place in generator.choice(z.shape[1], 3, replace=False):
            domain = half(domain, int(place), int(generator.choice([-1, 1])))
        simplex.move(domain)
        solved = simplex.solve()
        inside = ((z >= domain.lower) & (z <= domain.upper)).all(axis=1)
        if solved.duals is None or solved.ray:
            assert not inside.any()
            continue
        (proved,) = prover.prove([domain], [solved.duals]).tolist()
        assert proved >= solved.bound - 1e-4
        if inside.any():
            seen += 1
            assert proved <= float(margins[torch.from_numpy(inside)].min())
    assert seen > 5


def test_a_wrong_program_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chords put too low make the solver claim too much; the rigorous bound stays sound."""
    right = lp.chord

    def low_chord(*ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope, offset = right(*ends)
        return slope, 0.3 * offset

    monkeypatch.setattr(lp, "chord", low_chord)
    fooled = 0
    for seed in range(8):
        graph, case, least = asked(seed)
        program, prover = pieces(graph, case)
        simplex = Simplex(program)
        solved = simplex.solve()
        if solved.duals is None or solved.ray:
            continue
        fooled += solved.bound > least + 1e-3
        assert float(prover.prove([simplex.whole], [solved.duals])[0]) <= least + FEASIBILITY
    assert fooled >= 2


def test_a_prover_that_forgets_the_kink_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the vertex at 0 the same comparison fails: it can."""
    source = multipliers.through_kink

    def careless(node, form, nu, bounds):  # type: ignore[no-untyped-def]
        found = source(node, form, nu, bounds)
        return replace(found, const=form.const)

    monkeypatch.setattr(multipliers, "through_kink", careless)
    worst = -np.inf
    for seed in range(6):
        graph, case, least = asked(seed)
        program, prover = pieces(graph, case)
        simplex = Simplex(program)
        solved = simplex.solve()
        assert solved.duals is not None
        worst = max(worst, float(prover.prove([simplex.whole], [solved.duals])[0]) - least)
    assert worst > 1e-3


def test_a_case_at_its_edge_is_left_open() -> None:
    """Where the exact minimum is 0, rounding decides: neither verdict may be given."""
    graph, case, least = asked(2)
    here = shifted(case, -least + 1e-9)
    outcome = Milp()(graph, here, Judge(graph, here), Budget().within(20))
    assert outcome.verdict is Verdict.UNKNOWN
    assert "rounding" in outcome.reason


@pytest.mark.parametrize("family", ["residual", "conv", "branched_conv", "preactivation"])
def test_convolutions_and_branches(family: str) -> None:
    """The relaxation is no looser than CROWN and never above a sample; verdicts agree with it."""
    graph = FAMILIES[family](1)
    generator = torch.Generator().manual_seed(3)
    centre = torch.rand(graph.input.size, generator=generator, dtype=torch.float64)
    coeff = torch.eye(graph.output.size, dtype=torch.float64)[:1]
    none = halfspaces(
        torch.zeros(0, graph.input.size, dtype=torch.float64), torch.zeros(0).double()
    )
    case = Case(centre - 0.1, centre + 0.1, none, (halfspaces(coeff, torch.zeros(1).double()),))
    program, prover = pieces(graph, case)
    simplex = Simplex(program)
    solved = simplex.solve()
    assert solved.duals is not None
    (proved,) = prover.prove([simplex.whole], [solved.duals]).tolist()
    shape = (1, *graph.input.shape)
    box = Box(case.lower.view(shape), case.upper.view(shape))
    crown = float(Crown()(Problem(graph, box, case.spec())).margin)
    x = torch.lerp(
        case.lower, case.upper, torch.rand(2000, len(centre), generator=generator).double()
    )
    sampled = float(run(graph, x.view(-1, *graph.input.shape)).flatten(1)[:, 0].min())
    assert crown - 1e-3 <= proved <= sampled
    below = shifted(case, 1e-3 - proved)
    outcome = Milp()(graph, below, Judge(graph, below), Budget())
    assert outcome.verdict is Verdict.VERIFIED
    above = shifted(case, -1e-3 - sampled)
    outcome = Milp()(graph, above, Judge(graph, above), Budget().within(20))
    assert outcome.verdict is Verdict.FALSIFIED


def test_the_deadline_is_kept() -> None:
    """No time: unknown, at once; with a little time, not much later than that."""
    graph = dense_net(1, (8, 60, 60, 3))
    case = Case(
        torch.zeros(8, dtype=torch.float64),
        torch.ones(8, dtype=torch.float64),
        halfspaces(torch.zeros(0, 8, dtype=torch.float64), torch.zeros(0).double()),
        (halfspaces(torch.tensor([[1.0, -1.0, 0.0]]).double(), torch.tensor([3.0]).double()),),
    )
    assert Milp()(graph, case, None, Budget(0.0)).verdict is Verdict.UNKNOWN
    started = time.monotonic()
    Milp()(graph, case, None, Budget().within(0.5))
    assert time.monotonic() - started < 5


def test_what_has_no_program_is_said() -> None:
    """A network with a sigmoid is left to others, and the reason names the node."""
    graph = dense_net(1, activation="Sigmoid")
    _, case, _ = asked(0)
    case = replace(case, lower=torch.zeros(4).double(), upper=torch.ones(4).double())
    outcome = Milp()(graph, case, None, Budget())
    assert outcome.verdict is Verdict.UNKNOWN
    assert "act0" in outcome.reason


def test_a_domain_without_inputs_is_closed_by_its_ray() -> None:
    """Splits that contradict the box are closed by a Farkas certificate, evaluated rigorously."""
    closed = 0
    for seed in range(10):
        graph, case, _ = asked(seed)
        program, prover = pieces(graph, case)
        simplex = Simplex(program)
        generator = np.random.default_rng(seed)
        for _ in range(10):
            domain: Domain = simplex.whole
            for place in range(len(simplex.z)):
                domain = half(domain, place, int(generator.choice([-1, 1])))
            simplex.move(domain)
            solved = simplex.solve()
            if not solved.ray:
                continue
            assert solved.duals is not None
            both = [solved.duals, -solved.duals]
            zero = torch.zeros(2, 1, dtype=torch.float64)
            closed += bool((prover.prove([domain] * 2, both, zero) > 0).any())
    assert closed > 20
    assert safe_lp.Prover is Prover


def test_clipping_keeps_every_unsafe_input() -> None:
    """No sampled input at or below the aim leaves its domain, and the bounds do get tighter."""
    tightened, met = 0, 0
    for seed in range(24):
        try:
            graph, case, least = asked(seed, rows=1 + seed % 2)
        except NoOracle:
            continue
        (clause,) = shifted(case, -least - 0.05).clauses
        case = replace(case, clauses=(clause,))
        program, prover = pieces(graph, case)
        clip = clipper(prover)
        simplex = Simplex(program)
        solved = simplex.solve()
        if clip is None:
            continue  # every sign next to the input is known
        assert solved.duals is not None
        (domain,) = clip([simplex.whole], [solved.duals], 0.0)
        assert domain is not None
        tightened += int((domain.lower > simplex.whole.lower).sum())
        tightened += int((domain.upper < simplex.whole.upper).sum())
        share = torch.rand(20000, len(case.lower), generator=torch.Generator().manual_seed(seed))
        x = torch.lerp(case.lower, case.upper, (1.4 * share.double() - 0.2).clamp(0, 1))
        values = evaluate(graph, x)
        z = torch.cat(
            [values[layer.source][:, layer.kept[layer.open_]] for layer in program.layers], dim=1
        ).numpy()
        unsafe = clause.contain(values[graph.output.name]).numpy()
        met += int(unsafe.sum())
        assert (z[unsafe] >= domain.lower).all()
        assert (z[unsafe] <= domain.upper).all()
        (empty,) = clip([simplex.whole], [solved.duals], solved.bound - 1.0)
        assert empty is None or bool((empty.lower >= domain.lower).all())
    assert tightened > 20
    assert met > 100


def test_a_plane_that_is_moved_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping by a plane put too high loses unsafe inputs: the comparison above can fail."""
    right = Prover.plane

    def high(self, *found):  # type: ignore[no-untyped-def]
        form = right(self, *found)
        return replace(form, const=form.const + 1.0)

    monkeypatch.setattr(Prover, "plane", high)
    with pytest.raises(AssertionError):
        test_clipping_keeps_every_unsafe_input()
