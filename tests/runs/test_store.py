"""The store: what was added is there whatever happens, and nothing else is taken for it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verify.errors import RunError
from verify.runs import Answer, Blob, Head, Instance, Store, open_run, read_run, run_path
from verify.runs import store as store_module

ROOT = Path(__file__).resolve().parents[2]


def head_of(**settings: object) -> Head:
    return Head("certify", {"eps": 0.1, **settings}, "m.onnx", "ab" * 32, "0.1.0", input_shape=(2,))


def instances_of(count: int, first: int = 0) -> list[Instance]:
    return [Instance(i, i % 3, 0.1, bytes([i % 256]) * 8) for i in range(first, first + count)]


def answer(position: int, verdict: str = "verified") -> Answer:
    record = {"index": position, "verdict": verdict, "margin": 0.1 + position, "reason": "é <b>"}
    return Answer(position, record, {"witness": Blob(b"\0\1\2\3" * 2, "<f4", (2,))})


def opened(folder: Path, name: str = "a", count: int = 5, **settings: object) -> Store:
    return open_run(folder, name, head_of(**settings), instances_of(count), "a test")[0]


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    """Records, bytes, inputs, head and who worked, by another connection."""
    store = opened(tmp_path)
    store.add([answer(1), answer(3, "unknown")])
    store.attach(1, "certificate", Blob(b"proof"))
    store.close("done")
    found = read_run(tmp_path, "a")
    assert found.head == Head(**{**vars_of(head_of()), "argv": (), "folder": ""})
    assert [a.record for a in found.answers()] == [answer(1).record, answer(3, "unknown").record]
    assert found.blobs(1) == {**answer(1).blobs, "certificate": Blob(b"proof")}
    assert found.input(2) == Blob(b"\2" * 8, "<f4", (2,))
    assert (found.count(), found.done()) == (5, {1, 3})
    assert found.verdicts() == {"verified": 1, "unknown": 1}
    assert [s.outcome for s in found.stretches()] == ["done"]
    found.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.lock", "a.sqlite"]


def vars_of(head: Head) -> dict:
    return {name: getattr(head, name) for name in Head.__dataclass_fields__}


def test_the_same_run_is_found_and_another_is_refused(tmp_path: Path) -> None:
    """Identity: model, command, settings, version, instances; not who works, nor where data lie."""
    store = opened(tmp_path, data="here", threads=1)
    store.add([answer(0)])
    store.close()
    again = opened(tmp_path, data="there", threads=8)
    assert again.done() == {0}
    again.close()
    with pytest.raises(RunError, match=r"differs in method \(None, now crown\)"):
        opened(tmp_path, method="crown")
    with pytest.raises(RunError, match="differs in the inputs"):
        opened(tmp_path, count=6)
    for change in ({"model_sha256": "cd"}, {"version": "9"}, {"command": "radius"}):
        other = Head(**{**vars_of(head_of()), **change})
        assert other.base != head_of().base
        with pytest.raises(RunError, match="is another run"):
            open_run(tmp_path, "a", other, instances_of(5), "")


@pytest.mark.parametrize("change", [{"index": 9}, {"label": 2}, {"eps": 0.2}, {"content": b"x"}])
def test_an_instance_is_all_that_decides_it(change: dict) -> None:
    """Any difference is another key."""
    plain = {"index": 0, "label": 1, "eps": 0.1, "content": b"y"}
    base = head_of().base
    assert Instance(**plain).key(base) != Instance(**{**plain, **change}).key(base)


def test_results_of_the_same_instances_are_taken_over(tmp_path: Path) -> None:
    """Another name, more inputs, the same settings: what is known is not done again."""
    first = opened(tmp_path, "a", 5)
    first.add([answer(p) for p in (1, 4)])
    first.close()
    more = instances_of(3, first=4)  # only index 4 is shared, at another position
    second, notes = open_run(tmp_path, "b", head_of(), more, "")
    assert "1 results are those of run a, not done again" in notes
    (taken,) = second.answers(blobs=True)
    assert (taken.position, taken.record) == (0, answer(4).record)
    assert taken.blobs == answer(4).blobs
    second.close()
    other, _ = open_run(tmp_path, "c", head_of(method="crown"), more, "")
    assert other.done() == set()
    other.close()


def test_a_killed_process_loses_nothing_that_was_added(tmp_path: Path) -> None:
    """kill -9 in the middle of adding: every result that was reported as added is there."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.runs.test_store import opened, answer
