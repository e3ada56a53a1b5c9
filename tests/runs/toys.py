"""Work of which everything is known: squares, with instances that are slow, fail or kill."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.runs.answers import Answer
from verify.runs.engine import Solver


@dataclass(frozen=True)
class Squares:
    """position -> its square, once the log has a line of who begins with it.

    Attributes:
        log: where each worker says what it does; None for nowhere.
        slow: seconds by position.
        last: whether position 0 waits until this many others have begun.
        fatal_once: positions that kill the first worker that tries them.
        fatal: positions that kill every worker.
        wrong: positions that raise.
        weight: bytes that travel with it, and should travel once per worker.
    """

    log: str | None = None
    slow: tuple[tuple[int, float], ...] = ()
    last: int = 0
    fatal_once: tuple[int, ...] = ()
    fatal: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    weight: bytes = b""

    def __setstate__(self, state: dict) -> None:
        """Unpickled: that is, it has travelled."""
        self.__dict__.update(state)
        self.note("arrived")

    def note(self, what: object) -> None:
        if self.log is not None:
            with Path(self.log).open("a") as stream:
                stream.write(f"{os.getpid()} {what}\n")

    def open(self) -> Solver:
        self.note("opened")
        return self.solve

    def solve(self, positions: Sequence[int]) -> list[Answer]:
        found = []
        for p in positions:
            self.note(p)
            time.sleep(dict(self.slow).get(p, 0))
            while p == 0 and self.last and len(self.begun()) < self.last:
                time.sleep(0.05)
            if p in self.fatal or (p in self.fatal_once and self.first(p)):
                os.kill(os.getpid(), signal.SIGKILL)
            if p in self.wrong:
                raise ValueError(f"{p} is wrong")
            found.append(Answer(p, {"index": p, "verdict": "verified", "square": p * p}))
        return found

    def first(self, position: int) -> bool:
        try:
            Path(f"{self.log}.{position}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def begun(self) -> set[str]:
        return {what for _, what in self.lines() if what.isdigit()}

    def lines(self) -> list[list[str]]:
        """What was noted: process and what it did."""
        assert self.log is not None
        return [line.split() for line in Path(self.log).read_text().splitlines()]
