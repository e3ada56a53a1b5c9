"""Strategy: attack first, then bounders from cheap to dear, each only on what is still open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.memo import Memo
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder, Falsifier, Judge
from verify.search.outcome import Diary
from verify.traverse import run
from verify.values.budget import Budget, OutOfTime
from verify.values.question import Question
from verify.values.result import Result, StopReason, Verdict
from verify.values.spec import classified_as


@dataclass(frozen=True, slots=True)
class Stage:
    """One bounder under its name on the command line.

    Attributes:
        name: as printed.
        bounder: the method.
        optimised: its slope optimisation, if it has one: such a stage is dear, and may start from
            the slopes of another radius.
    """

    name: str
    bounder: Bounder
    optimised: AlphaCrown | None = None


@dataclass(frozen=True, slots=True)
class Strategy:
    """Stages in order, and why they were chosen (printed with the results).

    Attributes:
        verdict: what a proof by these stages is worth: `VERIFIED`, or `VERIFIED_REAL`.
    """

    stages: tuple[Stage, ...]
    why: str = ""
    verdict: Verdict = Verdict.VERIFIED


@dataclass(frozen=True, slots=True, eq=False)
class Proved:
    """What the stages showed of a batch of questions.

    Attributes:
        margin: certified lower bound of the least row, (batch,), float64; -inf if none was found.
        verified: bool, (batch,): every row exceeds what is required.
        method: per entry, the stage behind the margin.
        late: whether time ran out.
    """

    margin: Tensor
    verified: Tensor
    method: tuple[str, ...]
    late: bool


def problem_of(graph: Graph, asked: Question) -> Problem:
    """The questions as one batched problem in the graph's arithmetic."""
    classes = graph.output.size
    spec = classified_as(asked.labels, classes, tail=graph.tail)
    return Problem(graph, asked.region(), spec)


def prove(
    graph: Graph,
    asked: Question,
    strategy: Strategy,
    budget: Budget,
    memo: Memo | None = None,
    diary: Diary | None = None,
) -> Proved:
    """Run the stages, each on the entries that none before it verified.

    Rows are kept apart: a row may be proved by one stage and its neighbour by another. A memo, if
    given, is for strategies of one stage: it has to be turned to the batch first. A diary keeps the
    slopes.
    """
    problem = problem_of(graph, asked)
    rows = torch.full(problem.spec.const.shape, -torch.inf, dtype=torch.float64)
    method = [""] * len(rows)
    open_ = torch.ones(len(rows), dtype=torch.bool)
    late = False
    for stage in strategy.stages:
        index = open_.nonzero().flatten()
        if not len(index):
            break
        try:
            if memo is not None and stage.optimised is not None:
                memo.narrow(index)
                enclosure = stage.optimised(problem.take(index), budget, memo)
            else:
                bounder = stage.bounder if diary is None else diary.bounder(stage.bounder)
                enclosure = bounder(problem.take(index), budget)
        except OutOfTime:
            late = True
            break
        if not enclosure.rigorous:
            raise InternalError(f"stage {stage.name!r} does not account for rounding")
        found = enclosure.margin.to(torch.float64)
        # NaN and infinity prove nothing.
        found = torch.where(torch.isfinite(found), found, -torch.inf)
        before = rows[index].amin(dim=1)
        rows[index] = torch.maximum(rows[index], found)
        after = rows[index].amin(dim=1)
        for i, better in zip(index.tolist(), (after > before).tolist(), strict=True):
            if better or not method[i]:
                method[i] = stage.name
        open_[index] = ~(after > problem.spec.required)
    return Proved(rows.amin(dim=1), ~open_, tuple(method), late)


@dataclass(frozen=True, slots=True, eq=False)
class Refuted:
    """What attack and replay showed of a batch of questions.

    Attributes:
        witness: candidates, shape (batch, *input), float32.
        confirmed: bool, (batch,): in its region and misclassified by the judge.
        doubtful: bool, (batch,): found by the attack, not confirmed by the judge.
        attack: per entry, the attack's name.
    """

    witness: Tensor
    confirmed: Tensor
    doubtful: Tensor
    attack: tuple[str, ...]


