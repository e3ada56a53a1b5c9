"""The page: what is counted and drawn goes through one template, which escapes everything."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from verify.errors import DataError
from verify.report.page import charts
from verify.report.page.facts import (
    Accuracy,
    WorstLine,
    accuracies,
    brackets,
    methods,
    per_class,
    reasons,
    verdict_eps,
    worst,
)
from verify.report.page.images import Triple, alone, drawn
from verify.report.page.joining import coverage, coverage_growth, joined, reliabilities
from verify.report.page.numbers import radius, share, time
from verify.report.page.panels import panels
from verify.report.page.sources import Source, Wishes, number, text

FOLDER = Path(__file__).parent
MOST_STRIPS = charts.STRIPS


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot and the sentence below it."""

    picture: Markup
    words: str


@dataclass(frozen=True, slots=True)
class Section:
    """What one record contributes to a part of the page."""

    name: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A worst input as pictures."""

    line: WorstLine
    pictures: Triple | str
    became: str

    @property
    def changed(self) -> bool:
        """Whether a counterexample is shown beside the input."""
        return isinstance(self.pictures, Triple)


def build_page(sources: Sequence[Source], wishes: Wishes) -> str:
    """The whole page as text.

    Raises:
        DataError: if there is no record.
    """
    if not sources:
        raise DataError("there is no record to report on; name one")
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headline = accuracies(sources, wishes.eps)
    eps = headline[0].eps if headline else None
    main = next((s for s in sources if s.bracketed or verdict_eps(s) is not None), None)
    values: dict[str, object] = {
        "title": wishes.title,
        "style": Markup(style),
        "style_hash": digest,
        "sources": sources,
        "models": list(dict.fromkeys(source.model for source in sources)),
        "headline": headline,
        "accuracy": accuracy_sections(sources, headline),
        "brackets": bracket_sections(sources),
        "classes": per_class(main, eps) if main is not None and eps is not None else [],
        "eps": eps,
        "main": main,
        "worst": worst(main, wishes.worst) if main is not None else [],
        "portraits": [
            (source.name, found) for source in sources if (found := portraits(source, wishes.worst))
        ],
        "reliability": reliability_sections(sources),
        "joined": [
            (one, charts.against(one.points, one.what, "certified radius"))
            for one in joined(sources)
        ],
        "coverage": coverage(sources),
        "growth": [
            Section(s.name, (Figure(charts.growth(lines), ""),))
            for s in sources
            if (lines := coverage_growth(s))
        ],
        "strips": strip_sections(sources),
        "methods": methods(sources),
        "times": time_figures(sources),
        "reasons": reasons(sources),
        "panels": panels(sources),
        "checks": wishes.checks,
        "settings": [settings(source) for source in sources],
    }
    return environment().get_template("report.html.j2").render(values)


def environment() -> jinja2.Environment:
    """Templates in which everything is escaped and a misspelt name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"radius": radius, "time": time, "plain": text, "share": share}
    return made


def accuracy_sections(sources: Sequence[Source], headline: Sequence[Accuracy]) -> list[Section]:
    """Curves of each record with brackets; single verdicts are dots in all of them."""
    marks = {
        source.name: one
        for source in sources
        for one in headline
        if verdict_eps(source) is not None and one.source == source.name and one.count
    }
    found = []
    for source in (source for source in sources if source.bracketed):
        norm = text(source.record.settings.get("norm")) or "?"
        same = [
            marks[other.name]
            for other in sources
            if other.name in marks
            and other.record.model.sha256 == source.record.model.sha256
            and other.record.settings.get("norm") == source.record.settings.get("norm")
        ]
        picture = charts.curves(brackets(source), same, norm)
        found.append(Section(source.name, (Figure(picture, ""),)))
    return found


def bracket_sections(sources: Sequence[Source]) -> list[Section]:
    """Scatter and histogram."""
    found = []
    for source in sources:
        if ends := brackets(source):
            open_ = sum(math.isinf(end.high) for end in ends)
            words = f"{open_} of {len(ends)} inputs withstood every attack." if open_ else ""
            found.append(
                Section(
                    source.name,
                    (Figure(charts.scatter(ends), words), Figure(charts.histogram(ends), "")),
                )
            )
    return found


def reliability_sections(
    sources: Sequence[Source],
) -> list[tuple[Section, tuple[tuple[str, str], ...]]]:
    """Diagrams and what the records say of calibration errors."""
    colours = ("certified", "attacked")
    return [
        (
            Section(
                one.name,
                (
                    Figure(
                        charts.reliability(
                            [(name, colours[i % 2], p) for i, (name, p) in enumerate(one.parts)]
                        ),
                        "",
                    ),
                ),
            ),
            one.notes,
        )
        for one in reliabilities(sources)
    ]


def strip_sections(sources: Sequence[Source]) -> list[Section]:
    """Geometric records, an image a strip."""
    found = []
    for source in sources:
        rows = []
        for row in source.record.results:
            if "share_certified" in row:
                high = number(row, "share_attacked")
                rows.append(
                    (
                        f"{text(row.get('index'))}: {text(row.get('label'))}",
                        number(row, "share_certified") or 0.0,
                        math.inf if high is None else high,
                    )
                )
        if rows:
            rest = len(rows) - MOST_STRIPS
            words = f"… and {rest} further images in the record." if rest > 0 else ""
            found.append(Section(source.name, (Figure(charts.strips(rows), words),)))
    return found


def time_figures(sources: Sequence[Source]) -> Section:
    """Histograms of time, side by side."""
    found = []
    for source in sources:
        rows = [row for row in source.record.results if row.get("verdict") is not None]
        seconds = [s for row in rows if (s := number(row, "seconds")) is not None and s >= 0]
        if seconds:
            whole = number(source.record.summary, "seconds")
            words = "" if whole is None else f" Whole command: {time(whole)}."
            found.append(Figure(charts.times(seconds), f"{source.name}.{words}"))
    return Section("", tuple(found))


def portraits(source: Source, most: int) -> list[Portrait]:
    """The worst inputs of a record that has pictures."""
    pictures = {text(index): shown for index, shown in source.pictures.items()}
    found: list[Portrait] = []
    for line in worst(source, len(source.record.results)):
        if len(found) == most:
            break
        shown = pictures.get(line.index)
        if shown is None:
            continue
        changed = shown.adversarial
        drawing = alone(shown.clean) if changed is None else drawn(shown.clean, changed)
        if drawing is not None:
            became = "another class" if shown.became is None else f"class {shown.became}"
            found.append(Portrait(line, drawing, became))
    return found


def settings(source: Source) -> dict[str, object]:
    """What is needed to repeat a record."""
    record = source.record
    words = {
        key: json.dumps(value, ensure_ascii=False)
        if isinstance(value, list | dict)
        else text(value)
        for key, value in record.settings.items()
        if value is not None
    }
    return {
        "name": source.name,
        "sha256": source.sha256,
        "command": record.command,
        "version": record.version,
        "model": text(record.model.path) or "in memory",
        "model_sha256": text(record.model.sha256) or "–",
        "again": source.again,
        "rows": words,
    }
