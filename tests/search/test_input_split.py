"""InputSplit: agrees with exact programming in both directions, and its tree covers the box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.bounders.test_exact import NoOracle, exact_minimum
from tests.nets import dense_net
from verify.bounders import planes
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder
from verify.search.frontier import Boxes, Frontier
from verify.search.input_split import TOO_FINE, InputSplit, Step
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.result import StopReason, Verdict


def halfspaces(rows: list[list[float]] | Tensor, const: list[float]) -> Halfspaces:
    coeff = torch.as_tensor(rows, dtype=torch.float64)
    return Halfspaces(
        coeff,
        torch.tensor(const, dtype=torch.float64),
        torch.zeros(len(const), dtype=torch.bool),
    )


def unconstrained(inputs: int) -> Halfspaces:
    return halfspaces(torch.zeros(0, inputs), [])


class Net:
    """A refuter that asks the net itself, in float32; it proposes nothing of its own."""

    def __init__(self, graph: Graph, case: Case) -> None:
        self.graph, self.case = graph.to(torch.float32), case

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        assert (lower >= self.case.lower).all()
        assert (upper <= self.case.upper).all()
        return None

    def check(self, candidates: Tensor) -> Tensor | None:
        x = candidates.to(torch.float32)
        inside = ((x >= self.case.lower) & (x <= self.case.upper)).all(dim=1)
        met = self.met(x) & inside & self.case.inputs.contain(x)
        return x[met][0].view(self.graph.input.shape) if bool(met.any()) else None

    def met(self, x: Tensor) -> Tensor:
        output = run(self.graph, x.view(-1, *self.graph.input.shape)).flatten(1)
        return torch.stack([clause.contain(output) for clause in self.case.clauses]).any(dim=0)


def searched(graph: Graph, case: Case, seconds: float = 20.0, **settings: object) -> object:
    search = InputSplit(workers=1, **settings)  # type: ignore[arg-type]
    return search(graph, case, Net(graph, case), Budget().within(seconds))


@pytest.mark.parametrize("seed", range(12))
def test_both_verdicts_agree_with_exact_programming(seed: int) -> None:
    """Below the exact minimum a threshold is out of reach; above it, a witness is found."""
    generator = np.random.default_rng(seed)
    sizes = (int(generator.integers(1, 4)), *generator.integers(3, 9, 2).tolist(), 2)
    graph = dense_net(seed, tuple(sizes))
    low = -torch.from_numpy(generator.random(sizes[0]))
    high = torch.from_numpy(generator.random(sizes[0]))
    row = np.array([1.0, -1.0])
    try:
        least = exact_minimum(graph, low.numpy(), high.numpy(), row)
    except NoOracle:
        pytest.skip("HiGHS gave up")
    for gap, verdict in ((-1e-3, Verdict.VERIFIED), (1e-3, Verdict.FALSIFIED)):
        clause = halfspaces([[1.0, -1.0]], [-(least + gap)])
        case = Case(low, high, unconstrained(sizes[0]), (clause,))
        found = searched(graph, case)
        assert found.verdict is verdict
        if verdict is Verdict.VERIFIED:
            assert found.bound > 0 or found.bound == float("inf")
        else:
            assert Net(graph, case).check(found.witness.view(1, -1)) is not None


def sampled(case: Case, count: int = 20000) -> Tensor:
    """Float32 points of a case's box, corners among them, that meet its linear constraints."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(count, len(case.lower), generator=generator, dtype=torch.float64)
    share[: count // 10] = share[: count // 10].round()
    x = (case.lower + share * (case.upper - case.lower)).to(torch.float32)
    return x[case.inputs.contain(x)]


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "TwoPiece"])
@pytest.mark.parametrize("seed", range(4))
def test_clauses_and_linear_inputs_agree_with_sampling(activation: str, seed: int) -> None:
    """Two clauses of two rows, inputs tied together: no sample contradicts a verdict."""
    graph = dense_net(seed, (3, 10, 10, 4), activation)
    generator = torch.Generator().manual_seed(seed)
    box = torch.ones(3, dtype=torch.float64)
    tied = halfspaces([[1.0, 1.0, -1.0], [-1.0, 0.5, 0.0]], [-0.2, -0.3])
    free = Case(-box, box, tied, ())
    output = run(graph.to(torch.float32), sampled(free)).double()
    verdicts = set()
    for offset in (-0.1, 0.05):
        clauses = []
        for pair in ((0, 1), (2, 3)):
            rows = torch.randn(2, 2, generator=generator, dtype=torch.float64) + torch.eye(2)
            coeff = torch.zeros(2, 4, dtype=torch.float64)
            coeff[:, list(pair)] = rows
            values = output @ coeff.T
            # Shifted so that both rows meet in a corner of what samples reach.
            worst = (values - values.quantile(0.3, dim=0)).amax(dim=1).min()
            shift = values.quantile(0.3, dim=0) + worst + offset
            clauses.append(halfspaces(coeff, (-shift).tolist()))
        case = replace(free, clauses=tuple(clauses))
        found = searched(graph, case)
        verdicts.add(found.verdict)
        met = Net(graph, case).met(sampled(case))
        if found.verdict is Verdict.VERIFIED:
            assert not met.any()
        else:
            assert found.verdict is Verdict.FALSIFIED
            assert Net(graph, case).check(found.witness.view(1, -1)) is not None
    assert Verdict.FALSIFIED in verdicts


