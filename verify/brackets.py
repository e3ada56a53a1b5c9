"""Brackets: an attacked radius from above, then many radii at once certified from below."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from verify.bounders.memo import Memo
from verify.errors import InternalError
from verify.graph.ir import Graph
from verify.protocols import Falsifier, Judge
from verify.search.strategy import Stage, Strategy, judged, prove
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question
from verify.values.result import Bracket, StopReason, Verdict

SMALLEST_SHARE = 2.0**-10
"""Below this share of the upper end, the certified radius counts as 0."""
MOST_RADII = 8
"""Radii per input and round of a cheap method."""
MOST_ROUNDS = 24
"""Rounds per method; the widths shrink by at least a quarter in each."""
Watch = Callable[[list[Bracket]], None]
"""Told what is known of a batch so far, each time that an end has moved."""

STRETCHES = (1.0, 1.0005, 1.005, 1.02, 1.1, 1.3)
"""How far along the segment a candidate is pushed until its own runtime confirms it."""


class Upper:
    """Attacked radii of a batch, with their witnesses; only replayed ones count."""

    def __init__(self, asked: Question, judge: Judge) -> None:
        """Start with the inputs themselves: a misclassified one has radius 0."""
        self.asked, self.judge = asked, judge
        wrong = judge.misclassified(asked.x, asked.labels)
        self.radius = torch.where(wrong, 0.0, math.inf).to(torch.float64)
        self.witness = asked.x.clone()
        self.attack = ["clean" if w else "" for w in wrong.tolist()]

    def offer(self, candidate: Tensor, attack: Sequence[str]) -> None:
        """Take over each candidate that is nearer, inside the range, and confirmed.

        The nearest candidates sit on the decision boundary, where two float32 programs may
        disagree; one that is not confirmed is pushed outward a little.
        """
        wanted = torch.tensor([bool(name) for name in attack])
        for stretch in STRETCHES:
            open_ = (wanted & (self.radius > 0)).nonzero().flatten()
            if not len(open_):
                return
            asked = self.asked.take(open_)
            moved = asked.x + stretch * (candidate[open_] - asked.x)
            moved = moved.clamp(float(asked.lower), float(asked.upper))
            distance = asked.distance(moved)
            nearer = distance < self.radius[open_]
            found = judged(moved, [attack[i] for i in open_.tolist()], asked, self.judge)
            for k, i in enumerate(open_.tolist()):
                if bool(found.confirmed[k]):
                    wanted[i] = False
                    if bool(nearer[k]):
                        self.radius[i] = distance[k]
                        self.witness[i] = found.witness[k]
                        self.attack[i] = attack[i]


class Lower:
    """Certified radii of a batch: the largest verified, and the least that was not."""

    def __init__(self, batch: int, ceiling: Tensor) -> None:
        """Nothing verified yet; `ceiling` caps the search, shape (batch,)."""
        self.radius = torch.zeros(batch, dtype=torch.float64)
        self.ceiling = ceiling.clone()
        self.margin = torch.full((batch,), math.nan, dtype=torch.float64)
        self.shortfall = self.margin.clone()
        self.method = [""] * batch

    def restart(self, ceiling: Tensor) -> None:
        """Open the search again for a tighter method: what the last one missed says nothing."""
        self.ceiling = ceiling.clone()
        self.shortfall.fill_(math.nan)

    def open(self, tolerance: float) -> Tensor:
        """Entries whose radius and ceiling are still apart."""
        wide = self.ceiling - self.radius > tolerance * self.ceiling
        hopeful = self.ceiling > 0
        return (wide & hopeful).nonzero().flatten()

    def grid(self, rows: Tensor, count: int) -> Tensor:
        """Radii between radius and ceiling, ascending; shape (len(rows), count).

        From 0 they fall geometrically, first from the ceiling itself; later they are evenly spaced.
        The first ceiling is the attacked radius: a method that proved it would give itself away.
        """
        low, high = self.radius[rows][:, None], self.ceiling[rows][:, None]
        steps = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1)
        even = low + (high - low) * steps
        base = 0.5 if count > 3 else 0.25
        untried = torch.isnan(self.shortfall[rows]) & (count > 1)
        powers = count + 1 - torch.arange(1, count + 1, dtype=torch.float64)
        falling = high * base ** (powers - untried[:, None].to(torch.float64))
        return torch.where(low > 0, even, falling)

    def pair(self, rows: Tensor) -> Tensor:
        """Two radii around where the margin should vanish, for methods too dear for a grid.

        Where a margin is known on both sides: around the secant's zero. Before that: a little above
        the radius, because a dear method rarely gains much over a cheap one, and far radii cost
        most. Shape (len(rows), 2).
        """
        low, high = self.radius[rows], self.ceiling[rows]
        gain, loss = self.margin[rows].clamp(min=0), self.shortfall[rows]
        zero = (gain / (gain - loss)).clamp(0.2, 0.8)
        around = torch.stack((zero - 0.1, zero + 0.1), dim=1)
        near = torch.stack((low * 1.12, low * 1.3), dim=1)
        near = torch.minimum(
            (near - low[:, None]) / (high - low)[:, None], around.new_tensor([0.5, 0.9])
        )
        share = torch.where(torch.isfinite(loss)[:, None], around, near)
        within = low[:, None] + (high - low)[:, None] * share
        return torch.where(low[:, None] > 0, within, self.grid(rows, 2))

    def learn(self, row: int, eps: Tensor, ok: Tensor, margin: Tensor, method: list[str]) -> None:
        """Take over one entry's verdicts on ascending radii."""
        good = ok.nonzero().flatten()
        if len(good):
            k = int(good[-1])
            self.radius[row] = eps[k]
            self.margin[row] = margin[k]
            self.method[row] = method[k]
        bad = (~ok & (eps > self.radius[row])).nonzero().flatten()
        if len(bad):
            self.ceiling[row] = eps[int(bad[0])]
            self.shortfall[row] = margin[int(bad[0])]


