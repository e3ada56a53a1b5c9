"""The tree of splits of one case, with slopes and multipliers, as a search leaves it behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Slopes = dict[str, Array]
"""Lower slopes by the name of a Relu: shape (row, neuron), NaN where none are known."""


@dataclass(frozen=True, eq=False)
class Entries:
    """Values at some neurons of some rows.

    Attributes:
        relus: names.
        row, relu, neuron: of each value; `relu` is a place among `relus`.
        value: shape (entry,).
    """

    relus: tuple[str, ...]
    row: NDArray[np.integer]
    relu: NDArray[np.integer]
    neuron: NDArray[np.integer]
    value: Array

    @staticmethod
    def none() -> Entries:
        """No value anywhere."""
        at = np.zeros(0, np.int64)
        return Entries((), at, at, at, np.zeros(0))


@dataclass(frozen=True)
class InputSplit:
    """One entry of the input, below or above a value."""

    axis: int
    value: float


@dataclass(frozen=True)
class ReluSplit:
    """One neuron's input, <= 0 or >= 0."""

    relu: str
    neuron: int


@dataclass(frozen=True, eq=False)
class Proof:
    """Rows that are bounded at a node of the tree, for all below it.

    Attributes:
        clause: of the case, whose rows are weighed.
        weight: of the clause's rows, >= 0, shape (row, rows of the clause).
        slopes: shape (row, neuron) each.
        pushes: multipliers of neurons' inputs.
        relu: the Relu, or maximum, whose inputs the rows bound; "" where they prove the clause.
        entries: those inputs, shape (row,).
        sign: +1 for lower bounds, -1 for upper ones.
        path: splits below the node that a row is bounded under, in order: 1 for >= 0, -1 for <= 0.
            Rows of one entry that have any stand together, and are the leaves of a whole tree.
        fine: whether the slopes are kept in float32, and where the sign of a neuron is known.
    """

    clause: int
    weight: Array
    slopes: Slopes = field(default_factory=dict)
    pushes: Entries = field(default_factory=Entries.none)
    relu: str = ""
    entries: NDArray[np.integer] = field(default_factory=lambda: np.full(1, -1))
    sign: int = 1
    path: Entries = field(default_factory=Entries.none)
    fine: bool = False

    def about(self, clause: int) -> Proof:
        """The same of a clause with another number."""
        return replace(self, clause=clause)


def of_row(clause: int, row: int, slopes: Slopes, pushes: Entries | None = None) -> Proof:
    """A clause proved by one of its rows; slopes of shape (1, neuron)."""
    return Proof(clause, np.eye(1, row + 1, row), slopes, pushes or Entries.none())


def tightening(relu: str, entries: NDArray[np.integer], sign: int, slopes: Slopes) -> Proof:
    """Rows that bound inputs of a Relu, or of a maximum, over the whole box of a case."""
    return Proof(0, np.zeros((len(entries), 0)), slopes, relu=relu, entries=entries, sign=sign)


@dataclass(eq=False)
class Branch:
    """A node of the tree: a leaf if it is not split."""

    split: InputSplit | ReluSplit | None = None
    first: Branch | None = None
    second: Branch | None = None
    proofs: list[Proof] = field(default_factory=list)

    def cut(self, split: InputSplit | ReluSplit) -> tuple[Branch, Branch]:
        """Split the node; returns the children: below and above, or <= 0 and >= 0."""
        self.split, self.first, self.second = split, Branch(), Branch()
        return self.first, self.second

    def preorder(self) -> list[Branch]:
        """The node and all below it, first children first; without recursion."""
        found, waiting = [], [self]
        while waiting:
            node = waiting.pop()
            found.append(node)
            if node.first is not None and node.second is not None:
                waiting += [node.second, node.first]
        return found


@dataclass(eq=False)
class Part:
    """A tree that proves some clauses of a case."""

    clauses: list[int]
    tree: Branch


@dataclass(eq=False)
class CaseProof:
    """Everything that is written down about one case."""

    parts: list[Part]
    tightenings: list[Proof] = field(default_factory=list)


def whole(clauses: int, tree: Branch) -> CaseProof:
    """One tree for all clauses of a case."""
    return CaseProof([Part(list(range(clauses)), tree)])
