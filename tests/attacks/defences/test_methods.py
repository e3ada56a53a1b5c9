"""What the losses look at: points and boxes inside the threat model, weights that move in time."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks import AttackInputError, Ball
from attacks.defences import (
    IBP,
    MTLIBP,
    SABR,
    TRADES,
    Batch,
    CrownIBP,
    FastTraining,
    Normalise,
    PGDTraining,
    Ramp,
    Traced,
    build,
    ibp_initialise,
    interval_margins,
    worst_case_loss,
)
from attacks.randomness import derive_keys
from tests.attacks.defences.nets import inputs, made

LABELS = torch.tensor([0, 1, 2, 3, 0])


def batch(p: float = math.inf, progress: float = 1.0, eps: float = 0.1) -> Batch:
    x = inputs()
    keys = derive_keys(torch.arange(len(x)), "test")
    return Batch(LABELS, Ball(eps, p, 0.0, 1.0).around(x), keys, progress)


class Spy(nn.Module):
    """Remembers each batch that the net is shown."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.net(x)


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("method", [PGDTraining(), FastTraining(), TRADES()], ids=repr)
def test_every_point_shown_lies_in_the_threat_model(method: PGDTraining, p: float) -> None:
    """To the last bit, range included; and the last one raises the loss."""
    spy, material = Spy(made("relu")), batch(p)
    loss = method.loss(spy, material)
    assert all(bool(material.region.contains(x).all()) for x in spy.seen)
    clean = functional.cross_entropy(spy.net(material.x), LABELS)
    assert float(loss.detach()) > float(clean.detach())


def test_pgd_comes_near_the_worst_corner_of_a_linear_model() -> None:
    """For two classes the cross-entropy's maximum is known: x + eps sign(w_1 - w_0)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    x, labels = inputs(), torch.zeros(5, dtype=torch.int64)
    region = Ball(0.1, lower=0.0, upper=1.0).around(x)
    slope = (net[1].weight[1] - net[1].weight[0]).view(1, 6, 6)
    corner = torch.where(slope > 0, region.high, region.low)
    found = PGDTraining(steps=20).loss(net, Batch(labels, region, torch.arange(5), 1.0))
    torch.testing.assert_close(found, functional.cross_entropy(net(corner), labels))


def test_trades_is_its_formula_and_without_beta_plain_training() -> None:
    """CE + beta KL, the divergence not negative and 0 at radius 0."""
    net, material = made("relu"), batch()
    clean = functional.cross_entropy(net(material.x), LABELS)
    torch.testing.assert_close(TRADES(beta=0.0).loss(net, material), clean)
    torch.testing.assert_close(TRADES().loss(net, batch(eps=0.0)), clean)
    one, two = TRADES(beta=1.0).loss(net, material), TRADES(beta=2.0).loss(net, material)
    assert float((one - clean).detach()) > 0
    torch.testing.assert_close(two - clean, 2 * (one - clean))


def test_ibp_moves_from_the_clean_loss_to_its_mixture() -> None:
    """At the start, at the end and half-way up the ramp."""
    net = made("relu")
    clean = functional.cross_entropy(net(inputs()), LABELS)
    torch.testing.assert_close(IBP().loss(net, batch(progress=0.0)), clean)
    traced, material = Traced(net), batch()
    found = traced.walk(material.x, material.region.low, material.region.high)
    worst = worst_case_loss(interval_margins(traced, found, LABELS), LABELS)
    torch.testing.assert_close(IBP().loss(net, material), (clean + worst) / 2)
    torch.testing.assert_close(IBP(kappa_last=0.0).loss(net, material), worst)
    half = IBP(begin=0.0, end=0.8).loss(net, batch(progress=0.4))
    torch.testing.assert_close(half, IBP(kappa_last=0.75).loss(net, batch(eps=0.05)))


def test_crown_ibp_ends_as_ibp_and_begins_tighter() -> None:
    """beta 0 is IBP; beta 1 has the smaller worst-case loss here."""
    net, material = made("relu"), batch()
    torch.testing.assert_close(CrownIBP().loss(net, material), IBP().loss(net, material))
    tight = CrownIBP(beta_last=1.0).loss(net, material)
    assert float(tight.detach()) < float(IBP().loss(net, material).detach())


def test_sabr_lies_between_the_attack_and_ibp() -> None:
    """tau 1 is IBP's box; a small box costs less than the whole, and no less than its centre."""
    net, material = made("relu"), batch()
    worst = IBP(kappa_last=0.0).loss(net, material)
    torch.testing.assert_close(SABR(tau=1.0).loss(net, material), worst)
    losses = [float(SABR(tau=tau).loss(net, material).detach()) for tau in (0.0, 0.2, 0.6, 1.0)]
    assert losses == sorted(losses)
    assert losses[0] > float(functional.cross_entropy(net(material.x), LABELS).detach())


