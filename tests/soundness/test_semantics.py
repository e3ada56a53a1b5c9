"""`--semantics real`: what holds in real arithmetic only is never called verified plainly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.bounders.hostile import backdoor_layers
from tests.cli.commands import CONV, DENSE, Run, verify  # noqa: F401 - a fixture
from tests.soundness.traps import gemms
from verify.api import prove_property
from verify.graph.ir import Graph
from verify.readers.onnx import read_onnx
from verify.recipes import METHODS
from verify.runs.comparing import EXECUTED, REAL_ONLY, judged, same_question
from verify.runs.identity import Head
from verify.search.activation_split import ActivationSplit
from verify.search.choosing import plan
from verify.search.halving import Halving
from verify.search.input_split import InputSplit
from verify.search.milp import Milp
from verify.search.outcome import Outcome, Search
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32, REAL
from verify.values.semantics import proof_by


@pytest.mark.parametrize("method", METHODS)
def test_the_backdoor_holds_in_real_arithmetic_only(
    method: str,
    tmp_path: Path,
    verify: Run,  # noqa: F811
) -> None:
    """The table, the summary and the record say so; float32 is the default, and proves nothing."""
    # In ONNX Runtime's order the small term survives, so no witness is found either.
    onnx.save(gemms(backdoor_layers(2.0**26, 1.0, (0, 1, 2))), tmp_path / "net.onnx")
    np.savez(tmp_path / "net.npz", x=np.array([[0.5, 0.5]], dtype=np.float32), y=np.array([0]))
    ask = ("certify", tmp_path / "net.onnx", "--eps", "0.1", "--method", method)
    real = verify(*ask, "--semantics", "real", "--json", "-").record
    (result,) = real["results"]
    assert result["verdict"] == "verified (real arithmetic)"
    assert real["settings"]["semantics"] == "real"
    assert real["summary"]["verified"] == 0
    assert real["summary"]["verified (real arithmetic)"] == 1
    plain = verify(*ask, "--json", "-").record
    assert plain["results"][0]["verdict"] == "unknown"
    assert plain["settings"]["semantics"] == "float32"
    shown = verify(*ask, "--semantics", "real", "--quiet")
    assert shown.code == 0
    assert "0 verified, 0 falsified, 0 unknown, 1 verified (real arithmetic)" in shown.out


def test_what_proves_float32_only_is_refused_beside_it(verify: Run) -> None:  # noqa: F811
    """No answer of the wrong kind may come out."""
    ask = ("certify", DENSE, "--eps", "0.01", "--semantics", "real")
    done = verify(*ask, "--certificate", "x")
    assert done.code == 2
    assert "--semantics real" in done.err


def test_other_semantics_do_not_exist(verify: Run) -> None:  # noqa: F811
    """A misspelt name is refused."""
    assert verify("certify", DENSE, "--eps", "0.01", "--semantics", "double").code == 2


HEADER = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))


@pytest.fixture
def absorbing(tmp_path: Path) -> Path:
    """Logits (1 + 2^26 r - 2^26 r, 1/2), r = relu(x0): executed, the 1 is lost from r = 1/4 on.

    In ONNX Runtime's order, 2^26 r + 1 comes first. Image: (0, 1/2), class 0.
    """
    rows = [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    layers = [
        (rows, [0.0, 1.0, 0.0]),
        ([[2.0**26, 1.0, -(2.0**26)]], [0.0]),
        ([[1.0], [0.0]], [0.0, 0.5]),
    ]
    onnx.save(gemms(layers), tmp_path / "net.onnx")
    np.savez(tmp_path / "net.npz", x=np.array([[0.0, 0.5]], dtype=np.float32), y=np.array([0]))
    limits = "(assert (>= X_0 0.0))\n(assert (<= X_0 0.125))\n(assert (>= X_1 0.0))\n"
    goal = "(assert (<= X_1 1.0))\n(assert (<= Y_0 Y_1))\n"
    (tmp_path / "unsafe.vnnlib").write_text(HEADER + limits + goal)
    (tmp_path / "list.csv").write_text("net.onnx,unsafe.vnnlib,1\n")
    return tmp_path / "net.onnx"


def test_a_radius_in_real_arithmetic_may_reach_a_counterexample(
    absorbing: Path,
    verify: Run,  # noqa: F811
) -> None:
    """It is no error then, as it would be otherwise; every figure that claims it says so."""
    ask = ("radius", absorbing)
    plain = verify(*ask, "--json", "-").record
    assert plain["results"][0]["radius_certified"] < 0.2
    assert plain["results"][0]["verdict"] in ("verified", "unknown")
    done = verify(*ask, "--semantics", "real", "--json", absorbing.with_suffix(".json"))
    assert "certified radius (real arithmetic)" in done.out
    assert "0 verified, 0 falsified, 0 unknown, 1 verified (real arithmetic)" in done.out
    assert "as far as a counterexample of the executed file" in done.out
    page = absorbing.with_suffix(".html")
    assert verify("report", absorbing.with_suffix(".json"), "--output", page).code == 0
    assert "net.json (real arithmetic)" in page.read_text()
    curves = verify("compare", absorbing, "--semantics", "real").out
    assert "certified (real arithmetic)" in curves


@pytest.mark.parametrize("splits", ["0", "1"])
def test_confidence_in_real_arithmetic_says_so(
    splits: str,
    absorbing: Path,
    tmp_path: Path,
    verify: Run,  # noqa: F811
) -> None:
    """Nearer together than for every execution, which may leave it; never verified plainly."""
    base = ("--eps", "0.1", "--method", "crown", "--attack-steps", "2", "--threshold", "0.6")
    ask = ("confidence", absorbing, *base, "--splits", splits)
    real = verify(*ask, "--semantics", "real", "--json", "-").record
    plain = verify(*ask, "--json", "-").record
    ((one,), (other,)) = real["results"], plain["results"]
    assert one["verdict"] == "verified (real arithmetic)"
    assert other["verdict"] == "unknown"
    assert (real["settings"]["semantics"], plain["settings"]["semantics"]) == ("real", "float32")
    for name in ("confidence", "nll", "entropy"):
        assert one[name]["certified_low"] >= other[name]["certified_low"] - 1e-12
        assert one[name]["certified_high"] <= other[name]["certified_high"] + 1e-12
    # The margin is 1/2 in real arithmetic all over.
    assert one["confidence"]["certified_low"] == pytest.approx(1 / (1 + np.exp(-0.5)), rel=1e-4)
    assert other["confidence"]["certified_low"] < 0.6
    picture = tmp_path / "bands.svg"
    done = verify(*ask, "--semantics", "real", "--plot", picture)
    assert "certified (real arithmetic)" in done.out
    assert picture.exists()
    short = ("certify", absorbing, "--eps", "0.1", "--method", "crown", "--confidence")
    record = verify(*short, "--semantics", "real", "--json", "-").record
    assert record["results"][0]["verdict"] == "verified (real arithmetic)"


def test_an_execution_that_leaves_real_bounds_is_no_error(
    absorbing: Path,
    verify: Run,  # noqa: F811
) -> None:
    """From x0 = 1/4 on the executed margin is -1/2, and an attack finds that."""
    ask = ("confidence", absorbing, "--eps", "0.5", "--method", "crown", "--threshold", "0.6")
    (row,) = verify(*ask, "--semantics", "real", "--json", "-").record["results"]
    assert row["verdict"] == "verified (real arithmetic)"
    assert row["confidence"]["certified_low"] > 0.6


def test_two_runs_contradict_each_other_only_where_executions_do(
    absorbing: Path,
    tmp_path: Path,
    verify: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real proof beside an executed counterexample is none; a float32 proof would be."""
    monkeypatch.setenv("TASHIKA_RUNS", str(tmp_path / "runs"))
    verify("radius", absorbing, "--semantics", "real", "--attack", "none", "--run", "ideal")
    verify("radius", absorbing, "--run", "executed")
    for order in (("ideal", "executed"), ("executed", "ideal")):
        done = verify("runs", "compare", *order, "--json", "-")
        assert done.code == 0
        assert done.record["contradictions"] == []
        (found,) = done.record["by_rounding"]
        assert "proved in real arithmetic by the" in found["why"]
        assert "rounding decides" in found["why"]
        assert done.record["verdicts"][0]["count"] == 1
    shown = verify("runs", "compare", "ideal", "executed").out
    assert "1 proved in real arithmetic and executed otherwise: no contradiction" in shown
    assert "verified (real arithmetic)" in shown


