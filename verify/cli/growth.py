"""How a search grows: sub-problems, how many a second, and memory, as it is watched."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from verify.search.outcome import Progress

EVERY = 0.2
"""Seconds between two words to the terminal."""
FIRST = 64
"""Sub-problems at the first mark; the next is at twice as many, and so on."""


def peak_memory() -> float:
    """The most memory that this process ever held, in MiB; NaN where nobody counts."""
    try:
        import resource
    except ImportError:
        return float("nan")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


@dataclass(eq=False)
class Growth:
    """Watches a search.

    Attributes:
        show: takes a line for the terminal, or None.
        marks: seconds, sub-problems bounded, sub-problems open and peak memory in MiB, each time
            that twice as many were bounded. A case begins to count anew.
    """

    show: Callable[[str], None] | None = None
    marks: list[tuple[float, int, int, float]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    said: float = 0.0
    following: int = FIRST
    before: int = 0

    def __call__(self, now: Progress) -> None:
        """Take note."""
        if now.bounded < self.before:
            self.following = FIRST
        self.before = now.bounded
        clock = time.monotonic()
        if now.bounded >= self.following:
            self.following = 2 * now.bounded
            self.marks.append((clock - self.started, now.bounded, now.open_, peak_memory()))
        if self.show is not None and clock - self.said > EVERY:
            self.said = clock
            rate = now.bounded / max(clock - self.started, 1e-9)
            self.show(
                f"{now.bounded} sub-problems bounded ({rate:.0f}/s), {now.open_} open, "
                f"least bound {now.bound:.4g}"
            )
