"""What a search that bounds neurons anew leaves behind: accepted as it is, refused if altered."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.check.models import box_property, dense_bytes, runs
from verify import load
from verify.certificates.diary import Diary
from verify.certificates.properties import searched
from verify.certificates.proving import claim, first_accepted
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check
from verify.check.certificate import MAGIC, Certificate, read_certificate
from verify.check.refusal import Refusal
from verify.readers.vnnlib import read_vnnlib
from verify.search import pacing
from verify.values.budget import Budget

INPUTS = 24
MODEL = dense_bytes(4, (INPUTS, 10, 10, 2))
LOW, HIGH = np.full(INPUTS, -0.3), np.full(INPUTS, 0.3)


def prop_at(share: float) -> bytes:
    """Both outputs stay above a level: below all samples by a share of their spread."""
    run, rng = runs(MODEL)[0], np.random.default_rng(4)
    values = np.array([run(x) for x in rng.uniform(-0.3, 0.3, (3000, INPUTS))])
    levels = values.min(axis=0) - share * (values.max(axis=0) - values.min(axis=0))
    clauses = [f"(<= Y_{k} {float(level)!r})" for k, level in enumerate(levels)]
    return box_property(LOW, HIGH, clauses, 2).encode()


TRUE, FALSE = prop_at(0.9), prop_at(-0.05)


@pytest.fixture(scope="module", params=["activation_split", "milp"])
def proof(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """By a search that divides its bases at once and bounds their neurons anew, or by programs."""
    folder = tmp_path_factory.mktemp("recording")
    (folder / "net.onnx").write_bytes(MODEL)
    (folder / "prop.vnnlib").write_bytes(TRUE)
    graph = load(folder / "net.onnx").graph
    (case,) = read_vnnlib(folder / "prop.vnnlib").property.cases
    known = claim(MODEL, TRUE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacing, "PATIENCE", 0.0)
        patch.setattr(pacing, "WORTH_WAITING", 0.0)
        budget = Budget().within(100)
        tried = searched(Diary(graph), known, 0, case, budget, request.param)
        found = first_accepted(known, 0, tried, budget, real=False)
    return certificate_bytes(MODEL, TRUE, [found])


def written(proof: Certificate, prop: bytes) -> bytes:
    """The arrays as a file that claims a property, with the hash that belongs to it."""
    arrays = proof.arrays
    header = {
        "model": proof.model,
        "property": hashlib.sha256(prop).hexdigest(),
        "semantics": "float32",
        "relus": proof.relus,
        "arrays": [[name, a.dtype.name, list(a.shape)] for name, a in arrays.items()],
    }
    text = json.dumps(header).encode()
    blob = zlib.compress(b"".join(a.tobytes() for a in arrays.values()), 1)
    data = MAGIC + len(text).to_bytes(8, "little") + text + blob
    return data + hashlib.sha256(data).digest()


def test_rows_that_bound_neurons_anew_are_written_and_accepted(proof: bytes) -> None:
    """With clauses weighed, multipliers of splits, and trees of splits: every kind is there.

    Programs have no small trees, but slopes in float32.
    """
    arrays = read_certificate(proof).arrays
    assert "for every float32 execution" in check(proof, MODEL, TRUE)
    assert check(written(read_certificate(proof), TRUE), MODEL, TRUE)
    parts = {name.split("/")[1] for name in arrays}
    assert {"columns", "proof", "weight", "alpha", "push", "value"} <= parts
    assert ("path" in parts) != (arrays["0.0/alpha"].dtype == np.float32)
    weighed = [
        (arrays[f"{c}/weight"] > 0).any(axis=1) & (arrays[f"{c}/proof"][:, 2] >= 0)
        for c in ("0.0", "0.1")
        if f"{c}/proof" in arrays
    ]
    assert any(rows.any() for rows in weighed)


def changed(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """One entry altered, or a row left out, doubled or moved."""
    kind, found = int(rng.integers(0, 5)), array.copy()
    if kind == 0 or array.ndim == 0:
        return np.delete(found, int(rng.integers(0, len(found))), axis=0)
    if kind == 1:
        return np.append(found, found[-1:], axis=0)
    if kind == 2:
        return np.ascontiguousarray(found[rng.permutation(len(found))])
    at = tuple(int(rng.integers(0, length)) for length in found.shape)
    if found.dtype.kind == "f":
        found[at] = rng.choice([0.0, 1.0, -1.0, -found[at], 3 * found[at] + 0.1, np.nan, np.inf])
    else:
        found[at] = rng.choice([0, 1, int(found[at]) ^ 1, (int(found[at]) + 2) % 200])
    return found


def test_altered_fields_prove_nothing_that_is_false(proof: bytes) -> None:
    """Every array of the proof altered, its hash made right: no false claim passes.

    Claiming what is true, some are refused, and what is accepted is true anyway.
    """
    whole, rng = read_certificate(proof), np.random.default_rng(0)
    with pytest.raises(Refusal):
        check(written(whole, FALSE), MODEL, FALSE)
    refused: dict[str, int] = {}
    for name, array in whole.arrays.items():
        for attempt in range(4):
            arrays = whole.arrays | {name: changed(rng, array)}
            other = Certificate(whole.model, whole.property, False, whole.relus, arrays)
            with pytest.raises((Refusal, IndexError, ValueError)):
                check(written(other, FALSE), MODEL, FALSE)
            try:
                if attempt < 2:
                    check(written(other, TRUE), MODEL, TRUE)
            except (Refusal, IndexError, ValueError):
                kind = name.split("/")[1]
                refused[kind] = refused.get(kind, 0) + 1
    assert {"kind", "columns", "proof"} <= set(refused)
    assert ("path" in refused) == any(name.endswith("/path") for name in whole.arrays)


def test_a_file_keeps_its_meaning_when_written_again(proof: bytes, tmp_path: Path) -> None:
    """The helper above writes what the reader reads; else the test above would test nothing."""
    again = read_certificate(written(read_certificate(proof), TRUE))
    for name, array in read_certificate(proof).arrays.items():
        assert np.array_equal(array, again.arrays[name], equal_nan=array.dtype.kind == "f")
    assert not list(tmp_path.iterdir())
