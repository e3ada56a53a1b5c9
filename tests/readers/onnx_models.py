"""Small ONNX models that the readers' tests generate, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from verify.readers.onnx import OnnxModel, read_onnx
from verify.runtime import with_tail
from verify.traverse import run

IR_VERSION = 8  # old enough for every runtime that reads the opsets below

Dims = Sequence[int | str | None]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    """An int64 vector."""
    return np.asarray(values, dtype=np.int64)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Dims,
    constants: dict[str, ArrayLike] | None = None,
    *,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A model of input `x` of a shape, and output `y` of unstated shape."""
    initializers = [
        numpy_helper.from_array(np.asarray(array), name)
        for name, array in (constants or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "generated",
        [helper.make_tensor_value_info("x", kind, shape), *inputs],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        initializers,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def one(
    op: str,
    shape: Dims,
    *constants: ArrayLike | None,
    opset: int = 17,
    first: bool = True,
    outputs: int = 1,
    **attributes: object,
) -> onnx.ModelProto:
    """A model of one node on `x`, its constants after `x` (or before it)."""
    names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    given = {n: c for n, c in zip(names, constants, strict=True) if c is not None}
    order = ["x", *names] if first else [*names, "x"]
    results = ["y", *(f"y{i}" for i in range(1, outputs))]
    node = helper.make_node(op, order, results, name="node", **attributes)
    return model([node], shape, given, opset=opset)


def chain(
    shape: Dims,
    *steps: tuple[str, list[str], str] | tuple[str, list[str], str, dict[str, object]],
    opset: int = 17,
    **constants: ArrayLike,
) -> onnx.ModelProto:
    """A model of several nodes, each given as (operator, inputs, output, attributes)."""
    nodes = []
    for op, sources, target, *rest in steps:
        attributes = rest[0] if rest else {}
        nodes.append(helper.make_node(op, sources, target.split(","), **attributes))
    return model(nodes, shape, constants, opset=opset)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file."""
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def reference(read: OnnxModel, x: torch.Tensor) -> np.ndarray:
    """ONNX Runtime's outputs, one input at a time, flat: shape (batch, outputs)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(read.data, options, providers=["CPUExecutionProvider"])
    rows = []
    for row in x.numpy().astype(read.dtype):
        fed = row[None] if read.has_batch_axis else row
        rows.append(session.run(None, {read.input_name: fed})[0].reshape(-1))
    return np.stack(rows)


def gap(read: OnnxModel, x: torch.Tensor) -> float:
    """Largest difference of our graph and ONNX Runtime, relative to the largest output."""
    theirs = reference(read, x)
    ours = with_tail(run(read.graph, x), read.graph.tail).flatten(1).numpy()
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def probe(read: OnnxModel, batch: int = 3) -> torch.Tensor:
    """Random inputs around zero."""
    return torch.randn(batch, *read.input_shape, generator=torch.Generator().manual_seed(0))


def read_back(proto: onnx.ModelProto, folder: Path) -> OnnxModel:
    """The model, saved and read."""
    return read_onnx(saved(proto, folder))


def dense() -> onnx.ModelProto:
    """A small valid model."""
    return chain(
        (1, 3), ("Gemm", ["x", "w", "b"], "h"), ("Relu", ["h"], "y"), w=random(3, 4), b=random(4)
    )
