"""Spec: what must hold of the output, as linear rows of which enough must be positive."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """A conjunction of clauses; a clause holds if one of its rows has coeff·y + const > required.

    Attributes:
        coeff: shape (batch, row, out).
        const: shape (batch, row).
        required: what rows must exceed; 0 except where a dropped Softmax needs a gap.
        clause: int64, shape (row,): the number of each row's clause, from 0 without gaps and the
            same for the whole batch; None if every row is a clause of its own.
    """

    coeff: Tensor
    const: Tensor
    required: float = 0.0
    clause: Tensor | None = None

    def margins(self, output: Tensor) -> Tensor:
        """Value of each row at an output of shape (batch, out); shape (batch, row)."""
        rows = self.coeff.to(output.dtype)
        return torch.einsum("bro,bo->br", rows, output.flatten(1)) + self.const.to(output.dtype)

    def least(self, margins: Tensor) -> Tensor:
        """The least clause's margin, (batch,), from margins of the rows, (batch, row).

        A clause is worth the best of its rows; the spec holds where the result exceeds `required`.
        NaN counts as -inf: it proves nothing.
        """
        known = torch.where(torch.isnan(margins), -torch.inf, margins)
        if self.clause is None:
            return known.amin(dim=1)
        clauses = int(self.clause.max()) + 1
        best = known.new_full((len(known), clauses), -torch.inf)
        best = best.scatter_reduce(1, self.clause.expand_as(known), known, "amax")
        return best.amin(dim=1)

    def take(self, rows: Tensor) -> Spec:
        """The specs of some of the batch."""
        return replace(self, coeff=self.coeff[rows], const=self.const[rows])

    def to(self, dtype: torch.dtype) -> Spec:
        """The same rows in another dtype (label rows are exact in all)."""
        return replace(self, coeff=self.coeff.to(dtype), const=self.const.to(dtype))


SOFTMAX_GAP = 1e-5
"""How far apart two logits must be for a float32 softmax to keep their order strictly: its
exponentials and quotients carry relative errors below 4e-6 together (docs/guarantees.md)."""


def classified_as(labels: Tensor, classes: int, *, tail: str | None = None) -> Spec:
    """The label's output exceeds every other: rows y_label - y_j for each j != label.

    Args:
        labels: int64, shape (batch,).
        classes: number of outputs.
        tail: `Graph.tail`; after a softmax the order of its outputs is what counts.

    Returns:
        Rows in ascending order of j; shape (batch, classes - 1, classes), float64.

    Raises:
        DataError: if a label is not a class of the network, or there are fewer than two classes.
    """
    if classes < 2:
        raise DataError(
            f"the model has {classes} output(s), but a classifier needs at least two; "
            "state the property with VNN-LIB instead"
        )
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"label {int(labels[first])} of sample {first} is out of range: the model has "
            f"{classes} classes, 0 to {classes - 1}; check the labels' column or file"
        )
    every = torch.eye(classes, dtype=torch.float64, device=labels.device)
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    others = others + (others >= labels[:, None])
    coeff = every[labels][:, None] - every[others]
    gap = SOFTMAX_GAP if tail in ("Softmax", "LogSoftmax") else 0.0
    return Spec(coeff, torch.zeros_like(others, dtype=torch.float64), gap)
