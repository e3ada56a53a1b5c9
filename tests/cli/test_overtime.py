"""A process says "timeout" where a step outlasts the deadline; an answer is not cut short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from verify.cli.overtime import Overtime

HANG = """
import sys, time
from verify.cli import overtime, proving
overtime.GRACE, overtime.GRACE_SHARE = 0.2, 0.0
{hang}
from verify.cli.process import run
run()
"""
SEARCHING = "proving.prove_property = lambda *a, **k: time.sleep(600)"
READING = "proving.load = lambda *a, **k: time.sleep(600)"
EXAMPLE = Path(__file__).parents[2] / "examples"


def spec_of(folder: Path) -> Path:
    """A property of the example's 64 inputs and 10 outputs."""
    names = [*(f"X_{i}" for i in range(64)), *(f"Y_{i}" for i in range(10))]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(64)]
    path = folder / "p.vnnlib"
    path.write_text("\n".join([*lines, "(assert (>= Y_0 1000))"]))
    return path


@pytest.mark.parametrize("hang", [SEARCHING, READING])
def test_a_step_that_hangs_ends_with_timeout(hang: str, tmp_path: Path) -> None:
    """The answer, the file, the record (where the network was read) and the exit code."""
    words = ["prop", str(EXAMPLE / "digits_dense.onnx"), str(spec_of(tmp_path)), "--timeout", "1"]
    files = ["--out", str(tmp_path / "r.txt"), "--json", str(tmp_path / "r.json")]
    ended = subprocess.run(
        [sys.executable, "-c", HANG.format(hang=hang), *words, *files],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 3
    assert ended.stdout == "timeout\n"
    assert (tmp_path / "r.txt").read_text() == "timeout\n"
    assert "one step outlasted the timeout" in ended.stderr
    assert "Traceback" not in ended.stderr
    if hang == SEARCHING:
        record = json.loads((tmp_path / "r.json").read_text())
        assert record["results"][0]["answer"] == "timeout"


def test_an_answer_is_not_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is being given, the clock does nothing; else it ends the process with 3."""
    ended: list[int] = []
    said: list[str] = []
    monkeypatch.setattr("os._exit", ended.append)
    answered = Overtime(None, lambda: said.append("late"))
    answered.answer()
    answered.end()
    assert (ended, said) == ([], [])
    Overtime(None, lambda: said.append("late")).end()
    assert (ended, said) == ([3], ["late"])


def test_a_library_s_process_is_never_ended() -> None:
    """Only a command's own process has a clock."""
    assert Overtime(0.001, lambda: None).timer is None
