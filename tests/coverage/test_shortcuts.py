"""Shortcuts that save time must find what the plain definitions find."""

from __future__ import annotations

import math

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
    measure,
)
from verify.coverage.layers import batch_for
from verify.coverage.measuring import steps
from verify.coverage.profile import Range
from verify.errors import SettingError
from verify.readers.examples import example_path

WIDE = Layer("a", (300,), False)


def stream(seed: int, ties: bool) -> list[Tensor]:
    """Batches of activations as of a Relu; with ties, few distinct values."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(300, generator=generator)
    values = (torch.randn(240, 300, generator=generator) * scale).clamp(min=0)
    return list(((values * 4).round() / 4 if ties else values).split(60))


def ranges(values: Tensor) -> dict[str, Range]:
    wide = values.double()
    deviation = wide.std(0, correction=0)
    return {"a": Range(values.amin(0), values.amax(0), wide.mean(0), deviation, len(values))}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 3, 8, 9])
@pytest.mark.parametrize("seed", range(3))
def test_top_neurons_in_a_wide_layer(seed: int, k: int, ties: bool) -> None:
    """Fewer than k others are at least as large, counted for each value."""
    record, expected = MaskRecord(TopNeuronCoverage(k), [WIDE]), torch.zeros(300, dtype=torch.bool)
    for values in stream(seed, ties):
        record.update({"a": values})
        others = (values[:, None, :] >= values[:, :, None]).sum(dim=2) - 1
        expected |= (others < k).any(dim=0)
        assert torch.equal(record.covered["a"][:, 0], expected)


@pytest.mark.parametrize("k", [1, 10, 29, 30, 61, 62])
def test_sections_are_those_of_each_value_alone(k: int) -> None:
    """Every width of the bit mask, ends of the range, and a neuron that never changed."""
    first, *rest = stream(5, ties=False)
    first[:, 0] = 0.25
    criterion = MultisectionCoverage(ranges(first), k)
    for values in (first, *rest):
        place = criterion.place(WIDE, values)
        expected = torch.stack([(place == i).any(dim=0) for i in range(k)], dim=1)
        expected[0] = False
        assert torch.equal(criterion.hits(WIDE, values), expected)
        known = torch.rand(300, k) < 0.5
        assert torch.equal(criterion.hits(WIDE, values, known) | known, expected | known)
    assert bool((criterion.place(WIDE, first)[:, 1:] < k).all())
    assert bool(criterion.hits(WIDE, first)[1:, k - 1].all())  # the maximum itself


@pytest.mark.parametrize("scaled", [True, False])
def test_known_neurons_change_nothing_for_the_others(scaled: bool) -> None:
    criterion = NeuronCoverage(0.6, scaled=scaled)
    for values in stream(7, ties=True):
        plain = (criterion.level(values) > 0.6).any(dim=0)[:, None]
        known = torch.rand(300, 1) < 0.7
        assert torch.equal(criterion.hits(WIDE, values), plain)
        assert torch.equal(criterion.hits(WIDE, values, known) | known, plain | known)
        assert torch.equal(criterion.hits(WIDE, values, ~known) | ~known, plain | ~known)


def test_a_nan_covers_nothing_and_hides_nothing() -> None:
    layer = Layer("a", (2,), False)
    seen = {"a": ranges(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))["a"]}
    values = torch.tensor([[math.nan, 2.0], [2.0, math.nan], [-1.0, -1.0], [0.5, 0.5]])
    both, above = BoundaryCoverage(seen), StrongActivationCoverage(seen)
    assert bool(both.hits(layer, values).all())
    assert bool(above.hits(layer, values).all())
    assert not bool(above.hits(layer, values[:1])[0])
    sections = MultisectionCoverage(seen, 2)
    assert sections.hits(layer, values).tolist() == [[False, True], [False, True]]
    assert not bool(sections.hits(layer, values[:1]).any())


@pytest.mark.parametrize("count", [0, 1, 5, 63, 64, 360, 10_000])
def test_batches_hold_every_input_once(count: int) -> None:
    sizes = steps(count, 1000)
    assert sum(sizes) == count
    assert len(sizes) <= 24 or count < 400
    assert all(0 < size <= 1000 for size in sizes)
    assert max(steps(10_000, 100)) == 100


def test_larger_networks_run_fewer_inputs_at_once() -> None:
    small = batch_for(verify.load(example_path("digits_dense.onnx")).graph)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU())
    large = batch_for(verify.load(net, input_shape=(1, 32, 32)).graph)
    assert 16 <= large < small <= 1024


def test_no_inputs_cover_nothing() -> None:
    graph = verify.load(example_path("digits_dense.onnx")).graph.to(torch.float32)
    layers = layers_of(graph)
    record = MaskRecord(NeuronCoverage(0.25), layers)
    found = measure(graph, torch.zeros(0, 64), layers, {"nc": record})
    assert found["nc"].total.covered == 0
    assert found["nc"].curve == ()
    with pytest.raises(SettingError):
        TopNeuronCoverage(0)
