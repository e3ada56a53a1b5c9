"""The plots of a page, each from rows of records."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from verify.report.page.facts import Accuracy, Ends
from verify.report.page.svg import Axis, Plot

BINS = 32
STRIPS = 40
"""Images of a geometric record that are drawn."""

Steps = list[tuple[float, float]]


def top(values: Sequence[float]) -> float:
    """End of an axis that holds all finite values."""
    return 1.04 * max((v for v in values if math.isfinite(v)), default=0.0) or 1.0


def falling(ends: Sequence[float], count: int, high: float) -> Steps:
    """Share of `count` inputs whose end lies at or beyond a radius, as stairs from 0 to `high`."""
    left = len(ends)
    points: Steps = [(0.0, left / count)]
    for end in sorted(end for end in ends if end <= high):
        points.append((end, left / count))
        left -= 1
        points.append((end, left / count))
    return thinned([*points, (high, left / count)])


def thinned(points: Steps, most: int = 1200) -> Steps:
    """Stairs of at most about `most` corners: beyond that they are finer than pixels."""
    if len(points) <= most:
        return points
    step = math.ceil(len(points) / most)
    step += step % 2 == 0  # odd: corners of both kinds stay
    return [*points[:-1:step], points[-1]]


def curves(ends: Sequence[Ends], marks: Sequence[Accuracy], norm: str) -> Markup:
    """Certified and attacked accuracy over the radius, from brackets and from single verdicts."""
    limit = top([e for end in ends for e in (end.low, end.high)] + [m.eps for m in marks])
    plot = Plot(
        "Accuracy over the radius: certified, not refuted by an attack, and clean",
        Axis(0.0, limit, f"radius eps (norm {norm}, model input units)"),
        Axis(0.0, 1.0, "accuracy", percent=True),
    )
    if ends:
        right = [end for end in ends if end.correct]
        low = falling([end.low for end in right], len(ends), limit)
        high = falling([end.high for end in right], len(ends), limit)
        clean = len(right) / len(ends)
        plot.area([*low, *reversed(high)], "gap", "nobody knows")
        plot.line([(0.0, clean), (limit, clean)], "clean dashed", "clean")
        plot.line(high, "attacked", "not refuted by an attack")
        plot.line(low, "certified", "certified")
    for mark in marks:
        plot.dots([(mark.eps, mark.unrefuted / mark.count)], "attacked", radius=4)
        plot.dots([(mark.eps, mark.certified / mark.count)], "certified", radius=4)
    if marks:
        plot.named("verdicts at one radius (certify)", "dots certified")
    return plot.text()


def scatter(ends: Sequence[Ends]) -> Markup:
    """Attacked over certified radius; on the diagonal a bracket is closed."""
    limit = top([e for end in ends for e in (end.low, end.high)])
    plot = Plot(
        "Attacked radius over certified radius of each input",
        Axis(0.0, limit, "certified radius"),
        Axis(0.0, limit, "attacked radius"),
    )
    plot.line([(0.0, 0.0), (limit, limit)], "clean dashed", "bracket closed")
    known = [(end.low, end.high) for end in ends if math.isfinite(end.high)]
    plot.dots(known, "certified", "one input", radius=2 if len(known) > 500 else 3)
    plot.dots(
        [(end.low, limit) for end in ends if math.isinf(end.high)],
        "attacked",
        "no attack succeeded (at the upper edge)",
        radius=3,
    )
    return plot.text()


def histogram(ends: Sequence[Ends]) -> Markup:
    """How many inputs end where."""
    limit = top([e for end in ends for e in (end.low, end.high)])
    edges = [limit * i / BINS for i in range(BINS + 1)]
    counts = []
    for values in ([e.low for e in ends], [e.high for e in ends if math.isfinite(e.high)]):
        counts.append([float(n) for n in np.histogram(values, edges)[0]])
    plot = Plot(
        "Histogram of certified and of attacked radii",
        Axis(0.0, limit, "radius"),
        Axis(0.0, top([n for part in counts for n in part]), "inputs", whole=True),
    )
    plot.bars(edges, counts[0], "certified", "certified radius")
    plot.outline(edges, counts[1], "attacked", "attacked radius")
    return plot.text()


def times(seconds: Sequence[float]) -> Markup:
    """How long inputs took, by powers of ten."""
    known = [max(s, 1e-6) for s in seconds if s >= 0]
    low = 10.0 ** math.floor(math.log10(min(known)))
    high = 10.0 ** math.ceil(math.log10(max(known)) + 1e-9)
    edges = [float(e) for e in np.geomspace(low, max(high, 10 * low), BINS + 1)]
    counts = [float(n) for n in np.histogram(known, edges)[0]]
    plot = Plot(
        "Histogram of the time that inputs took",
        Axis(edges[0], edges[-1], "seconds per input", log=True),
        Axis(0.0, top(counts), "inputs", whole=True),
    )
    plot.bars(edges, counts, "certified", "")
    return plot.text()


def reliability(parts: Sequence[tuple[str, str, Sequence[tuple[float, bool]]]]) -> Markup:
    """Accuracy over confidence in ten bins.

    Args:
        parts: name, colour, and (confidence, whether it was right) of each input.
    """
    plot = Plot(
        "Reliability: share of right predictions over confidence",
        Axis(0.0, 1.0, "confidence", percent=True),
        Axis(0.0, 1.0, "right predictions", percent=True),
    )
    plot.line([(0.0, 0.0), (1.0, 1.0)], "clean dashed", "calibrated")
    for name, colour, pairs in parts:
        for i in range(10):
            inside = [p for p in pairs if min(9, int(p[0] * 10)) == i]
            if inside:
                mean = sum(confidence for confidence, _ in inside) / len(inside)
                right = sum(right for _, right in inside) / len(inside)
                size = 3 + 9 * math.sqrt(len(inside) / len(pairs))
                plot.dots([(mean, right)], colour, radius=size)
        plot.named(f"{name} (area: share of the inputs)", f"dots {colour}")
    return plot.text()


def against(points: Sequence[tuple[float, float]], x: str, y: str) -> Markup:
    """A scatter of any two figures."""
    plot = Plot(
        f"{y} over {x} of each input",
        Axis(0.0, top([p[0] for p in points]), x),
        Axis(min(0.0, *(p[1] for p in points)), top([p[1] for p in points]), y),
    )
    plot.dots(points, "certified", radius=2 if len(points) > 500 else 3)
    return plot.text()


def growth(named: Sequence[tuple[str, Steps]]) -> Markup:
    """Coverage over the number of inputs."""
    limit = max((x for _, points in named for x, _ in points), default=1.0)
    plot = Plot(
        "Coverage over the number of inputs",
        Axis(0.0, limit, "inputs"),
        Axis(0.0, 1.0, "covered", percent=True),
    )
    for i, (name, points) in enumerate(named):
        plot.line(points, f"tone{i % 6}", name)
    return plot.text()


def strips(rows: Sequence[tuple[str, float, float]]) -> Markup:
    """A strip an image: proved up to a share of the range, refuted from another on.

    Args:
        rows: name, certified share, attacked share (infinite: no attack succeeded).
    """
    shown = rows[:STRIPS]
    plot = Plot(
        "Per image: share of the transformation's range that is proved, open and refuted",
        Axis(0.0, 1.0, "share of the range", percent=True),
        Axis(0.0, float(len(shown)), "", bare=True),
        height=60 + 16 * len(shown),
        left=90,
    )
    kinds: dict[str, list[tuple[float, float, int]]] = {"certified": [], "gap": [], "attacked": []}
    for i, (_, low, high) in enumerate(shown):
        low, high = min(low, 1.0), max(min(high, 1.0), low)
        spans = ((0.0, low, "certified"), (low, high, "gap"), (high, 1.0, "attacked"))
        for a, b, kind in spans:
            if b > a:
                kinds[kind].append((a, b, i))
    words = {"certified": "proved", "gap": "nobody knows", "attacked": "beyond a counterexample"}
    for kind, boxes in kinds.items():
        path = "".join(box(plot, len(shown), *place) for place in boxes)
        if path:
            plot.parts.append(Markup('<path d="{}" class="bar {}"/>').format(path, kind))
            plot.named(words[kind], f"bar {kind}")
    return named_rows(plot, [name for name, _, _ in shown])


def box(plot: Plot, count: int, a: float, b: float, row: int) -> str:
    """The path of one strip."""
    top_, bottom = plot.at_y(count - row - 0.15), plot.at_y(count - row - 0.85)
    return f"M{plot.at_x(a):.1f} {top_:.1f}H{plot.at_x(b):.1f}V{bottom:.1f}H{plot.at_x(a):.1f}Z"


def named_rows(plot: Plot, names: Sequence[str]) -> Markup:
    """The plot with names in place of numbers at its vertical axis."""
    count = len(names)
    for i, name in enumerate(names):
        words = name if len(name) <= 14 else name[:13] + "…"
        place = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>')
        plot.parts.append(place.format(plot.left - 7, plot.at_y(count - i - 0.5) + 4, words))
    return plot.text()
