"""Read .npy and .npz files that nobody vouches for.

`numpy.load` trusts the header: it unpickles objects on request and allocates what the header
declares. Here the header is read first; only plain numbers of a declared size that the file really
holds, below a limit, are read at all. Nothing is ever unpickled.
"""

import math
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy

from verify.errors import DataError
from verify.readers.datasets_rows import Rows, Selection, whole_labels

# Uncompressed size of all arrays read from one file; CIFAR-10's test images in float32 are 123 MB.
MAX_BYTES = 2**31
MAX_ENTRIES = 1000  # of an archive; np.savez writes one per array

INPUT_KEYS = ("x", "X", "images", "inputs", "data", "x_test", "X_test")
LABEL_KEYS = ("y", "Y", "labels", "label", "targets", "target", "y_test", "Y_test")


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def read_npz(path: Path, selection: Selection) -> Rows:
    """Inputs and, if there are any, labels of a NumPy archive.

    Raises:
        DataError: if the file is no readable archive, lacks an input array, holds objects, or
            declares more than `MAX_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, path)
            inputs = _one_of(INPUT_KEYS, entries, path)
            if inputs is None:
                raise DataError(
                    f"{path} has no input array: expected one called {' or '.join(INPUT_KEYS)}, "
                    f"found {', '.join(sorted(entries)) or 'nothing'}. "
                    "Save it with numpy.savez(file, x=inputs, y=labels)."
                )
            names = [inputs, _one_of(LABEL_KEYS, entries, path)]
            size = sum(entries[name].file_size for name in names if name)
            if size > MAX_BYTES:
                raise DataError(
                    f"{path} declares {size} bytes of arrays, more than the limit of {MAX_BYTES}. "
                    "Save fewer rows."
                )
            arrays = [_read_entry(archive, entries[n], f"{n!r} of {path}") for n in names if n]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        # RuntimeError: encrypted; its subclass NotImplementedError: an unknown compression.
        raise _unreadable(path, ".npz archive", error) from None
    rows = _rows(arrays[0], selection, str(path))
    if len(arrays) == 1:
        return rows
    labels = whole_labels(arrays[1], range(len(arrays[0])), str(path))[list(rows.indices)]
    return Rows(rows.values, labels, rows.indices, rows.scale, notes=rows.notes)


def read_npy(path: Path, selection: Selection) -> Rows:
    """The inputs in a single NumPy array; it has no labels.

    Raises:
        DataError: if the file is no readable array of numbers, or is larger than `MAX_BYTES`.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return _rows(_read_array(stream, size, str(path)), selection, str(path))
    except (EOFError, OSError, ValueError) as error:
        raise _unreadable(path, ".npy array", error) from None


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > MAX_ENTRIES:
        raise DataError(
            f"{path} holds {len(listed)} entries, more than the limit of {MAX_ENTRIES}. "
            "Save only the inputs and the labels."
        )
    return {entry.filename.removesuffix(".npy"): entry for entry in listed}


def _one_of(keys: tuple[str, ...], entries: dict[str, zipfile.ZipInfo], path: Path) -> str | None:
    found = [key for key in keys if key in entries]
    if len(found) > 1:
        raise DataError(
            f"{path} holds several candidates, {' and '.join(found)}, where one was expected. "
            "Save it again with just x (inputs) and y (labels)."
        )
    return found[0] if found else None


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> np.ndarray:
    with archive.open(entry) as stream:
        return _read_array(stream, entry.file_size, where)


def _read_array(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    """An array of plain numbers from `stream`, which holds `size` bytes and no more."""
    header = _read_header(stream, where)
    if header.dtype.hasobject or header.dtype.kind not in "biuf" or header.dtype.itemsize > 8:
        raise DataError(
            f"array {where} is of type {header.dtype}, expected plain numbers. "
            "Objects are never unpickled: save the values as float32."
        )
    count = math.prod(header.shape)  # Python integers: a hostile shape cannot overflow
    declared, held = count * header.dtype.itemsize, size - stream.tell()
    if min(header.shape, default=0) < 0 or declared != held:
        raise DataError(
            f"array {where} declares shape {header.shape} ({declared} bytes), "
            f"but {held} bytes follow. The file is damaged: save it again."
        )
    if declared > MAX_BYTES:
        raise DataError(
            f"array {where} takes {declared} bytes, more than the limit of {MAX_BYTES}. "
            "Save fewer rows."
        )
    flat = np.frombuffer(stream.read(declared), dtype=header.dtype)
    if flat.size != count:
        raise DataError(f"array {where} ends after {flat.size} of {count} values. Save it again.")
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _read_header(stream: IO[bytes], where: str) -> _Header:
    version = npy.read_magic(stream)
    # Version 3 differs only in field names, and arrays with fields are refused anyway.
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise DataError(
            f"array {where} is in .npy version {version[0]}.{version[1]}, expected 1.0 or 2.0. "
            "Save it again as an array of plain numbers."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python 2's long integers, and of odd escapes
            shape, fortran, dtype = readers[version](stream)
    except (ValueError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError):
        # NumPy reads the header as a Python literal, which fails in all of these ways.
        raise DataError(f"array {where} has a header that cannot be read. Save it again.") from None
    if not all(type(length) is int for length in shape):  # True passes for an integer in NumPy
        raise DataError(f"array {where} has shape {shape}, expected integers. Save it again.")
    return _Header(shape, fortran, dtype)


def _rows(array: np.ndarray, selection: Selection, where: str) -> Rows:
    if array.ndim == 0:
        raise DataError(f"{where} is a single number, expected an array of rows. Check the file.")
    chosen = selection.resolve(len(array), where)
    eight_bit = array.dtype == np.uint8
    return Rows(
        values=array[list(chosen)],
        labels=None,
        indices=chosen,
        scale=255.0 if eight_bit else 1.0,
    )


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} cannot be read as a {kind}: {reason}. Check or save the file again.")
