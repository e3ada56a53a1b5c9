"""UnsafeSearch: an input of some box whose outputs meet one of several conjunctions of halfspaces.

What VNN-LIB asks for; classes, labels and balls are special cases. Samples come first, as they are
cheap and, where inputs are few, often enough; then projected gradient descent, all clauses and all
starts side by side. Where gradients vanish (signs, arg max), mutations take its place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.errors import AttackInputError

Model = Callable[[Tensor], Tensor]
"""(batch, inputs) -> (batch, outputs), both flat; differentiable in torch."""
Confirm = Callable[[Tensor], "Tensor | None"]
"""The first of some candidates (batch, inputs) that counts, or None."""

MARGIN = 0.01
"""How far beyond a halfspace's border the descent aims, in units of the row's usual size: what is
barely inside in one arithmetic is outside in another."""
FIRST_STEP, LAST_STEP = 0.4, 0.01
"""Of the descent, in half widths of the box; a geometric schedule in between."""
MOST_REFUSED = 40
"""Candidates that the confirmation may turn down in one call: more would cost more than they may
bring."""
MOST_LANES, LEAST_LANES = 512, 16
DESCENT_SHARE = 0.5
"""Of the time left, for one round of descents: on large networks fewer points go all their steps,
rather than many some of them."""
FORWARD_AND_BACK = 3.0
"""What a step costs, in forward passes."""
DECAY, SQUARE_DECAY = 0.9, 0.99
"""Adam's running means."""


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """Outputs looked for: all rows of any one clause, each coeff·y + const <= 0.

    Attributes:
        coeff: float32, shape (row, outputs).
        const: float32, shape (row,).
        clause: int64, shape (row,): the number of each row's clause, from 0 without gaps.
    """

    coeff: Tensor
    const: Tensor
    clause: Tensor

    def __post_init__(self) -> None:
        """Raise where the parts do not fit each other."""
        if not len(self.coeff) == len(self.const) == len(self.clause) > 0:
            raise AttackInputError("a goal needs rows, each with coefficients, constant and clause")

    @property
    def clauses(self) -> int:
        """How many there are."""
        return int(self.clause.max()) + 1

    def rows(self, outputs: Tensor) -> Tensor:
        """Values of all rows, (batch, row); <= 0 is what is looked for; NaN counts as far off."""
        values = outputs.flatten(1) @ self.coeff.T + self.const
        return torch.where(torch.isnan(values), math.inf, values)

    def worst(self, rows: Tensor) -> Tensor:
        """The largest row of each clause, (batch, clause)."""
        start = rows.new_full((len(rows), self.clauses), -math.inf)
        return start.scatter_reduce(1, self.clause.expand_as(rows), rows, "amax")


@dataclass(frozen=True, slots=True)
class UnsafeSearch:
    """A search over boxes.

    Attributes:
        samples: random points before any gradient, over all boxes together.
        restarts: starting points for each clause.
        steps: of the descent from each.
        seconds: after which an effort of 1 ends, whatever is left to do.
        seed: of the random points.

    Source:
        The loss (hinge sum of the rows of a clause), the step rule (Adam's direction) and the
        starts (uniform, and diversified by random output directions) as in alpha-beta-CROWN's
        attack; diversified starts: Tashiro et al. 2020, arXiv:2003.06878.
    """

    samples: int = 8192
    restarts: int = 30
    steps: int = 100
    seconds: float = 5.0
    seed: int = 0

    def __call__(
        self,
        model: Model,
        lower: Tensor,
        upper: Tensor,
        goal: Goal,
        confirm: Confirm,
        *,
        effort: float = 1.0,
        deadline: float = math.inf,
    ) -> Tensor | None:
        """What was found and confirmed, or None.

        Args:
            model: what is attacked, in float32.
            lower, upper: float32 boxes, shape (box, inputs), likeliest first.
            goal: what its outputs are to meet.
            confirm: decides which candidates count.
            effort: scales samples, restarts and seconds; below 0.1 the steps as well.
            deadline: on the clock of `time.monotonic`.
        """
        if not lower.shape == upper.shape or not bool((lower <= upper).all()):
            raise AttackInputError("boxes need lower <= upper, of one shape (box, inputs)")
        hunt = Hunt(
            model,
            lower,
            upper,
            goal,
            confirm,
            min(deadline, time.monotonic() + self.seconds * max(effort, 0.005)),
            torch.Generator().manual_seed(self.seed),
        )
        count = max(2 * len(lower), round(self.samples * effort))
        found = hunt.sample(count)
        steps = self.steps if effort >= 0.1 else max(6, round(self.steps * 10 * effort))
        starts = max(min(1, self.restarts), round(self.restarts * effort))
        wanted = starts * goal.clauses * len(lower)
        while found is None and wanted > 0 and not hunt.over():
            lanes = hunt.lanes(min(wanted, hunt.room(steps)))
            wanted -= len(lanes.clause)
            found = hunt.descend(lanes, steps)
            if found is None and hunt.flat:
                found = hunt.mutate(lanes, 20 * steps)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """Points on their way, each in a box and towards a clause.

    Attributes:
        points: shape (lane, inputs).
        box, clause: int64, shape (lane,).
    """

    points: Tensor
    box: Tensor
    clause: Tensor


