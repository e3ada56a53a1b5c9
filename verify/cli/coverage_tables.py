"""What `verify coverage` tells: record, table, remarks, picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verify.cli.presenting import Presenter
from verify.coverage import Measured
from verify.coverage.records import LayerShare
from verify.report import Record
from verify.report.coverage_plots import CoverageRow, plot_coverage

Row = dict[str, object]
"""One criterion on one layer."""
FINDING = (
    "coverage counts what was exercised; it says nothing of correctness or robustness: in our "
    "study of eight small nets on digits it grew mostly with the number of inputs; among sets of "
    "one size with shifted data, those with more KMNC, LSC or NLC held fewer faults, those with "
    "more NC, TKNC or DSC somewhat more (benchmarks/README.md); do not ship on it alone"
)


def told(measured: Measured) -> dict[str, object]:
    """One criterion's total, as data."""
    total: LayerShare = measured.total
    return {"covered": total.covered, "total": total.total, "share": total.share}


def publish(
    show: Presenter,
    record: Record,
    rows: list[Row],
    summary: dict[str, object],
    found: Mapping[str, Measured],
) -> None:
    """The record to files, the table and the remarks to people."""
    show.write(record)
    if not show.options.quiet:
        show.console.print(table_of(rows))
    lines = [f"{name}: {text_of(measured.total)}" for name, measured in found.items()]
    show.console.print(Text("; ".join(lines)), soft_wrap=True)
    show.say(remarks(summary))


def table_of(rows: list[Row]) -> Table:
    """One line per criterion and layer."""
    table = Table()
    bounded = any("possible" in row for row in rows)
    table.add_column("criterion")
    table.add_column("layer")
    for heading in ("covered", "of", "share"):
        table.add_column(heading, justify="right")
    if bounded:
        for heading in ("not ruled out", "share of it", "reached by search"):
            table.add_column(heading, justify="right")
    for row in rows:
        cells = [
            Text(str(row["criterion"])),
            Text(str(row["layer"] or "all")),
            number(row["covered"]),
            number(row["total"]),
            percent(row["share"]),
        ]
        if bounded:
            cells += [
                number(row.get("possible")),
                percent(row.get("share_of_possible")),
                number(row.get("reached")),
            ]
        table.add_row(*cells)
    return table


def number(value: object) -> Text:
    """A count, or a figure that is none."""
    if value is None:
        return Text("")
    assert isinstance(value, int | float)
    return Text(f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}")


def percent(value: object) -> Text:
    """A share; rounded down, so that 100 % is all."""
    if not isinstance(value, float):
        return Text("")
    return Text(f"{int(value * 1000) / 10:.1f} %")


def text_of(total: LayerShare) -> str:
    """A total for people."""
    if total.total is None:
        return number(total.covered).plain
    return f"{percent(total.share).plain} ({total.covered:,.0f} of {total.total:,})"


def remarks(summary: Mapping[str, object]) -> list[str]:
    """What there is to say beside the table."""
    lines = []
    for kind in summary.get("neurons", ()):  # type: ignore[attr-defined]
        if kind["dead"] or kind["always_on"]:
            lines.append(
                f"{kind['layer']}: proved dead: {listed(kind['dead'])}; proved always on: "
                f"{listed(kind['always_on'])}"
            )
    made = summary.get("generated")
    if isinstance(made, dict):
        lines.append(
            f"generated: {made['kept']} of {made['tried']} changes cover something new "
            f"({made['criterion']}, {made['gained']} obligations); {made['misclassified']} of them "
            "are misclassified in ONNX Runtime"
        )
    against = summary.get("against")
    if isinstance(against, dict):
        lines += [
            f"{name}: {part['only_first']} only by the first set, {part['only_second']} only by "
            f"the second, {part['both']} by either"
            for name, part in against.items()
        ]
    return [*lines, str(summary["finding"])]


def listed(indices: tuple[int, ...], most: int = 12) -> str:
    """Neurons by number, not too many."""
    if not indices:
        return "none"
    more = f", ... ({len(indices)} in all)" if len(indices) > most else ""
    return ", ".join(map(str, indices[:most])) + more


def draw(path: Path, rows: list[Row], found: Mapping[str, Measured], model: Path) -> None:
    """Heat map and curves."""
    cells = []
    for row in rows:
        share, total, possible = row["share"], row["total"], row.get("possible")
        known = isinstance(possible, int) and isinstance(total, int) and total > 0
        cells.append(
            CoverageRow(
                str(row["criterion"]),
                str(row["layer"]),
                share if isinstance(share, float) else None,
                possible / total if known else None,  # type: ignore[operator]
            )
        )
    curves = {
        name: measured.curve for name, measured in found.items() if measured.total.share is not None
    }
    plot_coverage(cells, curves, path, model=model.name)
