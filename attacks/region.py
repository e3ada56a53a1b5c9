"""A ball placed at the inputs of one batch: the set in which an attack moves."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.projection import farthest_l1, farthest_l2, project_l1, project_l2
from attacks.randomness import laplace, normal, uniform
from attacks.rounding import difference_up, fit, norm_up, place

# Projection onto an L1 ball takes back most of a step by shrinking every entry; measured on digits
# nets, L1 steps have to be this much longer to settle as fast as those of the other norms.
L1_STRETCH = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The points within `eps` of `centre` in the p-norm and within the input range, per sample.

    Made by `Ball.around`, which checks its arguments.

    Attributes:
        centre: shape (batch, *input), float32 or float64.
        eps: shape (batch,), float64, in model input units; may be inf.
        p: inf, 2 or 1.
        low: the least value each entry takes in the set, rounded inwards; like `centre`.
        high: the greatest, likewise.

    Every point that a method returns lies in the set in exact arithmetic, not just up to rounding.
    """

    centre: Tensor
    eps: Tensor
    p: float
    low: Tensor
    high: Tensor

    def rows(self, index: Tensor) -> "Region":
        """The region of the chosen samples, which may repeat; `index` has shape (rows,)."""
        return Region(
            self.centre[index], self.eps[index], self.p, self.low[index], self.high[index]
        )

    def reach(self) -> Tensor:
        """The largest distance that the set allows, at most eps; shape (batch,), float64."""
        return torch.minimum(self.eps, norm_up(self._extent(), self.p))

    def contains(self, x: Tensor) -> Tensor:
        """Whether each point certainly lies in the set; shape (batch,), bool.

        Exact for L-inf. For L2 and L1 a point within a relative n * 2**-51 of the sphere may be
        refused, but none outside is accepted. NaN is outside.
        """
        in_box = (x >= self.low) & (x <= self.high)
        return in_box.flatten(1).all(dim=1) & (self.distance(x) <= self.eps)

    def distance(self, x: Tensor) -> Tensor:
        """The p-norm of x - centre, rounded up; shape (batch,), float64."""
        return norm_up(difference_up(x, self.centre).flatten(1), self.p)

    def project(self, x: Tensor) -> Tensor:
        """The Euclidean projection of each point onto the set, rounded inwards.

        A point that lies inside already is returned unchanged, to the bit.

        Args:
            x: shape (batch, *input); entries that are NaN or infinite become the centre's.
        """
        x = torch.where(x.isfinite(), x, self.centre)
        if self.p == math.inf:
            return x.clamp(self.low, self.high)
        centre, low, high = self._box()
        delta = x.flatten(1).double() - centre.double()
        nearest = project_l2 if self.p == 2 else project_l1
        projected = self._put(nearest(delta, low, high, self.eps))
        inside = self.contains(x).reshape(-1, *[1] * (x.dim() - 1))
        return torch.where(inside, x, projected)

    def extreme(self, gradient: Tensor) -> Tensor:
        """The point of the set with the largest inner product with `gradient`, rounded inwards.

        For a model that is linear around the centre this is the worst point of all.

        Args:
            gradient: shape (batch, *input). Entries that are 0 or NaN do not move.
        """
        gradient = torch.where(gradient.isnan(), 0.0, gradient)
        if self.p == math.inf:
            point = torch.where(gradient > 0, self.high, self.low)
            return torch.where(gradient == 0, self.centre, point)
        _, low, high = self._box()
        farthest = farthest_l2 if self.p == 2 else farthest_l1
        return self._put(farthest(gradient.flatten(1).double(), low, high, self.eps))

    def sample(self, keys: Tensor) -> Tensor:
        """A random point of the set for each sample.

        L-inf: uniform in the set. L2, L1: uniform in the ball, then clipped to the range.

        Args:
            keys: shape (batch,), int64; equal keys give equal points.
        """
        centre, low, high = self._box()
        size = centre.shape[1]
        if self.p == math.inf:
            return self._put(low + uniform(keys, size) * (high - low))
        # Divided by its norm and times u^(1/n), a Gaussian (Laplace) vector is uniform in the
        # L2 (L1) ball.
        direction = normal(keys, size) if self.p == 2 else laplace(keys, size)
        length = torch.linalg.vector_norm(direction, ord=self.p, dim=1)
        radius = self.reach() * uniform(keys + 1, 1).squeeze(1) ** (1 / size)
        delta = direction * (radius / length)[:, None]
        return self._put(delta.clamp(low, high))

    def step(self, at: Tensor, gradient: Tensor, size: Tensor, density: float) -> Tensor:
        """`at` plus a step of steepest ascent along `gradient`, not yet projected.

        L-inf: the sign, in units of what each entry may move. L2: the unit vector. L1: the sign on
        the entries of largest slope, `density` of them, sharing a step `L1_STRETCH` as long.
        Under L2 and L1 entries that the range stops are left out: none of the step is wasted.

        Args:
            at: shape (batch, *input), in the set.
            gradient: same shape. Where it is 0 or NaN throughout, the point stays.
            size: shape (batch,), float64, as a fraction of `reach`.
            density: in (0, 1], used by L1 alone.

        Source:
            Sparse L1 steps: Tramer, Boneh 2019 (SLIDE), arXiv:1904.13000; Croce, Hein 2021,
            arXiv:2103.01208.
        """
        slope = torch.where(gradient.isnan(), 0.0, gradient).flatten(1).double()
        if self.p == math.inf:
            move = slope.sign() * size[:, None] * self._extent()
        else:
            stopped = ((at >= self.high) & (gradient > 0)) | ((at <= self.low) & (gradient < 0))
            slope = torch.where(stopped.flatten(1), 0.0, slope)
            # Scaled by its largest entry: the squares of a tiny gradient must not underflow.
            largest = slope.abs().amax(dim=1, keepdim=True)
            slope = slope / torch.where(largest > 0, largest, 1.0)
            if self.p == 2:
                length = torch.linalg.vector_norm(slope, dim=1, keepdim=True)
                unit = slope / torch.where(length > 0, length, 1.0)
            else:
                count = max(1, round(density * slope.shape[1]))
                top = slope.abs().topk(count, dim=1).indices
                unit = torch.zeros_like(slope).scatter(1, top, slope.gather(1, top)).sign()
                unit = L1_STRETCH * unit / unit.abs().sum(dim=1, keepdim=True).clamp(min=1)
            move = unit * (size * self.reach())[:, None]
        return at + move.view_as(at).to(at.dtype)

    def _box(self) -> tuple[Tensor, Tensor, Tensor]:
        """Centre in its dtype, and low and high relative to it in float64, flat."""
        centre = self.centre.flatten(1)
        low = self.low.flatten(1).double() - centre.double()
        high = self.high.flatten(1).double() - centre.double()
        return centre, low, high

    def _extent(self) -> Tensor:
        """How far each entry may move from the centre; shape (batch, n), float64."""
        _, low, high = self._box()
        return torch.maximum(-low, high)

    def _put(self, delta: Tensor) -> Tensor:
        """centre + delta, made to lie in the set whatever the roundings that led to `delta`."""
        if self.p != math.inf:
            delta = fit(delta, self.eps, self.p)
        point = place(self.centre.flatten(1), delta).view_as(self.centre)
        return point.clamp(self.low, self.high)
