"""`verify prop`: answers, counterexamples that can be read back, codes and bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest

from tests.cli.commands import Run, write_identity
from tests.readers.onnx_models import model
from verify.cli import proving
from verify.cli.growth import Growth
from verify.search.complete import Decision
from verify.search.outcome import Progress
from verify.values.result import Verdict

BOX = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(declare-const Y_1 Real)(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0.5))
(assert (<= X_1 0.75))
"""
NETWORK = "(declare-network n (declare-input in Real [1,2]) (declare-output out Real [1,2]))"


@pytest.fixture
def net(tmp_path: Path) -> str:
    return write_identity(tmp_path, [[0.2, 0.8]])


def spec(folder: Path, text: str) -> Path:
    path = folder / "p.vnnlib"
    path.write_text(text)
    return path


def test_unsat_is_exit_code_0(tmp_path: Path, net: str, verify: Run) -> None:
    """Outputs are the inputs; what was done is said on standard error."""
    done = verify("prop", net, spec(tmp_path, BOX + "(assert (<= Y_1 0.49))"))
    assert (done.code, done.out) == (0, "unsat\n")
    assert re.search(r"unsat by \w+, \d+\.\d+ s, \d+ domains \(\d+/s\), \d+ MiB", done.err)


def test_a_network_without_weights_is_searched(tmp_path: Path, verify: Run) -> None:
    """A lone Relu: nothing but its dtype tells the search in float32 what to compute in."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    path = tmp_path / "relu.onnx"
    onnx.save(model([node], [1, 2], {}), path)
    for bound, answer in (("1.01", "unsat"), ("0.5", "sat")):
        box = BOX.replace("(>= X_0 0)", "(>= X_0 -1)")
        done = verify("prop", path, spec(tmp_path, box + f"(assert (>= Y_0 {bound}))"), "-q")
        assert done.out.split() == [answer]
    strict = BOX.replace("(<= X_0 1)", "(< X_0 1)").replace("(>= X_0 0)", "(>= X_0 -1)")
    done = verify("prop", path, spec(tmp_path, strict + "(assert (>= Y_0 1))"), "-q")
    assert "Traceback" not in done.err
    assert done.code in (0, 3)


def test_growth_is_marked_at_doublings_and_begins_anew() -> None:
    """A search that counts to 1000 twice: marks double, times rise, nothing is lost between."""
    growth = Growth()
    said: list[str] = []
    for _ in range(2):
        for bounded in range(1, 1001):
            growth(Progress(bounded, bounded // 2, -1.0))
    counts = [mark[1] for mark in growth.marks]
    assert counts == [64, 128, 256, 512] * 2
    assert [mark[0] for mark in growth.marks] == sorted(mark[0] for mark in growth.marks)
    assert all(mark[3] > 10 for mark in growth.marks)
    shown = Growth(said.append)
    shown(Progress(10, 3, -0.5))
    assert re.fullmatch(r"10 sub-problems bounded \(\d+/s\), 3 open, least bound -0.5", said[0])


def test_sat_prints_the_counterexample_of_the_competition(
    tmp_path: Path,
    net: str,
    verify: Run,
) -> None:
    """Every variable in order, read back exactly; the same text goes to --out."""
    out, record = tmp_path / "o.txt", tmp_path / "r.json"
    path = spec(tmp_path, BOX + "(assert (and (>= Y_0 0.9) (<= Y_1 0.6)))")
    done = verify("prop", net, path, "--out", out, "--json", record)
    assert done.code == 1
    assert out.read_text() == done.out
    first, rest = done.out.split("\n", 1)
    assert first == "sat"
    assert rest.startswith("((X_0 ")
    assert rest.endswith("))\n")
    pairs = re.findall(r"\(([XY]_\d) ([-+.e0-9]+)\)", rest)
    assert [name for name, _ in pairs] == ["X_0", "X_1", "Y_0", "Y_1"]
    values = {name: float(value) for name, value in pairs}
    assert values["X_0"] == values["Y_0"] >= 0.9
    assert values["X_1"] == values["Y_1"] <= 0.6
    (result,) = json.loads(record.read_text())["results"]
    assert (result["answer"], result["verdict"]) == ("sat", "falsified")
    assert result["witness"] == [values["X_0"], values["X_1"]]
    assert result["peak_memory_mib"] > 10
    assert result["domains_per_second"] >= 0


def test_version_2_names_entries(tmp_path: Path, net: str, verify: Run) -> None:
    """As the second version of the language prints assignments."""
    text = NETWORK + "".join(
        f"(assert (>= in[0,{i}] 0.0))(assert (<= in[0,{i}] 1.0))" for i in range(2)
    )
    done = verify("prop", net, spec(tmp_path, text + "(assert (> out[0,1] out[0,0]))"))
    assert done.code == 1
    names = [line.split("=")[0] for line in done.out.splitlines()[1:]]
    assert names == ["in[0,0]", "in[0,1]", "out[0,0]", "out[0,1]"]


def test_timeout_is_exit_code_3(
    tmp_path: Path, net: str, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither proved nor refuted."""
    found = Decision(Verdict.UNKNOWN, "crown", reason="timeout", late=True)
    monkeypatch.setattr(proving, "prove_property", lambda *a, **k: found)
    path = spec(tmp_path, BOX + "(assert (<= Y_1 0.49))")
    done = verify("prop", net, path, "--timeout", "1", "--json", "-")
    assert done.code == 3
    assert done.record["results"][0]["answer"] == "timeout"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(assert (<= Y_0", "line 4, column 9: this parenthesis is never closed"),
        ("(assert (<= Y_7 0))", "line 4, column 9: the variable Y_7 is not declared"),
        ("(declare-const Y_2 Real)(assert (<= Y_2 0))", "declares 3 outputs, but the model has 2"),
    ],
)
def test_bad_properties_are_one_line(
    tmp_path: Path,
    net: str,
    verify: Run,
    text: str,
    said: str,
) -> None:
    """Exit code 2, nothing on standard output."""
    done = verify("prop", net, spec(tmp_path, BOX + text))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_other_bad_input(tmp_path: Path, net: str, verify: Run) -> None:
    """Files that are not there, a folder that is not, options out of range."""
    path = spec(tmp_path, BOX + "(assert (<= Y_1 0.49))")
    for arguments, said in (
        ((net, tmp_path / "none.vnnlib"), "there is no file"),
        ((tmp_path / "none.onnx", path), "there is no file"),
        ((net, path, "--timeout", "0"), "--timeout is 0"),
        ((net, path, "--out", tmp_path / "no" / "file"), "lies in no folder"),
    ):
        done = verify("prop", *arguments)
        assert (done.code, done.out) == (2, "")
        assert said in done.err


