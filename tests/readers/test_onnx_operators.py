"""Every supported operator and form of it: our graph computes what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.readers.onnx_models import chain, gap, integers, model, one, probe, random, read_back

FLOAT32 = 1e-5  # relative; a few float32 roundings, of values of order one

IMAGE = (1, 4, 7, 6)
WEIGHT = random(6, 4, 3, 3, seed=1)
SHAPE_OF_REST = [
    ("Shape", ["x"], "shape"),
    ("Gather", ["shape", "first"], "n"),
    ("Unsqueeze", ["n", "zero"], "n1"),
    ("Cast", ["n1"], "n2", {"to": TensorProto.INT64}),
    ("Concat", ["n2", "rest"], "target", {"axis": 0}),
    ("Reshape", ["x", "target"], "y"),
]


def constant_node(**attributes: object) -> onnx.ModelProto:
    """y = x + a Constant node of the given attribute."""
    nodes = [
        helper.make_node("Constant", [], ["c"], **attributes),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    return model(nodes, (1, 3))


CASES: dict[str, onnx.ModelProto] = {
    # Dense layers
    "gemm": one("Gemm", (1, 5), random(5, 4), random(4)),
    "gemm without C": one("Gemm", (1, 5), random(5, 4), opset=11),
    "gemm alpha beta transB": one(
        "Gemm", (1, 5), random(4, 5), random(1, 4), alpha=0.5, beta=2.0, transB=1
    ),
    "gemm beta zero": one("Gemm", (1, 5), random(5, 4), random(4), beta=0.0),
    "gemm scalar C": one("Gemm", (1, 5), random(5, 4), np.float32(3)),
    "gemm transA": one("Gemm", (5, 3), random(5, 4), transA=1),
    "gemm batchless, C per row": one("Gemm", (3, 5), random(5, 4), random(3, 1)),
    "gemm from the left": model(
        [helper.make_node("Gemm", ["w", "x", "c"], ["y"], transA=1, transB=1)],
        (3, 5),
        {"w": random(5, 4), "c": random(4, 1)},
    ),
    "gemm with C computed": chain(
        (1, 5), ("Relu", ["x"], "h"), ("Gemm", ["x", "w", "h"], "y", {"beta": 0.5}), w=random(5, 5)
    ),
    "matmul": one("MatMul", (1, 5), random(5, 4)),
    "matmul of matrices": one("MatMul", (1, 3, 5), random(5, 4)),
    "matmul with leading ones": one("MatMul", (1, 3, 5), random(1, 1, 5, 4)),
    "matmul by a vector": one("MatMul", (1, 3, 5), random(5)),
    "matmul to a scalar per sample": one("MatMul", (1, 5), random(5)),
    "matmul rank one": one("MatMul", (5,), random(5, 4)),
    "matmul from the left": one("MatMul", (1, 3, 5), random(4, 3), first=False),
    "matmul vector from the left": one("MatMul", (1, 3, 5), random(3), first=False),
    "matmul left, batchless": one("MatMul", (3, 5), random(4, 3), first=False),
    "matmul left, rank one": one("MatMul", (3,), random(4, 3), first=False),
    "matmul then add": chain(
        (1, 5), ("MatMul", ["x", "w"], "h"), ("Add", ["b", "h"], "y"), w=random(5, 4), b=random(4)
    ),
    # Arithmetic
    "add constant": one("Add", (1, 4, 3), random(3)),
    "add scalar": one("Add", (1, 4, 3), np.float32(2)),
    "constant plus x": one("Add", (1, 4, 3), random(4, 1), first=False),
    "add that broadcasts x": one("Add", (1, 4, 1), random(2, 1, 3)),
    "add that adds axes": one("Add", (3,), random(2, 4, 1)),
    "sub constant": one("Sub", (1, 3), random(3)),
    "constant minus x": one("Sub", (1, 3), random(3), first=False),
    "mul": one("Mul", (1, 3), random(1, 3)),
    "div": one("Div", (1, 3), np.float32([2, -3, 7])),
    "neg": one("Neg", (1, 3)),
    "sum with constants": chain(
        (1, 3), ("Relu", ["x"], "h"), ("Sum", ["x", "c", "h"], "y"), c=random(3)
    ),
    "sum of one": one("Sum", (1, 3)),
    "residual add": chain((1, 3), ("Relu", ["x"], "h"), ("Add", ["h", "x"], "y")),
    "difference of two": chain((1, 3), ("Relu", ["x"], "h"), ("Sub", ["h", "x"], "y")),
    "x + x": chain((1, 3), ("Add", ["x", "x"], "y")),
    "add of two shapes": chain(
        (1, 4, 3), ("ReduceSum", ["x", "axes"], "h"), ("Sub", ["h", "x"], "y"), axes=integers(1)
    ),
    "add of two ranks": chain(
        (1, 4), ("Squeeze", ["x", "axes"], "h"), ("Add", ["h", "x"], "y"), axes=integers(0)
    ),
    # Convolution
    "conv": one("Conv", IMAGE, WEIGHT, random(6), pads=[1, 1, 1, 1]),
    "conv strided, dilated": one("Conv", IMAGE, WEIGHT, strides=[2, 1], dilations=[2, 2]),
    "conv asymmetric": one("Conv", IMAGE, WEIGHT, pads=[0, 1, 2, 0], strides=[2, 2]),
    "conv same upper": one("Conv", IMAGE, WEIGHT, auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": one("Conv", IMAGE, WEIGHT, auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv valid": one("Conv", IMAGE, WEIGHT, auto_pad="VALID", kernel_shape=[3, 3]),
    "conv grouped": one("Conv", IMAGE, random(6, 2, 3, 2), group=2),
    "conv depthwise": one("Conv", IMAGE, random(8, 1, 2, 2), group=4),
    "conv 1-D": one("Conv", (1, 3, 9), random(4, 3, 3), random(4), pads=[2, 1], dilations=[2]),
    "conv 3-D": one("Conv", (1, 2, 4, 5, 4), random(3, 2, 2, 3, 2), pads=[1, 1, 0, 0, 1, 1]),
    "batch normalisation": one(
        "BatchNormalization", IMAGE, random(4), random(4), random(4), random(4) ** 2, epsilon=1e-3
    ),
    "batch normalisation of vectors": one(
        "BatchNormalization", (1, 4), random(4), random(4), random(4), random(4) ** 2, opset=9
    ),
    "conv and batch normalisation": chain(
        IMAGE,
        ("Conv", ["x", "w", "b"], "h"),
        ("BatchNormalization", ["h", "s", "b", "m", "v"], "y"),
        w=WEIGHT,
        b=random(6),
        s=random(6),
        m=random(6),
        v=random(6) ** 2,
    ),
    # Activations
    "relu": one("Relu", (1, 3)),
    "leaky relu": one("LeakyRelu", (1, 3), alpha=0.3),
    "leaky relu by default": one("LeakyRelu", (1, 3)),
    "prelu per channel": one("PRelu", IMAGE, random(4, 1, 1)),
    "prelu shared": one("PRelu", (1, 5), np.float32([0.2])),
    "sigmoid": one("Sigmoid", (1, 3)),
    "tanh": one("Tanh", (1, 3)),
    "abs": one("Abs", (1, 3)),
    "hard sigmoid": one("HardSigmoid", (1, 3), alpha=0.4, beta=0.3),
    "clip inputs": one("Clip", (1, 9), np.float32(-0.5), np.float32(0.25)),
    "clip low only": one("Clip", (1, 9), np.float32(-0.5)),
    "clip high only": one("Clip", (1, 9), None, np.float32(0.5)),
    "clip at infinity": one("Clip", (1, 9), np.float32(-np.inf), np.float32(0.1)),
    "clip neither": one("Clip", (1, 9)),
    "clip attributes": one("Clip", (1, 9), opset=9, min=-0.25, max=0.5),
    "clip by default": one("Clip", (1, 9), opset=9, min=-0.25),
    "relu6": one("Clip", (1, 9), np.float32(0), np.float32(6)),
    "max with scalar": one("Max", (1, 9), np.float32(0.1)),
    "min with scalar": one("Min", (1, 9), np.float32([0.1]), first=False),
    "max with vector": one("Max", (1, 9), random(9)),
    "min with vector": one("Min", (1, 9), random(9)),
    "max of two": chain((1, 9), ("Neg", ["x"], "h"), ("Max", ["x", "h"], "y")),
    "min of three": chain(
        (1, 9), ("Neg", ["x"], "h"), ("Min", ["x", "h", "c"], "y"), c=np.float32(-0.5)
    ),
    "softmax": one("Softmax", (1, 5)),
    "softmax over axis 1": one("Softmax", (1, 5), axis=1, opset=11),
    "softmax then identity": chain((1, 5), ("Softmax", ["x"], "h"), ("Identity", ["h"], "y")),
    "softmax then flatten": chain(
        (1, 5, 1), ("Softmax", ["x"], "h", {"axis": 1}), ("Flatten", ["h"], "y")
    ),
    "log softmax": one("LogSoftmax", (1, 5)),
    # Pools
    "max pool": one("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    "max pool ceil": one("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1),
    "max pool ceil, window behind": one(
        "MaxPool", (1, 2, 6), kernel_shape=[1], strides=[3], pads=[0, 0], ceil_mode=1
    ),
    "max pool dilated": one("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3]),
    "max pool same": one(
        "MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "max pool 1-D": one("MaxPool", (1, 3, 9), kernel_shape=[2], strides=[2]),
    "max pool 3-D": one("MaxPool", (1, 2, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    "average pool": one("AveragePool", IMAGE, kernel_shape=[2, 3], strides=[2, 1]),
    "average pool, padding left out": one(
        "AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]
    ),
    "average pool, padding counted": one(
        "AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "average pool ceil": one(
        "AveragePool", IMAGE, kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1, opset=19
    ),
    "average pool ceil, padding counted": one(
        "AveragePool",
        (1, 2, 7, 7),
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        ceil_mode=1,
        count_include_pad=1,
        opset=19,
    ),
    "average pool same": one(
        "AveragePool", IMAGE, kernel_shape=[2, 2], auto_pad="SAME_LOWER", opset=11
    ),
    "global average pool": one("GlobalAveragePool", IMAGE),
    "global max pool": one("GlobalMaxPool", IMAGE),
    "reduce mean, attribute": one("ReduceMean", IMAGE, axes=[2, 3], keepdims=0, opset=13),
    "reduce mean, negative axis": one("ReduceMean", IMAGE, axes=[-1], opset=11),
    "reduce mean, input": one("ReduceMean", IMAGE, integers(1, 3), opset=18),
    "reduce sum, input": one("ReduceSum", IMAGE, integers(1), keepdims=0, opset=13),
    "reduce sum of a vector": one("ReduceSum", (1, 5), integers(1), keepdims=0),
    "reduce sum of all": one("ReduceSum", (1, 5)),
    "reduce nothing": one("ReduceSum", (1, 5), noop_with_empty_axes=1),
    "reduce batchless": one("ReduceMean", (4, 5), axes=[0], keepdims=1),
    # Shapes
    "flatten": one("Flatten", IMAGE),
    "flatten late": one("Flatten", IMAGE, axis=2),
    "flatten from 0": one("Flatten", IMAGE, axis=0),
    "reshape": one("Reshape", (1, 4, 6), integers(1, -1, 3)),
    "reshape with zeros": one("Reshape", (1, 4, 6), integers(0, 0, 2, 3)),
    "reshape allowzero": one("Reshape", (1, 4, 6), integers(1, 6, 4), allowzero=1),
    "reshape drops the batch": one("Reshape", (1, 4), integers(-1)),
    "reshape drops and re-adds it": chain(
        (1, 4, 6),
        ("Reshape", ["x", "rows"], "h"),
        ("MatMul", ["h", "w"], "k"),
        ("Reshape", ["k", "back"], "y"),
        rows=integers(-1, 6),
        back=integers(1, 4, 5),
        w=random(6, 5),
    ),
    "reshape by computed shape": chain(
        (1, 4, 6), *SHAPE_OF_REST, first=np.int64(0), zero=integers(0), rest=integers(-1)
    ),
    "reshape by sliced shape": chain(
        (1, 4, 6),
        ("Shape", ["x"], "shape"),
        ("Slice", ["shape", "one", "three"], "tail"),
        ("Concat", ["tail", "one"], "target", {"axis": 0}),
        ("Reshape", ["x", "target"], "y"),
        one=integers(1),
        three=integers(3),
    ),
    "transpose": one("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    "transpose by default": one("Transpose", (2, 3, 4)),
    "transpose of the batch": one("Transpose", (1, 3, 4), perm=[1, 0, 2]),
    "squeeze attribute": one("Squeeze", (1, 1, 4, 1), axes=[1, 3], opset=11),
    "squeeze input": one("Squeeze", (1, 1, 4, 1), integers(1)),
    "squeeze all": one("Squeeze", (1, 1, 4, 1)),
    "squeeze the batch": one("Squeeze", (1, 4), integers(0)),
    "unsqueeze attribute": one("Unsqueeze", (1, 4), axes=[1], opset=11),
    "unsqueeze input": one("Unsqueeze", (1, 4), integers(-1, 1)),
    "unsqueeze a vector": one("Unsqueeze", (4,), integers(0)),
    "slice attributes": one("Slice", IMAGE, axes=[2, 3], starts=[1, -3], ends=[100, -1], opset=9),
    "slice inputs": one("Slice", IMAGE, integers(1), integers(2**62), integers(2), integers(2)),
    "slice backwards": one(
        "Slice", (1, 7), integers(-1), integers(-(2**62)), integers(1), integers(-2)
    ),
    "slice without axes": one("Slice", (1, 7), integers(0, 2), integers(1, 5)),
    "split equal": chain(
        (1, 6), ("Split", ["x"], "a,b,c", {"axis": 1}), ("Sub", ["c", "a"], "y"), opset=13
    ),
    "split attribute": chain(
        (1, 6), ("Split", ["x"], "a,y", {"axis": 1, "split": [2, 4]}), opset=11
    ),
    "split input": chain((1, 6), ("Split", ["x", "s"], "y,b", {"axis": -1}), s=integers(1, 5)),
    "split num_outputs": chain(
        (1, 7), ("Split", ["x"], "a,b,y", {"axis": 1, "num_outputs": 3}), opset=18
    ),
    "gather": one("Gather", (1, 4, 3), integers(2, 0, -1, 2), axis=1),
    "gather scalar": one("Gather", (1, 4, 3), np.int64(1), axis=1),
    "gather of rank two": one("Gather", (1, 4), np.asarray([[0, 1], [3, 3]]), axis=1),
    "gather the batch": one("Gather", (1, 4), np.int64(0), axis=0),
    "pad attribute": one("Pad", (1, 2, 3), pads=[0, 1, 0, 0, 0, 2], value=0.5, opset=9),
    "pad input": one("Pad", (1, 2, 3), integers(0, 0, 1, 0, 0, 1), np.float32(-2)),
    "pad negative": one("Pad", (1, 2, 5), integers(0, 1, -2, 0, 0, 1)),
    "pad axes": one("Pad", (1, 2, 3), integers(1, 2), np.float32(1), integers(-1), opset=18),
    "pad reflect": one("Pad", (1, 2, 5), integers(0, 0, 3, 0, 0, 2), mode="reflect"),
    "pad edge": one("Pad", (1, 2, 5), integers(0, 1, 3, 0, 0, 2), mode="edge"),
    "concat": chain((1, 2, 3), ("Relu", ["x"], "h"), ("Concat", ["x", "h"], "y", {"axis": -1})),
    "concat with constants": one("Concat", (1, 2, 3), random(1, 4, 3), axis=1),
    "constants first": one("Concat", (1, 3), random(1, 4), axis=1, first=False),
    "concat batchless": one("Concat", (2, 3), random(1, 3), axis=0),
    "concat along a fixed batch": chain(
        (1, 3), ("Relu", ["x"], "h"), ("Concat", ["x", "h"], "y", {"axis": 0})
    ),
    "expand": one("Expand", (1, 1, 3), integers(1, 4, 1)),
    # Constants, and what does nothing
    "identity": one("Identity", (1, 3)),
    "dropout": one("Dropout", (1, 3), opset=13),
    "dropout with an unread mask": one("Dropout", (1, 3), opset=7, outputs=2),
    "cast": one("Cast", (1, 3), to=TensorProto.FLOAT),
    "constant tensor": constant_node(
        value=helper.make_tensor("c", TensorProto.FLOAT, [3], [1, 2, 3])
    ),
    "constant floats": constant_node(value_floats=[1.0, 2.0, 3.0]),
    "constant float": constant_node(value_float=0.1),
    "constant of shape": chain(
        (1, 3), ("ConstantOfShape", ["s"], "c"), ("Add", ["x", "c"], "y"), s=integers(3)
    ),
    "folded arithmetic": chain(
        (1, 3),
        ("Mul", ["a", "b"], "ab"),
        ("Sqrt", ["ab"], "root"),
        ("Reciprocal", ["root"], "c"),
        ("Transpose", ["w"], "wt"),
        ("Mul", ["x", "c"], "h"),
        ("MatMul", ["h", "wt"], "y"),
        a=np.float32(3),
        b=np.float32(0.7),
        w=random(4, 3),
    ),
    "folded choice": chain(
        (1, 3),
        ("Equal", ["s", "t"], "same"),
        ("Where", ["same", "s", "t"], "u"),
        ("Range", ["s", "limit", "t"], "index"),
        ("Gather", ["x", "index"], "h", {"axis": 1}),
        ("Expand", ["h", "u1"], "y"),
        s=np.int64(0),
        t=np.int64(1),
        limit=np.int64(2),
        u1=integers(1, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_graph_computes_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    """Random inputs give equal outputs, up to float32."""
    read = read_back(CASES[name], tmp_path)
    assert gap(read, probe(read)) <= FLOAT32


def test_the_comparison_above_can_fail(tmp_path: Path) -> None:
    """A graph whose slope is off by a thousandth is told apart."""
    read = read_back(one("LeakyRelu", (1, 30), alpha=0.3), tmp_path)
    other = read_back(one("LeakyRelu", (1, 30), alpha=0.301), tmp_path)
    mixed = type(read)(**{**{f: getattr(read, f) for f in read.__slots__}, "graph": other.graph})
    assert gap(mixed, probe(read)) > FLOAT32


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 19, 21, 23])
def test_every_opset_is_read(opset: int, tmp_path: Path) -> None:
    """A small classifier means the same in each version that is read."""
    proto = chain(
        ("N", 1, 6, 6),
        ("Conv", ["x", "w", "b"], "h"),
        ("Relu", ["h"], "r"),
        ("MaxPool", ["r"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", ["p"], "f"),
        ("Gemm", ["f", "v", "c"], "z", {"transB": 1}),
        ("Softmax", ["z"], "y", {"axis": 1}),
        opset=opset,
        w=random(3, 1, 3, 3),
        b=random(3),
        v=random(4, 12),
        c=random(4),
    )
    if opset > 21:
        proto.ir_version = 10
    read = read_back(proto, tmp_path)
    assert read.opset == opset
    assert read.graph.tail == "Softmax"
    assert gap(read, probe(read)) <= FLOAT32


def test_double_weights_are_kept_exactly(tmp_path: Path) -> None:
    """A float64 file is read in float64, and says so."""
    weight = np.asarray([[1.0 + 2.0**-40], [np.pi]])
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        (1, 2),
        {"w": weight},
        kind=TensorProto.DOUBLE,
    )
    read = read_back(proto, tmp_path)
    assert read.dtype == "float64"
    assert read.graph.output.tensors["weight"].numpy().T.tolist() == weight.tolist()
    assert gap(read, probe(read)) <= 1e-14


def test_a_cast_from_double_pays_for_its_rounding(tmp_path: Path) -> None:
    """What a float64 part computed is rounded by a cast: a node that carries noise stands there."""
    proto = chain(
        (1, 3),
        ("Cast", ["x"], "d", {"to": TensorProto.DOUBLE}),
        ("Cast", ["d"], "y", {"to": TensorProto.FLOAT}),
    )
    read = read_back(proto, tmp_path)
    assert [node.op for node in read.graph.nodes] == ["Input", "ScaleShift"]
