"""The record: its fields, plain values, counts, and what it refuses to hold."""

import enum
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from verify.errors import InternalError, ModelError
from verify.report import (
    BRACKET_FIELDS,
    RECORD_FIELDS,
    RESULT_FIELDS,
    ModelStamp,
    Record,
    make_record,
    stamp_model,
)
from verify.values import result as values
from verify.values.result import Bracket, Result
from verify.version import __version__

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "record-schema.md"
NO_MODEL = ModelStamp(None, None)
OPTIONAL = {"predicted", "distance", "attack"}  # known to some commands only


class Verdict(enum.Enum):
    VERIFIED = enum.auto()
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """A result as another part of the program would hold it."""

    index: int
    margin: torch.Tensor

    def to_record(self) -> Mapping[str, object]:
        return {"index": self.index, "verdict": Verdict.VERIFIED, "margin": self.margin}


def record_of(*rows: Mapping[str, object]) -> Record:
    return make_record("radius", rows, settings={}, model=NO_MODEL, seconds=1.5)


def documented(heading: str) -> list[str]:
    """Field names in the tables below a heading of docs/record-schema.md."""
    section = DOCUMENT.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)


def test_the_document_names_the_fields_that_are_written() -> None:
    """docs/record-schema.md and a written record agree, in names and in order."""
    bracket = {"index": 0, "radius_certified": 0.1, "radius_attacked": 0.2}
    found = json.loads(json.dumps(record_of(bracket).to_dict()))
    assert documented("The record") == list(found)
    assert [f for f in documented("Each result") if f not in OPTIONAL] == list(found["results"][0])
    assert sorted(documented("The summary")) == sorted(found["summary"])


def test_the_document_names_every_field_of_the_librarys_own_results() -> None:
    """A field of a result or a bracket that nobody documented is noticed here."""
    result = Result(0, 1, 1, values.Verdict.VERIFIED, 0.5, 0.1, math.inf, "crown", 0.1)
    bracket = Bracket(0, 1, 1, 0.1, math.inf, 0.5, math.inf, "crown", "", 0.1)
    record = make_record("radius", [result, bracket], settings={}, model=NO_MODEL)
    found = {key for row in record.results for key in row}
    assert found == set(documented("Each result"))
    assert record.results[1]["radius_attacked"] is None
    assert record.results[0]["norm"] == "inf"


def test_the_constants_name_the_fields_that_are_written() -> None:
    """The names that other code uses are the names in the file."""
    found = record_of({"index": 0, "radius_certified": 0.1, "radius_attacked": 0.2}).to_dict()
    assert tuple(found) == RECORD_FIELDS
    row = record_of({"index": 0, "radius_certified": 0.1, "radius_attacked": 0.2}).results[0]
    assert tuple(row) == RESULT_FIELDS + BRACKET_FIELDS


def test_the_documents_example_is_a_record() -> None:
    """The example has the fields that it is an example of, and the present version."""
    match = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert match is not None
    example = json.loads(match[1])
    assert tuple(example) == RECORD_FIELDS
    assert tuple(example["results"][0]) == RESULT_FIELDS + BRACKET_FIELDS
    assert example["version"] == __version__


def test_results_tell_their_own_rows() -> None:
    """An object with `to_record` and a mapping may stand side by side; enums become words."""
    answers = [
        Answer(3, torch.tensor(0.5, dtype=torch.float64)),
        {"index": 4, "verdict": Verdict.UNKNOWN},
    ]
    record = make_record("certify", answers, settings={}, model=NO_MODEL)
    assert [row["verdict"] for row in record.results] == ["verified", "unknown"]
    assert record.results[0]["margin"] == 0.5
    assert record.summary == {
        "count": 2, "verified": 1, "falsified": 0, "unknown": 1, "seconds": None,
    }  # fmt: skip


