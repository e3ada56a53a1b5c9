"""The search for a penalty's weight, per sample: as small as still succeeds."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# The weight grows by this factor while nothing is found, and falls by it while nothing fails.
FACTOR = 10.0


@dataclass(slots=True, eq=False)
class WeightSearch:
    """A bracket of weights per sample; mutable.

    Attributes:
        weight: shape (rows,), float64: what to try next.
        failed: the largest that failed; 0 if none has.
        worked: the smallest that worked; inf if none has.
    """

    weight: Tensor
    failed: Tensor
    worked: Tensor

    @staticmethod
    def begin(weight: Tensor) -> "WeightSearch":
        """Nothing tried; `weight` first."""
        return WeightSearch(weight, torch.zeros_like(weight), torch.full_like(weight, math.inf))

    def note(self, success: Tensor) -> None:
        """Learn which rows the current weight sufficed for, and choose the next."""
        self.worked = torch.where(success, torch.minimum(self.worked, self.weight), self.worked)
        self.failed = torch.where(success, self.failed, torch.maximum(self.failed, self.weight))
        between = (self.failed * self.worked).sqrt()
        grown = self.weight * FACTOR
        fallen = self.weight / FACTOR
        tried = torch.where(self.worked.isfinite(), between, grown)
        self.weight = torch.where(self.failed > 0, tried, fallen)
