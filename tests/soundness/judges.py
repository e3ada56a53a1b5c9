"""What a float32 execution of a file may give: ONNX Runtime in many ways, and exact numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

Single = NDArray[np.float32]
LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def sessions(data: bytes) -> Iterator[onnxruntime.InferenceSession]:
    """The file at every optimisation level, on one thread and on two, denormals kept or flushed."""
    ways = [(level, 1, flush) for level, flush in product(LEVELS, ("0", "1"))]
    for level, threads, flush in (*ways, (LEVELS[0], 2, "0"), (LEVELS[-1], 2, "0")):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.set_denormal_as_zero", flush)
        yield onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def reordered(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same function with hidden neurons in another order: another legal order of each sum.

    Only chains of Gemm (weights as inputs x outputs) and element-wise operators are known here; the
    inputs of the first layer keep their places.
    """
    turned = onnx.ModelProto()
    turned.CopyFrom(proto)
    graph, generator = turned.graph, np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    order: NDArray[np.int64] | None = None
    layers = [node for node in graph.node if node.op_type == "Gemm"]
    for i, node in enumerate(layers):
        weight = numpy_helper.to_array(tensors[node.input[1]])
        bias = numpy_helper.to_array(tensors[node.input[2]])
        weight = weight if order is None else weight[order]
        last = i == len(layers) - 1
        order = np.arange(len(bias)) if last else generator.permutation(len(bias))
        for name, array in ((node.input[1], weight[:, order]), (node.input[2], bias[order])):
            fresh = numpy_helper.from_array(np.ascontiguousarray(array), name)
            tensors[name].CopyFrom(fresh)
    return turned


def runs(proto: onnx.ModelProto, x: Single, *, orders: int = 0) -> NDArray[np.float64]:
    """Outputs of all those executions at some inputs; shape (way, point, output)."""
    files = [proto, *(reordered(proto, seed) for seed in range(orders))]
    found = []
    for file in files:
        for session in sessions(file.SerializeToString()):
            rows = [session.run(None, {"x": row[None]})[0].reshape(-1) for row in x]
            found.append(np.stack(rows))
    return np.stack(found).astype(np.float64)


def exact(layers: Sequence[tuple[Single, Single]], x: Sequence[Fraction]) -> list[Fraction]:
    """The outputs of dense Relu layers (weight out x in, bias) in rational numbers."""
    values = list(x)
    for i, (weight, bias) in enumerate(layers):
        values = [
            Fraction(float(b))
            + sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(0))
            for row, b in zip(weight, bias, strict=True)
        ]
        if i < len(layers) - 1:
            values = [max(value, Fraction(0)) for value in values]
    return values
