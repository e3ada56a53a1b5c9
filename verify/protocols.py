"""The replaceable parts, as protocols: a bounder, a falsifier, a judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from verify.problem import Problem
from verify.values.budget import Budget
from verify.values.enclosure import Enclosure
from verify.values.question import Question

Model = Callable[[Tensor], Tensor]
"""(batch, *input) -> logits (batch, classes), differentiable in torch."""


class Bounder(Protocol):
    """Bounds a problem from below; never raises for looseness, only for lack of time."""

    def __call__(self, problem: Problem, budget: Budget) -> Enclosure:
        """Lower bounds of the spec's rows; raises OutOfTime."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What a falsifier suggests; `verify` judges it.

    Attributes:
        candidate: shape (batch, *input), float32.
        attack: per sample, the name of the attack behind it; "" where it found nothing.
    """

    candidate: Tensor
    attack: tuple[str, ...]


class Falsifier(Protocol):
    """Looks for misclassified inputs; passed in, because attacks are another package."""

    def propose(self, model: Model, asked: Question) -> Proposal:
        """A candidate inside each neighbourhood."""
        ...

    def nearest(self, model: Model, asked: Question) -> Proposal:
        """A misclassified candidate as near as possible, at most eps away."""
        ...


class Judge(Protocol):
    """The model's own runtime."""

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        """Which float32 inputs the model itself puts strictly above their label; bool, (batch,)."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """The class the model itself gives each input; int64, (batch,)."""
        ...
