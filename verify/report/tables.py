"""Records on the console: a table of the results and a line that sums them up."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verify.report.records import BRACKET_FIELDS, RESULT_FIELDS, VERDICTS, Record

_STYLES = {"verified": "green", "falsified": "red", "unknown": "yellow"}
_HEADINGS = {
    "radius_certified": "certified radius",
    "radius_attacked": "attacked radius",
    "seconds": "s",
}
_NUMBERS = {"index", "label", "margin", "eps", "seconds", *BRACKET_FIELDS}
_ORDER = (*RESULT_FIELDS[:3], *BRACKET_FIELDS, *RESULT_FIELDS[3:])


def record_table(record: Record, *, most_rows: int = 50) -> Table:
    """The results as a rich table; columns in which all is null or alike are left out.

    A value that is the same in every one of several rows (the norm, say) stands in the caption.

    Args:
        most_rows: further rows are only counted below the table; the record holds them.
    """
    rows = record.rows()
    columns = [c for c in _ORDER if any(row.get(c) is not None for row in rows)]
    common = [
        c for c in ("eps", "norm", "method") if c in columns and len({str(r[c]) for r in rows}) == 1
    ]
    columns = [c for c in columns if c not in common]
    table = Table(title=_title(record), title_justify="left", caption_justify="left")
    for column in columns:
        right = column in _NUMBERS
        table.add_column(
            _HEADINGS.get(column, column),
            justify="right" if right else "left",
            no_wrap=column != "reason",
        )
    for row in rows[:most_rows]:
        table.add_row(*(_cell(column, row[column]) for column in columns))
    captions = [f"{c} {_number(rows[0][c])}" for c in common]
    if len(rows) > most_rows:
        captions.append(f"{len(rows) - most_rows} further rows not shown")
    table.caption = "; ".join(captions) or None
    return table


def summary_text(record: Record) -> str:
    """One line: how many inputs, how many of each verdict, the median radii, the time."""
    summary = record.summary
    parts = [f"{summary.get('count', len(record.results))} inputs"]
    if any(row.get("verdict") is not None for row in record.results):
        parts += [f"{summary[v]} {v}" for v in VERDICTS if v in summary]
    for field in BRACKET_FIELDS:
        if f"{field}_median" in summary:
            value = summary[f"{field}_median"]
            text = "none found" if value is None else _number(value)
            parts.append(f"median {_HEADINGS[field]} {text}")
    if isinstance(summary.get("seconds"), int | float):
        parts.append(f"{summary['seconds']:.1f} s")
    return ", ".join(parts)


def print_record(record: Record, *, console: Console | None = None, most_rows: int = 50) -> None:
    """Print the table and the summary line."""
    console = Console() if console is None else console
    if record.results:
        console.print(record_table(record, most_rows=most_rows))
    console.print(Text(summary_text(record)))


def _title(record: Record) -> Text:
    return Text(f"{record.command} {record.model.path or '(model in memory)'}")


def _cell(column: str, value: object) -> Text:
    if column == "verdict" and isinstance(value, str):
        return Text(value, style=_STYLES.get(value, ""))
    if value is None:
        return Text("none found" if column == "radius_attacked" else "-", style="dim")
    return Text(_number(value))


def _number(value: object) -> str:
    """Four figures are enough to read; the record keeps all of them."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
