"""Property: what must never happen, as VNN-LIB states it: cases of unsafe inputs and outputs.

A property is a disjunction of cases. A case is a box of inputs, cut by linear constraints, and a
disjunction of unsafe clauses over the outputs, each a conjunction of halfspaces. The property holds
if no case can be met; one input that meets one clause of its case is a counterexample.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from verify.errors import ShapeError
from verify.values.bounds import Bounds
from verify.values.spec import Spec


@dataclass(frozen=True, slots=True, eq=False)
class Halfspaces:
    """A conjunction of linear constraints: coeff·v + const <= 0, or < 0 where strict.

    Attributes:
        coeff: shape (row, entries), float64.
        const: shape (row,), float64.
        strict: bool, shape (row,): whether equality is excluded.
        narrow: shape (row,): constants no less than the stated ones, where `const` is no more:
            what proves covers a little more than was stated, what refutes keeps a little within.
            None where both are exact.
    """

    coeff: Tensor
    const: Tensor
    strict: Tensor
    narrow: Tensor | None = None

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

    def surely_contain(self, point: Tensor) -> bool:
        """Whether one point, shape (entries,), meets every stated constraint, without rounding."""
        flat = point.flatten()
        if not bool(torch.isfinite(flat).all()):
            return False
        entries = [Fraction(v) for v in flat.tolist()]
        const = self.const if self.narrow is None else self.narrow
        for row, offset, strict in zip(
            self.coeff, const.tolist(), self.strict.tolist(), strict=True
        ):
            value = Fraction(offset)
            for column in row.nonzero().flatten().tolist():
                value += Fraction(float(row[column])) * entries[column]
            if value > 0 or (strict and value == 0):
                return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One set of inputs and what their outputs must not be.

    Attributes:
        lower, upper: the box of inputs, float64, shape (inputs,), flat in the file's order.
        inputs: linear constraints that tie inputs together; no rows where there are none.
        clauses: the unsafe outputs; meeting all rows of any one clause is unsafe. A clause without
            rows is met by every output.
        floats: the float32 inputs that count as witnesses, shape (inputs,): those of the stated
            box, and where an entry's interval holds none, the float32 nearest to it. The box above
            is rounded outward and holds them all. None: all float32 numbers of the box.
    """

    lower: Tensor
    upper: Tensor
    inputs: Halfspaces
    clauses: tuple[Halfspaces, ...]
    floats: Bounds | None = None

    def witnesses(self) -> Bounds:
        """The least and the largest float32 input that counts as a witness, shape (inputs,)."""
        return floats_within(self.lower, self.upper) if self.floats is None else self.floats

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
        mixed: whether the clauses are over the outputs followed by the inputs, because some
            constraint ties the two together.
    """

    cases: tuple[Case, ...]
    inputs: int
    outputs: int
    mixed: bool = False


def floats_within(lower: Tensor, upper: Tensor) -> Bounds:
    """The float32 numbers from lower to upper; where there are none, the nearest to the middle.

    Args:
        lower, upper: float64, of one shape, lower <= upper.
    """
    low, high = lower.to(torch.float32), upper.to(torch.float32)
    up, down = torch.full_like(low, torch.inf), torch.full_like(high, -torch.inf)
    low = torch.where(low.to(torch.float64) < lower, torch.nextafter(low, up), low)
    high = torch.where(high.to(torch.float64) > upper, torch.nextafter(high, down), high)
    middle = (lower / 2 + upper / 2).to(torch.float32)
    none = low > high
    return Bounds(torch.where(none, middle, low), torch.where(none, middle, high))
