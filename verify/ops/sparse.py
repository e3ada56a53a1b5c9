"""Rows times a matrix of which nearly all is 0: each column picks the few entries that it reads.

Layers that take minima and maxima of many pieces, that select or that add up groups are written as
dense ones; their matrices hold a handful of entries a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

LEAST_ENTRIES = 2**14
"""Smaller matrices are multiplied faster than they are looked at."""
PICKED = 16
"""Multiplications of a dense product that take as long as one entry that is picked."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A matrix of shape (rows, columns) by its columns.

    Attributes:
        place: which rows a column reads, shape (few, columns); any row where it reads fewer.
        entry: the numbers there, shape (few, columns); 0 where it reads fewer.
    """

    place: Tensor
    entry: Tensor

    def after(self, rows: Tensor) -> Tensor:
        """rows·W for rows of shape (any, rows of W); sums have at most `few` terms."""
        total = rows.index_select(1, self.place[0]).mul_(self.entry[0])
        for place, entry in zip(self.place[1:], self.entry[1:], strict=True):
            total.addcmul_(rows.index_select(1, place), entry)
        return total


def columns_of(weight: Tensor) -> Columns | None:
    """A matrix by its columns, if that is the faster way to multiply by it; else None."""
    most = weight.shape[0] // PICKED
    if int((weight[:, 0] != 0).sum()) > most:
        return None  # an ordinary matrix is told by its first column
    present = weight != 0  # NaN is not 0
    few = max(1, int(present.sum(dim=0).amax()))
    if few > most:
        return None
    place = present.to(torch.uint8).topk(few, dim=0).indices
    return Columns(place, weight.gather(0, place))


BACKWARD: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""What was found of weights in use, kept as long as they are."""
FORWARD: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The same of their transposes."""


def times(rows: Tensor, weight: Tensor) -> Tensor:
    """rows·W on the last axis, summed in any order; W is not to change afterwards."""
    if weight.numel() < LEAST_ENTRIES or weight.requires_grad:
        return rows @ weight
    if weight not in BACKWARD:
        BACKWARD[weight] = columns_of(weight)
    columns: Columns | None = BACKWARD[weight]
    return rows @ weight if columns is None else picked(rows, columns)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·W' + b on the last axis, summed in any order; W is not to change afterwards."""
    if weight.numel() < LEAST_ENTRIES or weight.requires_grad:
        return functional.linear(x, weight, bias)
    if weight not in FORWARD:
        FORWARD[weight] = columns_of(weight.T)
    columns: Columns | None = FORWARD[weight]
    if columns is None:
        return functional.linear(x, weight, bias)
    found = picked(x, columns)
    return found if bias is None else found + bias


def picked(rows: Tensor, columns: Columns) -> Tensor:
    """Rows with any axes before them."""
    flat = columns.after(rows.reshape(-1, rows.shape[-1]))
    return flat.view(*rows.shape[:-1], flat.shape[1])
