"""Training on the points that an attack finds: the loss of each method, for one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from attacks.ball import Ball
from attacks.defences.batch import Batch, climb, steady
from attacks.defences.reach import Traced
from attacks.errors import AttackInputError
from attacks.protocol import Attack
from attacks.randomness import normal
from attacks.region import Region
from attacks.registry import attack_named

NUDGE = 1e-3
"""Standard deviation of TRADES' start: at the input itself its loss has slope 0."""


def cross_entropy_rise(
    net: nn.Module, batch: Batch, region: Region, steps: int, size: float
) -> Tensor:
    """The point that ascending the cross-entropy from a random start leads to."""
    start = batch.random(region, "start")
    labels = batch.labels

    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, reduction="sum")

    return climb(net, region, start, loss, steps=steps, step_size=size)


@dataclass(frozen=True, slots=True)
class Standard:
    """Cross-entropy on clean inputs: no defence, to compare with."""

    certified: ClassVar[bool] = False
    guarded: ClassVar[bool] = False

    def loss(self, traced: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        return functional.cross_entropy(plain(traced)(batch.x), batch.labels)


@dataclass(frozen=True, slots=True)
class PGDTraining:
    """Cross-entropy at the points that projected gradient descent finds.

    Attributes:
        steps: of the attack.
        step_size: as a fraction of the radius.

    Source:
        Madry et al. 2018, arXiv:1706.06083; 7 steps of 2/8 of the radius are its CIFAR-10 setting.
    """

    steps: int = 7
    step_size: float = 0.25
    certified: ClassVar[bool] = False
    guarded: ClassVar[bool] = False

    def loss(self, traced: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        net = plain(traced)
        near = cross_entropy_rise(net, batch, batch.region, self.steps, self.step_size)
        return functional.cross_entropy(net(near), batch.labels)


@dataclass(frozen=True, slots=True)
class FastTraining:
    """The same with a single step from a random start, slightly longer than the radius.

    It can overfit catastrophically: the network learns to mislead the one step, and every longer
    attack succeeds. Therefore it is guarded: see `attacks.defences.guard`.

    Attributes:
        step_size: as a fraction of the radius.

    Source:
        Wong, Rice, Kolter 2020, arXiv:2001.03994.
    """

    step_size: float = 1.25
    certified: ClassVar[bool] = False
    guarded: ClassVar[bool] = True

    def loss(self, traced: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        net = plain(traced)
        near = cross_entropy_rise(net, batch, batch.region, 1, self.step_size)
        return functional.cross_entropy(net(near), batch.labels)


@dataclass(frozen=True, slots=True)
class TRADES:
    """CE(f(x), y) + beta KL(f(x) || f(x')), where x' maximises that divergence.

    Attributes:
        beta: weight of the divergence: more is more robust and less accurate.
        steps, step_size: of the ascent; the size as a fraction of the radius.

    Source:
        Zhang et al. 2019, arXiv:1901.08573.
    """

    beta: float = 6.0
    steps: int = 7
    step_size: float = 0.25
    certified: ClassVar[bool] = False
    guarded: ClassVar[bool] = False

    def loss(self, traced: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        net, region, x = plain(traced), batch.region, batch.x
        with steady(net):
            there = net(x).detach().softmax(dim=1)

        def divergence(logits: Tensor) -> Tensor:
            return functional.kl_div(logits.log_softmax(dim=1), there, reduction="sum")

        noise = NUDGE * normal(batch.keys, x[0].numel()).view_as(x).to(x.dtype)
        near = climb(
            net,
            region,
            region.project(x + noise),
            divergence,
            steps=self.steps,
            step_size=self.step_size,
        )
        logits = net(x)
        apart = functional.kl_div(
            net(near).log_softmax(dim=1), logits.softmax(dim=1), reduction="batchmean"
        )
        return functional.cross_entropy(logits, batch.labels) + self.beta * apart


@dataclass(frozen=True, slots=True)
class AttackTraining:
    """Cross-entropy at the points that any attack of this package proposes.

    Attributes:
        attack: its name in `attacks.registry`, or an `attacks.protocol.Attack`.
    """

    attack: str | Attack = "pgd"
    certified: ClassVar[bool] = False
    guarded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a name that is none before the work begins."""
        self.chosen()

    def chosen(self) -> Attack:
        """The attack itself."""
        return attack_named(self.attack) if isinstance(self.attack, str) else self.attack

    def loss(self, traced: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        net, region = plain(traced), batch.region
        # The region's box within the ball of its own radius is the region.
        ball = Ball(region.eps, region.p, region.low, region.high)
        with steady(net):
            found = self.chosen()(net, batch.x, batch.labels, ball, sample_keys=batch.keys)
        return functional.cross_entropy(net(found.candidate), batch.labels)


def plain(net: Traced | nn.Module) -> nn.Module:
    """The module itself."""
    return net.net if isinstance(net, Traced) else net


def check_share(name: str, value: float) -> None:
    """Refuse a setting that is no number in [0, 1].

    Raises:
        AttackInputError: naming it.
    """
    if not 0 <= value <= 1:
        raise AttackInputError(f"{name} is {value}; expected a number in [0, 1]. Correct it.")
