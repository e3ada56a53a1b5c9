"""Bytes of an untrusted .onnx or .onnx.gz file -> ModelProto, within limits and its own folder."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]  # ships no types
    DecodeError,
    EncodeError,
)
from onnx import TensorProto, helper, numpy_helper

from verify.errors import ModelError
from verify.readers.untrusted import CHUNK, FileKind

MAX_BYTES = 2**31 - 1
"""Largest model, unpacked and with external data: protobuf's own limit, and ONNX Runtime's."""

KIND = FileKind(
    ModelError, ".onnx", MAX_BYTES, "unpacked and with external data. Use a smaller model."
)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model file, read once.

    Attributes:
        path: as given.
        sha256: hex digest of the file's bytes as they lie on disk.
        data: the serialised model, unpacked and with external data brought in: what the runtime
            gets to see, so that nothing can change between our reading and its own.
        proto: the same model, parsed.
        notes: what a user should know of the reading.
    """

    path: Path
    sha256: str
    data: bytes
    proto: onnx.ModelProto
    notes: tuple[str, ...]


def read_model_file(path: Path) -> ModelFile:
    """Read and parse a model file.

    Raises:
        ModelError: if it is missing, no regular file, too large, corrupt, or its external data
            is not in its own folder or not of the stated size.
    """
    raw = KIND.read(path)
    if not raw:
        raise ModelError(f"cannot read {path}: the file is empty. Export or download it again.")
    data = KIND.unpacked(raw, path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"cannot read {path}: not an ONNX model, or cut short ({error}). "
            "Expected an .onnx or .onnx.gz file; export or download it again."
        ) from error
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(
            f"cannot read {path}: it holds no ONNX graph with at least one node. "
            "Expected an .onnx or .onnx.gz file; export or download it again."
        )
    external = [t for t in all_tensors(proto) if t.data_location == TensorProto.EXTERNAL]
    notes: tuple[str, ...] = ()
    if external:
        notes = bring_in(external, path, len(data))
        try:
            data = proto.SerializeToString()
        except (EncodeError, ValueError) as error:
            raise ModelError(f"{path} with its external data is too large: {error}") from error
    return ModelFile(path, hashlib.sha256(raw).hexdigest(), data, proto, notes)


def all_tensors(proto: onnx.ModelProto) -> list[TensorProto]:
    """Every tensor stored in the main graph: initializers and attribute values."""
    found = list(proto.graph.initializer)
    for node in proto.graph.node:
        found.extend(a.t for a in node.attribute if a.HasField("t"))
    return found


def bring_in(tensors: list[TensorProto], path: Path, size: int) -> tuple[str, ...]:
    """Replace external data by the bytes themselves; returns a note per file with its hash."""
    folder = os.path.realpath(path.parent)
    digests: dict[str, str] = {}
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        target = inside(folder, location, tensor.name, path)
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
        except ValueError as error:
            raise ModelError(
                f"tensor {tensor.name!r} of {path}: offset or length is no number"
            ) from error
        expected = byte_count(tensor, path)
        size += expected
        KIND.refuse_large(size, path)
        if offset < 0 or length not in (-1, expected):
            raise ModelError(
                f"tensor {tensor.name!r} of {path}: its shape needs {expected} bytes of external "
                f"data, but {length} from offset {offset} are stated. Export the model again."
            )
        try:
            with open(target, "rb") as file:
                if location not in digests:
                    digests[location] = digest_of(file, path)
                file.seek(offset)
                data = file.read(expected)
        except OSError as error:
            raise ModelError(
                f"cannot read the external data {location!r} of {path}: {error}. "
                "Put the file beside the model."
            ) from error
        if len(data) != expected:
            raise ModelError(
                f"tensor {tensor.name!r} of {path}: the external data {location!r} end too early: "
                f"{expected} bytes from offset {offset} needed, {len(data)} there. Copy it again."
            )
        tensor.raw_data = data
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
    return tuple(f"external data {name}: sha256 {digest}" for name, digest in digests.items())


def digest_of(file: IO[bytes], path: Path) -> str:
    """The sha256 of a regular file of bounded size."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"the external data of {path} are not a regular file. Name a file.")
    KIND.refuse_large(status.st_size, path)
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def inside(folder: str, location: str, tensor: str, path: Path) -> str:
    """The real path of an external file, which must lie in the model's own folder."""
    parts = location.replace("\\", "/").split("/")
    joined = os.path.realpath(os.path.join(folder, location)) if "\0" not in location else ""
    escapes = (
        not location
        or os.path.isabs(location)
        or ".." in parts
        or os.path.commonpath([folder, joined or "/"]) != folder
        or joined == folder
    )
    if escapes:
        raise ModelError(
            f"tensor {tensor!r} of {path} points to external data at {location!r}, outside the "
            f"model's folder {folder}. It is not opened; move the data beside the model and "
            "export it again."
        )
    if not os.path.isfile(joined):
        raise ModelError(
            f"tensor {tensor!r} of {path}: there is no external data file {location!r} "
            f"in {folder}. Put it beside the model."
        )
    return joined


def byte_count(tensor: TensorProto, path: Path) -> int:
    """Bytes that a tensor's shape and type need."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"tensor {tensor.name!r} of {path} has unknown element type {tensor.data_type}"
        ) from error
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor {tensor.name!r} of {path} has shape {list(tensor.dims)}")
    return int(prod(tensor.dims) * dtype.itemsize)


def array_of(tensor: TensorProto) -> np.ndarray:
    """A stored tensor as an array.

    Raises:
        ModelError: if its data do not fit its shape, or it holds no numbers.
    """
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        raise ModelError(f"tensor {tensor.name!r} holds no numbers. Export the model again.")
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor {tensor.name!r} has shape {list(tensor.dims)}")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"tensor {tensor.name!r} of shape {list(tensor.dims)} and element type "
            f"{tensor.data_type} cannot be read: {error}. Export the model again."
        ) from error


def refuse_nonfinite(array: np.ndarray, name: str, where: str, *, nan_only: bool = False) -> None:
    """Raise ModelError naming the first entry that is NaN (or infinite)."""
    if array.dtype.kind != "f":
        return
    bad = np.isnan(array) if nan_only else ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ModelError(
            f"tensor {name!r} of {where} holds {array[index]} at index {list(index)} "
            f"({int(bad.sum())} of {array.size} entries are not finite); expected finite numbers. "
            "The training diverged or the file is damaged; export the model again."
        )
