"""The page in a real Chromium: clicked, dragged and typed into as a person would."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import CONV, DENSE
from tests.explore.browser import BROWSER, Browser
from verify.cli.explore import PageOptions
from verify.cli.exploring import explained, subject_of, tools_of
from verify.cli.options import DataOptions
from verify.cli.session import open_session
from verify.explore.desk import Desk, Worker
from verify.explore.server import Site, open_server

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

HOSTILE = "<img src=x onerror=alert(1)>.onnx"
CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const found = parse(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0.99) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const text = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    const style = getComputedStyle(node);
    const box = node.getBoundingClientRect();
    if (!text || !box.width || style.visibility === 'hidden') continue;
    if (node.closest(':disabled, noscript')) continue;
    if (node.parentElement.querySelector(':scope > input:disabled')) continue;
    const ink = parse(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.id} ${node.textContent} ${ratio}`);
  }
  return poor;
})()"""


@dataclass
class Shown:
    """A page that is open."""

    browser: Browser
    address: str

    def settled(self) -> str:
        """Wait for the verdict on what was asked last; returns it."""
        found = "document.getElementById('verdict').dataset.verdict"
        return str(self.browser.until(f"{found} !== 'none' && {found}"))

    def size(self, text: str) -> str:
        """Type a size into its field, as a person does; returns the verdict on it."""
        self.browser.click("#exact")
        self.browser.js("document.getElementById('exact').select()")
        self.browser.type(text)
        self.browser.press("Enter")
        return self.settled()

    def numbers(self, column: int) -> list[str]:
        """A column of the table of predictions, from 1."""
        return self.browser.js(
            f"[...document.querySelectorAll('#bars td:nth-child({column})')]"
            ".map((cell) => cell.textContent)"
        )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A net with a hostile name, an ensemble of two, and a browser."""
    folder = tmp_path_factory.mktemp("page")
    model = folder / HOSTILE.replace("/", "")
    shutil.copy(CONV, model)
    session = open_session(model, DataOptions(data="digits", limit=100), 0.0)
    page = PageOptions(ensemble=[Path(DENSE)])
    subject, tools = subject_of(session, page), tools_of(model, session, page)
    site = Site(subject, tools, Desk(Worker(subject, tools, 20.0), explained), 20.0)
    server = open_server(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Browser(folder)
    try:
        browser.window(1280, 900)
        shown = Shown(browser, f"http://127.0.0.1:{server.port}/{site.token}/")
        browser.go(shown.address)
        shown.settled()
        yield shown
        # Whatever the tests did: nothing was said on the console.
        assert browser.complaints == []
    finally:
        browser.close()
        server.shutdown()
        server.server_close()
        site.desk.end()


def test_an_input_a_radius_and_what_becomes_of_them(shown: Shown) -> None:
    """Small sizes are verified, large ones falsified, and the numbers follow."""
    browser = shown.browser
    browser.click(".thumb[data-position='4']")
    shown.settled()
    assert browser.text("#said-before").startswith("says 7")
    assert shown.size("0.01") == "verified"
    browser.until("document.querySelectorAll('#bars .whisker').length === 10")
    clean, narrow = shown.numbers(3), shown.numbers(5)
    assert "0.01 in each value leaves it class 7" in browser.text("#verdict-text")
    assert shown.size("51/255") == "falsified"
    browser.until("document.querySelectorAll('#bars .whisker').length === 10")
    assert shown.numbers(3) == clean
    assert shown.numbers(5) != narrow
    assert browser.text("#after-title") == "fooled by pgd"
    assert browser.js("document.getElementById('after-frame').dataset.found") == "yes"
    assert "replayed in ONNX Runtime" in browser.text("#verdict-text")
    assert "0.2 in each value makes it another class than 7" in browser.text("#verdict-text")


def test_the_bracket_closes_while_one_looks(shown: Shown) -> None:
    """Its line moves, and its ends are numbers with the certified one below."""
    browser = shown.browser
    browser.click(".thumb[data-position='5']")
    browser.until("document.querySelector('#bracket .low')")
    browser.until("document.querySelector('#bracket-text .a')")
    browser.until("Number(document.querySelector('#bracket-text .c').textContent) > 0.02")
    low, high = (float(browser.text(f"#bracket-text .{end}")) for end in "ca")
    assert 0.02 < low < high < 1
    # Each step of what is known is a step of a line.
    browser.until(
        "new Set([...document.querySelectorAll('#bracket .low, #bracket .high')]"
        ".flatMap((line) => line.getAttribute('d').match(/V[0-9.]+/g))).size > 3"
    )


def test_the_slider_moves_by_keys_and_says_its_value(shown: Shown) -> None:
    """What is shown of another size is gone at once."""
    browser = shown.browser
    browser.until("document.querySelector('#bars .whisker')")
    browser.js("document.getElementById('size').focus()")
    before = browser.js("document.getElementById('exact').value")
    browser.press("ArrowRight", 3)
    assert browser.js("document.getElementById('exact').value") != before
    assert "L∞" in browser.js("document.getElementById('size').getAttribute('aria-valuetext')")
    shown.settled()
    browser.until("document.querySelector('#bars .whisker')")
    # In one go, so that no answer can come in between.
    left = browser.js(
        "(() => { const size = document.getElementById('size'); size.value = 10; "
        "size.dispatchEvent(new Event('input')); "
        "return [document.getElementById('verdict').dataset.verdict, "
        "document.querySelectorAll('#bars .whisker, #bars .mark').length] })()"
    )
    assert left == ["none", 0]
    shown.settled()


def test_a_size_that_is_none_is_refused(shown: Shown) -> None:
    """Marked as invalid; the last one stays."""
    browser = shown.browser
    for text in ("-1", "1/0", "abc", "1e9", ""):
        browser.click("#exact")
        browser.js("document.getElementById('exact').select()")
        browser.type(text) if text else browser.js("document.getElementById('exact').value = ''")
        browser.js("document.getElementById('exact').dispatchEvent(new Event('change'))")
        assert browser.js("document.getElementById('exact').getAttribute('aria-invalid')") == "true"
    assert shown.size("0.02") in ("verified", "unknown", "falsified")
    assert browser.js("document.getElementById('exact').getAttribute('aria-invalid')") is None


def test_the_angle(shown: Shown) -> None:
    """Another unit, another bracket, other words."""
    browser = shown.browser
    browser.click(".thumb[data-position='0']")
    browser.click("[name=threat][value=angle]")
    assert shown.size("8") == "verified"
    assert "every rotation by up to 8° either way leaves it class 7" in browser.text(
        "#verdict-text"
    )
    browser.until("document.querySelector('#bracket-text .a')")
    assert browser.text("#bracket-text .c").endswith("°")
    assert browser.js("document.getElementById('attack-field').hidden")
    browser.click("[name=threat][value=ball]")
    shown.settled()
    assert not browser.text("#unit").startswith("degrees")


def test_logits_and_members(shown: Shown) -> None:
    """The same intervals on another scale; both members of the ensemble are counted."""
    browser = shown.browser
    before = shown.numbers(3)
    browser.click("#as-logit")
    assert shown.numbers(3) != before
    assert browser.js("document.getElementById('as-logit').getAttribute('aria-pressed')") == "true"
    browser.click("#as-probability")
    assert shown.numbers(3) == before
    assert "2 say" in browser.text("#doubts") or "1 say" in browser.text("#doubts")
    assert browser.js("document.querySelectorAll('#doubts tr').length") >= 1


def test_drawing_by_pointer_and_by_keys(shown: Shown) -> None:
    """A vertical line is taken for something, and a dab more changes the prediction's numbers."""
    browser = shown.browser
    browser.click("#tab-draw")
    shown.settled()
    blank = shown.numbers(3)
    browser.drag("#board", [(0.5, 0.1), (0.5, 0.5), (0.5, 0.9)])
    shown.settled()
    line = shown.numbers(3)
    assert line != blank
    browser.js("document.getElementById('board').focus()")
    browser.press("ArrowLeft", 2)
    assert browser.text("#board-cell").startswith("row 5, column 3")
    browser.press(" ")
    shown.settled()
    assert shown.numbers(3) not in (line, blank)
    browser.click("#wipe")
    shown.settled()
    assert shown.numbers(3) == blank
    browser.click("#tab-pick")
    shown.settled()


