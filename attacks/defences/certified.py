"""Training on bounds: the loss of each method, for one batch.

All of them look at a box around the input, so the threat model must be L-inf. Its radius grows
from 0: a network that starts with the full box learns to answer the same everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.defences.adversarial import check_share, cross_entropy_rise
from attacks.defences.batch import Batch, Ramp, steady
from attacks.defences.margins import crown_margins, interval_margins, worst_case_loss
from attacks.defences.reach import Traced
from attacks.errors import AttackInputError
from attacks.region import Region

BEGIN, END = 0.05, 0.6
"""Shares of training between which radii and weights move, unless a method is told otherwise."""


def traced_of(net: Traced | nn.Module) -> Traced:
    """The module as a list of nodes."""
    return net if isinstance(net, Traced) else Traced(net)


def box_of(batch: Batch, share: float) -> Region:
    """The region at a share of its radius.

    Raises:
        AttackInputError: if it is no box.
    """
    if batch.region.p != math.inf:
        raise AttackInputError(
            f"Certified training bounds boxes, so the norm must be inf, not {batch.region.p:g}. "
            "Take that norm, or train adversarially."
        )
    return batch.narrowed(share)


@dataclass(frozen=True, slots=True)
class IBP:
    """kappa CE(f(x)) + (1 - kappa) CE(worst logits by interval bounds).

    Attributes:
        begin, end: shares of training between which the radius grows from 0 to all of it, and kappa
            moves from `kappa_first` to `kappa_last`.
        kappa_first, kappa_last: weight of the clean loss. It is the knob between accuracy and
            certificates.

    Source:
        Gowal et al. 2018, arXiv:1810.12715.
    """

    begin: float = BEGIN
    end: float = END
    kappa_first: float = 1.0
    kappa_last: float = 0.5
    certified: ClassVar[bool] = True
    guarded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_ramp(self.begin, self.end)
        check_share("kappa_first", self.kappa_first)
        check_share("kappa_last", self.kappa_last)

    def loss(self, net: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        traced = traced_of(net)
        share = Ramp(self.begin, self.end, 0.0, 1.0).at(batch.progress)
        kappa = Ramp(self.begin, self.end, self.kappa_first, self.kappa_last).at(batch.progress)
        box = box_of(batch, share)
        found = traced.walk(batch.x, box.low, box.high)
        worst = worst_case_loss(interval_margins(traced, found, batch.labels), batch.labels)
        clean = functional.cross_entropy(found[traced.last].clean, batch.labels)
        return kappa * clean + (1 - kappa) * worst


@dataclass(frozen=True, slots=True)
class CrownIBP:
    """IBP whose margins are mixed with those of CROWN-IBP, beta of them, from all to none.

    beta CROWN + (1 - beta) IBP is a valid bound for each beta in [0, 1]: the tighter relaxation
    leads early training, the cheaper one that the network is then trained for ends it.

    Attributes:
        begin, end, kappa_first, kappa_last: as for `IBP`.
        beta_first, beta_last: share of CROWN's bound, moving with the radius.

    Source:
        Zhang et al. 2020, arXiv:1906.06316.
    """

    begin: float = BEGIN
    end: float = END
    kappa_first: float = 1.0
    kappa_last: float = 0.5
    beta_first: float = 1.0
    beta_last: float = 0.0
    certified: ClassVar[bool] = True
    guarded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_ramp(self.begin, self.end)
        for name in ("kappa_first", "kappa_last", "beta_first", "beta_last"):
            check_share(name, getattr(self, name))

    def loss(self, net: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        traced = traced_of(net)
        share = Ramp(self.begin, self.end, 0.0, 1.0).at(batch.progress)
        kappa = Ramp(self.begin, self.end, self.kappa_first, self.kappa_last).at(batch.progress)
        beta = Ramp(self.begin, self.end, self.beta_first, self.beta_last).at(batch.progress)
        box = box_of(batch, share)
        found = traced.walk(batch.x, box.low, box.high)
        margins = interval_margins(traced, found, batch.labels)
        if beta > 0:
            margins = (1 - beta) * margins + beta * crown_margins(traced, found, batch.labels)
        clean = functional.cross_entropy(found[traced.last].clean, batch.labels)
        return kappa * clean + (1 - kappa) * worst_case_loss(margins, batch.labels)


@dataclass(frozen=True, slots=True)
class SABR:
    """IBP over a small box around an adversarial point: less to bound, less to regularise.

    The box has radius tau eps and its centre is a PGD point within (1 - tau) eps, so that it lies
    in the threat model.

    Attributes:
        tau: share of the radius that the box takes; 1 is IBP. Larger certifies more by intervals
            and costs accuracy.
        steps, step_size: of the attack; the size as a fraction of the radius.
        begin, end: shares of training between which the radius grows.

    Source:
        Mueller et al. 2023, arXiv:2210.04871. Departs from it: no shrinking of ReLU's bounds.
    """

    tau: float = 0.4
    steps: int = 8
    step_size: float = 0.5
    begin: float = BEGIN
    end: float = END
    certified: ClassVar[bool] = True
    guarded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_ramp(self.begin, self.end)
        check_share("tau", self.tau)

    def loss(self, net: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        traced = traced_of(net)
        share = Ramp(self.begin, self.end, 0.0, 1.0).at(batch.progress)
        whole = box_of(batch, share)
        inner = batch.narrowed(share * (1 - self.tau))
        near = cross_entropy_rise(traced.net, batch, inner, self.steps, self.step_size)
        wide = (self.tau * whole.eps).to(near).reshape(-1, *[1] * (near.dim() - 1))
        low = torch.maximum(near - wide, whole.low)
        high = torch.minimum(near + wide, whole.high)
        found = traced.walk(batch.x, low, high)
        return worst_case_loss(interval_margins(traced, found, batch.labels), batch.labels)


@dataclass(frozen=True, slots=True)
class MTLIBP:
    """alpha IBP + (1 - alpha) adversarial: two losses, one network.

    Attributes:
        alpha: weight of the IBP loss.
        steps, step_size: of the attack; the size as a fraction of the radius.
        begin, end: shares of training between which the radius of the bounds grows.

    Source:
        De Palma et al. 2024, arXiv:2305.13991; alpha 0.5 is the setting for MNIST at 0.3.
    """

    alpha: float = 0.5
    steps: int = 8
    step_size: float = 0.25
    begin: float = BEGIN
    end: float = END
    certified: ClassVar[bool] = True
    guarded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_ramp(self.begin, self.end)
        check_share("alpha", self.alpha)

    def loss(self, net: Traced | nn.Module, batch: Batch) -> Tensor:
        """See `attacks.defences.methods.Method`."""
        traced = traced_of(net)
        share = Ramp(self.begin, self.end, 0.0, 1.0).at(batch.progress)
        box = box_of(batch, share)
        near = cross_entropy_rise(traced.net, batch, batch.region, self.steps, self.step_size)
        found = traced.walk(batch.x, box.low, box.high)
        worst = worst_case_loss(interval_margins(traced, found, batch.labels), batch.labels)
        # Statistics of BatchNorm are the clean batch's, which the walk has just taken.
        with steady(traced.net):
            attacked = functional.cross_entropy(traced.net(near), batch.labels)
        return self.alpha * worst + (1 - self.alpha) * attacked


def check_ramp(begin: float, end: float) -> None:
    """Refuse a ramp that ends before it begins.

    Raises:
        AttackInputError: naming both.
    """
    if not 0 <= begin < end <= 1:
        raise AttackInputError(
            f"begin is {begin} and end {end}; expected shares of training, 0 <= begin < end <= 1. "
            "Correct them."
        )
