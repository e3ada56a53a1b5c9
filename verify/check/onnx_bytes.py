"""The part of an ONNX file that matters, read from its bytes: nodes, constants, shapes.

Protocol buffers are a sequence of (field number, wire type, value); the numbers below are those of
onnx.proto. Nothing is executed, nothing outside the file is opened, sizes are checked before use.
A field that is given twice though there is one of it, or as another type than it has, is refused:
runtimes take the last one and skip the other, and the checker must see what they see.
"""

import gzip
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verify.check.refusal import Refusal

MOST_BYTES = 2**31
"""Of a file, packed or not."""
FLOAT, INT32, INT64, BOOL, DOUBLE = 1, 6, 7, 9, 11
"""Element types in onnx.proto."""
DTYPES = {FLOAT: "<f4", INT32: "<i4", INT64: "<i8", BOOL: "?", DOUBLE: "<f8"}
TYPED_FIELD = {FLOAT: 4, INT32: 5, BOOL: 5, INT64: 7, DOUBLE: 10}
"""Where a tensor's numbers stand if they are not raw."""


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


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise Refusal("the ONNX file holds a number of more than 64 bits")


class Fixed(bytes):
    """A value of four or eight bytes, as a float is stored."""


def fields(data: bytes) -> dict[int, list[int | bytes]]:
    """All fields of one message: numbers as int, floats as `Fixed`, the rest as bytes."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    try:
        while at < len(data):
            key, at = varint(data, at)
            number, wire = key >> 3, key & 7
            if not number:
                raise Refusal("the ONNX file has a field without a number")
            value: int | bytes
            if wire == 0:
                value, at = varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
                value, at = Fixed(data[at : at + size]), at + size
            elif wire == 2:
                size, at = varint(data, at)
                value, at = data[at : at + size], at + size
            else:
                raise Refusal(f"the ONNX file has a field of wire type {wire}")
            if at > len(data):
                raise Refusal("the ONNX file ends in the middle of a field")
            found.setdefault(number, []).append(value)
    except IndexError:
        raise Refusal("the ONNX file ends in the middle of a number") from None
    return found


def raw(entries: dict[int, list[int | bytes]], number: int) -> list[bytes]:
    """The length-delimited values of a repeated field."""
    values = entries.get(number, [])
    found = [v for v in values if isinstance(v, bytes) and not isinstance(v, Fixed)]
    if len(found) != len(values):
        raise Refusal("a field of the ONNX file is stored as another type than it has")
    return found


def one(values: list[bytes]) -> bytes | None:
    """Of a field that there is one of; None if absent."""
    if len(values) > 1:
        raise Refusal("a field of the ONNX file is given twice")
    return values[0] if values else None


def text(entries: dict[int, list[int | bytes]], number: int) -> str:
    """One string field, "" if absent."""
    return decoded(one(raw(entries, number)) or b"")


def decoded(name: bytes) -> str:
    """A string of the file."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Refusal("a name in the ONNX file is no text") from None


def signed(value: int) -> int:
    """A 64-bit two's complement number."""
    return value - 2**64 if value >= 2**63 else value


def integer(entries: dict[int, list[int | bytes]], number: int) -> int:
    """One integer field, 0 if absent."""
    values = entries.get(number, [])
    if len(values) > 1 or not all(isinstance(value, int) for value in values):
        raise Refusal("a field of the ONNX file is given twice, or is no integer")
    return sum(signed(value) for value in values if isinstance(value, int))


def integers(entries: dict[int, list[int | bytes]], number: int) -> list[int]:
    """A repeated integer field, packed or not."""
    found: list[int] = []
    for value in entries.get(number, []):
        if isinstance(value, int):
            found.append(signed(value))
            continue
        if isinstance(value, Fixed):
            raise Refusal("a field of the ONNX file is stored as another type than it has")
        at = 0
        try:
            while at < len(value):
                single, at = varint(value, at)
                found.append(signed(single))
        except IndexError:
            raise Refusal("the ONNX file ends in the middle of a number") from None
    return found


def floats(entries: dict[int, list[int | bytes]], number: int, dtype: np.dtype) -> np.ndarray:
    """A repeated field of floats, packed (one block of bytes) or not (one block each)."""
    blocks = []
    for value in entries.get(number, []):
        size = len(value) if isinstance(value, bytes) else -1
        if size % dtype.itemsize or (isinstance(value, Fixed) and size != dtype.itemsize):
            raise Refusal("a field of the ONNX file is stored as another type than it has")
        blocks.append(value if isinstance(value, bytes) else b"")
    return np.frombuffer(b"".join(blocks), dtype)


