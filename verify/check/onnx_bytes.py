"""The part of an ONNX file that matters, read from its bytes: nodes, constants, shapes.

Nothing is executed, nothing outside the file is opened, sizes are checked before use. A field that
is given twice though there is one of it, or as another type than it has, is refused: runtimes take
the last one and skip the other, and the checker must see what they see.
"""

import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verify.check.refusal import Refusal

MOST_BYTES = 2**31
"""Of a file, packed or not."""
SCHEMA = {
    line.split()[0]: {
        int(number): (name.rstrip("*"), kind, name.endswith("*"))
        for number, name, kind in (entry.split() for entry in line.split(" ", 1)[1].split(","))
    }
    for line in (
        "model 7 graph graph, 8 opset_import* opset, 25 functions* bytes",
        "opset 1 domain text, 2 version int",
        "graph 1 node* node, 5 initializer* tensor, 11 input* value, 12 output* value,"
        " 15 sparse_initializer* bytes",
        "node 1 input* text, 2 output* text, 4 op_type text, 5 attribute* attribute, 7 domain text",
        "attribute 1 name text, 2 f float, 3 i int, 4 s text, 5 t tensor, 7 floats* float,"
        " 8 ints* int, 20 type int",
        "tensor 1 dims* int, 2 data_type int, 4 float_data* float, 5 int32_data* int,"
        " 7 int64_data* int, 8 name text, 9 raw_data bytes, 10 double_data* double,"
        " 13 external_data* bytes, 14 data_location int",
        "value 1 name text, 2 type type",
        "type 1 tensor_type typed",
        "typed 1 elem_type int, 2 shape shape",
        "shape 1 dim* dim",
        "dim 1 dim_value int",
    )
}
"""The fields of each message that are read, by their numbers in onnx.proto; * where repeated."""
FIXED = {"float": (5, "<f4"), "double": (1, "<f8")}
"""Wire type and form of numbers that are no integers."""
FLOAT = 1
TYPES = {
    FLOAT: ("<f4", "float_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    11: ("<f8", "double_data"),
}
"""Element types in onnx.proto, and where a tensor's numbers stand if they are not raw."""
VALUES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
"""Where an attribute of each type has its value."""
Message = dict[str, Any]


def unpacked(data: bytes) -> bytes:
    """The file's content; a gzip file is unpacked, up to `MOST_BYTES`."""
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(MOST_BYTES + 1)
        except (OSError, EOFError) as error:
            raise Refusal(f"a gzip file is damaged: {error}") from error
    if len(data) > MOST_BYTES:
        raise Refusal(f"a file is larger than {MOST_BYTES} bytes")
    return data


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number of 64 bits and the place after it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 0x7F) << shift
        if data[at] < 0x80 and value < 2**64:
            return value, at + 1
        at, shift = at + 1, shift + 7
    raise Refusal("the ONNX file ends in the middle of a number, or has one of more than 64 bits")


def integers(data: memoryview) -> list[int]:
    """Numbers one after another, in two's complement."""
    found, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        found.append(value - 2**64 if value >= 2**63 else value)
    return found


def fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each field of a message.

    Runtimes keep 32 bits of a key: of a longer one they may make a field that is read.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire, start = key >> 3, key & 7, at
        if wire == 0:
            _, at = varint(data, at)
        elif wire == 2:
            size, start = varint(data, at)
            at = start + size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        if not 0 < number < 2**29 or wire in (3, 4, 6, 7) or at > len(data):
            raise Refusal("the ONNX file has a field that is cut off, or of no known form")
        yield number, wire, data[start:at]


def contents(content: memoryview, wire: int, kind: str, many: bool) -> list[Any]:
    """What one field gives: a number of its kind, several packed ones, a text, a message."""
    if kind == "int" and (wire == 0 or (wire == 2 and many)):
        return integers(content)
    if kind in FIXED and (wire == FIXED[kind][0] or (wire == 2 and many)):
        try:
            return list(np.frombuffer(content, FIXED[kind][1]).tolist())
        except ValueError:
            raise Refusal("a field of the ONNX file is cut off") from None
    if kind == "int" or kind in FIXED or wire != 2:
        raise Refusal("a field of the ONNX file is stored as another type than it has")
    if kind == "text":
        try:
            return [str(content, "utf-8")]
        except UnicodeDecodeError:
            raise Refusal("a name in the ONNX file is no text") from None
    return [content if kind == "bytes" else message(content, kind)]


