"""A real Chromium, driven over its debugging pipe: two file descriptors, JSON, no library.

`--remote-debugging-pipe` lets Chromium read commands of the DevTools protocol from descriptor 3
and write answers and events to 4, each ended by a zero byte. Key and mouse events sent so take the
same way through the browser as a person's.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--mute-audio", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
"""Seconds that anything may take: CI's machines are slow and busy."""
KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    " ": (32, " "),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


class Browser:
    """One page in one Chromium.

    Attributes:
        complaints: what the console and uncaught exceptions said.
    """

    def __init__(self, home: Path) -> None:
        assert BROWSER is not None
        self.complaints: list[str] = []
        self._number, self._rest = 0, b""
        self._answers: dict[int, dict[str, Any]] = {}
        commands, self._out = os.pipe()
        self._in, events = os.pipe()
        # The shell puts the pipes where Chromium looks for them, whatever their numbers are here.
        line = f'exec "$@" 3<&{commands} 4>&{events}'
        flags = (*FLAGS, f"--user-data-dir={home / 'profile'}")
        self._process = subprocess.Popen(
            ["bash", "-c", line, "bash", BROWSER, *flags, "about:blank"],
            pass_fds=(commands, events),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(home)},
        )
        os.close(commands)
        os.close(events)
        self._session: str | None = None
        self._session = self._attach()
        for domain in ("Page", "Runtime", "Log", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")

    def _attach(self) -> str:
        ending = time.monotonic() + PATIENCE
        while time.monotonic() < ending:
            found = self.call("Target.getTargets")["targetInfos"]
            pages = [target for target in found if target["type"] == "page"]
            if pages:
                asked = {"targetId": pages[0]["targetId"], "flatten": True}
                return str(self.call("Target.attachToTarget", **asked)["sessionId"])
            time.sleep(0.05)
        raise TimeoutError("Chromium has no page")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        number = self._number
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        ending = time.monotonic() + PATIENCE
        while number not in self._answers:
            self._pump(ending - time.monotonic(), method)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _pump(self, seconds: float, what: str) -> None:
        """Read whatever has come."""
        ready, _, _ = select.select([self._in], [], [], max(0.0, seconds))
        if not ready:
            raise TimeoutError(f"Chromium does not answer {what}")
        got = os.read(self._in, 1 << 20)
        if not got:
            raise ConnectionError(f"Chromium ended during {what}")
        *messages, self._rest = (self._rest + got).split(b"\0")
        for raw in messages:
            message = json.loads(raw)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, event: str, data: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(data["exceptionDetails"])[:800])
        elif event == "Log.entryAdded":
            self.complaints.append(f"{data['entry']['text']} {data['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and data["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(data["args"])[:800])

    def go(self, address: str) -> None:
        """Open a page, and wait until it is there."""
        self.call("Page.navigate", url=address)
        there = f"location.href === {json.dumps(address)} && document.readyState === 'complete'"
        self.until(there)

    def js(self, text: str) -> Any:
        """The value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (text, found)
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = PATIENCE) -> Any:
        """Wait for an expression to be true; returns its value."""
        ending = time.monotonic() + seconds
        while True:
            # An element has no value; that it is there is what counts.
            value = self.js(f"((found) => found instanceof Element || found)({condition})")
            if value:
                return value
            if time.monotonic() > ending:
                raise TimeoutError(f"never came: {condition}; complaints: {self.complaints}")
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).textContent"))

    def box(self, selector: str) -> dict[str, float]:
        """Where an element is, scrolled into view."""
        name = json.dumps(selector)
        self.js(f"document.querySelector({name}).scrollIntoView({{block: 'center'}})")
        return self.js(
            f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
            f"(document.querySelector({name}).getBoundingClientRect())"
        )

    def mouse(self, kind: str, x: float, y: float) -> None:
        """One event of the left button."""
        pressed = kind != "mouseReleased"
        self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left",
            buttons=int(pressed),
            clickCount=1,
        )

    def click(self, selector: str) -> None:
        """Into the middle of an element."""
        box = self.box(selector)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        # On a busy machine the commands return before the page has seen the click.
        self.js(
            "void (window.clicked = new Promise((seen) => document.addEventListener('click', "
            "() => setTimeout(seen), { once: true, capture: true })))"
        )
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)
        self.js("window.clicked")

    def drag(self, selector: str, points: list[tuple[float, float]]) -> None:
        """Along points given as shares of an element's box."""
        box = self.box(selector)
        places = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in points]
        self.mouse("mousePressed", *places[0])
        for place in places[1:]:
            self.mouse("mouseMoved", *place)
        self.mouse("mouseReleased", *places[-1])

    def press(self, key: str, times: int = 1) -> None:
        """A key, held by nobody."""
        code, text = KEYS[key]
        for _ in range(times):
            common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            down = "keyDown" if text else "rawKeyDown"
            self.call("Input.dispatchKeyEvent", type=down, text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Letters into what has the focus."""
        self.call("Input.insertText", text=text)

    def window(self, width: int, height: int, *, phone: bool = False) -> None:
        """The size of the page."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def theme(self, name: str) -> None:
        """Light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def shoot(self, path: Path, *, whole: bool = True) -> None:
        """A picture of the page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End this Chromium."""
        try:
            self._session = None
            self.call("Browser.close")
        except (OSError, TimeoutError, AssertionError):
            pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