def climb(
    graph: Graph,
    asked: Question,
    lower: Lower,
    stage: Stage,
    budget: Budget,
    *,
    tolerance: float,
    at_once: int,
    memo: Memo,
    told: Callable[[], None],
) -> bool:
    """Raise certified radii by proving several per entry in one batch; False if time ran out."""
    for _ in range(MOST_ROUNDS):
        rows = lower.open(tolerance)
        if not len(rows):
            return True
        eps = lower.grid(rows, at_once) if stage.optimised is None else lower.pair(rows)
        count = eps.shape[1]
        owner = rows.repeat_interleave(count)
        few = asked.take(owner).at(eps.flatten())
        memo.turn(owner)
        proved = prove(graph, few, Strategy((stage,)), budget, memo)
        ok = proved.verified.view(eps.shape)
        margin = proved.margin.view(eps.shape)
        for k, row in enumerate(rows.tolist()):
            names = list(proved.method[k * count : (k + 1) * count])
            lower.learn(row, eps[k], ok[k], margin[k], names)
            if not bool(ok[k].any()) and eps[k, 0] < SMALLEST_SHARE * asked.eps[row]:
                lower.ceiling[row] = 0.0
        told()
        if proved.late:
            return False
    return True


def bracket(
    graph: Graph,
    judge: Judge,
    asked: Question,
    strategy: Strategy,
    *,
    predicted: Tensor,
    indices: Sequence[int],
    falsifier: Falsifier | None,
    budget: Budget,
    tolerance: float,
    at_once: int,
    watch: Watch | None = None,
) -> list[Bracket]:
    """Both ends for a batch of inputs; `asked.eps` caps the search.

    Cheap stages bracket the certified radius first, so that dear ones only search what is left.
    Whoever watches is told after each round.

    Raises:
        InternalError: if a certified radius reaches an attacked one, which would be a bug; not so
            in real arithmetic, where what is executed may differ by rounding.
    """
    started = time.monotonic()
    upper = Upper(asked, judge)
    if falsifier is not None:
        single = graph.to(torch.float32)
        proposal = falsifier.nearest(lambda x: run(single, x), asked)
        upper.offer(proposal.candidate, proposal.attack)
    lower = Lower(len(asked.x), torch.minimum(upper.radius, asked.eps))
    in_time = True

    def known() -> list[Bracket]:
        if strategy.verdict is Verdict.VERIFIED:
            refuse_crossed(lower, upper, indices)
        share = (time.monotonic() - started) / max(1, len(asked.x))
        found = brackets_of(lower, upper, asked, predicted, indices, share, in_time)
        return [replace(one, proof=strategy.verdict) for one in found]

    def told() -> None:
        if watch is not None:
            watch(known())

    told()
    memo = Memo(len(asked.x), budget.memory)
    for i, stage in enumerate(strategy.stages):
        last = i == len(strategy.stages) - 1
        lower.restart(torch.minimum(upper.radius, asked.eps))
        in_time = in_time and climb(
            graph,
            asked,
            lower,
            stage,
            budget,
            tolerance=tolerance if last else 2 * tolerance,
            at_once=min(at_once, MOST_RADII),
            memo=memo,
            told=told,
        )
    return known()


def refuse_crossed(lower: Lower, upper: Upper, indices: Sequence[int]) -> None:
    """Stop loudly if a certified radius reaches an attacked one."""
    crossed = (lower.radius >= upper.radius) & (lower.radius > 0)
    if bool(crossed.any()):
        i = int(crossed.nonzero()[0])
        raise InternalError(
            f"input {indices[i]}: certified radius {float(lower.radius[i])!r} reaches the attacked "
            f"one {float(upper.radius[i])!r}; this is a bug, please report it with the model"
        )


def brackets_of(
    lower: Lower,
    upper: Upper,
    asked: Question,
    predicted: Tensor,
    indices: Sequence[int],
    seconds: float,
    in_time: bool,
) -> list[Bracket]:
    """What both ends say of each entry."""
    return [
        Bracket(
            index=index,
            label=int(asked.labels[i]),
            predicted=int(predicted[i]),
            certified=float(lower.radius[i]),
            attacked=float(upper.radius[i]),
            margin=float(lower.margin[i]),
            p=asked.p,
            method=lower.method[i],
            attack=upper.attack[i],
            seconds=seconds,
            reason=why(lower, upper, i, in_time),
            witness=upper.witness[i] if upper.attack[i] else None,
        )
        for i, index in enumerate(indices)
    ]


def why(lower: Lower, upper: Upper, row: int, in_time: bool) -> str:
    """Why an entry's bracket is not what it could be, or an empty text."""
    if upper.radius[row] == 0:
        return "the input itself is misclassified: its radius is 0"
    if lower.radius[row] >= upper.radius[row]:
        return StopReason.EXECUTED_OTHERWISE.value
    if not in_time:
        return StopReason.OUT_OF_TIME.value
    if lower.radius[row] == 0:
        return StopReason.BOUNDS_TOO_LOOSE.value
    return ""
