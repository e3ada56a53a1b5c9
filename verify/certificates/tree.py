"""The tree of splits of one case, with slopes and multipliers, as a search leaves it behind."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Slopes = dict[str, NDArray[np.floating]]
"""Lower slopes by the name of a Relu: shape (row, neuron), NaN where none are known."""


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
    """How one row of one clause is bounded at a node, for all below it.

    Attributes:
        clause, row: which clause of the case, and which of its rows.
        slopes: for this row, shape (1, neuron) each.
        betas: a multiplier >= 0 for each Relu split on the path from the root, in order.
    """

    clause: int
    row: int
    slopes: Slopes = field(default_factory=dict)
    betas: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Tightening:
    """Rows that tighten the input of a Relu, or of a maximum, over the whole box of a case.

    Attributes:
        relu: the name of the Relu or maximum.
        entries: neurons, int, shape (row,).
        sign: +1 for lower bounds, -1 for upper ones.
        slopes: of the rows.
    """

    relu: str
    entries: NDArray[np.integer]
    sign: int
    slopes: Slopes


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
    tightenings: list[Tightening] = field(default_factory=list)


def whole(clauses: int, tree: Branch) -> CaseProof:
    """One tree for all clauses of a case."""
    return CaseProof([Part(list(range(clauses)), tree)])
