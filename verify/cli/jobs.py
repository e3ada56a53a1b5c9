"""A session's inputs as the job of a command."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verify.api import batch_size, granted
from verify.cli.attacking import AT_ONCE
from verify.cli.options import AttackOptions
from verify.cli.running import Item, Job
from verify.cli.session import BoundArguments, Session, stamp
from verify.cli.working import (
    AttackWork,
    CertifyWork,
    InputWork,
    RadiusWork,
    sent,
)
from verify.runs.identity import Instance
from verify.values.question import Question
from verify.values.result import Bracket, Result

SEARCHED_AT_ONCE = 4
"""Inputs of one task where complete searches follow: whoever is quick waits for few others."""


def instances_of(asked: Question, indices: Sequence[int]) -> list[Instance]:
    """The inputs of a question, as a run tells them apart."""
    labels, eps = asked.labels.tolist(), asked.eps.tolist()
    rows = asked.x.numpy().astype("<f4", copy=False)
    return [
        Instance(index, labels[i], eps[i], np.ascontiguousarray(rows[i]).tobytes())
        for i, index in enumerate(indices)
    ]


def input_job(
    command: str,
    session: Session,
    settings: dict[str, object],
    work: InputWork[Item],
    size: int,
) -> Job[Item]:
    """A job about each input of a session."""
    return Job(
        command=command,
        settings=settings,
        stamp=stamp(session),
        work=work,
        here=lambda: work.on(session.network),
        instances=lambda: instances_of(session.asked, session.data.indices),
        indices=session.data.indices,
        size=size,
        back=work.result,
        input_shape=tuple(session.network.input_shape),
    )


def certify_job(
    session: Session,
    settings: dict[str, object],
    arguments: BoundArguments,
    attacks: AttackOptions,
    *,
    complete: bool,
    semantics: str,
) -> Job[Result]:
    """That of `verify certify`."""
    size = arguments.batch or batch_size(session.network, granted(arguments.memory))
    work = CertifyWork(*sent(session), attacks, arguments, complete, semantics)
    return input_job("certify", session, settings, work, few(size, complete, arguments.batch))


def radius_job(
    command: str,
    session: Session,
    settings: dict[str, object],
    arguments: BoundArguments,
    attacks: AttackOptions,
    *,
    tolerance: float,
    exact: bool,
    semantics: str,
) -> Job[Bracket]:
    """That of `verify radius` and `verify compare`."""
    size = arguments.batch or max(1, batch_size(session.network, granted(arguments.memory)) // 4)
    work = RadiusWork(*sent(session), attacks, arguments, tolerance, exact, semantics)
    return input_job(command, session, settings, work, few(size, exact, arguments.batch))


def attack_job(
    session: Session, settings: dict[str, object], attacks: AttackOptions
) -> Job[Result]:
    """That of `verify attack`."""
    return input_job("attack", session, settings, AttackWork(*sent(session), attacks), AT_ONCE)


def few(size: int, searched: bool, given: int | None) -> int:
    """Inputs of one task."""
    return size if given or not searched else min(size, SEARCHED_AT_ONCE)
