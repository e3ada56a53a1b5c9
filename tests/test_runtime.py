"""The file in ONNX Runtime: outputs, the judgement of candidates, the check of our reading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from tests.readers.onnx_models import chain, integers, model, one, random, read_back
from verify.errors import MismatchError, ModelError, ShapeError
from verify.graph.ir import Graph
from verify.readers.onnx import OnnxModel
from verify.runtime import Runtime, cross_check, strictly_above

NAN = float("nan")


def classifier(folder: Path, batch: int | str = "N", **weights: np.ndarray) -> OnnxModel:
    """y = softmax(W·relu(x)), of 4 inputs and 3 classes."""
    proto = chain(
        (batch, 4),
        ("Relu", ["x"], "h"),
        ("MatMul", ["h", "w"], "z"),
        ("Softmax", ["z"], "y"),
        w=weights.get("w", random(4, 3)),
    )
    return read_back(proto, folder)


def softmax_by_hand(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The classifier's formula in float64."""
    z = np.maximum(x.astype(np.float64), 0) @ w.astype(np.float64)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("batch", "batchable"), [("N", True), (1, False)])
def test_outputs_are_those_of_the_file(batch: int | str, batchable: bool, tmp_path: Path) -> None:
    """Softmax included, whether inputs are run together or one by one."""
    runtime = Runtime(classifier(tmp_path, batch))
    assert runtime.batchable is batchable
    x = random(7, 4, seed=3)
    expected = softmax_by_hand(x, random(4, 3))
    assert runtime.run(torch.from_numpy(x)).numpy() == pytest.approx(expected, rel=1e-5)
    assert runtime.predict(torch.from_numpy(x)).tolist() == expected.argmax(axis=1).tolist()
    assert runtime.run(torch.zeros(0, 4)).shape == (0, 3)


def test_a_model_without_batch_axis_is_run_one_by_one(tmp_path: Path) -> None:
    """Each sample is the whole input."""
    read = read_back(one("MatMul", (4,), random(4, 3)), tmp_path)
    x = random(5, 4, seed=3)
    found = Runtime(read).run(torch.from_numpy(x))
    assert found.numpy() == pytest.approx(x @ random(4, 3), rel=1e-4, abs=1e-6)


def test_a_model_that_folds_the_batch_into_rows_is_not_batched(tmp_path: Path) -> None:
    """An open batch size does not mean that samples may be run together."""
    proto = chain(
        ("N", 4),
        ("Reshape", ["x", "s"], "h"),
        ("MatMul", ["h", "w"], "y"),
        s=integers(1, -1, 4),
        w=random(4, 3),
    )
    mixed = chain(
        ("N", 2, 2),
        ("Reshape", ["x", "one"], "h"),
        ("Gemm", ["h", "w"], "y"),
        one=integers(1, 4),
        w=random(4, 3),
    )
    assert Runtime(read_back(proto, tmp_path)).batchable  # the same rows, in the same order
    assert not Runtime(read_back(mixed, tmp_path)).batchable


def test_only_a_strictly_larger_output_counts_as_misclassified(tmp_path: Path) -> None:
    """A tie is no counterexample."""
    weight = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    runtime = Runtime(classifier(tmp_path, w=weight))
    x = torch.tensor([[2.0, 1, 0, 0], [1, 2, 0, 0], [1, 1, 0, 0], [1, 0, 0, 9], [0, 0, 0.5, 0]])
    assert runtime.misclassified(x, torch.zeros(5, dtype=torch.int64)).tolist() == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_nan_shows_nothing() -> None:
    """Neither a NaN output nor a NaN at the label makes a counterexample."""
    outputs = torch.tensor([[NAN, NAN], [NAN, 3.0], [1.0, NAN]])
    assert strictly_above(outputs, torch.zeros(3, dtype=torch.int64)).tolist() == [False] * 3


