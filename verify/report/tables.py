"""Records on the console: a heading, a table of the results, and a line that sums them up."""

from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verify.report.records import BRACKET_FIELDS, REAL_ONLY, RESULT_FIELDS, VERDICTS, Record

MOST_ROWS = 50  # on a console; the record holds all of them

_STYLES = {"verified": "green", "falsified": "red", "unknown": "yellow"}
_HEADINGS = {
    "radius_certified": "certified radius",
    "radius_attacked": "attacked radius",
    "share_certified": "certified share",
    "share_attacked": "attacked share",
    "seconds": "s",
}
_ROUNDING = {
    "margin": ROUND_FLOOR,
    "radius_certified": ROUND_FLOOR,
    "radius_attacked": ROUND_CEILING,
    "share_certified": ROUND_FLOOR,
    "share_attacked": ROUND_CEILING,
    "gap": ROUND_CEILING,
}
_SHARES = ("share_certified", "share_attacked", "boxes")
_NUMBERS = {
    *("index", "label", "predicted", "margin", "eps", "seconds", "gap"),
    *(*BRACKET_FIELDS, *_SHARES),
}
_ORDER = (
    *("index", "label", "predicted", "verdict", *BRACKET_FIELDS, "gap", *_SHARES),
    *RESULT_FIELDS[3:],
)
_HEAD = ("eps", "norm", "method")  # said once, above the table, where all rows agree


def record_table(record: Record, *, most_rows: int = MOST_ROWS) -> Table:
    """The first `most_rows` results, without columns that are empty or that the heading says.

    Reasons are not in it: they are sentences, and mostly the same ones (`reason_lines`).
    """
    rows = [_with_gap(row) for row in record.rows()]
    said = {*_common(rows), "reason"}
    if any("radius_certified" in row for row in rows):
        # eps is the certified radius again; the others are in the record, and here only in the way
        # of a window of 80 columns.
        said |= {"eps", "margin", "method", "seconds"}
    if all(row.get("predicted") == row.get("label") for row in rows):
        said.add("predicted")
    columns = [
        column
        for column in _ORDER
        if column not in said and any(row.get(column) is not None for row in rows)
    ]
    table = Table()
    for column in columns:
        table.add_column(
            _heading(record, column),
            justify="right" if column in _NUMBERS else "left",
            no_wrap=True,
        )
    for row in rows[:most_rows]:
        table.add_row(*(_cell(column, row.get(column)) for column in columns))
    return table


def _heading(record: Record, column: str) -> str:
    """Over a column; a certified figure says if it holds in real arithmetic only."""
    proved = column in ("radius_certified", "share_certified")
    return _HEADINGS.get(column, column) + (record.remark if proved else "")


def heading_text(record: Record) -> str:
    """One line: the command, the model, and what all results have in common."""
    common = ", ".join(f"{key} {_number(value)}" for key, value in _common(record.rows()).items())
    model = record.model.path or "(model in memory)"
    return f"{record.command} {model}" + (f": {common}" if common else "")


def summary_text(record: Record) -> str:
    """One line: how many inputs, how many of each verdict, the median radii, the time."""
    summary = record.summary
    parts = [f"{summary.get('count', len(record.results))} inputs"]
    if any(row.get("verdict") is not None for row in record.results):
        parts += [f"{summary[v]} {v}" for v in (*VERDICTS, REAL_ONLY) if v in summary]
    for field in BRACKET_FIELDS:
        if f"{field}_median" in summary:
            value = summary[f"{field}_median"]
            text = "none found" if value is None else _number(value, field)
            parts.append(f"median {_heading(record, field)} {text}")
    seconds = summary.get("seconds")
    if isinstance(seconds, int | float):
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts)


def reason_lines(record: Record, *, most: int = 5) -> list[str]:
    """The reasons given, most frequent first, each with the number of results that give it."""
    counts = Counter(str(row["reason"]) for row in record.results if row.get("reason"))
    lines = [f"{count} x {reason}" for reason, count in counts.most_common(most)]
    return lines + ([f"{len(counts) - most} further reasons"] if len(counts) > most else [])


def print_record(
    record: Record, *, console: Console | None = None, most_rows: int = MOST_ROWS
) -> None:
    """Print heading, table, reasons and summary; rows beyond `most_rows` are only counted."""
    console = Console() if console is None else console
    if record.results:
        # As text, so that brackets in a path are not taken for rich's markup.
        console.print(Text(heading_text(record)), soft_wrap=True)
        console.print(record_table(record, most_rows=most_rows))
    hidden = len(record.results) - most_rows
    if hidden > 0:
        console.print(f"{hidden} further rows not shown; --json or --csv writes all of them.")
    for line in (*reason_lines(record), summary_text(record)):
        console.print(Text(line), soft_wrap=True)


def _common(rows: list[dict[str, object]]) -> dict[str, object]:
    """Values of the head's fields that are there and the same in every row."""
    found = {key: {row.get(key) for row in rows} for key in _HEAD}
    return {key: next(iter(v)) for key, v in found.items() if len(v) == 1 and v != {None}}


def _with_gap(row: dict[str, object]) -> dict[str, object]:
    """The row with the width of its bracket, where both ends are known: what is still undecided."""
    low, high = row.get("radius_certified"), row.get("radius_attacked")
    known = isinstance(low, float) and isinstance(high, float)
    return {**row, "gap": high - low} if known else row  # type: ignore[operator]  # by `known`


def _cell(column: str, value: object) -> Text:
    if column == "verdict" and isinstance(value, str):
        return Text(value, style=_STYLES.get(value, ""))
    if value is None:
        return Text(
            "none found" if column in ("radius_attacked", "share_attacked") else "-", style="dim"
        )
    return Text(_number(value, column))


def _number(value: object, column: str = "") -> str:
    """Four figures, which are enough to read; the record keeps all of them.

    What is proved is never rounded up, and what is refuted never down: the line that is read claims
    no more than the record does.
    """
    if not isinstance(value, float):
        return str(value)
    if column == "seconds":
        return f"{value:.2g}"
    context = Context(prec=4, rounding=_ROUNDING.get(column, ROUND_HALF_EVEN))
    return f"{float(context.create_decimal_from_float(value)):.4g}"
