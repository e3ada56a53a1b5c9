"""What a machine does to runs: folders that may not be written, full disks, other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs.test_store import ROOT, answer, opened
from verify.errors import RunError
from verify.runs import read_run

READ_ONLY = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.runs.test_store import opened
from verify.errors import RunError
from verify.runs import read_run
folder = Path({folder!r})
if os.geteuid() == 0:  # root may write everywhere: become nobody, who may not
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
found = read_run(folder, "a")
print(found.count(), sorted(found.done()))
found.close()
for name in ("a", "new"):
    try:
        opened(folder, name)
    except RunError as error:
        print(error)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users may enter; pytest's own are for this user only."""
    with tempfile.TemporaryDirectory(prefix="tashika-test-") as place:
        path = Path(place)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def content(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((path.name, path.read_bytes()) for path in folder.iterdir())


def test_a_run_in_a_read_only_folder_can_be_read(folder: Path) -> None:
    """And not be written, nor another one made there: by a user who may not, so for root too."""
    store = opened(folder)
    store.add([answer(2)])
    store.close()
    before = content(folder)
    folder.chmod(0o555)
    code = READ_ONLY.format(root=str(ROOT), folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[:1] == ["5 [2]"], done
    assert len(lines) == 3
    assert all("cannot be opened or written" in line and "--runs" in line for line in lines[1:])
    assert content(folder) == before


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, which only root may put there."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted; the limits in test_store stand for it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    """What was added is there; when there is room again it goes on."""
    store, added = opened(small_disk, count=3000), 0

    def add_all() -> None:
        nonlocal added
        for position in range(3000):
            store.add([answer(position)])
            added += 1

    with pytest.raises(RunError, match="disk is full|disk may be full"):
        add_all()
    assert store.done() == set(range(added))
    store.close("full")
    assert 0 < added < 3000
    found = read_run(small_disk, "a")
    assert found.done() == set(range(added))
    found.close()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = opened(small_disk, count=3000)
    assert again.done() == set(range(added))
    again.add([answer(position) for position in range(added, 3000)])
    again.close("done")
    found = read_run(small_disk, "a")
    assert len(found.done()) == 3000
    found.close()


def test_another_process_on_the_same_run(folder: Path) -> None:
    """It is named in the refusal; while it works one may read; killed, it leaves the run to us."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.runs.test_store import opened, answer
store = opened(Path({str(folder)!r}))
store.add([answer(0)])
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RunError, match=f"is being written by process {other.pid} on"):
            opened(folder)
        reader = read_run(folder, "a")
        assert reader.done() == {0}
        reader.close()
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    ours = opened(folder)
    assert ours.done() == {0}
    ours.add([answer(1)])
    ours.close("done")