def test_both_optimisation_levels_must_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only one of the sessions misclassifies does not count."""
    runtime = Runtime(classifier(tmp_path))
    other = Runtime(classifier(tmp_path, w=-random(4, 3)))
    x = torch.from_numpy(np.abs(random(1, 4)))
    label = 1 - runtime.predict(x).clamp(max=1)
    assert runtime.misclassified(x, label).all()
    contrary = runtime.predict(x)
    assert other.misclassified(x, contrary).all()
    assert not runtime.misclassified(x, contrary).any()
    monkeypatch.setattr(other, "_literal", runtime._optimised)
    assert not other.misclassified(x, contrary).any()


def test_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    """The message names both shapes."""
    with pytest.raises(ShapeError, match=r"\(4,\).*\(5,\)"):
        Runtime(classifier(tmp_path)).run(torch.zeros(1, 5))


def test_a_double_model_gets_float32_values(tmp_path: Path) -> None:
    """What is certified are float32 inputs, whatever the file computes in."""
    proto = model([helper.make_node("Identity", ["x"], ["y"])], ("N", 2), kind=11)
    x = torch.tensor([[1 / 3, 0.5]], dtype=torch.float64)
    assert Runtime(read_back(proto, tmp_path)).run(x).tolist() == x.float().double().tolist()


def test_the_file_may_change_after_it_was_read(tmp_path: Path) -> None:
    """The runtime is given the bytes that were read."""
    read = classifier(tmp_path)
    read.path.write_bytes(b"something else")
    assert Runtime(read).run(torch.zeros(1, 4)).shape == (1, 3)


def test_what_the_runtime_does_not_accept_is_a_model_error(tmp_path: Path) -> None:
    """One line from us, not a traceback from it."""
    proto = one("Relu", (1, 3))
    proto.ir_version = 999
    with pytest.raises(ModelError, match="does not accept"):
        Runtime(read_back(proto, tmp_path))


def scaled(graph: Graph, factor: float) -> Graph:
    """A wrong reading: the last layer's weights multiplied by a factor."""
    *before, last = graph.nodes
    tensors = {**last.tensors, "weight": last.tensors["weight"] * factor}
    return replace(graph, nodes=(*before, replace(last, tensors=tensors)))


def test_the_cross_check_passes_for_what_is_read_rightly(tmp_path: Path) -> None:
    """The difference is a small share of what is allowed."""
    read = classifier(tmp_path)
    found = cross_check(read, Runtime(read))
    assert found.samples == 9
    assert found.share < 0.2


@pytest.mark.parametrize("factor", [1.01, -1.0, NAN, 0.0])
def test_the_cross_check_refuses_a_wrong_reading(factor: float, tmp_path: Path) -> None:
    """One per cent in one layer is enough; so is a NaN."""
    read = classifier(tmp_path)
    wrong = replace(read, graph=scaled(read.graph, factor))
    with pytest.raises(MismatchError, match="Nothing is certified"):
        cross_check(wrong, Runtime(read))


def test_the_cross_check_refuses_a_forgotten_softmax(tmp_path: Path) -> None:
    """The tail belongs to the reading."""
    read = classifier(tmp_path)
    wrong = replace(read, graph=replace(read.graph, tail=None))
    with pytest.raises(MismatchError):
        cross_check(wrong, Runtime(read))


def test_the_cross_check_bears_cancellation(tmp_path: Path) -> None:
    """Large terms that cancel cost float32 more than a fixed share of the output."""
    weight = random(200, 200) * 1e3
    proto = chain(
        (1, 200),
        ("Gemm", ["x", "w"], "h"),
        ("Tanh", ["x"], "t"),
        ("MatMul", ["h", "v"], "k"),
        ("MatMul", ["k", "a"], "m"),
        ("Add", ["m", "t"], "y"),
        w=weight,
        v=np.linalg.inv(weight.astype(np.float64)).astype(np.float32),
        a=np.float32(np.eye(200) - 1 / 200),
    )
    read = read_back(proto, tmp_path)
    assert cross_check(read, Runtime(read)).share < 1