def tensor(data: bytes) -> np.ndarray:
    """A TensorProto as an array; floats become float64, which is exact."""
    entries = fields(data)
    if 13 in entries or integer(entries, 14):
        raise Refusal("a tensor lies outside the ONNX file; the checker reads one file only")
    kind = integer(entries, 2)
    if kind not in DTYPES:
        raise Refusal(f"a tensor has element type {kind}, which the checker does not read")
    shape = tuple(integers(entries, 1))
    if any(length < 0 for length in shape):
        raise Refusal(f"a tensor has shape {shape}")
    dtype = np.dtype(DTYPES[kind])
    blob = one(raw(entries, 9))
    if blob is not None:
        if len(blob) % dtype.itemsize:
            raise Refusal("a tensor's bytes do not fit its element type")
        values = np.frombuffer(blob, dtype)
    elif kind in (FLOAT, DOUBLE):
        values = floats(entries, TYPED_FIELD[kind], dtype)
    else:
        values = np.array(integers(entries, TYPED_FIELD[kind]), dtype)
    if values.size != int(np.prod(shape, dtype=object)):
        raise Refusal(f"a tensor of shape {shape} holds {values.size} numbers")
    wide = np.float64 if kind in (FLOAT, DOUBLE) else np.int64
    array = values.reshape(shape).astype(wide)
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


def attribute(data: bytes) -> tuple[str, Any]:
    """Name and value of an AttributeProto."""
    entries = fields(data)
    name, kind, single = text(entries, 1), integer(entries, 20), np.dtype("<f4")
    if kind == 1:
        (value,) = floats(entries, 2, single).tolist() or [0.0]
        return name, value
    if kind == 2:
        return name, integer(entries, 3)
    if kind == 3:
        return name, text(entries, 4)
    if kind == 4:
        return name, tensor(one(raw(entries, 5)) or b"")
    if kind == 6:
        return name, floats(entries, 7, single).tolist()
    if kind == 7:
        return name, integers(entries, 8)
    raise Refusal(f"attribute {name!r} has a type that the checker does not read")


def operation(data: bytes) -> Operation:
    """A NodeProto."""
    entries = fields(data)
    if text(entries, 7) not in ("", "ai.onnx"):
        raise Refusal(f"an operator comes from domain {text(entries, 7)!r}")
    return Operation(
        text(entries, 4),
        [decoded(name) for name in raw(entries, 1)],
        [decoded(name) for name in raw(entries, 2)],
        distinct([attribute(part) for part in raw(entries, 5)]),
    )


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As a mapping; a name that stands twice is refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal("a name stands twice in the ONNX file")
    return found


def declared(data: bytes) -> tuple[str, int, tuple[int, ...]]:
    """Name, element type and shape of a ValueInfoProto; open lengths count as 1."""
    entries = fields(data)
    typed = fields(one(raw(fields(one(raw(entries, 2)) or b""), 1)) or b"")
    dims = raw(fields(one(raw(typed, 2)) or b""), 1)
    shape = tuple(max(1, integer(fields(dim), 1)) for dim in dims)
    return text(entries, 1), integer(typed, 1), shape


def read_model(data: bytes) -> Model:
    """The network in a file's bytes."""
    model = fields(unpacked(data))
    graphs = raw(model, 7)
    if len(graphs) != 1:
        raise Refusal("this is no ONNX file: it does not hold one graph")
    versions = [
        integer(fields(part), 2)
        for part in raw(model, 8)
        if text(fields(part), 1) in ("", "ai.onnx")
    ]
    graph = fields(graphs[0])
    if raw(model, 25) or raw(graph, 15):
        raise Refusal("the ONNX file defines functions or sparse weights")
    constants = distinct([(text(fields(part), 8), tensor(part)) for part in raw(graph, 5)])
    inputs = [declared(part) for part in raw(graph, 11)]
    inputs = [entry for entry in inputs if entry[0] not in constants]
    outputs = [declared(part) for part in raw(graph, 12)]
    if len(inputs) != 1 or len(outputs) != 1 or len(versions) != 1 or not versions[0]:
        raise Refusal("the model does not have one input, one output and one operator set")
    name, kind, shape = inputs[0]
    if kind != FLOAT:
        raise Refusal(f"the model's input has element type {kind}, not float32")
    operations = [operation(part) for part in raw(graph, 1)]
    return Model(operations, constants, name, shape, outputs[0][0], versions[0])
