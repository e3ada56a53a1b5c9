"""Records to files and back; a file is either whole or untouched."""

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

from verify.errors import DataError, SettingError
from verify.report.records import RECORD_FIELDS, RESULT_FIELDS, SCHEMA, ModelStamp, Record


def json_text(record: Record) -> str:
    """The record as JSON text, with a line end."""
    return json.dumps(record.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def csv_text(record: Record) -> str:
    """The results as CSV text: a heading, then one line each; null is an empty cell."""
    rows = record.rows()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows[0].keys() if rows else RESULT_FIELDS)
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return stream.getvalue()


def write_json(record: Record, path: str | Path) -> None:
    """Write the whole record.

    Raises:
        SettingError: if the file cannot be written.
    """
    write_whole(path, json_text(record).encode())


def write_csv(record: Record, path: str | Path) -> None:
    """Write the results, one line each, without the record's head.

    Raises:
        SettingError: if the file cannot be written.
    """
    write_whole(path, csv_text(record).encode())


def parquet_bytes(record: Record) -> bytes:
    """The results as Parquet, the record's head as JSON in the file's metadata under "tashika".

    Columns are those of the CSV; lists are JSON text there too, so that each column has one type.

    Raises:
        SettingError: if pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SettingError(
            "Parquet needs pyarrow, which is not installed; pip install 'tashika[parquet]', or "
            "write CSV"
        ) from None
    rows = [
        {k: json.dumps(v) if isinstance(v, list | Mapping) else v for k, v in row.items()}
        for row in record.rows()
    ]
    table = pyarrow.Table.from_pylist(rows)
    head = {key: value for key, value in record.to_dict().items() if key != "results"}
    table = table.replace_schema_metadata({"tashika": json.dumps(head, allow_nan=False)})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def read_json(path: str | Path) -> Record:
    """A record that `write_json` wrote.

    Raises:
        DataError: if the file cannot be read or holds no record of this schema.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"record {path} cannot be read: {error}. Check the file.") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise DataError(
            f"record {path} has schema {schema}, expected {SCHEMA}. "
            "Write it again with this version of the tool."
        )
    missing = [field for field in RECORD_FIELDS if field not in found]
    if missing:
        raise DataError(f"record {path} lacks {', '.join(missing)}. Write it again.")
    rows, model = found["results"], found["model"]
    tables = (found["settings"], found["summary"], model)
    if (
        not all(isinstance(table, dict) for table in tables)
        or not isinstance(rows, list)
        or not all(isinstance(row, dict) for row in rows)
    ):
        raise DataError(f"record {path} does not have the form of the schema. Write it again.")
    return Record(
        command=str(found["command"]),
        settings=found["settings"],
        model=ModelStamp(model.get("path"), model.get("sha256")),
        summary=found["summary"],
        results=tuple(rows),
        version=str(found["version"]),
    )


def write_whole(path: str | Path, content: bytes) -> None:
    """Put `content` at `path` in one step: readers see the old file or the new one, never a part.

    Raises:
        SettingError: if the file cannot be written.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(content)  # a device or a pipe, such as /dev/stdout, is not replaced
            return
        target = target.resolve()  # a link stays a link
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            draft.write_bytes(content)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise SettingError(
            f"{path} cannot be written: {error.strerror}. Name a file in a folder that is there "
            "and may be written."
        ) from None


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, list | Mapping) else value
