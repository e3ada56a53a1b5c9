"""The certificate file: a header in JSON and arrays, with every length bounded before it is used.

    b"TASHIKA2", the header's length in 8 bytes (little-endian), the header, a zlib stream,
    and the SHA-256 of all that, so that a damaged file is told from one that proves nothing

The header: {"model": SHA-256 of the unpacked model, "property": of the unpacked property,
"semantics": "float32" or "real", "relus": names of the Relus, and maxima, that arrays refer to,
"arrays": [[name, dtype, shape], ...]}; the stream holds the arrays one after another.

Arrays about case number c (the property's boxes in order), each name preceded by "c/":

    columns      int32 (column, 2)  Relu (or maximum) and neuron that a column stands for

and proofs (see `verify.check.proofs`) that bound neurons over the whole box, with no rows weighed:

    proof        int32 (proof, 4)   node, clause, column (-1 for none), sign of the neuron's input
    weight       float32 (proof, rows of the longest clause)  of the clause's rows
    alpha        (proof, column)    slopes: float16 or uint8 (in units of 1/255), where the sign of
                                    a neuron is not known; or float32, for all; NaN for none
    push         int32 (push, 2)    proof and column that a multiplier belongs to
    value        float32 (push,)    the multipliers
    path         int32 (split, 3)   proof, column, side (1: >= 0) of the splits of a small tree,
                                    of which the proofs of one neuron that stand together are leaves

and about part k = 0, 1, ... of the case, preceded by "c.k/", proofs of the same form and:

    clauses      int32 (clause,)    which clauses of the case this part proves
    kind         uint8 (node,)      a tree in preorder: 0 leaf, 1 split of an input, 2 of a neuron
    place        int32 (node,)      the input, or the column of the neuron
    cut          float64 (node,)    where an input is split: first child below, second above

A neuron's first child has its input <= 0, its second >= 0. A proof holds for all below its node; in
a part about several clauses it bounds no neuron. Only `kind` and `clauses` have to be there.
"""

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.check.refusal import Refusal

MAGIC = b"TASHIKA2"
DIGEST = 32
"""Bytes of the hash at the end."""
MOST_HEADER = 2**24
MOST_ARRAYS = 2**31
"""Bytes of all arrays together, unpacked."""
DTYPES = ("uint8", "int16", "int32", "float16", "float32", "float64")


@dataclass(frozen=True)
class Certificate:
    """A file as read: nothing in it is believed."""

    model: str
    property: str
    real: bool
    relus: list[str]
    arrays: dict[str, np.ndarray]

    def array(self, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        """An array of one of these dtypes and this shape (-1: any length); refused otherwise."""
        found = self.arrays.get(name)
        if found is None:
            found = np.zeros([max(length, 0) for length in shape], dtypes[0])
        fits = len(found.shape) == len(shape) and all(
            wanted in (-1, length) for wanted, length in zip(shape, found.shape, strict=True)
        )
        if found.dtype.name not in dtypes or not fits:
            raise Refusal(f"array {name!r} is {found.dtype} {found.shape}, not {dtypes[0]} {shape}")
        return found


def read_certificate(data: bytes) -> Certificate:
    """The certificate in a file's bytes; raises Refusal."""
    start = len(MAGIC) + 8
    if not data.startswith(MAGIC) or len(data) < start + DIGEST:
        raise Refusal("this is no certificate: it does not start as one")
    data, digest = data[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        raise Refusal("the certificate is damaged: its last bytes are not the hash of the others")
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    if length > MOST_HEADER or start + length > len(data):
        raise Refusal("the certificate's header is too long, or cut off")
    try:
        header = json.loads(data[start : start + length])
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the certificate's header is no JSON: {error}") from None
    sizes = sizes_of(header)
    blob = inflated(data[start + length :], sum(sizes))
    arrays, at = {}, 0
    for (name, dtype, shape), size in zip(header["arrays"], sizes, strict=True):
        values = np.frombuffer(blob[at : at + size], np.dtype(dtype).newbyteorder("<"))
        arrays[name], at = values.reshape(shape).astype(dtype), at + size
    real, relus = header["semantics"] == "real", [str(name) for name in header["relus"]]
    return Certificate(header["model"], header["property"], real, relus, arrays)


def sizes_of(header: Any) -> list[int]:
    """Bytes of the arrays that a header announces, after a check of all its parts."""
    wanted = {"model": str, "property": str, "semantics": str, "relus": list, "arrays": list}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(key), kind) for key, kind in wanted.items()
    ):
        raise Refusal(f"the certificate's header lacks one of {', '.join(wanted)}")
    if header["semantics"] not in ("float32", "real"):
        raise Refusal(f"the certificate's semantics is {header['semantics']!r}")
    sizes: dict[str, int] = {}
    for entry in header["arrays"]:
        match entry:
            case [str(name), str(dtype), list(shape)] if dtype in DTYPES and name not in sizes:
                if not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 2:
                    raise Refusal(f"array {name!r} has the shape {shape}")
                sizes[name] = np.dtype(dtype).itemsize * math.prod(shape)
            case _:
                raise Refusal(f"an array is announced as {str(entry)[:60]}")
    if sum(sizes.values()) > MOST_ARRAYS:
        raise Refusal(f"the arrays take {sum(sizes.values())} bytes, at most {MOST_ARRAYS}")
    return list(sizes.values())


def inflated(packed: bytes, size: int) -> bytes:
    """A zlib stream of exactly so many bytes."""
    stream = zlib.decompressobj()
    try:
        blob = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise Refusal(f"the certificate's arrays are damaged: {error}") from None
    if len(blob) != size or not stream.eof or stream.unused_data:
        raise Refusal("the certificate's arrays are not of the announced length")
    return blob
