"""Records of `verify confidence` on the console: bands per input, and the sandwich of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction

from rich.console import Console
from rich.table import Table
from rich.text import Text

from verify.report.records import Record
from verify.report.tables import MOST_ROWS, heading_text, summary_text

_STYLES = {"verified": "green", "falsified": "red", "unknown": "yellow"}
_WHOLE = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "mean_confidence": "mean confidence",
    "mean_nll": "mean NLL",
    "mean_brier": "mean Brier score",
    "mean_entropy": "mean entropy",
}
# How the names of those figures begin that are counts over counts, and the most counted.
_COUNTED = ("accuracy", "coverage", "classes per", "OOD inputs rejected")
_MOST_COUNTED = 10**6


def print_confidence(
    record: Record, *, console: Console | None = None, quiet: bool = False
) -> None:
    """Print the inputs' bands, the figures of the data set, and the summary line."""
    console = Console() if console is None else console
    if record.results and not quiet:
        console.print(Text(heading_text(record)), soft_wrap=True)
        console.print(bands_table(record))
        hidden = len(record.results) - MOST_ROWS
        if hidden > 0:
            console.print(f"{hidden} further rows not shown; --json or --csv writes all of them.")
        console.print(sandwich_table(record))
    for line in abstention_lines(record):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(summary_text(record)), soft_wrap=True)


def bands_table(record: Record) -> Table:
    """One row per input: the confidence, and the certified ends of the other scores."""
    table = Table()
    for column in (
        "index",
        "label",
        "predicted",
        "verdict",
        "confidence",
        "attacked",
        f"certified{record.remark}",
        "certified NLL",
        "certified entropy",
    ):
        table.add_column(column, justify="left" if column == "verdict" else "right", no_wrap=True)
    for row in record.results[:MOST_ROWS]:
        verdict = str(row["verdict"])
        confidence = _mapping(row["confidence"])
        table.add_row(
            str(row["index"]),
            str(row["label"]),
            str(row["predicted"]),
            Text(verdict, style=_STYLES.get(verdict, "")),
            _shown(confidence["clean"]),
            _range(confidence, "attacked"),
            _range(confidence, "certified"),
            _range(_mapping(row["nll"]), "certified"),
            _range(_mapping(row["entropy"]), "certified"),
        )
    return table


def sandwich_table(record: Record) -> Table:
    """Clean within attacked within certified, for each figure of the data set."""
    table = Table()
    for column in ("data set", "clean", "attacked", f"certified{record.remark}"):
        table.add_column(column, justify="left" if column == "data set" else "right", no_wrap=True)
    for name, values in spans(record):
        counted = name.startswith(_COUNTED)
        table.add_row(
            name,
            _shown(values["clean"]),
            _range(values, "attacked"),
            _range(values, "certified", counted=counted),
        )
    return table


def spans(record: Record) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The figures of the data set by their names for people."""
    summary = record.summary
    for key, name in _WHOLE.items():
        if key in summary:
            yield name, _mapping(summary[key])
    ood = _mapping(summary.get("ood") or {})
    for key, values in ood.items():
        if isinstance(values, Mapping):
            name = key.replace("auroc_", "AUROC by ").replace("rejected", "OOD inputs rejected")
            yield name, values
    conformal = _mapping(summary.get("conformal") or {})
    for kind in ("plain", "certified"):
        if kind in conformal:
            sets = _mapping(conformal[kind])
            how = "plain" if kind == "plain" else "robust"
            yield f"coverage, {how} conformal sets", _mapping(sets["coverage"])
            yield f"classes per {how} set", _mapping(sets["size"])


def abstention_lines(record: Record) -> list[str]:
    """What is never confidently wrong, in one line."""
    found = record.summary.get("abstention")
    if not isinstance(found, Mapping):
        return []
    return [
        f"never confidently wrong (at {_shown(found['threshold'])}): certified{record.remark} "
        f"{_percent(found['certified_safe'], ROUND_FLOOR)}, not refuted "
        f"{_percent(found['attacked_safe'], ROUND_CEILING)} of the inputs; always right and "
        f"accepted: certified {_percent(found['certified_accepted_and_right'], ROUND_FLOOR)}"
    ]


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value


def _range(values: Mapping[str, object], which: str, *, counted: bool = False) -> str:
    """Both ends; certified ones are rounded outward, so that what is read is proved."""
    outward = which == "certified"
    low = _shown(values[f"{which}_low"], ROUND_FLOOR if outward else None, counted=counted)
    high = _shown(values[f"{which}_high"], ROUND_CEILING if outward else None, counted=counted)
    return f"{low} .. {high}"


def _shown(value: object, rounding: str | None = None, *, counted: bool = False) -> str:
    """Four figures behind the point; the record keeps all of them."""
    if not isinstance(value, int | float):
        return "-"
    if rounding is None:
        return f"{value:.4f}"
    exact = _share(value) if counted else Fraction(value)
    return f"{_rounded(exact, 4, rounding):.4f}"


def _percent(value: object, rounding: str) -> str:
    assert isinstance(value, int | float)
    return f"{_rounded(_share(value) * 100, 2, rounding):.2f}%"


def _share(value: float) -> Fraction:
    """The ratio of counts that a float stands for: 19/20, where 0.95 itself is a little less."""
    simple = Fraction(value).limit_denominator(_MOST_COUNTED)
    return simple if float(simple) == value else Fraction(value)


def _rounded(value: Fraction, places: int, rounding: str) -> Decimal:
    """Up or down to so many places, unless it is exact there."""
    scaled = value * 10**places
    whole = math.floor(scaled) if rounding == ROUND_FLOOR else math.ceil(scaled)
    return Decimal(whole).scaleb(-places)
