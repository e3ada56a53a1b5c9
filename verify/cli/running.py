"""`--run`, `--workers`, `--scheduler`: the work of a command through the engine of runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from verify.cli.given import given_arguments
from verify.cli.options import RunOptions
from verify.cli.presenting import Collected, Presenter
from verify.errors import SettingError
from verify.report import ModelStamp, Record
from verify.report.records import make_record, plain_settings
from verify.runs.answers import Answer, Blob
from verify.runs.engine import Alone, Crew, Lost, Solver, Work, answered, tasks_of
from verify.runs.folder import open_run, runs_folder
from verify.runs.identity import Head, Instance
from verify.runs.store import Store
from verify.version import __version__

MOST_WORKERS = 512
INCOMPLETE = 3
"""Exit code where instances have no result: nothing is known of them."""


class Indexed(Protocol):
    """A result that knows its input."""

    @property
    def index(self) -> int:
        """Number of the input in its source."""
        ...


Item = TypeVar("Item", bound=Indexed)


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[Item]):
    """What a command wants done.

    Attributes:
        command, settings, stamp: as in its record.
        work: what workers are sent.
        here: the same work, opened in this process; called where this process works itself.
        instances: what is decided, in order; called where results are stored.
        indices: number of each instance in its source.
        size: instances that are decided together.
        back: an answer as the command's own kind of result.
        input_shape: of one input, or empty.
    """

    command: str
    settings: dict[str, object]
    stamp: ModelStamp
    work: Work
    here: Callable[[], Solver]
    instances: Callable[[], Sequence[Instance]]
    indices: Sequence[int]
    size: int
    back: Callable[[Answer], Item]
    input_shape: tuple[int, ...] = ()

    def head(self) -> Head:
        """As a run stores it."""
        return Head(
            command=self.command,
            settings=plain_settings(self.settings),
            model_path=self.stamp.path,
            model_sha256=self.stamp.sha256,
            version=__version__,
            argv=given_arguments.get(),
            folder=str(Path.cwd()),
            input_shape=self.input_shape,
        )


@dataclass(frozen=True, slots=True, eq=False)
class StoreShelf:
    """Certificates beside the results of a run; see `verify.cli.certifying.Shelf`."""

    store: Store

    def get(self, row: int) -> tuple[bytes, bytes] | None:
        """Property and certificate of an input."""
        blobs = self.store.blobs(row)
        if "property" not in blobs or "certificate" not in blobs:
            return None
        return blobs["property"].data, blobs["certificate"].data

    def put(self, row: int, prop: bytes, proof: bytes) -> None:
        """Keep both."""
        self.store.attach(row, "property", Blob(prop))
        self.store.attach(row, "certificate", Blob(proof))


def check_options(options: RunOptions) -> None:
    """Refuse what makes no sense, before any work.

    Raises:
        SettingError: if there is any.
    """
    if options.workers is not None and not 1 <= options.workers <= MOST_WORKERS:
        raise SettingError(
            f"--workers is {options.workers}, expected 1 to {MOST_WORKERS}; cores are a good number"
        )
    if options.workers is not None and options.scheduler is not None:
        raise SettingError("--workers and --scheduler exclude each other; the cluster has its own")


def wanted(options: RunOptions) -> bool:
    """Whether the engine is asked for at all."""
    return any(v is not None for v in (options.run, options.workers, options.scheduler))


@dataclass(eq=False)
class Running(Generic[Item]):
    """A job on its way; use with `with`.

    Attributes:
        options, job: as given.
        store: of the run, or None where nothing is stored.
        before: results that were stored before.
        lost: positions over which worker after worker died.
    """

    options: RunOptions
    job: Job[Item]
    show: Presenter
    store: Store | None = None
    before: int = 0
    lost: list[int] = field(default_factory=list)
    outcome: str | None = None

    def __enter__(self) -> Running[Item]:
        """Open the run."""
        check_options(self.options)
        if self.options.run is not None:
            self.store, notes = open_run(
                runs_folder(self.options.runs),
                self.options.run,
                self.job.head(),
                self.job.instances(),
                self.who(),
            )
            self.show.say(notes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the run, and note how the work ended."""
        if self.store is not None:
            ended = self.outcome or "done"
            self.store.close(ended if kind is None else f"{kind.__name__}: {error}")

    def who(self) -> str:
        """Who works, in words."""
        if self.options.scheduler is not None:
            return f"cluster {self.options.scheduler}"
        return f"{self.options.workers} processes" if self.options.workers else "this process"

    def crew(self) -> Crew:
        """Those who work."""
        if self.options.scheduler is None and self.options.workers is None:
            return Alone(self.job.here())
        payload = pickle.dumps(self.job.work, protocol=5)
        if self.options.scheduler is not None:
            from verify.runs.cluster import Cluster

            return Cluster(self.options.scheduler, payload)
        from verify.runs.processes import Processes

        assert self.options.workers is not None
        return Processes(payload, self.options.workers)

    def parts(self) -> Generator[list[Item], None, None]:
        """Results as they come: those stored before, then new ones, each stored first."""
        done: set[int] = set()
        if self.store is not None:
            done = self.store.done()
            self.before = len(done)
            stored = [self.job.back(answer) for answer in self.store.answers(blobs=True)]
            if stored:
                yield stored
        tasks = tasks_of(len(self.job.indices), self.job.size, done)
        for found in answered(self.crew(), tasks) if tasks else ():
            if isinstance(found, Lost):
                self.lost += found.positions
                continue
            if self.store is not None:
                self.store.add(found)
            yield [self.job.back(answer) for answer in found]

    def collect(
        self, follow: Callable[[Iterator[list[Item]]], Iterator[Sequence[Item]]] | None = None
    ) -> Collected[Item]:
        """All results, in the order of the instances; Ctrl-C keeps what has come.

        Args:
            follow: what else is to see the results as they come.
        """
        parts = self.parts()
        seen = parts if follow is None else follow(parts)
        done = self.show.collect(seen, len(self.job.indices), self.job.command)
        parts.close()
        places = {index: position for position, index in enumerate(self.job.indices)}
        done.results.sort(key=lambda result: places[result.index])
        if done.interrupted:
            self.outcome = "interrupted"
        elif self.lost:
            self.outcome = f"{len(self.lost)} without a result"
            missing = ", ".join(str(self.job.indices[p]) for p in sorted(self.lost)[:10])
            self.show.warn(
                f"no result for {len(self.lost)} of {len(self.job.indices)} ({missing}): worker "
                "after worker died over them, perhaps for lack of memory; give fewer --workers or "
                "a smaller --batch and the same command again"
            )
        return done

    def conclude(self, record: Record, *, rows: bool = False) -> Record:
        """Keep in the run what a finished command says of all results together.

        Args:
            record: of the command.
            rows: whether its results are others than those that were stored one by one.

        Returns:
            The record.
        """
        if self.store is not None and not self.lost and self.outcome is None:
            counted = make_record("", record.results, settings={}, model=ModelStamp(None, None))
            own = {*counted.summary, *self.summary()}
            summary = {key: value for key, value in record.summary.items() if key not in own}
            told = {"results": [dict(row) for row in record.results]} if rows else {}
            if {"summary": summary, **told} != self.store.conclusion():
                self.store.conclude({"summary": summary, **told})
        return record

    def shelf(self) -> StoreShelf | None:
        """Where certificates are kept beside the results, if anything is."""
        return None if self.store is None else StoreShelf(self.store)

    def summary(self) -> dict[str, object]:
        """For the record; nothing where nothing was asked for."""
        if not wanted(self.options):
            return {}
        return {
            "run": self.options.run,
            "stored_before": self.before,
            "workers": self.who(),
            "without_result": [self.job.indices[p] for p in sorted(self.lost)],
        }

    def exit_code(self, done: Collected[Item], code: int) -> int:
        """The command's code, unless there are instances without a result."""
        return done.exit_code(INCOMPLETE if self.lost and code == 0 else code)
