"""Fields of displacements: what is certified holds for sampled fields; duals hold against an LP."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from attacks.flows import FlowAttack, warp
from tests.geometric.test_certify import InMemory, activation_net, picture
from tests.geometric.test_linear_constraints import images
from tests.nets import conv_net
from verify.errors import SettingError, ShapeError
from verify.geometric.certify_flow import FLOW_METHODS, FlowClaim, certify_flow
from verify.geometric.flow_region import Flowing, by_ascent, by_blocks
from verify.geometric.flows import Flow, deformed, flow_forms
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import Box
from verify.values.result import Verdict

FLOWS = [Flow(0.3), Flow(0.7, 0.1), Flow(1.4, 0.3), Flow(0.5, 0.0), Flow(0.0)]


def sampled(flow: Flow, height: int, width: int, count: int = 300) -> torch.Tensor:
    """Fields of a set: random, at their ends, whole pixels, constant ones, smooth waves."""
    generator = torch.Generator().manual_seed(4)
    noise = torch.rand(count, 2, height, width, generator=generator).double() * 2 - 1
    ends = noise[: count // 3].sign()
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.rand(count, 2, 2, generator=generator).double() * 1.5
    waves = torch.sin(phase[:, :, :1, None] * x + phase[:, :, 1:, None] * y + noise[:, :, :1, :1])
    constant = noise[:, :, :1, :1].expand(-1, -1, height, width)
    fields = torch.cat((noise, ends, waves, constant, constant.sign())) * flow.delta
    whole = torch.cat((fields, fields.round().clamp(-flow.delta, flow.delta)))
    if flow.smooth is not None:
        uneven = flow.shrunk(1.0).share(whole)
        whole = whole / uneven.clamp(min=1.0)[:, None, None, None] if flow.smooth else whole
    return whole[flow.share(whole) <= 1.0]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
@pytest.mark.parametrize("kind", ["noise", "columns", "border"])
def test_rows_over_sampled_images_are_above_their_bound(flow: Flow, kind: str) -> None:
    """Pixels stay in their ranges and rows above their bounds, in float32 and float64."""
    image = images(kind, 3, 6, 7)
    region = Flowing(flow_forms(image, flow), flow)
    rows = torch.randn(1, 6, 3, 6, 7, generator=torch.Generator().manual_seed(1)).double()
    rows[:, 3:] = rows[:, 3:].mean(dim=2, keepdim=True)
    zero = torch.zeros(1, 6, dtype=torch.float64)
    least = region.minimise(LinearForm(rows, zero, zero.clone()))
    fields = sampled(flow, 6, 7)
    assert len(fields) > 20
    for dtype in (torch.float32, torch.float64):
        seen = deformed(image.to(dtype).expand(len(fields), -1, -1, -1), fields).double()
        assert bool((region.bounds().lower <= seen).all())
        assert bool((seen <= region.bounds().upper).all())
        values = torch.einsum("rchw,schw->sr", rows[0], seen)
        assert bool((least <= values).all())
    box = Box(region.bounds().lower, region.bounds().upper)
    assert bool((least >= box.minimise(LinearForm(rows, zero, zero.clone()))).all())


def test_channels_look_at_one_place() -> None:
    """A row that weighs one channel against another, equal one is 0 whatever the field."""
    image = images("noise", 1, 6, 6).expand(2, -1, -1).contiguous()
    flow = Flow(0.4)
    rows = torch.ones(1, 1, 2, 6, 6, dtype=torch.float64)
    rows[:, :, 1] = -1
    zero = torch.zeros(1, 1, dtype=torch.float64)
    least = Flowing(flow_forms(image, flow), flow).minimise(LinearForm(rows, zero, zero.clone()))
    assert -1e-3 < float(least) <= 0


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.2, 1.0, 3.0])
def test_duals_are_below_the_linear_program(ratio: float) -> None:
    """And the ascended one is near it; blocks are never worse than the box."""
    height, width = 6, 9
    generator = torch.Generator().manual_seed(int(ratio * 100))
    slopes = torch.randn(1, 1, height, width, generator=generator, dtype=torch.float64) + 0.3
    place = np.arange(height * width).reshape(height, width)
    pairs = [*zip(place[1:].flat, place[:-1].flat, strict=True)]
    pairs += [*zip(place[:, 1:].flat, place[:, :-1].flat, strict=True)]
    rows = np.zeros((2 * len(pairs), place.size))
    for i, (p, q) in enumerate(pairs):
        rows[2 * i, [p, q]] = 1, -1
        rows[2 * i + 1, [p, q]] = -1, 1
    limit = np.full(len(rows), ratio)
    best = linprog(slopes.flatten().numpy(), A_ub=rows, b_ub=limit, bounds=(-1, 1)).fun
    blocks, (ascent, _) = float(by_blocks(slopes, ratio)), by_ascent(slopes, ratio)
    box = -float(slopes.abs().sum())
    assert box - 1e-9 <= blocks <= best + 1e-9
    assert float(ascent) <= best + 1e-9
    assert float(ascent) >= best - 0.03 * abs(box)


@pytest.mark.parametrize(
    ("net", "method"), [*(("Relu", method) for method in FLOW_METHODS), ("conv", "crown")]
)
def test_certified_shares_hold_for_sampled_and_attacked_fields(net: str, method: str) -> None:
    """No field of a certified share changes the class; a counterexample is one."""
    graph = conv_net(0) if net == "conv" else activation_net("Relu")
    judge, flow = InMemory(graph), Flow(0.8, 0.25)
    image = picture(graph, 2)
    label = int(judge.predict(image[None])[0])
    attack = FlowAttack(flow.delta, flow.smooth)
    known = attack(lambda x: run(judge.graph, x), image, label)
    found = certify_flow(graph, judge, image, label, FlowClaim(flow, method), known=known)
    fields = torch.cat((sampled(flow, *image.shape[1:]).float(), known))
    shares = flow.share(fields)
    moved = deformed(image.expand(len(fields), -1, -1, -1), fields)
    wrong = judge.misclassified(moved, torch.full((len(fields),), label))
    assert not bool((wrong & (shares <= found.certified)).any())
    assert (found.verdict is Verdict.VERIFIED) == (found.certified == 1.0)
    if found.verdict is Verdict.FALSIFIED:
        assert found.witness is not None
        assert bool(judge.misclassified(found.witness[None], torch.tensor([label])))
        assert found.certified < found.attacked <= 1.0
    if method in ("auto", "alpha-crown"):
        assert found.certified > 0.05


def test_smoothness_helps() -> None:
    """The stiffer the fields, the larger the certified share of the displacement."""
    graph = activation_net("Relu")
    judge, image = InMemory(graph), picture(graph, 1)
    label = int(judge.predict(image[None])[0])
    shares = [
        certify_flow(graph, judge, image, label, FlowClaim(Flow(1.0, smooth), "crown")).certified
        for smooth in (None, 0.3, 0.05)
    ]
    assert shares == sorted(shares)
    assert shares[0] < shares[2]


def test_the_attack_means_the_same_and_stays_inside() -> None:
    """Both warps agree; what the attack returns lies in the set."""
    image = images("noise", 2, 7, 6)
    for flow in FLOWS[:3]:
        fields = FlowAttack(flow.delta, flow.smooth).initial(image)
        many = image.expand(len(fields), -1, -1, -1)
        torch.testing.assert_close(warp(many, fields), deformed(many, fields))
        assert float(flow.share(fields).max()) <= 1.0


def test_a_field_moves_as_it_says() -> None:
    """Looking one pixel to the right and two down, with zeros from outside."""
    image = images("noise", 1, 5, 6)
    field = torch.tensor([1.0, 2.0])[None, :, None, None].expand(1, 2, 5, 6)
    expected = torch.zeros_like(image)
    expected[:, :3, :5] = image[:, 2:, 1:]
    torch.testing.assert_close(deformed(image[None], field)[0], expected, atol=1e-6, rtol=0)


def test_shares_and_nonsense() -> None:
    """A set's own ends have share 1; what cannot be is refused; late is unknown."""
    flow = Flow(0.5, 0.1)
    field = torch.zeros(1, 2, 4, 4)
    field[:, 0] = 0.25
    assert float(flow.share(field)) == pytest.approx(0.5)
    field[0, 1, 2, 2] = 0.09
    assert float(flow.share(field)) == pytest.approx(0.9)
    assert float(Flow(0.5, 0.0).share(field)) == math.inf
    for bad in (lambda: Flow(math.nan), lambda: Flow(-1), lambda: Flow(1, -1)):
        with pytest.raises(SettingError):
            bad()
    with pytest.raises(SettingError, match="magic"):
        FlowClaim(flow, "magic")
    with pytest.raises(ShapeError, match="field"):
        deformed(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 3, 4))
    graph = activation_net("Relu")
    judge, image = InMemory(graph), picture(graph)
    label = int(judge.predict(image[None])[0])
    late = Budget(deadline=-math.inf)
    found = certify_flow(graph, judge, image, label, FlowClaim(flow), budget=late)
    assert found.verdict is Verdict.UNKNOWN
    wrong = certify_flow(graph, judge, image, (label + 1) % 3, FlowClaim(flow))
    assert (wrong.verdict, wrong.attacked, wrong.certified) == (Verdict.FALSIFIED, 0.0, 0.0)
