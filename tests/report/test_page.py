"""The page: right counts, nothing of a file taken as markup, nothing asked of a network."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from verify.report import ModelStamp, make_record, write_json
from verify.report.page import (
    CertificateCheck,
    Shown,
    Source,
    Wishes,
    build_page,
    latex_tables,
    markdown_tables,
)
from verify.report.page import assemble as page_module
from verify.report.page.charts import falling, thinned
from verify.report.page.facts import accuracies, per_class
from verify.report.page.joining import spearman
from verify.report.page.svg import ticks

HOSTILE = """<script>alert(1)</script>"'&<img src=x onerror=alert(2)> `|$\\input{x}"""
STYLE = (Path(page_module.__file__).parent / "report.css").read_text()


def brackets(*ends: tuple[int, float, float], name: str = "r.json", **settings: object) -> Source:
    rows = [
        {
            "index": i,
            "label": label,
            "predicted": label if high > 0 else label + 1,
            "verdict": "verified" if low > 0 else "falsified",
            "method": "crown",
            "seconds": 0.1,
            "radius_certified": low,
            "radius_attacked": high,
        }
        for i, (label, low, high) in enumerate(ends)
    ]
    given = {"labels": "data", "norm": "inf", "data": "d", **settings}
    return Source(name, None, make_record("radius", rows, settings=given, model=STAMP))


STAMP = ModelStamp("m.onnx", "00ff")
FOUR = ((0, 0.2, 0.3), (0, 0.1, math.inf), (1, 0.0, 0.0), (1, 0.3, 0.4))


def hostile_source() -> Source:
    """Markup wherever a file can hold text."""
    row = {
        "index": HOSTILE,
        "label": HOSTILE,
        "predicted": HOSTILE,
        "verdict": "unknown",
        "method": HOSTILE,
        "reason": HOSTILE,
        "seconds": 0.1,
        "radius_certified": 0.1,
        "radius_attacked": 0.2,
        "share_certified": 0.5,
    }
    settings = {"norm": HOSTILE, "data": HOSTILE, HOSTILE: [HOSTILE]}
    stamp = ModelStamp(HOSTILE.replace("/", ""), HOSTILE)
    summary = {"criteria": {HOSTILE: {"covered": HOSTILE, "total": 3, "share": 0.5}}}
    record = make_record("radius", [row], settings=settings, model=stamp, summary=summary)
    picture = Shown(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32))
    return Source(HOSTILE, HOSTILE, record, {HOSTILE: picture}, HOSTILE)


class Outline(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_headline_counts_what_brackets_say() -> None:
    """At 0.2: three are correct, two proved to 0.2, none of the three attacked by then."""
    (one,) = accuracies([brackets(*FOUR)], 0.2)
    assert (one.count, one.clean, one.certified, one.unrefuted, one.gap) == (4, 3, 2, 3, 1)
    (one,) = accuracies([brackets(*FOUR)], 0.3)  # attacked at 0.3 is refuted at 0.3
    assert (one.certified, one.unrefuted) == (1, 2)


def test_verdicts_of_misclassified_inputs_count_for_nothing() -> None:
    """Whatever a verdict says, robust accuracy counts correct inputs only."""
    verdicts = [("verified", 0), ("verified", 1), ("unknown", 0), ("falsified", 0)]
    rows = [
        {"index": i, "label": 0, "predicted": said, "verdict": verdict, "eps": 0.1}
        for i, (verdict, said) in enumerate(verdicts)
    ]
    source = Source("c", None, make_record("certify", rows, settings={}, model=STAMP))
    (one,) = accuracies([source], None)
    assert (one.eps, one.clean, one.certified, one.unrefuted) == (0.1, 3, 1, 2)


def test_each_class_is_counted_alone() -> None:
    """Two labels, two lines, medians with an infinite end."""
    zero, one = per_class(brackets(*FOUR), 0.2)
    assert (zero.label, zero.accuracy.certified, zero.low) == ("0", 1, pytest.approx(0.15))
    assert zero.high == math.inf
    assert (one.accuracy.clean, one.accuracy.count) == (1, 2)


def test_stairs_fall_where_an_end_lies() -> None:
    """Share of inputs whose radius is at least eps, on both sides of every step."""
    assert falling([0.1, 0.3], 4, 0.4) == [
        (0.0, 0.5),
        *((0.1, 0.5), (0.1, 0.25), (0.3, 0.25), (0.3, 0.0), (0.4, 0.0)),
    ]
    many = falling([i / 20000 for i in range(10000)], 10000, 0.5)
    assert len(many) < 1300
    assert all(abs(y - (1 - 2 * x)) < 0.01 for x, y in thinned(many))


def test_rank_correlation_is_scipys() -> None:
    """Also with ties; none where one side never varies."""
    rng = np.random.default_rng(0)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 6, (40, 2))]
    assert spearman(points) == pytest.approx(spearmanr(points).statistic, abs=1e-12)
    assert spearman([(1.0, 1.0), (1.0, 2.0)]) is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.21), (0, 1e-9), (-3, 7), (0, 98765)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    """From three to seven numbers."""
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert all(low - 1e-9 * high <= tick <= high * (1 + 1e-9) for tick in found)


