"""Complete search for questions: does an input keep its label within a radius of the norm inf?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.graph.ir import Graph
from verify.protocols import Judge
from verify.search.complete import Decision, decide_property
from verify.search.outcome import Diary, Progress, Refuter
from verify.search.replaying import Replaying
from verify.values.budget import Budget, Cancelled
from verify.values.property import Case, Halfspaces, Property
from verify.values.question import Question
from verify.values.result import Result, StopReason, Verdict
from verify.values.semantics import EXECUTED, Semantics

RefuterFor = Callable[[Graph, Replaying, Case, Budget], Refuter]
"""Makes what looks for counterexamples; see `verify.cli.refuting`."""

BOXES_ONLY = "; complete search is for the norm inf only"


@dataclass(frozen=True, slots=True, eq=False)
class LabelReplay:
    """Says whether inputs answer one question with no; a `verify.search.outcome.Refuter` too.

    Attributes:
        case: the question as a case.
        asked: the question, a batch of one.
        judge: the model's own runtime.
    """

    case: Case
    asked: Question
    judge: Judge

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """The middle of a box, if it is a counterexample."""
        few = max(1, round(4 * effort))
        return self.check((lower[:few] + upper[:few]) / 2)

    def check(self, candidates: Tensor) -> Tensor | None:
        """The first of the candidates (batch, inputs) that is misclassified; (*input), or None."""
        within = self.case.witnesses()
        flat = candidates.detach().flatten(1).to(torch.float32)
        flat = torch.minimum(torch.maximum(flat, within.lower), within.upper)
        points = flat.view(-1, *self.asked.x.shape[1:])
        inside = self.asked.take(torch.zeros(len(points), dtype=torch.int64)).holds(points)
        points = points[inside]
        if not len(points):
            return None
        labels = self.asked.labels.expand(len(points))
        wrong = self.judge.misclassified(points, labels).nonzero().flatten()
        return points[int(wrong[0])] if len(wrong) else None


def case_of(asked: Question, classes: int) -> Case:
    """The case of one question: the box, and for each other class that it is at least the label."""
    box = asked.region().bounds()
    label = int(asked.labels[0])
    every = torch.eye(classes, dtype=torch.float64)
    clauses = tuple(
        Halfspaces(
            (every[label] - every[other])[None],
            torch.zeros(1, dtype=torch.float64),
            torch.zeros(1, dtype=torch.bool),
        )
        for other in range(classes)
        if other != label
    )
    inputs = box.lower[0].numel()
    none = torch.zeros(0, dtype=torch.float64)
    free = Halfspaces(none.view(0, 1).expand(0, inputs), none, none.to(torch.bool))
    return Case(box.lower[0].flatten(), box.upper[0].flatten(), free, clauses)


def decide_question(
    graph: Graph,
    judge: Judge,
    asked: Question,
    refuters: RefuterFor | None,
    budget: Budget,
    semantics: Semantics = EXECUTED,
    diary: Diary | None = None,
) -> Decision:
    """The verdict on one question of the norm inf, a batch of one."""
    case = case_of(asked, graph.output.size)
    replay = LabelReplay(case, asked, judge)

    def refuter_for(number: int, narrowed: Case) -> Refuter:
        return replay if refuters is None else refuters(graph, replay, narrowed, budget)

    def noticed(progress: Progress) -> None:
        if budget.cancelled():
            raise Cancelled

    stated = Property((case,), graph.input.size, graph.output.size)
    try:
        return decide_property(graph, stated, refuter_for, budget, noticed, semantics, diary)
    except Cancelled:
        return Decision(Verdict.UNKNOWN, "", reason=StopReason.OUT_OF_TIME.value, late=True)


def completed(
    graph: Graph,
    judge: Judge,
    asked: Question,
    results: Sequence[Result],
    refuters: RefuterFor | None,
    budget: Budget,
    semantics: Semantics = EXECUTED,
    diary: Diary | None = None,
) -> list[Result]:
    """The results, with the unknown ones searched to the end or to the deadline."""
    found = []
    waiting = sum(result.verdict is Verdict.UNKNOWN for result in results)
    for i, result in enumerate(results):
        if result.verdict is not Verdict.UNKNOWN:
            found.append(result)
            continue
        if not math.isinf(asked.p):
            found.append(replace(result, reason=result.reason + BOXES_ONLY))
            continue
        one = asked.take(torch.tensor([i]))
        decision = decide_question(
            graph, judge, one, refuters, budget.share(1 / waiting), semantics, diary
        )
        waiting -= 1
        found.append(merged(result, decision, one))
    return found


def merged(result: Result, decision: Decision, asked: Question) -> Result:
    """A result that was unknown, with what the search made of it."""
    seconds = result.seconds + decision.seconds
    if decision.verdict is Verdict.UNKNOWN:
        reason = decision.reason or result.reason
        return replace(result, seconds=seconds, reason=reason)
    if decision.witness is None:
        return replace(
            result,
            verdict=decision.verdict,
            margin=decision.bound,
            method=decision.method,
            seconds=seconds,
            reason="",
        )
    return replace(
        result,
        verdict=Verdict.FALSIFIED,
        margin=math.nan,
        method=decision.method,
        seconds=seconds,
        reason="",
        witness=decision.witness,
        distance=float(asked.distance(decision.witness[None])[0]),
    )
