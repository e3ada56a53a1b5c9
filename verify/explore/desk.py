"""Desk: one computation at a time for each page, and one in all; newer ones cancel older ones."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from verify.explore.angle import AngleCourse
from verify.explore.asking import ANGLE, Ask
from verify.explore.ball import BallCourse
from verify.explore.course import Course, Emit, Stopped
from verify.explore.ends import Memory
from verify.explore.subject import Subject
from verify.explore.tools import Tools

Event = tuple[str, Mapping[str, object]]
Work = Callable[[Ask, Emit, Callable[[], bool]], None]
"""Answers an ask: sends events, and ends early once the last argument says yes."""

MOST_PAGES = 16
"""Pages remembered; the computation of one beyond them is cancelled."""
MOST_EVENTS = 1000
"""Waiting to be read by a page; one that does not read is not served."""
PATIENCE = 0.05
"""Seconds between two looks at whether a waiting computation was cancelled."""
LOG = logging.getLogger("verify")


@dataclass(eq=False)
class Computation:
    """One answer under way.

    Attributes:
        events: what was found and is not sent yet; None ends it.
        over: set once nobody waits for it.
    """

    events: queue.Queue[Event | None] = field(default_factory=lambda: queue.Queue(MOST_EVENTS))
    over: threading.Event = field(default_factory=threading.Event)

    def emit(self, name: str, data: Mapping[str, object]) -> None:
        """Keep an event for whoever asked; raises Stopped once nobody does."""
        if self.over.is_set():
            raise Stopped
        try:
            self.events.put((name, data), timeout=1.0)
        except queue.Full:
            self.over.set()
            raise Stopped from None

    def close(self) -> None:
        """The last event was sent."""
        try:
            self.events.put(None, timeout=1.0)
        except queue.Full:
            self.over.set()

    def read(self, heartbeat: float) -> Iterator[Event | None]:
        """Events as they come, and None after so many seconds without one."""
        try:
            while not self.over.is_set():
                try:
                    event = self.events.get(timeout=heartbeat)
                except queue.Empty:
                    yield None
                    continue
                if event is None:
                    return
                yield event
        finally:
            self.over.set()


@dataclass(eq=False)
class Desk:
    """Where asks are handed in.

    Attributes:
        work: answers one.
        explain: what to tell a page of an exception; None for what is our own fault.
    """

    work: Work
    explain: Callable[[Exception], str | None]
    pages: OrderedDict[str, Computation] = field(default_factory=OrderedDict, init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    turn: threading.Lock = field(default_factory=threading.Lock, init=False)

    def start(self, ask: Ask) -> Computation:
        """Begin to answer, in a thread of its own; what the page asked before is cancelled."""
        made = Computation()
        with self.lock:
            before = self.pages.pop(ask.client, None)
            if before is not None:
                before.over.set()
            self.pages[ask.client] = made
            while len(self.pages) > MOST_PAGES:
                self.pages.popitem(last=False)[1].over.set()
        threading.Thread(target=self.run, args=(ask, made), daemon=True, name="explore").start()
        return made

    def run(self, ask: Ask, made: Computation) -> None:
        """Wait for the turn, then work."""
        while not self.turn.acquire(timeout=PATIENCE):
            if made.over.is_set():
                return
        try:
            if not made.over.is_set():
                self.work(ask, made.emit, made.over.is_set)
                made.emit("done", {})
        except Stopped:
            pass
        except Exception as error:
            self.report(error, made)
        finally:
            self.turn.release()
            made.close()

    def report(self, error: Exception, made: Computation) -> None:
        """Tell the page in words, and the terminal in full; no traceback leaves the process."""
        if made.over.is_set():
            return
        said = self.explain(error)
        if said is None:
            LOG.error("explore: %s", error, exc_info=error)
            said = f"unexpected {type(error).__name__}; the terminal says more. Please report it."
        with contextlib.suppress(Stopped):
            made.emit("trouble", {"message": said})

    def end(self, seconds: float = 2.0) -> None:
        """Cancel all, and wait a little for the one that works."""
        with self.lock:
            for made in self.pages.values():
                made.over.set()
        if self.turn.acquire(timeout=seconds):
            self.turn.release()


@dataclass(frozen=True, eq=False)
class Worker:
    """The work of a desk: courses about one subject.

    Attributes:
        subject, tools: see `Course`.
        seconds: that an answer may take.
        memory: of brackets.
    """

    subject: Subject
    tools: Tools
    seconds: float
    memory: Memory = field(default_factory=Memory)

    def __call__(self, ask: Ask, emit: Emit, cancelled: Callable[[], bool]) -> None:
        """Answer."""
        kind = AngleCourse if ask.threat == ANGLE else BallCourse
        given = (self.subject, self.tools, ask, emit, self.memory, self.seconds, cancelled)
        course: Course = kind(*given)
        course.answer()
