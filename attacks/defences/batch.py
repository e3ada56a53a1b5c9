"""What a method gets for one step: inputs, where each may be moved, how far training is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.arguments import UNSTEADY
from attacks.errors import AttackInputError
from attacks.randomness import derive_keys
from attacks.region import Region

SPARSE = 0.05
"""The share of the entries that an L1 step moves."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A setting that moves from one value to another while training goes on.

    Attributes:
        begin, end: share of training, in [0, 1], at which it starts and stops moving.
        first, last: its values before and after.
    """

    begin: float
    end: float
    first: float
    last: float

    def at(self, progress: float) -> float:
        """The value when `progress` of training, in [0, 1], is done: linear in between."""
        if progress >= self.end:
            return self.last
        share = max(0.0, (progress - self.begin) / (self.end - self.begin))
        return self.first + share * (self.last - self.first)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's material.

    Attributes:
        labels: shape (batch,), int64.
        region: the threat model around each input, at its full radius; `region.centre` holds the
            inputs, shape (batch, *input).
        keys: shape (batch,), int64: what random numbers are keyed by; seed, epoch, sample.
        progress: share of training that is done, in [0, 1].
    """

    labels: Tensor
    region: Region
    keys: Tensor
    progress: float

    @property
    def x(self) -> Tensor:
        """The inputs."""
        return self.region.centre

    def narrowed(self, share: float) -> Region:
        """The region with `share` of its radius; at 1 the region itself.

        It stays within the region, so a point in it obeys the threat model to the last bit.
        """
        if share >= 1:
            return self.region
        full = self.region
        eps = full.eps * share
        if full.p != math.inf:
            return Region(full.centre, eps, full.p, full.low, full.high)
        wide = eps.to(full.centre).reshape(-1, *[1] * (full.centre.dim() - 1))
        low = torch.maximum(full.low, full.centre - wide)
        return Region(full.centre, eps, full.p, low, torch.minimum(full.high, full.centre + wide))

    def random(self, region: Region, name: str) -> Tensor:
        """A random point of the region for each sample; see `Region.sample`."""
        return region.sample(derive_keys(self.keys, name))


@contextmanager
def steady(net: nn.Module) -> Iterator[None]:
    """Layers whose answer depends on the batch or on chance in evaluation mode, for a while."""
    moved = [module for module in net.modules() if isinstance(module, UNSTEADY) and module.training]
    for module in moved:
        module.eval()
    try:
        yield
    finally:
        for module in moved:
            module.train()


def climb(
    net: nn.Module,
    region: Region,
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Projected ascent: the last point, as in training nobody asks which of them was best.

    Without the bookkeeping of `attacks.PGD`, which answers for each sample; the steps and the
    projection are those of `attacks.region`.

    Args:
        start: shape (batch, *input), in the region.
        loss: of the logits, one number to be raised.
        steps: how many.
        step_size: as a fraction of the radius.
    """
    at = start
    box = region.p == math.inf
    size = region.eps.new_full((len(at),), step_size)
    wide = (size * region.eps).to(at.dtype).reshape(-1, *[1] * (at.dim() - 1))
    with steady(net):
        for _ in range(steps):
            at = at.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(net(at)), at)
            at = at.detach()
            if box:
                at = region.project(at + wide * slope.sign())
            else:
                at = region.project(region.step(at, slope, size, SPARSE))
    return at.detach()


def check_finite(loss: Tensor, where: str) -> None:
    """Refuse to go on from a loss that is no number.

    Raises:
        AttackInputError: the weights are lost; the message says what to change.
    """
    if not bool(loss.isfinite()):
        raise AttackInputError(
            f"The loss became {float(loss.detach())} in {where}: training diverged. Lower the "
            "learning rate, give the radius a longer ramp, or look at the scale of the data."
        )
