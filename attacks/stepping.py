"""Projected steps of many lanes, with what stays the same from step to step worked out once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.region import Region


@dataclass(frozen=True, slots=True, eq=False)
class Stepper:
    """Moves points about a region, one lane per sample of it.

    Attributes:
        region: finite, as every oracle's is.
        pace: L-inf: how far each entry may move from the centre; like the centre. Otherwise None.
    """

    region: Region
    pace: Tensor | None

    @staticmethod
    def within(region: Region) -> "Stepper":
        """For all samples of the region."""
        if region.p != math.inf:
            return Stepper(region, None)
        return Stepper(
            region, torch.maximum(region.high - region.centre, region.centre - region.low)
        )

    def rows(self, index: Tensor) -> "Stepper":
        """For the chosen samples; a mask or an index."""
        return Stepper(self.region.rows(index), None if self.pace is None else self.pace[index])

    def descend(
        self,
        at: Tensor,
        slope: Tensor,
        size: Tensor | float,
        density: float = 1.0,
        push: Tensor | None = None,
    ) -> Tensor:
        """The projection of `at`, less a step of steepest ascent along `slope`, plus `push`.

        Args:
            at: shape (lanes, *input), in the region.
            slope: same shape. Entries that are 0 or NaN do not move.
            size: a number or shape (lanes,), float64; see `Region.step`.
            density: see `Region.step`.
            push: shape (lanes, *input), finite.
        """
        if self.pace is None:
            sizes = size if isinstance(size, Tensor) else self.region.eps.new_full((len(at),), size)
            there = self.region.step(at, -slope, sizes, density)
            return self.region.project(there if push is None else there + push)
        # The sign of NaN is 0 in torch, so the sum is finite and its projection but a clamp.
        begin = at if push is None else at + push
        if isinstance(size, Tensor):
            pace = self.pace * size.to(at.dtype).view(-1, *[1] * (at.dim() - 1))
            there = torch.addcmul(begin, pace, slope.sign(), value=-1)
        else:
            there = torch.addcmul(begin, self.pace, slope.sign(), value=-size)
        return there.clamp_(self.region.low, self.region.high)

    def settle(self, points: Tensor) -> Tensor:
        """The projection of finite points; `points` may be overwritten."""
        if self.pace is None:
            return self.region.project(points)
        return points.clamp_(self.region.low, self.region.high)
