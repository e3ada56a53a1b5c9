"""The checker's own readers beside the library's and the onnx package: no file means two things."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from verify.check.onnx_bytes import Model, read_model
from verify.check.refusal import Refusal
from verify.check.vnnlib import Case, read_property
from verify.errors import PropertyError
from verify.readers.vnnlib import read_vnnlib
from verify.values.property import Property

HEAD = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
PLACES = (Fraction(-2), Fraction(-1, 2), Fraction(1, 4))


# Properties.


def spelled(value: int, style: int) -> str:
    """A quarter of a whole number, in one of the notations that are allowed."""
    exact = value / 4
    return (f"{exact}", f"{exact:e}", f"{exact:+.3f}", f"{exact:.2E}", f"{value * 25}e-2")[style]


numbers = st.builds(spelled, st.integers(-12, 12), st.integers(0, 4))
outputs = st.sampled_from(("Y_0", "Y_1"))
comparisons = st.sampled_from(("<=", ">=", "<", ">"))


def atom(op: str, left: str, right: str, turned: bool) -> str:
    """A comparison."""
    return f"({op} {right} {left})" if turned else f"({op} {left} {right})"


atoms = st.builds(
    atom, comparisons, outputs, st.one_of(numbers, outputs), st.booleans()
) | st.builds(
    atom, st.sampled_from(("<=", ">=")), st.sampled_from(("X_0", "X_1")), numbers, st.booleans()
)
formulas = st.recursive(
    atoms,
    lambda inner: st.builds(
        lambda op, parts: f"({op} {' '.join(parts)})",
        st.sampled_from(("and", "or")),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)
texts = st.builds(
    lambda low, asserted: (
        HEAD
        + "".join(f"(assert (>= X_{i} -{low}))\n(assert (<= X_{i} 1.5))\n" for i in range(2))
        + "".join(f"(assert {formula}) ; and so on\n" for formula in asserted)
    ),
    st.sampled_from(("1", "0.5", "25e-1")),
    st.lists(formulas, min_size=1, max_size=3),
)


def by_checker(cases: list[Case], x: list[Fraction], y: list[Fraction]) -> bool:
    """Whether the checker takes a point to be unsafe; it reads < as <=."""
    return any(
        all(a <= v <= b for a, v, b in zip(case.lower, x, case.upper, strict=True))
        and any(
            all(
                sum((c * y[n] for n, c in row.coefficients.items()), row.constant) <= 0
                for row in clause
            )
            for clause in case.clauses
        )
        for case in cases
    )


def by_library(stated: Property, x: list[Fraction], y: list[Fraction], open_: bool) -> bool:
    """The same of the library, with < read as <= or as it stands."""
    at = torch.tensor([[float(v) for v in x]], dtype=torch.float64)
    out = torch.tensor([float(v) for v in y], dtype=torch.float64)
    return any(
        bool(((case.lower <= at) & (at <= case.upper)).all())
        and any(
            bool(torch.where(c.strict & open_, (v := c.values(out[None])[0]) < 0, v <= 0).all())
            for c in case.clauses
        )
        for case in stated.cases
    )


def readings(folder: Path, text: str) -> tuple[Property | None, list[Case] | None]:
    """Of the library and of the checker; None where it is refused, in a line of its own."""
    path = folder / "p.vnnlib"
    path.write_text(text)
    ours, theirs, said = None, None, list[str]()
    try:
        ours = read_vnnlib(path).property
    except PropertyError as error:
        said.append(str(error))
    try:
        theirs = read_property(text, 2, 2)
    except Refusal as refusal:
        said.append(str(refusal))
    assert not any("\n" in line for line in said)
    return ours, theirs


def compare(ours: Property | None, theirs: list[Case] | None, text: str) -> None:
    """What the library takes to be unsafe the checker does; and nothing else, but for what is
    strict, which the checker reads as if it were not."""
    strict = "< " in text or "> " in text
    if ours is None or theirs is None or ours.mixed:
        return
    assert (ours.inputs, ours.outputs) == (2, 2)
    for *x, a, b in product(PLACES, PLACES, PLACES, PLACES):
        y = [a, b]
        wide = by_checker(theirs, x, y)
        assert wide or not by_library(ours, x, y, open_=True)
        assert strict or by_library(ours, x, y, open_=False) or not wide


@settings(max_examples=40, deadline=None)
@given(texts)
def test_both_readers_understand_a_property_alike(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """Valid ones of the checker's language: both read them, and mean the same."""
    ours, theirs = readings(tmp_path_factory.mktemp("p"), text)
    assert ours is not None
    assert theirs is not None
    compare(ours, theirs, text)


@settings(max_examples=80, deadline=None)
@given(texts, st.integers(0, 400), st.integers(0, 4), st.sampled_from("()<>=; \n-0.eXY_Zad\x00é"))
def test_no_damaged_property_means_two_things(
    tmp_path_factory: pytest.TempPathFactory, text: str, place: int, kind: int, sign: str
) -> None:
    """Cut short, a character put in, changed or left out: refused by one line, or read alike."""
    at = place % len(text)
    more = 0 if kind == 1 else 1
    damaged = text[:at] if kind == 0 else text[:at] + sign * (kind != 2) + text[at + more :]
    compare(*readings(tmp_path_factory.mktemp("p"), damaged), damaged)


# Models.

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=6)
shapes = st.lists(st.integers(0, 3), max_size=3)
kinds = st.sampled_from((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64))


