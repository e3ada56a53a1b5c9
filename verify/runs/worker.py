"""What runs inside a worker process: ready once, then task after task."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from verify.runs.answers import Answer
from verify.runs.engine import Solver, Work

COLLECT_AFTER = 100_000
"""New objects between two collections, as in `verify.cli.process`: graphs are many objects."""


@dataclass(slots=True)
class Desk:
    """A worker's own copy of the work: as it came, and open after the first task.

    Attributes:
        payload: the pickled `Work`.
        threads: that it may use.
        solver: what it opened to.
    """

    payload: bytes = b""
    threads: int = 1
    solver: Solver | None = None

    def solve(self, positions: Sequence[int]) -> list[Answer]:
        """Decide; opens the work first if that has not been done."""
        if self.solver is None:
            work: Work = pickle.loads(self.payload)
            self.solver = work.open()
            self.payload = b""
            limit_threads(self.threads)
        return self.solver(positions)


DESK = Desk()


def begin(payload: bytes, threads: int) -> None:
    """Get a new process ready: called once, before its first task."""
    # Ctrl-C reaches every process of a terminal; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    gc.set_threshold(COLLECT_AFTER, 50, 100)
    DESK.payload, DESK.threads, DESK.solver = payload, threads, None


def limit_threads(threads: int) -> None:
    """Let torch use so many cores, if the work has loaded it."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def end_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def hello() -> int:
    """Say that the process is there, and which it is."""
    return os.getpid()


def solve(positions: Sequence[int]) -> list[Answer]:
    """One task."""
    return DESK.solve(positions)