def message(data: memoryview, kind: str) -> Message:
    """A message's fields by name: lists of what is repeated, else one value or what is empty."""
    known = SCHEMA[kind]
    found: Message = {name: [] for name, _, _ in known.values()}
    for number, wire, content in fields(data):
        if number in known:
            name, what, many = known[number]
            found[name] += contents(content, wire, what, many)
    for name, what, many in known.values():
        if len(found[name]) > 1 and not many:
            raise Refusal("a field of the ONNX file is given twice")
        if not many:
            empty = {"int": 0, "float": 0.0, "text": "", "bytes": None}
            absent = empty[what] if what in empty else message(memoryview(b""), what)
            found[name] = found[name][0] if found[name] else absent
    return found


def tensor(entry: Message) -> Any:
    """A tensor as an array; floats become float64, which is exact."""
    if entry["external_data"] or entry["data_location"]:
        raise Refusal("a tensor lies outside the ONNX file; the checker reads one file only")
    if entry["data_type"] not in TYPES or any(length < 0 for length in entry["dims"]):
        raise Refusal(f"a tensor has element type {entry['data_type']} or shape {entry['dims']}")
    (dtype, typed), raw = TYPES[entry["data_type"]], entry["raw_data"]
    try:
        values = np.array(entry[typed], dtype) if raw is None else np.frombuffer(raw, dtype)
        array = values.reshape(entry["dims"]).astype(np.float64 if "f" in dtype else np.int64)
    except (ValueError, OverflowError):
        raise Refusal("a tensor's numbers do not fit its shape or element type") from None
    if not np.isfinite(array).all():
        raise Refusal("a tensor holds NaN or infinity")
    return array


@dataclass(frozen=True)
class Operation:
    """One node of the file."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A file: operations in order, constants, and the names and shapes at its ends."""

    operations: list[Operation]
    constants: dict[str, np.ndarray]
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    opset: int


def attribute(entry: Message) -> Any:
    """The value of an attribute."""
    if entry["type"] not in VALUES:
        raise Refusal(f"attribute {entry['name']!r} has a type that the checker does not read")
    value = entry[VALUES[entry["type"]]]
    return tensor(value) if VALUES[entry["type"]] == "t" else value


def distinct(entries: list[Message], read: Any) -> dict[str, Any]:
    """What is read of each entry, by name; a name that stands twice is refused."""
    found = {entry["name"]: read(entry) for entry in entries}
    if len(found) != len(entries):
        raise Refusal("a name stands twice in the ONNX file")
    return found


def operation(entry: Message) -> Operation:
    """A node."""
    if entry["domain"] not in ("", "ai.onnx"):
        raise Refusal(f"an operator comes from domain {entry['domain']!r}")
    values = distinct(entry["attribute"], attribute)
    return Operation(entry["op_type"], entry["input"], entry["output"], values)


def read_model(data: bytes) -> Model:
    """The network in a file's bytes."""
    data = unpacked(data)
    if data[4:8] == b"ORTM":
        raise Refusal("ONNX Runtime takes the file for one in a format of its own")
    model = message(memoryview(data), "model")
    graph = model["graph"]
    versions = {o["version"] for o in model["opset_import"] if o["domain"] in ("", "ai.onnx")}
    if model["functions"] or graph["sparse_initializer"]:
        raise Refusal("the ONNX file defines functions or sparse weights")
    constants = distinct(graph["initializer"], tensor)
    inputs = [entry for entry in graph["input"] if entry["name"] not in constants]
    outputs = [entry["name"] for entry in graph["output"]]
    if len(inputs) != 1 or len(outputs) != 1 or len(versions) != 1 or 0 in versions:
        raise Refusal("the model does not have one input, one output and one operator set")
    typed = inputs[0]["type"]["tensor_type"]
    if typed["elem_type"] != FLOAT:
        raise Refusal(f"the model's input has element type {typed['elem_type']}, not float32")
    shape = tuple(max(1, dim["dim_value"]) for dim in typed["shape"]["dim"])  # open lengths: 1
    operations = [operation(entry) for entry in graph["node"]]
    return Model(operations, constants, inputs[0]["name"], shape, outputs[0], *versions)
