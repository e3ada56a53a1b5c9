"""Records as files: whole, readable again, refused in one line where they cannot be written."""

import csv
import json
import os
from pathlib import Path

import pytest

from verify.errors import DataError, SettingError
from verify.report import ModelStamp, Record, make_record, read_json, write_csv, write_json, writers

ROWS = (
    {"index": 0, "verdict": "verified", "reason": 'a "quoted", text\nof two lines', "eps": 0.1},
    {"index": 1, "verdict": "unknown", "found": True, "inner": {"steps": [1, 2]}},
)


def record(*rows: dict[str, object]) -> Record:
    model = ModelStamp("m.onnx", "00ff")
    return make_record("certify", rows, settings={"eps": 0.1}, model=model, seconds=0.5)


def test_json_comes_back_equal(tmp_path: Path) -> None:
    """What was written is what is read."""
    write_json(record(*ROWS), tmp_path / "r.json")
    assert read_json(tmp_path / "r.json") == record(*ROWS)
    assert json.loads((tmp_path / "r.json").read_text())["schema"] == 1


def test_csv_has_a_heading_and_a_line_for_each_result(tmp_path: Path) -> None:
    """Python's own reader finds every field; null is empty, lists are JSON."""
    write_csv(record(*ROWS), tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["reason"] == 'a "quoted", text\nof two lines'
    assert (first["eps"], first["margin"], first["found"]) == ("0.1", "", "")
    assert (second["found"], json.loads(second["inner.steps"])) == ("true", [1, 2])


def test_csv_without_results_still_names_the_fields(tmp_path: Path) -> None:
    """The heading alone."""
    write_csv(record(), tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().startswith("index,label,verdict,margin")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a part of the new file nor a draft is left behind."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "r.json").write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SettingError, match="r.json cannot be written: No space left on device"):
        write_json(record(*ROWS), tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """So is a folder in the place of the file."""
    with pytest.raises(SettingError, match="cannot be written: No such file or directory"):
        write_json(record(), tmp_path / "gone" / "r.json")
    with pytest.raises(SettingError, match="cannot be written: Is a directory"):
        write_csv(record(), tmp_path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it points at is what changes."""
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_json(record(), tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "real.json") == record()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """`--json /dev/stdout` must not put a file where the device was."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(record(), pipe)
        assert os.read(reader, 100_000).decode() == writers.json_text(record())
        assert pipe.is_fifo()
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "has schema None, expected 1"),
        ('{"schema": 2}', "has schema 2, expected 1"),
        ('{"schema": 1, "tool": "tashika"}', "lacks version, command, settings"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str, match: str) -> None:
    """One line that names the file."""
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(DataError, match=match):
        read_json(tmp_path / "r.json")


@pytest.mark.parametrize("field", ["settings", "summary", "model", "results"])
def test_a_record_of_another_form_is_refused(tmp_path: Path, field: str) -> None:
    """A field of the wrong type is found when reading, not when it is used."""
    found = record(*ROWS).to_dict()
    found[field] = [3]
    (tmp_path / "r.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="does not have the form of the schema"):
        read_json(tmp_path / "r.json")


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(DataError, match="gone.json cannot be read"):
        read_json(tmp_path / "gone.json")
