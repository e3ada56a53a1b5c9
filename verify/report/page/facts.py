"""Counting: what a page says in figures, from the rows of records."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verify.report.page.sources import Row, Source, number, text
from verify.report.records import REAL_ONLY

PROVED = ("verified", REAL_ONLY)
"""A source whose proofs are of the second kind says so in its name."""


@dataclass(frozen=True, slots=True)
class Ends:
    """A bracket as read.

    Attributes:
        index, label: of the input.
        low: certified radius, 0 where none is known.
        high: attacked radius, infinite where no attack succeeded.
    """

    index: str
    label: str
    low: float
    high: float

    @property
    def correct(self) -> bool:
        """Whether the input itself is classified correctly."""
        return self.high > 0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many inputs stand at one radius.

    Attributes:
        eps: the radius.
        count: all inputs.
        clean, certified, unrefuted: correct ones; proved to stay so; not shown to change.
        source: name of the record.
        labelled: whether "correct" means the label of the data.
        why: why this radius.
    """

    eps: float
    count: int
    clean: int
    certified: int
    unrefuted: int
    source: str
    labelled: bool
    why: str

    @property
    def gap(self) -> int:
        """Inputs of which nobody knows."""
        return self.unrefuted - self.certified


def brackets(source: Source) -> list[Ends]:
    """The brackets of a record, in its order."""
    found = []
    for row in source.record.results:
        if "radius_certified" in row:
            high = number(row, "radius_attacked")
            found.append(
                Ends(
                    text(row.get("index")),
                    text(row.get("label")),
                    number(row, "radius_certified") or 0.0,
                    math.inf if high is None else high,
                )
            )
    return found


def correct(row: Row) -> bool:
    """Whether an input is classified correctly; without a prediction only a proof tells."""
    label, said = row.get("label"), row.get("predicted")
    if said is None:
        return row.get("verdict") in PROVED
    return label is not None and label == said


def accuracy_of(source: Source, rows: Sequence[Row], eps: float, why: str) -> Accuracy:
    """Counts of the verdicts at one radius."""
    right = [row for row in rows if correct(row)]
    return Accuracy(
        eps,
        len(rows),
        len(right),
        sum(row.get("verdict") in PROVED for row in right),
        sum(row.get("verdict") != "falsified" for row in right),
        source.name,
        source.labelled,
        why,
    )


def accuracy_at(source: Source, ends: Sequence[Ends], eps: float, why: str) -> Accuracy:
    """Counts of the brackets at one radius: certified to it, attacked not before it."""
    right = [found for found in ends if found.correct]
    return Accuracy(
        eps,
        len(ends),
        len(right),
        sum(eps <= found.low for found in right),
        sum(eps < found.high for found in right),
        source.name,
        source.labelled,
        why,
    )


def verdict_eps(source: Source) -> float | None:
    """The radius that all verdicts of a `certify` record are about."""
    if source.record.command not in ("certify", "attack"):
        return None
    radii = {number(row, "eps") for row in source.record.results}
    return radii.pop() if len(radii) == 1 else None


def accuracies(sources: Sequence[Source], wanted: float | None) -> list[Accuracy]:
    """The headline: one line for each record that can say it, at its own or the wanted radius."""
    found, given = [], wanted
    for source in sources:
        eps = verdict_eps(source)
        if eps is not None and wanted in (None, eps):
            found.append(accuracy_of(source, source.record.results, eps, "the radius asked about"))
            given = given if given is not None else eps
    for source in sources:
        ends = brackets(source)
        if not ends:
            continue
        if given is not None:
            why = "as asked" if wanted is not None else "the radius of the certify record"
            found.append(accuracy_at(source, ends, given, why))
        else:
            middle = statistics.median(found.low for found in ends)
            found.append(accuracy_at(source, ends, middle, "the median certified radius"))
    return found


@dataclass(frozen=True, slots=True)
class ClassLine:
    """One class of the data at the headline's radius."""

    label: str
    accuracy: Accuracy
    low: float | None
    high: float | None
    seconds: float | None


