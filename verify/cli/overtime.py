"""Overtime: a process of its own ends with "timeout" where one step outlasts the deadline by far.

Searches look at the clock between steps, but one step on a large network, or reading one, may take
minutes. Whoever asked for an answer within some seconds gets the only one there is, instead of
having to kill the process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import ClassVar

GRACE, GRACE_SHARE = 5.0, 0.1
"""Seconds, and share of the time granted, whichever is more, for a step to end by itself."""
EXIT_CODE = 3
"""Unknown or timeout."""


class Overtime:
    """A clock beside the work of one command.

    Attributes:
        own_process: whether the process is this command's and may be ended; `verify.cli.process`
            says so, a library's caller never does.
    """

    own_process: ClassVar[bool] = False

    def __init__(self, seconds: float | None, last_words: Callable[[], None]) -> None:
        """Start the clock.

        Args:
            seconds: what was granted, from now on; None for no end.
            last_words: prints and writes what is to be said of an answer that did not come.
        """
        self.last_words = last_words
        self.answering = threading.Lock()
        self.timer: threading.Timer | None = None
        if seconds is not None and Overtime.own_process:
            self.timer = threading.Timer(seconds + max(GRACE, GRACE_SHARE * seconds), self.end)
            self.timer.daemon = True
            self.timer.start()

    def answer(self) -> None:
        """From here on an answer is being given, which nobody cuts short."""
        self.answering.acquire()
        if self.timer is not None:
            self.timer.cancel()

    def end(self) -> None:
        """End the process, unless an answer is being given."""
        if not self.answering.acquire(blocking=False):
            return
        try:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # a spinner hid the cursor
            self.last_words()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(EXIT_CODE)
