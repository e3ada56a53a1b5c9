"""Adam for many unconnected problems at once, each row its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

GUARD = 1e-8


@dataclass(slots=True, eq=False)
class Adam:
    """Running means of gradients and their squares; mutable, one per search.

    Source:
        Kingma, Ba 2015, arXiv:1412.6980, with its constants.
    """

    mean: Tensor
    square: Tensor
    steps: int = 0
    keep_mean: float = 0.9
    keep_square: float = 0.999

    @staticmethod
    def zeros(like: Tensor) -> "Adam":
        """Nothing seen yet; the shape is that of `like`."""
        return Adam(torch.zeros_like(like), torch.zeros_like(like))

    def direction(self, slope: Tensor) -> Tensor:
        """The step to subtract, of about unit size per entry, after one more gradient."""
        self.steps += 1
        self.mean = self.keep_mean * self.mean + (1 - self.keep_mean) * slope
        self.square = self.keep_square * self.square + (1 - self.keep_square) * slope.square()
        mean = self.mean / (1 - self.keep_mean**self.steps)
        square = self.square / (1 - self.keep_square**self.steps)
        return mean / (square.sqrt() + GUARD)
