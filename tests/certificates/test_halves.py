"""Certificates of halved boxes that are searched over their neurons: both kinds in one tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.certificates.test_recording import changed, written
from tests.check.models import box_property, runs
from tests.readers.onnx_models import model
from verify import load
from verify.certificates.diary import Diary
from verify.certificates.properties import searched
from verify.certificates.proving import NoCertificate, claim, first_accepted
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check
from verify.check.certificate import Certificate, read_certificate
from verify.check.refusal import Refusal
from verify.graph.ir import Graph
from verify.readers.vnnlib import read_vnnlib
from verify.search.activation_split import ActivationSplit
from verify.search.outcome import Outcome, Refuter, Watcher
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.result import Verdict

WIDEST = 1.2
"""Of a box that neurons are split in; the whole box is 2 wide."""


def net_bytes(seed: int, middle: str = "Relu") -> bytes:
    """Relus, and perhaps others between them."""
    rng, make = np.random.default_rng(seed), onnx.helper.make_node
    sizes, nodes, constants, name = (3, 8, 8, 8, 2), [], {}, "x"
    for i, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        constants[f"w{i}"] = (rng.normal(size=(n, m)) * (3 / n) ** 0.5).astype(np.float32)
        constants[f"b{i}"] = (0.3 * rng.normal(size=m)).astype(np.float32)
        nodes.append(make("Gemm", [name, f"w{i}", f"b{i}"], ["y" if i == 3 else f"z{i}"]))
        if i < 3:
            nodes.append(make(middle if i == 1 else "Relu", [f"z{i}"], [f"a{i}"]))
            name = f"a{i}"
    return model(nodes, [1, 3], constants).SerializeToString()


def prop_at(data: bytes, share: float) -> bytes:
    """Both outputs stay above a level, a share of their spread below all samples."""
    run, rng = runs(data)[0], np.random.default_rng(1)
    values = np.array([run(x) for x in rng.uniform(-1, 1, (3000, 3))])
    levels = values.min(axis=0) - share * (values.max(axis=0) - values.min(axis=0))
    clauses = [f"(<= Y_{k} {float(level)!r})" for k, level in enumerate(levels)]
    return box_property(-np.ones(3), np.ones(3), clauses, 2).encode()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neurons are split in small boxes only, so that there are halves whatever the machine."""
    plain = ActivationSplit.__call__

    def limited(
        self: ActivationSplit,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        if float((case.upper - case.lower).max()) > WIDEST:
            return Outcome(Verdict.UNKNOWN, "none")
        return plain(self, graph, case, refute, budget, watch)

    monkeypatch.setattr(ActivationSplit, "__call__", limited)


def proved(folder: Path, data: bytes, prop: bytes, seconds: float) -> bytes:
    """The certificate of one search; raises NoCertificate."""
    (folder / "net.onnx").write_bytes(data)
    (folder / "prop.vnnlib").write_bytes(prop)
    graph = load(folder / "net.onnx").graph
    (case,) = read_vnnlib(folder / "prop.vnnlib").property.cases
    known, budget = claim(data, prop), Budget().within(seconds)
    tried = searched(Diary(graph), known, 0, case, budget, "halving")
    return certificate_bytes(data, prop, [first_accepted(known, 0, tried, budget, real=False)])


@pytest.mark.usefixtures("narrow")
def test_halves_are_written_with_the_trees_below_them(tmp_path: Path) -> None:
    """Accepted, both kinds of splits there; altered, no false claim passes."""
    rng, kinds, refused = np.random.default_rng(0), set(), 0
    for seed in range(2):
        data = net_bytes(seed)
        true, false = prop_at(data, 0.15), prop_at(data, -0.02)
        proof = proved(tmp_path, data, true, 60)
        assert "for every float32 execution" in check(proof, data, true)
        whole = read_certificate(proof)
        kinds |= {k for c in ("0.0", "0.1") for k in whole.arrays[f"{c}/kind"].tolist()}
        for name, array in whole.arrays.items():
            arrays = whole.arrays | {name: changed(rng, array)}
            other = Certificate(whole.model, whole.property, False, whole.relus, arrays)
            with pytest.raises((Refusal, IndexError, ValueError)):
                check(written(other, false), data, false)
            try:
                check(written(other, true), data, true)
            except (Refusal, IndexError, ValueError):
                refused += 1
    assert kinds == {0, 1, 2}
    assert refused


@pytest.mark.usefixtures("narrow")
def test_halves_of_curves_are_halved_further(tmp_path: Path) -> None:
    """The checker's own lines around a sigmoid prove less than the search's: boxes close that."""
    data = net_bytes(0, "Sigmoid")
    true = prop_at(data, 0.15)
    proof = proved(tmp_path, data, true, 60)
    assert "for every float32 execution" in check(proof, data, true)


@pytest.mark.usefixtures("narrow")
def test_what_is_false_has_none(tmp_path: Path) -> None:
    """The search does not end."""
    data = net_bytes(0)
    with pytest.raises(NoCertificate, match="could not be repeated"):
        proved(tmp_path, data, prop_at(data, -0.02), 1.0)
