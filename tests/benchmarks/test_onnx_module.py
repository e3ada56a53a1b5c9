"""The torch reconstruction of an ONNX file computes what ONNX Runtime computes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers.onnx_module import (
    MismatchError,
    OnnxModule,
    UnknownOperatorError,
    disagreement,
    load_module,
)

SHAPE = (1, 2, 8, 8)


def constant(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Random weights around zero."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def save_network(folder: Path, last: str = "Relu") -> Path:
    """A file with every operator of the suites: scaling, residual sum, both poolings, dense end."""
    scale = numpy_helper.from_array(np.full((1, 1, 1, 1), 0.5, dtype=np.float32))
    nodes = [
        helper.make_node("Constant", [], ["half"], value=scale),
        helper.make_node("Sub", ["x", "half"], ["shifted"]),
        helper.make_node("Div", ["shifted", "half"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c1"], ["s1"]),
        helper.make_node("Conv", ["s1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "c1"], ["sum"]),
        helper.make_node("MaxPool", ["sum"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["m"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["a"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["g"], transB=1),
        helper.make_node(last, ["g"], ["y"]),
    ]
    weights = [
        constant("w1", 4, 2, 3, 3, seed=1),
        constant("b1", 4, seed=2),
        constant("w2", 4, 4, 3, 3, seed=3),
        constant("b2", 4, seed=4),
        constant("w3", 3, 16, seed=5),
        constant("b3", 3, seed=6),
    ]
    graph = helper.make_graph(
        nodes,
        "all",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
        weights,
    )
    path = folder / "all.onnx"
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_every_known_operator_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    """load_module checks by itself and would raise."""
    module = load_module(save_network(tmp_path), torch.zeros(SHAPE), torch.ones(SHAPE))
    assert module(torch.rand(3, *SHAPE[1:])).shape == (3, 3)


def test_a_wrong_weight_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: one bias moved by 0.01 is refused."""
    path = save_network(tmp_path)
    right = OnnxModule(onnx.load(path).graph)
    with torch.no_grad():
        next(right.parameters()).add_(0.01)
    assert disagreement(right, path, torch.zeros(SHAPE), torch.ones(SHAPE)) > 1e-5
    monkeypatch.setattr("benchmarks.peers.onnx_module.OnnxModule", lambda graph: right)
    with pytest.raises(MismatchError, match="differs from ONNX Runtime"):
        load_module(path, torch.zeros(SHAPE), torch.ones(SHAPE))


def test_an_unknown_operator_is_refused_by_name(tmp_path: Path) -> None:
    """Never a silent skip."""
    with pytest.raises(UnknownOperatorError, match="Tanh"):
        OnnxModule(onnx.load(save_network(tmp_path, last="Tanh")).graph)
