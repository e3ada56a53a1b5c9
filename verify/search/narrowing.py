"""Narrowing: brackets of radii closed by complete searches, norm inf."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from verify.graph.ir import Graph
from verify.protocols import Judge
from verify.search.choosing import MOST_PROGRAMMED, neurons, splits_first
from verify.search.questions import BOXES_ONLY, RefuterFor, case_of, decide_question
from verify.search.stating import searchable
from verify.values.budget import LEAST_SHARE, Budget, Cancelled
from verify.values.property import Property
from verify.values.question import Question
from verify.values.result import Bracket, StopReason
from verify.values.semantics import EXECUTED, Semantics

MOST_PROBES = 60
"""Radii that one input is asked about."""
MOST_TINY = 100
"""Up to so many neurons, a mixed-integer program looks for the nearest counterexample."""
LADDER_SHARE = 0.8
"""Of the time that is left, for searches over activations where other searches may follow."""
PROGRAM_SHARE = 0.25
"""Of the time that is left, for it."""
UNDECIDED = "complete search did not decide radius {:.6g}: {}"


def closed(
    graph: Graph,
    judge: Judge,
    asked: Question,
    brackets: Sequence[Bracket],
    refuters: RefuterFor | None,
    budget: Budget,
    tolerance: float,
    semantics: Semantics = EXECUTED,
    watch: Callable[[list[Bracket]], None] | None = None,
) -> list[Bracket]:
    """Brackets narrowed by complete searches until their ends are within the tolerance.

    Args:
        graph, judge: the network and its runtime.
        asked: the inputs; `asked.eps` caps the search.
        brackets: one for each, sound.
        refuters: what looks for counterexamples.
        budget: for all of them.
        tolerance: relative to the attacked radius.
        semantics: what a proof is to hold for.
        watch: told each bracket whenever one of its ends has moved.
    """
    found = []
    for i, bracket in enumerate(brackets):
        if not math.isinf(asked.p):
            found.append(replace(bracket, reason=bracket.reason + BOXES_ONLY))
            continue
        one = asked.take(torch.tensor([i]))
        share = budget.share(1 / (len(brackets) - i))
        narrow = narrowed(graph, judge, one, bracket, refuters, share, tolerance, semantics, watch)
        found.append(narrow)
    return found


def programmed(
    graph: Graph,
    judge: Judge,
    asked: Question,
    bracket: Bracket,
    budget: Budget,
    tolerance: float,
    watch: Callable[[list[Bracket]], None] | None = None,
) -> Bracket:
    """A bracket whose attacked end is the nearest counterexample, where a program can find it."""
    high = min(bracket.attacked, float(asked.eps[0]))
    if bracket.attacked == 0 or high - bracket.certified <= tolerance * high:
        return bracket
    if neurons(graph) > MOST_TINY:
        return bracket
    from verify.search.milp_radius import METHOD, Nearest

    began = time.monotonic()
    one = asked.at(torch.tensor([high], dtype=torch.float64))
    stated = case_of(one, graph.output.size)
    searched, cases = searchable(graph, Property((stated,), graph.input.size, graph.output.size))
    point = None
    if cases is not None:
        point = Nearest()(searched, cases[0], one, judge, budget.share(PROGRAM_SHARE))
    bracket = replace(bracket, seconds=bracket.seconds + time.monotonic() - began)
    distance = math.inf if point is None else float(asked.distance(point[None])[0])
    if not distance < bracket.attacked:
        return bracket
    bracket = replace(bracket, attacked=distance, attack=METHOD, witness=point)
    if watch is not None:
        watch([bracket])
    return bracket


def climbed(
    graph: Graph,
    judge: Judge,
    asked: Question,
    bracket: Bracket,
    refuters: RefuterFor | None,
    budget: Budget,
    tolerance: float,
    semantics: Semantics,
    watch: Callable[[list[Bracket]], None] | None = None,
) -> Bracket:
    """A bracket narrowed by searches over activations, where those come first."""
    high = min(bracket.attacked, float(asked.eps[0]))
    if bracket.attacked == 0 or high - bracket.certified <= tolerance * high:
        return bracket
    if high < bracket.certified or not splits_first(graph, case_of(asked, graph.output.size)):
        return bracket
    from verify.search.activation_split import ActivationSplit
    from verify.search.ladder import Ladder

    # Programs follow where there are few neurons.
    share = LADDER_SHARE if neurons(graph) <= MOST_PROGRAMMED else 1.0
    how = ActivationSplit(rounding=semantics.rounding)
    part = budget.share(share)
    began = time.monotonic()
    ladder = Ladder(graph, judge, asked, refuters, part, tolerance, semantics, bracket, watch, how)
    try:
        found = ladder.run()
    except Cancelled:
        found = replace(ladder.bracket, reason=StopReason.OUT_OF_TIME.value)
    return replace(found, seconds=bracket.seconds + time.monotonic() - began)


def narrowed(
    graph: Graph,
    judge: Judge,
    asked: Question,
    bracket: Bracket,
    refuters: RefuterFor | None,
    budget: Budget,
    tolerance: float,
    semantics: Semantics,
    watch: Callable[[list[Bracket]], None] | None = None,
) -> Bracket:
    """One bracket: first just below the attacked radius, which is often exact, then by halves."""
    bracket = programmed(graph, judge, asked, bracket, budget, tolerance, watch)
    before = bracket
    bracket = climbed(graph, judge, asked, bracket, refuters, budget, tolerance, semantics, watch)
    tried = bracket is not before
    if budget.share(1.0).deadline - time.monotonic() <= LEAST_SHARE:
        return bracket
    cap = float(asked.eps[0])
    for probe in range(MOST_PROBES):
        if budget.cancelled():
            return replace(bracket, reason=StopReason.OUT_OF_TIME.value)
        low, high = bracket.certified, min(bracket.attacked, cap)
        if 0 < high < low:  # in real arithmetic only: a record refuses it of any other proof
            return replace(bracket, reason=StopReason.EXECUTED_OTHERWISE.value)
        if bracket.attacked == 0 or high - low <= tolerance * high:
            return replace(bracket, reason="" if bracket.attacked == 0 else bracket.reason)
        whole = math.isinf(bracket.attacked) and probe == 0
        eps = high if whole else (low + high) / 2
        if not whole and probe == 0 and not tried:
            eps = max(eps, high * (1 - tolerance / 2))
        question = asked.at(torch.tensor([eps], dtype=torch.float64))
        decision = decide_question(graph, judge, question, refuters, budget.share(0.5), semantics)
        bracket = replace(bracket, seconds=bracket.seconds + decision.seconds)
        if decision.witness is not None:
            distance = float(asked.distance(decision.witness[None])[0])
            bracket = replace(
                bracket, attacked=distance, attack=decision.method, witness=decision.witness
            )
        elif decision.verdict.proved:
            bracket = replace(
                bracket,
                certified=eps,
                margin=decision.bound,
                method=decision.method,
                reason="",
            )
        elif probe or budget.share(0.5).deadline == budget.deadline:
            return replace(bracket, reason=UNDECIDED.format(eps, decision.reason))
        if watch is not None:
            watch([bracket])
    return bracket
