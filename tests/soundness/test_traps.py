"""Nets built to fool verifiers: no method says verified of a trap, and every twin is verified."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.exact_searches import SEARCHES, paid_time
from tests.bounders import hostile
from tests.soundness import smooth_traps
from tests.soundness.judges import exact, runs
from tests.soundness.traps import Trap, corpus
from verify.api import certify, prove_property
from verify.errors import MismatchError
from verify.network import Network, load
from verify.readers.onnx import read_onnx
from verify.recipes import METHODS
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32

CORPUS = [*corpus(), *smooth_traps.corpus()]
each = pytest.mark.parametrize("trap", CORPUS, ids=lambda trap: trap.name)


def points(trap: Trap) -> np.ndarray:
    """The centre and corners of the box, as float32 inputs inside it."""
    x = np.array(trap.x, dtype=np.float32).astype(np.float64)
    generator = np.random.default_rng(0)
    signs = [np.zeros(len(x)), np.ones(len(x)), -np.ones(len(x))]
    signs += [generator.choice([-1.0, 1.0], len(x)) for _ in range(3 if len(x) < 100 else 0)]
    found = np.stack([x + trap.eps * s for s in signs]).astype(np.float32)
    # A rounded corner may lie outside: one float32 inward.
    out = np.abs(found.astype(np.float64) - x) > trap.eps
    inward = np.nextafter(found, x.astype(np.float32)[None])
    found = np.where(out, inward, found)
    return np.unique(found, axis=0)


def margins(trap: Trap, path: Path) -> np.ndarray:
    """y_0 - max of the others of every execution we can make, and of exact arithmetic."""
    at = points(trap)
    shape = [d.dim_value for d in trap.proto.graph.input[0].type.tensor_type.shape.dim][1:]
    chained = bool(trap.layers)
    found = runs(trap.proto, at.reshape(len(at), *shape), orders=2 if chained else 0)
    values = [found.reshape(-1, found.shape[-1])]
    if not trap.layers:
        graph = read_onnx(path).graph  # in float64, the nearest to exact that every operator has
        values.append(run(graph, torch.tensor(at).double().view(len(at), *shape)).numpy())
    if chained:
        graph = hostile.dense(trap.layers)
        values += [hostile.outputs(graph, x, 0).astype(np.float64) for x in at]
        layers = [tuple(np.array(part, dtype=np.float32) for part in each) for each in trap.layers]
        for x in at:
            first, *rest = exact(layers, [Fraction(float(v)) for v in x])
            # Rounded to float64 after the difference: its sign is exact.
            values.append(np.array([[float(first - max(rest)), 0.0]]))
    with np.errstate(invalid="ignore"):
        return np.concatenate([v[:, 0] - v[:, 1:].max(axis=1) for v in values])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every model of the corpus as a file."""
    folder = tmp_path_factory.mktemp("traps")
    found = {}
    for i, trap in enumerate(CORPUS):
        found[trap.name] = folder / f"{i}.onnx"
        onnx.save(trap.proto, found[trap.name])
    return found


@each
def test_the_corpus_is_what_it_says(trap: Trap, files: dict[str, Path]) -> None:
    """Some legal execution breaks a trap; of twins, none does."""
    found = margins(trap, files[trap.name])
    assert bool((found > 0).all()) == trap.safe


@each
def test_no_method_verifies_a_trap_and_auto_verifies_its_twin(
    trap: Trap, files: dict[str, Path]
) -> None:
    """Through the library's front door, by every method; the label is class 0."""
    network = opened(trap, files[trap.name])
    if network is None:
        return
    x = torch.tensor([trap.x]).view(1, *network.input_shape)
    labels = torch.tensor([0])
    for method in METHODS:
        (result,) = certify(
            network, x, labels, eps=trap.eps, method=method, iterations=3, timeout=5.0
        )
        if not trap.safe:
            assert result.verdict is not Verdict.VERIFIED, method
        elif method in ("auto", "alpha-crown", "crown"):
            assert result.verdict is Verdict.VERIFIED, method


def opened(trap: Trap, path: Path) -> Network | None:
    """The network; None if a trap is refused at once, as its own runtime disagrees with itself."""
    try:
        return load(path)
    except MismatchError:
        assert not trap.safe
        return None


def written(trap: Trap, folder: Path) -> Path:
    """The claim as a property: unsafe is that class 1 reaches class 0, in a decimal box."""
    names = [f"X_{i}" for i in range(len(trap.x))]
    lines = [f"(declare-const {name} Real)" for name in [*names, "Y_0", "Y_1"]]
    for name, value in zip(names, np.array(trap.x, dtype=np.float32).astype(float), strict=True):
        low, high = value - trap.eps, value + trap.eps
        lines.append(f"(assert (>= {name} {low:.60f}))(assert (<= {name} {high:.60f}))")
    path = folder / "claim.vnnlib"
    path.write_text("\n".join([*lines, "(assert (<= Y_0 Y_1))"]))
    return path


NEWER = ("point split", "halving", "bases divided", "cuts")


@pytest.mark.parametrize("number", range(len(CORPUS)), ids=lambda i: CORPUS[i].name)
def test_no_search_on_its_own_proves_a_trap(number: int, files: dict[str, Path]) -> None:
    """One each, driven into its rarer paths; what the whole would have decided before, too."""
    trap, name = CORPUS[number], NEWER[number % len(NEWER)]
    network = opened(trap, files[trap.name])
    if network is None or len(trap.x) > 20 or network.graph.output.size != 2:
        return
    if network.graph.tail:
        return  # the gap that a softmax needs is asked by whoever leaves it out
    x = torch.tensor(trap.x).double()
    none = torch.zeros(0, dtype=torch.float64)
    free = Halfspaces(none.view(0, 1).expand(0, len(x)), none, none.bool())
    row = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    clause = Halfspaces(row, none.new_zeros(1), torch.zeros(1).bool())
    case = Case(x - trap.eps, x + trap.eps, free, (clause,))
    with paid_time():
        search = SEARCHES[name](FLOAT32)
        done = search(network.graph, case, None, Budget().within(0.03))
    assert trap.safe or done.verdict is not Verdict.VERIFIED
    assert done.verdict is not Verdict.VERIFIED_REAL


@each
def test_a_complete_search_proves_no_trap(
    trap: Trap, files: dict[str, Path], tmp_path: Path
) -> None:
    """`verify prop`: splits and linear programs are held to the same; a witness must be real."""
    if trap.name.startswith("order 400"):
        pytest.skip("a property of hundreds of inputs takes its time and adds nothing")
    network = opened(trap, files[trap.name])
    if network is None:
        return
    decision = prove_property(network, written(trap, tmp_path), timeout=1.0)
    if trap.safe:
        assert decision.verdict is Verdict.VERIFIED, decision.reason
    else:
        assert decision.verdict is not Verdict.VERIFIED
