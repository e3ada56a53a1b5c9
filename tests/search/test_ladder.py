"""Radii by trees that are carried on: covers against points, brackets against exact radii."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from tests.bounders.test_exact import NoOracle
from tests.nets import dense_net
from tests.search.test_activation_split import Judge, case_of, inside, part_way
from tests.search.test_strategy import GraphJudge
from tests.test_brackets import exact_radius
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.search import pacing
from verify.search.activation_split import ActivationSplit
from verify.search.cover import Cover, Part, carried
from verify.search.ladder import Ladder, extended, nearest_on_segment
from verify.search.narrowing import closed
from verify.search.questions import case_of as label_case
from verify.search.root import root_of
from verify.search.sign_tree import SignTree
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.question import Question, question
from verify.values.result import Bracket, Verdict
from verify.values.semantics import EXECUTED

MOST = 10**8


def tree_of(
    graph: Graph, case: Case, *, parts: list[Part] | None = None, checks: float = math.inf
) -> tuple[SignTree, Verdict]:
    """A search that remembers all, from given parts, cut off after some looks at the clock."""
    looks = iter(range(MOST))
    budget = Budget(cancelled=lambda: next(looks) >= checks)
    tree = SignTree(ActivationSplit(batch=4), graph, case, None, budget, None)
    tree.start, tree.cover = parts, Cover(most=MOST)
    try:
        return tree, tree.run().verdict
    except OutOfTime:
        return tree, Verdict.UNKNOWN


def uncovered(graph: Graph, case: Case, parts: list[Part], clauses: list[int]) -> int:
    """Points of the box that lie in no part of some clause."""
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(400, graph.input.size, generator=generator, dtype=torch.float64)
    x = case.lower + (case.upper - case.lower) * x
    missed = 0
    for clause in clauses:
        held = torch.zeros(len(x), dtype=torch.bool)
        for base, domains in parts:
            own = domains.take((domains.clause == clause).nonzero().flatten())
            if len(own):
                held |= inside(base, graph, own, x).any(dim=0)
        missed += int((~held).sum())
    return missed


@pytest.fixture(params=[False, True], ids=["one base", "many bases"])
def dividing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches that divide their bases never, and as often as they can."""
    if request.param:
        monkeypatch.setattr(pacing, "PATIENCE", 0.0)
        monkeypatch.setattr(pacing, "WORTH_WAITING", -1.0)


@pytest.mark.usefixtures("dividing")
@pytest.mark.parametrize("seed", [1])
def test_closed_parts_cover_any_larger_box(seed: int) -> None:
    """A proof's leaves leave out no point of a box four times as wide, from rung to rung."""
    graph = dense_net(seed, (4, 12, 12, 3))
    parts: list[Part] | None = None
    for eps in (0.1, 0.15, 0.12, 0.2):
        plain = case_of(graph, seed, eps)
        root = root_of(graph, plain, ActivationSplit().ascent, Budget())
        case = case_of(graph, seed, eps, shift=0.3 * eps - float(root.margin.min()))
        tree, verdict = tree_of(graph, case, parts=parts, checks=150)
        if not verdict.proved:
            continue
        assert tree.cover.leaves is not None
        assert tree.cover.whole()
        parts = tree.cover.leaves
        wide = case_of(graph, seed, 4 * eps)
        assert not uncovered(graph, wide, parts, list(range(len(case.clauses))))
    assert parts is not None


@pytest.mark.usefixtures("dividing")
@pytest.mark.parametrize("seed", [1])
def test_what_is_left_and_what_is_closed_is_all(seed: int) -> None:
    """Wherever a search is cut off, no point of its box is in neither."""
    graph = dense_net(seed, (4, 12, 12, 3))
    plain = case_of(graph, seed, 0.4)
    root = root_of(graph, plain, ActivationSplit().ascent, Budget())
    case = case_of(graph, seed, 0.4, shift=-0.3 * float(root.margin.min()))
    cut_off = 0
    for checks in range(100, 800, 25):
        if cut_off == 2:
            break
        tree, verdict = tree_of(graph, case, checks=checks)
        if tree.root is None or tree.cover.closed is None or verdict.proved:
            continue
        cut_off += 1
        assert tree.cover.leaves is not None
        parts = [*tree.left(), *tree.cover.leaves]
        assert not uncovered(graph, case, parts, list(range(len(case.clauses))))
        again, _ = tree_of(graph, case_of(graph, seed, 0.38), parts=tree.left(), checks=800)
        assert again.root is not None
    assert cut_off


def test_a_lost_part_is_noticed() -> None:
    """A tree whose shares do not add up is refused."""
    graph = dense_net(1, (4, 12, 12, 3))
    case = case_of(graph, 1, 0.1)
    tree, _ = tree_of(graph, case)
    assert tree.root is not None
    with pytest.raises(InternalError, match="lost"):
        Cover(closed=torch.zeros(2)).check(torch.ones(2), [])


