"""Figures that need more of a record than verdicts, or two records of the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.report.page.facts import correct
from verify.report.page.sources import Source, inner, number, text

LEAST = 5
"""Inputs in common below which nothing is said."""

Pairs = list[tuple[float, bool]]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidences and whether they were right.

    Attributes:
        name: whose.
        parts: name and pairs of each line.
        notes: calibration errors as the record has them, in words.
    """

    name: str
    parts: tuple[tuple[str, Pairs], ...]
    notes: tuple[tuple[str, str], ...]


def reliabilities(sources: Sequence[Source]) -> list[Reliability]:
    """One for each record that holds confidences and labels of the data."""
    found = []
    for source in sources:
        if not source.labelled:
            continue
        fields = {
            "confidence": [("clean", "confidence.clean")],
            "calibrate": [("before", "confidence_before"), ("after", "confidence_after")],
            "uncertainty": [("mean of the members", "confidence")],
        }.get(source.record.command, [])
        parts = tuple((name, pairs_of(source, key)) for name, key in fields)
        if any(pairs for _, pairs in parts):
            found.append(Reliability(source.name, parts, tuple(notes(source))))
    return found


def pairs_of(source: Source, key: str) -> Pairs:
    """(confidence, right) of each row that has both; `outer.inner` names nested fields."""
    outer, _, name = key.partition(".")
    found = []
    for row in source.record.results:
        value = inner(row, outer, name) if name else number(row, outer)
        if value is not None and 0 <= value <= 1 and row.get("predicted") is not None:
            found.append((value, correct(row)))
    return found


def notes(source: Source) -> list[tuple[str, str]]:
    """Calibration errors in words."""
    summary = source.record.summary
    lines = []
    if source.record.command == "confidence":
        words = {
            "clean": "clean",
            "attacked_high": "attained by an attack",
            "certified_high": "proved never above",
        }
        for key, said in words.items():
            if (value := inner(summary, "ece", key)) is not None:
                lines.append((f"calibration error, {said}", f"{value:.4f}"))
    for when in ("before", "after"):
        if (value := inner(summary, when, "ece")) is not None:
            floor = inner(summary, when, "ece_floor")
            chance = "" if floor is None else f" (by chance alone: {floor:.4f})"
            lines.append((f"calibration error {when}", f"{value:.4f}{chance}"))
    return lines


@dataclass(frozen=True, slots=True)
class Joined:
    """An uncertainty and a radius of the same inputs.

    Attributes:
        what: the uncertainty, in words.
        first, second: names of the records.
        points: (uncertainty, certified radius).
        rank: Spearman's rank correlation, or None where one of the two never varies.
        other_model: whether the two records are about different models.
    """

    what: str
    first: str
    second: str
    points: tuple[tuple[float, float], ...]
    rank: float | None
    other_model: bool


DOUBTS = (
    ("uncertainty", "total", "total uncertainty (nats)"),
    ("uncertainty", "epistemic", "epistemic uncertainty (nats)"),
    ("confidence", "entropy.clean", "entropy of the prediction (nats)"),
)


def joined(sources: Sequence[Source]) -> list[Joined]:
    """Uncertainty against certified radius, wherever two records are about the same data."""
    found = []
    for brackets in (source for source in sources if source.bracketed):
        radii = {
            text(row.get("index")): radius
            for row in brackets.record.results
            if (radius := number(row, "radius_certified")) is not None
        }
        for doubts in sources:
            if data_of(doubts) is None or data_of(doubts) != data_of(brackets):
                continue
            for command, key, words in DOUBTS:
                if doubts.record.command == command:
                    one = join(brackets, doubts, radii, key, words)
                    found += [one] if len(one.points) >= LEAST else []
    return found


def data_of(source: Source) -> object:
    """What a record says of its data; the words of both commands agree."""
    return source.record.settings.get("data")


def join(brackets: Source, doubts: Source, radii: dict[str, float], key: str, words: str) -> Joined:
    """The inputs that both have, by index."""
    outer, _, name = key.partition(".")
    points = []
    for row in doubts.record.results:
        value = inner(row, outer, name) if name else number(row, outer)
        radius = radii.get(text(row.get("index")))
        if value is not None and radius is not None:
            points.append((value, radius))
    return Joined(
        words,
        doubts.name,
        brackets.name,
        tuple(points),
        spearman(points),
        doubts.record.model.sha256 != brackets.record.model.sha256,
    )


def spearman(points: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation; ties share their mean rank."""
    if len(points) < 2:
        return None
    first, second = (ranks(np.array(column)) for column in zip(*points, strict=True))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in ascending order, from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(((last - counts + 1 + last) / 2)[inverse], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class CoverageLine:
    """One criterion, over all layers."""

    source: str
    criterion: str
    covered: str
    total: str
    share: float | None


def coverage(sources: Sequence[Source]) -> list[CoverageLine]:
    """The totals of coverage records."""
    lines = []
    for source in sources:
        criteria = source.record.summary.get("criteria")
        if source.record.command == "coverage" and isinstance(criteria, dict):
            for name, total in criteria.items():
                if isinstance(total, dict):
                    counts = text(total.get("covered")), text(total.get("total"))
                    lines.append(CoverageLine(source.name, name, *counts, number(total, "share")))
    return lines


def coverage_growth(source: Source) -> list[tuple[str, list[tuple[float, float]]]]:
    """Coverage over the number of inputs, by criterion."""
    curves = source.record.summary.get("curves")
    if source.record.command != "coverage" or not isinstance(curves, dict):
        return []
    found = []
    for name, points in curves.items():
        line = []
        for point in points if isinstance(points, list) else []:
            if isinstance(point, list) and len(point) == 2:
                x, y = (number({"": value}, "") for value in point)
                if x is not None and y is not None:
                    line.append((x, y))
        if line:
            found.append((str(name), line))
    return found
