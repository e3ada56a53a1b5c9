"""Workers of a dask cluster, behind `concurrent.futures`; an optional extra.

The work travels once to each worker, as a plugin that the scheduler also gives to workers that join
later. A task is the plugin's name and a few numbers.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from verify.errors import RunError
from verify.runs.answers import Answer
from verify.runs.engine import Positions, WorkerDied
from verify.runs.worker import Desk
from verify.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Worker

ANSWER_SECONDS = 15
"""For a scheduler to answer at all."""
WORKER_SECONDS = 120
"""For a first worker to join: clusters start them one by one."""
LOOK_SECONDS = 5.0
"""Between two looks at how many workers there are."""
AHEAD = 2
"""Tasks per thread of a worker, so that it need not wait for the next one."""


class Sent:
    """The work on a worker: a plugin of dask's workers, told apart by its name.

    Attributes:
        name: of this work.
        payload: the pickled work.
        version: of the tool that sent it.
    """

    def __init__(self, name: str, payload: bytes) -> None:
        """To be sent."""
        self.name, self.payload, self.version = name, payload, __version__

    def setup(self, worker: Worker) -> None:
        """Called on each worker when it gets the plugin, before any of its tasks."""
        if self.version != __version__:
            raise RunError(
                f"a worker has version {__version__} of the tool and this is {self.version}; "
                "install the same everywhere"
            )
        self.desk, self.turn = Desk(self.payload, worker.state.nthreads), threading.Lock()

    def solve(self, positions: Sequence[int]) -> list[Answer]:
        """One task; a worker's threads take turns, as each task uses all of them."""
        with self.turn:
            return self.desk.solve(positions)


def solve(name: str, positions: Sequence[int]) -> list[Answer]:
    """One task, in the worker."""
    from distributed import get_worker

    plugin: Sent = get_worker().plugins[name]
    return plugin.solve(positions)


class Cluster:
    """The workers of a dask scheduler; a `verify.runs.engine.Crew`."""

    beside = True

    def __init__(self, url: str, payload: bytes) -> None:
        """Connect, and send the work.

        Raises:
            RunError: if dask is not installed, or the scheduler or its workers do not answer.
        """
        self.url, self.name = url, f"tashika-{hashlib.sha256(payload).hexdigest()[:16]}"
        self.client = connected(url)
        try:
            self.client.wait_for_workers(1, timeout=WORKER_SECONDS)
            self.client.register_plugin(plugin_of(self.name, payload), name=self.name)
        except Exception as error:
            self.close()
            why = f"{type(error).__name__}: {error}"
            raise RunError(
                f"the workers of {url} cannot take the work ({why}); start some with tashika "
                "installed: dask worker " + url
            ) from error
        self.executor = self.client.get_executor(pure=False)
        self.looked, self.threads = -LOOK_SECONDS, 1

    @property
    def slots(self) -> int:
        """As many as there are workers now, and some ahead."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            with suppress(Exception):  # a scheduler that is gone is noticed by the tasks
                self.threads = len(self.client.nthreads())
            self.looked = time.monotonic()
        return AHEAD * max(1, self.threads)

    def submit(self, positions: Positions) -> Future[list[Answer]]:
        """To the worker that dask chooses."""
        try:
            future: Future[list[Answer]] = self.executor.submit(solve, self.name, list(positions))
        except Exception as error:
            raise self.gone(error) from error
        return future

    def take(self, future: Future[list[Answer]]) -> list[Answer]:
        """What it gave. Dask itself gives the task of a dead worker to another, a few times."""
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            return future.result()
        except KilledWorker as error:
            raise WorkerDied from error
        except (CancelledError, CommClosedError) as error:
            raise self.gone(error) from error

    def gone(self, error: BaseException) -> RunError:
        """The message for a scheduler that went away."""
        return RunError(
            f"the scheduler at {self.url} is gone ({type(error).__name__}); results so far are "
            "kept if --run was given: start it again and give the same command"
        )

    def close(self) -> None:
        """Cancel what is not done, and leave the cluster to others."""
        with suppress(Exception):
            self.executor.shutdown(wait=False)
        with suppress(Exception):
            self.client.unregister_worker_plugin(self.name)
        with suppress(Exception):
            self.client.close(timeout=ANSWER_SECONDS)


def connected(url: str) -> Client:
    """A client of the scheduler."""
    try:
        from distributed import Client
    except ImportError as error:
        raise RunError(
            "--scheduler needs dask, which is not installed; pip install 'tashika[dask]'"
        ) from error
    try:
        return Client(url, timeout=ANSWER_SECONDS, set_as_default=False)
    except Exception as error:
        raise RunError(
            f"no scheduler answers at {url} ({type(error).__name__}); start one with: "
            "dask scheduler, and give the address that it prints"
        ) from error


def plugin_of(name: str, payload: bytes) -> Any:
    """The plugin, as a class that dask accepts: made here, as dask may not be installed."""
    from verify.runs.cluster_plugin import SentPlugin

    return SentPlugin(name, payload)
