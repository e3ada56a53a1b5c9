"""Brackets: between an exact radius from both sides, within their budget, and never crossed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attacks import PGD
from tests.bounders.test_exact import NoOracle, exact_minimum
from tests.nets import dense_net
from tests.search.test_strategy import Fixed, GraphJudge, Late, Stub, difference
from verify.brackets import Upper, bracket
from verify.cli.falsifiers import AttackFalsifier, Bisection
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.protocols import Falsifier
from verify.recipes import recipe
from verify.search.strategy import Stage, Strategy, prove
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question, question
from verify.values.result import Bracket, StopReason, Verdict

ATTACK = AttackFalsifier(PGD(steps=15, restarts=2), Bisection(PGD(steps=15, restarts=1), "pgd"))


def bracketed(
    graph: Graph,
    asked: Question,
    strategy: Strategy,
    falsifier: Falsifier | None = None,
    *,
    tolerance: float = 0.01,
    budget: Budget = Budget(),
    judge: GraphJudge | None = None,
) -> list[Bracket]:
    """Brackets of a batch; the judge is the graph unless given."""
    judge = GraphJudge(graph) if judge is None else judge
    return bracket(
        graph,
        judge,
        asked,
        strategy,
        predicted=judge.predict(asked.x),
        indices=range(len(asked.x)),
        falsifier=falsifier,
        budget=budget,
        tolerance=tolerance,
        at_once=8,
    )


def one(x: float = 0.5, cap: float = 5.0) -> Question:
    """One input of `difference`, whose exact radius is x."""
    return question(torch.tensor([[x]]), torch.tensor([0]), cap, input_range=(-10, 10))


@pytest.mark.parametrize("method", ["ibp", "crown", "auto", "alpha-crown", "zonotope"])
@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_brackets_hold_the_radius_of_a_formula(method: str, p: float) -> None:
    """Class 0 exactly where x > 0: the radius of x is x in every norm."""
    points = torch.tensor([[0.5], [0.01], [3.0]])
    asked = question(points, torch.zeros(3, dtype=torch.long), 5.0, p, input_range=(-10, 10))
    for k, found in enumerate(bracketed(difference(), asked, recipe(method), ATTACK)):
        exact = float(points[k])
        assert found.certified < exact <= found.attacked
        assert found.certified >= 0.98 * exact
        assert found.attacked <= 1.02 * exact
        assert found.verdict is Verdict.VERIFIED
        assert found.margin > 0


def exact_radius(graph: Graph, x: Tensor, label: int, cap: float) -> float:
    """The largest eps whose box keeps every row positive, by bisection over MILPs."""
    point = x.double().numpy()

    def least(eps: float) -> float:
        found = math.inf
        for other in range(3):
            if other != label:
                row = [0.0] * 3
                row[label], row[other] = 1.0, -1.0
                low, high = (point - eps).clip(0, 1), (point + eps).clip(0, 1)
                found = min(found, exact_minimum(graph, low, high, torch.tensor(row).numpy()))
        return found

    low, high = 0.0, cap
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if least(middle) > 0 else (low, middle)
    return low


def test_brackets_hold_the_exact_radius() -> None:
    """certified <= exact <= attacked on small nets, with the exact one found by MILP."""
    compared = 0
    for seed in range(5):
        graph = dense_net(seed, (3, 6, 6, 3))
        x = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed))
        labels = GraphJudge(graph).predict(x)
        asked = question(x, labels, 0.5, input_range=(0, 1))
        found = bracketed(graph, asked, recipe("auto", iterations=8), ATTACK)
        for k, bracket_ in enumerate(found):
            try:
                exact = exact_radius(graph, x[k], int(labels[k]), 0.5)
            except NoOracle:
                continue
            compared += 1
            width = 0.5 / 2**12 + 1e-6
            assert bracket_.certified <= exact + width
            assert bracket_.attacked >= exact - width
            assert bracket_.certified < bracket_.attacked
    assert compared >= 6


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_a_certified_radius_is_verified_when_asked_for(p: float) -> None:
    """The same strategy verifies at the radius it certified, and witnesses are replayed hits."""
    graph = dense_net(12, (4, 12, 12, 3))
    judge = GraphJudge(graph)
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(1))
    asked = question(x, judge.predict(x), 1.0, p, input_range=(0, 1))
    strategy = recipe("crown")
    found = bracketed(graph, asked, strategy, ATTACK)
    radii = torch.tensor([b.certified for b in found], dtype=torch.float64)
    assert bool((radii > 0).all())
    assert bool(prove(graph, asked.at(radii), strategy, Budget()).verified.all())
    for k, bracket_ in enumerate(found):
        if bracket_.witness is None:
            assert math.isinf(bracket_.attacked)
            continue
        label = asked.labels[k : k + 1]
        assert bool(judge.misclassified(bracket_.witness[None], label))
        distance = float(asked.take(torch.tensor([k])).distance(bracket_.witness[None]))
        assert distance == bracket_.attacked


def test_slopes_from_other_radii_certify_only_what_holds() -> None:
    """alpha-CROWN's radii, found with remembered slopes, are verified again without them."""
    graph = dense_net(21, (4, 16, 16, 3))
    judge = GraphJudge(graph)
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(2))
    asked = question(x, judge.predict(x), 1.0, input_range=(0, 1))
    strategy = recipe("alpha-crown", iterations=10)
    found = bracketed(graph, asked, strategy)
    radii = torch.tensor([b.certified for b in found], dtype=torch.float64)
    again = prove(graph, asked.at(radii * 0.97), recipe("alpha-crown", iterations=40), Budget())
    assert bool(again.verified.all())


