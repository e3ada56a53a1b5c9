"""`--run` and `verify runs`: stored, resumed, exported, compared; whatever happens in between."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import CONV, DENSE, Run, write_identity
from verify.cli import transforming, working
from verify.report import read_json
from verify.runs import read_run, run_path
from verify.runs.database import connect
from verify.runs.store import checksum

ROOT = Path(__file__).resolve().parents[2]
CERTIFY = ("certify", DENSE, "--eps", "0.03", "--limit", 12, "--batch", 4)


@pytest.fixture(autouse=True)
def runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test stores runs in the project."""
    monkeypatch.setenv("TASHIKA_RUNS", str(tmp_path / "runs"))


def same(one: dict, other: dict) -> None:
    """Results that are equal but for the time they took."""
    for a, b in zip(one["results"], other["results"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


@pytest.mark.parametrize(
    "command",
    [
        CERTIFY,
        ("radius", DENSE, "--limit", 3, "--attack", "deepfool", "--batch", 2),
        ("attack", DENSE, "--eps", "0.1", "--limit", 8),
        ("geometric", CONV, "--transform", "rotation(-9,9)", "--limit", 2, "--most-boxes", 40),
        ("geometric", CONV, "--flow", "0.1", "--limit", 1),
        ("compare", DENSE, "--limit", 2, "--attack", "deepfool", "--norm", "2"),
    ],
)
def test_a_stored_run_gives_the_same_record_and_then_does_nothing(
    command: tuple, tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain, stored, and found again: one record; the third time nobody works."""
    plain = verify(*command, "--json", "-")
    stored = verify(*command, "--json", "-", "--run", "a")
    assert stored.code == plain.code
    same(stored.record, plain.record)
    assert stored.record["settings"] == plain.record["settings"]

    def solve(*_: object) -> None:
        raise AssertionError("done twice")

    works = (working.CertifyWork, working.RadiusWork, working.AttackWork)
    for kind in (*works, transforming.GeometricWork):
        monkeypatch.setattr(kind, "results", solve)
    again = verify(*command, "--json", "-", "--run", "a")
    assert (again.code, again.record["results"]) == (stored.code, stored.record["results"])
    assert again.record["summary"]["stored_before"] == len(again.record["results"])
    verify("runs", "export", "a", "--json", tmp_path / "a.json")
    found = read_json(tmp_path / "a.json")
    assert [dict(row) for row in found.results] == stored.record["results"]
    assert (found.command, found.summary["missing"]) == (command[0], 0)


def test_witnesses_are_stored_with_their_results(tmp_path: Path, verify: Run) -> None:
    """--save of a run that is found writes what the run had found, the inputs are kept too."""
    path = write_identity(tmp_path, [[0.8, 0.2], [0.6, 0.5]], [0, 0])
    options = ("attack", path, "--eps", "0.1", "--run", "w", "--save")
    verify(*options, tmp_path / "one.npz")
    verify(*options, tmp_path / "two.npz")
    one, two = np.load(tmp_path / "one.npz"), np.load(tmp_path / "two.npz")
    assert len(one["x"]) == 1
    assert all(np.array_equal(one[name], two[name]) for name in one)
    store = read_run(tmp_path / "runs", "w")
    blob, kept = store.blobs(1)["witness"], store.input(1)
    store.close()
    assert kept is not None
    assert np.array_equal(np.frombuffer(blob.data, blob.dtype), one["x"][0])
    assert np.array_equal(np.frombuffer(kept.data, kept.dtype), one["original"][0])


def test_ctrl_c_and_resume(tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came is stored; `resume` does the rest only, from another folder too."""
    everything, batches = working.certify_each, []

    def cut_short(*arguments: object, **settings: object) -> object:
        if len(batches) == 1:
            raise KeyboardInterrupt
        batches.append(settings["indices"])
        return everything(*arguments, **settings)

    monkeypatch.setattr(working, "certify_each", cut_short)
    done = verify(*CERTIFY, "--json", "-", "--run", "a")
    assert done.code == 130
    assert len(done.record["results"]) == 4
    shown = verify("runs", "show", "a")
    assert shown.code == 3
    assert "results:  4 of 12" in shown.out
    assert "interrupted" in shown.out
    rest: list = []
    monkeypatch.setattr(
        working, "certify_each", lambda *a, **s: (rest.append(s["indices"]), everything(*a, **s))[1]
    )
    monkeypatch.chdir(tmp_path)
    resumed = verify("runs", "resume", "a")
    assert Path.cwd() == tmp_path
    assert rest == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert resumed.record["summary"]["count"] == 12
    same(resumed.record, verify(*CERTIFY, "--json", "-").record)
    assert verify("runs", "show", "a").code == 0


def test_killed_with_its_workers_at_any_moment_and_resumed(tmp_path: Path, verify: Run) -> None:
    """kill -9: at most the tasks in flight are lost; the workers go too; nothing is repeated.

    Beside it a worker alone is killed: another takes its place and the verdicts are the same.
    """
    command = (
        "certify",
        CONV,
        "--eps",
        "0.03",
        "--limit",
        24,
        "--batch",
        2,
        "--attack",
        "none",
        "--method",
        "crown",
    )
    arguments = [*map(str, command), "--run", "k", "--workers", "2", "--json", tmp_path / "k.json"]
    with subprocess.Popen(
        [sys.executable, "-m", "verify", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        path = run_path(tmp_path / "runs", "k")
        workers = waited(path, 2, child.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        waited(path, len(positions(path)) + 2, child.pid)
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    before = positions(path)
    assert 4 <= len(before) < 24
    done = verify("runs", "resume", "k")
    record = read_json(tmp_path / "k.json").to_dict()
    assert record["summary"]["stored_before"] == len(before)
    assert record["summary"]["count"] == 24
    alone = verify(*command, "--json", "-")
    assert done.code == alone.code
    for one, other in zip(record["results"], alone.record["results"], strict=True):
        assert (one["index"], one["verdict"]) == (other["index"], other["verdict"])


def positions(path: Path) -> set[int]:
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
            found = {row[0] for row in connection.execute("SELECT position FROM results")}
        connection.close()
    except sqlite3.OperationalError:
        return set()
    return found


def waited(path: Path, count: int, pid: int) -> list[int]:
    """Until so many results are stored; the worker processes then."""
    deadline = time.monotonic() + 60
    while len(positions(path)) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    # Workers are forked from a process that main started, or spawned by main itself.
    servers = [p for p in children(pid) if "forkserver" in Path(f"/proc/{p}/cmdline").read_text()]
    spawned = [p for p in children(pid) if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]
    return [*spawned, *(worker for server in servers for worker in children(server))]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_another_run_of_the_same_name_is_refused(verify: Run) -> None:
    """One line, exit code 2, and what to do."""
    verify(*CERTIFY, "--run", "a")
    done = verify("certify", DENSE, "--eps", "0.04", "--limit", 12, "--batch", 4, "--run", "a")
    assert done.code == 2
    assert "run a is another run: it differs in eps (0.03, now 0.04)" in done.err
    assert done.err.count("\n") == 1


def test_results_of_a_smaller_run_are_taken_over(verify: Run) -> None:
    """More inputs under another name: the common ones are not done again."""
    small = verify(*CERTIFY, "--run", "a", "--json", "-")
    large = verify(*CERTIFY, "--limit", 16, "--run", "b", "--json", "-")
    assert large.record["summary"]["stored_before"] == 12
    assert large.record["results"][:12] == small.record["results"]
    assert "12 results are those of run a, not done again" in large.err


def test_list_export_and_compare(tmp_path: Path, verify: Run) -> None:
    """Another method decides the same inputs; nothing contradicts; all forms are written."""
    assert "no runs in" in verify("runs", "list").out
    verify(*CERTIFY, "--run", "a")
    verify("certify", DENSE, "--eps", "0.03", "--limit", 10, "--method", "ibp", "--run", "b")
    listed = verify("runs", "list").out
    assert "12 of 12" in listed
    assert "10 of 10" in listed
    done = verify("runs", "compare", "a", "b", "--json", tmp_path / "c.json")
    assert done.code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert "differs: method (auto, now ibp)" in done.out
    assert (len(found["instances"]), found["only_first"], found["contradictions"]) == (10, 2, [])
    assert sum(entry["count"] for entry in found["verdicts"]) == 10
    verify("runs", "export", "a", "--csv", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 12
    assert verify("runs", "export", "a").code == 2
    assert verify("runs", "show", "zzz").code == 2


def test_a_contradiction_is_found(tmp_path: Path, verify: Run) -> None:
    """A result changed by hand to claim what the other run refutes: exit code 1."""
    path = write_identity(tmp_path, [[0.8, 0.2], [0.6, 0.5]], [0, 0])
    verify("certify", path, "--eps", "0.1", "--run", "a")
    verify("certify", path, "--eps", "0.1", "--method", "ibp", "--run", "b")
    assert verify("runs", "compare", "a", "b").code == 0
    store = read_run(tmp_path / "runs", "a")
    honest = list(store.answers())
    store.close()
    place = run_path(tmp_path / "runs", "a")
    lie = json.dumps({**honest[1].record, "verdict": "verified", "distance": None})
    connection = connect(place, write=True)
    connection.execute(
        "UPDATE results SET record = ?, check_ = ? WHERE position = 1",
        (lie, checksum(1, lie.encode())),
    )
    connection.close()
    done = verify("runs", "compare", "a", "b", "--json", "-")
    assert done.code == 1
    (found,) = done.record["contradictions"]
    assert found["index"] == 1
    assert "proved by the first run up to 0.1, refuted by the other at 0.1" in found["why"]


def test_parquet_holds_rows_and_head(tmp_path: Path, verify: Run) -> None:
    """Where pyarrow is; elsewhere one line says so."""
    verify(*CERTIFY, "--run", "a")
    done = verify("runs", "export", "a", "--parquet", tmp_path / "a.parquet")
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        assert done.code == 2
        assert "pip install 'tashika[parquet]'" in done.err
        return
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 12
    assert json.loads(table.schema.metadata[b"tashika"])["command"] == "certify"
    assert table.column("verdict").to_pylist().count("verified") > 0


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        (("--workers", 0), "--workers is 0"),
        (("--workers", 2, "--scheduler", "tcp://x"), "exclude each other"),
        (("--run", "../x"), "is no name for a run"),
    ],
)
def test_bad_options_are_one_line(extra: tuple, line: str, verify: Run) -> None:
    """Before any work."""
    done = verify("certify", DENSE, "--eps", "0.03", "--limit", 2, *extra)
    assert done.code == 2
    assert line in done.err
