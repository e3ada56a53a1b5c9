"""Bytes of an untrusted .vnnlib or .vnnlib.gz file -> text, within limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from verify.errors import PropertyError
from verify.readers.untrusted import FileKind

MAX_BYTES = 512 * 2**20
"""Largest property file, unpacked; the largest of the competition has 56 MB."""
KIND = FileKind(PropertyError, ".vnnlib", MAX_BYTES, "unpacked. Split the property.")


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
    raw = KIND.read(named)
    data = KIND.unpacked(raw, named)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PropertyError(
            f"cannot read {named}: byte {error.start} is no UTF-8 text. Expected a .vnnlib file, "
            "plain or packed with gzip."
        ) from error
    return PropertyText(named, hashlib.sha256(raw).hexdigest(), text.removeprefix("\ufeff"))
