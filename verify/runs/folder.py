"""A folder of runs: their names, what lies in it, and opening one to be worked on."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from verify.errors import RunError
from verify.runs.identity import Head, Instance
from verify.runs.store import Store

VARIABLE, DEFAULT, ENDING = "TASHIKA_RUNS", "runs", ".sqlite"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def runs_folder(given: Path | None) -> Path:
    """The folder that was named, or that of the environment, or ./runs."""
    return given or Path(os.environ.get(VARIABLE) or DEFAULT)


def run_path(folder: Path, name: str) -> Path:
    """The file of a run.

    Raises:
        RunError: if the name could be anything but a file in the folder.
    """
    if not NAME.fullmatch(name):
        raise RunError(
            f"{name!r} is no name for a run; use up to 100 letters, digits, '.', '_' and '-'"
        )
    return folder / f"{name}{ENDING}"


def run_paths(folder: Path) -> list[Path]:
    """The files of all runs, by name; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"*{ENDING}") if NAME.fullmatch(path.stem))


def read_run(folder: Path, name: str) -> Store:
    """A run that is there, to be read.

    Raises:
        RunError: if it is not there, or cannot be read.
    """
    return Store.reading(run_path(folder, name))


def open_run(
    folder: Path, name: str, head: Head, instances: Sequence[Instance], workers: str
) -> tuple[Store, list[str]]:
    """The run of this name, to be worked on; made, and filled from others, if it is new.

    Args:
        workers: who is going to work on it, in words.

    Returns:
        The store, whose stretch has begun, and what to tell people.

    Raises:
        RunError: if it is another run, in use, damaged, or cannot be written.
    """
    path = run_path(folder, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"folder {folder} for runs cannot be made: {error.strerror}; name another with --runs "
            "or TASHIKA_RUNS"
        ) from None
    store = Store.writing(path, head, instances)
    try:
        store.begin(workers)
        notes = taken_over(folder, store)
    except BaseException:
        store.close("failed")
        raise
    done, count = len(store.done()), store.count()
    left = "all there" if done == count else f"{count - done} to do"
    return store, [*notes, f"run {name}: {done} of {count} results stored in {path}, {left}"]


def taken_over(folder: Path, store: Store) -> list[str]:
    """Copy results of the same instances under the same settings from other runs of the folder."""
    wanted = {key: p for p, _, key in store.open_instances()}
    notes = []
    for path in run_paths(folder):
        if not wanted:
            break
        if path == store.path:
            continue
        try:
            other = Store.reading(path)
        except RunError as error:
            notes.append(f"not looked into: {error}")
            continue
        try:
            if other.head.base != store.head.base:
                continue
            shared = {key: p for key, p in other.keys().items() if key in wanted}
            answers = [
                found.moved(wanted[key])
                for key, found in zip(
                    shared, other.answers(shared.values(), blobs=True), strict=True
                )
            ]
            store.add(answers, taken_from=other.name)
        finally:
            other.close()
        for key in shared:
            del wanted[key]
        if shared:
            notes.append(f"{len(shared)} results are those of run {other.name}, not done again")
    return notes
