"""The one record that every command writes; docs/record-schema.md says what each field means.

A record holds plain values only (text, numbers, booleans, null, lists and mappings of them), so
that what is written, what is printed and what Python gets are the same thing.
"""

import dataclasses
import enum
import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from verify.errors import InternalError, ModelError
from verify.version import __version__

SCHEMA = 1
TOOL = "tashika"

RECORD_FIELDS = (
    "schema",
    "tool",
    "version",
    "command",
    "settings",
    "model",
    "summary",
    "results",
)
# Each result has these, null where a value does not apply or is not known.
RESULT_FIELDS = (
    "index",
    "label",
    "verdict",
    "margin",
    "eps",
    "norm",
    "method",
    "seconds",
    "reason",
)
BRACKET_FIELDS = ("radius_certified", "radius_attacked")
VERDICTS = ("verified", "falsified", "unknown")
REAL_ONLY = "verified (real arithmetic)"
"""Proved of the real-valued network only: counted apart, where there are any."""


@runtime_checkable
class Recordable(Protocol):
    """A result that can tell its own row."""

    def to_record(self) -> Mapping[str, object]:
        """Fields of the record schema; values need not be plain yet."""
        ...


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """Which model a record speaks of.

    Attributes:
        path: as given, or None for a model that is in memory only.
        sha256: of the file's bytes, in hexadecimal; None without a file.
    """

    path: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Record:
    """All that one command found, in plain values.

    Attributes:
        command: name of the command, such as "certify".
        settings: every option that decided the outcome, seed included.
        model: which model.
        summary: counts over the results, and the wall-clock seconds.
        results: one mapping per input, in the order of the inputs.
    """

    command: str
    settings: Mapping[str, object]
    model: ModelStamp
    summary: Mapping[str, object]
    results: tuple[Mapping[str, object], ...]
    version: str = __version__

    def to_dict(self) -> dict[str, object]:
        """The record as JSON holds it, fields in the order of the schema."""
        return {
            "schema": SCHEMA,
            "tool": TOOL,
            "version": self.version,
            "command": self.command,
            "settings": dict(self.settings),
            "model": {"path": self.model.path, "sha256": self.model.sha256},
            "summary": dict(self.summary),
            "results": [dict(row) for row in self.results],
        }

    @property
    def remark(self) -> str:
        """What stands behind "certified", where proofs hold in real arithmetic only."""
        return (
            REAL_ONLY.removeprefix("verified") if self.settings.get("semantics") == "real" else ""
        )

    def rows(self) -> list[dict[str, object]]:
        """One flat mapping per result, all with the same keys: `pandas.DataFrame(record.rows())`.

        Nested mappings become `outer.inner`; lists stay as they are.
        """
        flat = [_flattened(row) for row in self.results]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        return [{key: row.get(key) for key in columns} for row in flat]


def stamp_model(path: str | Path | None) -> ModelStamp:
    """The path as given and the hash of its bytes; empty without a path.

    Raises:
        ModelError: if the file cannot be read.
    """
    if path is None:
        return ModelStamp(None, None)
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except OSError as error:
        raise ModelError(
            f"model {path} cannot be read: {error.strerror}. Check the path."
        ) from None
    return ModelStamp(str(path), digest.hexdigest())


def make_record(
    command: str,
    results: Iterable[Mapping[str, object] | Recordable],
    *,
    settings: Mapping[str, object],
    model: ModelStamp,
    seconds: float | None = None,
    summary: Mapping[str, object] | None = None,
) -> Record:
    """The record of one command.

    Args:
        results: one per input: a mapping, or an object that tells one. Fields beyond the schema's
            are kept, after those.
        seconds: wall-clock time of the whole command.
        summary: what the command wants said beside the counts.

    Raises:
        InternalError: if a result has no index, an unknown verdict, or a certified radius above the
            attacked one: none of these may reach a user.
    """
    rows = tuple(_row(result) for result in results)
    counts = _summary(rows)
    counts["seconds"] = _plain(seconds)
    counts.update({key: _plain(value, key) for key, value in (summary or {}).items()})
    return Record(command, plain_settings(settings), model, counts, rows)


def plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings as a record holds them, in plain values."""
    return {key: _plain(value, key) for key, value in settings.items()}


def plain_row(result: Mapping[str, object] | Recordable) -> dict[str, object]:
    """One result as a record holds it: the fields of the schema, in plain values.

    Raises:
        InternalError: as `make_record`.
    """
    return _row(result)


def _row(result: Mapping[str, object] | Recordable) -> dict[str, object]:
    given = result.to_record() if isinstance(result, Recordable) else result
    row: dict[str, object] = dict.fromkeys(RESULT_FIELDS)
    row.update({key: _plain(value, key) for key, value in given.items()})
    if row["index"] is None:
        raise InternalError(f"a result has no index: {row}. Please report this.")
    if row["verdict"] not in {*VERDICTS, REAL_ONLY, None}:
        raise InternalError(
            f"result {row['index']} has verdict {row['verdict']!r}, expected one of "
            f"{', '.join(VERDICTS)} or none. Please report this."
        )
    low, high = row.get("radius_certified"), row.get("radius_attacked")
    crossed = isinstance(low, float) and isinstance(high, float) and low > high
    # What holds in real arithmetic may be executed otherwise, by rounding; the verdict says so.
    if crossed and row["verdict"] != REAL_ONLY:
        raise InternalError(
            f"result {row['index']} is certified up to {low} but was attacked at {high}. "
            "One of the two is wrong: do not use either, and please report this."
        )
    return row


def _summary(rows: tuple[dict[str, object], ...]) -> dict[str, object]:
    """Counts of verdicts and, where there are brackets, the medians of their ends."""
    found: dict[str, object] = {"count": len(rows)}
    for verdict in VERDICTS:
        found[verdict] = sum(row["verdict"] == verdict for row in rows)
    if real := sum(row["verdict"] == REAL_ONLY for row in rows):
        found[REAL_ONLY] = real
    for field in BRACKET_FIELDS:
        ends = [row[field] for row in rows if field in row]
        if ends:
            # No attack succeeded: the end lies beyond every number, wherever it lies.
            known = [float(end) if isinstance(end, int | float) else math.inf for end in ends]
            found[f"{field}_median"] = _plain(statistics.median(known))
    return found


def _plain(value: object, key: str = "") -> object:
    """`value` as JSON knows it: not-a-number and infinity become null, a norm becomes its name."""
    if isinstance(value, enum.Enum):
        value = value.value if isinstance(value.value, str) else value.name.lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # tensors and arrays of any library, scalars included
        value = value.tolist()
    if key == "norm" and isinstance(value, int | float) and not math.isnan(value):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return {str(inner): _plain(item, str(inner)) for inner, item in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)  # the same record from the same run
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _flattened(row: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat.update(_flattened(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
