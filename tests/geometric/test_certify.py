"""Bounds over transformed images hold for all of them, and verdicts agree with dense sampling."""

import math

import pytest
import torch

from tests.nets import conv_net, dense_net
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.errors import SettingError, ShapeError
from verify.geometric.boxes import Boxes
from verify.geometric.certify import METHODS, Settings, certify_image
from verify.geometric.forward import Forward
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.region import Transformed
from verify.geometric.transforms import parse_transform
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.readers.builder import GraphBuilder
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.result import Verdict
from verify.values.spec import classified_as

TEXTS = ("rotation(-8,8)", "scale(.9,1.1) rotation(-3,3)", "contrast(.9,1.1) brightness(-.1,.1)")


class InMemory:
    """The graph in float32 as its own judge."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.to(torch.float32)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return run(self.graph, x).flatten(1).argmax(dim=1)

    def misclassified(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        output = run(self.graph, x).flatten(1)
        return (output > output.gather(1, labels[:, None])).any(dim=1)


def activation_net(activation: str) -> Graph:
    """Flatten, dense, activation, dense."""
    inner = dense_net(2, (36, 12, 12, 3), activation)
    builder = GraphBuilder("image", (1, 6, 6))
    last = builder.add("Reshape", ("image",), "flat", shape=(36,))
    names = {"x": last}
    for node in inner.nodes[1:]:
        source = tuple(names[i] for i in node.inputs)
        names[node.name] = builder.add(
            node.op, source, node.name, tensors=dict(node.tensors), settings=dict(node.settings)
        )
    return builder.build(names[inner.output.name])


def picture(graph: Graph, seed: int = 0) -> torch.Tensor:
    return torch.rand(graph.input.shape, generator=torch.Generator().manual_seed(seed))


def grid(low: torch.Tensor, high: torch.Tensor, count: int) -> torch.Tensor:
    unit = torch.rand(count, len(low), generator=torch.Generator().manual_seed(1)).double()
    return torch.cat((low + unit * (high - low), low[None], high[None]))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("net", ["conv", "Relu", "Sigmoid", "TwoPiece", "Abs", "Clip"])
@pytest.mark.parametrize("bounder", [Forward(), Crown(), AlphaCrown()], ids=["fwd", "cr", "ac"])
def test_margins_hold_for_sampled_transformations(net: str, text: str, bounder: object) -> None:
    """Least margins over many parameters are above the bound, and not far above on small boxes."""
    graph = conv_net(1) if net == "conv" else activation_net(net)
    transform, image = parse_transform(text), picture(graph)
    for part in (1.0, 0.05):
        middle = (transform.low + transform.high) / 2
        low = middle + part * (transform.low - middle)
        high = middle + part * (transform.high - middle)
        forms = pixel_forms(transform, image, low[None], high[None])
        spec = classified_as(torch.zeros(1, dtype=torch.long), graph.output.size)
        problem = Problem(graph, Transformed(forms), spec)
        margin = bounder(problem).margin[0]  # type: ignore[operator]
        points = grid(low, high, 200)
        seen = transform(image.expand(len(points), -1, -1, -1), points)
        every = spec.coeff.expand(len(points), -1, -1)
        true = torch.einsum("bro,bo->br", every, run(graph, seen.double()).flatten(1)).amin(dim=0)
        assert bool((margin <= true).all())
    assert float(true.min() - margin.min()) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_verdicts_agree_with_dense_sampling(method: str) -> None:
    """Below the certified share nothing is misclassified; the counterexample is one."""
    graph = conv_net(0)
    judge, transform = InMemory(graph), parse_transform("rotation(-60,60)")
    verdicts = set()
    for seed in range(6):
        image = picture(graph, seed)
        label = int(judge.predict(image[None])[0])
        settings = Settings(method=method, most_boxes=400)
        found = certify_image(graph, judge, image, label, transform, settings=settings)
        verdicts.add(found.verdict)
        points = grid(transform.low, transform.high, 1500)
        wrong = judge.misclassified(
            transform(image.expand(len(points), -1, -1, -1), points),
            torch.full((len(points),), label),
        )
        shares = transform.share(points)
        assert not bool((wrong & (shares < found.certified)).any())
        inside = (points[:, None] >= found.spans[:, 0]) & (points[:, None] <= found.spans[:, 1])
        assert not bool((wrong & inside.all(dim=2).any(dim=1)).any())
        if found.verdict is Verdict.VERIFIED:
            assert found.certified == 1.0
            assert not bool(wrong.any())
        if found.verdict is Verdict.FALSIFIED:
            assert found.parameters is not None
            again = transform(image[None], torch.tensor([found.parameters], dtype=torch.float64))
            assert torch.equal(again[0], found.witness)
            assert bool(judge.misclassified(again, torch.tensor([label])))
            assert found.certified < found.attacked
            if method == "forward":
                assert found.certified > found.attacked * 0.9
    if method == "forward":
        assert {Verdict.VERIFIED, Verdict.FALSIFIED} <= verdicts


def test_two_parameters_are_split_until_all_is_decided() -> None:
    """The certified boxes cover the whole range of a verified image."""
    graph = conv_net(3)
    judge, transform = InMemory(graph), parse_transform("translation(-.4,.4)")
    image = picture(graph, 4)
    label = int(judge.predict(image[None])[0])
    found = certify_image(graph, judge, image, label, transform)
    if found.verdict is Verdict.VERIFIED:
        sizes = (found.spans[:, 1] - found.spans[:, 0]).prod(dim=1).sum()
        assert float(sizes) == pytest.approx(0.64, rel=1e-9)
    assert found.verdict is not Verdict.UNKNOWN


def test_noise_that_is_too_large_is_not_certified() -> None:
    """Pixel noise of one half makes every pixel anything."""
    graph = conv_net(3)
    image, judge = picture(graph), InMemory(graph)
    label = int(judge.predict(image[None])[0])
    settings = Settings(noise=0.5, most_boxes=10)
    transform = parse_transform("rotation(-1,1)")
    found = certify_image(graph, judge, image, label, transform, settings=settings)
    assert found.verdict is Verdict.UNKNOWN
    assert found.certified == 0.0
    assert "boxes" in found.reason


def test_a_misclassified_image_is_its_own_counterexample() -> None:
    """Share 0 is attacked, and nothing is certified."""
    graph = conv_net(3)
    image, judge = picture(graph), InMemory(graph)
    label = (int(judge.predict(image[None])[0]) + 1) % graph.output.size
    found = certify_image(graph, judge, image, label, parse_transform("rotation(-9,9)"))
    assert found.verdict is Verdict.FALSIFIED
    assert (found.certified, found.attacked) == (0.0, 0.0)


def test_an_expired_budget_keeps_what_is_known() -> None:
    """Out of time is unknown, not an exception."""
    graph = conv_net(3)
    judge, transform = InMemory(graph), parse_transform("rotation(-9,9)")
    image = picture(graph)
    label = int(judge.predict(image[None])[0])
    late = Budget(deadline=-math.inf)
    found = certify_image(graph, judge, image, label, transform, budget=late)
    assert found.verdict is Verdict.UNKNOWN
    assert "timeout" in found.reason


def test_a_range_of_one_point_is_decided() -> None:
    """No width, no split, one box."""
    graph = conv_net(3)
    image, judge = picture(graph), InMemory(graph)
    label = int(judge.predict(image[None])[0])
    found = certify_image(graph, judge, image, label, parse_transform("rotation(0,0) scale(1,1)"))
    assert found.verdict is Verdict.VERIFIED
    assert found.boxes == 1


def test_halves_cover_their_box() -> None:
    """They share the cut, along the parameter of the highest score."""
    boxes = Boxes(torch.tensor([[0.0, 0.25]]).double(), torch.tensor([[1.0, 0.25]]).double())
    halves = boxes.halved(torch.tensor([[0.0, 5.0]]).double())
    assert halves.low.tolist() == [[0.0, 0.25], [0.5, 0.25]]
    assert halves.high.tolist() == [[0.5, 0.25], [1.0, 0.25]]


def test_bad_settings_are_refused() -> None:
    """In words."""
    with pytest.raises(SettingError, match="method"):
        Settings(method="magic")
    with pytest.raises(SettingError, match="noise"):
        Settings(noise=math.nan)
    graph = dense_net(1)
    with pytest.raises(ShapeError, match="only images"):
        certify_image(graph, InMemory(graph), torch.zeros(4), 0, parse_transform("rotation(0,1)"))