def test_an_input_constraint_alone_can_decide() -> None:
    """The unsafe corner is cut off by the constraint; without it there is a witness."""
    builder = GraphBuilder("x", (2,))
    constants = {"weight": torch.eye(2).double(), "bias": torch.zeros(2).double()}
    graph = builder.build(builder.add("Gemm", ("x",), "y", tensors=constants))
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    clause = halfspaces([[-1.0, 0.0], [0.0, -1.0]], [0.8, 0.8])  # both outputs >= 0.8
    tied = halfspaces([[1.0, 1.0]], [-1.5])  # x + y <= 1.5
    assert searched(graph, Case(zero, one, tied, (clause,))).verdict is Verdict.VERIFIED
    free = Case(zero, one, unconstrained(2), (clause,))
    assert searched(graph, free).verdict is Verdict.FALSIFIED
    apart = halfspaces([[1.0, 1.0], [-1.0, -1.0]], [-0.5, 1.0])  # <= 0.5 and >= 1: no input at all
    every = halfspaces([[0.0, 0.0]], [-1.0])
    assert searched(graph, Case(zero, one, apart, (every,))).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("clip", [True, False])
def test_the_tree_covers_the_box(clip: bool) -> None:
    """Every input ends in a closed box, or was clipped away where the case cannot be met."""
    graph = dense_net(3, (2, 12, 12, 2))
    box = torch.ones(2, dtype=torch.float64)
    points = sampled(Case(-box, box, unconstrained(2), ()), 4000)
    output = run(graph, points.double())
    least = float((output[:, 0] - output[:, 1]).min())
    clause = halfspaces([[1.0, -1.0]], [-(least - 0.02)])
    steps: list[Step] = []
    case = Case(-box, box, unconstrained(2), (clause,))
    found = searched(graph, case, clip=clip, batch=3, on_step=steps.append)
    assert found.verdict is Verdict.VERIFIED
    assert found.domains > 10
    assert sum(len(step.boxes) for step in steps) == found.domains
    values = output[:, 0] - output[:, 1] - (least - 0.02)
    inside = {0: torch.ones(len(points), dtype=torch.bool)}
    settled = torch.zeros(len(points), dtype=torch.bool)
    for step in steps:
        for number, closed in zip(step.boxes.number.tolist(), step.closed.tolist(), strict=True):
            if closed:
                settled |= inside.pop(number)
        rest = step.boxes.number[~step.closed].tolist()
        for i, number in enumerate(rest):
            here = inside.pop(number)
            kept = ((points >= step.low[i]) & (points <= step.high[i])).all(dim=1)
            assert clip or bool((kept | ~here).all())
            assert (values[here & ~kept] > 0).all()
            settled |= here & ~kept
            below, above = step.children[i].tolist()
            x = points[:, step.axis[i]]
            inside[below] = here & kept & (x <= step.value[i])
            inside[above] = here & kept & (x >= step.value[i])
    assert not inside
    assert settled.all()


def test_inputs_without_width_are_not_split() -> None:
    """Only the second of three inputs varies."""
    graph = dense_net(5, (3, 8, 8, 1))
    low = torch.tensor([0.3, -1.0, 0.1]).double()
    high = torch.tensor([0.3, 1.0, 0.1]).double()
    x = low + torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None] * (high - low)
    least = float(run(graph, x).min())
    steps: list[Step] = []
    clause = halfspaces([[1.0]], [-(least - 1e-4)])
    case = Case(low, high, unconstrained(3), (clause,))
    assert searched(graph, case, on_step=steps.append).verdict is Verdict.VERIFIED
    axes = torch.cat([step.axis for step in steps])
    assert len(axes) > 0
    assert (axes == 1).all()


