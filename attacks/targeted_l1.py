"""The textbook objective: towards a class, with as little L1 perturbation as will do.

    min_d  E(x + d, k_adv) + lambda * |d|_1   such that  x + d lies in the input range

E is the cross-entropy to the class k_adv. For small lambda the minimiser is misclassified, for
large lambda it is x itself; the best point lies at the largest lambda that still succeeds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from attacks.aims import Aims, aims
from attacks.ball import Ball
from attacks.losses import cross_entropy
from attacks.nearest import Nearest, View, refuse_norm, refuse_setting
from attacks.protocol import Model
from attacks.proximal import shrink
from attacks.result import RadiusResult
from attacks.weights import WeightSearch

# A step is taken if it brings the objective below the worst of so many before it: with steps of
# Barzilai and Borwein's length, insisting on descent at each would be slower.
MEMORY = 5
# Step lengths change by this factor where the objective rises, or its curvature says nothing.
SHORTER, LONGER = 0.3, 2.0


@dataclass(frozen=True, slots=True)
class TargetedL1:
    """Proximal gradient steps with exact box-aware shrinkage, along a path of lambdas per sample.

    Attributes:
        rounds: values of lambda per sample and class, each from where the last ended.
        steps: proximal steps per round.
        classes: how many other classes are aimed at, nearest first to first order, unless the
            call names targets.
        halvings: of the segment from the input to the point found, at the end; each is a query.

    Source:
        The objective: Szegedy et al. 2014, arXiv:1312.6199. Step lengths: Wright, Nowak,
        Figueiredo 2009 (SpaRSA), doi:10.1109/TSP.2009.2016892.
    """

    rounds: int = 8
    steps: int = 25
    classes: int = 3
    halvings: int = 8

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if min(self.rounds, self.steps, self.classes) < 1 or self.halvings < 0:
            complaint = (
                f"rounds = {self.rounds}, steps = {self.steps}, classes = {self.classes}, "
                f"halvings = {self.halvings}; expected at least 1, 1, 1 and 0"
            )
        refuse_setting("TargetedL1", complaint)

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        start: Tensor | None = None,
        sample_keys: Tensor | None = None,
    ) -> RadiusResult:
        """classes * rounds * steps gradients per sample; see `Minimiser`. L1 only."""
        refuse_norm("TargetedL1", float(ball.p), (1.0,))
        oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.rows()
        if not len(rows):
            return oracle.outcome()
        oracle.begin(rows, start)
        path = Path.begin(oracle, aims(oracle, rows, self.classes))
        steepest = path.slope.abs().amax(dim=1)
        # At lambda = steepest the input itself is the minimiser. Weights are its inverse.
        search = WeightSearch.begin(4.0 / torch.where(steepest > 0, steepest, 1.0))
        for _ in range(self.rounds):
            search.note(path.walk(1 / search.weight, self.steps))
        oracle.shorten(rows, self.halvings)
        return oracle.outcome()


@dataclass(slots=True, eq=False)
class Path:
    """Where each lane stands on its path; mutable.

    Attributes:
        oracle: the conversation.
        rows, towards: shape (lanes,): sample and class of each lane.
        delta: shape (lanes, n), float64: the perturbation.
        value, slope: the cross-entropy to the class there, and its gradient.
        length: shape (lanes,): the next step's.
    """

    oracle: Nearest
    rows: Tensor
    towards: Tensor | None
    delta: Tensor
    value: Tensor
    slope: Tensor
    length: Tensor

    @staticmethod
    def begin(oracle: Nearest, lanes: Aims) -> "Path":
        """At the inputs; the first step is one that the steepest entry alone would need."""
        rows, towards = lanes.rows, lanes.towards
        at = oracle.region.centre[rows]
        delta = torch.zeros_like(oracle.moved(rows, at))
        path = Path(oracle, rows, towards, delta, delta[:, 0], delta, delta[:, 0])
        view = path.look(delta)
        path.value, path.slope = view.value, view.slope
        squares = view.slope.square().sum(dim=1)
        path.length = torch.where(squares > 0, view.value / squares.clamp(min=1e-300), 1.0)
        return path

    def look(self, delta: Tensor) -> View:
        """Cross-entropy to the aims, from the log-odds: CE = softplus(odds)."""
        at = self.oracle.place(self.rows, delta)
        odds = self.oracle.view(self.rows, at, self.towards, cross_entropy)
        chain = torch.sigmoid(odds.value)[:, None]
        return View(softplus(odds.value), chain * odds.slope, odds.goal)

    def walk(self, weight: Tensor, steps: int) -> Tensor:
        """`steps` proximal steps at lambda = `weight`; which lanes end misclassified."""
        low, high = self.oracle.room(self.rows)
        past = (self.value + weight * self.delta.abs().sum(dim=1))[:, None]
        goal = torch.full_like(weight, torch.inf)
        for _ in range(steps):
            aim = self.delta - self.length[:, None] * self.slope
            there = shrink(aim, self.length * weight, low, high)
            view = self.look(there)
            total = view.value + weight * there.abs().sum(dim=1)
            taken = total <= past.amax(dim=1)
            step, turn = there - self.delta, view.slope - self.slope
            bend = (step * turn).sum(dim=1)
            born = step.square().sum(dim=1) / torch.where(bend > 0, bend, 1.0)
            longest = LONGER * 10 * self.length
            born = torch.where(bend > 0, torch.minimum(born, longest), LONGER * self.length)
            self.length = torch.where(taken, born, SHORTER * self.length).clamp(1e-12, 1e12)
            wide = taken[:, None]
            self.delta = torch.where(wide, there, self.delta)
            self.slope = torch.where(wide, view.slope, self.slope)
            self.value = torch.where(taken, view.value, self.value)
            goal = torch.where(taken, view.goal, goal)
            kept = torch.where(taken, total, past[:, -1])
            past = torch.cat((past, kept[:, None]), dim=1)[:, -MEMORY:]
        return goal < 0
