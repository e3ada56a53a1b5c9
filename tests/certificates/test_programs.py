"""Certificates of searches by linear programs: dual values, rays and planes as rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.check.models import box_property, dense_bytes, runs
from verify import load
from verify.certificates.diary import Diary
from verify.certificates.properties import searched
from verify.certificates.proving import NoCertificate, claim, first_accepted
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check
from verify.check.certificate import read_certificate
from verify.check.refusal import Refusal
from verify.readers.vnnlib import read_vnnlib
from verify.values.budget import Budget

INPUTS = 6


def proved(folder: Path, model: bytes, prop: bytes, seconds: float = 20) -> bytes:
    """The certificate of one search; raises NoCertificate."""
    (folder / "net.onnx").write_bytes(model)
    (folder / "prop.vnnlib").write_bytes(prop)
    graph = load(folder / "net.onnx").graph
    (case,) = read_vnnlib(folder / "prop.vnnlib").property.cases
    known, budget = claim(model, prop), Budget().within(seconds)
    tried = searched(Diary(graph), known, 0, case, budget, "milp")
    return certificate_bytes(model, prop, [first_accepted(known, 0, tried, budget, real=False)])


def question(seed: int, share: float, *, joint: bool) -> tuple[bytes, bytes]:
    """A random net, and levels a share of the spread below what samples reach.

    `joint`: both outputs have to be low at once.
    """
    model = dense_bytes(seed, (INPUTS, 9, 8, 2))
    run, rng = runs(model)[0], np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (1500, INPUTS))
    points[:500] = np.sign(points[:500])
    values = np.array([run(x) for x in points])
    spread = values.max(axis=0) - values.min(axis=0)
    if joint:
        # Both outputs at most their own middle less c, for the least c that samples keep.
        centre = values.mean(axis=0)
        least = float(((values - centre) / spread).max(axis=1).min())
        levels = centre + spread * (least - share)
        clauses = [f"(<= Y_0 {float(levels[0])!r}) (<= Y_1 {float(levels[1])!r})"]
    else:
        levels = values.min(axis=0) - share * spread
        clauses = [f"(<= Y_{k} {float(level)!r})" for k, level in enumerate(levels)]
    return model, box_property(-np.ones(INPUTS), np.ones(INPUTS), clauses, 2).encode()


@given(seed=st.integers(0, 10**6), joint=st.booleans(), share=st.sampled_from([0.02, 0.1, 0.3]))
@settings(max_examples=20, deadline=None)
def test_what_programs_prove_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, seed: int, joint: bool, share: float
) -> None:
    """At the first try, whatever was split, clipped, or shown to be empty."""
    model, prop = question(seed, share, joint=joint)
    folder = tmp_path_factory.mktemp("programs")
    try:
        data = proved(folder, model, prop)
    except NoCertificate as reason:
        if "could not be repeated" in str(reason):
            return  # samples miss the minimum
        raise
    assert "for every float32 execution" in check(data, model, prop)


@given(seed=st.integers(0, 10**6), joint=st.booleans())
@settings(max_examples=8, deadline=None)
def test_what_is_false_has_none(
    tmp_path_factory: pytest.TempPathFactory, seed: int, joint: bool
) -> None:
    """Levels that some sample reaches; and a proof of the true claim does not pass for it."""
    folder = tmp_path_factory.mktemp("false")
    model, false = question(seed, -0.01, joint=joint)
    with pytest.raises(NoCertificate):
        proved(folder, model, false, 0.5)
    _, true = question(seed, 0.4, joint=joint)
    try:
        data = proved(folder, model, true)
    except NoCertificate:
        return
    with pytest.raises(Refusal):
        check(data, model, false)


def test_every_kind_of_row_is_there(tmp_path: Path) -> None:
    """Trees, rows that bound neurons by a plane, and rays that weigh no clause."""
    kinds = set()
    for seed in range(3):
        arrays = read_certificate(proved(tmp_path, *question(seed, 0.05, joint=False))).arrays
        for k in (0, 1):
            proof = arrays.get(f"0.{k}/proof", np.zeros((0, 4), np.int32))
            weight = arrays.get(f"0.{k}/weight", np.zeros((0, 1)))
            kinds.add("tree" if len(arrays.get(f"0.{k}/kind", ())) > 1 else "leaf")
            kinds |= {"plane"} if (proof[:, 2] >= 0).any() else set()
            empty = (proof[:, 2] < 0) & (weight == 0).all(axis=1)
            kinds |= {"ray"} if empty.any() else set()
    assert {"tree", "plane"} <= kinds, kinds
