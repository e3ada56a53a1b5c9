"""Store: one run in one file, results written as they come.

The tables are in `verify.runs.database`, their meaning in docs/record-schema.md. Everything that is
read back is checked against a hash that was written with it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from verify.errors import RunError
from verify.runs.answers import Answer, Blob, Stretch
from verify.runs.database import (
    APPLICATION,
    SCHEMA,
    TABLES,
    Lock,
    check_kind,
    connect,
    damaged,
    is_empty,
    speaking,
)
from verify.runs.identity import Head, Instance, identity

KEPT_INPUTS = 64 * 2**20
"""Bytes of inputs that a run keeps for later pictures; of a larger set it keeps none."""
RECORD = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
ROW = "SELECT position, record, check_ FROM results"
WHOLE, CONCLUSION = -1, "conclusion"
"""Where among the blobs stands what belongs to the run as a whole, and its name."""


class Store:
    """One run's file.

    Attributes:
        path: of the file.
        head: what the run is about.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: Lock | None = None
    ) -> None:
        """Read the head of a run that is there; see `create` and `reading`."""
        self.path, self.connection, self.lock = path, connection, lock
        self.session, self.started = 0, 0.0
        with speaking(path):
            check_kind(connection, path)
            rows = dict(connection.execute("SELECT key, value FROM head").fetchall())
        try:
            plain = {key: json.loads(value) for key, value in rows.items()}
            self.identity = str(plain["identity"])
            self.created = str(plain["created"])
            self.head = Head(
                command=plain["command"],
                settings=plain["settings"],
                model_path=plain["model_path"],
                model_sha256=plain["model_sha256"],
                version=plain["version"],
                argv=tuple(plain["argv"]),
                folder=plain["folder"],
                input_shape=tuple(plain["input_shape"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(damaged(path, f"its head lacks {error}")) from None
        with speaking(path):
            keys = connection.execute("SELECT key FROM instances ORDER BY position").fetchall()
        if identity(self.head, [key for (key,) in keys]) != self.identity:
            raise RunError(damaged(path, "its head and instances do not fit its identity"))

    @property
    def name(self) -> str:
        """Of the run."""
        return self.path.stem

    @classmethod
    def reading(cls, path: Path) -> Store:
        """A run that is there, to be read only.

        Raises:
            RunError: if it cannot be.
        """
        connection = connect(path, write=False)
        try:
            return cls(path, connection)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def writing(cls, path: Path, head: Head, instances: Sequence[Instance]) -> Store:
        """The run of this name, made if it is not there; refused if it is another one.

        Raises:
            RunError: also where another process writes it.
        """
        lock = Lock(path)
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(path, write=True)
            base = head.base
            keys = [instance.key(base) for instance in instances]
            with speaking(path):
                if is_empty(connection):
                    make(connection, head, instances, keys)
            store = cls(path, connection, lock)
            store.refuse_other(head, identity(head, keys))
        except BaseException:
            if connection is not None:
                connection.close()
            lock.release()
            raise
        return store

    def refuse_other(self, head: Head, wanted: str) -> None:
        """Refuse to mix two runs in one file."""
        if wanted == self.identity:
            return
        why = "; ".join(self.head.differences(head)[:4]) or "the inputs"
        raise RunError(
            f"run {self.name} is another run: it differs in {why}. Choose another name with "
            "--run; results that both share are taken over"
        )

    def close(self, outcome: str | None = None) -> None:
        """Put all into the one file, and let others write it."""
        with suppress(sqlite3.Error):
            if self.lock is not None and self.session:
                self.connection.execute(
                    "UPDATE sessions SET ended = ?, outcome = ? WHERE id = ?",
                    (utc(), outcome, self.session),
                )
            if self.lock is not None:
                # Out of WAL mode the one file is all there is, and readers make no others. Refused
                # while somebody reads; then the next writer does it.
                self.connection.execute("PRAGMA journal_mode = DELETE")
        self.connection.close()
        if self.lock is not None:
            self.lock.release()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        with speaking(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have undone it already
                    self.connection.execute("ROLLBACK")
                raise

    def begin(self, workers: str) -> None:
        """A stretch of work starts."""
        self.started = time.monotonic()
        with self.transaction() as connection:
            found = connection.execute(
                "INSERT INTO sessions (started, host, pid, workers) VALUES (?, ?, ?, ?)",
                (utc(), socket.gethostname(), os.getpid(), workers),
            )
            self.session = int(found.lastrowid or 0)

    def add(self, answers: Sequence[Answer], *, taken_from: str | None = None) -> None:
        """Write results in one transaction; after it they survive the end of the process.

        Raises:
            RunError: if they cannot be written, as on a full disk.
        """
        rows, blobs = [], []
        for answer in answers:
            text = RECORD.encode(dict(answer.record))
            verdict = answer.record.get("verdict")
            check = checksum(answer.position, text.encode())
            rows.append((answer.position, self.session, taken_from, verdict, text, check))
            blobs += [blob_row(answer.position, *item) for item in answer.blobs.items()]
        with self.transaction() as connection:
            connection.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?)", blobs)
            connection.execute(
                "UPDATE sessions SET seconds = ? WHERE id = ?",
                (time.monotonic() - self.started, self.session),
            )

    def attach(self, position: int, name: str, blob: Blob) -> None:
        """Put bytes beside a result, in place of those of the same name."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?)",
                blob_row(position, name, blob),
            )

    def conclude(self, conclusion: Mapping[str, object]) -> None:
        """Keep what follows from all results together, in plain values."""
        self.attach(WHOLE, CONCLUSION, Blob(RECORD.encode(dict(conclusion)).encode()))

    def conclusion(self) -> dict[str, object]:
        """What `conclude` was given; empty before that."""
        blob = self.blobs(WHOLE).get(CONCLUSION)
        found: dict[str, object] = {} if blob is None else json.loads(blob.data)
        return found

    def count(self) -> int:
        """Number of instances."""
        with speaking(self.path):
            return int(self.connection.execute("SELECT count(*) FROM instances").fetchone()[0])

    def done(self) -> set[int]:
        """Positions that have a result."""
        with speaking(self.path):
            return {row[0] for row in self.connection.execute("SELECT position FROM results")}

    def verdicts(self) -> dict[str, int]:
        """How many results of each verdict there are."""
        with speaking(self.path):
            return dict(
                self.connection.execute(
                    "SELECT coalesce(verdict, 'none'), count(*) FROM results GROUP BY 1"
                ).fetchall()
            )

    def keys(self) -> dict[str, int]:
        """Position of the result of each instance's key."""
        with speaking(self.path):
            return dict(
                self.connection.execute(
                    "SELECT key, position FROM instances JOIN results USING (position)"
                ).fetchall()
            )

    def open_instances(self) -> list[tuple[int, int, str]]:
        """Position, index and key of each instance without a result, in order."""
        with speaking(self.path):
            return self.connection.execute(
                "SELECT position, idx, key FROM instances "
                "WHERE position NOT IN (SELECT position FROM results) ORDER BY position"
            ).fetchall()

    def contents(self) -> list[tuple[int, int, str]]:
        """Position, index and hash of the content of each instance, in order."""
        with speaking(self.path):
            return self.connection.execute(
                "SELECT position, idx, content_sha256 FROM instances ORDER BY position"
            ).fetchall()

    def answers(
        self, positions: Iterable[int] | None = None, *, blobs: bool = False
    ) -> Iterator[Answer]:
        """Results in the order of the instances, each checked.

        Args:
            positions: only these, in this order.
            blobs: whether with their bytes.

        Raises:
            RunError: if one is not what was written.
        """
        with speaking(self.path):
            if positions is None:
                rows: Iterable[tuple[int, str, str]] = self.connection.execute(
                    f"{ROW} ORDER BY position"
                )
            else:
                one = f"{ROW} WHERE position = ?"
                rows = (self.connection.execute(one, (p,)).fetchone() for p in positions)
            for position, text, check in rows:
                if checksum(position, text.encode()) != check:
                    raise RunError(damaged(self.path, f"result {position} is not what was written"))
                yield Answer(position, json.loads(text), self.blobs(position) if blobs else {})

    def blobs(self, position: int) -> dict[str, Blob]:
        """The bytes beside a result, each checked."""
        with speaking(self.path):
            rows = self.connection.execute(
                "SELECT name, dtype, shape, data, check_ FROM blobs WHERE position = ?", (position,)
            ).fetchall()
        for name, _, _, data, check in rows:
            if checksum(position, data) != check:
                raise RunError(damaged(self.path, f"{name} of {position} is not what was written"))
        return {
            name: Blob(data, dtype, None if shape is None else tuple(json.loads(shape)))
            for name, dtype, shape, data, _ in rows
        }

    def input(self, position: int) -> Blob | None:
        """The input of an instance, if the run kept it."""
        with speaking(self.path):
            row = self.connection.execute(
                "SELECT x, content_sha256 FROM instances WHERE position = ?", (position,)
            ).fetchone()
        if row is None or row[0] is None:
            return None
        if hashlib.sha256(row[0]).hexdigest() != row[1]:
            raise RunError(damaged(self.path, f"input {position} is not what was written"))
        return Blob(row[0], "<f4", self.head.input_shape)

    def stretches(self) -> list[Stretch]:
        """The processes that worked on it, in order."""
        with speaking(self.path):
            rows = self.connection.execute(
                "SELECT started, ended, seconds, host, pid, workers, outcome FROM sessions "
                "ORDER BY id"
            ).fetchall()
        return [Stretch(*row) for row in rows]


def make(
    connection: sqlite3.Connection,
    head: Head,
    instances: Sequence[Instance],
    keys: Sequence[str],
) -> None:
    """Write tables, head and instances in one transaction."""
    kept = bool(head.input_shape) and sum(len(i.content) for i in instances) <= KEPT_INPUTS
    plain = {
        "identity": identity(head, keys),
        "created": utc(),
        "command": head.command,
        "settings": dict(head.settings),
        "model_path": head.model_path,
        "model_sha256": head.model_sha256,
        "version": head.version,
        "argv": list(head.argv),
        "folder": head.folder,
        "input_shape": list(head.input_shape),
    }
    rows = [
        (p, i.index, i.label, i.eps, i.content_sha256, key, i.content if kept else None)
        for p, (i, key) in enumerate(zip(instances, keys, strict=True))
    ]
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.executemany(
            "INSERT INTO head VALUES (?, ?)",
            [(key, json.dumps(value, allow_nan=False)) for key, value in plain.items()],
        )
        connection.executemany("INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def blob_row(position: int, name: str, blob: Blob) -> tuple[object, ...]:
    """A blob as the table holds it."""
    shape = None if blob.shape is None else json.dumps(list(blob.shape))
    return position, name, blob.dtype, shape, blob.data, checksum(position, blob.data)


def checksum(position: int, data: bytes) -> str:
    """Of what is stored at a position."""
    return hashlib.blake2b(b"%d|" % position + data, digest_size=8).hexdigest()


def utc() -> str:
    """Now, for people; nothing is computed from it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
