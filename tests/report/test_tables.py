"""What the console shows of a record."""

import io

from rich.console import Console

from verify.report import ModelStamp, Record, make_record, print_record, summary_text


def record(count: int, **fields: object) -> Record:
    rows = [
        {"index": i, "verdict": "verified", "norm": "inf", "margin": i / 3, **fields}
        for i in range(count)
    ]
    return make_record("certify", rows, settings={}, model=ModelStamp("m.onnx", ""), seconds=2)


def shown(found: Record, **options: int) -> str:
    stream = io.StringIO()
    print_record(found, console=Console(file=stream, width=100), **options)
    return stream.getvalue()


def test_each_result_has_a_line_and_the_end_sums_up() -> None:
    """Numbers with four figures; empty columns are left out; what is alike is said once."""
    text = shown(record(3))
    assert "certify m.onnx" in text
    assert "0.3333" in text
    assert "eps" not in text
    assert text.count("inf") == 1
    assert "norm inf" in text
    assert text.splitlines()[-1] == "3 inputs, 3 verified, 0 falsified, 0 unknown, 2.0 s"


def test_long_tables_are_cut_and_say_so() -> None:
    """The summary still counts all."""
    text = shown(record(30), most_rows=10)
    assert "20 further rows not shown" in text
    assert "30 inputs" in text


def test_brackets_show_both_radii() -> None:
    """A missing attacked radius is said in words; the medians stand in the summary."""
    rows = [
        {"index": 0, "radius_certified": 0.1, "radius_attacked": 0.25},
        {"index": 1, "radius_certified": 0.3, "radius_attacked": None},
        {"index": 2, "radius_certified": 0.2, "radius_attacked": 0.5},
    ]
    found = make_record("radius", rows, settings={}, model=ModelStamp(None, None))
    text = shown(found)
    assert "(model in memory)" in text
    assert "none found" in text
    assert summary_text(found) == (
        "3 inputs, median certified radius 0.2, median attacked radius 0.5"
    )


def test_text_from_files_is_not_taken_for_markup() -> None:
    """Square brackets in a reason are shown, not interpreted."""
    assert "[red]x[/nothing]" in shown(record(1, reason="[red]x[/nothing]"))


def test_no_results_are_no_table() -> None:
    """The summary line alone."""
    assert shown(record(0)) == "0 inputs, 2.0 s\n"


def test_no_more_is_shown_than_is_proved() -> None:
    """A certified radius is rounded down and an attacked one up; a margin down, below zero too."""
    rows = [{"index": 0, "radius_certified": 0.123499, "radius_attacked": 0.2000001}]
    text = shown(make_record("radius", rows, settings={}, model=ModelStamp(None, None)))
    assert "0.1234" in text
    assert "0.1235" not in text
    assert "0.2001" in text
    assert "0.07651" in text  # the gap, 0.0765011, as what is undecided: rounded up
    row = {"index": 0, "margin": -0.99996}
    text = shown(make_record("certify", [row], settings={}, model=ModelStamp(None, None)))
    assert "-1 " in text


def test_a_table_of_brackets_fits_a_window_of_80_columns() -> None:
    """Nothing is cut off, whatever the methods are called."""
    rows = [
        {
            "index": 1000 + i,
            "label": 10,
            "verdict": "falsified",
            "margin": -0.0001234,
            "method": f"a method of some length {i}",
            "seconds": 0.0001234,
            "norm": "inf",
            "radius_certified": 0.0001234,
            "radius_attacked": 0.0005678,
        }
        for i in range(2)
    ]
    found = make_record("radius", rows, settings={}, model=ModelStamp(None, None))
    stream = io.StringIO()
    print_record(found, console=Console(file=stream, width=80))
    assert "…" not in stream.getvalue()
    assert "attacked radius" in stream.getvalue()


def test_reasons_are_counted_below_the_table() -> None:
    """Most frequent first; past five kinds the rest is only counted."""
    reasons = ["time ran out"] * 3 + ["memory ran out"] + [f"reason {i}" for i in range(5)]
    rows = [{"index": i, "reason": reason} for i, reason in enumerate(reasons)]
    text = shown(make_record("certify", rows, settings={}, model=ModelStamp(None, None)))
    lines = text.splitlines()
    assert lines[-7:-1] == [
        "3 x time ran out", "1 x memory ran out", "1 x reason 0", "1 x reason 1", "1 x reason 2",
        "2 further reasons",
    ]  # fmt: skip


def test_a_prediction_is_shown_where_one_differs_from_its_label() -> None:
    """Otherwise it would say nothing that the label does not."""
    rows = [{"index": i, "label": 1, "predicted": 1} for i in range(2)]
    model = ModelStamp(None, None)
    assert "predicted" not in shown(make_record("certify", rows, settings={}, model=model))
    rows[1]["predicted"] = 7
    assert "predicted" in shown(make_record("certify", rows, settings={}, model=model))
