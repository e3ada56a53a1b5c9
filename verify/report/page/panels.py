"""Parts of the page about commands that have no radius: tables that any template can show.

Each function takes all records and gives one part, or None where no record has anything to say.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from verify.report.page.facts import correct
from verify.report.page.numbers import share, time
from verify.report.page.sources import Row, Source, number, text

MOST_LINES = 200
"""Rows of a table that lists results one by one; the record has all."""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures under headings.

    Attributes:
        caption: what the table is of.
        headings: of its columns; the first one names the row.
        rows: cells as text.
        words: places of the columns that hold words rather than figures.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the page.

    Attributes:
        key: its name in addresses.
        nav: its name among the contents.
        title: its heading.
        hint: what its figures mean and do not mean.
        tables: at least one.
    """

    key: str
    nav: str
    title: str
    hint: str
    tables: tuple[Table, ...]


def panels(sources: Sequence[Source]) -> list[Panel]:
    """All that the records can fill."""
    return [panel for make in MAKERS if (panel := make(sources)) is not None]


def of_command(sources: Sequence[Source], name: str) -> list[Source]:
    """The records of one command that hold results."""
    return [s for s in sources if s.record.command == name and s.record.results]


def searched(sources: Sequence[Source]) -> Panel | None:
    """Transformations that were looked for, by record and by class."""
    own = of_command(sources, "spatial")
    lines = []
    for source in own:
        for label, rows in (("all", source.record.results), *by_label(source.record.results)):
            lines.append((source.name, label, *counted(rows), *smallest(rows)))
    if not lines:
        return None
    heads = ("record", "class", "images", "clean", "not refuted", "changed", "smallest share")
    ranges = "; ".join(dict.fromkeys(text(s.record.settings.get("transform")) for s in own))
    return Panel(
        "searched",
        "Searched",
        "Transformations that were looked for",
        f"{ranges}. What was found was replayed in ONNX Runtime. Finding nothing proves nothing: "
        "verify geometric proves. The smallest share is of the ranges about what changes nothing.",
        (Table("Images by record and class", heads, tuple(lines), frozenset({0})),),
    )


