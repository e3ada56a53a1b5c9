"""The harness: reads a category, resumes, notices contradictions, sums up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import vnncomp
from benchmarks.solvers import Attempt, answer_in
from benchmarks.suites.vnncomp_category import listed, sampled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "instances.csv").write_text("a.onnx,p.vnnlib,10\na.onnx,q.vnnlib,20.0\n")
    (tmp_path / "expected.csv").write_text(
        "onnx,vnnlib,timeout,expected\na.onnx,p.vnnlib,10,sat\na.onnx,q.vnnlib,20,unsat\n"
    )
    for name in ("a.onnx.gz", "p.vnnlib", "q.vnnlib"):
        (tmp_path / name).write_text("")
    return tmp_path


class Fake:
    """Says the same of everything, and counts."""

    name = "tashika"

    def __init__(self, answer: str) -> None:
        self.answer, self.calls = answer, 0

    def __call__(self, onnx: Path, vnnlib: Path, timeout: float) -> Attempt:
        self.calls += 1
        assert onnx.is_file()
        return Attempt(self.answer, 1.5, 1.0)


def args(path: Path, *more: str) -> object:
    return vnncomp.parser().parse_args([str(path), *more])


def test_results_are_kept_and_not_run_again(folder: Path) -> None:
    """A second run reads the CSV; a line cut short is run again."""
    fake, path = Fake("sat"), folder / "results.csv"
    vnncomp.run_all(folder, [fake], path, args(folder))
    assert fake.calls == 2
    vnncomp.run_all(folder, [fake], path, args(folder))
    assert fake.calls == 2
    text = path.read_text()
    path.write_text(text[: text.rindex("tashika") + 20])
    rows = vnncomp.run_all(folder, [fake], path, args(folder))
    assert fake.calls == 3
    assert [row.contradicts for row in rows] == [False, True]
    assert len(vnncomp.read_rows(path)) == 2


def test_a_contradiction_fails_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and a line on standard error."""
    monkeypatch.setattr(vnncomp, "Tashika", lambda: Fake("unsat"))
    code = vnncomp.main([str(folder), "--results", str(folder / "r.csv")])
    assert code == 1
    printed = capsys.readouterr()
    assert "CONTRADICTION: tashika says unsat of a.onnx p.vnnlib" in printed.err
    assert "| wrong |" in printed.out


def test_samples_are_seeded_and_keep_their_order(folder: Path) -> None:
    """The same seed takes the same instances."""
    instances = listed(folder) * 10
    assert sampled(instances, 5, 1) == sampled(instances, 5, 1)
    assert [entry.timeout for entry in listed(folder)] == [10.0, 20.0]
    assert [entry.expected for entry in listed(folder)] == ["sat", "unsat"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("sat\n((X_0 1))", "sat"),
        ("Result: unsat", "unsat"),
        ("loading\nholds\n", "unsat"),
        ("timeout", "timeout"),
        ("Traceback", "error"),
    ],
)
def test_answers_of_peers_are_read(text: str, answer: str) -> None:
    """In their own words."""
    assert answer_in(text) == answer
