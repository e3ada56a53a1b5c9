"""Margins near what float32 executions may differ by: charged closely, and never split for ever."""

import pytest
import torch

from tests.geometric.test_certify import InMemory, activation_net, picture
from verify.bounders.crown import Crown
from verify.geometric import certify
from verify.geometric.boxes import Boxes
from verify.geometric.certify import Search, Settings, certify_image
from verify.geometric.transforms import parse_transform
from verify.graph.ir import Graph, Node
from verify.traverse import run
from verify.values.result import StopReason, Verdict
from verify.values.rounding import FLOAT32, PARTIAL_SUMS, Rounding


def shifted(graph: Graph, image: torch.Tensor, label: int, margin: float) -> Graph:
    """The network with its label's bias so that the margin at the image is this small."""
    output = run(graph, image[None].double()).flatten()
    others = torch.cat((output[:label], output[label + 1 :])).max()
    last = graph.nodes[-1]
    bias = last.tensors["bias"].clone()
    bias[label] += margin - (output[label] - others)
    moved = Node(
        last.name, last.op, last.inputs, last.shape, last.input_shapes,
        {**last.tensors, "bias": bias}, last.settings,
    )  # fmt: skip
    return Graph((*graph.nodes[:-1], moved))


@pytest.mark.parametrize("method", ["forward", "crown", "ibp"])
@pytest.mark.parametrize(
    "text", ["contrast(1,1.3)", "rotation(-3,3)", "contrast(1,1.2) rotation(-2,2) scale(.98,1.02)"]
)
def test_a_margin_of_nothing_ends_the_search_soon(text: str, method: str) -> None:
    """At the origin the margin is 1e-9: no bound proves it, and no split helps."""
    graph, transform = activation_net("Relu"), parse_transform(text)
    image = picture(graph)
    label = int(run(graph, image[None].double()).flatten().argmax())
    graph = shifted(graph, image, label, 1e-9)
    found = certify_image(
        graph,
        InMemory(graph),
        image,
        label,
        transform,
        settings=Settings(method=method, tolerance=None, most_boxes=4000),
    )
    assert found.verdict is not Verdict.VERIFIED
    if found.verdict is Verdict.UNKNOWN:
        assert found.reason == StopReason.WITHIN_ROUNDING.value
        assert found.certified == 0.0
    assert found.boxes < 2000


def test_a_margin_between_both_charges_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the plain charge leaves a range open however it is split, the closer one does not."""
    graph, transform = activation_net("Relu"), parse_transform("contrast(1,1.000000001)")
    image = picture(graph)
    label = int(run(graph, image[None].double()).flatten().argmax())

    def left(margin: float, rounding: Rounding) -> float:
        """What a bound of the origin alone leaves of a margin there."""
        close = shifted(graph, image, label, margin)
        search = Search(close, InMemory(close), image, torch.tensor([label]), transform, Settings())
        origin = transform.origin[None]
        return float(Crown(rounding)(search.problem(Boxes(origin, origin))).margin.min())

    plain, close = (0.1 - left(0.1, rounding) for rounding in (FLOAT32, PARTIAL_SUMS))
    assert 0 < close < 0.95 * plain
    near = shifted(graph, image, label, (plain + close) / 2)
    given = (near, InMemory(near), image, label, transform)
    assert certify_image(*given).verdict is Verdict.VERIFIED
    monkeypatch.setattr(certify, "PARTIAL_SUMS", FLOAT32)
    assert certify_image(*given).reason == StopReason.WITHIN_ROUNDING.value
