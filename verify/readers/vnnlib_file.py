"""Bytes of an untrusted .vnnlib or .vnnlib.gz file -> text, within limits."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from verify.errors import PropertyError
from verify.readers.gzipped import gunzipped

MAX_BYTES = 512 * 2**20
"""Largest property file, unpacked; the largest of the competition has 56 MB."""
NO_WAIT = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class PropertyText:
    """One property file, read once.

    Attributes:
        path: as found: with .gz where only that file is there.
        sha256: hex digest of the bytes on disk.
        text: unpacked and decoded.
    """

    path: Path
    sha256: str
    text: str


def read_text(path: str | Path) -> PropertyText:
    """Read a property file; where it is missing, the same name with .gz is meant.

    Raises:
        PropertyError: if there is none, or it is too large, damaged, or not text.
    """
    named = Path(path)
    packed = named.with_name(named.name + ".gz")
    if not named.exists() and packed.exists():
        named = packed
    raw = read_regular(named)
    data = unpacked(raw, named) if raw[:2] == b"\x1f\x8b" else raw
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PropertyError(
            f"cannot read {named}: byte {error.start} is no UTF-8 text. Expected a .vnnlib file, "
            "plain or packed with gzip."
        ) from error
    return PropertyText(named, hashlib.sha256(raw).hexdigest(), text.removeprefix("\ufeff"))


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file of at most MAX_BYTES."""
    try:
        # Not to wait for ever at a pipe that nobody writes to.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | NO_WAIT)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PropertyError(f"cannot read {path}: it is not a regular file. Name a file.")
            refuse_large(status.st_size, path)
            return file.read(MAX_BYTES)
    except FileNotFoundError as error:
        raise PropertyError(f"there is no file {path}. Check the path.") from error
    except IsADirectoryError as error:
        raise PropertyError(f"{path} is a folder. Name the .vnnlib file inside it.") from error
    except (OSError, ValueError) as error:
        raise PropertyError(f"cannot read {path}: {error}. Check the path.") from error


def refuse_large(size: int, path: Path) -> None:
    """Raise if a size in bytes is beyond MAX_BYTES."""
    if size > MAX_BYTES:
        raise PropertyError(
            f"{path} is too large: {size} bytes or more, at most {MAX_BYTES} are read, unpacked. "
            "Split the property."
        )


def unpacked(raw: bytes, path: Path) -> bytes:
    """Gzip-decompressed bytes, stopping as soon as they pass MAX_BYTES."""
    try:
        return gunzipped(raw, lambda size: refuse_large(size, path))
    except zlib.error as error:
        raise PropertyError(
            f"cannot read {path}: damaged gzip data ({error}). Download it again."
        ) from error
