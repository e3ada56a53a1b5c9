"""The report in a real Chromium: walked with the Tab key, measured, printed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.explore.browser import BROWSER, Browser
from tests.report.test_page import FOUR, STAMP, brackets
from verify.report import make_record
from verify.report.page import CertificateCheck, Shown, Source, Wishes, build_page

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const part = (c) => { c /= 255; return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim()) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), element.tagName, walker.currentNode.textContent.trim()]);
  }
  return found;
})()"""
WIDE = """[...document.querySelectorAll('body *')].filter((e) =>
  !e.closest('.scroll, svg, .skip') && e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 80))"""
FOCUS = """(() => { const e = document.activeElement; return e === document.body ? null : {
  tag: e.tagName, words: e.textContent.trim().slice(0, 30), label: e.getAttribute('aria-label'),
  outline: getComputedStyle(e).outlineStyle, top: e.getBoundingClientRect().top,
  bottom: e.getBoundingClientRect().bottom, href: e.getAttribute('href')}; })()"""


def record(command: str, rows: list[dict[str, object]], **settings: object) -> Source:
    given = {"labels": "data", "norm": "inf", "data": "d", **settings}
    made = make_record(command, rows, settings=given, model=STAMP)
    return Source(command, "00ff", made, again=f"verify {command} m.onnx")


def everything() -> list[Source]:
    """A record of each kind."""
    shown = {
        str(i): Shown(np.eye(8, dtype=np.float32), np.ones((8, 8), np.float32), 3) for i in range(3)
    }
    first = brackets(*FOUR)
    moved = {"label": 1, "predicted": 1, "seconds": 0.1, "method": "grid"}
    return [
        Source(first.name, "ab", first.record, shown),
        record(
            "spatial",
            [
                {**moved, "index": 0, "verdict": "falsified", "share_attacked": 0.4}
                | {"parameters": {"rotation": 12.0}},
                {**moved, "index": 1, "verdict": "unknown", "reason": "nothing found"},
            ],
            transform="rotation(-30,30)",
        ),
        record(
            "transfer",
            [
                {"index": 2 * i + j, "attack": "pgd", "source": s, "target": t}
                | {"rate": 0.5, "low": 0.25, "high": 0.75}
                for i, s in enumerate("ab")
                for j, t in enumerate("ab")
            ],
        ),
        record("ood", [{"index": 0, "ood": "noise", "method": "msp", "auroc": 0.9, "fpr": 0.1}]),
        record(
            "prop",
            [
                {"index": 0, "model": "m", "property": "p.vnnlib", "verdict": "verified"}
                | {"answer": "unsat", "seconds": 1.0, "method": "input-split"}
            ],
        ),
        record(
            "uncertainty",
            [
                {"index": i, "label": 1, "predicted": 1 + i % 2, "confidence": 0.5 + i / 50}
                | {"total": 0.1 * i, "aleatoric": 0.1, "epistemic": 0.0}
                for i in range(12)
            ],
        ),
    ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With the page open."""
    home = tmp_path_factory.mktemp("browser")
    checks = (CertificateCheck("a.cert", True, "holds", 0.1), CertificateCheck("b", False, "no", 1))
    page = home / "report.html"
    page.write_text(build_page(everything(), Wishes(checks=checks)), encoding="utf-8")
    found = Browser(home)
    found.window(1200, 900)
    found.go(page.as_uri())
    yield found
    found.close()


def test_the_tab_key_reaches_all_that_can_be_used_and_shows_where_it_is(browser: Browser) -> None:
    """In the order of the page, each with an outline and in sight; the skip link works."""
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    browser.call("Emulation.setEmulatedMedia", features=[still])
    browser.js("document.activeElement.blur(); window.scrollTo(0, 0)")
    expected = browser.js(
        "document.querySelectorAll('a[href], summary, [tabindex=\"0\"]:not(details *)').length"
    )
    places = []
    for _ in range(200):
        browser.press("Tab")
        place = browser.js(FOCUS)
        if place is None:
            break
        places.append(place)
    assert places[0]["words"] == "Skip to the figures"
    # Rejected certificates are open, so what is in them can be reached, too.
    assert len(places) >= expected > 15
    for place in places:
        assert place["outline"] == "solid", place
        assert place["bottom"] > 0, place
        assert place["top"] < 900, place
        assert place["words"] or place["label"], place
    targets = [p["href"] for p in places if p["href"] and p["words"] != "Skip to the figures"]
    assert len(targets) >= 10
    assert all(browser.js(f"!!document.querySelector({json.dumps(t)})") for t in targets)
    browser.js("document.activeElement.blur(); document.querySelector('.skip').focus()")
    browser.press("Enter")
    browser.until("document.activeElement.id === 'main'")


def test_details_open_by_key(browser: Browser) -> None:
    """The settings are behind summaries that Enter opens."""
    browser.js("document.querySelector('#repeat summary').focus()")
    browser.press("Enter")
    browser.until("document.querySelector('#repeat details').open")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_contrast(browser: Browser, theme: str) -> None:
    """WCAG 2 AA, 4.5 : 1, of what is really shown: colours as computed, on what lies behind."""
    browser.theme(theme)
    found = browser.js(CONTRAST)
    assert len(found) > 200
    low = [entry for entry in found if not entry[0] >= 4.5]
    assert low == []
    browser.theme("light")


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_wider_than_the_window(browser: Browser, width: int) -> None:
    """Only tables scroll, in a frame of their own."""
    browser.window(width, 900, phone=width < 500)
    assert browser.js(WIDE) == []
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    browser.window(1200, 900)


def test_what_assistive_technology_is_told(browser: Browser) -> None:
    """Language, title, landmarks, one first heading; every picture, region and link has a name."""
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored")
    ]
    roles = {role for role, _ in named}
    assert {"main", "navigation", "banner", "contentinfo", "heading", "table"} <= roles
    for role in ("image", "img", "region", "link", "columnheader"):
        assert all(name for kind, name in named if kind == role), role
    assert browser.js("document.documentElement.lang") == "en"
    assert browser.js("document.title")
    assert browser.js("document.querySelectorAll('h1').length") == 1
    assert browser.js("document.querySelector('meta[name=viewport]') !== null")
    assert browser.complaints == []


def test_it_prints_with_its_settings(browser: Browser, tmp_path: Path) -> None:
    """A PDF of some pages; in print nothing is cut off, and what is folded up is unfolded."""
    found = browser.call("Page.printToPDF", preferCSSPageSize=True)
    pdf = base64.b64decode(found["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page") > 2
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        shut = "[...document.querySelectorAll('#repeat details:not([open]) dl')]"
        heights = browser.js(f"{shut}.map((e) => e.getBoundingClientRect().height)")
        assert heights
        assert min(heights) > 20
        cut = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > 1 + "
        assert (
            browser.js(f"{cut} e.clientWidth && getComputedStyle(e).overflow !== 'visible')") == []
        )
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