def test_values_become_plain() -> None:
    """What JSON does not know becomes what it does; infinities and NaN become null."""
    row = record_of(
        {
            "index": np.int64(2), "margin": math.nan, "eps": math.inf, "x": np.array([1.5, np.inf]),
            "path": Path("a/b"), "inner": {"p": torch.tensor([1, 2])}, "chosen": {3, 1, 2},
            "norm": math.inf, "pair": (1, True),
        }
    ).results[0]  # fmt: skip
    assert json.loads(json.dumps(row, allow_nan=False)) == {
        **dict.fromkeys(RESULT_FIELDS), "index": 2, "x": [1.5, None], "path": "a/b",
        "inner": {"p": [1, 2]}, "chosen": [1, 2, 3], "norm": "inf", "pair": [1, True],
    }  # fmt: skip


@pytest.mark.parametrize(("norm", "name"), [(math.inf, "inf"), (2.0, "2"), (1, "1"), ("2", "2")])
def test_a_norm_goes_by_its_name(norm: object, name: str) -> None:
    """In results and in settings, however deep."""
    settings = {"norm": norm, "region": {"norm": norm}}
    record = make_record("certify", [{"index": 0, "norm": norm}], settings=settings, model=NO_MODEL)
    assert record.results[0]["norm"] == name
    assert record.settings == {"norm": name, "region": {"norm": name}}


def test_medians_count_a_failed_attack_as_infinite() -> None:
    """Two of three attacked radii known: the median is the larger of them; one of three: null."""
    rows = [
        {"index": 0, "radius_certified": 0.1, "radius_attacked": 0.2},
        {"index": 1, "radius_certified": 0.3, "radius_attacked": 0.4},
        {"index": 2, "radius_certified": 0.2, "radius_attacked": math.inf},
    ]
    assert record_of(*rows).summary["radius_certified_median"] == 0.2
    assert record_of(*rows).summary["radius_attacked_median"] == 0.4
    assert record_of(rows[0], rows[2], rows[2]).summary["radius_attacked_median"] is None


def test_rows_make_a_data_frame() -> None:
    """Rows share their columns, nested mappings are flat, absent values are null."""
    rows = record_of({"index": 0, "attack": {"steps": 5}}, {"index": 1, "eps": 0.5}).rows()
    frame = pd.DataFrame(rows)
    assert list(frame["index"]) == [0, 1]
    assert frame["attack.steps"][0] == 5
    assert rows[1]["attack.steps"] is None
    assert rows[0].keys() == rows[1].keys()


def test_a_certified_radius_above_the_attacked_one_is_refused() -> None:
    """The law that they never cross is kept at the door."""
    with pytest.raises(InternalError, match=r"result 7 is certified up to 0\.3 but .* at 0\.2"):
        record_of({"index": 7, "radius_certified": 0.3, "radius_attacked": 0.2})
    record_of({"index": 7, "radius_certified": 0.2, "radius_attacked": 0.2})


@pytest.mark.parametrize(
    ("row", "match"),
    [({"label": 3}, "has no index"), ({"index": 1, "verdict": "safe"}, "has verdict 'safe'")],
)
def test_a_malformed_result_is_refused(row: Mapping[str, object], match: str) -> None:
    """A verdict of another name or a row without number is a bug of ours, found at once."""
    with pytest.raises(InternalError, match=match):
        record_of(row)


def test_a_model_is_stamped_with_its_hash(tmp_path: Path) -> None:
    """The hash is hashlib's of the whole content, also beyond one block."""
    content = bytes(range(256)) * 5000
    (tmp_path / "m.onnx").write_bytes(content)
    stamp = stamp_model(tmp_path / "m.onnx")
    assert stamp == ModelStamp(str(tmp_path / "m.onnx"), hashlib.sha256(content).hexdigest())
    assert stamp_model(None) == NO_MODEL


def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """One line with the path."""
    with pytest.raises(ModelError, match="model .*gone.onnx cannot be read: No such file"):
        stamp_model(tmp_path / "gone.onnx")
