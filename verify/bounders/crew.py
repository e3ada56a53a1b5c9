"""Crew: threads that share the parts of a batch, each computing alone.

Many small products gain little from threads inside each of them; two halves of a batch side by side
keep two cores busy. What comes back is in the order of the parts, so results do not depend on which
thread was faster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Found = TypeVar("Found")

LEAST_PART = 4
"""Entries of a batch below which it is not divided further."""


def available() -> int:
    """Threads that torch was given, and no more than the processors that we may run on."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(torch.get_num_threads(), usable or 1))


class Crew:
    """A pool of threads, or none: with one worker everything runs where it is called.

    Attributes:
        workers: how many parts are worked on at once.
    """

    def __init__(self, workers: int = 1) -> None:
        """Threads start when the crew is entered."""
        self.workers = workers
        self.threads = torch.get_num_threads()
        self.pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Crew:
        """Start the threads; each of them, and this one, computes with a single thread."""
        if self.workers > 1:
            self.threads = torch.get_num_threads()
            torch.set_num_threads(1)
            self.pool = ThreadPoolExecutor(
                self.workers, initializer=torch.set_num_threads, initargs=(1,)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is under way, and give torch its threads back."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            self.pool = None
            torch.set_num_threads(self.threads)

    def each(self, work: Callable[[Part], Found], parts: Iterable[Part]) -> list[Found]:
        """The results of all parts, in order; the first error is raised."""
        several: Sequence[Part] = list(parts)
        if self.pool is None or len(several) < 2:
            return [work(part) for part in several]
        return list(self.pool.map(work, several))

    def shares(self, rows: Tensor) -> list[Tensor]:
        """Rows divided among the workers, unless they are few."""
        count = min(self.workers, max(1, len(rows) // LEAST_PART))
        return list(rows.chunk(count)) if len(rows) else []


ALONE = Crew()
"""One worker, no threads."""
