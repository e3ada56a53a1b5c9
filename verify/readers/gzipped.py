"""Gzip data of untrusted files, unpacked piece by piece: a bomb is met before it goes off."""

from __future__ import annotations

import zlib
from collections.abc import Callable

CHUNK = 2**20
"""Bytes unpacked between two looks at the size."""


def gunzipped(raw: bytes, refuse_large: Callable[[int], None]) -> bytes:
    """All members of the data; `refuse_large` is told the size so far and may raise.

    Raises:
        zlib.error: if the data are damaged or end too early.
    """
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
            refuse_large(size)
        rest = machine.unused_data.lstrip(b"\0")
    return b"".join(parts)
