"""Smooth functions, products, softmax, resizing: our graph computes what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.readers.onnx_models import chain, gap, integers, one, probe, random, read_back
from verify.errors import UnsupportedOperator

FLOAT32 = 2e-5  # relative; a few float32 roundings and kernels, of values of order one
IMAGE = (1, 4, 5, 3)

AS_FLOAT: tuple[str, list[str], str, dict[str, object]] = ("Cast", ["h"], "y", {"to": 1})

CASES: dict[str, onnx.ModelProto] = {
    **{op: one(op, (1, 6)) for op in ("Exp", "Sin", "Cos", "Erf", "Softplus", "Sign", "Floor")},
    **{op: one(op, (1, 6), opset=20) for op in ("Gelu", "Ceil")},
    **{op: one(op, (1, 6)) for op in ("HardSwish", "Elu", "Selu", "Celu")},
    "elu alpha": one("Elu", (1, 6), alpha=0.5),
    "celu alpha": one("Celu", (1, 6), alpha=2.0),
    "log": chain((1, 6), ("Exp", ["x"], "h"), ("Log", ["h"], "y")),
    "root": chain((1, 6), ("Exp", ["x"], "h"), ("Sqrt", ["h"], "y")),
    "reciprocal": chain((1, 6), ("Exp", ["x"], "h"), ("Reciprocal", ["h"], "y")),
    # Products, quotients, powers
    "square": one("Pow", (1, 6), np.float32(2)),
    "cube": one("Pow", (1, 6), np.float32([3])),
    "power of one": one("Pow", (1, 6), np.float32(1)),
    "power of a half": chain(
        (1, 6), ("Exp", ["x"], "h"), ("Pow", ["h", "c"], "y"), c=np.float32(0.5)
    ),
    "power of minus two": chain(
        (1, 6), ("Exp", ["x"], "h"), ("Pow", ["h", "c"], "y"), c=np.float32(-2)
    ),
    "x times x": chain((1, 6), ("Mul", ["x", "x"], "y")),
    "product": chain((1, 6), ("Relu", ["x"], "h"), ("Mul", ["h", "x"], "y")),
    "product that broadcasts": chain(
        (1, 3, 4), ("ReduceSum", ["x", "a"], "h"), ("Mul", ["x", "h"], "y"), a=integers(2)
    ),
    "quotient": chain((1, 6), ("Exp", ["x"], "h"), ("Div", ["x", "h"], "y")),
    "constant by x": chain((1, 6), ("Exp", ["x"], "h"), ("Div", ["c", "h"], "y"), c=random(6)),
    "where": chain(
        (1, 4), ("Relu", ["x"], "h"), ("Where", ["c", "h", "x"], "y"),
        c=np.array([True, False, True, False]),
    ),
    "where with a constant": chain(
        (1, 4), ("Where", ["c", "x", "d"], "y"), c=np.array([True, False, True, False]), d=random(4)
    ),
    "sum of everything, used": chain(
        (1, 4), ("ReduceSum", ["x"], "h", {"keepdims": 0}), ("Exp", ["h"], "e"),
        ("Mul", ["e", "h"], "p"), ("Add", ["p", "x"], "y"),
    ),
    # Matrices
    "attention": chain(
        (1, 3, 4),
        ("MatMul", ["x", "w"], "q"),
        ("Transpose", ["x"], "k", {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "k"], "s"),
        ("Softmax", ["s"], "p", {"axis": 2}),
        ("MatMul", ["p", "x"], "y"),
        w=random(4, 4),
    ),
    "matmul that broadcasts": chain(
        (1, 2, 3, 4), ("ReduceSum", ["x", "a"], "h", {"keepdims": 0}),
        ("Transpose", ["h"], "t", {"perm": [0, 2, 1]}), ("MatMul", ["x", "t"], "y"), a=integers(1),
    ),
    "matmul of constants": chain(
        ("N", 3), ("MatMul", ["c", "w"], "h"), ("Relu", ["h"], "r"), ("Add", ["r", "x"], "y"),
        c=random(4), w=random(4, 3),
    ),
    "samples by a computed matrix": chain(
        ("N", 3), ("MatMul", ["c", "w"], "h"), ("MatMul", ["x", "h"], "y"),
        c=random(3, 4), w=random(4, 2),
    ),
    # Softmax inside
    "softmax over channels": one("Softmax", (1, 3, 4, 2), axis=1),
    "softmax of old": one("Softmax", (1, 3, 4), opset=11, axis=2),
    "softmax of old, flat": one("Softmax", (1, 2, 3, 4), opset=11, axis=2),
    "softmax of huge logits": chain(
        (1, 2, 4), ("Mul", ["x", "c"], "h"), ("Softmax", ["h"], "y"), c=np.float32(1e3)
    ),
    "softmax of classes, read on": chain(
        (1, 5), ("Softmax", ["x"], "h"), ("MatMul", ["h", "w"], "y"), w=random(5, 3)
    ),
    "softmax over a batch of one": one("Softmax", (1, 5), axis=0),
    # Whole numbers
    "argmax": chain((1, 3, 4), ("ArgMax", ["x"], "h", {"axis": 1}), AS_FLOAT),
    "argmax dropping its axis": chain(
        (3, 4), ("ArgMax", ["x"], "h", {"axis": 1, "keepdims": 0}), AS_FLOAT
    ),
    "argmax of classes": chain((1, 5), ("ArgMax", ["x"], "h", {"axis": 1}), AS_FLOAT),
    "whole numbers": chain(
        (1, 4), ("Mul", ["x", "c"], "h"), ("Cast", ["h"], "i", {"to": 7}),
        ("Cast", ["i"], "y", {"to": 1}), c=np.float32(10),
    ),
    "one hot": chain(
        (1, 3, 4), ("ArgMax", ["x"], "h", {"axis": 1, "keepdims": 0}),
        ("OneHot", ["h", "d", "v"], "y", {"axis": -1}), d=integers(3), v=np.float32([2, 5]),
    ),
    "equal": chain(
        (1, 3, 4), ("ArgMax", ["x"], "a", {"axis": 1}), ("Neg", ["x"], "n"),
        ("ArgMax", ["n"], "b", {"axis": 2, "keepdims": 1}), ("Equal", ["a", "b"], "e"),
        ("Cast", ["e"], "y", {"to": 1}),
    ),
    "gelu by tanh": one("Gelu", (1, 6), opset=20, approximate="tanh"),
    "log-softmax inside": one("LogSoftmax", (1, 3, 4), axis=2),
    "log-softmax read on": chain((1, 3), ("LogSoftmax", ["x"], "h"), ("Exp", ["h"], "y")),
    # Normalisation and extremes
    "layer norm": one("LayerNormalization", (1, 3, 4), random(4), random(4, seed=1)),
    "layer norm of several axes": one(
        "LayerNormalization", (1, 3, 4), random(3, 4), axis=1, epsilon=0.1
    ),
    **{
        f"{op} {name}": one(op, (1, 3, 4), opset=17, **attributes)
        for op in ("ReduceMax", "ReduceMin")
        for name, attributes in {
            "axis": {"axes": [2]}, "first": {"axes": [1], "keepdims": 0}, "all": {"axes": [1, 2]},
        }.items()
    },
    "largest of all": one("ReduceMax", (1, 3, 4), integers(-1), opset=20),
    # Resizing
    "conv transpose": one("ConvTranspose", IMAGE, random(4, 2, 3, 3), random(2), strides=[2, 2]),
    "conv transpose padded": one(
        "ConvTranspose", IMAGE, random(4, 1, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1],
        output_padding=[1, 0], group=2,
    ),
    "conv transpose cropped": one("ConvTranspose", IMAGE, random(4, 2, 3, 3), pads=[0, 1, 1, 0]),
    "conv transpose 1-D": one("ConvTranspose", (1, 2, 4), random(2, 3, 3), strides=[3]),
    "upsample": one("Upsample", IMAGE, np.float32([1, 1, 2, 3]), opset=9, mode="nearest"),
    "upsample by attribute": one("Upsample", IMAGE, opset=7, scales=[1.0, 1.0, 2.0, 2.0]),
    "resize of old": one("Resize", IMAGE, np.float32([1, 1, 2, 2]), opset=10),
    **{
        f"resize {rule} {near}": one(
            "Resize", IMAGE, None, np.float32([1, 1, 1.5, 3]),
            coordinate_transformation_mode=rule, nearest_mode=near,
        )
        for rule in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
        for near in ("floor", "round_prefer_floor")
    },
    "resize to sizes": one("Resize", IMAGE, None, None, integers(1, 4, 7, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_graph_computes_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    """Random inputs give equal outputs, up to float32."""
    read = read_back(CASES[name], tmp_path)
    assert gap(read, probe(read)) <= FLOAT32


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "odd power": (one("Pow", (1, 4), np.float32(1.5)), "exponent 1.5"),
    "powers": (one("Pow", (1, 2), np.float32([2, 3])), "exponents"),
    "linear resize": (
        one("Resize", IMAGE, None, np.float32([1, 1, 2, 2]), mode="linear"), "only nearest",
    ),
    "log-softmax inside": (one("LogSoftmax", (1, 3, 4), axis=1), "inside a network"),
    "scatter into a variable": (
        chain(
            (1, 3), ("ScatterND", ["x", "i", "u"], "y"),
            i=np.int64([[0, 1]]), u=np.float32([2]),
        ),
        "depends on the network's input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_forms_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """The message names the node, the operator and the form."""
    proto, message = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=message) as caught:
        read_back(proto, tmp_path)
    assert "node '" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_softmax_at_the_end_stays_left_out(tmp_path: Path) -> None:
    """Margins are stated before it, also behind a reshape."""
    read = read_back(
        chain((1, 4), ("Softmax", ["x"], "h"), ("Reshape", ["h", "s"], "y"), s=integers(2, 2)),
        tmp_path,
    )
    assert read.graph.tail == "Softmax"
