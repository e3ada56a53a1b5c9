"""Property: what must never happen, as VNN-LIB states it: cases of unsafe inputs and outputs.

A property is a disjunction of cases. A case is a box of inputs, cut by linear constraints, and a
disjunction of unsafe clauses over the outputs, each a conjunction of halfspaces. The property holds
if no case can be met; one input that meets one clause of its case is a counterexample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.errors import ShapeError
from verify.values.spec import Spec


@dataclass(frozen=True, slots=True, eq=False)
class Halfspaces:
    """A conjunction of linear constraints: coeff·v + const <= 0, or < 0 where strict.

    Attributes:
        coeff: shape (row, entries), float64.
        const: shape (row,), float64.
        strict: bool, shape (row,): whether equality is excluded.
    """

    coeff: Tensor
    const: Tensor
    strict: Tensor

    def __post_init__(self) -> None:
        if not self.coeff.shape[:1] == self.const.shape == self.strict.shape:
            raise ShapeError(
                f"halfspaces hold coefficients {tuple(self.coeff.shape)}, "
                f"constants {tuple(self.const.shape)}, flags "
                f"{tuple(self.strict.shape)}: one each a row"
            )

    def __len__(self) -> int:
        return len(self.const)

    def values(self, points: Tensor) -> Tensor:
        """coeff·v + const at points of shape (batch, entries), in float64; (batch, row)."""
        return points.to(torch.float64).flatten(1) @ self.coeff.T + self.const

    def contain(self, points: Tensor) -> Tensor:
        """Which points meet every constraint; bool, (batch,). NaN meets none."""
        values = self.values(points)
        return torch.where(self.strict, values < 0, values <= 0).all(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One set of inputs and what their outputs must not be.

    Attributes:
        lower, upper: the box of inputs, float64, shape (inputs,), flat in the file's order.
        inputs: linear constraints that tie inputs together; no rows where there are none.
        clauses: the unsafe outputs; meeting all rows of any one clause is unsafe. A clause without
            rows is met by every output.
    """

    lower: Tensor
    upper: Tensor
    inputs: Halfspaces
    clauses: tuple[Halfspaces, ...]

    def spec(self) -> Spec:
        """What must hold of the outputs: of each clause, at least one row is positive.

        A batch of one. Every clause must have a row; `coeff·y + const` is a row's margin, so the
        clause is out of reach as soon as one of its margins is > 0 all over the box.
        """
        coeff = torch.cat([clause.coeff for clause in self.clauses])
        const = torch.cat([clause.const for clause in self.clauses])
        sizes = torch.tensor([len(clause) for clause in self.clauses])
        index = torch.repeat_interleave(torch.arange(len(self.clauses)), sizes)
        return Spec(coeff[None], const[None], clause=index)


@dataclass(frozen=True, slots=True, eq=False)
class Property:
    """A disjunction of cases, none of which must be possible.

    Attributes:
        cases: those of the file, with equal boxes joined.
        inputs, outputs: how many entries there are.
    """

    cases: tuple[Case, ...]
    inputs: int
    outputs: int