def identity() -> Graph:
    builder = GraphBuilder("x", (1,))
    constants = {"weight": torch.ones(1, 1).double(), "bias": torch.zeros(1).double()}
    name = builder.add("Gemm", ("x",), "y", tensors=constants)
    return builder.build(builder.add("Relu", (name,), "z"))


def test_what_rounding_hides_is_unknown_and_says_so() -> None:
    """y <= 0.5 on inputs from the next float32 above 0.5 on: no input, but within rounding."""
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    case = Case(
        torch.tensor([above]).double(),
        torch.tensor([0.75]).double(),
        unconstrained(1),
        (halfspaces([[1.0]], [-0.5]),),
    )
    found = searched(identity(), case)
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == TOO_FINE


def test_a_single_point_is_decided_either_way() -> None:
    """A box without width is bounded once; its only input is the witness."""
    point = torch.tensor([0.5]).double()
    unsafe = Case(point, point, unconstrained(1), (halfspaces([[1.0]], [-0.5]),))
    assert searched(identity(), unsafe).verdict is Verdict.FALSIFIED
    safe = Case(point, point, unconstrained(1), (halfspaces([[1.0]], [-0.4]),))
    assert searched(identity(), safe).verdict is Verdict.VERIFIED
    nothing = Case(point, point - 1, unconstrained(1), (halfspaces([[1.0]], [-0.5]),))
    assert searched(identity(), nothing).verdict is Verdict.VERIFIED
    assert searched(identity(), replace(safe, clauses=())).verdict is Verdict.VERIFIED
    empty = halfspaces(torch.zeros(0, 1), [])
    assert searched(identity(), replace(safe, clauses=(empty,))).verdict is Verdict.FALSIFIED


def test_time_runs_out_politely() -> None:
    """Unknown, with what is open as the bound."""
    graph = dense_net(0, (6, 40, 40, 1))
    box = torch.ones(6).double()
    case = Case(-10 * box, 10 * box, unconstrained(6), (halfspaces([[1.0]], [100.0]),))
    found = searched(graph, case, seconds=1e-9)
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == StopReason.OUT_OF_TIME.value


def test_a_bound_that_is_too_high_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with exact programming fails for a bounder that claims too much."""

    class Boastful(planes.CrownPlanes):
        def __call__(
            self,
            lower: Tensor,
            upper: Tensor,
            budget: Budget = Budget(),
            open_: Tensor | None = None,
        ) -> planes.Planes:
            found = planes.CrownPlanes.__call__(self, lower, upper, budget)
            return replace(found, least=found.least + 0.05)

    monkeypatch.setattr(
        "verify.search.input_split.bounder_for",
        lambda graph, goal, rounding, *root: Boastful(graph, goal, rounding),
    )
    graph = dense_net(1, (2, 6, 6, 2))
    low, high = -torch.ones(2).double(), torch.ones(2).double()
    least = exact_minimum(graph, low.numpy(), high.numpy(), np.array([1.0, -1.0]))
    clause = halfspaces([[1.0, -1.0]], [-(least + 1e-3)])
    case = Case(low, high, unconstrained(2), (clause,))
    assert searched(graph, case).verdict is Verdict.VERIFIED  # which is wrong


def test_the_frontier_loses_and_repeats_nothing() -> None:
    """Whatever goes in comes out once, the worst first while there is room."""
    generator = torch.Generator().manual_seed(0)

    def batch(first: int, count: int) -> Boxes:
        bound = torch.randn(count, generator=generator, dtype=torch.float64)
        ends = torch.zeros(count, 2)
        open_ = torch.ones(count, 1, dtype=torch.bool)
        return Boxes(ends, ends, bound, open_, torch.arange(first, first + count))

    for limit in (10, 10**6):
        frontier = Frontier(batch(0, 5), limit)
        seen: list[int] = []
        for turn in range(1, 60):
            frontier.put(batch(5 + 40 * (turn - 1), 40))
            before = frontier.bound
            taken = frontier.pop(37)
            seen += taken.number.tolist()
            if limit > 10:
                assert float(taken.bound.min()) == before
                assert float(taken.bound.max()) <= frontier.bound
        while len(frontier):
            seen += frontier.pop(1000).number.tolist()
        assert sorted(seen) == list(range(5 + 40 * 59))
