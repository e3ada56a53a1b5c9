"""Trees -> the certificate file that `verify/check/certificate.py` describes."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from verify.certificates.tree import Branch, CaseProof, InputSplit, ReluSplit, Slopes
from verify.check.certificate import MAGIC
from verify.check.onnx_bytes import unpacked

Arrays = dict[str, NDArray[np.generic]]


def certificate_bytes(
    model: bytes, prop: bytes, cases: Sequence[CaseProof], *, real: bool = False
) -> bytes:
    """The file that claims a property of a model, with a proof for each case of the property.

    Args:
        model, prop: the files' bytes, packed or not.
        cases: in the order of the property's boxes.
        real: whether the claim is about real arithmetic only.
    """
    relus = relus_of(cases)
    arrays: Arrays = {}
    for number, case in enumerate(cases):
        arrays.update(case_arrays(number, case, relus))
    header = {
        "model": hashlib.sha256(unpacked(model)).hexdigest(),
        "property": hashlib.sha256(unpacked(prop)).hexdigest(),
        "semantics": "real" if real else "float32",
        "relus": relus,
        "arrays": [[name, a.dtype.name, list(a.shape)] for name, a in arrays.items()],
    }
    text = json.dumps(header, allow_nan=False).encode()
    blob = b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays.values())
    data = MAGIC + len(text).to_bytes(8, "little") + text + zlib.compress(blob)
    return data + hashlib.sha256(data).digest()


def relus_of(cases: Sequence[CaseProof]) -> list[str]:
    """All Relus that splits, slopes or tightenings name, sorted."""
    found: set[str] = set()
    for case in cases:
        for rows in case.tightenings:
            found.update((rows.relu, *rows.slopes))
        for part in case.parts:
            for node in part.tree.preorder():
                if isinstance(node.split, ReluSplit):
                    found.add(node.split.relu)
                for proof in node.proofs:
                    found.update(proof.slopes)
    return sorted(found)


def case_arrays(number: int, case: CaseProof, relus: list[str]) -> Arrays:
    """The arrays of one case."""
    index = {name: i for i, name in enumerate(relus)}
    nodes = [part.tree.preorder() for part in case.parts]
    tight: list[tuple[int, int, int]] = []
    tight_slopes: list[Slopes] = []
    for rows in case.tightenings:
        for k, entry in enumerate(rows.entries.tolist()):
            tight.append((index[rows.relu], entry, rows.sign))
            tight_slopes.append({name: a[k] for name, a in rows.slopes.items()})
    proof_slopes = [
        [{name: a[0] for name, a in proof.slopes.items()} for node in own for proof in node.proofs]
        for own in nodes
    ]
    columns = columns_of([*tight_slopes, *(s for part in proof_slopes for s in part)], index)
    arrays: Arrays = {}
    if len(columns):
        arrays[f"{number}/columns"] = columns
    if tight:
        arrays[f"{number}/tight"] = np.array(tight, np.int32)
        arrays[f"{number}/tight_alpha"] = packed(tight_slopes, columns, relus)
    for k, (part, own, slopes) in enumerate(zip(case.parts, nodes, proof_slopes, strict=True)):
        found = tree_arrays(own, index)
        found["clauses"] = np.array(part.clauses, np.int32)
        if slopes:
            found["proof_alpha"] = packed(slopes, columns, relus)
        arrays.update({f"{number}.{k}/{name}": array for name, array in found.items()})
    return arrays


def tree_arrays(nodes: list[Branch], index: dict[str, int]) -> Arrays:
    """The splits and proofs of one tree in preorder."""
    kind, place = np.zeros(len(nodes), np.uint8), np.full(len(nodes), -1, np.int32)
    relu, value = np.full(len(nodes), -1, np.int16), np.zeros(len(nodes))
    proofs: list[tuple[int, int, int]] = []
    betas: list[float] = []
    for i, node in enumerate(nodes):
        if isinstance(node.split, InputSplit):
            kind[i], place[i], value[i] = 1, node.split.axis, node.split.value
        elif isinstance(node.split, ReluSplit):
            kind[i], place[i], relu[i] = 2, node.split.neuron, index[node.split.relu]
        for proof in node.proofs:
            proofs.append((i, proof.clause, proof.row))
            betas += proof.betas
    arrays: Arrays = {"kind": kind, "place": place, "relu": relu, "value": value}
    if proofs:
        arrays["proof"] = np.array(proofs, np.int32)
        arrays["beta"] = np.array(betas, np.float32)
    return arrays


def columns_of(rows: list[Slopes], number: dict[str, int]) -> NDArray[np.int32]:
    """Every neuron for which some row has a slope, as (Relu, neuron)."""
    known: dict[str, NDArray[np.bool_]] = {}
    for slopes in rows:
        for name, alpha in slopes.items():
            here = ~np.isnan(alpha)
            known[name] = here if name not in known else known[name] | here
    found = [
        np.stack([np.full(int(here.sum()), number[name]), here.nonzero()[0]], axis=1)
        for name, here in sorted(known.items())
    ]
    return np.concatenate(found).astype(np.int32) if found else np.zeros((0, 2), np.int32)


def packed(rows: list[Slopes], columns: NDArray[np.int32], relus: list[str]) -> NDArray[np.float16]:
    """Slopes of all rows by column, float16; what a row does not know is 0."""
    found = np.zeros((len(rows), len(columns)), np.float16)
    for relu in np.unique(columns[:, 0]):
        mine = (columns[:, 0] == relu).nonzero()[0]
        neurons = columns[mine, 1]
        for i, slopes in enumerate(rows):
            alpha = slopes.get(relus[relu])
            if alpha is not None:
                found[i, mine] = np.nan_to_num(alpha[neurons])
    return found