def test_a_proof_of_executions_is_contradicted_in_any_semantics() -> None:
    """What refutes was executed, whatever the refuting run wanted to prove."""
    proof: dict[str, object] = {"label": 1, "verdict": "verified", "eps": 0.5}
    refuted: dict[str, object] = {"label": 1, "verdict": "falsified", "distance": 0.3}
    stamp = Head("certify", {}, "m", "1", "1")
    assert judged(proof, refuted)[0].startswith("proved by the first run up to 0.5, refuted")
    assert judged(refuted, proof)[0].startswith("proved by the second run up to 0.5, refuted")
    assert judged({**proof, "verdict": REAL_ONLY}, refuted)[0] == ""
    assert "executed otherwise at 0.3" in judged({**proof, "verdict": REAL_ONLY}, refuted)[1]
    assert judged({**proof, "eps": 0.2}, refuted) == ("", "")
    assert (Verdict.VERIFIED.value, Verdict.VERIFIED_REAL.value) == (EXECUTED, REAL_ONLY)
    real = replace(stamp, settings={"semantics": "real"})
    assert same_question(stamp, real)


def test_complete_search_says_what_it_proved(absorbing: Path, verify: Run) -> None:  # noqa: F811
    """`radius --exact` and `certify --complete` too."""
    more = ("--semantics", "real", "--timeout", "60", "--json", "-")
    exact = verify("radius", absorbing, "--exact", *more).record
    (row,) = exact["results"]
    assert row["verdict"] == "verified (real arithmetic)"
    assert row["radius_certified"] > 0.2
    assert exact["settings"]["semantics"] == "real"
    ask = ("certify", absorbing, "--eps", "0.1", "--complete", "--method", "ibp", *more)
    (row,) = verify(*ask).record["results"]
    assert row["verdict"] == "verified (real arithmetic)"