def test_sabr_boxes_stay_in_the_threat_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every box that is walked, at each stage of the ramp."""
    seen = []
    walk = Traced.walk

    def spy(self: Traced, clean: Tensor, lower: Tensor, upper: Tensor) -> object:
        seen.append((lower, upper))
        return walk(self, clean, lower, upper)

    monkeypatch.setattr(Traced, "walk", spy)
    for progress in (0.0, 0.3, 1.0):
        material = batch(progress=progress)
        SABR().loss(made("relu"), material)
        lower, upper = seen[-1]
        assert bool(material.region.contains(lower).all())
        assert bool(material.region.contains(upper).all())
        assert bool((lower <= upper).all())


def test_mtl_ibp_mixes_the_two_losses() -> None:
    """alpha 1 is IBP's, alpha 0 the attack's, and 0.25 in between."""
    net, material = made("relu"), batch()
    worst, attacked = (MTLIBP(alpha=alpha).loss(net, material) for alpha in (1.0, 0.0))
    torch.testing.assert_close(worst, IBP(kappa_last=0.0).loss(net, material))
    torch.testing.assert_close(attacked, PGDTraining(steps=8).loss(net, material))
    mixed = MTLIBP(alpha=0.25).loss(net, material)
    torch.testing.assert_close(mixed, 0.25 * worst + 0.75 * attacked)


@pytest.mark.parametrize("method", [SABR(), MTLIBP()], ids=repr)
def test_adversarial_points_do_not_move_running_statistics(method: SABR) -> None:
    """One training step moves BatchNorm as the clean batch alone would."""
    net, twin = made("conv").train(), made("conv").train()
    method.loss(net, batch())
    twin(inputs())
    torch.testing.assert_close(net[1].running_mean, twin[1].running_mean)
    assert net[1].training


def test_a_ramp_is_flat_then_straight_then_flat() -> None:
    """At its ends and in the middle."""
    ramp = Ramp(0.2, 0.6, 1.0, 0.5)
    assert [ramp.at(t) for t in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([1, 1, 0.75, 0.5, 0.5])
    assert Ramp(1.0, 1.0, 0.0, 1.0).at(1.0) == 1.0


def test_initialisation_keeps_the_width_of_intervals() -> None:
    """Through six wide layers the mean width neither vanishes nor explodes (Shi et al. 2021)."""
    net = build("dense", (200,), 10, widths=(200,) * 6)
    x = torch.rand(8, 200)

    def growth() -> float:
        found = list(Traced(net).walk(x, x - 0.1, x + 0.1).values())
        return float((found[-2].radius.mean() / found[0].radius.mean()).detach())

    assert growth() > 100
    ibp_initialise(net)
    assert 0.3 < growth() < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet", (4,), 3), "no architecture 'resnet'"),
        (("conv", (4,), 3), "conv got an input of shape"),
        (("dense", (4,), 1), "1 classes"),
        (("dense", (0,), 3), "lengths of at least 1"),
    ],
)
def test_presets_refuse_what_does_not_fit(arguments: tuple, message: str) -> None:
    """Each in one sentence."""
    with pytest.raises(AttackInputError, match=message):
        build(*arguments)


@pytest.mark.parametrize(
    ("name", "shape"), [("dense", (64,)), ("conv", (1, 8, 8)), ("conv", (3, 32, 30))]
)
def test_presets_take_their_input_and_repeat(name: str, shape: tuple[int, ...]) -> None:
    """Logits of the right shape; the same seed draws the same weights, another one others."""
    one, same, other = (build(name, shape, 10, seed=seed) for seed in (1, 1, 2))
    assert one(torch.rand(2, *shape)).shape == (2, 10)
    first, again, third = (next(net.parameters()) for net in (one, same, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, third)


def test_a_deviation_of_0_is_refused() -> None:
    """It would divide by it."""
    with pytest.raises(AttackInputError, match="std > 0"):
        Normalise(torch.zeros(1), torch.zeros(1))
