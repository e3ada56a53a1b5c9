"""The model under a minimal-norm attack: an oracle that remembers the nearest point that counts.

Every query goes through here, so no minimiser keeps its own best, and none can return a point that
lies outside the range, is farther than it says, or was never seen misclassified.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.errors import AttackInputError
from attacks.hyperplane import least_move
from attacks.losses import Loss, margin, without
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.randomness import normal
from attacks.region import Region
from attacks.result import RadiusResult

# Halvings of the segment from the input to a find: its length then exceeds that of the first flip
# next to it by a relative 2**-12 at most.
HALVINGS = 12


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What one gradient query shows.

    Attributes:
        value: shape (rows,), float64: the loss.
        slope: shape (rows, n), float64: its gradient, flat; 0 where it is NaN or infinite.
        goal: shape (rows,), float64: the margin to bring below 0. NaN reads as inf.
    """

    value: Tensor
    slope: Tensor
    goal: Tensor


class Nearest(Oracle):
    """A minimiser's conversation with a model about one batch; mutable, used once.

    Unlike its base it keeps, per sample, the nearest point of the range seen misclassified, and
    `candidate` and `margin` are that point's. It may lie beyond eps: a minimiser that overshoots
    has something to shorten. `outcome` drops what still does. The region may be unbounded.

    Attributes:
        radius: shape (batch,), float64: the distance of `candidate`, rounded up; inf while there
            is none, 0 where the input itself is misclassified.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        sample_keys: Tensor | None = None,
    ) -> None:
        """Check the arguments and evaluate the inputs themselves, one forward query each."""
        x = x.detach()
        region = ball.around(x)
        # With eps = 0 the base evaluates the inputs alone, and cannot find the region unbounded.
        inputs = ball.with_eps(0.0)
        super().__init__(model, x, labels, inputs, targets=targets, sample_keys=sample_keys)
        self.region = region
        self.ball = ball
        self.anywhere = ball.with_eps(math.inf).around(x)
        self.inputs_margin = self.margin.clone()
        self.radius = torch.where(self.clean, 0.0, torch.full_like(region.eps, math.inf))

    def rows(self) -> Tensor:
        """The samples to work on: all but those misclassified as they are; shape (rows,)."""
        return (~self.clean).nonzero().flatten()

    def within(self, rows: Tensor, eps: Tensor) -> Region:
        """The ball of another radius around the samples `rows`; eps of shape (rows,)."""
        centre = self.region.centre
        return self.ball.rows(rows, centre).with_eps(eps).around(centre[rows])

    def place(self, rows: Tensor, delta: Tensor) -> Tensor:
        """The inputs moved by `delta`, shape (rows, n), and clipped to their ranges.

        Returns:
            Shape (rows, *input); within the range, but not necessarily within eps.
        """
        centre = self.region.centre[rows]
        point = (centre.flatten(1).double() + delta).to(centre.dtype).view_as(centre)
        low, high = self._range(rows)
        return torch.where(point.isfinite(), point, centre).clamp(low, high)

    def room(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How far the range lets each entry move down and up: (low <= 0, high >= 0), float64."""
        centre = self.region.centre[rows].flatten(1).double()
        low, high = self._range(rows)
        return low.flatten(1).double() - centre, high.flatten(1).double() - centre

    def moved(self, rows: Tensor, points: Tensor) -> Tensor:
        """points - inputs, flat; shape (rows, n), float64."""
        return points.flatten(1).double() - self.region.centre[rows].flatten(1).double()

    def view(
        self, rows: Tensor, points: Tensor, towards: Tensor | None = None, loss: Loss = margin
    ) -> View:
        """Value and gradient of a loss at points of the range; one query forward and backward.

        Args:
            rows, points, towards, loss: as for `Oracle.slope`.
        """
        admitted = self.admitted(rows, backward=True)
        if admitted is not None:
            level = self.radius.new_zeros(len(rows))
            nothing = View(
                level,
                level[:, None].repeat(1, points[0].numel()),
                level.new_full((len(rows),), math.inf),
            )
            if bool(admitted.any()):
                some = None if towards is None else towards[admitted]
                seen = self._view(rows[admitted], points[admitted], some, loss)
                nothing.value[admitted], nothing.goal[admitted] = seen.value, seen.goal
                nothing.slope[admitted] = seen.slope
            return nothing
        return self._view(rows, points, towards, loss)

    def _view(self, rows: Tensor, points: Tensor, towards: Tensor | None, loss: Loss) -> View:
        """As `view`, whatever the budget."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = points.detach().clone().requires_grad_()
            logits = self.model(leaf)
            labels = self.labels[rows]
            if self.targets is not None:
                towards = self.targets[rows]
                labels = without(logits.detach(), towards).argmax(dim=1)
            value = loss(logits, labels, towards)
            slope = None
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        goal = self.goal(logits.detach(), rows)
        self._remember(rows, points, goal)
        self.backward += torch.bincount(rows, minlength=len(self.backward))
        self.note_slope(rows, slope)
        flat = torch.zeros_like(points) if slope is None else slope
        return View(
            value=value.detach().double(),
            slope=flat.flatten(1).double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0),
            goal=known(goal),
        )

    def first_move(self, rows: Tensor, points: Tensor, view: View) -> Tensor:
        """The least move in the ball's norm to where the linearised loss is 0; shape (rows, n).

        It stays in the range, but not within eps; 0 where the gradient is, or the loss is below 0.
        """
        low, high = self.room(rows)
        gone = self.moved(rows, points)
        low, high = (low - gone).clamp(max=0), (high - gone).clamp(min=0)
        return least_move(-view.slope, view.value.nan_to_num(), low, high, self.region.p)

    def begin(self, rows: Tensor, start: Tensor | None) -> None:
        """Ask at the caller's starting points, pulled into the ball."""
        if start is not None and len(rows):
            self.ask(rows, self.region.rows(rows).project(start[rows]))

    def shorten(self, rows: Tensor, halvings: int = HALVINGS) -> None:
        """Move each held point along the segment towards its input, to where it just flips."""
        rows = rows[self.radius[rows].isfinite() & (self.radius[rows] > 0)]
        if not len(rows):
            return
        held = self.candidate[rows]
        delta = self.moved(rows, held)
        keeps, flips = torch.zeros_like(self.radius[rows]), torch.ones_like(self.radius[rows])
        for _ in range(halvings):
            middle = (keeps + flips) / 2
            flipped = self.ask(rows, self.place(rows, middle[:, None] * delta)) < 0
            flips = torch.where(flipped, middle, flips)
            keeps = torch.where(flipped, keeps, middle)

    def outcome(self) -> RadiusResult:
        """What is known now."""
        near = self.radius <= self.region.eps
        found = near & self.radius.isfinite()
        shape = (-1, *[1] * (self.candidate.dim() - 1))
        candidate = torch.where(near.view(shape), self.candidate, self.region.centre)
        assert bool(self.region.contains(candidate).all()), "a minimiser left its region"
        return RadiusResult(
            candidate=candidate,
            radius=torch.where(near, self.radius, math.inf),
            found=found,
            margin=torch.where(near, self.margin, self.inputs_margin),
            forward=self.forward,
            backward=self.backward,
            remarks=self.remarks(found),
        )

    def _range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the input range, shaped like the chosen inputs."""
        centre = self.region.centre
        return self.ball.rows(rows, centre).range_like(centre[rows])

    def _remember(self, rows: Tensor, points: Tensor, seen: Tensor) -> None:
        """Keep each sample's nearest misclassified point; of equally near ones the earliest."""
        self.forward += torch.bincount(rows, minlength=len(self.forward))
        self.note_nan(rows, seen)
        lanes = (seen < 0).nonzero().flatten()
        if not len(lanes):
            return
        chosen, there = rows[lanes], points[lanes]
        region = self.anywhere.rows(chosen)
        distance = region.distance(there)
        distance = torch.where(region.contains(there), distance, math.inf)
        least = self.radius.scatter_reduce(0, chosen, distance, "amin")
        better = (distance == least[chosen]) & (distance < self.radius[chosen])
        winners = better.nonzero().flatten()
        first = torch.full_like(self.forward, len(lanes))
        first = first.scatter_reduce(0, chosen[winners], winners, "amin")
        first = first[first < len(lanes)]
        target = chosen[first]
        self.candidate[target] = there[first]
        self.margin[target] = seen[lanes][first]
        self.radius[target] = distance[first]


