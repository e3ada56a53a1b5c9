"""Differentiable bounds against samples, against closed forms and against `verify`'s own."""

import math

import pytest
import torch
from torch import Tensor, nn

from attacks import AttackInputError
from attacks.defences import Traced, crown_margins, interval_margins, worst_case_loss
from tests.attacks.defences.nets import BUILDERS, inputs, made
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.network import load
from verify.search.strategy import problem_of
from verify.values.question import question

EPS = 0.1
ROUNDING = 1e-12  # float64, values up to ~20
LABELS = torch.tensor([0, 1, 2, 3, 0])
MARGINS = {"interval": interval_margins, "crown": crown_margins}


def sampled(x: Tensor, count: int = 400) -> Tensor:
    """Points of each box, corners among them; shape (count, batch, *input)."""
    generator = torch.Generator().manual_seed(2)
    move = 2 * torch.rand((count, *x.shape), generator=generator, dtype=x.dtype) - 1
    move[::2] = move[::2].sign()
    return x + EPS * move


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]) - logits


def worst_escape(name: str, bound: str, eps: float) -> float:
    """How far sampled margins fall below the bound over boxes of radius `eps`."""
    net, x = made(name), inputs()
    traced = Traced(net)
    with torch.no_grad():
        found = traced.walk(x, x - eps, x + eps)
        least = MARGINS[bound](traced, found, LABELS)
        seen = torch.stack([margins_of(net(points), LABELS) for points in sampled(x)])
    return float((least - seen).max())


@pytest.mark.parametrize("bound", MARGINS)
@pytest.mark.parametrize("name", BUILDERS)
def test_no_sampled_margin_falls_below_its_bound(name: str, bound: str) -> None:
    """Corners and inner points of the box."""
    assert worst_escape(name, bound, EPS) <= ROUNDING


@pytest.mark.parametrize("bound", MARGINS)
@pytest.mark.parametrize("name", ["affine", "relu", "conv", "residual"])
def test_the_check_above_can_fail(name: str, bound: str) -> None:
    """Bounds of a box of no width are passed by the samples of a wide one."""
    assert worst_escape(name, bound, 0.0) > 0.01


@pytest.mark.parametrize("name", BUILDERS)
def test_every_node_holds_its_clean_value_and_the_logits_come_along(name: str) -> None:
    """The walk's clean values are the module's own."""
    net, x = made(name), inputs()
    traced = Traced(net)
    with torch.no_grad():
        found = traced.walk(x, x - EPS, x + EPS)
        torch.testing.assert_close(found[traced.last].clean, net(x))
    for reach in found.values():
        assert bool((reach.lower <= reach.clean + ROUNDING).all())
        assert bool((reach.clean <= reach.upper + ROUNDING).all())


@pytest.mark.parametrize("bound", MARGINS)
def test_an_affine_net_is_bounded_exactly(bound: str) -> None:
    """m(x) - eps |W_y - W_j|_1, from the product of the layers."""
    net, x = made("affine"), inputs()
    traced = Traced(net)
    with torch.no_grad():
        weight = net[2].weight @ net[1].weight
        slope = (weight[LABELS][:, None] - weight).abs().sum(dim=2)
        expected = margins_of(net(x), LABELS) - EPS * slope
        found = traced.walk(x, x - EPS, x + EPS)
        least = MARGINS[bound](traced, found, LABELS)
    if bound == "crown":
        torch.testing.assert_close(least, expected)
    else:  # only the last layer is merged; the first keeps its own box
        assert bool((least <= expected + ROUNDING).all())


@pytest.mark.parametrize("name", ["relu", "no-bias", "conv", "residual", "s-shaped"])
def test_verify_finds_the_same_by_its_own_code(name: str) -> None:
    """The interval and CROWN-IBP margins of `verify`, without its charge for rounding.

    CROWN's only for ReLU: around other curves the two draw other lines, none better throughout.
    `verify` merges more than the last layer of the convolutional net, and so is tighter there.
    """
    single, x = made(name, torch.float32), inputs(dtype=torch.float32)
    asked = question(x, LABELS, EPS, math.inf)
    network = load(single, input_shape=x.shape[1:])
    problem = problem_of(network.graph, asked)
    net, wide = made(name, torch.float32).double(), x.double()
    traced = Traced(net)
    with torch.no_grad():
        found = traced.walk(wide, wide - EPS, wide + EPS)
        for bounder, bound in (
            (Interval(rounding=None), interval_margins),
            (Crown(rounding=None, intermediate=False), crown_margins),
        ):
            ours = bound(traced, found, LABELS)
            others = torch.ones_like(ours, dtype=torch.bool).scatter(1, LABELS[:, None], False)
            theirs = bounder(problem).margin
            mine = ours[others].view(len(x), -1)
            if name == "conv":
                assert bool((mine <= theirs + 1e-6).all())
            elif bound is interval_margins or name in {"relu", "residual"}:
                torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


