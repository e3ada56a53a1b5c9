"""A strange or hostile model ends in one clear ModelError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.readers.onnx_models import chain, dense, integers, model, one, random, read_back
from verify.errors import ModelError, UnsupportedOperator, VerifyError
from verify.readers import onnx_importer

NAN, INF = float("nan"), float("inf")


def changed(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    """The small model, edited."""
    proto = dense()
    edit(proto)
    return proto


def node_in(domain: str) -> onnx.ModelProto:
    """A model with an operator of another domain."""
    node = helper.make_node("FancyRelu", ["x"], ["y"], name="fancy", domain=domain)
    proto = model([node], (1, 3))
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def branching() -> onnx.ModelProto:
    """A model with an If."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    return model([node], (1, 3), {"c": np.asarray(True)})


REFUSED: dict[str, tuple[onnx.ModelProto, type[VerifyError], str]] = {
    "no nodes": (changed(lambda m: m.graph.ClearField("node")), ModelError, "no ONNX graph"),
    "no graph": (changed(lambda m: m.ClearField("graph")), ModelError, "no ONNX graph"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), ModelError, "versions"),
    "old opset": (one("Relu", (1, 3), opset=6), ModelError, "opset 6; 7 to 23"),
    "new opset": (one("Relu", (1, 3), opset=24), ModelError, "opset 24; 7 to 23"),
    "cycle": (
        chain((1, 3), ("Add", ["x", "y"], "h"), ("Relu", ["h"], "y")),
        ModelError,
        "'y', which no earlier node.*without cycles",
    ),
    "unsorted": (
        chain((1, 3), ("Relu", ["h"], "y"), ("Abs", ["x"], "h")),
        ModelError,
        "nodes must be sorted",
    ),
    "name twice": (
        chain((1, 3), ("Relu", ["x"], "y"), ("Abs", ["x"], "y")),
        ModelError,
        "'y' is produced twice",
    ),
    "input shadowed": (chain((1, 3), ("Relu", ["x"], "x")), ModelError, "produced twice"),
    "initializer twice": (
        changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        ModelError,
        "'w' is given twice",
    ),
    "output of no node": (
        changed(lambda m: setattr(m.graph.output[0], "name", "nowhere")),
        ModelError,
        "'nowhere' is produced by no node",
    ),
    "other domain": (node_in("com.custom"), UnsupportedOperator, "'fancy'.*FancyRelu.*com.custom"),
    "unknown operator": (one("Det", (1, 3)), UnsupportedOperator, r"'node' \(Det\)"),
    "subgraph": (branching(), UnsupportedOperator, "subgraphs"),
    "division by zero": (one("Div", (1, 2), np.float32([1, 0])), ModelError, "not finite"),
    "inf weight": (
        one("MatMul", (1, 2), np.float32([[1, 2], [INF, 3]])),
        ModelError,
        r"'c0'.*inf at index \[1, 0\]",
    ),
    "nan weight": (
        one("Add", (1, 3), np.float32([1, 2, NAN])),
        ModelError,
        r"'c0'.*nan at index \[2\]",
    ),
    "nan scalar": (one("Mul", (1, 3), np.float32(NAN)), ModelError, "'c0'"),
    "inf scalar": (one("Mul", (1, 3), np.float32(INF)), ModelError, "'c0'"),
    "nan slope": (one("LeakyRelu", (1, 3), alpha=NAN), ModelError, "finite"),
    "negative variance": (
        one("BatchNormalization", (1, 1), *[np.float32([v]) for v in (1, 0, 0, -2)]),
        ModelError,
        "not positive",
    ),
    "flushed variance": (
        one(
            "BatchNormalization", (1, 1), *[np.float32([v]) for v in (1, 0, 0, 1e-42)], epsilon=0.0
        ),
        ModelError,
        "all but 0",
    ),
    "negative stride": (
        one("Conv", (1, 1, 5), random(1, 1, 2), strides=[-1]),
        ModelError,
        r"'strides' is \[-1\]",
    ),
    "zero stride": (
        one("MaxPool", (1, 1, 5), kernel_shape=[2], strides=[0]),
        ModelError,
        "strides",
    ),
    "zero kernel": (one("MaxPool", (1, 1, 5), kernel_shape=[0]), ModelError, "kernel_shape"),
    "zero groups": (one("Conv", (1, 1, 5), random(1, 1, 2), group=0), ModelError, "0 groups"),
    "kernel too large": (one("MaxPool", (1, 1, 5), kernel_shape=[9]), ModelError, "does not fit"),
    "window in padding": (
        one("MaxPool", (1, 1, 5), kernel_shape=[2], pads=[2, 2]),
        ModelError,
        "in the padding",
    ),
    "negative padding of a convolution": (
        one("Conv", (1, 1, 5), random(1, 1, 2), pads=[-1, 0]),
        ModelError,
        "pads",
    ),
    "wrong channels": (one("Conv", (1, 2, 5), random(1, 1, 2)), ModelError, "do not fit"),
    "wrong attribute type": (
        one("Conv", (1, 1, 5), random(1, 1, 2), group=1.5),
        ModelError,
        "type",
    ),
    "giant convolution padding": (
        one("Conv", (1, 1, 5, 5), random(1, 1, 2, 2), pads=[2**23] * 4),
        ModelError,
        "entries",
    ),
    "giant pad": (one("Pad", (1, 5), integers(0, 0, 0, 2**60)), ModelError, "entries"),
    "giant constant": (
        chain((1, 3), ("ConstantOfShape", ["s"], "c"), ("Add", ["x", "c"], "y"), s=integers(2**40)),
        ModelError,
        "entries",
    ),
    "giant range": (
        chain(
            (1, 3),
            ("Range", ["a", "b", "c"], "r"),
            ("Gather", ["x", "r"], "y"),
            a=np.int64(0),
            b=np.int64(2**62),
            c=np.int64(1),
        ),
        ModelError,
        "entries",
    ),
    "giant expansion": (one("Expand", (1, 1, 1), integers(1, 2**20, 2**20)), ModelError, "entries"),
    "giant broadcast": (
        chain(
            (1, 3),
            ("Expand", ["c", "s"], "big"),
            ("Mul", ["big", "big"], "d"),
            ("Add", ["x", "d"], "y"),
            c=random(1, 3),
            s=integers(2**50, 3),
        ),
        ModelError,
        "entries",
    ),
    "giant input": (one("Relu", (1, 2**30, 2**30)), ModelError, "entries"),
    "all cropped": (one("Pad", (1, 5), integers(0, -5, 0, 0)), ModelError, "empty"),
    "empty slice": (
        one("Slice", (1, 5), integers(3), integers(2), integers(1)),
        ModelError,
        "empty",
    ),
    "empty weights": (one("MatMul", (1, 3), random(3, 0)), ModelError, "empty"),
    "reshape that does not fit": (one("Reshape", (1, 6), integers(1, 4)), ModelError, "reshaped"),
    "two unknown lengths": (one("Reshape", (1, 6), integers(-1, -1)), ModelError, "target shape"),
    "index out of range": (one("Gather", (1, 5), integers(7), axis=1), ModelError, "range"),
    "axis out of range": (one("Concat", (1, 5), axis=4), ModelError, "axis 4 is out of range"),
    "axis of a scalar": (one("Gather", (), np.int64(0), axis=0), ModelError, "first axis"),
    "axis of a squeezed scalar": (
        chain((1, 1), ("Squeeze", ["x"], "h"), ("Gather", ["h", "i"], "y"), i=np.int64(0)),
        ModelError,
        "axis 0 is out of range for a tensor of rank 0",
    ),
    "missing input": (
        model([helper.make_node("Gemm", ["x"], ["y"])], (1, 3)),
        ModelError,
        "missing",
    ),
    "matrices that do not multiply": (one("MatMul", (1, 3), random(4, 2)), ModelError, "multiply"),
    "shapes that do not broadcast": (one("Add", (1, 3), random(4)), ModelError, "broadcast"),
    "strings": (
        changed(
            lambda m: m.graph.initializer.append(
                helper.make_tensor("s", TensorProto.STRING, [1], [b"x"])
            )
        ),
        ModelError,
        "no numbers",
    ),
    "data too short": (
        changed(lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 8)),
        ModelError,
        "'w'.*cannot be read",
    ),
    "negative dimension": (
        changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -1)),
        ModelError,
        "shape",
    ),
    "read mask": (
        chain((1, 3), ("Dropout", ["x"], "h,mask"), ("Relu", ["mask"], "y"), opset=7),
        UnsupportedOperator,
        "further output",
    ),
    "training": (
        one("BatchNormalization", (1, 2), *[random(2) ** 2] * 4, training_mode=1),
        UnsupportedOperator,
        "statistics",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_one_clear_line(name: str, tmp_path: Path) -> None:
    """The error has the right type, says what is wrong and is one line."""
    proto, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        read_back(proto, tmp_path)
    assert "\n" not in str(caught.value)
    assert "please report this" not in str(caught.value)


def test_sparse_weights_and_functions_are_refused(tmp_path: Path) -> None:
    """What the tables above cannot hold."""
    proto = dense()
    proto.graph.sparse_initializer.add()
    with pytest.raises(UnsupportedOperator, match="sparse"):
        read_back(proto, tmp_path)
    proto = dense()
    proto.functions.add().name = "Own"
    with pytest.raises(UnsupportedOperator, match="functions"):
        read_back(proto, tmp_path)


def test_repeated_doubling_stops_at_the_limit(tmp_path: Path) -> None:
    """Small steps to a giant tensor are stopped on the way."""
    steps = [("Concat", [f"t{i}", f"t{i}"], f"t{i + 1}", {"axis": 1}) for i in range(40)]
    proto = chain((1, 3), ("Relu", ["x"], "t0"), *steps, ("Relu", ["t40"], "y"))
    with pytest.raises(ModelError, match="entries"):
        read_back(proto, tmp_path)


def test_many_constants_stop_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is allowed by itself; together they are not."""
    monkeypatch.setattr(onnx_importer, "MAX_CONSTANTS", 3000)
    steps = [("ConstantOfShape", ["s"], f"c{i}") for i in range(5)]
    proto = chain((1, 3), *steps, ("Relu", ["x"], "y"), s=integers(1000))
    with pytest.raises(ModelError, match="constants so far"):
        read_back(proto, tmp_path)
