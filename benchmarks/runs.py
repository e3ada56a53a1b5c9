"""Whole test sets: what storing and workers cost, beside the bare bounder on the same inputs.

    python -m benchmarks.runs --count 10000 --repeats 3

The inputs are the embedded digits, repeated with noise. CPU seconds are the figures to trust on a
machine that others use; wall-clock seconds stand beside them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pickle
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from verify.api import asked_of, certify_each
from verify.network import load
from verify.readers.examples import example_path
from verify.runs import Answer, Head, Instance, answered, open_run, read_run, tasks_of
from verify.runs.engine import Solver
from verify.runs.processes import Processes

NOISE = 0.02
"""Half width of the uniform noise on pixels between 0 and 1."""


@dataclass(frozen=True)
class Spent:
    """CPU seconds of a process and its children, and seconds of wall clock."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:8.2f} s CPU {self.wall:8.2f} s wall"


def inputs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """So many digits: the held-out ones in turn, each with noise of its own."""
    digits = np.load(example_path("digits.npz"))
    x, y = digits["x"].astype(np.float32), digits["y"]
    x = x / max(1.0, float(x.max()))
    rows = np.arange(count) % len(x)
    noise = np.random.default_rng(seed).uniform(-NOISE, NOISE, (count, *x.shape[1:]))
    return np.clip(x[rows] + noise, 0, 1).astype(np.float32), y[rows]


def measured(work: Callable[[], object]) -> Spent:
    """Work in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


PR_SET_CHILD_SUBREAPER = 36
"""Of prctl(2): processes whose parents are gone become ours, and their seconds ours to count."""


def children() -> set[int]:
    """Processes whose parent is this one."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in text.split()}


def command(*arguments: object, pinned: bool = False) -> Spent:
    """The command line in a process of its own, on one core if pinned; with all its workers."""
    own = children()
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        words(arguments),
        check=False,
        stdout=subprocess.DEVNULL,
        preexec_fn=(lambda: os.sched_setaffinity(0, {0})) if pinned else None,
    )
    wall = time.perf_counter() - wall
    while left := children() - own:
        os.waitpid(left.pop(), 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(cpu, wall)


ONE = ("--workers", 1)


def words(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "verify", *map(str, arguments)]


def middle(times: Sequence[Spent]) -> Spent:
    """Median of each clock."""
    cpu, wall = ([getattr(t, name) for t in times] for name in ("cpu", "wall"))
    return Spent(statistics.median(cpu), statistics.median(wall))


def bare(model: str, x: np.ndarray, y: np.ndarray, eps: float) -> Spent:
    """Only the bounder: no attack, no command line, no store."""
    network = load(model)
    shaped = torch.from_numpy(x).reshape(len(x), *network.input_shape)
    asked = asked_of(network, shaped, torch.from_numpy(y).long(), eps, float("inf"), (0.0, 1.0))
    next(certify_each(network, asked))
    return measured(lambda: list(certify_each(network, asked)))


def storing(folder: Path, source: str) -> Spent:
    """Writing what a run holds once more, in the portions in which it came."""
    store = read_run(folder, source)
    answers = list(store.answers(blobs=True))
    head, kept = store.head, [store.input(p) for p in range(store.count())]
    store.close()
    instances = [
        Instance(i, 0, 0.1, b"" if blob is None else blob.data) for i, blob in enumerate(kept)
    ]
    other = Head("copy", head.settings, None, None, head.version, input_shape=head.input_shape)

    def write() -> None:
        copy, _ = open_run(folder / "copy", f"copy{time.monotonic_ns()}", other, instances, "")
        for start in range(0, len(answers), 64):
            copy.add(answers[start : start + 64])
        copy.close("done")

    return measured(write)


@dataclass(frozen=True)
class Sleeping:
    """Work that needs no processor: what a machine that others use cannot disturb.

    Attributes:
        seconds: of each instance.
    """

    seconds: float

    def open(self) -> Solver:
        return self.solve

    def solve(self, positions: Sequence[int]) -> list[Answer]:
        time.sleep(self.seconds * len(positions))
        return [Answer(p, {"index": p}) for p in positions]


def sleeping(workers: int, tasks: int) -> Spent:
    """So many tasks of 64 instances, as long as they take on digits_dense.onnx, once all are there.

    What is left is the engine's own: handing out, and waiting for the next task.
    """
    crew = Processes(pickle.dumps(Sleeping(0.0006)), workers)
    return measured(lambda: list(answered(crew, tasks_of(tasks * 64, 64))))


def killed(folder: Path, arguments: Sequence[object], seconds: float) -> dict[str, int]:
    """kill -9 after some seconds, then the same command again: what was there, what came."""
    with subprocess.Popen(
        words([*arguments, "--run", "killed"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
    store = read_run(folder, "killed")
    before = len(store.done())
    store.close()
    command(*arguments, "--run", "killed", "--json", folder / "killed.json")
    record = json.loads((folder / "killed.json").read_text())
    summary = record["summary"]
    return {"before": before, "kept": summary["stored_before"], "count": summary["count"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--eps", type=float, default=0.03)
    parser.add_argument("--model", default=str(example_path("digits_dense.onnx")))
    parser.add_argument("--parts", default="bare,store,workers,engine,kill")
    parser.add_argument("--with-attack", action="store_true", help="As the command does.")
    options = parser.parse_args()
    print(json.dumps(describe(torch.get_num_threads())))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    x, y = inputs(options.count)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.savez(folder / "digits.npz", x=x, y=y)
        os.environ["TASHIKA_RUNS"] = place
        attack = () if options.with_attack else ("--attack", "none")
        what = ("certify", options.model, "--data", folder / "digits.npz", "--eps", options.eps)
        arguments = (*what, *attack, "-q")
        parts = options.parts.split(",")
        start = middle([command(*arguments, "--limit", 1) for _ in range(options.repeats)])
        print(f"start of the command, one input         {start}")
        if "bare" in parts:
            times = [bare(options.model, x, y, options.eps) for _ in range(options.repeats)]
            print(f"bare bounder                            {middle(times)}")
        if "store" in parts:
            plain, stored = [], []
            for i in range(options.repeats):
                plain.append(command(*arguments))
                stored.append(command(*arguments, "--run", f"stored{i}", "--runs", folder / str(i)))
            print(f"command                                 {middle(plain)}")
            print(f"command --run                           {middle(stored)}")
            again = command(*arguments, "--run", "stored0", "--runs", folder / "0")
            print(f"command --run, all there                {again}")
            print(f"only storing                            {storing(folder / '0', 'stored0')}")
        if "workers" in parts:
            kinds: dict[str, list[Spent]] = {"one worker, one core": [], "one worker": []}
            kinds["two workers"] = []
            for _ in range(options.repeats):
                kinds["one worker, one core"].append(command(*arguments, *ONE, pinned=True))
                kinds["one worker"].append(command(*arguments, *ONE))
                kinds["two workers"].append(command(*arguments, "--workers", 2))
            two = middle(kinds["two workers"])
            for kind, times in kinds.items():
                one = middle(times)
                faster = "" if kind == "two workers" else f", two are {one.wall / two.wall:.2f}x"
                print(f"{kind:40}{one}{faster}")
        if "engine" in parts:
            for workers in (1, 2):
                times = [sleeping(workers, 157) for _ in range(options.repeats)]
                print(f"engine, {workers} workers that sleep           {middle(times)}")
        if "kill" in parts:
            found = killed(folder, arguments, start.wall + 4)
            print(f"kill -9 and the same again              {found}")


if __name__ == "__main__":
    main()
