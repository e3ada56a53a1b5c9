"""Worker processes on this machine, behind `concurrent.futures`.

Each is an executor of its own. `ProcessPoolExecutor` gives up all its workers when one dies; this
way a death takes one task with it, and it is known which.

On Linux they are forked from a process that has imported what they need, and which can be asked for
(`get_ready`) as soon as it is known that there will be workers: it imports while this process does.
Nothing else runs in that process, so it can be forked; this one, which may have threads, cannot.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as LateError  # its own class before Python 3.11
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress

from verify.errors import RunError
from verify.runs import worker
from verify.runs.answers import Answer
from verify.runs.engine import Positions, WorkerDied

START_SECONDS = 120.0
"""For a new process to say that it is there: it has to import torch."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_method() -> str:
    """How processes are made: by a fork server, or anew where system libraries mind a fork."""
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if sys.platform == "linux" and "forkserver" in known else "spawn"


def get_ready(workers: int, modules: Sequence[str]) -> None:
    """Start what workers will be forked from, without waiting for it.

    Args:
        workers: how many there will be.
        modules: imported there; none may leave a thread behind.
    """
    if start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(list(modules))
        with environment(max(1, cores() // workers)), deaf():
            forkserver.ensure_running()


class Hand:
    """One worker process."""

    def __init__(self, payload: bytes, threads: int) -> None:
        """Start it, without waiting until it is there."""
        self.pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context(start_method()),
            initializer=worker.begin,
            initargs=(payload, threads),
        )
        with environment(threads):
            self.here = self.pool.submit(worker.hello)
        self.task: Future[list[Answer]] | None = None

    def wait(self) -> None:
        """Until it is there.

        Raises:
            RunError: if it does not come.
        """
        try:
            self.pid = self.here.result(START_SECONDS)
        except (BrokenProcessPool, LateError) as error:
            self.stop()
            raise RunError(
                f"a worker process does not start ({type(error).__name__}); free some memory, or "
                "give fewer --workers"
            ) from error

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.here.done() and self.here.exception() is None:
            with suppress(OSError):
                os.kill(self.here.result(), signal.SIGTERM)
        self.pool.shutdown(wait=False, cancel_futures=True)


class Processes:
    """So many worker processes; a `verify.runs.engine.Crew`."""

    beside = True

    def __init__(self, payload: bytes, workers: int) -> None:
        """Start them all.

        Args:
            payload: the pickled work, sent to each once.
            workers: how many; the cores are shared out among them.

        Raises:
            RunError: if one does not start.
        """
        self.payload, self.threads = payload, max(1, cores() // workers)
        self.hands = [Hand(payload, self.threads) for _ in range(workers)]
        try:
            for hand in self.hands:
                hand.wait()
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """One task each."""
        return len(self.hands)

    def submit(self, positions: Positions) -> Future[list[Answer]]:
        """To one that has nothing to do."""
        place = next(i for i, hand in enumerate(self.hands) if hand.task is None)
        try:
            future = self.hands[place].pool.submit(worker.solve, positions)
        except BrokenProcessPool:  # it died while it had nothing to do
            self.replace(place)
            future = self.hands[place].pool.submit(worker.solve, positions)
        self.hands[place].task = future
        return future

    def take(self, future: Future[list[Answer]]) -> list[Answer]:
        """What it gave; a worker that died is replaced."""
        place = next(i for i, hand in enumerate(self.hands) if hand.task is future)
        self.hands[place].task = None
        try:
            return future.result()
        except BrokenProcessPool as error:
            self.replace(place)
            raise WorkerDied from error

    def replace(self, place: int) -> None:
        """Put a new process where one died."""
        self.hands[place].stop()
        self.hands[place] = Hand(self.payload, self.threads)

    def close(self) -> None:
        """End them all at once: what they still do is not wanted."""
        for hand in self.hands:
            hand.stop()


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started meanwhile do not hear Ctrl-C, even while they begin: it is for this one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say so
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """What processes started meanwhile see of it: libraries read these when they are loaded."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
