"""Differences: certified bounds of z_k - z_j for all pairs of classes, and of the logits.

A softmax depends on differences of logits alone. Bounding them as rows of their own keeps what the
logits have in common, which bounds of single logits forget.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.confidence.directed import added_up, over_up
from verify.confidence.reach import Reach
from verify.errors import SettingError
from verify.values.bounds import Bounds

MOST_PAIRED = 48
"""Classes up to which every ordered pair gets a row; beyond it, pairs with the label's class and
the predicted one do, and the others follow from them by z_k - z_j = (z_k - z_a) + (z_a - z_j)."""


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Enclosure of all differences of logits over each region.

    Attributes:
        upper: U, shape (batch, classes, classes), float64: U[k, j] >= z_k - z_j for every input of
            the region and every float32 execution; 0 on the diagonal, +inf where nothing is known.
        logits: of single logits, shape (batch, classes).
    """

    upper: Tensor
    logits: Bounds

    def at_temperature(self, temperature: float) -> Differences:
        """The same of z / temperature, rounded outward.

        Raises:
            SettingError: if the temperature is not a positive number.
        """
        check_temperature(temperature)
        if temperature == 1:
            return self
        upper = over_up(self.upper, temperature)
        upper.diagonal(dim1=1, dim2=2).zero_()
        low, high = (
            -over_up(-self.logits.lower, temperature),
            over_up(self.logits.upper, temperature),
        )
        return Differences(upper, Bounds(low, high))

    def take(self, rows: Tensor) -> Differences:
        """Some of the batch."""
        return Differences(self.upper[rows], self.logits.take(rows))


def check_temperature(temperature: float) -> None:
    """Refuse what is no temperature."""
    if not 0 < temperature < float("inf"):
        raise SettingError(
            f"temperature is {temperature!r}, but logits are divided by it: it must be a finite "
            "number > 0; 1 leaves the model as it is"
        )


def differences(reach: Reach, anchors: Tensor) -> Differences:
    """Bound all pairs of logits and every logit, in one pass over the network.

    Args:
        reach: of the batch.
        anchors: classes that pairs go through where there are too many to bound all, shape
            (batch, anchors).

    Raises:
        OutOfTime: if the time granted is over.
    """
    classes = reach.graph.output.size
    every = torch.eye(classes, dtype=torch.float64)
    single = torch.cat((every, -every)).expand(len(anchors), -1, -1)
    if classes <= MOST_PAIRED:
        first, second = (~torch.eye(classes, dtype=torch.bool)).nonzero().T
        first, second = (side.expand(len(anchors), -1) for side in (first, second))
    else:
        others = torch.arange(classes).repeat(anchors.shape[1]).expand(len(anchors), -1)
        anchored = anchors.repeat_interleave(classes, dim=1)
        first, second = torch.cat((others, anchored), 1), torch.cat((anchored, others), 1)
    # U[k, j] = -min (z_j - z_k)
    rows = every[second] - every[first]
    found = reach.least(torch.cat((rows, single), dim=1))
    pairs = first.shape[1]
    logits = Bounds(found[:, pairs : pairs + classes], -found[:, pairs + classes :])
    upper = found.new_full((len(anchors), classes * classes), torch.inf)
    upper = upper.scatter_reduce(1, first * classes + second, -found[:, :pairs], "amin")
    upper = upper.view(len(anchors), classes, classes)
    through = anchors if classes > MOST_PAIRED else torch.arange(classes).expand(len(anchors), -1)
    return Differences(closed(from_logits(upper, logits), through), logits)


def independent(logits: Bounds) -> Differences:
    """What bounds of single logits alone say of their differences: the looser, usual way."""
    upper = torch.full((*logits.lower.shape, logits.lower.shape[1]), torch.inf, dtype=torch.float64)
    return Differences(from_logits(upper, logits), logits)


def from_logits(upper: Tensor, logits: Bounds) -> Tensor:
    """U tightened by U[k, j] <= upper_k - lower_j, with a zero diagonal."""
    apart = added_up(logits.upper[:, :, None], -logits.lower[:, None, :])
    upper = torch.minimum(upper, apart)
    upper.diagonal(dim1=1, dim2=2).zero_()
    return upper


def closed(upper: Tensor, through: Tensor) -> Tensor:
    """U tightened by U[k, j] <= U[k, a] + U[a, j] for each class a of `through` (batch, some)."""
    classes = upper.shape[1]
    for a in through.T:
        into = upper.gather(2, a[:, None, None].expand(-1, classes, 1))
        out = upper.gather(1, a[:, None, None].expand(-1, 1, classes))
        upper = torch.minimum(upper, added_up(into, out))
    upper.diagonal(dim1=1, dim2=2).zero_()
    return upper
