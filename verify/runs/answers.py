"""What a run holds: results with bytes beside them, and who worked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes beside a result: a counterexample, a picture, a certificate.

    Attributes:
        data: as they are.
        dtype: such as "<f4" for an array, None for a file's bytes.
        shape: of the array, else None.
    """

    data: bytes
    dtype: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one instance.

    Attributes:
        position: of the instance in the run, from 0.
        record: one result of the record schema, in plain values.
        blobs: by name; "witness" is the counterexample.
    """

    position: int
    record: Mapping[str, object]
    blobs: Mapping[str, Blob] = field(default_factory=dict)

    def moved(self, position: int) -> Answer:
        """The same at another position."""
        return Answer(position, self.record, self.blobs)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One process that worked on the run, from its start to its end.

    Attributes:
        started, ended: UTC as text, for people: the clock may have jumped. `ended` is None if it
            was killed, or still works.
        seconds: it worked until its last result, by a clock that does not jump.
        workers: in words.
        outcome: "done", "interrupted", the error that ended it, or None.
    """

    started: str
    ended: str | None
    seconds: float
    host: str
    pid: int
    workers: str
    outcome: str | None
