"""Trees -> the certificate file that `verify/check/certificate.py` describes."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.certificates.tree import Branch, CaseProof, Entries, InputSplit, Proof, ReluSplit
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
    """All Relus that splits or proofs name, sorted."""
    found: set[str] = set()
    for case in cases:
        for proof in proofs_of(case):
            found.update((proof.relu, *proof.slopes, *proof.pushes.relus, *proof.path.relus))
        for part in case.parts:
            for node in part.tree.preorder():
                if isinstance(node.split, ReluSplit):
                    found.add(node.split.relu)
    return sorted(found - {""})


def proofs_of(case: CaseProof) -> Iterator[Proof]:
    """All proofs of a case."""
    yield from case.tightenings
    for part in case.parts:
        for node in part.tree.preorder():
            yield from node.proofs


@dataclass(frozen=True)
class Columns:
    """The neurons that a case speaks of, and where each stands among them; -1 where it does not."""

    relus: list[str]
    pairs: NDArray[np.int32]
    place: dict[str, NDArray[np.int32]]

    def of(self, entries: Entries) -> NDArray[np.int64]:
        """The columns of values."""
        found = np.zeros(len(entries.row), np.int64)
        for i, name in enumerate(entries.relus):
            mine = entries.relu == i
            found[mine] = self.place[name][entries.neuron[mine]]
        return found


def columns_of(case: CaseProof, relus: list[str]) -> Columns:
    """Every neuron of which some row has a slope or a multiplier, or that is split or bounded."""
    used: dict[str, set[int]] = {}
    for proof in proofs_of(case):
        if proof.relu:
            used.setdefault(proof.relu, set()).update(proof.entries.tolist())
        for name, alpha in proof.slopes.items():
            known = (~np.isnan(alpha)).any(axis=0).nonzero()[0]
            used.setdefault(name, set()).update(known.tolist())
        for entries in (proof.pushes, proof.path):
            for i, name in enumerate(entries.relus):
                neurons = entries.neuron[entries.relu == i]
                used.setdefault(name, set()).update(neurons.tolist())
    for part in case.parts:
        for node in part.tree.preorder():
            if isinstance(node.split, ReluSplit):
                used.setdefault(node.split.relu, set()).add(node.split.neuron)
    pairs, place = [np.zeros((0, 2), np.int32)], {}
    first = 0
    for name in sorted(used):
        neurons = np.array(sorted(used[name]), np.int32)
        pairs.append(np.stack([np.full_like(neurons, relus.index(name)), neurons], axis=1))
        place[name] = np.full(max(used[name], default=0) + 1, -1, np.int32)
        place[name][neurons] = first + np.arange(len(neurons))
        first += len(neurons)
    return Columns(relus, np.concatenate(pairs), place)


def case_arrays(number: int, case: CaseProof, relus: list[str]) -> Arrays:
    """The arrays of one case."""
    columns = columns_of(case, relus)
    arrays: Arrays = {}
    if len(columns.pairs):
        arrays[f"{number}/columns"] = columns.pairs
    most = max((proof.weight.shape[1] for proof in proofs_of(case)), default=0)
    shared = proof_arrays([(0, proof) for proof in case.tightenings], columns, most)
    arrays.update({f"{number}/{name}": array for name, array in shared.items()})
    for k, part in enumerate(case.parts):
        nodes = part.tree.preorder()
        found = tree_arrays(nodes, columns)
        found["clauses"] = np.array(part.clauses, np.int32)
        own = [(i, proof) for i, node in enumerate(nodes) for proof in node.proofs]
        found.update(proof_arrays(own, columns, most))
        arrays.update({f"{number}.{k}/{name}": array for name, array in found.items()})
    return arrays


def tree_arrays(nodes: list[Branch], columns: Columns) -> Arrays:
    """The splits of one tree in preorder."""
    kind, place = np.zeros(len(nodes), np.uint8), np.full(len(nodes), -1, np.int32)
    cut = np.zeros(len(nodes))
    for i, node in enumerate(nodes):
        if isinstance(node.split, InputSplit):
            kind[i], place[i], cut[i] = 1, node.split.axis, node.split.value
        elif isinstance(node.split, ReluSplit):
            kind[i], place[i] = 2, columns.place[node.split.relu][node.split.neuron]
    return {"kind": kind, "place": place, "cut": cut}


def proof_arrays(proofs: list[tuple[int, Proof]], columns: Columns, most: int) -> Arrays:
    """Proofs at nodes of one tree, row by row.

    Coarse slopes that a row does not know are 0: most are of neurons whose sign is known.
    """
    if not proofs:
        return {}
    counts = [len(proof.weight) for _, proof in proofs]
    total = sum(counts)
    table, weight = np.zeros((total, 4), np.int32), np.zeros((total, most), np.float32)
    fine = any(proof.fine for _, proof in proofs)
    kind, unknown = (np.float32, np.nan) if fine else (np.float16, 0.0)
    alpha = np.full((total, len(columns.pairs)), unknown, kind)
    push, path = [np.zeros((0, 2), np.int32)], [np.zeros((0, 3), np.int32)]
    value = [np.zeros(0, np.float32)]
    first = 0
    for count, (node, proof) in zip(counts, proofs, strict=True):
        rows = slice(first, first + count)
        target = columns.place[proof.relu][proof.entries] if proof.relu else proof.entries
        table[rows] = np.stack(np.broadcast_arrays(node, proof.clause, target, proof.sign), axis=1)
        weight[rows, : proof.weight.shape[1]] = proof.weight
        for name, slopes in proof.slopes.items():
            place = columns.place[name]
            known = (place >= 0).nonzero()[0]
            alpha[rows, place[known]] = np.nan_to_num(slopes[:, known], nan=unknown)
        push.append(np.stack([first + proof.pushes.row, columns.of(proof.pushes)], axis=1))
        value.append(proof.pushes.value)
        side = (proof.path.value > 0).astype(np.int64)
        path.append(np.stack([first + proof.path.row, columns.of(proof.path), side], axis=1))
        first += count
    arrays: Arrays = {"proof": table, "weight": weight, "alpha": alpha}
    arrays["push"] = np.concatenate(push).astype(np.int32)
    arrays["value"] = np.concatenate(value).astype(np.float32)
    arrays["path"] = np.concatenate(path).astype(np.int32)
    return {name: array for name, array in arrays.items() if array.size}