def test_empty_parts_are_kept_for_larger_boxes() -> None:
    """A part that a small box contradicts is not in the search there, but beside it."""
    graph = dense_net(1, (4, 12, 12, 3))
    big, small = case_of(graph, 1, 1.0), case_of(graph, 1, 1e-4, shift=-100.0)
    left = [part_way(graph, big, 4)]
    root = root_of(graph, small, ActivationSplit().ascent, Budget())
    domains, gone = carried(left, root)
    empty = sum(len(some) for _, some in gone)
    assert empty > 0
    assert len(domains) + empty == len(left[0][1])
    assert not uncovered(graph, small, [(root, domains)], [0, 1])


@cache
def radius_case(seed: int) -> tuple[Graph, Question, float] | None:
    """A small net, an input, and its exact radius; None where the judge gives up."""
    graph = dense_net(seed, (3, 10, 10, 3))
    x = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed))
    label = GraphJudge(graph).predict(x)
    asked = question(x, label, 0.5, input_range=(0, 1))
    try:
        exact = exact_radius(graph, x[0], int(label[0]), 0.5)
    except NoOracle:
        return None
    return (graph, asked, exact) if 0.01 < exact < 0.49 else None


def blank(asked: Question, attacked: float = math.inf) -> Bracket:
    """Nothing is known but the attacked radius."""
    label = int(asked.labels[0])
    return Bracket(0, label, label, 0.0, attacked, math.nan, math.inf, "", "", 0.0)


class Steps(Ladder):
    """A ladder whose radii are given, as shares of the exact one."""

    radii: list[float]

    def next_radius(self, low: float, high: float) -> float:
        return self.radii.pop(0) if self.radii else super().next_radius(low, high)


@pytest.mark.usefixtures("dividing")
@pytest.mark.parametrize("seed", [1, 3])
def test_any_order_of_radii_ends_around_the_exact_one(seed: int) -> None:
    """Up, down, past the radius and back: never above the exact radius, and close to it."""
    known = radius_case(seed)
    assert known is not None
    graph, asked, exact = known
    judge = GraphJudge(graph)
    how = ActivationSplit(batch=4)
    ladder = Steps(graph, judge, asked, None, Budget(), 0.01, EXECUTED, blank(asked), how=how)
    ladder.radii = [share * exact for share in (0.3, 0.6, 1.3, 0.9, 0.97)]
    found = ladder.run()
    width = 0.5 / 2**12 + 1e-6
    assert found.certified <= exact + width
    assert found.attacked >= exact - width
    assert found.attacked - found.certified <= 0.01 * found.attacked
    assert found.verdict is Verdict.VERIFIED


def test_planes_of_open_parts_certify_no_more_than_the_exact_radius() -> None:
    """A search that was cut off at too large a radius still certifies some, and never too much."""
    best = 0.0
    for seed in (1, 3):
        known = radius_case(seed)
        assert known is not None
        graph, asked, exact = known
        for checks in range(75, 800, 25):
            if best > 0.9:
                break
            looks = iter(range(MOST))

            def cancelled(looks: Iterator[int] = looks, checks: int = checks) -> bool:
                return next(looks) >= checks

            how = ActivationSplit(batch=1)
            judge, start = GraphJudge(graph), blank(asked)
            ladder = Ladder(graph, judge, asked, None, Budget(), 0.01, EXECUTED, start, how=how)
            eps = min(0.5, 1.05 * exact)
            stated = label_case(asked.at(torch.tensor([eps], dtype=torch.float64)), 3)
            tree = SignTree(how, graph, stated, None, Budget(cancelled=cancelled), None)
            try:
                tree.run()
            except OutOfTime:
                if tree.cover.closed is None:
                    continue
                reached, margin = extended(ladder, eps, tree, tree.left())
                assert reached <= exact + 0.5 / 2**12 + 1e-6
                assert reached == 0 or margin > 0
                best = max(best, reached / exact)
    assert best > 0.9


def test_brackets_close_with_little_time() -> None:
    """`closed` keeps what is known when the time is over, and its ends hold."""
    known = radius_case(3)
    assert known is not None
    graph, asked, exact = known
    judge = GraphJudge(graph)
    for seconds in (0.05, 0.5, 5.0):
        (found,) = closed(graph, judge, asked, [blank(asked)], None, Budget().within(seconds), 0.01)
        assert found.certified <= exact + 1e-3
        assert found.attacked >= exact - 1e-3
    assert found.attacked - found.certified <= 0.01 * found.attacked


def test_a_witness_is_moved_towards_the_input() -> None:
    """The nearest misclassified point of the segment, still misclassified."""
    known = radius_case(3)
    assert known is not None
    graph, asked, _ = known
    judge = GraphJudge(graph)
    far = torch.rand(400, 3, generator=torch.Generator().manual_seed(1))
    wrong = judge.misclassified(far, asked.labels.expand(len(far))).nonzero().flatten()
    assert len(wrong)
    witness: Tensor = far[int(wrong[0])]
    near = nearest_on_segment(judge, asked, witness)
    assert bool(judge.misclassified(near[None], asked.labels)[0])
    assert float(asked.distance(near[None])[0]) <= float(asked.distance(witness[None])[0])


def test_case_and_judge_of_the_searches_agree() -> None:
    """The judge of these tests answers a case, as a refuter does."""
    graph = dense_net(0, (4, 8, 8, 3))
    case = case_of(graph, 0, 0.5, shift=-100.0)
    assert Judge(graph, case).check(case.lower[None].to(torch.float32)) is not None