def refute(graph: Graph, asked: Question, falsifier: Falsifier, judge: Judge) -> Refuted:
    """Let the falsifier propose, and the judge decide; misclassified inputs need no attack."""
    single = graph.to(torch.float32)
    proposal = falsifier.propose(lambda x: run(single, x), asked)
    found = judged(proposal.candidate, proposal.attack, asked, judge)
    clean = judge.misclassified(asked.x, asked.labels)
    return Refuted(
        torch.where(clean.view(-1, *[1] * (asked.x.ndim - 1)), asked.x, found.witness),
        found.confirmed | clean,
        found.doubtful & ~clean,
        tuple("clean" if c else a for c, a in zip(clean.tolist(), found.attack, strict=True)),
    )


def judged(candidate: Tensor, attack: Sequence[str], asked: Question, judge: Judge) -> Refuted:
    """Keep the candidates that are in their region and that the judge finds misclassified."""
    candidate = candidate.detach().to(torch.float32)
    inside = asked.holds(candidate)
    # What lies outside is never shown to the runtime: it could even overflow there.
    safe = torch.where(inside.view(-1, *[1] * (candidate.ndim - 1)), candidate, asked.x)
    confirmed = inside & judge.misclassified(safe, asked.labels)
    found = torch.tensor([bool(name) for name in attack])
    return Refuted(safe, confirmed, found & ~confirmed, tuple(attack))


def decide(
    graph: Graph,
    judge: Judge,
    asked: Question,
    strategy: Strategy,
    *,
    predicted: Tensor,
    indices: Sequence[int],
    falsifier: Falsifier | None = None,
    budget: Budget = Budget(),
    diary: Diary | None = None,
) -> list[Result]:
    """Verdicts for a batch of questions.

    Args:
        graph: the network, float64.
        judge: the model's own runtime.
        asked: the questions.
        strategy: the stages.
        predicted: the model's answer at each input, (batch,).
        indices: number of each input in its source.
        falsifier: tried first; without one, only misclassified inputs themselves are falsified.
        budget: for the whole batch.
        diary: keeps the slopes, for certificates.
    """
    started = time.monotonic()
    if falsifier is None:
        refuted = judged(asked.x, [""] * len(asked.x), asked, judge)
        names = ["clean"] * len(asked.x)
    else:
        refuted = refute(graph, asked, falsifier, judge)
        names = list(refuted.attack)
    open_ = (~refuted.confirmed).nonzero().flatten()
    proved = prove(graph, asked.take(open_), strategy, budget, diary=diary)
    place = {int(i): k for k, i in enumerate(open_)}
    distance = asked.distance(refuted.witness)
    attained = problem_of(graph, asked).margins(refuted.witness.to(graph.dtype)).amin(dim=1)
    share = (time.monotonic() - started) / max(1, len(asked.x))
    results = []
    for i, index in enumerate(indices):
        fields = {
            "index": index,
            "label": int(asked.labels[i]),
            "predicted": int(predicted[i]),
            "eps": float(asked.eps[i]),
            "p": asked.p,
            "seconds": share,
        }
        if i not in place:
            results.append(
                Result(
                    **fields,  # type: ignore[arg-type]
                    verdict=Verdict.FALSIFIED,
                    margin=float(attained[i]),
                    method=names[i] or "clean",
                    witness=refuted.witness[i],
                    distance=float(distance[i]),
                )
            )
            continue
        k = place[i]
        verified = bool(proved.verified[k])
        # What holds in real arithmetic only may well be executed otherwise.
        executed = strategy.verdict is Verdict.VERIFIED
        if verified and executed and predicted[i] != asked.labels[i]:
            raise InternalError(
                f"input {index}: label {int(asked.labels[i])} was verified around it, but the "
                f"model's own runtime says {int(predicted[i])} of the input itself; this is a bug, "
                "please report it with the model"
            )
        reason = "" if verified else why_open(proved, k, bool(refuted.doubtful[i]))
        results.append(
            Result(
                **fields,  # type: ignore[arg-type]
                verdict=strategy.verdict if verified else Verdict.UNKNOWN,
                margin=float(proved.margin[k]),
                method=proved.method[k],
                reason=reason,
            )
        )
    return results


def why_open(proved: Proved, row: int, doubtful: bool) -> str:
    """The stop reason of one entry that is neither verified nor falsified."""
    if proved.late:
        return StopReason.OUT_OF_TIME.value
    if doubtful:
        return StopReason.NOT_REPLAYED.value
    if not bool(torch.isfinite(proved.margin[row])):
        return StopReason.NOT_FINITE.value
    return StopReason.BOUNDS_TOO_LOOSE.value