def test_thumbnails_by_keys_over_pages(shown: Shown) -> None:
    """Arrows choose; beyond the last one the next page comes."""
    browser = shown.browser
    browser.click(".thumb[data-position='47']")
    browser.press("ArrowRight")
    browser.until("document.querySelector('.thumb[data-position=\"48\"][aria-checked=true]')")
    assert browser.text("#where") == "49 to 96 of 100"
    assert browser.js("document.activeElement.dataset.position") == "48"
    browser.click("#later")
    browser.until("document.querySelectorAll('.thumb').length === 4")
    assert browser.js("document.getElementById('later').disabled")
    browser.click("#earlier")
    browser.until("document.querySelectorAll('.thumb').length === 48")


def test_everything_has_a_name_and_is_reached_in_order(shown: Shown) -> None:
    """By the tab key, top to bottom; each stop has a name for those who do not see it."""
    browser = shown.browser
    browser.go(shown.address)
    shown.settled()
    stops = []
    for _ in range(12):
        browser.press("Tab")
        stops.append(browser.js("((e) => e.id || e.className || e.value)(document.activeElement)"))
    assert stops == [
        *("skip", "tab-pick", "thumb", "later", "ball", "size", "exact", "attack", "held"),
        *("as-probability", "as-logit", "scroll"),
    ]
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    focusable = [
        node
        for node in nodes
        if not node["ignored"]
        and any(
            p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", [])
        )
    ]
    assert len(focusable) > 55
    assert [n for n in focusable if not n.get("name", {}).get("value")] == []
    ids = browser.js("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_text_is_readable_in_both_themes_and_on_a_phone(shown: Shown) -> None:
    """4.5 : 1 at least, and nothing is wider than the window."""
    browser = shown.browser
    try:
        for theme in ("light", "dark"):
            browser.theme(theme)
            assert browser.js(CONTRAST) == []
        browser.theme("light")
        for width in (390, 700, 1000, 1280):
            browser.window(width, 844, phone=width == 390)
            browser.until(f"window.innerWidth === {width}")
            assert browser.js("document.documentElement.scrollWidth") <= width
    finally:
        browser.window(1280, 900)


def test_names_of_files_stay_text(shown: Shown) -> None:
    """The hostile name is a heading, and no picture was made of it."""
    browser = shown.browser
    assert browser.text("#model") == HOSTILE.replace("/", "")
    assert browser.js("document.images.length") == 1
