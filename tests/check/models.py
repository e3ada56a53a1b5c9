"""Small ONNX files and properties for the checker, and executions of the files in float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tests.readers.onnx_models import model

Array = NDArray[np.float64]


def dense_bytes(seed: int, sizes: tuple[int, ...] = (2, 6, 6, 3), scale: float = 1.0) -> bytes:
    """A dense Relu net."""
    rng = np.random.default_rng(seed)
    nodes, constants, name = [], {}, "x"
    for i, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        constants[f"w{i}"] = (scale * rng.normal(size=(n, m)) * (2 / n) ** 0.5).astype(np.float32)
        constants[f"b{i}"] = (0.3 * rng.normal(size=m)).astype(np.float32)
        last = i == len(sizes) - 2
        out = "y" if last else f"z{i}"
        nodes.append(onnx.helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [out]))
        name = out
        if not last:
            nodes.append(onnx.helper.make_node("Relu", [name], [f"a{i}"]))
            name = f"a{i}"
    return model(nodes, [1, sizes[0]], constants).SerializeToString()


def conv_bytes(seed: int, kind: str = "MaxPool") -> bytes:
    """Convolution, normalisation, Relu, a pool, a residual sum and a dense layer."""
    rng = np.random.default_rng(seed)

    def single(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.6)

    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "k0", "c0"], ["z0"], pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["z0", "g", "b", "m", "v"], ["n0"]),
        make("Relu", ["n0"], ["a0"]),
        make("Conv", ["a0", "k1"], ["z1"], pads=[1, 1, 1, 1], group=2),
        make("Add", ["z1", "a0"], ["s"]),
        make("Relu", ["s"], ["a1"]),
        make(kind, ["a1"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["p"], ["f"]),
        make("MatMul", ["f", "w"], ["u"]),
        make("Add", ["u", "d"], ["y"]),
    ]
    constants = {
        "k0": single(4, 1, 3, 3),
        "c0": single(4),
        "g": single(4),
        "b": single(4),
        "m": single(4),
        "v": np.abs(single(4)) + np.float32(0.5),
        "k1": single(4, 2, 3, 3),
        "w": single(16, 3),
        "d": single(3),
    }
    return model(nodes, [1, 1, 4, 4], constants).SerializeToString()


def mixed_bytes(seed: int) -> bytes:
    """Leaky and clipped values, curves, and moves of data."""
    rng = np.random.default_rng(seed)
    make = onnx.helper.make_node

    def single(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    nodes = [
        make("Gemm", ["x", "w0", "b0"], ["z"]),
        make("Split", ["z", "lengths"], ["z0", "z1", "z2"], axis=1),
        make("LeakyRelu", ["z0"], ["a0"], alpha=0.1),
        make("Sigmoid", ["z1"], ["a1"]),
        make("Tanh", ["z2"], ["a2"]),
        make("Concat", ["a2", "a0", "a1"], ["c"], axis=1),
        make("Gemm", ["c", "w1", "b1"], ["u"]),
        make("Unsqueeze", ["u", "axes"], ["v"]),
        make("PRelu", ["v", "slopes"], ["p"]),
        make("Clip", ["p", "low", "high"], ["q"]),
        make("Slice", ["q", "starts", "ends", "last", "steps"], ["s"]),
        make("Squeeze", ["s", "axes"], ["t"]),
        make("Gemm", ["t", "w2", "b2"], ["y"]),
    ]
    constants = {
        "w0": single(3, 9),
        "b0": single(9),
        "lengths": np.array([3, 2, 4]),
        "w1": single(9, 8),
        "b1": single(8),
        "axes": np.array([1]),
        "slopes": np.abs(single(8)),
        "low": np.float32(-1.5),
        "high": np.float32(2.0),
        "starts": np.array([1]),
        "ends": np.array([100]),
        "last": np.array([2]),
        "steps": np.array([2]),
        "w2": single(4, 3),
        "b2": single(3),
    }
    return model(nodes, [1, 3], constants).SerializeToString()


def box_property(lower: Array, upper: Array, clauses: list[str], outputs: int) -> str:
    """A property of one box; a clause such as "(<= Y_0 Y_1) (>= Y_2 0.5)" is unsafe as a whole."""
    lines = [f"(declare-const X_{i} Real)" for i in range(lower.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(outputs)]
    for i, (low, high) in enumerate(zip(lower.ravel(), upper.ravel(), strict=True)):
        lines += [f"(assert (>= X_{i} {float(low)!r}))", f"(assert (<= X_{i} {float(high)!r}))"]
    terms = " ".join(f"(and {clause})" for clause in clauses)
    return "\n".join([*lines, f"(assert (or {terms}))"])


def runs(data: bytes) -> list[Callable[[Array], Array]]:
    """The file in ONNX Runtime, with and without its graph optimisations."""
    found = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(data, options)

        def run(x: Array, session: onnxruntime.InferenceSession = session) -> Array:
            shape = session.get_inputs()[0].shape
            out = session.run(None, {"x": x.reshape(shape).astype(np.float32)})[0]
            return np.asarray(out, np.float64).ravel()

        found.append(run)
    return found
