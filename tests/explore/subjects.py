"""What is explored in the tests: the embedded digits, quick attacks, no browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.cli.commands import CONV, DENSE
from verify.cli.explore import PageOptions
from verify.cli.exploring import subject_of, tools_of
from verify.cli.options import DataOptions
from verify.cli.session import open_session
from verify.explore.angle import AngleCourse
from verify.explore.asking import ANGLE, read_ask
from verify.explore.ball import BallCourse
from verify.explore.course import Course
from verify.explore.desk import Worker
from verify.explore.ends import Memory
from verify.explore.subject import Subject
from verify.explore.tools import Tools

CLIENT = "0123456789abcdef"


@cache
def explored(model: str = CONV, norm: str = "inf") -> tuple[Subject, Tools]:
    """The first 60 digits."""
    session = open_session(Path(model), DataOptions(limit=60, norm=norm), 0.0)
    others = [Path(DENSE)] if model == CONV else []
    page = PageOptions(ensemble=others)
    return subject_of(session, page), tools_of(Path(model), session, page)


def body(**asked: object) -> bytes:
    """A question as a page sends it."""
    usual = {"client": CLIENT, "position": 0, "threat": "ball", "size": 0.05, "attack": "fgsm"}
    given = {**usual, **asked}
    return json.dumps({key: value for key, value in given.items() if value is not None}).encode()


def answered(
    subject: Subject, tools: Tools, seconds: float = 20.0, **asked: object
) -> list[tuple[str, Mapping[str, Any]]]:
    """All events of one answer."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    ask = read_ask(body(**asked), subject, tools.attacks)
    worker = Worker(subject, tools, seconds)
    worker(ask, lambda name, data: found.append((name, data)), lambda: False)
    return found


def course_of(subject: Subject, tools: Tools, found: list, **asked: object) -> Course:
    """A course that has not begun, and has as much time as it likes."""
    ask = read_ask(body(**asked), subject, tools.attacks)
    kind = AngleCourse if ask.threat == ANGLE else BallCourse
    told = lambda name, data: found.append((name, data))  # noqa: E731
    return kind(subject, tools, ask, told, Memory(), 1e4)


def last(found: list[tuple[str, Mapping[str, Any]]], name: str) -> Mapping[str, Any]:
    """The last event of a name."""
    return [data for event, data in found if event == name][-1]
