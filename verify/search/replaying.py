"""Replaying: whether a float32 input is a counterexample, decided by the model's own runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verify.values.property import Case

Executions = Callable[[Tensor], list[Tensor]]
"""(batch, *input) float32 -> what each way of running the file gives, (batch, *output) each."""

MOST_REPLAYED = 16
"""Candidates of one call that are shown to the runtime; it runs them one by one."""


class Replaying(Protocol):
    """What decides whether inputs are counterexamples of a case."""

    @property
    def case(self) -> Case:
        """As stated."""

    def check(self, candidates: Tensor) -> Tensor | None:
        """The first of the candidates (batch, inputs) that is one; shape (*input), or None."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Says whether inputs meet a case, exactly and in every way of running the file.

    Also a `verify.search.outcome.Refuter` without an attack: it tries the boxes' middles.

    Attributes:
        case: as stated.
        run: the file in its runtime, in each way that has to agree.
        shape: of one input.
        mixed: see `Property`.
    """

    case: Case
    run: Executions
    shape: tuple[int, ...]
    mixed: bool = False

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """The middle of a box, if it is a counterexample."""
        few = max(1, round(4 * effort))
        return self.check((lower[:few] + upper[:few]) / 2)

    def check(self, candidates: Tensor) -> Tensor | None:
        """The first of the candidates (batch, inputs) that is a counterexample; (*input), or None.

        Candidates are rounded into the case's float32 inputs first.
        """
        within = self.case.witnesses()
        flat = candidates.detach().flatten(1).to(torch.float32)
        flat = torch.where(torch.isfinite(flat), flat, within.lower)
        points = torch.minimum(torch.maximum(flat, within.lower), within.upper)
        for point in points[:MOST_REPLAYED]:
            if self.meets(point):
                found: Tensor = point.view(self.shape)
                return found
        return None

    def meets(self, point: Tensor) -> bool:
        """Whether one flat float32 input of the case meets it."""
        if len(self.case.inputs) and not self.case.inputs.surely_contain(point):
            return False
        ways = self.run(point.view(1, *self.shape))
        for output in ways:
            entries = output.flatten().to(torch.float64)
            if self.mixed:
                entries = torch.cat((entries, point.to(torch.float64)))
            if not any(clause.surely_contain(entries) for clause in self.case.clauses):
                return False
        return True
