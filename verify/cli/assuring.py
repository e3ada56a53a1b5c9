"""The work of `verify confidence`: certify, attack, compare, sum up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from verify.api import asked_of, batch_size, granted
from verify.cli import parsing
from verify.cli.bracketing import Search
from verify.cli.confidence import ConfidenceOptions, PushOptions
from verify.cli.detecting import MADE, strange
from verify.cli.jobs import instances_of
from verify.cli.judging import Aim, Assured, AssureWork
from verify.cli.options import BoundOptions, DataOptions, RunOptions
from verify.cli.presenting import Presenter
from verify.cli.running import Job, Running
from verify.cli.session import BoundArguments, Session, bound_arguments, normalised, open_session
from verify.cli.session import stamp as stamp_of
from verify.cli.summing import summed_up
from verify.cli.working import SentModel, SentQuestion
from verify.confidence import MUTUAL_INFORMATION
from verify.errors import ShapeError
from verify.network import Network, load
from verify.readers.datasets import load_dataset
from verify.report.confidence import print_confidence
from verify.report.confidence_plots import plot_confidence
from verify.values.question import Question


@dataclass(frozen=True, slots=True, eq=False)
class Assurance:
    """What is judged: the session's inputs, then those out of distribution.

    Attributes:
        networks: the session's, then the further members.
        outside: question about the inputs out of distribution, or None.
    """

    session: Session
    networks: tuple[Network, ...]
    outside: Question | None

    @property
    def asked(self) -> Question:
        """About all of them."""
        own, other = self.session.asked, self.outside
        if other is None:
            return own
        x, labels, eps = (
            torch.cat((getattr(own, name), getattr(other, name))) for name in ("x", "labels", "eps")
        )
        return Question(x, labels, eps, own.p, own.lower, own.upper)

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the inputs; those out of distribution go on behind the last one."""
        own = tuple(self.session.data.indices)
        more = 0 if self.outside is None else len(self.outside.x)
        return (*own, *range(max(own) + 1, max(own) + 1 + more))

    def job(self, settings: dict[str, object], aim: Aim, arguments: BoundArguments) -> Job[Assured]:
        """As the engine does it."""
        network = self.session.network
        work = AssureWork(
            SentModel.of(network),
            SentQuestion.of(self.asked),
            self.indices,
            tuple(SentModel.of(member) for member in self.networks[1:]),
            len(self.session.asked.x),
            aim,
            arguments,
        )
        usual = max(1, batch_size(network, granted(arguments.memory)) // 4)
        return Job(
            command="confidence",
            settings=settings,
            stamp=stamp_of(self.session),
            work=work,
            here=lambda: work.among(self.networks),
            instances=lambda: instances_of(self.asked, self.indices),
            indices=self.indices,
            size=arguments.batch or usual,
            back=work.assured,
            input_shape=tuple(network.input_shape),
        )


def assure(
    model: Path,
    eps: str,
    data: DataOptions,
    wanted: ConfidenceOptions,
    bounds: BoundOptions,
    push: PushOptions,
    runs: RunOptions,
    show: Presenter,
) -> int:
    """Answer, print, write, draw."""
    aim, arguments = Aim.read(wanted, push), bound_arguments(bounds)
    Search.read(None, "0.5", pictures=(wanted.plot,))  # refuses what cannot be drawn
    radius = parsing.radius(eps)
    session = open_session(model, data, radius)
    networks = (session.network, *(member(path, data, session) for path in wanted.member or ()))
    outside = None if wanted.ood is None else strangers(wanted.ood, data, session, aim, radius)
    show.say([*session.notes, *([MUTUAL_INFORMATION] if len(networks) > 1 else [])])
    settings = {
        **session.settings,
        "eps": radius,
        "method": arguments.method,
        "iterations": arguments.iterations,
        "timeout": arguments.timeout,
        "memory": arguments.memory,
        "batch": arguments.batch,
        "ood": wanted.ood,
        "members": [str(path) for path in wanted.member or ()],
        "members_sha256": [network.sha256 for network in networks[1:]],
        **aim.settings(),
    }
    job = Assurance(session, networks, outside).job(settings, aim, arguments)
    with Running(runs, job, show) as running:
        done = running.collect()
        found = [one for one in done.results if not one.outside]
        summary = summed_up(
            [one.judged for one in found],
            [one.judged for one in done.results if one.outside],
            bins=aim.bins,
            alpha=aim.alpha,
            threshold=aim.threshold,
            seed=aim.seed,
        )
        summary |= {"interrupted": done.interrupted, **running.summary()}
        record = show.record("confidence", job.stamp, settings, found, summary)
        running.conclude(record, rows=outside is not None)
    show.write(record)
    print_confidence(record, console=show.console, quiet=show.options.quiet)
    if wanted.plot is not None and found:
        plot_confidence(record, wanted.plot)
        show.say([f"drawn: {wanted.plot}"])
    return running.exit_code(done, 0)


def member(path: Path, data: DataOptions, session: Session) -> Network:
    """A further member of the ensemble, refused if it does not fit the first."""
    network = normalised(load(path), data)
    own = session.network
    if (network.input_shape, network.classes) != (own.input_shape, own.classes):
        raise ShapeError(
            f"member {path} maps {network.input_shape} to {network.classes} classes, but the first "
            f"model maps {own.input_shape} to {own.classes}; give members that fit each other"
        )
    return network


def strangers(
    source: str, data: DataOptions, session: Session, aim: Aim, radius: float
) -> Question:
    """The out-of-distribution inputs with their neighbourhoods; labels are the predictions."""
    if source in MADE:
        x = strange(session.asked.x, source, aim.seed)
    else:
        x = load_dataset(
            source,
            input_shape=session.network.input_shape,
            channels_last=data.channels_last,
            scale=parsing.positive(data.scale, "--scale"),
            input_range=session.input_range,
            limit=data.limit,
            indices=None,
            classes=None,
        ).x
    norm = session.asked.p
    return asked_of(session.network, x, None, radius, norm, session.input_range)