def by_label(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Results of each label, numbers in their order."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[text(row.get("label"))].append(row)
    return sorted(groups.items(), key=lambda item: (not item[0].isdigit(), len(item[0]), item[0]))


def counted(rows: Sequence[Row]) -> tuple[str, str, str, str]:
    """Images; shares that are right, that stay right, and how many were changed."""
    right = [row for row in rows if correct(row)]
    lost = sum(row.get("verdict") == "falsified" for row in right)
    kept = len(right) - lost
    return str(len(rows)), share(len(right), len(rows)), share(kept, len(rows)), str(lost)


def smallest(rows: Sequence[Row]) -> tuple[str]:
    """The least share of the ranges that changes a right answer."""
    found = [number(row, "share_attacked") for row in rows if correct(row)]
    known = [value for value in found if value is not None]
    return (f"{min(known):.3f}" if known else "–",)


def transferred(sources: Sequence[Source]) -> Panel | None:
    """A matrix for each attack."""
    tables = []
    for source in of_command(sources, "transfer"):
        rows = source.record.results
        for attack in dict.fromkeys(text(row.get("attack")) for row in rows):
            own = [row for row in rows if text(row.get("attack")) == attack]
            targets = list(dict.fromkeys(text(row.get("target")) for row in own))
            cells = {(text(r.get("source")), text(r.get("target"))): ranged(r) for r in own}
            lines = [
                (name, *(cells.get((name, target), "–") for target in targets))
                for name in dict.fromkeys(text(row.get("source")) for row in own)
            ]
            tables.append(
                Table(f"{source.name}: {attack}", ("made against", *targets), tuple(lines))
            )
    if not tables:
        return None
    return Panel(
        "transfer",
        "Transfer",
        "What fools one model and another",
        "Share of the inputs that both classify correctly whose example against the row's model "
        "fools the column's; 95 % intervals over the inputs, which say nothing of other models.",
        tuple(tables),
    )


def ranged(row: Row) -> str:
    """A rate with its interval, in per cent."""
    values = [number(row, key) for key in ("rate", "low", "high")]
    if any(value is None for value in values):
        return "–"
    rate, low, high = (100 * float(value or 0.0) for value in values)
    return f"{rate:.1f} ({low:.0f}–{high:.0f})"


def detected(sources: Sequence[Source]) -> Panel | None:
    """Detectors of inputs out of distribution."""
    lines = []
    for source in of_command(sources, "ood"):
        for row in source.record.results:
            figures = (interval(row, key) for key in ("auroc", "aupr_out", "fpr"))
            names = (text(row.get("ood")), text(row.get("method")))
            lines.append((*names, *figures, text(row.get("ood_count"))))
    if not lines:
        return None
    heads = ("OOD data", "method", "AUROC", "AUPR (OOD positive)", "FPR", "OOD inputs")
    return Panel(
        "ood",
        "Out of distribution",
        "Out of distribution",
        "How well each score tells strange inputs from familiar ones, in per cent with 95 % "
        "intervals; an AUROC of 50 is chance. Other strange inputs may not be noticed.",
        (Table("Detectors", heads, tuple(lines), frozenset({0, 1})),),
    )


def interval(row: Row, key: str) -> str:
    """A figure and its ends in per cent."""
    value, low, high = (number(row, name) for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return "–"
    ends = "" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    return f"{100 * value:.1f}{ends}"


def properties(sources: Sequence[Source]) -> Panel | None:
    """Answers to properties: how many of each, and one by one."""
    tables = []
    for source in of_command(sources, "prop"):
        rows = source.record.results
        counts = Counter(text(row.get("answer")) or "–" for row in rows)
        spent: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            spent[text(row.get("answer")) or "–"].append(number(row, "seconds") or 0.0)
        totals = [
            (answer, str(n), time(sorted(spent[answer])[n // 2]), time(math.fsum(spent[answer])))
            for answer, n in counts.most_common()
        ]
        heads = ("answer", "properties", "median time", "time in all")
        tables.append(Table(f"{source.name}: answers", heads, tuple(totals)))
        lines = [
            (
                last_part(row.get("property", source.record.settings.get("property"))),
                last_part(row.get("model", source.record.model.path)),
                text(row.get("answer")) or "–",
                text(row.get("method")) or text(row.get("reason")),
                time(number(row, "seconds")),
            )
            for row in rows[:MOST_LINES]
        ]
        more = len(rows) - len(lines)
        caption = f"{source.name}: one by one" + (f"; {more} more in the record" if more else "")
        heads_of_one = ("property", "model", "answer", "method", "time")
        tables.append(Table(caption, heads_of_one, tuple(lines), frozenset({0, 1, 2, 3})))
    if not tables:
        return None
    return Panel(
        "properties",
        "Properties",
        "Properties",
        "unsat: no input of the property gives an unsafe output; sat: one does, replayed in ONNX "
        "Runtime; else nobody knows.",
        tuple(tables),
    )


def last_part(path: object) -> str:
    """The file's own name."""
    return text(path).replace("\\", "/").rsplit("/", 1)[-1]


SPANS = {
    "accuracy": "accuracy",
    "ece": "calibration error",
    "mean_confidence": "mean confidence",
    "mean_nll": "mean NLL",
    "mean_brier": "mean Brier score",
    "mean_entropy": "mean entropy (nats)",
}


def assured(sources: Sequence[Source]) -> Panel | None:
    """Ranges of the data set's figures, clean, attacked and certified."""
    tables = []
    for source in of_command(sources, "confidence"):
        summary = source.record.summary
        lines = [
            (words, *span)
            for key, words in SPANS.items()
            if isinstance(found := summary.get(key), Mapping) and (span := ends_of(found))
        ]
        strange = summary.get("ood")
        for key in ("auroc_confidence", "auroc_entropy", "auroc_energy", "rejected"):
            if isinstance(strange, Mapping) and isinstance(found := strange.get(key), Mapping):
                words = "OOD inputs rejected" if key == "rejected" else key.replace("_", " by ")
                lines.append((words.replace("auroc", "AUROC"), *ends_of(found)))
        if lines:
            eps = number(source.record.settings, "eps")
            caption = source.name + ("" if eps is None else f", within {eps:.4g}")
            heads = ("figure", "clean", "attacked", "certified")
            tables.append(Table(caption, heads, tuple(lines)))
    if not tables:
        return None
    return Panel(
        "assured",
        "Confidence",
        "Certified confidence",
        "No attack within the radius moves a figure of this data set out of its certified range; "
        "one moves it as far as the attacked range.",
        tuple(tables),
    )


def ends_of(found: Row) -> tuple[str, ...]:
    """Clean value, attacked and certified range."""
    clean = number(found, "clean")
    pairs = [
        [number(found, f"{side}_{end}") for end in ("low", "high")]
        for side in ("attacked", "certified")
    ]
    shown = [
        " – ".join("?" if value is None else f"{value:.4f}" for value in pair) for pair in pairs
    ]
    return ("–" if clean is None else f"{clean:.4f}", *shown)


def doubted(sources: Sequence[Source]) -> Panel | None:
    """What ensembles are unsure of: means, of right and wrong answers, and the most unsure."""
    tables = []
    kinds = ("total", "aleatoric", "epistemic")
    for source in of_command(sources, "uncertainty"):
        rows = source.record.results
        groups: list[tuple[str, Sequence[Row]]] = [("all", rows)]
        if source.record.settings.get("task") != "numbers" and source.labelled:
            known = [row for row in rows if row.get("label") is not None]
            groups.append(("right", [row for row in known if correct(row)]))
            groups.append(("wrong", [row for row in known if not correct(row)]))
        lines = [
            (name, str(len(part)), *(mean(part, kind) for kind in kinds))
            for name, part in groups
            if part
        ]
        heads = ("predictions", "inputs", *kinds)
        tables.append(Table(f"{source.name}: mean uncertainty", heads, tuple(lines)))
        most = sorted(rows, key=lambda row: -(number(row, "total") or 0.0))[:10]
        listed = [
            (
                *(text(row.get(key)) for key in ("index", "label", "predicted")),
                *(figure(number(row, key)) for key in ("confidence", *kinds)),
            )
            for row in most
        ]
        heads_of_one = ("input", "label", "predicted", "confidence", *kinds)
        tables.append(Table(f"{source.name}: the most uncertain", heads_of_one, tuple(listed)))
    if not tables:
        return None
    return Panel(
        "doubted",
        "Uncertainty",
        "Uncertainty",
        "Aleatoric is in the data, epistemic is what the members do not agree on; entropies in "
        "nats, or variances. An ensemble can agree and be wrong.",
        tuple(tables),
    )


def mean(rows: Sequence[Row], key: str) -> str:
    """Of a field, over the rows that have it."""
    known = [value for row in rows if (value := number(row, key)) is not None]
    return figure(math.fsum(known) / len(known) if known else None)


def figure(value: float | None) -> str:
    """Four digits."""
    return "–" if value is None else f"{value:.4g}"


MAKERS: tuple[Callable[[Sequence[Source]], Panel | None], ...] = (
    searched,
    properties,
    assured,
    doubted,
    detected,
    transferred,
)