def test_a_misclassified_input_has_radius_zero() -> None:
    """Falsified at distance 0, with the reason, and nothing is certified."""
    (found,) = bracketed(difference(), one(-0.5), recipe("crown"), ATTACK)
    assert (found.certified, found.attacked) == (0.0, 0.0)
    assert found.verdict is Verdict.FALSIFIED
    assert found.attack == "clean"
    assert "misclassified" in found.reason
    assert math.isnan(found.margin)


@pytest.mark.parametrize("candidate", [math.nan, math.inf, 11.0, 0.4])
def test_bad_candidates_leave_the_upper_end_open(candidate: float) -> None:
    """Not a number, out of range or classified well, however far along the segment."""
    stub = Stub(torch.tensor([[candidate]]))
    asked = question(torch.tensor([[9.0]]), torch.tensor([0]), 2.0, input_range=(-10, 10))
    (found,) = bracketed(difference(), asked, recipe("crown"), stub)
    assert math.isinf(found.attacked)
    assert found.witness is None
    assert found.certified == pytest.approx(2.0, rel=0.02)
    assert found.certified <= 2.0


def test_a_candidate_on_the_boundary_is_pushed_until_it_counts() -> None:
    """Just on the wrong side of confirmation: a little further along the segment it is replayed."""
    stub = Stub(torch.tensor([[0.0001]]))
    (found,) = bracketed(difference(), one(), recipe("crown"), stub)
    assert 0.5 <= found.attacked <= 0.51
    assert found.witness is not None
    assert float(found.witness) < 0


def test_time_that_runs_out_keeps_what_was_certified() -> None:
    """The first stage's radius stays, with the reason why it is not larger."""
    graph = dense_net(12, (4, 12, 12, 3))
    x = torch.rand(1, 4, generator=torch.Generator().manual_seed(1))
    asked = question(x, GraphJudge(graph).predict(x), 1.0, input_range=(0, 1))
    (alone,) = bracketed(graph, asked, recipe("ibp"), ATTACK, tolerance=0.02)
    stages = (*recipe("ibp").stages, Stage("late", Late()))
    (found,) = bracketed(graph, asked, Strategy(stages), ATTACK)
    assert 0 < alone.certified < alone.attacked * 0.9
    assert found.certified == alone.certified
    assert found.reason == StopReason.OUT_OF_TIME.value
    (none,) = bracketed(difference(), one(), recipe("crown"), budget=Budget(deadline=0.0))
    assert none.certified == 0
    assert none.verdict is Verdict.UNKNOWN
    assert none.reason == StopReason.OUT_OF_TIME.value


def test_nothing_certified_says_why() -> None:
    """Bounds that never verify: radius 0, and the reason tells what to try."""
    stage = Strategy((Stage("never", Fixed((-1.0,))),))
    (found,) = bracketed(difference(), one(), stage)
    assert found.certified == 0
    assert found.reason == StopReason.BOUNDS_TOO_LOOSE.value


def test_a_bounder_that_lies_stops_loudly() -> None:
    """The first radius asked is the attacked one: whoever proves it is wrong."""
    lie = Strategy((Stage("lie", Fixed((1.0,))),))
    with pytest.raises(InternalError, match="bug"):
        bracketed(difference(), one(), lie, ATTACK)


def test_a_larger_tolerance_ends_sooner() -> None:
    """Fewer proofs are asked for, and the certified radius is within what was tolerated."""
    calls = []

    for tolerance in (0.3, 0.001):
        stage = recipe("crown").stages[0]
        count = [0]

        def counting(
            problem: object,
            budget: Budget,
            count: list[int] = count,
            stage: Stage = stage,
        ) -> object:
            count[0] += 1
            return stage.bounder(problem, budget)  # type: ignore[arg-type]

        strategy = Strategy((replace(stage, bounder=counting),))  # type: ignore[arg-type]
        (found,) = bracketed(difference(), one(), strategy, ATTACK, tolerance=tolerance)
        calls.append(count[0])
        assert found.certified >= (1 - 2 * tolerance) * 0.5
    assert calls[0] < calls[1]


def test_upper_ends_only_ever_shrink() -> None:
    """A farther candidate offered later changes nothing; a nearer one does."""
    graph = difference()
    upper = Upper(one(), GraphJudge(graph))
    for candidate, expected in ((-1.0, 1.5), (-2.0, 1.5), (-0.25, 0.75), (math.nan, 0.75)):
        upper.offer(torch.tensor([[candidate]]), ("stub",))
        assert float(upper.radius) == pytest.approx(expected, rel=1e-12)
    assert float(upper.witness) == -0.25


def test_outputs_of_a_witness_are_those_of_the_graph() -> None:
    """What the attack reports is misclassified in our own arithmetic too."""
    (found,) = bracketed(difference(), one(), recipe("crown"), ATTACK)
    assert found.witness is not None
    output = run(difference(), found.witness[None])
    assert float(output[0, 0]) < float(output[0, 1])
