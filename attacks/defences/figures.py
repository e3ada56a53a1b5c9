"""What a network is worth on some data: clean, attacked and, by intervals, certified accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.ball import Ball, check_batch
from attacks.defences.adversarial import cross_entropy_rise
from attacks.defences.batch import Batch, steady
from attacks.defences.margins import interval_margins
from attacks.defences.reach import Traced
from attacks.errors import AttackInputError
from attacks.randomness import derive_keys

AT_ONCE = 256
PGD_STEPS, PGD_SIZE = 10, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Inputs and their classes.

    Attributes:
        x: shape (n, *input), float32 or float64, finite; n at least 1.
        labels: shape (n,), int64, from 0.

    Raises:
        AttackInputError: if they are something else.
    """

    x: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse what cannot be trained on, before any time is spent."""
        check_batch(self.x)
        if not len(self.x):
            raise AttackInputError("There are no samples to train on or to evaluate. Give some.")
        fitting = self.labels.shape == (len(self.x),) and self.labels.dtype == torch.int64
        if not fitting or bool((self.labels < 0).any()):
            raise AttackInputError(
                f"labels need shape ({len(self.x)},), dtype int64 and values from 0, got "
                f"{tuple(self.labels.shape)} of {self.labels.dtype}. Give one class per sample."
            )

    def rows(self, index: Tensor) -> Split:
        """The chosen samples; `index` has shape (rows,)."""
        return Split(self.x[index], self.labels[index])


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of the samples, between 0 and 1.

    Attributes:
        clean: classified as labelled.
        adversarial: still so at the end of a short PGD: an upper bound of the robust share, and a
            generous one.
        certified: proved by interval bounds in the network's own arithmetic, rounding aside: a
            lower bound, and a loose one. NaN where the network has no bounds, or the norm is not
            inf.
    """

    clean: float
    adversarial: float
    certified: float


def bounds_of(net: nn.Module) -> Traced | None:
    """The module as a list of nodes, or None where it has no bounds."""
    try:
        return Traced(net)
    except AttackInputError:
        return None


def figures(net: nn.Module, split: Split, ball: Ball, *, seed: int = 0) -> Figures:
    """Evaluate; the network's mode is put back afterwards.

    Args:
        net: see `attacks.protocol.Model`.
        ball: one radius for all.
        seed: of the attack's starting points.
    """
    was_training = net.training
    net.eval()
    traced = bounds_of(net) if ball.p == math.inf else None
    keys = derive_keys(torch.arange(len(split.x), device=split.x.device), "figures", seed)
    clean = adversarial = certified = 0
    with steady(net):
        for rows in torch.arange(len(split.x), device=split.x.device).split(AT_ONCE):
            part = split.rows(rows)
            batch = Batch(part.labels, ball.around(part.x), keys[rows], 1.0)
            near = cross_entropy_rise(net, batch, batch.region, PGD_STEPS, PGD_SIZE)
            with torch.no_grad():
                right = net(part.x).argmax(dim=1) == part.labels
                clean += int(right.sum())
                adversarial += int((right & (net(near).argmax(dim=1) == part.labels)).sum())
                if traced is not None:
                    found = traced.walk(part.x, batch.region.low, batch.region.high)
                    margins = interval_margins(traced, found, part.labels)
                    others = margins.scatter(1, part.labels[:, None], math.inf)
                    certified += int((others > 0).all(dim=1).sum())
    net.train(was_training)
    count = len(split.x)
    return Figures(
        clean / count, adversarial / count, math.nan if traced is None else certified / count
    )
