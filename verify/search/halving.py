"""Halving: a search over neurons that is given ever smaller boxes, for few inputs and curved nodes.

Splits of Relus close no gap that a sigmoid or a product leaves; halves of the box close every gap,
but many of them are needed where neurons could be split instead. So a box is first left to the
inner search, for a while, and halved where that does not end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.crown import Crown
from verify.graph.ir import Graph
from verify.search.activation_split import ActivationSplit
from verify.search.outcome import Outcome, Progress, Refuter, Search, Watcher
from verify.search.recorder import BoxRecorder
from verify.search.rooting import Open, clause_margins, narrowed, opened
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32, Rounding
from verify.values.semantics import proof_by

FIRST_SECONDS = 20.0
"""At most, for the inner search on the whole box."""
MOST_SHARE = 0.1
"""Of the time left, for the inner search on one box."""


@dataclass(frozen=True, slots=True)
class Halving:
    """Boxes, each searched over its neurons, halved where that does not end.

    Attributes:
        inner: the search of one box; None for activation splitting.
        most: inputs, at most, whose halves are compared.
        rounding: which executions a proof is to hold for.
        recorder: is told of the halves, and makes the search of each box.
    """

    inner: Search | None = None
    most: int = 16
    rounding: Rounding = FLOAT32
    recorder: BoxRecorder | None = None

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """The verdict within the budget."""
        inner = self.inner or ActivationSplit(rounding=self.rounding)
        waiting = opened([case])
        least, domains = math.inf, 0
        method, verdict = "halving", proof_by(self.rounding)

        def unknown(reason: str) -> Outcome:
            bound = min([least, *(entry.bound for entry in waiting)])
            return Outcome(Verdict.UNKNOWN, method, reason=reason, bound=bound, domains=domains)

        try:
            while waiting:
                budget.check()
                entry = waiting[-1]
                share = budget.share(MOST_SHARE).within(FIRST_SECONDS)
                search = inner if self.recorder is None else self.recorder.inner(entry.case)
                found = search(graph, entry.case, refute, share)
                method = f"halves of the box, {found.method}"
                domains += found.domains
                if found.witness is not None:
                    return replace(found, method=method, domains=domains)
                waiting.pop()
                if found.verdict.proved:
                    least = min(least, found.bound)
                    # What holds in real arithmetic only somewhere holds no further as a whole.
                    verdict = verdict if found.verdict is Verdict.VERIFIED else found.verdict
                    continue
                budget.check()
                halves = self.halves(graph, entry, budget)
                if not halves:
                    waiting.append(entry)
                    return unknown("no input of a box is left to halve")
                if self.recorder is not None:
                    self.recorder.halved(entry.case, halves[0].case, halves[1].case)
                domains += len(halves)
                waiting.extend(halves)
                left, _ = narrowed(graph, Crown(rounding=self.rounding), halves, budget)
                waiting[-len(halves) :] = left
                if watch is not None:
                    bound = min((each.bound for each in waiting), default=least)
                    watch(Progress(domains, len(waiting), bound))
        except OutOfTime as error:
            return unknown(str(error))
        return Outcome(verdict, method, bound=least, domains=domains)

    def halves(self, graph: Graph, entry: Open, budget: Budget) -> list[Open]:
        """Both halves over the input for which plain bounds leave least open; raises OutOfTime."""
        case = entry.case
        middle = (case.lower / 2 + case.upper / 2).float().double()
        inside = (middle > case.lower) & (middle < case.upper)
        width = torch.where(inside, case.upper - case.lower, -math.inf)
        axes = width.topk(min(self.most, int(inside.sum()))).indices.tolist()
        pairs = [half for axis in axes for half in parts(case, axis, middle)]
        if not pairs:
            return []
        margins = clause_margins(graph, Crown(rounding=self.rounding), pairs, budget)
        short = margins.clamp(max=0.0).sum(dim=1).view(-1, 2).sum(dim=1)
        short = torch.where(torch.isfinite(short), short, -math.inf)
        best = int(short.argmax())
        return [Open(entry.number, half, entry.margins) for half in pairs[2 * best : 2 * best + 2]]


def parts(case: Case, axis: int, middle: Tensor) -> tuple[Case, Case]:
    """The two sides of a case, cut at the middle of one input, which belongs to both."""
    lower, upper = case.lower.clone(), case.upper.clone()
    upper[axis] = lower[axis] = middle[axis]
    return replace(case, upper=upper), replace(case, lower=lower)
