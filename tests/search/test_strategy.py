"""Deciding: who may falsify, what counts as verified, and what is said of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from tests.nets import dense_net
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Model, Proposal
from verify.readers.builder import GraphBuilder
from verify.recipes import METHODS, recipe
from verify.search.strategy import Stage, Strategy, decide, prove
from verify.traverse import run
from verify.values.budget import Budget, OutOfTime
from verify.values.enclosure import Enclosure
from verify.values.question import Question, question
from verify.values.result import Result, StopReason, Verdict
from verify.values.spec import SOFTMAX_GAP


@dataclass
class GraphJudge:
    """A judge that runs the graph itself, and remembers what it was shown."""

    graph: Graph
    seen: list[Tensor] = field(default_factory=list)

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(x)
        output = run(self.graph, x)
        return (output > output.gather(1, labels[:, None])).any(dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return run(self.graph, x).argmax(dim=1)


@dataclass(frozen=True)
class Stub:
    """A falsifier that proposes what it was told to."""

    candidate: Tensor
    name: str = "stub"

    def propose(self, model: Model, asked: Question) -> Proposal:
        return Proposal(self.candidate, (self.name,) * len(asked.x))

    def nearest(self, model: Model, asked: Question) -> Proposal:
        return self.propose(model, asked)


@dataclass(frozen=True)
class Fixed:
    """A bounder with given margins."""

    margin: tuple[float, ...]
    rigorous: bool = True

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Enclosure:
        margin = torch.tensor(self.margin, dtype=torch.float64)
        return Enclosure(margin.expand(problem.spec.const.shape), {}, self.rigorous)


@dataclass(frozen=True)
class Late:
    """A bounder that never gets anywhere."""

    def __call__(self, problem: Problem, budget: Budget) -> Enclosure:
        raise OutOfTime("late")


def difference(tail: str | None = None, classes: int = 2) -> Graph:
    """Logits (x, 0, ...): class 0 exactly where x > 0."""
    builder = GraphBuilder("x", (1,))
    weight = torch.zeros(classes, 1)
    weight[0] = 1.0
    head = {"weight": weight, "bias": torch.zeros(classes)}
    return builder.build(builder.add("Gemm", ("x",), "y", tensors=head), tail)


def decided(
    x: float | list[float],
    eps: float,
    *,
    falsifier: Stub | None = None,
    strategy: Strategy | None = None,
    label: int = 0,
    graph: Graph | None = None,
    judge: GraphJudge | None = None,
) -> list[Result]:
    """Verdicts on `difference` with input range [-10, 10]."""
    graph = difference() if graph is None else graph
    points = torch.tensor([x] if isinstance(x, float) else x)[:, None]
    asked = question(points, torch.full((len(points),), label), eps, input_range=(-10, 10))
    judge = GraphJudge(graph) if judge is None else judge
    return decide(
        graph,
        judge,
        asked,
        recipe("auto") if strategy is None else strategy,
        predicted=judge.predict(points),
        indices=[10 + i for i in range(len(points))],
        falsifier=falsifier,
    )


@pytest.mark.parametrize("method", METHODS)
def test_verdicts_are_those_of_the_formula(method: str) -> None:
    """x in [0.5 - eps, 0.5 + eps] keeps class 0 exactly for eps < 0.5."""
    (near,) = decided(0.5, 0.4, strategy=recipe(method))
    assert near.verdict is Verdict.VERIFIED
    assert near.margin == pytest.approx(0.1, abs=1e-4)
    assert near.margin <= 0.1
    assert near.index == 10
    (far,) = decided(0.5, 0.6, strategy=recipe(method))
    assert far.verdict is Verdict.UNKNOWN
    assert far.reason == StopReason.BOUNDS_TOO_LOOSE.value
    assert far.margin == pytest.approx(-0.1, abs=1e-4)


def test_a_margin_of_zero_verifies_nothing() -> None:
    """At the decision boundary two logits are equal: strictly more is needed."""
    (found,) = decided(0.5, 0.5)
    assert found.verdict is Verdict.UNKNOWN
    (exact,) = decided(0.5, 0.1, strategy=Strategy((Stage("zero", Fixed((0.0,))),)))
    assert exact.verdict is Verdict.UNKNOWN
    (least,) = decided(0.5, 0.1, strategy=Strategy((Stage("least", Fixed((5e-324,))),)))
    assert least.verdict is Verdict.VERIFIED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_margins_that_are_not_finite_verify_nothing(value: float) -> None:
    """NaN and both infinities fall on the unproved side, with a reason that says so."""
    (found,) = decided(0.5, 0.1, strategy=Strategy((Stage("odd", Fixed((value,))),)))
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == StopReason.NOT_FINITE.value


def test_one_nan_row_among_proved_rows_verifies_nothing() -> None:
    """The least row counts, and NaN is the least."""
    graph = difference(classes=4)
    strategy = Strategy((Stage("odd", Fixed((1.0, math.nan, 2.0))),))
    (found,) = decided(0.5, 0.1, graph=graph, strategy=strategy)
    assert found.verdict is Verdict.UNKNOWN


def test_rows_may_be_proved_by_different_stages() -> None:
    """Each stage shows another row; together they verify, and none of them alone."""
    graph = difference(classes=3)
    one, two = Stage("one", Fixed((1.0, -1.0))), Stage("two", Fixed((-1.0, 2.0)))
    assert decided(0.5, 0.1, graph=graph, strategy=Strategy((one,)))[0].verdict is Verdict.UNKNOWN
    (both,) = decided(0.5, 0.1, graph=graph, strategy=Strategy((one, two)))
    assert both.verdict is Verdict.VERIFIED
    assert both.margin == 1.0
    assert both.method == "two"


def test_stages_see_only_what_is_still_open() -> None:
    """The second stage gets the entries that the first did not verify."""
    sizes = []

    class Counting(Crown):
        def __call__(self, problem: Problem, budget: Budget = Budget()) -> Enclosure:
            sizes.append(len(problem.spec.const))
            return super().__call__(problem, budget)

    stages = (Stage("first", Interval()), Stage("second", Counting()))
    found = decided([0.5, 0.05, 0.3], 0.1, strategy=Strategy(stages))
    assert sizes == [1]
    verdicts = [r.verdict for r in found]
    assert verdicts == [Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.VERIFIED]


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_needs_a_gap(tail: str) -> None:
    """Half the gap is not enough after a float32 softmax, twice the gap is."""
    graph = difference(tail)
    for share, verdict in ((0.5, Verdict.UNKNOWN), (2.0, Verdict.VERIFIED)):
        strategy = Strategy((Stage("fixed", Fixed((share * SOFTMAX_GAP,))),))
        assert decided(0.5, 0.1, graph=graph, strategy=strategy)[0].verdict is verdict
        assert decided(0.5, 0.1, strategy=strategy)[0].verdict is Verdict.VERIFIED


@pytest.mark.parametrize("candidate", [-5.0, math.nan, math.inf, 11.0, 0.3])
def test_bad_candidates_never_falsify(candidate: float) -> None:
    """Outside the region, not a number, out of range, or classified well."""
    graph = difference()
    judge = GraphJudge(graph)
    stub = Stub(torch.tensor([[candidate]]))
    (found,) = decided(0.5, 0.4, falsifier=stub, graph=graph, judge=judge)
    assert found.verdict is Verdict.VERIFIED
    assert found.witness is None
    shown = torch.cat(judge.seen)
    assert bool((shown.isfinite() & (shown >= 0.1) & (shown <= 0.9)).all())


def test_a_good_candidate_falsifies() -> None:
    """Inside and misclassified: witness, distance and margin are its own."""
    (found,) = decided(0.5, 0.7, falsifier=Stub(torch.tensor([[-0.125]])))
    assert found.verdict is Verdict.FALSIFIED
    assert found.witness is not None
    assert float(found.witness) == -0.125
    assert found.distance == pytest.approx(0.625)
    assert found.distance >= 0.625
    assert found.margin == -0.125
    assert found.method == "stub"


def test_what_only_the_attack_believes_is_unknown() -> None:
    """A named candidate that the runtime does not confirm: the reason says what happened."""
    (found,) = decided(0.5, 0.6, falsifier=Stub(torch.tensor([[0.25]])))
    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == StopReason.NOT_REPLAYED.value


@pytest.mark.parametrize("candidate", [None, -9.0, math.nan, -0.5, 0.2])
def test_a_misclassified_input_is_falsified_at_distance_zero(candidate: float | None) -> None:
    """With or without a falsifier, and whatever that proposes."""
    stub = None if candidate is None else Stub(torch.tensor([[candidate]]))
    (found,) = decided(-0.25, 0.5, falsifier=stub)
    assert found.verdict is Verdict.FALSIFIED
    assert found.distance == 0.0
    assert found.method == "clean"
    assert found.margin == -0.25


def test_a_tie_is_neither_misclassified_nor_verified() -> None:
    """Equal logits: no other output is strictly above, and no margin is strictly positive."""
    (found,) = decided(0.0, 0.0)
    assert found.verdict is Verdict.UNKNOWN


def test_a_batch_keeps_its_order() -> None:
    """Falsified, verified and open entries each with their own index."""
    found = decided([-1.0, 0.5, 0.05, 2.0], 0.1)
    assert [r.index for r in found] == [10, 11, 12, 13]
    assert [r.verdict for r in found] == [
        Verdict.FALSIFIED,
        Verdict.VERIFIED,
        Verdict.UNKNOWN,
        Verdict.VERIFIED,
    ]


def test_running_late_keeps_what_is_known() -> None:
    """What the first stage verified stays; the rest is unknown for lack of time."""
    stages = (Stage("ibp", Interval()), Stage("late", Late()), Stage("after", Fixed((9.0,))))
    found = decided([0.5, 0.05], 0.1, strategy=Strategy(stages))
    assert [r.verdict for r in found] == [Verdict.VERIFIED, Verdict.UNKNOWN]
    assert found[1].reason == StopReason.OUT_OF_TIME.value
    assert found[1].margin == pytest.approx(-0.05, abs=1e-5)
    graph = difference()
    asked = question(torch.tensor([[0.05]]), torch.tensor([0]), 0.1)
    assert prove(graph, asked, Strategy(stages), Budget()).late


def test_a_stage_without_rounding_is_refused() -> None:
    """A verdict may not rest on plain arithmetic."""
    with pytest.raises(InternalError, match="rounding"):
        decided(0.5, 0.1, strategy=Strategy((Stage("plain", Fixed((1.0,), rigorous=False)),)))


def test_a_proof_that_the_runtime_contradicts_stops_loudly() -> None:
    """Verified around an input that the runtime gives another class: a bug, not a result."""

    class Contrary(GraphJudge):
        def predict(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), dtype=torch.long)

    with pytest.raises(InternalError, match="bug"):
        decided(0.5, 0.1, judge=Contrary(difference()))


def test_no_open_entries_is_no_work() -> None:
    """Everything falsified: no stage is called."""
    found = decided([-1.0, -2.0], 0.1, strategy=Strategy((Stage("late", Late()),)))
    assert all(r.verdict is Verdict.FALSIFIED for r in found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_verified_regions_hold_no_misclassified_sample(method: str, p: float) -> None:
    """Random nets and inputs: no sampled point of a verified region leaves its class."""
    graph = dense_net(8, (3, 10, 10, 3))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 3, generator=generator)
    judge = GraphJudge(graph)
    labels = judge.predict(x)
    eps = 0.3 * torch.rand(24, generator=generator)
    asked = question(x, labels, eps, p, input_range=(0, 1))
    proved = prove(graph, asked, recipe(method, iterations=4), Budget())
    assert bool(proved.verified.any())
    region = asked.take(proved.verified).region()
    directions = torch.randn(int(proved.verified.sum()), 400, 3, generator=generator).double()
    points = region.minimiser(directions)
    kept = labels[proved.verified].repeat_interleave(400)
    output = run(graph, points.flatten(0, 1))
    assert bool((output.argmax(dim=1) == kept).all())
