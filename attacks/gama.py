"""GAMA-PGD: first far from the input's own probabilities, then over the boundary."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Lanes, walk
from attacks.errors import AttackInputError
from attacks.losses import Loss, margin
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.result import AttackResult

# The share of the steps during which the weight falls to 0, and those after which steps shrink to
# a tenth: 25, 60 and 85 of 100.
WEIGHT_UNTIL = 0.25
SHRINK_AFTER = (0.6, 0.85)
# Logits are divided so that the input's own margin is at most this: beyond, the probabilities'
# gradient is 0 in float32.
MOST_MARGIN = 10.0


@dataclass(frozen=True, slots=True)
class GAMA:
    """Guided adversarial margin attack: PGD on the margin of probabilities, guided away.

    Minimises  p_y(v) - max_{j != y} p_j(v) - weight * |p(v) - p(x)|^2  with all of it in
    probabilities; the weight falls to 0.

    Attributes:
        steps: gradient steps per path.
        restarts: how many random starting points.
        weight: of the guiding term at the first step.
        step_size: the first step as a fraction of the ball's radius.
        early_stop: drop a sample at its first misclassified point.
        seed: of the starting points, together with the sample's key.
        max_lanes: paths walked at once; bounds memory, changes no result.

    Source:
        Sriramanan et al. 2020, arXiv:2011.14969. Departs from it by dividing the logits of very
        confident samples, whose probabilities have no gradient in float32.
    """

    steps: int = 100
    restarts: int = 1
    weight: float = 50.0
    step_size: float = 2.0
    early_stop: bool = True
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        for name in ("steps", "restarts", "max_lanes"):
            if getattr(self, name) < 1:
                raise AttackInputError(
                    f"GAMA got {name} = {getattr(self, name)}; expected at least 1. "
                    "Correct that setting."
                )
        if not (self.weight >= 0 and self.step_size > 0):
            raise AttackInputError(
                f"GAMA got weight = {self.weight} and step_size = {self.step_size}; expected at "
                "least 0 and a positive fraction of eps. Correct that setting."
            )

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
        """Walk from random points; the first path begins at `start` if given. See `Attack`."""
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        for restart in range(self.restarts):
            rows = oracle.open_rows()
            if not self.early_stop:
                rows = torch.arange(len(oracle.labels), device=rows.device)
            region = oracle.region.rows(rows)
            if start is not None and restart == 0:
                points = region.project(start[rows])
            else:
                lane = torch.full_like(rows, restart)
                points = region.sample(oracle.lane_keys(rows, "gama", self.seed, lane))
            walk(oracle, Guided(self), Lanes(rows, points), self.max_lanes)
        return oracle.result("gama")

    def weight_at(self, step: int) -> float:
        """The weight of the guiding term: it falls on a line to 0."""
        return self.weight * max(0.0, 1 - step / (WEIGHT_UNTIL * self.steps))

    def size_at(self, step: int) -> float:
        """The step as a fraction of the radius."""
        shrunk = sum(step >= share * self.steps for share in SHRINK_AFTER)
        return float(self.step_size * 0.1**shrunk)

    def density_at(self, step: int, entries: int) -> float:
        """The share of the entries that an L1 step moves: a twentieth at first, one at the end."""
        share = step / max(1, self.steps - 1)
        return float(max(0.05, 1 / entries) ** (1 - share) * (1 / entries) ** share)


@dataclass(frozen=True, slots=True)
class Guided:
    """The walk of GAMA-PGD with its settings."""

    gama: GAMA

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk all lanes, asking the oracle at every point on the way; it keeps what is found."""
        rows, at = lanes.rows, lanes.points
        region = oracle.region.rows(rows)
        for step in range(self.gama.steps):
            loss = guided_margin(oracle.logits[rows], self.gama.weight_at(step))
            slope = oracle.slope(rows, at, loss)
            going = oracle.going(rows) if self.gama.early_stop else None
            if going is not None:
                rows, at, slope = rows[going], at[going], slope[going]
                region = region.rows(going)
            if not len(rows):
                return
            size = region.eps.new_full((len(rows),), self.gama.size_at(step))
            density = self.gama.density_at(step, at[0].numel())
            at = region.project(region.step(at, -slope, size, density))
        oracle.ask(rows, at)


def guided_margin(clean: Tensor, weight: float) -> Loss:
    """GAMA's loss for samples whose inputs have the logits `clean`, shape (rows, classes).

    p_y - max_{j != y} p_j - weight * |p - p_clean|^2, every p a softmax at one temperature.
    """
    leading = clean.topk(2, dim=1).values
    gap = (leading[:, 0] - leading[:, 1]).nan_to_num(nan=0.0)
    heat = (gap / MOST_MARGIN).clamp(min=1)[:, None]
    before = (clean / heat).softmax(dim=1)

    def loss(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        now = (logits / heat).softmax(dim=1)
        return margin(now, labels, targets) - weight * (now - before).square().sum(dim=1)

    return loss
