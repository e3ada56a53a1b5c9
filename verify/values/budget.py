"""Budget: how long and with how much memory a claim may be pursued."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from verify.errors import SettingError, VerifyError

LEAST_SHARE = 0.02
"""Seconds below which a share of the time is not worth granting."""


def never() -> bool:
    """Nobody cancels."""
    return False


class OutOfTime(VerifyError):
    """The time that was granted is over; callers keep what they have and answer `unknown`."""


class Cancelled(VerifyError):
    """Nobody waits any more: raised through searches that would else try something new."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A deadline and a memory limit.

    Attributes:
        deadline: on the clock of `time.monotonic`, in seconds; infinite for none.
        memory: bytes that one chunk of rows may take.
        cancelled: asked along with the clock; once it says yes, the time is over.
    """

    deadline: float = math.inf
    memory: int = 256 * 2**20
    cancelled: Callable[[], bool] = never

    def check(self) -> None:
        """Raise OutOfTime once the deadline has passed, or somebody cancelled."""
        if time.monotonic() > self.deadline or self.cancelled():
            raise OutOfTime("the time granted is over; give more with --timeout")

    def share(self, part: float) -> Budget:
        """The same memory and a part of the time that is left, at least `LEAST_SHARE` seconds."""
        if math.isinf(self.deadline):
            return self
        now = time.monotonic()
        until = now + max(LEAST_SHARE, part * (self.deadline - now))
        return replace(self, deadline=min(self.deadline, until))

    def within(self, seconds: float | None) -> Budget:
        """The same memory and at most so many seconds from now; None changes nothing.

        Raises:
            SettingError: if seconds is not a positive number.
        """
        if seconds is None:
            return self
        if not seconds > 0:
            raise SettingError(f"timeout is {seconds!r}, but it must be > 0 seconds")
        return replace(self, deadline=min(self.deadline, time.monotonic() + seconds))