def per_class(source: Source, eps: float) -> list[ClassLine]:
    """One line for each label, by number where labels are numbers."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in source.record.results:
        if row.get("label") is not None:
            groups[text(row.get("label"))].append(row)
    bracketed: dict[str, list[Ends]] = defaultdict(list)
    for end in brackets(source):
        bracketed[end.label].append(end)
    lines = []
    for label in sorted(groups, key=lambda name: (not name.isdigit(), len(name), name)):
        rows = groups[label]
        seconds = [s for row in rows if (s := number(row, "seconds")) is not None]
        mean = statistics.fmean(seconds) if seconds else None
        if ends := bracketed.get(label):
            lines.append(
                ClassLine(
                    label,
                    accuracy_at(source, ends, eps, ""),
                    statistics.median(end.low for end in ends),
                    statistics.median(end.high for end in ends),
                    mean,
                )
            )
        else:
            lines.append(ClassLine(label, accuracy_of(source, rows, eps, ""), None, None, mean))
    return lines


@dataclass(frozen=True, slots=True)
class MethodLine:
    """How often a method reached a verdict, and its time."""

    source: str
    method: str
    verdict: str
    count: int
    median: float | None
    total: float | None


def methods(sources: Sequence[Source]) -> list[MethodLine]:
    """How each verdict was reached, the most frequent way first."""
    lines = []
    for source in sources:
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in source.record.results:
            if row.get("verdict") is not None:
                groups[text(row.get("method")) or "-", text(row.get("verdict"))].append(row)
        for (method, verdict), rows in sorted(groups.items(), key=lambda item: -len(item[1])):
            seconds = [s for row in rows if (s := number(row, "seconds")) is not None]
            lines.append(
                MethodLine(
                    source.name,
                    method,
                    verdict,
                    len(rows),
                    statistics.median(seconds) if seconds else None,
                    math.fsum(seconds) if seconds else None,
                )
            )
    return lines


def reasons(sources: Sequence[Source]) -> list[tuple[str, int]]:
    """Why inputs stayed undecided, the most frequent first."""
    found = Counter(
        text(row.get("reason"))
        for source in sources
        for row in source.record.results
        if row.get("verdict") == "unknown" and row.get("reason")
    )
    return found.most_common(20)


@dataclass(frozen=True, slots=True)
class WorstLine:
    """A correctly classified input near the edge."""

    index: str
    label: str
    low: float | None
    high: float | None
    words: str


def worst(source: Source, most: int) -> list[WorstLine]:
    """Correct inputs that change at the smallest distance, then those least certified.

    Of an ensemble's record those it is least sure of.
    """
    if source.record.command == "uncertainty":
        rows = sorted(source.record.results, key=lambda row: -(number(row, "total") or 0.0))
        lines = [
            WorstLine(text(row.get("index")), text(row.get("label")), None, None, unsure(row))
            for row in rows
        ]
    elif source.bracketed:
        near = sorted((e for e in brackets(source) if e.correct), key=lambda e: (e.high, e.low))
        lines = [WorstLine(e.index, e.label, e.low, e.high, "") for e in near]
    else:
        rows = [row for row in source.record.results if correct(row)]
        rows = [row for row in rows if row.get("verdict") == "falsified"]
        rows.sort(key=lambda row: number(row, "distance") or math.inf)
        lines = [
            WorstLine(
                text(row.get("index")),
                text(row.get("label")),
                None,
                number(row, "distance"),
                found_by(row),
            )
            for row in rows
        ]
    return lines[:most]


def unsure(row: Row) -> str:
    """What an ensemble says of an input."""
    parts = [f"said {text(row.get('predicted'))}"]
    for key in ("total", "epistemic"):
        if (value := number(row, key)) is not None:
            parts.append(f"{key} {value:.3g}")
    return ", ".join(parts)


def found_by(row: Row) -> str:
    """The attack, or the parameters of a transformation."""
    values = row.get("parameters")
    if isinstance(values, Mapping):
        return ", ".join(
            f"{text(name)} {value:.3g}"
            for name in values
            if (value := number(values, name)) is not None
        )
    return text(row.get("attack"))
