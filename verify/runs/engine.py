"""The engine: tasks through workers, whichever they are, and their answers as they come.

A task is a few positions of a run that are decided together. Which positions share a task is fixed
by the run and not by the workers, so that neither their number nor a death among them changes what
is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Protocol

from verify.runs.answers import Answer

Positions = tuple[int, ...]
Solver = Callable[[Sequence[int]], list[Answer]]
"""Decides the instances at some positions."""
MOST_DEATHS = 3
"""Workers that may die over one instance before it is given up."""


class Work(Protocol):
    """What is sent to each worker, once, pickled: the model, the data and the settings."""

    def open(self) -> Solver:
        """Get ready; called in the worker, before its first task."""
        ...


class WorkerDied(Exception):
    """The worker that had this task is gone."""


class Crew(Protocol):
    """Some workers.

    Attributes:
        beside: whether they work while this process does something else.
    """

    beside: bool

    @property
    def slots(self) -> int:
        """How many tasks they take at once."""
        ...

    def submit(self, positions: Positions) -> Future[list[Answer]]:
        """Hand out a task."""
        ...

    def take(self, future: Future[list[Answer]]) -> list[Answer]:
        """The answers of a task that has ended; raises `WorkerDied`, or what ended the task."""
        ...

    def close(self) -> None:
        """Stop all work at once."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task and how many workers have died over it."""

    positions: Positions
    deaths: int = 0

    def again(self) -> list[Attempt]:
        """What is tried after one more death: one by one, so that the culprit is found."""
        deaths = self.deaths + 1
        if deaths > 1 and len(self.positions) > 1:
            return [Attempt((p,), deaths - 1) for p in self.positions]
        return [Attempt(self.positions, deaths)]


@dataclass(frozen=True, slots=True)
class Lost:
    """Instances over which worker after worker died; they have no result."""

    positions: Positions


def tasks_of(count: int, size: int, done: Iterable[int] = ()) -> list[Positions]:
    """The tasks of a run that are not done: always the same ones, whatever is done already."""
    gone = set(done)
    found = []
    for start in range(0, count, size):
        task = tuple(p for p in range(start, min(start + size, count)) if p not in gone)
        if task:
            found.append(task)
    return found


def answered(crew: Crew, tasks: Iterable[Positions]) -> Iterator[list[Answer] | Lost]:
    """Answers in the order in which they come; no slow task holds up another worker.

    Args:
        crew: is closed at the end, whatever the end is.
        tasks: handed out in this order.
    """
    waiting = deque(Attempt(task) for task in tasks)
    flying: dict[Future[list[Answer]], Attempt] = {}
    try:
        while waiting or flying:
            hand_out(crew, waiting, flying)
            ended = wait(flying, return_when=FIRST_COMPLETED).done
            found: list[list[Answer] | Lost] = []
            failure: Exception | None = None
            for future in ended:
                attempt = flying.pop(future)
                try:
                    found.append(crew.take(future))
                except WorkerDied:
                    if len(attempt.positions) > 1 or attempt.deaths + 1 < MOST_DEATHS:
                        waiting.extendleft(reversed(attempt.again()))
                    else:
                        found.append(Lost(attempt.positions))
                except Exception as error:
                    failure = failure or error
            # Nobody waits for what is done with these answers, and no error costs them.
            if crew.beside and failure is None:
                hand_out(crew, waiting, flying)
            yield from found
            if failure is not None:
                raise failure
    finally:
        crew.close()


def hand_out(
    crew: Crew, waiting: deque[Attempt], flying: dict[Future[list[Answer]], Attempt]
) -> None:
    """A task for everybody who has none."""
    while waiting and len(flying) < crew.slots:
        attempt = waiting.popleft()
        flying[crew.submit(attempt.positions)] = attempt


class Alone:
    """This process itself as the only worker."""

    slots, beside = 1, False

    def __init__(self, solver: Solver) -> None:
        """Work with what is open already."""
        self.solver = solver

    def submit(self, positions: Positions) -> Future[list[Answer]]:
        """Do it now."""
        future: Future[list[Answer]] = Future()
        try:
            future.set_result(self.solver(positions))
        except Exception as error:
            future.set_exception(error)
        return future

    def take(self, future: Future[list[Answer]]) -> list[Answer]:
        """What it gave."""
        return future.result()

    def close(self) -> None:
        """Nothing to stop."""
