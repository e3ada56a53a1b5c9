"""What is a neuron, and measuring over a real file."""

from __future__ import annotations

import pytest
import torch

import verify
from verify.coverage import (
    MaskRecord,
    NeuronCoverage,
    TopNeuronCoverage,
    layers_of,
    measure,
    profile_of,
)
from verify.coverage.layers import observed
from verify.errors import DataError, SettingError
from verify.readers.examples import example_path
from verify.traverse import evaluate

GRAPH = verify.load(example_path("digits_conv.onnx")).graph.to(torch.float32)
X = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_activations_are_watched_by_default() -> None:
    assert [(layer.name, layer.neurons) for layer in layers_of(GRAPH)] == [("v2", 8), ("v5", 16)]
    wide = layers_of(GRAPH, channels=False)
    assert [layer.neurons for layer in wide] == [8 * 8 * 8, 16 * 4 * 4]


def test_a_channel_is_the_mean_over_its_positions() -> None:
    values = evaluate(GRAPH, X)
    found = observed(GRAPH, X, layers_of(GRAPH, ["v2", "logits"]))
    torch.testing.assert_close(found["v2"], values["v2"].mean(dim=(2, 3)))
    assert torch.equal(found["logits"], values["logits"])


def test_a_layer_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SettingError, match=r"no layer 'v99'.*v2 \(Relu\)"):
        layers_of(GRAPH, ["v99"])
    with pytest.raises(SettingError, match="named twice"):
        layers_of(GRAPH, ["v2", "v2"])


@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_measuring_does_not_depend_on_the_batches(at_once: int) -> None:
    """Batched kernels may differ in the last bits, so thresholds stay away from values."""
    layers = layers_of(GRAPH)
    records = {
        "nc": MaskRecord(NeuronCoverage(0.5), layers),
        "tknc": MaskRecord(TopNeuronCoverage(2), layers),
    }
    seen: list[int] = []
    found = measure(GRAPH, X, layers, records, at_once=at_once, progress=seen.append)
    values = observed(GRAPH, X, layers)
    for name, measured in found.items():
        fresh = MaskRecord(records[name].criterion, layers)
        fresh.update(values)
        assert measured.layers == fresh.shares()
        share = measured.total.share
        assert measured.curve[-1] == (40, share)
        heights = [height for _, height in measured.curve]
        assert heights == sorted(heights)
    assert seen[-1] == 40


def test_a_profile_needs_inputs() -> None:
    with pytest.raises(DataError, match="at least one input"):
        profile_of(GRAPH, X[:0], layers_of(GRAPH))
