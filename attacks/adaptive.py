"""The walk of APGD: steps that halve themselves where the loss has stopped falling.

Each lane has its own step size. At checkpoints that come ever closer a lane that made too little
progress halves its step and goes back to the best point it has seen.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.descent import Lanes
from attacks.losses import Loss
from attacks.oracle import Oracle, Probe
from attacks.region import Region
from attacks.stepping import Stepper

# The first step, as a fraction of the radius, and the share of a step kept beside the momentum.
FIRST_SIZE = 2.0
FORWARD_SHARE = 0.75
# Checkpoints: the first period as a share of the steps, how much shorter each next one is, and
# the shortest; then the share of falling steps below which a period counts as too little progress.
FIRST_PERIOD = 0.22
SHORTER_BY = 0.03
SHORTEST = 0.06
ENOUGH = 0.75
# L1: the share of entries moved at first, how often the check comes, by what the support and the
# step shrink, the share of the old support that counts as still shrinking, and the smallest step.
FIRST_DENSITY = 0.2
SPARSE_PERIOD = 0.04
SPARSE_SHRINK = 1.5
STILL_SHRINKING = 0.95
SPARSE_SMALLEST = 0.1


@dataclass(slots=True, eq=False)
class State:
    """Where each lane stands; every tensor has one row per lane.

    Attributes:
        rows: the sample.
        towards: class to move to; -1 where the lane just leaves its label.
        at, before: the point now, and the one before.
        level, slope: of the loss at `at`.
        best, best_level, best_slope: the same at the point of lowest loss so far.
        size: step as a fraction of the radius, float64.
        falls: steps since the last checkpoint that lowered the loss.
        halved: whether the last checkpoint halved the step.
        checked_level: `best_level` at the last checkpoint.
        density: L1: the share of entries that a step moves, float64.
        support: L1: how many entries of `best` had moved at the last checkpoint.
    """

    rows: Tensor
    towards: Tensor
    at: Tensor
    before: Tensor
    level: Tensor
    slope: Tensor
    best: Tensor
    best_level: Tensor
    best_slope: Tensor
    size: Tensor
    falls: Tensor
    halved: Tensor
    checked_level: Tensor
    density: Tensor
    support: Tensor

    @staticmethod
    def begin(lanes: Lanes, probe: Probe, region: Region) -> "State":
        """All lanes at their starting points."""
        count, entries = len(lanes.rows), lanes.points[0].numel()
        towards = lanes.towards
        level = lowest_last(probe.level)
        first = 1.0 if region.p == 1 else FIRST_SIZE
        return State(
            rows=lanes.rows,
            towards=torch.full_like(lanes.rows, -1) if towards is None else towards,
            at=lanes.points,
            before=lanes.points,
            level=level,
            slope=probe.slope,
            best=lanes.points.clone(),
            best_level=level.clone(),
            best_slope=probe.slope.clone(),
            size=region.eps.new_full((count,), first),
            falls=torch.zeros_like(lanes.rows),
            halved=torch.ones(count, dtype=torch.bool, device=lanes.rows.device),
            checked_level=level.clone(),
            density=region.eps.new_full((count,), FIRST_DENSITY),
            support=region.eps.new_full((count,), entries),
        )

    def keep(self, lanes: Tensor) -> "State":
        """The chosen lanes only; `lanes` is a mask or an index."""
        return State(*(getattr(self, field.name)[lanes] for field in fields(self)))

    def arrive(self, there: Tensor, probe: Probe) -> None:
        """Move to points and note what they are worth."""
        level = lowest_last(probe.level)
        self.falls = self.falls + (level < self.level)
        better = level < self.best_level
        self.before, self.at, self.level, self.slope = self.at, there, level, probe.slope
        self.best = torch.where(wide(better, there), there, self.best)
        self.best_slope = torch.where(wide(better, there), probe.slope, self.best_slope)
        self.best_level = torch.where(better, level, self.best_level)

    def go_back(self, lanes: Tensor) -> None:
        """Put the masked lanes back at their best points."""
        where = wide(lanes, self.at)
        self.at = torch.where(where, self.best, self.at)
        self.slope = torch.where(where, self.best_slope, self.slope)
        self.level = torch.where(lanes, self.best_level, self.level)


@dataclass(frozen=True, slots=True)
class AdaptiveDescent:
    """APGD's walk: `steps` gradients per lane, and one more evaluation of the last point.

    Attributes:
        steps: gradient steps.
        loss: what falls.
        early_stop: end a sample's lanes at its first misclassified point.
        region: where to walk, one entry per sample, if not in the oracle's own region; then the
            oracle must be one that lets attacks roam.

    Source:
        L-inf, L2: Croce, Hein 2020, arXiv:2003.01690. L1: Croce, Hein 2021, arXiv:2103.01208.
    """

    steps: int
    loss: Loss
    early_stop: bool = True
    region: Region | None = None

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk all lanes, asking the oracle at every point on the way; it keeps what is found."""
        self.walk(oracle, lanes)

    def walk(self, oracle: Oracle, lanes: Lanes) -> Lanes:
        """As `run`; returns the lanes still open, at their points of lowest loss."""
        if not len(lanes.rows):
            return lanes
        region = (self.region or oracle.region).rows(lanes.rows)
        probe = oracle.probe(lanes.rows, lanes.points, self.loss, lanes.towards)
        state = State.begin(lanes, probe, region)
        stepper = Stepper.within(region)
        targeted = lanes.towards is not None
        checkpoints = self._checkpoints(region.p)
        checked = 0
        for step in range(self.steps):
            going = oracle.going(state.rows) if self.early_stop else None
            if going is not None:
                state, region = state.keep(going), region.rows(going)
                stepper = stepper.rows(going)
            if not len(state.rows):
                break
            there = self._next(stepper, state, first=step == 0)
            if step == self.steps - 1:
                oracle.ask(state.rows, there)
                break
            towards = state.towards if targeted else None
            state.arrive(there, oracle.probe(state.rows, there, self.loss, towards))
            if step + 1 in checkpoints:
                (check_l1 if region.p == 1 else check)(state, region, step + 1 - checked)
                checked = step + 1
        return Lanes(state.rows, state.best, state.towards if targeted else None)

    def _checkpoints(self, p: float) -> set[int]:
        """After how many steps the lanes are checked."""
        if p == 1:
            period = max(1, int(SPARSE_PERIOD * self.steps))
            return set(range(period, self.steps, period))
        return set(checkpoints_of(self.steps))

    def _next(self, stepper: Stepper, state: State, *, first: bool) -> Tensor:
        """The next points, within the region."""
        region = stepper.region
        if region.p == 1:
            return region.project(state.at + sparse_move(region, state))
        there = stepper.descend(state.at, state.slope, state.size)
        if first:
            return there
        # x + a (z - x) + (1 - a) (x - x_before)
        there = there.mul_(FORWARD_SHARE).add_(state.at, alpha=2 - 2 * FORWARD_SHARE)
        return stepper.settle(there.sub_(state.before, alpha=1 - FORWARD_SHARE))


