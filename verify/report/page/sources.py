"""What a page is made from: records with the file that each came from, pictures, checks.

Nothing that was read is trusted: a field may be missing, or hold anything that JSON can hold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError
from verify.report.records import Record
from verify.report.writers import read_json

Row = Mapping[str, object]
BRACKETED = ("radius", "compare")


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One input and its counterexample, to be drawn.

    Attributes:
        clean, adversarial: in model input units, of the same shape; the latter None where there is
            none.
        became: class that the file gives the counterexample in ONNX Runtime; None if not known.
    """

    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32] | None = None
    became: int | None = None


@dataclass(frozen=True, slots=True)
class CertificateCheck:
    """What the independent checker said of one certificate.

    Attributes:
        name: of its file.
        accepted: whether it proves what it claims.
        words: the checker's own.
        seconds: that the check took.
    """

    name: str
    accepted: bool
    words: str
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One record.

    Attributes:
        name: of the file or run.
        sha256: of the file's bytes; None of a run.
        record: what it holds.
        pictures: by the result's index.
        again: the command line that gives it again, or empty.
    """

    name: str
    sha256: str | None
    record: Record
    pictures: Mapping[object, Shown] = field(default_factory=dict)
    again: str = ""

    @classmethod
    def read(cls, path: str | Path) -> Source:
        """A file that `--json` of a command wrote.

        Raises:
            DataError: if it is no record.
        """
        try:
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"record {path} cannot be read: {error.strerror}.") from None
        record = read_json(path)
        # Beside every figure then stands if proofs hold in real arithmetic only.
        return cls(Path(path).name + record.remark, digest, record)

    @property
    def model(self) -> str:
        """The model's name, for people."""
        path = self.record.model.path
        if isinstance(path, str):
            return Path(path).name
        # A list of properties names a model in each line.
        return "models of a list" if self.record.command == "prop" else "model in memory"

    @property
    def bracketed(self) -> bool:
        """Whether its results are brackets."""
        return any("radius_certified" in row for row in self.record.results)

    @property
    def labelled(self) -> bool:
        """Whether labels are those of the data; else a model is compared with itself."""
        return self.record.settings.get("labels") != "predicted"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the page is to show.

    Attributes:
        title: of the page.
        eps: radius of the headline; None: that of a `certify` record, else a median.
        worst: how many inputs to show as pictures, and in the table.
        checks: certificates that were checked.
    """

    title: str = "Robustness report"
    eps: float | None = None
    worst: int = 12
    checks: tuple[CertificateCheck, ...] = ()


def number(row: Row, key: str) -> float | None:
    """A finite number, or None: also where something else stands there."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def inner(row: Row, key: str, name: str) -> float | None:
    """`number` of a nested object."""
    table = row.get(key)
    return number(table, name) if isinstance(table, Mapping) else None


def text(value: object) -> str:
    """Anything as words; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
