"""Query counts per sample, cheap to keep where the same samples are asked about step after step."""

import torch
from torch import Tensor


class Tally:
    """How often each sample was asked about; mutable.

    A walk asks with one tensor of rows until a sample drops out, so repeats of the same tensor are
    only counted, and added up when the total is wanted.
    """

    def __init__(self, total: Tensor) -> None:
        """Count on from `total`, shape (batch,), int64."""
        self._total = total
        self._rows: Tensor | None = None
        self._times = 0

    def add(self, rows: Tensor) -> None:
        """One query for each entry of `rows`, shape (rows,), which must not change afterwards."""
        if rows is not self._rows:
            self._settle()
            self._rows = rows
        self._times += 1

    def total(self) -> Tensor:
        """Queries so far; shape (batch,), int64."""
        self._settle()
        return self._total

    def _settle(self) -> None:
        if self._rows is not None and self._times:
            counts = torch.bincount(self._rows, minlength=len(self._total))
            self._total = self._total + self._times * counts
            self._times = 0
