"""FAB: along the linearised boundary towards the input, for the nearest misclassified point."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Lanes, walk
from attacks.errors import AttackInputError
from attacks.hyperplane import least_move
from attacks.losses import margin
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.result import AttackResult

DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}


@dataclass(frozen=True, slots=True)
class FAB:
    """Fast adaptive boundary attack: projections onto the linearised boundary within the range.

    Each step goes from a mixture of the point and the input to the boundary of the model
    linearised at the point. Once misclassified, a lane moves back towards the input and goes on,
    ever nearer; it ends when it comes within the radius, or after its steps.

    Attributes:
        steps: linearisations per path.
        restarts: the first begins at the input, others at random points around it.
        targeted: how many of the likeliest other classes to move to, one path each (FAB-T); None
            to go for the nearest of all linearised boundaries, at one gradient per class and step.
        overshoot: how far each step goes, in units of the way to the linearised boundary.
        most_bias: the largest share of the input in the mixture.
        backward: what is kept of the distance to the input when a misclassified point moves back.
        seed: of the random starting points, together with the sample's key.
        max_lanes: paths walked at once; bounds memory, changes no result.

    Source:
        Croce, Hein 2020, arXiv:1907.02044. The paths towards several classes are walked side by
        side. The final search on the segment is left out: within a given radius it finds nothing.
    """

    steps: int = 100
    restarts: int = 1
    targeted: int | None = 9
    overshoot: float = 1.05
    most_bias: float = 0.1
    backward: float = 0.9
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        for name in ("steps", "restarts", "targeted", "max_lanes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                complaint = f"{name} = {value}; expected at least 1"
        if not self.overshoot >= 1:
            complaint = f"overshoot = {self.overshoot}; expected at least 1"
        elif not 0 <= self.most_bias <= 1:
            complaint = f"most_bias = {self.most_bias}; expected a share in [0, 1]"
        elif not 0 < self.backward < 1:
            complaint = f"backward = {self.backward}; expected a share in (0, 1)"
        if complaint:
            raise AttackInputError(f"FAB got {complaint}. Correct that setting.")

    @property
    def name(self) -> str:
        """As in the registry and in results."""
        return "fab" if self.targeted is None else "fab-t"

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
    ) -> AttackResult:
        """Walk from the inputs, or from `start`, then from random points; see `Attack`."""
        oracle = Oracle(
            model, x, labels, ball, targets=targets, sample_keys=sample_keys, roaming=True
        )
        low, high = ball.range_like(oracle.region.centre)
        plan = Plan(self, low, high, None)
        aims = None
        if oracle.targets is None:
            others = oracle.logits.shape[1] - 1
            aims = oracle.rivals(others if self.targeted is None else self.targeted)
        if self.targeted is None and aims is not None:
            plan = Plan(self, low, high, aims)
            aims = None
        for restart in range(self.restarts):
            lanes = self._lanes(oracle, restart, aims, start if restart == 0 else None)
            walk(oracle, plan, lanes, self.max_lanes)
        return oracle.result(self.name)

    def _lanes(
        self, oracle: Oracle, restart: int, aims: Tensor | None, start: Tensor | None
    ) -> Lanes:
        """One lane per open sample and class to move to."""
        rows = oracle.open_rows()
        count = 1 if aims is None else aims.shape[1]
        each = torch.arange(count, device=rows.device).repeat(len(rows))
        rows = rows.repeat_interleave(count)
        region = oracle.region.rows(rows)
        if start is not None:
            points = region.project(start[rows])
        elif restart == 0:
            points = region.centre
        else:
            keys = oracle.lane_keys(rows, self.name, self.seed, restart * count + each)
            points = region.sample(keys)
        return Lanes(rows, points, None if aims is None else aims[rows, each])


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How FAB walks lanes.

    Attributes:
        fab: the settings.
        low, high: shape (batch, *input): the input range.
        rivals: shape (batch, classes - 1): the classes whose boundaries count, for lanes that do
            not move towards a class of their own.
    """

    fab: FAB
    low: Tensor
    high: Tensor
    rivals: Tensor | None

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk all lanes; the oracle keeps what lies within the radius."""
        rows, at, towards = lanes.rows, lanes.points, lanes.towards
        for _ in range(self.fab.steps):
            going = oracle.going(rows)
            if going is not None:
                rows, at = rows[going], at[going]
                towards = None if towards is None else towards[going]
            if not len(rows):
                return
            there = self._step(oracle, rows, at, towards)
            crossed = oracle.ask(rows, there) < 0
            centre = oracle.region.centre[rows]
            back = torch.lerp(centre, there, self.fab.backward)
            at = torch.where(crossed.view(-1, *[1] * (at.dim() - 1)), back, there)

    def _step(self, oracle: Oracle, rows: Tensor, at: Tensor, towards: Tensor | None) -> Tensor:
        """The next points, in the input range; shape (lanes, *input)."""
        plane = self._nearest_plane(oracle, rows, at, towards)
        p, overshoot = oracle.region.p, self.fab.overshoot
        centre = oracle.region.centre[rows].flatten(1).double()
        here = at.flatten(1).double()
        low, high = self.low[rows].flatten(1).double(), self.high[rows].flatten(1).double()
        # The plane is level + slope . (v - here) = 0, on whichever side the point and input lie.
        from_here = towards_plane(plane, plane.level, low - here, high - here, p)
        shift = plane.level + (plane.slope * (centre - here)).sum(dim=1)
        from_input = towards_plane(plane, shift, low - centre, high - centre, p)
        near = torch.linalg.vector_norm(from_here, ord=p, dim=1)
        far = torch.linalg.vector_norm(from_input, ord=p, dim=1)
        total = near + far
        bias = near / torch.where(total > 0, total, 1.0)
        bias = bias.clamp(max=self.fab.most_bias)[:, None]
        mixed = (1 - bias) * (here + overshoot * from_here)
        mixed = mixed + bias * (centre + overshoot * from_input)
        point = torch.where(mixed.isfinite(), mixed, here).clamp(low, high).to(at.dtype)
        return point.view_as(at).clamp(self.low[rows], self.high[rows])

    def _nearest_plane(
        self, oracle: Oracle, rows: Tensor, at: Tensor, towards: Tensor | None
    ) -> "Plane":
        """The linearised boundary to go to: the only one, or the nearest of all."""
        if towards is not None or self.rivals is None:
            probe = oracle.probe(rows, at, margin, towards)
            return Plane.of(probe.level, probe.slope)
        count = self.rivals.shape[1]
        many = rows.repeat_interleave(count)
        probe = oracle.probe(
            many, at.repeat_interleave(count, dim=0), margin, self.rivals[rows].flatten()
        )
        planes = Plane.of(probe.level, probe.slope)
        steepness = torch.linalg.vector_norm(planes.slope, ord=DUAL[oracle.region.p], dim=1)
        away = planes.level.abs() / torch.where(steepness > 0, steepness, 1.0)
        away = torch.where(steepness > 0, away, math.inf).view(len(rows), count)
        chosen = torch.arange(len(rows), device=rows.device) * count + away.argmin(dim=1)
        return Plane(planes.level[chosen], planes.slope[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Linearised boundaries: level + slope . move = 0 for moves from the point linearised at.

    Attributes:
        level: shape (lanes,), float64, positive where the label still leads.
        slope: shape (lanes, n), float64.
    """

    level: Tensor
    slope: Tensor

    @staticmethod
    def of(level: Tensor, slope: Tensor) -> "Plane":
        """Flat and without NaN or infinity: such a boundary is one of slope 0."""
        slope = slope.flatten(1).double()
        sound = level.isfinite() & slope.isfinite().all(dim=1)
        return Plane(
            torch.where(sound, level.double(), 0.0), torch.where(sound[:, None], slope, 0.0)
        )


def towards_plane(plane: Plane, level: Tensor, low: Tensor, high: Tensor, p: float) -> Tensor:
    """The least move in the p-norm to the plane within the box, from whichever side.

    Args:
        plane: gives the slope.
        level: shape (lanes,): the plane's level where the move begins.
        low, high: shape (lanes, n), how far the range allows to move.
    """
    downhill = -level.sign()[:, None] * plane.slope
    # By rounding a point may stand a bit outside the range.
    return least_move(downhill, level.abs(), low.clamp(max=0), high.clamp(min=0), p)
