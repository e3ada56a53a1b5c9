"""Bytes of untrusted files, plain or gzip, within a limit: a bomb is met before it goes off."""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from verify.errors import InputError

CHUNK = 2**20
"""Bytes unpacked between two looks at the size."""

GZIP = b"\x1f\x8b"
NO_WAIT = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class FileKind:
    """What is read, and what is said where it cannot be.

    Attributes:
        error: the class that every refusal raises.
        ending: of the file's name, with the dot.
        most: bytes at the most, unpacked.
        beyond: what counts towards `most` and what to do, after "at most N are read, ".
    """

    error: type[InputError]
    ending: str
    most: int
    beyond: str

    def read(self, path: Path) -> bytes:
        """The bytes of a regular file as they lie on disk.

        Raises:
            InputError: of the kind's class, if it is missing, no regular file or too large.
        """
        try:
            # Not to wait for ever at a pipe that nobody writes to.
            with open(path, "rb", opener=lambda p, flags: os.open(p, flags | NO_WAIT)) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise self.error(f"cannot read {path}: it is not a regular file. Name a file.")
                self.refuse_large(status.st_size, path)
                return file.read(self.most)
        except FileNotFoundError as error:
            raise self.error(f"there is no file {path}. Check the path.") from error
        except IsADirectoryError as error:
            raise self.error(
                f"{path} is a folder. Name the {self.ending} file inside it."
            ) from error
        except (OSError, ValueError) as error:
            raise self.error(f"cannot read {path}: {error}. Check the path.") from error

    def unpacked(self, raw: bytes, path: Path) -> bytes:
        """The bytes themselves, or what they unpack to where they are gzip data.

        Raises:
            InputError: of the kind's class, if they are damaged or unpack to too much.
        """
        if not raw.startswith(GZIP):
            return raw
        try:
            return self._gunzipped(raw, path)
        except zlib.error as error:
            raise self.error(
                f"cannot read {path}: damaged gzip data ({error}). Download it again."
            ) from error

    def refuse_large(self, size: int, path: Path) -> None:
        """Raise if a size in bytes is beyond `most`."""
        if size > self.most:
            raise self.error(
                f"{path} is too large: {size} bytes or more, at most {self.most} are read, "
                f"{self.beyond}"
            )

    def _gunzipped(self, raw: bytes, path: Path) -> bytes:
        parts: list[bytes] = []
        size = 0
        rest = raw
        while rest:
            machine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            while not machine.eof:
                part = machine.decompress(rest, CHUNK)
                rest = machine.unconsumed_tail
                if not part and not machine.eof:
                    raise zlib.error("the data end too early")
                parts.append(part)
                size += len(part)
                self.refuse_large(size, path)
            rest = machine.unused_data.lstrip(b"\0")
        return b"".join(parts)
