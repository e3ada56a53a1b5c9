"""L0: at most so many entries may change, each by as much as the input range allows.

Not a norm and not convex, so it is a ball of its own kind: `Ball` itself has no p = 0. Its region
answers what any region does, so attacks that only ask for projections, steps and extreme points
(FGSM, iterative FGSM, PGD) take it as it is.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.errors import AttackInputError
from attacks.randomness import uniform
from attacks.region import Region


@dataclass(frozen=True, slots=True, eq=False)
class SparseRegion(Region):
    """The points of the range that differ from `centre` in at most `eps` entries, per sample."""

    def rows(self, index: Tensor) -> "SparseRegion":
        """The region of the chosen samples, which may repeat."""
        return SparseRegion(
            self.centre[index], self.eps[index], self.p, self.low[index], self.high[index]
        )

    def reach(self) -> Tensor:
        """How many entries may change; shape (batch,), float64."""
        return torch.minimum(self.eps, (self._extent() > 0).sum(dim=1).double())

    def distance(self, x: Tensor) -> Tensor:
        """How many entries differ, exactly; shape (batch,), float64. NaN differs."""
        return (x != self.centre).flatten(1).sum(dim=1).double()

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the set, in the Euclidean sense.

        Each entry is clipped, and the `eps` whose staying away saves most of the squared distance
        stay away; the others return to the centre.

        Args:
            x: shape (batch, *input); entries that are NaN or infinite become the centre's.
        """
        x = torch.where(x.isfinite(), x, self.centre)
        clipped = x.clamp(self.low, self.high)
        wish = (x - self.centre).flatten(1).double()
        rest = (x - clipped).flatten(1).double()
        saved = wish.square() - rest.square()
        return torch.where(self._leading(saved).view_as(x), clipped, self.centre)

    def extreme(self, gradient: Tensor) -> Tensor:
        """The point of the set with the largest inner product with `gradient`."""
        gradient = torch.where(gradient.isnan(), 0.0, gradient)
        ends = torch.where(gradient > 0, self.high, self.low)
        ends = torch.where(gradient == 0, self.centre, ends)
        gain = (gradient * (ends - self.centre)).flatten(1).double()
        return torch.where(self._leading(gain).view_as(ends), ends, self.centre)

    def sample(self, keys: Tensor) -> Tensor:
        """Some entries at random, uniform in their range; shape (batch, *input)."""
        centre, low, high = self._box()
        size = centre.shape[1]
        spread = low + uniform(keys, size) * (high - low)
        kept = self._leading(uniform(keys + 1, size))
        point = (centre.double() + torch.where(kept, spread, 0.0)).to(centre.dtype)
        return point.view_as(self.centre).clamp(self.low, self.high)

    def step(self, at: Tensor, gradient: Tensor, size: Tensor, density: float) -> Tensor:
        """`at` plus a fraction `size` of the way along the gradient, scaled to its largest entry.

        Args:
            at, gradient, size: as for `Region.step`.
            density: not used.
        """
        slope = torch.where(gradient.isnan(), 0.0, gradient).flatten(1).double()
        largest = slope.abs().amax(dim=1, keepdim=True)
        move = slope / torch.where(largest > 0, largest, 1.0) * size[:, None] * self._extent()
        return at + move.view_as(at).to(at.dtype)

    def _leading(self, gain: Tensor) -> Tensor:
        """The `eps` entries of largest positive gain, of equal ones the first; (batch, n), bool."""
        order = gain.argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter(
            1, order, torch.arange(gain.shape[1], device=gain.device).expand_as(order)
        )
        return (rank < self.eps[:, None]) & (gain > 0)


@dataclass(frozen=True, slots=True, eq=False)
class SparseBall(Ball):
    """At most `eps` entries of the input changed, within the input range.

    Attributes:
        eps: how many entries, rounded down; a number, or one per sample, shape (batch,); inf for
            any.
        p: 0.
        lower, upper: as for `Ball`.

    Raises:
        AttackInputError: if `p` is given and not 0, or `eps` is negative or NaN.
    """

    eps: float | Tensor = math.inf
    p: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        if self.p != 0 or not bool((torch.as_tensor(self.eps) >= 0).all()):
            raise AttackInputError(
                f"SparseBall counts entries: it needs p = 0 and eps >= 0, got p = {self.p!r}, "
                f"eps = {self.eps!r}. Take Ball for the other norms."
            )

    def around(self, centre: Tensor) -> SparseRegion:
        """The set at each of the given inputs; see `Ball.around`."""
        # The L-inf ball of any radius above 0 checks the same; its box with eps = inf is the range.
        whole = Ball(math.inf, math.inf, self.lower, self.upper).around(centre)
        counts = Ball(self.eps, math.inf, self.lower, self.upper).around(centre).eps.floor()
        return SparseRegion(centre, counts, 0.0, whole.low, whole.high)
