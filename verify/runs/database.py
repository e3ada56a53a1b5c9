"""SQLite as a run's file: opened, locked, checked, and its complaints in one line each.

Why SQLite in WAL mode: a transaction that was committed survives `kill -9`, one that was not leaves
no trace, and others may read while one writes. It is in Python's standard library.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from verify.errors import RunError

APPLICATION = 0x74617368
"""SQLite's application_id of our files: "tash"."""
SCHEMA = 1
"""SQLite's user_version of our files; docs/record-schema.md says what the tables hold."""
BUSY_SECONDS = 10.0
"""How long a reader or writer waits for a transaction of another to end."""

TABLES = """
CREATE TABLE head (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (
    position INTEGER PRIMARY KEY,
    idx INTEGER NOT NULL,
    label INTEGER,
    eps REAL,
    content_sha256 TEXT NOT NULL,
    key TEXT NOT NULL,
    x BLOB
);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    ended TEXT,
    seconds REAL NOT NULL DEFAULT 0,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    workers TEXT NOT NULL,
    outcome TEXT
);
CREATE TABLE results (
    position INTEGER PRIMARY KEY REFERENCES instances (position),
    session INTEGER NOT NULL REFERENCES sessions (id),
    taken_from TEXT,
    verdict TEXT,
    record TEXT NOT NULL,
    check_ TEXT NOT NULL
);
CREATE TABLE blobs (
    position INTEGER NOT NULL REFERENCES instances (position),
    name TEXT NOT NULL,
    dtype TEXT,
    shape TEXT,
    data BLOB NOT NULL,
    check_ TEXT NOT NULL,
    PRIMARY KEY (position, name)
);
"""


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection without Python's own transactions.

    Raises:
        RunError: if the file cannot be opened, or is no run.
    """
    with speaking(path):
        if write:
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                # A commit reaches the operating system at once and the disk at the next
                # checkpoint: a killed process loses nothing, a power cut the last moments.
                connection.execute("PRAGMA synchronous = NORMAL")
                check_pages(connection, path)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = connect_reading(path)
        try:
            check_pages(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def connect_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, in a folder that cannot be written either."""
    if not path.is_file():
        raise RunError(f"there is no run at {path}; `verify runs list` shows those that are")
    # The journal's index is shared memory in a file beside it; where none can be made and none
    # is needed, as nobody writes, SQLite has to be told so.
    for mode in ("mode=ro", "immutable=1"):
        if mode == "immutable=1" and Path(f"{path}-wal").exists():
            continue
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?{mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose pages do not fit each other, before anything is written to it."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise RunError(damaged(path, str(found)))


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing has been written to the file: new, or killed while it was made."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(tables) == 0


def check_kind(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is no run, or one of a later schema."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise RunError(f"{path} is not a run of this tool; name another run or another --runs")
    if schema != SCHEMA:
        raise RunError(
            f"{path} has schema {schema} of runs, expected {SCHEMA}; use the version of the tool "
            "that wrote it, or name another run"
        )


def damaged(path: Path, why: str) -> str:
    """The message for a file that cannot be trusted."""
    return (
        f"the run in {path} is damaged ({' '.join(why.split())}); nothing was changed. Restore the "
        "file from a copy, or name another run to start again"
    )


@contextmanager
def speaking(path: Path) -> Iterator[None]:
    """SQLite's errors as a line that says what to do.

    Raises:
        RunError: for any of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise RunError(explained(path, str(error), error)) from error


def explained(path: Path, text: str, error: sqlite3.Error) -> str:
    """What an error of SQLite means here."""
    if "full" in text:
        return (
            f"the disk is full: {path} takes no more results. Those stored are kept; free some "
            "space and give the same command again, it goes on from there"
        )
    if "locked" in text or "busy" in text:
        return f"{path} is in use by another program ({text}); wait for it, or stop it"
    if "readonly" in text or "unable to open" in text or "permission" in text.lower():
        return (
            f"{path} cannot be opened or written ({text}); name a folder that may be written with "
            "--runs or TASHIKA_RUNS"
        )
    if "disk I/O" in text:
        return (
            f"{path} cannot be read or written ({text}): the disk may be full, failing, or far "
            "away. Results stored before are kept; mend it and give the same command again"
        )
    if isinstance(error, sqlite3.DatabaseError):
        return damaged(path, text)
    return f"{path}: {text}; name another run"


class Lock:
    """At most one process writes a run.

    Held through an SQLite transaction on an empty file of its own, because SQLite knows how to lock
    files on every system, and every system drops the lock of a process that was killed.
    """

    def __init__(self, path: Path) -> None:
        """Take it, or refuse at once.

        Raises:
            RunError: if another process (or another part of this one) holds it.
        """
        self.note = path.with_name(f".{path.stem}.holder")
        place = path.with_name(f".{path.stem}.lock")
        with speaking(place):
            self.connection = sqlite3.connect(place, timeout=0, isolation_level=None)
        try:
            with speaking(place), held(path, self.note):
                self.connection.execute("BEGIN EXCLUSIVE")
            with suppress(OSError):  # only a help to people
                self.note.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        except BaseException:
            self.connection.close()
            raise

    def release(self) -> None:
        """Let others write."""
        with suppress(OSError):
            self.note.unlink(missing_ok=True)
        with closing(self.connection), suppress(sqlite3.Error):
            self.connection.rollback()


@contextmanager
def held(path: Path, note: Path) -> Iterator[None]:
    """A lock that is held, in words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        who = "another process"
        with suppress(OSError):
            who = note.read_text() or who
        raise RunError(
            f"run {path.stem} is being written by {who}; wait until it ends, or choose another "
            "name with --run (reading it meanwhile is fine: verify runs show)"
        ) from None