def known(goal: Tensor) -> Tensor:
    """Margins as float64 in which NaN, which finds nothing, reads as inf."""
    goal = goal.double()
    return torch.where(goal.isnan(), math.inf, goal)


def norm_of(delta: Tensor, p: float) -> Tensor:
    """The p-norm of each row of `delta`, not rounded up; p = 0 counts entries; shape (rows,)."""
    length: Tensor = torch.linalg.vector_norm(delta, ord=p, dim=1)
    return length


def unit(slope: Tensor, keys: Tensor) -> Tensor:
    """Each row divided by its L2 norm; a random direction where it is 0.

    Args:
        slope: shape (rows, n), float64, finite.
        keys: shape (rows,), int64: of the random directions.
    """
    largest = slope.abs().amax(dim=1, keepdim=True)
    flat = (largest == 0).squeeze(1)
    scaled = slope / torch.where(largest > 0, largest, 1.0)
    if bool(flat.any()):
        scaled = torch.where(flat[:, None], normal(keys, slope.shape[1]), scaled)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / length


def cosine(step: int, steps: int, first: float, last: float) -> float:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps - 1)))


def refuse_norm(attack: str, p: float, norms: tuple[float, ...]) -> None:
    """Refuse a ball whose norm the attack does not know."""
    if p not in norms:
        known_norms = ", ".join(f"{norm:g}" for norm in norms)
        raise AttackInputError(
            f"{attack} cannot minimise the norm p = {p:g}; expected one of {known_norms}. "
            "Give a ball of such a norm, or take another minimiser (see MINIMISERS)."
        )


def refuse_setting(attack: str, complaint: str | None) -> None:
    """Refuse a setting that cannot be meant, in the name of `attack`."""
    if complaint:
        raise AttackInputError(f"{attack} got {complaint}. Correct that setting.")
