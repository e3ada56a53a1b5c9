"""A real dask scheduler with real worker processes; skipped where dask is absent."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs.test_engine import squares
from tests.runs.toys import Squares
from verify.errors import RunError
from verify.runs import Lost, answered, tasks_of
from verify.runs.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 3


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with some workers."""
    pytest.importorskip("distributed")
    place = tmp_path_factory.mktemp("dask") / "scheduler.json"
    common = ("--scheduler-file", str(place), "--no-dashboard")
    address = ("--host", "127.0.0.1", "--port", "0")
    running = [start("distributed.cli.dask_scheduler", *common, *address)]
    try:
        running += [
            start("distributed.cli.dask_worker", *common, "--nthreads", "1", "--no-nanny")
            for _ in range(WORKERS)
        ]
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield json.loads(place.read_text())["address"]
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dask's own
def test_a_cluster_answers_everything_though_a_worker_is_killed(
    tmp_path: Path, scheduler: str
) -> None:
    """Each worker gets the work once; one is killed in the middle; nothing is lost or twice."""
    slow = tuple((p, 0.05) for p in range(1, 120))
    work = Squares(str(tmp_path / "log"), slow, last=110, weight=bytes(10**6))
    crew = Cluster(scheduler, pickle.dumps(work))
    crew.client.wait_for_workers(WORKERS, timeout=60)
    found, killed = [], 0
    for part in answered(crew, tasks_of(120, 2)):
        found.append(part)
        if len(found) == 20:
            killed = int(work.lines()[-1][0])
            os.kill(killed, signal.SIGKILL)
    assert squares(found) == {p: p * p for p in range(120)}
    assert not any(isinstance(part, Lost) for part in found)
    lines = work.lines()
    processes = {pid for pid, what in lines if what.isdigit()}
    assert len(processes) == WORKERS
    assert str(killed) in processes
    opened = [pid for pid, what in lines if what == "opened"]
    assert sorted(opened) == sorted(set(opened))


@pytest.mark.slow
def test_certify_on_a_cluster_gives_the_same_verdicts(tmp_path: Path, scheduler: str) -> None:
    """The command itself, from another process, against this process alone."""
    common = ("certify", "examples/digits_dense.onnx", "--eps", "0.03", "--limit", "200")
    records = []
    for extra in (("--scheduler", scheduler, "--run", "far"), ()):
        done = subprocess.run(
            [sys.executable, "-m", "verify", *common, "--json", "-", *extra],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TASHIKA_RUNS": str(tmp_path)},
        )
        assert done.returncode == 1, done.stderr
        records.append(json.loads(done.stdout))
    far, near = records
    assert far["summary"]["without_result"] == []
    for name in ("index", "verdict", "label", "predicted", "method"):
        assert [r[name] for r in far["results"]] == [r[name] for r in near["results"]]


def test_no_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there; where dask is not installed, the line says that."""
    from verify.runs import cluster

    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with pytest.raises(RunError, match="no scheduler answers at|dask, which is not installed"):
        Cluster("tcp://127.0.0.1:9", b"")