def test_text_of_files_never_becomes_markup() -> None:
    """The hostile page has the elements of a harmless one, and the text itself is there."""
    checks = (CertificateCheck(HOSTILE, False, HOSTILE, 0.1),)
    page = build_page([hostile_source()], Wishes(HOSTILE, checks=checks))
    outline = Outline(page)
    assert not outline.of("script")
    assert all(
        str(image["src"]).startswith("data:image/png;base64,") for image in outline.of("img")
    )
    assert len(outline.of("img")) == 3
    assert not [a for _, a in outline.tags if any(key.startswith("on") for key in a)]
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def test_escaping_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above finds a template without escaping."""
    made = page_module.environment()
    made.autoescape = False
    monkeypatch.setattr(page_module, "environment", lambda: made)
    assert Outline(build_page([hostile_source()], Wishes(HOSTILE))).of("script")


def test_tables_for_papers_escape_too() -> None:
    """No cell ends a row, a column or a group."""
    sources, wishes = [hostile_source(), brackets(*FOUR)], Wishes(HOSTILE, 0.2)
    for line in markdown_tables(sources, wishes).splitlines():
        if line.startswith("| r.json |") or HOSTILE[:8] in line:
            assert "<script" not in line.replace("\\<", "")
    latex = latex_tables(sources, wishes)
    assert r"\input" not in latex
    assert r"r.json & 0.2 & 4 & 75.0 \% & 75.0 \% & 50.0 \% & 25.0 \% \\" in latex
    cells = [re.findall(r"(?<!\\)&", line) for line in latex.splitlines() if line.endswith(r" \\")]
    assert {len(found) for found in cells} <= {5, 6}


def test_nothing_is_asked_of_a_network_and_everything_has_a_name() -> None:
    """No address, no script; pictures, plots, tables and regions are named, ids unique."""
    picture = Shown(np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), np.float32), 3)
    source = brackets(*FOUR)
    page = build_page(
        [Source(source.name, "ab", source.record, {0: picture}), hostile_source()], Wishes()
    )
    outline = Outline(page)
    assert "://" not in page
    assert {a["href"][:1] for a in outline.of("a") if a["href"]} == {"#"}
    ids = [str(a["id"]) for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in outline.of("a")} <= set(ids)
    assert all(image["alt"] for image in outline.of("img"))
    plots = [a for a in outline.of("svg") if "aria-hidden" not in a]
    assert plots
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    assert all("scope" in a for a in outline.of("th"))
    assert all(a["aria-label"] for _, a in outline.tags if a.get("role") == "region")
    assert outline.of("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    digits = colour * 2 if len(colour) == 3 else colour
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_enough_in_both_themes() -> None:
    """Text 4.5 : 1 on paper and cards; lines of plots are the same colours."""
    light, dark = re.findall(r":root\{([^}]*--paper[^}]*--t5[^}]*)\}", STYLE)
    for theme in (light, dark):
        found = dict(re.findall(r"--(\w+):#([0-9a-f]+)", theme))
        for ground in ("paper", "card"):
            for ink in ("ink", "soft", "certified", "attacked", "clean", "gap", "t2", "t3"):
                pair = sorted((luminance(found[ground]), luminance(found[ink])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ground, ink)


def test_rows_of_any_shape_make_a_page(tmp_path: Path) -> None:
    """A file may hold whatever JSON can; nothing fails, nothing is counted that is not there."""
    write_json(brackets(*FOUR).record, tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    odd: list[object] = ["x", [1], {"a": 1}, True, 10**400, -1, None]
    for key in ("radius_certified", "radius_attacked", "seconds", "label", "predicted", "index"):
        found["results"] += [{**found["results"][0], key: value} for value in odd]
    found["summary"] = {"criteria": {"nc": 3}, "curves": [1]}
    (tmp_path / "r.json").write_text(json.dumps(found))
    source = Source.read(tmp_path / "r.json")
    assert "Headline" in build_page([source], Wishes())
    assert markdown_tables([source], Wishes())


@pytest.mark.parametrize("command", ["coverage", "geometric", "certify", "prop"])
def test_an_empty_record_makes_a_page(command: str) -> None:
    """Only what is there is shown."""
    source = Source("e", None, make_record(command, [], settings={}, model=STAMP))
    page = build_page([source], Wishes())
    assert "To repeat it" in page
    assert "Headline" not in page