def test_crown_is_tighter_than_intervals_where_that_matters() -> None:
    """On average, on a net with two hidden layers."""
    traced, x = Traced(made("relu")), inputs()
    with torch.no_grad():
        found = traced.walk(x, x - EPS, x + EPS)
        gain = crown_margins(traced, found, LABELS) - interval_margins(traced, found, LABELS)
    assert float(gain.mean()) > 0.1


def test_merging_the_last_layer_only_tightens() -> None:
    """The elided bound against the difference of the logits' own ends."""
    traced, x = Traced(made("relu")), inputs()
    with torch.no_grad():
        found = traced.walk(x, x - EPS, x + EPS)
        logits = found[traced.last]
        plain = logits.lower.gather(1, LABELS[:, None]) - logits.upper
        merged = interval_margins(traced, found, LABELS)
    plain = plain.scatter(1, LABELS[:, None], 0.0)
    assert bool((merged >= plain - ROUNDING).all())
    assert float((merged - plain).max()) > 0.01


@pytest.mark.parametrize("name", ["conv", "batch-norm"])
def test_batch_norm_in_training_uses_the_clean_batch(name: str) -> None:
    """Its statistics, and its running ones move as if only the clean batch had been seen."""
    net, twin, x = made(name).train(), made(name).train(), inputs()
    traced = Traced(net)
    found = traced.walk(x, x - EPS, x + EPS)
    torch.testing.assert_close(found[traced.last].clean, twin(x))
    for (key, ours), theirs in zip(
        net.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=key)
    point = traced.walk(x, x, x)[traced.last]
    torch.testing.assert_close(point.lower, point.clean)
    torch.testing.assert_close(point.upper, point.clean)


@pytest.mark.parametrize("bound", MARGINS)
@pytest.mark.parametrize("name", ["relu", "conv", "residual", "s-shaped"])
def test_the_gradient_is_that_of_finite_differences(name: str, bound: str) -> None:
    """Of the worst-case loss in every weight together, along a random direction."""
    net, x = made(name), inputs()
    traced = Traced(net)
    weights = list(net.parameters())
    generator = torch.Generator().manual_seed(0)
    ways = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]

    def loss() -> Tensor:
        found = traced.walk(x, x - EPS, x + EPS)
        return worst_case_loss(MARGINS[bound](traced, found, LABELS), LABELS)

    slopes = torch.autograd.grad(loss(), weights)
    expected = sum(float((s * w).sum()) for s, w in zip(slopes, ways, strict=True))
    step, ends = 1e-7, []
    for sign in (1, -2):
        with torch.no_grad():
            for weight, way in zip(weights, ways, strict=True):
                weight += sign * step * way
            ends.append(float(loss()))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)


def test_the_worst_case_loss_bounds_the_loss_of_every_point() -> None:
    """Cross-entropy of sampled points of the box, for each input alone."""
    net, x = made("relu"), inputs()
    traced = Traced(net)
    with torch.no_grad():
        found = traced.walk(x, x - EPS, x + EPS)
        margins = interval_margins(traced, found, LABELS)
        for row in range(len(x)):
            one = slice(row, row + 1)
            worst = worst_case_loss(margins[one], LABELS[one])
            for points in sampled(x, 50):
                loss = nn.functional.cross_entropy(net(points[one]), LABELS[one])
                assert loss <= worst + ROUNDING


@pytest.mark.parametrize(
    ("net", "what"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.GELU()), "layer 2, a GELU"),
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 4)), "layer 1, a Dropout"),
        (nn.LSTM(36, 4), "LSTM"),
    ],
)
def test_a_module_without_bounds_is_refused_with_the_list_of_those_with(
    net: nn.Module, what: str
) -> None:
    """Before training begins, in one sentence."""
    with pytest.raises(AttackInputError, match=f"{what}.*Supported are .*Linear.*ReLU"):
        Traced(net)


def test_circular_padding_and_max_pooling_by_crown_are_refused() -> None:
    """Neither is bounded as if it were something else."""
    x = inputs()
    ring = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten())
    with pytest.raises(AttackInputError, match="circular"):
        Traced(ring.double()).walk(x, x, x)
    pooled = nn.Sequential(nn.MaxPool2d(3), nn.Flatten(), nn.Linear(4, 4)).double()
    traced = Traced(pooled)
    with pytest.raises(AttackInputError, match="MaxPool2d by CROWN"):
        crown_margins(traced, traced.walk(x, x, x), LABELS)
