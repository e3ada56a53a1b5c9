"""Unrolled networks: the same function, and bounds that hold of the network they came from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.nets import conv_net, dense_net, preactivation_net
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.confidence import BY_PART, certify_scores, split_scores, splittable
from verify.confidence import unrolled as module
from verify.confidence.scores import Scores
from verify.confidence.unrolled import larger, unrolled
from verify.graph.ir import Graph, Node
from verify.readers.builder import GraphBuilder
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question, question


def inputs(graph: Graph, count: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, *graph.input.shape, generator=generator, dtype=torch.float64)


def pool_net(kernel: tuple[int, int], stride: tuple[int, int], pad: int = 0) -> Graph:
    """A max pooling alone, over (2, 5, 5)."""
    builder = GraphBuilder("x", (2, 5, 5))
    settings = {"kernel": kernel, "stride": stride, "pads": (pad,) * 4, "dilation": (1, 1)}
    return builder.build(builder.add("MaxPool", ("x",), "pool", settings=settings))


@pytest.mark.parametrize(
    "graph",
    [
        conv_net(0),
        conv_net(1, pool=False),
        preactivation_net(2),
        dense_net(3),
        pool_net((2, 2), (1, 1)),  # windows share entries
        pool_net((3, 3), (2, 2)),  # an odd number of entries
        pool_net((1, 3), (1, 1)),
    ],
)
def test_the_function_stays_the_same(graph: Graph) -> None:
    """Up to float64 rounding, and every Relu is over a flat node."""
    flat = unrolled(graph)
    assert flat is not None
    x = inputs(graph)
    torch.testing.assert_close(
        run(flat, x).flatten(1), run(graph, x).flatten(1), rtol=1e-13, atol=1e-13
    )
    assert {node.op for node in flat.nodes[1:]} <= {"Reshape", "Gemm", "Relu", "Add", "ScaleShift"}
    assert all(len(node.shape) == 1 for node in flat.nodes[1:])


def test_what_cannot_be_unrolled_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding in a pooling window, other activations, and layers that are too large."""
    assert unrolled(pool_net((2, 2), (2, 2), pad=1)) is None
    assert unrolled(dense_net(0, activation="Tanh")) is None
    monkeypatch.setattr(module, "MOST_ENTRIES", 100)
    assert unrolled(conv_net(0)) is None
    graph = conv_net(0)
    assert splittable(graph) is graph


def asked(graph: Graph, eps: float = 0.08) -> Question:
    x = torch.rand(2, *graph.input.shape, generator=torch.Generator().manual_seed(2))
    return question(x, torch.tensor([0, 1]), eps)


def outside(found: Scores, graph: Graph, of: Question, count: int = 3000) -> int:
    """How many sampled probabilities and confidences lie outside, by the original graph."""
    single = graph.to(torch.float32)
    move = 2 * torch.rand(count, *of.x.shape, generator=torch.Generator().manual_seed(0)) - 1
    # Corners too: that is where bounds are reached.
    move[::2] = move[::2].sign()
    eps = of.eps.float().view(-1, *[1] * (of.x.dim() - 1))
    points = of.x + move * eps * (1 - 2**-20)
    p = run(single, points.flatten(0, 1)).double().view(count, len(of.x), -1).softmax(dim=2)
    bounds = found.probability
    total = int(((p < bounds.lower) | (p > bounds.upper)).sum())
    best = p.amax(dim=2)
    return total + int(((best < found.confidence.lower) | (best > found.confidence.upper)).sum())


def split(flat: Graph, of: Question, rounds: int) -> Scores:
    whole = certify_scores(flat, of, AlphaCrown())
    return split_scores(
        flat,
        of,
        BY_PART,
        whole.scores,
        temperature=1.0,
        rounds=rounds,
        budget=Budget(),
        neurons=whole.neurons,
    )


def test_scores_of_a_convolutional_net_hold_and_shrink_with_splits() -> None:
    """Certified on the unrolled network, sampled on the original."""
    graph = conv_net(0)
    flat = splittable(graph)
    assert flat is not graph
    of = asked(graph)
    widths = []
    for rounds in (0, 2):
        found = split(flat, of, rounds)
        assert outside(found, graph, of) == 0
        widths.append(float((found.confidence.upper - found.confidence.lower).mean()))
    plain = certify_scores(graph, of, Crown()).scores
    assert widths[1] < widths[0] < float((plain.confidence.upper - plain.confidence.lower).mean())


def test_a_maximum_taken_wrong_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a - relu(a - b), which is the smaller of the two, samples fall outside."""

    def smaller(*given: object) -> list[Node]:
        *head, last = larger(*given)  # type: ignore[arg-type]
        name, source, width, first, second = given
        kept = larger(name, source, width, second, first)[2]  # type: ignore[arg-type]
        wrong = replace(last, settings={"signs": (1, -1)})
        return [*head[:2], kept, wrong]

    graph = conv_net(0)
    monkeypatch.setattr(module, "larger", smaller)
    flat = unrolled(graph)
    assert flat is not None
    of = asked(graph, 0.005)
    assert outside(certify_scores(flat, of, Crown()).scores, graph, of) > 0
