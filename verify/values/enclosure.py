"""Enclosure: what a bounder says about a problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from verify.values.bounds import Bounds


@dataclass(frozen=True, slots=True, eq=False)
class Enclosure:
    """Lower bounds of the spec's rows, and the node bounds that led to them.

    Attributes:
        margin: shape (batch, row); each row's value is at least this for every input.
        bounds: enclosures of the nodes, by name.
        rigorous: whether rounding, ours and the deployed one, is accounted for.
    """

    margin: Tensor
    bounds: Mapping[str, Bounds]
    rigorous: bool
