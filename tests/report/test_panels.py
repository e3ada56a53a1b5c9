"""Parts of the page about commands without a radius: right counts, nothing taken as markup."""

from __future__ import annotations

import re

import pytest

from tests.report.test_page import HOSTILE, STAMP, Outline
from verify.report import make_record
from verify.report.page import Source, Wishes, build_page, latex_tables, markdown_tables
from verify.report.page.panels import panels

COMMANDS = {
    "spatial": "searched",
    "transfer": "transfer",
    "ood": "ood",
    "prop": "properties",
    "confidence": "assured",
    "uncertainty": "doubted",
}


def source(command: str, rows: list[dict[str, object]], summary: object = None) -> Source:
    given = summary if isinstance(summary, dict) else {}
    made = make_record(command, rows, settings={"eps": 0.02}, model=STAMP, summary=given)
    return Source(command, None, made)


def cells(one: Source) -> list[tuple[str, ...]]:
    """Rows of all tables of the only panel."""
    (panel,) = panels([one])
    assert panel.key == COMMANDS[one.record.command]
    return [row for table in panel.tables for row in table.rows]


def moved(index: int, label: int, verdict: str, share: float | None, said: int) -> dict:
    return {"index": index, "label": label, "predicted": said, "verdict": verdict} | {
        "share_attacked": share
    }


def test_images_that_were_wrong_already_were_not_changed() -> None:
    """By class: right, still right, changed, and the least share that changes a right answer."""
    rows = [
        moved(0, 3, "falsified", 0.5, 3),
        moved(1, 3, "unknown", None, 3),
        moved(2, 3, "falsified", 0.0, 4),
        moved(3, 10, "falsified", 0.25, 10),
    ]
    assert cells(source("spatial", rows)) == [
        ("spatial", "all", "4", "75.0 %", "25.0 %", "2", "0.250"),
        ("spatial", "3", "3", "66.6 %", "33.3 %", "1", "0.500"),
        ("spatial", "10", "1", "100.0 %", "0.0 %", "1", "0.250"),
    ]


def test_a_matrix_has_its_rates_where_they_belong() -> None:
    """Rows are what examples were made against; a cell that is not there is a dash."""
    rows = [
        {"index": 0, "attack": "pgd", "source": "a", "target": "b", "rate": 0.5}
        | {"low": 0.25, "high": 0.75},
        {"index": 1, "attack": "pgd", "source": "b", "target": "a", "rate": 0.125}
        | {"low": 0, "high": 0.5},
    ]
    assert cells(source("transfer", rows)) == [
        ("a", "50.0 (25–75)", "–"),
        ("b", "–", "12.5 (0–50)"),
    ]


def test_answers_are_counted_and_listed() -> None:
    """The medians are of each answer's own times."""
    rows = [
        {"index": i, "model": "/x/m.onnx", "property": f"/y/p{i}.vnnlib", "answer": answer}
        | {"seconds": seconds, "method": "input-split", "verdict": None}
        for i, (answer, seconds) in enumerate([("unsat", 1.0), ("unsat", 3.0), ("sat", 0.25)])
    ]
    found = cells(source("prop", rows))
    assert found[:2] == [("unsat", "2", "3 s", "4 s"), ("sat", "1", "250 ms", "250 ms")]
    assert found[2] == ("p0.vnnlib", "m.onnx", "unsat", "input-split", "1 s")


def test_right_and_wrong_predictions_are_averaged_apart() -> None:
    """Then the most uncertain inputs, the most uncertain first."""
    rows = [
        {"index": i, "label": 1, "predicted": said, "confidence": 0.5}
        | {"total": total, "aleatoric": total / 2, "epistemic": total / 2}
        for i, (said, total) in enumerate([(1, 0.1), (1, 0.3), (2, 1.0)])
    ]
    found = cells(source("uncertainty", rows))
    assert found[1:3] == [("right", "2", "0.2", "0.1", "0.1"), ("wrong", "1", "1", "0.5", "0.5")]
    assert [row[0] for row in found[3:]] == ["2", "1", "0"]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_text_of_a_file_becomes_markup(command: str) -> None:
    """Whatever stands in any field: text of the page, and of tables for papers."""
    keys = ("attack", "source", "target", "ood", "method", "property", "model", "answer", "reason")
    row = dict.fromkeys((*keys, "label", "predicted", "index", "parameters", "rate"), HOSTILE)
    span = {"clean": 0.1, "certified_low": HOSTILE}
    summary = {"accuracy": span, "ood": {"auroc_entropy": span}}
    one = source(command, [{**row, "verdict": "falsified"}], summary)
    page = build_page([one], Wishes())
    assert "<script" not in page
    assert "<img src=x" not in page
    assert COMMANDS[command] in {a.get("id") for _, a in Outline(page).tags}
    assert not re.search(r"(?<!\\)<", markdown_tables([one], Wishes()))
    assert r"\input" not in latex_tables([one], Wishes())


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_of_any_shape_make_a_panel(command: str) -> None:
    """A file may hold whatever JSON can."""
    odd: list[object] = ["x", [1], {"a": 1}, True, 10**400, -1, None]
    keys = ("seconds", "label", "share_attacked", "rate", "auroc", "total", "answer", "attack")
    rows = [{"index": 0, key: value} for key in keys for value in odd]
    one = source(command, rows, {"accuracy": 3, "ece": {"clean": "x"}, "ood": [1]})
    assert "To repeat it" in build_page([one], Wishes())