@dataclass(eq=False)
class Hunt:
    """One call: the boxes, what was seen of them, and when to stop."""

    model: Model
    lower: Tensor
    upper: Tensor
    goal: Goal
    confirm: Confirm
    deadline: float
    random: torch.Generator
    scale: Tensor = field(init=False)
    best: Lanes | None = None
    refused: int = 0
    flat: bool = False
    rounds: int = 0
    pace: float = 0.0
    order: Tensor | None = None

    def room(self, steps: int) -> int:
        """How many descents of so many steps there is time for at once."""
        each = FORWARD_AND_BACK * steps * self.pace
        left = DESCENT_SHARE * max(0.0, self.deadline - time.monotonic())
        return MOST_LANES if left >= MOST_LANES * each else max(LEAST_LANES, int(left / each))

    def over(self) -> bool:
        """Whether to stop."""
        return time.monotonic() > self.deadline or self.refused >= MOST_REFUSED

    def uniform(self, box: Tensor) -> Tensor:
        """A random point of each named box; every other one near a corner."""
        share = torch.rand(len(box), self.lower.shape[1], generator=self.random)
        corner = (share - 0.5).sign() * 0.5 + 0.5
        take = torch.arange(len(box))[:, None] % 2 == 1
        return self.within(box, torch.where(take, corner, share))

    def within(self, box: Tensor, share: Tensor) -> Tensor:
        """The point at some share of the way from the lower to the upper end, inside in float32."""
        low, high = self.lower[box], self.upper[box]
        return torch.minimum(torch.maximum(low + share * (high - low), low), high)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor | None:
        """Middles and random points; remembers the best for each clause."""
        box = torch.arange(count) % len(self.lower)
        kept_points, kept_rows, kept_box = [], [], []
        size, began, done = min(count, 256), time.monotonic(), 0
        for start in range(0, count, size):
            part = box[start : start + size]
            points = self.uniform(part)
            if start == 0:
                middles = min(len(self.lower), len(part))
                points[:middles] = self.within(part[:middles], torch.tensor(0.5))
            rows = self.goal.rows(self.model(points))
            found = self.offered(points, rows)
            if found is not None:
                return found
            kept_points.append(points)
            kept_rows.append(rows)
            kept_box.append(part)
            done += len(part)
            if self.over():
                break
        self.pace = (time.monotonic() - began) / done
        rows = torch.cat(kept_rows)
        finite = torch.where(torch.isfinite(rows), rows.abs(), 0.0)
        self.scale = finite.mean(dim=0).clamp(min=1e-12)
        loss = self.loss(rows)
        top = min(16, len(rows))
        # Where few of many clauses can be tried, the likeliest.
        self.order = loss.amin(dim=0).argsort()
        order = loss.topk(top, dim=0, largest=False).indices[:, self.order]  # (top, clause)
        clause = self.order.expand(top, -1).flatten()
        index = order.flatten()
        self.best = Lanes(torch.cat(kept_points)[index], torch.cat(kept_box)[index], clause)
        return None

    def loss(self, rows: Tensor) -> Tensor:
        """The hinge sum of each clause, (batch, clause)."""
        short = torch.relu(rows / self.scale + MARGIN)
        total = short.new_zeros(len(rows), self.goal.clauses)
        return total.scatter_add(1, self.goal.clause.expand_as(short), short)

    def offered(self, points: Tensor, rows: Tensor) -> Tensor | None:
        """The deepest points that meet some clause, shown to the confirmation."""
        depth = self.goal.worst(rows).amin(dim=1)
        hits = (depth <= 0).nonzero().flatten()
        if not len(hits) or self.refused >= MOST_REFUSED:
            return None
        order = depth[hits].argsort()[:4]
        candidates = points[hits[order]]
        found = self.confirm(candidates)
        if found is None:
            self.refused += len(candidates)
        return found

    def lanes(self, count: int) -> Lanes:
        """Where to start: the best samples in the first round, later random ones."""
        self.rounds += 1
        clauses, boxes = self.goal.clauses, len(self.lower)
        number = torch.arange(count)
        clause, box = number % clauses, (number // clauses) % boxes
        if self.order is not None:
            clause = self.order[clause]
        points = self.uniform(box)
        if self.rounds == 1 and self.best is not None:
            known = self.best
            for i in range(min(count, len(known.clause)) if boxes == 1 else 0):
                points[i], clause[i] = known.points[i], known.clause[i]
        elif self.rounds % 2 == 0:
            points = self.diversified(points, box)
        return Lanes(points, box, clause)

    def diversified(self, points: Tensor, box: Tensor) -> Tensor:
        """Points moved a little so that outputs change in random directions."""
        for _ in range(2):
            leaf = points.detach().requires_grad_(True)
            with torch.enable_grad():
                outputs = self.model(leaf).flatten(1)
                way = torch.rand(outputs.shape, generator=self.random) * 2 - 1
                (slope,) = torch.autograd.grad((way * outputs).sum(), leaf)
            half = (self.upper[box] - self.lower[box]) / 2
            points = self.clamped(points + 0.5 * half * slope.sign(), box)
        return points.detach()

    def clamped(self, points: Tensor, box: Tensor) -> Tensor:
        """The nearest points of the boxes."""
        return torch.minimum(torch.maximum(points, self.lower[box]), self.upper[box])

    def descend(self, lanes: Lanes, steps: int) -> Tensor | None:
        """Walk down each lane's loss."""
        points = lanes.points
        half = (self.upper[lanes.box] - self.lower[lanes.box]) / 2
        mean, square = torch.zeros_like(points), torch.zeros_like(points)
        own = lanes.clause[:, None]
        for step in range(steps):
            leaf = points.detach().requires_grad_(True)
            with torch.enable_grad():
                rows = self.goal.rows(self.model(leaf))
                loss = self.loss(rows).gather(1, own).sum()
                (slope,) = torch.autograd.grad(loss, leaf)
            seen = rows.detach()
            found = self.offered(points, seen)
            if found is not None or self.over():
                return found
            slope = torch.where(torch.isfinite(slope), slope, 0.0)
            if step == 0 and not bool((slope * half).any()):
                self.flat = True
                return None
            # In units of the box: wide inputs count as much as narrow ones.
            slope = slope * half
            mean = DECAY * mean + (1 - DECAY) * slope
            square = SQUARE_DECAY * square + (1 - SQUARE_DECAY) * slope.square()
            first, second = 1 - DECAY ** (step + 1), 1 - SQUARE_DECAY ** (step + 1)
            way = (mean / first) / ((square / second).sqrt() + 1e-30)
            rate = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (step / max(1, steps - 1))
            points = self.clamped(points - rate * half * way.clamp(-1, 1), lanes.box)
        with torch.no_grad():
            return self.offered(points, self.goal.rows(self.model(points)))

    @torch.no_grad()
    def mutate(self, lanes: Lanes, rounds: int) -> Tensor | None:
        """Change runs of entries at random, and keep what brings a lane's loss down."""
        own = lanes.clause[:, None]
        points = lanes.points
        rows = self.goal.rows(self.model(points))
        loss = self.loss(rows).gather(1, own)[:, 0]
        width = points.shape[1]
        for turn in range(rounds):
            if self.over():
                return None
            length = max(1, round(width * 0.3 * (0.01 ** (turn / rounds))))
            start = torch.randint(width, (len(points), 1), generator=self.random)
            place = (torch.arange(width) - start) % width < length
            fresh = self.uniform(lanes.box)
            # All of a run to one end, or each entry on its own.
            end = torch.rand(len(points), 1, generator=self.random).round()
            same = torch.rand(len(points), 1, generator=self.random) < 0.5
            fresh = torch.where(same, self.within(lanes.box, end), fresh)
            trial = torch.where(place, fresh, points)
            rows = self.goal.rows(self.model(trial))
            found = self.offered(trial, rows)
            if found is not None:
                return found
            new = self.loss(rows).gather(1, own)[:, 0]
            better = new <= loss
            points = torch.where(better[:, None], trial, points)
            loss = torch.where(better, new, loss)
        return None