def test_a_property_of_real_arithmetic_is_not_unsat_plainly(
    absorbing: Path,
    verify: Run,  # noqa: F811
) -> None:
    """Not in the answer, not in the file for the competition, not in a list."""
    spec, out = absorbing.with_name("unsafe.vnnlib"), absorbing.with_suffix(".txt")
    done = verify("prop", absorbing, spec, "--semantics", "real", "--out", out)
    assert (done.code, done.out) == (0, "unsat (real arithmetic)\n")
    assert out.read_text() == "unsat (real arithmetic)\n"
    listed = ("prop", "--list", absorbing.with_name("list.csv"), "--json", "-")
    record = verify(*listed, "--semantics", "real").record
    assert record["results"][0]["answer"] == "unsat (real arithmetic)"
    assert record["summary"]["verified"] == 0
    # Executed, the last number below 1/8 gives 1/2 (2^26 r + 1 is rounded to even): who finds it in
    # time refutes the property, nobody may prove it.
    plain = verify(*listed).record["results"][0]["verdict"]
    assert plain in ("unknown", "falsified")
    refused = verify("prop", absorbing, spec, "--semantics", "real", "--certificate", out)
    assert refused.code == 2
    assert "--semantics real" in refused.err


def test_an_image_under_real_arithmetic(verify: Run) -> None:  # noqa: F811
    """`verify geometric`, transformations and flows."""
    ask = ("geometric", CONV, "--limit", "1", "--attack", "none", "--semantics", "real")
    for claim in (("--transform", "rotation(-1,1)"), ("--flow", "0.001")):
        done = verify(*ask, *claim, "--json", "-").record
        assert done["results"][0]["verdict"] == "verified (real arithmetic)"
        assert done["settings"]["semantics"] == "real"
        assert "certified share (real arithmetic)" in verify(*ask, *claim).out


def absorbing_case(path: Path) -> tuple[Graph, Case]:
    """Unsafe: output 0 is at most 1/2, on x0 from 0 to 1/8."""
    graph = read_onnx(path).graph
    none = torch.zeros(0, dtype=torch.float64)
    row = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    clause = Halfspaces(row, none.new_zeros(1), torch.zeros(1, dtype=torch.bool))
    free = Halfspaces(none.view(0, 1).expand(0, 2), none, none.bool())
    ends = torch.tensor([[0.0, 0.0], [0.125, 1.0]], dtype=torch.float64)
    return graph, Case(ends[0], ends[1], free, (clause,))


@pytest.mark.parametrize("kind", [InputSplit, ActivationSplit, Milp])
def test_each_search_charges_what_it_was_told(
    kind: type[InputSplit] | type[ActivationSplit] | type[Milp], absorbing: Path
) -> None:
    """The same case is proved in real arithmetic, under a verdict of its own, and not beyond."""
    graph, case = absorbing_case(absorbing)
    for rounding, verdict, most in (
        (REAL, Verdict.VERIFIED_REAL, 60.0),
        (FLOAT32, Verdict.UNKNOWN, 1.0),
    ):
        search: Search = kind(rounding=rounding)
        assert search(graph, case, None, Budget().within(most)).verdict is verdict


def test_halves_that_bounds_alone_close_are_named_too(absorbing: Path) -> None:
    """No search inside has said anything then."""
    graph, case = absorbing_case(absorbing)

    def silent(*_: object) -> Outcome:
        return Outcome(Verdict.UNKNOWN, "silent")

    for rounding, verdict in ((REAL, Verdict.VERIFIED_REAL), (FLOAT32, Verdict.VERIFIED)):
        near = replace(case, upper=case.upper * (1.0 if rounding == REAL else 2.0**-8))
        search = Halving(inner=silent, rounding=rounding)
        assert search(graph, near, None, Budget().within(60.0)).verdict is verdict


def test_a_plan_hands_on_the_rounding(absorbing: Path) -> None:
    """No step of it falls back to its default."""
    graph, case = absorbing_case(absorbing)
    for step in plan(graph, case, REAL):
        done = step.search(graph, case, None, Budget().within(60.0))
        assert done.verdict is Verdict.VERIFIED_REAL
    assert proof_by(FLOAT32) is Verdict.VERIFIED
    assert (
        prove_property(absorbing, absorbing.with_name("unsafe.vnnlib"), semantics="real").verdict
        is Verdict.VERIFIED_REAL
    )