def checkpoints_of(steps: int) -> list[int]:
    """After how many steps progress is judged: ceil(p_j * steps).

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)
    """
    ends, period, share = [], FIRST_PERIOD, FIRST_PERIOD
    while share < 1:
        # Rounded first: 0.22 + 0.19 + ... must not become one step more by its last bit.
        ends.append(math.ceil(round(share * steps, 9)))
        period = max(period - SHORTER_BY, SHORTEST)
        share += period
    return ends


def check(state: State, region: Region, period: int) -> None:
    """Halve the step of the lanes that made too little progress, and send them to their best."""
    few = state.falls <= ENOUGH * period
    stuck = ~state.halved & ~(state.best_level < state.checked_level)
    weak = few | stuck
    state.size = torch.where(weak, state.size / 2, state.size)
    state.halved = weak
    state.checked_level = state.best_level
    state.falls = torch.zeros_like(state.falls)
    state.go_back(weak)


def check_l1(state: State, region: Region, period: int) -> None:
    """Narrow each lane's steps with its support; where that has settled, shorten them."""
    moved = (state.best != region.centre).flatten(1)
    support = moved.sum(dim=1).to(state.support.dtype)
    shrinking = support / state.support.clamp(min=1) < STILL_SHRINKING
    state.density = support / (moved.shape[1] * SPARSE_SHRINK)
    shorter = (state.size / SPARSE_SHRINK).clamp(min=SPARSE_SMALLEST)
    state.size = torch.where(shrinking, 1.0, shorter)
    state.support = support
    state.go_back(shrinking)


def sparse_move(region: Region, state: State) -> Tensor:
    """size * eps shared by the signs of the largest slopes, `density` of the entries each lane.

    Entries that the range stops are left out, so that none of the step is wasted.
    """
    down = torch.where(state.slope.isnan(), 0.0, -state.slope)
    stopped = ((state.at >= region.high) & (down > 0)) | ((state.at <= region.low) & (down < 0))
    down = torch.where(stopped, 0.0, down).flatten(1).double()
    count = (state.density * down.shape[1]).round().clamp(min=1)[:, None]
    order = down.abs().argsort(dim=1, descending=True, stable=True)
    place = torch.arange(down.shape[1], device=down.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, place)
    sign = torch.where(rank < count, down.sign(), 0.0)
    share = sign / sign.abs().sum(dim=1, keepdim=True).clamp(min=1)
    move = share * (state.size * region.reach())[:, None]
    return move.view_as(state.at).to(state.at.dtype)


def lowest_last(level: Tensor) -> Tensor:
    """Losses in which NaN reads as inf: no point without a loss is a best one."""
    return torch.where(level.isnan(), torch.inf, level)


def wide(rows: Tensor, like: Tensor) -> Tensor:
    """One number per lane, shaped to go with points of shape (lanes, *input)."""
    return rows.view(-1, *[1] * (like.dim() - 1))