store = opened(Path({str(tmp_path)!r}), count=20_000)
for p in range(20_000):
    store.add([answer(p)])
    print(p, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        last = [*lines, *child.stdout.readlines()][-1]
    store = opened(tmp_path, count=20_000)
    done = store.done()
    assert done >= set(range(int(last) + 1))
    assert len(done) <= int(last) + 2
    assert all(found.record["margin"] == 0.1 + found.position for found in store.answers())
    assert store.stretches()[0].ended is None
    store.close()


def test_a_second_writer_is_refused_in_one_line_and_readers_are_not(tmp_path: Path) -> None:
    """The line names the process; when it has ended the run can be had."""
    store = opened(tmp_path)
    with pytest.raises(RunError, match=f"run a is being written by process {os.getpid()} on"):
        opened(tmp_path)
    store.add([answer(0)])
    reader = read_run(tmp_path, "a")
    assert reader.done() == {0}
    store.add([answer(1)])
    assert reader.done() == {0, 1}
    reader.close()
    store.close()
    opened(tmp_path).close()


def test_a_full_disk_is_one_line_and_keeps_what_was_stored(tmp_path: Path) -> None:
    """SQLite says so of a file that may not grow; more room, and it goes on."""
    store = opened(tmp_path, count=5000)
    store.add([answer(0)])
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(RunError, match="the disk is full"):
        store.add([answer(p) for p in range(1, 5000)])
    assert store.done() == {0}
    store.close("full")
    again = opened(tmp_path, count=5000)
    again.add([answer(p) for p in range(1, 5000)])
    assert len(again.done()) == 5000
    again.close()


def test_a_file_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    """The operating system's own limit (RLIMIT_FSIZE), as a quota would be."""
    code = f"""
import sys, signal, resource; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.runs.test_store import opened, answer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = opened(Path({str(tmp_path)!r}), count=2000)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
try:
    for p in range(2000):
        store.add([answer(p)])
except Exception as error:
    print(p, type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added, kind, line = done.stdout.split(" ", 2)
    assert kind == "RunError", done
    assert "disk" in line
    store = opened(tmp_path, count=2000)
    assert store.done() == set(range(int(added)))
    store.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be; a folder that refuses files; for all users, root too."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made: .*name another with --runs"):
        opened(tmp_path / "file" / "runs")
    with pytest.raises(RunError, match="cannot be opened or written|cannot be made"):
        opened(Path("/proc"))


def everything(folder: Path) -> list[tuple]:
    found = read_run(folder, "a")
    try:
        rows = [(a.position, a.record, a.blobs) for a in found.answers(blobs=True)]
        inputs = [(p, found.input(p), "") for p in range(50)]
        return [*rows, *inputs, (-1, found.conclusion(), "")]
    finally:
        found.close()


def damage(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + 16] = b"\xff" * 16
    path.write_bytes(data)


def test_a_damaged_file_is_one_line_and_stays_as_it_is(tmp_path: Path) -> None:
    """Wherever it is hit, it is either refused or gives exactly what was written."""
    store = opened(tmp_path, count=50)
    store.add([answer(p) for p in range(50)])
    store.conclude({"summary": {"accuracy": 0.5}, "results": [{"index": 0}] * 40})
    store.close()
    path = run_path(tmp_path, "a")
    whole, wanted = path.read_bytes(), everything(tmp_path)
    lines = set()
    for place in range(0, len(whole) - 16, 509):
        path.write_bytes(whole)
        damage(path, place)
        hurt = path.read_bytes()
        try:
            found = everything(tmp_path)
        except RunError as error:
            lines.add(str(error))
        else:
            assert found == wanted
        assert path.read_bytes() == hurt
    assert len(lines) > 3
    assert all(str(path) in line for line in lines)


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\0" * 84])
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, content: bytes) -> None:
    """Anything of that name, for readers and writers; it is not overwritten."""
    path = run_path(tmp_path, "a")
    path.write_bytes(content)
    with pytest.raises(RunError):
        opened(tmp_path)
    with pytest.raises(RunError):
        read_run(tmp_path, "a")
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    """It has tables, but not ours."""
    with sqlite3.connect(run_path(tmp_path, "a")) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(RunError, match="is not a run of this tool"):
        opened(tmp_path)


def test_a_truncated_run_is_refused(tmp_path: Path) -> None:
    """Half a copy."""
    store = opened(tmp_path, count=200)
    store.add([answer(p) for p in range(200)])
    store.close()
    path = run_path(tmp_path, "a")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RunError, match="damaged"):
        opened(tmp_path, count=200)


def test_a_clock_that_jumps_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times of day are for people; durations come from a clock that does not jump."""
    days = iter(["2030-01-01T00:00:00+00:00"] * 2 + ["1999-01-01T00:00:00+00:00"] * 50)
    monkeypatch.setattr(store_module, "utc", lambda: next(days))
    store = opened(tmp_path)
    time.sleep(0.02)
    store.add([answer(0)])
    store.close("done")
    store = opened(tmp_path)
    store.add([answer(1)])
    store.close("done")
    found = read_run(tmp_path, "a")
    first, second = found.stretches()
    assert first.started.startswith("2030")
    assert second.started.startswith("1999")
    assert first.seconds >= 0.02
    assert second.seconds >= 0
    assert found.done() == {0, 1}
    found.close()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "x" * 101])
def test_a_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    """It never leaves the folder."""
    with pytest.raises(RunError, match="is no name for a run"):
        run_path(tmp_path, name)
