"""The batch axis: found, followed through the network, and never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.readers.onnx_models import chain, gap, integers, model, one, probe, random, read_back
from verify.errors import ModelError, UnsupportedOperator

FLOAT32 = 1e-5


@pytest.mark.parametrize(
    ("stated", "inner", "batched"),
    [
        ((1, 3, 4), (3, 4), False),
        (("N", 3), (3,), True),
        ((None, 3), (3,), True),
        ((0, 3), (3,), True),
        ((-1, 3), (3,), True),
        ((5,), (5,), False),
        ((12, 8), (12, 8), False),
        ((1,), (1,), False),
    ],
)
def test_a_leading_one_or_an_open_length_is_the_batch(
    stated: tuple[int | str | None, ...], inner: tuple[int, ...], batched: bool, tmp_path: Path
) -> None:
    """Anything else is one sample."""
    read = read_back(one("Relu", stated), tmp_path)
    assert read.input_shape == inner
    assert read.batched is batched
    assert read.has_batch_axis is (len(stated) > len(inner))
    assert read.graph.input.shape == inner


@pytest.mark.parametrize("stated", [("N", "C", 8), ("N", 3, None), ("N",), (1, 0, 3), ()])
def test_an_open_length_elsewhere_is_refused(
    stated: tuple[int | str | None, ...], tmp_path: Path
) -> None:
    """Only the batch size may be open."""
    with pytest.raises(ModelError, match="only its first axis"):
        read_back(one("Relu", stated), tmp_path)


MIXING = {
    "softmax over the batch": one("Softmax", ("N", 5), axis=0),
    "concat along the batch": chain(
        ("N", 3), ("Relu", ["x"], "h"), ("Concat", ["x", "h"], "y", {"axis": 0})
    ),
    "transpose of the batch": one("Transpose", ("N", 5), perm=[1, 0]),
    "mean over the batch": one("ReduceMean", ("N", 5), axes=[0], opset=13),
    "sum of everything": one("ReduceSum", ("N", 5)),
    "padding of the batch": one("Pad", ("N", 5), integers(1, 0, 0, 0)),
    "product from the left": one("MatMul", ("N", 5), random(3, 1), first=False),
    "flatten from 0": one("Flatten", ("N", 5), axis=0),
}


@pytest.mark.parametrize("name", MIXING)
def test_whatever_mixes_samples_is_refused(name: str, tmp_path: Path) -> None:
    """Where the batch size is open, an operator on axis 0 would make samples depend on others."""
    with pytest.raises(UnsupportedOperator, match="mixes samples"):
        read_back(MIXING[name], tmp_path)


def test_a_fixed_batch_of_several_says_how_to_export(tmp_path: Path) -> None:
    """A convolution on a batch of 8 cannot be read as one sample."""
    with pytest.raises(UnsupportedOperator, match="not a batch of one.*batch size 1"):
        read_back(one("Conv", (8, 3, 5, 5), random(4, 3, 3, 3)), tmp_path)


def test_a_batchless_model_is_one_sample(tmp_path: Path) -> None:
    """Its notes say so, and it computes what the runtime computes."""
    proto = chain(
        (12,),
        ("Reshape", ["x", "s"], "h"),
        ("Conv", ["h", "w"], "y"),
        s=integers(1, 3, 4),
        w=random(2, 3, 2),
    )
    read = read_back(proto, tmp_path)
    assert any("no batch axis" in note for note in read.notes)
    assert gap(read, probe(read)) <= FLOAT32


def test_initializers_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    """Old exporters list the weights as inputs, too."""
    proto = one("MatMul", (1, 3), random(3, 2), opset=7)
    proto.graph.input.append(helper.make_tensor_value_info("c0", TensorProto.FLOAT, [3, 2]))
    read = read_back(proto, tmp_path)
    assert read.input_name == "x"
    assert gap(read, probe(read)) <= FLOAT32


def test_two_inputs_are_named(tmp_path: Path) -> None:
    """A network has one input here."""
    extra = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 3])
    proto = model([helper.make_node("Add", ["x", "mask"], ["y"])], (1, 3), inputs=[extra])
    with pytest.raises(ModelError, match=r"2 inputs \(x, mask\)"):
        read_back(proto, tmp_path)


def test_two_outputs_are_named(tmp_path: Path) -> None:
    """A network has one output here."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    with pytest.raises(ModelError, match=r"2 outputs \(y, z\)"):
        read_back(model(nodes, (1, 3), outputs=("y", "z")), tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.FLOAT16, "FLOAT16"), (TensorProto.INT64, "INT64")]
)
def test_inputs_of_other_types_are_refused(kind: int, name: str, tmp_path: Path) -> None:
    """Rounding is only understood for float32 (and float64, which rounds less)."""
    proto = model([helper.make_node("Relu", ["x"], ["y"])], (1, 3), kind=kind)
    with pytest.raises(ModelError, match=f"holds {name}"):
        read_back(proto, tmp_path)


def test_an_external_looking_constant_output_is_refused(tmp_path: Path) -> None:
    """An output that does not depend on the input is no classifier."""
    zero = numpy_helper.from_array(np.zeros((1, 3), np.float32))
    proto = model([helper.make_node("Constant", [], ["y"], value=zero)], (1, 3))
    with pytest.raises(ModelError, match="does not depend on the input"):
        read_back(proto, tmp_path)
