"""The engine: every instance is answered once, whoever dies and whatever is slow."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from pathlib import Path

import pytest

from tests.runs.toys import Squares
from verify.runs import Alone, Lost, answered, tasks_of
from verify.runs.processes import Processes, cores


def squares(found: list) -> dict[int, object]:
    """By position; a position that came twice is an error."""
    answers = [a for part in found if not isinstance(part, Lost) for a in part]
    assert len({a.position for a in answers}) == len(answers)
    return {a.position: a.record["square"] for a in answers}


def test_tasks_are_the_same_whatever_is_done() -> None:
    """So that what is computed together does not depend on when a run was stopped."""
    assert tasks_of(7, 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert tasks_of(7, 3, done={3, 4, 5}) == [(0, 1, 2), (6,)]
    assert tasks_of(7, 3, done={1}) == [(0, 2), (3, 4, 5), (6,)]
    assert tasks_of(0, 3) == []


def test_this_process_alone_is_a_crew() -> None:
    """No pickling, no other process."""
    found = list(answered(Alone(Squares().solve), tasks_of(10, 3)))
    assert squares(found) == {p: p * p for p in range(10)}


def test_processes_answer_everything_whoever_dies(tmp_path: Path) -> None:
    """One instance kills a worker once, one kills each, one ends when others have
    begun; the rest is as it was alone.

    Work travels once to each process; a slow instance holds up nobody else.
    """
    work = Squares(str(tmp_path / "log"), last=36, fatal_once=(9,), fatal=(14,))
    crew = Processes(pickle.dumps(work), 2)
    assert crew.threads == max(1, cores() // 2)
    found = list(answered(crew, tasks_of(40, 4)))
    expected = squares(list(answered(Alone(Squares().solve), tasks_of(40, 4))))
    del expected[14]
    assert squares(found) == expected
    assert [part for part in found if isinstance(part, Lost)] == [Lost((14,))]
    lines = work.lines()
    processes = {pid for pid, what in lines if what == "0" or what.isdigit()}
    arrivals = [pid for pid, what in lines if what == "arrived"]
    assert sorted(arrivals) == sorted(processes)
    assert str(os.getpid()) not in processes


def test_an_error_ends_the_work_and_the_workers(tmp_path: Path) -> None:
    """It arrives as it is; the processes are gone, also those still at work."""
    work = Squares(str(tmp_path / "log"), slow=((0, 60.0),), wrong=(3,))
    crew = Processes(pickle.dumps(work), 2)
    with pytest.raises(ValueError, match="3 is wrong"):
        list(answered(crew, tasks_of(8, 1)))
    deadline = time.monotonic() + 10
    pids = {int(pid) for pid, _ in work.lines()}
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_answers_that_came_together_with_an_error_are_passed_on() -> None:
    """The stream ends with the error, not before what others had finished."""
    crew = Alone(Squares(wrong=(5,)).solve)
    stream = answered(crew, tasks_of(8, 1))
    first = list(itertools.islice(stream, 5))
    assert squares(first) == {p: p * p for p in range(5)}
    with pytest.raises(ValueError, match="5 is wrong"):
        next(stream)
