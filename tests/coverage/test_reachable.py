"""What is proved out of reach is never reached; what is found is truly there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import verify
from verify.coverage import (
    BoundaryCoverage,
    Layer,
    MaskRecord,
    MultisectionCoverage,
    NeuronCoverage,
    StrongActivationCoverage,
    TopNeuronCoverage,
    layers_of,
    profile_of,
)
from verify.coverage.criteria import MaskCriterion
from verify.coverage.layers import activations
from verify.coverage.reachable import Search, kinds, layer_bounds, possible_masks
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder
from verify.readers.examples import example_path
from verify.values.region import Box


def criteria_on(graph: Graph, x: Tensor, layers: Sequence[Layer]) -> dict[str, MaskCriterion]:
    """All that tick off sections, with ranges from these inputs."""
    seen = profile_of(graph, x, layers)
    return {
        "nc": NeuronCoverage(0.5),
        "nc-unscaled": NeuronCoverage(0.0, scaled=False),
        "kmnc": MultisectionCoverage(seen, 8),
        "nbc": BoundaryCoverage(seen),
        "snac": StrongActivationCoverage(seen, 0.5),
        "tknc": TopNeuronCoverage(2),
    }


def box_around(x: Tensor, eps: float) -> Box:
    wide = x.double()
    return Box((wide - eps).clamp(0, 1), (wide + eps).clamp(0, 1))


@pytest.mark.parametrize("eps", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_nothing_ruled_out_is_ever_covered(name: str, eps: float) -> None:
    """By samples inside two balls, corners among them."""
    exact = verify.load(example_path(f"digits_{name}.onnx")).graph
    graph = exact.to(torch.float32)
    shape, generator = graph.input.shape, torch.Generator().manual_seed(1)
    centres = torch.rand(2, *shape, generator=generator)
    box = box_around(centres, eps)
    layers = layers_of(graph, channels=eps == 0.02)
    bounds = layer_bounds(exact, box, layers)
    share = torch.rand(2, 400, *shape, generator=generator)
    share[:, 200:] = share[:, 200:].round()
    low, high = (end.float()[:, None] for end in (box.lower, box.upper))
    samples = (low + share * (high - low)).flatten(0, 1).clamp(0, 1)
    ruled_out = 0
    training = 0.9 * centres[[0, 1, 0, 1]] + 0.05 * torch.rand(4, *shape, generator=generator)
    for label, criterion in criteria_on(graph, training, layers).items():
        record = MaskRecord(criterion, layers)
        for values in activations(graph, samples, layers):
            record.update(values)
        possible = possible_masks(record, bounds)
        for layer in layers:
            impossible = ~possible[layer.name] & criterion.meant(layer)
            assert not bool((record.covered[layer.name] & impossible).any()), label
            ruled_out += int(impossible.sum())
    assert ruled_out > 0 or eps == 1.0


def test_dead_and_always_on_by_hand() -> None:
    """Relu(x - 2), Relu(x + 1), Relu(x - 0.5) on [0, 1]."""
    builder = GraphBuilder("x", (1,))
    first = {"weight": torch.ones(3, 1), "bias": torch.tensor([-2.0, 1.0, -0.5])}
    hidden = builder.add("Gemm", ("x",), "z", tensors=first)
    hidden = builder.add("Relu", (hidden,), "a")
    last = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    graph = builder.build(builder.add("Gemm", (hidden,), "y", tensors=last)).to(torch.float64)
    layers = layers_of(graph)
    box = Box(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    bounds = layer_bounds(graph, box, layers)
    (found,) = kinds(layers, bounds)
    assert (found.dead, found.always_on, found.neurons) == ((0,), (1,), 3)
    record = MaskRecord(NeuronCoverage(0.0, scaled=False), layers)
    record.update({layers[0].name: torch.tensor([[0.0, 1.2, 0.0]])})
    possible = possible_masks(record, bounds)[layers[0].name]
    assert possible.flatten().tolist() == [False, True, True]
    ends = (torch.zeros(1), torch.ones(1))
    (reached,) = Search()(
        graph.to(torch.float32), record, {layers[0].name: possible}, torch.tensor([[0.2]]), *ends
    )
    assert (reached.neuron, reached.section) == (2, 0)
    assert 0.5 < float(reached.x) <= 1


def test_search_covers_more_and_only_what_is_possible() -> None:
    """Every input that it returns covers its obligation and lies in the range."""
    exact = verify.load(example_path("digits_dense.onnx")).graph
    graph = exact.to(torch.float32)
    seeds = torch.rand(6, 64, generator=torch.Generator().manual_seed(0))
    layers = layers_of(graph)
    record = MaskRecord(NeuronCoverage(0.8), layers)
    for values in activations(graph, seeds, layers):
        record.update(values)
    zero, one = torch.zeros(64), torch.ones(64)
    bounds = layer_bounds(exact, Box(zero[None].double(), one[None].double()), layers)
    possible = possible_masks(record, bounds)
    asked: list[int] = []

    def runtime(x: Tensor) -> dict[str, Tensor]:
        asked.append(len(x))
        return next(activations(graph, x, layers, at_once=len(x)))

    found = Search(steps=20)(graph, record, possible, seeds, zero, one, runtime)
    assert len(found) > 5
    assert sum(asked) >= len(found)
    for reached in found:
        assert bool(((reached.x >= 0) & (reached.x <= 1)).all())
        assert not bool(record.covered[reached.layer][reached.neuron, reached.section])
        fresh = MaskRecord(record.criterion, layers)
        fresh.update(next(activations(graph, reached.x[None], layers)))
        assert bool(fresh.covered[reached.layer][reached.neuron, reached.section])


def test_what_the_runtime_denies_is_not_returned() -> None:
    graph = verify.load(example_path("digits_dense.onnx")).graph.to(torch.float32)
    layers = layers_of(graph)
    record = MaskRecord(TopNeuronCoverage(1), layers)
    seeds = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    possible = {layer.name: torch.ones(layer.neurons, 1, dtype=torch.bool) for layer in layers}
    denied = Search(steps=3)(
        graph,
        record,
        possible,
        seeds,
        torch.zeros(64),
        torch.ones(64),
        lambda x: {layer.name: torch.zeros(len(x), layer.neurons) for layer in layers},
    )
    assert denied == []