def test_ctrl_c_says_what_is_known(
    tmp_path: Path,
    net: str,
    verify: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 130, and the record says that it was interrupted."""
    found = Decision(Verdict.UNKNOWN, "", reason="interrupted", bound=-1.0, interrupted=True)
    monkeypatch.setattr(proving, "prove_property", lambda *a, **k: found)
    path = spec(tmp_path, BOX + "(assert (<= Y_1 0.49))")
    done = verify("prop", net, path, "--json", "-")
    assert done.code == 130
    assert done.record["summary"]["interrupted"] is True


def test_a_list_is_decided_line_by_line_and_stored(
    tmp_path: Path, net: str, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """unsat, sat and a file that is no property; the second time nothing is decided again."""
    (tmp_path / "a.vnnlib").write_text(BOX + "(assert (<= Y_1 0.49))")
    (tmp_path / "b.vnnlib").write_text(BOX + "(assert (>= Y_0 0.9))")
    (tmp_path / "c.vnnlib").write_text("(assert")
    table = tmp_path / "instances.csv"
    table.write_text("".join(f"model.onnx,{name}.vnnlib,20\n" for name in "abc"))
    options = ("prop", "--list", table, "--run", "p", "--runs", tmp_path / "runs", "--json", "-")
    first = verify(*options)
    assert first.code == 1
    assert [row["answer"] for row in first.record["results"]] == ["unsat", "sat", "error"]
    assert "c.vnnlib" in first.record["results"][2]["reason"]
    monkeypatch.setattr("verify.cli.listing.prove_property", None)
    assert verify(*options).record["results"] == first.record["results"]


@pytest.mark.parametrize(
    ("text", "line"),
    [("", "has no lines"), ("a,b,c,d\n", "4 columns"), ("x.onnx,y.vnnlib\n", "cannot be read")],
)
def test_a_list_that_cannot_be_used_is_one_line(
    tmp_path: Path, verify: Run, text: str, line: str
) -> None:
    """Before any work."""
    (tmp_path / "l.csv").write_text(text)
    done = verify("prop", "--list", tmp_path / "l.csv")
    assert done.code == 2
    assert line in done.err
