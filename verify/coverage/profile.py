"""Profile: which values each neuron takes on training data, which several criteria refer to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.coverage.layers import Layer, activations
from verify.errors import DataError
from verify.graph.ir import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """What one layer's neurons did.

    Attributes:
        low, high: shape (neurons,), the least and the largest value seen.
        mean, deviation: shape (neurons,), float64; the deviation divides by the count.
        count: inputs seen.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor
    count: int

    def widened(self, deviations: float) -> tuple[Tensor, Tensor]:
        """(low, high), each moved outward by so many standard deviations."""
        if deviations == 0:
            return self.low, self.high
        slack = (deviations * self.deviation).to(self.low.dtype)
        return self.low - slack, self.high + slack


Profile = Mapping[str, Range]


def profile_of(
    graph: Graph, x: Tensor, layers: Sequence[Layer], *, at_once: int | None = None
) -> Profile:
    """The range of every neuron on the inputs `x`, shape (batch, *input), usually training data.

    Memory does not grow with their number. Means and deviations are joined batch by batch (Chan,
    Golub, LeVeque 1983), in float64.

    Raises:
        DataError: if there is no input.
    """
    if not len(x):
        raise DataError("a profile needs at least one input; give some with --profile")
    found: dict[str, Range] = {}
    for part in activations(graph, x, layers, at_once=at_once):
        for name, values in part.items():
            wide = values.double()
            new = Range(
                values.amin(dim=0),
                values.amax(dim=0),
                wide.mean(dim=0),
                wide.std(dim=0, correction=0),
                len(values),
            )
            found[name] = joined(found[name], new) if name in found else new
    return found


def joined(one: Range, other: Range) -> Range:
    """The range over both."""
    count = one.count + other.count
    share = other.count / count
    apart = other.mean - one.mean
    variance = (
        one.deviation.square() * (1 - share)
        + other.deviation.square() * share
        + apart.square() * share * (1 - share)
    )
    return Range(
        torch.minimum(one.low, other.low),
        torch.maximum(one.high, other.high),
        one.mean + apart * share,
        variance.sqrt(),
        count,
    )