def filled(name: str, kind: int, shape: list[int], seed: int, raw: bool) -> onnx.TensorProto:
    """A tensor of random numbers, as raw bytes or as numbers."""
    values = np.random.default_rng(seed).integers(-9, 9, shape)
    array = (values / 4 if kind != TensorProto.INT64 else values).astype(
        helper.tensor_dtype_to_np_dtype(kind)
    )
    if raw:
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, kind, shape, array.ravel().tolist())


tensors = st.builds(filled, names, kinds, shapes, st.integers(0, 99), st.booleans())
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    names,
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=3),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3),
    tensors,
)


def whole(
    operations: list[tuple[str, list[str], dict[str, object]]],
    constants: list[onnx.TensorProto],
    ends: tuple[str, str],
    lengths: list[int],
) -> onnx.ModelProto:
    """A file; what its operators are does not matter to a reader."""
    nodes = [
        helper.make_node("Gemm", inputs, [output], **attributes)  # type: ignore[arg-type]
        for output, inputs, attributes in operations
    ]
    shape = [None if length == 0 else length for length in lengths]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(ends[0], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(ends[1], TensorProto.FLOAT, None)],
        list({tensor.name: tensor for tensor in constants}.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


models = st.builds(
    whole,
    st.lists(
        st.tuples(
            names, st.lists(names, max_size=3), st.dictionaries(st.sampled_from("abc"), values)
        ),
        max_size=3,
    ),
    st.lists(tensors, max_size=3),
    st.just(("in", "out")),
    shapes,
)


def agree(theirs: Model, proto: onnx.ModelProto) -> None:
    """Every name, number and length of the checker's reading is the package's."""
    graph = proto.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert theirs.constants.keys() == constants.keys()
    for name, array in constants.items():
        assert theirs.constants[name].shape == array.shape
        assert (theirs.constants[name] == array).all()
    assert len(theirs.operations) == len(graph.node)
    for ours, node in zip(theirs.operations, graph.node, strict=True):
        assert (ours.kind, ours.inputs, ours.outputs) == (
            node.op_type,
            list(node.input),
            list(node.output),
        )
        given_ = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert ours.attributes.keys() == given_.keys()
        for key, value in given_.items():
            found = ours.attributes[key]
            if isinstance(value, onnx.TensorProto):
                assert (found == numpy_helper.to_array(value)).all()
            elif isinstance(value, bytes):
                assert found == value.decode()
            else:
                assert found == value
    ends = [info for info in graph.input if info.name not in constants]
    assert theirs.input_name == ends[0].name
    lengths = [max(1, d.dim_value) for d in ends[0].type.tensor_type.shape.dim]
    assert list(theirs.input_shape) == lengths
    assert theirs.output_name == graph.output[0].name
    domains = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    assert theirs.opset == domains[0]


@settings(max_examples=80, deadline=None)
@given(models)
def test_a_file_is_what_the_package_reads(proto: onnx.ModelProto) -> None:
    """Attributes of all kinds, tensors raw and in numbers, names in any script."""
    theirs: Model | str
    try:
        theirs = read_model(proto.SerializeToString())
    except Refusal as refusal:
        theirs = str(refusal)
    if isinstance(theirs, Model):
        agree(theirs, proto)
    else:  # an infinite number or a name in use twice; nothing else is wrong with these files
        assert "infinity" in theirs or "one input" in theirs


@settings(max_examples=150, deadline=None)
@given(models, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3))
def test_no_damaged_file_is_two_networks(
    proto: onnx.ModelProto, changes: list[tuple[int, int]]
) -> None:
    """Bytes changed, or the file cut short: refused, or read as the package reads it."""
    data = bytearray(proto.SerializeToString())
    for place, byte in changes:
        data[place % len(data)] = byte
    if not changes:
        del data[len(data) // 2 :]
    try:
        theirs = read_model(bytes(data))
    except Refusal:
        return
    again = onnx.ModelProto()
    try:
        again.ParseFromString(bytes(data))
    except DecodeError:
        return  # which no runtime reads
    agree(theirs, again)


def test_a_field_that_stands_twice_is_refused() -> None:
    """Runtimes take the last of two; one that is stored as another type they skip."""
    node = helper.make_node("Gemm", ["x"], ["y"], transB=1)
    (attribute,) = node.attribute
    plain = attribute.SerializeToString()
    for more in (b"\x18\x00", b"\x1a\x01\x00", b"\xa0\x01\x07"):  # i = 0, i as bytes, type ints
        bent = onnx.AttributeProto()
        bent.ParseFromString(plain + more)
        data = helper.make_model(
            helper.make_graph(
                [helper.make_node("Gemm", ["x"], ["y"])],
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
            )
        )
        data.graph.node[0].attribute.append(attribute)
        whole_ = data.SerializeToString()
        assert plain in whole_
        with pytest.raises(Refusal):
            read_model(longer(data, plain, more))


def longer(model: onnx.ModelProto, part: bytes, more: bytes) -> bytes:
    """The file with some bytes appended to a message, the lengths of those around it put right."""
    node = model.graph.node[0].SerializeToString()
    bent = tag(5, part + more)
    node = node.replace(tag(5, part), bent)
    graph = model.graph
    inner = tag(1, node) + tag(2, b"g")
    inner += tag(11, graph.input[0].SerializeToString())
    inner += tag(12, graph.output[0].SerializeToString())
    opset = tag(8, model.opset_import[0].SerializeToString())
    return b"\x08\x08" + tag(7, inner) + opset


def tag(number: int, content: bytes) -> bytes:
    """A length-delimited field; contents here are short."""
    size = len(content)
    assert size < 2**14
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + content
