"""The server: who is answered, what is refused, and what is never said."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from werkzeug.test import Client, TestResponse

from tests.cli.commands import CONV, Run
from tests.explore.subjects import CLIENT, body, explored
from verify.cli.exploring import explained
from verify.errors import DataError
from verify.explore.asking import Ask, most_bytes
from verify.explore.course import Emit, Stopped
from verify.explore.desk import Desk
from verify.explore.server import FILES, Site, open_server

HOST = "127.0.0.1:5000"


def work(ask: Ask, emit: Emit, cancelled: Callable[[], bool]) -> None:
    """Instead of a computation."""
    emit("verdict", {"size": ask.size, "first": float(ask.x.flatten()[0])})


@pytest.fixture
def site() -> Site:
    """One whose computations take no time."""
    subject, tools = explored()
    made = Site(subject, tools, Desk(work, explained), 20.0)
    made.hosts = frozenset((HOST,))
    return made


def get(site: Site, path: str, host: str = HOST, **headers: str) -> TestResponse:
    return Client(site).get(path, headers={"Host": host, **headers})


def post(site: Site, data: bytes, **headers: str) -> TestResponse:
    given = {"Host": HOST, "Content-Type": "application/json", **headers}
    return Client(site).post(f"/{site.token}/ask", data=data, headers=given)


def packed(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@pytest.mark.parametrize("name", [*FILES, "about", "inputs", "inputs?start=48", "ask", "nowhere"])
def test_nothing_is_answered_without_the_secret(site: Site, name: str) -> None:
    """Not the page, not its files, not the errors that would tell what there is."""
    wrong = site.token[:-1] + ("A" if site.token[-1] != "A" else "B")
    for path in (f"/{name}", f"//{name}", f"/{wrong}/{name}", f"/{site.token}x/{name}", "/"):
        answer = get(site, path)
        assert answer.status_code == 403
        assert site.token not in answer.text


def test_the_secret_is_long_and_new_each_time(site: Site) -> None:
    """192 bits."""
    other = Site(site.subject, site.tools, site.desk, 1.0)
    assert len(base64.urlsafe_b64decode(site.token)) == 24
    assert other.token != site.token


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:5001", "evil.example:5000", "", "127.0.0.1:5000."],
)
def test_other_names_for_this_server_are_refused(site: Site, host: str) -> None:
    """A name that was made to point here would let its own page read the answers."""
    assert get(site, f"/{site.token}/about", host).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
def test_other_pages_are_refused(site: Site, headers: Mapping[str, str], status: int) -> None:
    """Even with the secret; a link to the page may be followed."""
    assert get(site, f"/{site.token}/about", **headers).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "../server.py",
        "..%2fserver.py",
        "%2e%2e/%2e%2e/pyproject.toml",
        "page/index.html",
        "/etc/passwd",
        "index.html%00.js",
        "main.js/",
        "explore.css/../../server.py",
        "\\..\\server.py",
    ],
)
def test_paths_lead_nowhere(site: Site, path: str) -> None:
    """Only names of a table are answered."""
    answer = get(site, f"/{site.token}/{path}")
    assert answer.status_code in (403, 404)
    assert "import" not in answer.text


@pytest.mark.parametrize("name", [*FILES, "about", "nowhere"])
def test_headers_forbid_what_the_page_does_not_need(site: Site, name: str) -> None:
    """Nothing from elsewhere, nothing inline, no frames, nothing kept; no version told."""
    answer = get(site, f"/{site.token}/{name}")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_is_self_contained_and_never_makes_markup_of_data(site: Site) -> None:
    """No address of anywhere else but the SVG namespace; no innerHTML or its like."""
    for content, _ in site.files.values():
        text = content.decode()
        assert set(re.findall(r"https?://[^\"' )]*", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    page = site.files[""][0].decode()
    assert not re.search(r"\son\w+=|style=|<script(?! type=\"module\" src)", page)
    named = set(
        re.findall(r'from "\./(\w+\.js)"', "".join(c.decode() for c, _ in site.files.values()))
    )
    assert named | {"main.js"} == {name for name in FILES if name.endswith(".js")}


def test_a_question_is_answered_as_a_stream(site: Site) -> None:
    """By position, and by values."""
    answer = post(site, body(size=0.03))
    assert answer.mimetype == "text/event-stream"
    events = [event for event in answer.text.split("\n\n") if event]
    assert events[0].startswith("event: verdict\ndata: {")
    assert json.loads(events[0].partition("data: ")[2])["size"] == 0.03
    assert events[1] == "event: done\ndata: {}"
    drawn = post(site, body(position=None, values=packed(*[0.25] * 64)))
    assert '"first":0.25' in drawn.text


BAD = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "no object": b"[1]",
    "deep": b"[" * 3000,
    "NaN": body().replace(b"0.05", b"NaN"),
    "infinity": body().replace(b"0.05", b"1e999"),
    "huge whole number": body().replace(b"0.05", b"1" + b"0" * 400),
    "too many digits": body().replace(b"0.05", b"1" * 3000),
    "negative": body(size=-0.1),
    "too far": body(size=2),
    "text for a number": body(size="0.1"),
    "truth for a number": body(size=True),
    "no client": body(client=None),
    "odd client": body(client="../../x"),
    "unknown member": body(path="/etc/passwd"),
    "both": body(values=packed(*[0.0] * 64)),
    "neither": body(position=None),
    "beyond the data": body(position=60),
    "before the data": body(position=-1),
    "fraction of a row": body(position=0.5),
    "no threat": body(threat="all"),
    "list for a threat": body(threat=["ball"]),
    "no attack": body(attack="__class__"),
    "list for an attack": body(attack=["pgd"]),
    "no class": body(held=10),
    "odd class": body(held="7"),
    "no base64": body(position=None, values="*" * 344),
    "numbers for base64": body(position=None, values=[0.0] * 64),
    "too few values": body(position=None, values=packed(*[0.0] * 63)),
    "too many values": body(position=None, values=packed(*[0.0] * 65)),
    "values beyond the range": body(position=None, values=packed(*[0.0] * 63, 1.5)),
    "NaN among values": body(position=None, values=packed(*[0.0] * 63, float("nan"))),
    "infinity among values": body(position=None, values=packed(*[0.0] * 63, float("inf"))),
    "angle too wide": body(threat="angle", size=46),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_questions_are_refused_in_words(site: Site, name: str) -> None:
    """One line, no traceback, and the server goes on."""
    answer = post(site, BAD[name])
    assert answer.status_code == 400, answer.text
    assert answer.text.count("\n") == 1
    assert "Traceback" not in answer.text
    assert post(site, body()).status_code == 200


def test_bodies_are_limited_and_stated(site: Site) -> None:
    """By their length before they are read; another type or method is refused."""
    assert post(site, b" " * (most_bytes(site.subject) + 1)).status_code == 413
    assert post(site, body(), **{"Content-Type": "text/plain"}).status_code == 415
    path, headers = f"/{site.token}/ask", {"Host": HOST}
    assert Client(site).get(path, headers=headers).status_code == 405
    assert Client(site).put(path, headers=headers).status_code == 405
    assert Client(site).post(f"/{site.token}/about", headers=headers).status_code == 405
    assert get(site, f"/{site.token}/inputs?start=-1").status_code == 400
    assert get(site, f"/{site.token}/inputs?start=1e3").status_code == 400
    assert get(site, f"/{site.token}/inputs?start=999").json == {"start": 999, "inputs": []}


def test_faults_of_ours_are_not_told_in_full(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The page gets a line, the terminal the traceback; what a user can mend is said to both."""

    def broken(ask: Ask, emit: Emit, cancelled: Callable[[], bool]) -> None:
        raise RuntimeError("secret of the code")

    def mendable(ask: Ask, emit: Emit, cancelled: Callable[[], bool]) -> None:
        raise DataError("such and such")

    site.desk = Desk(broken, explained)
    answer = post(site, body()).text
    assert answer.startswith("event: trouble\n")
    assert "secret of the code" not in answer
    assert "secret of the code" in caplog.text
    site.desk = Desk(mendable, explained)
    assert "such and such" in post(site, body()).text


def test_a_newer_question_cancels_the_older_one(site: Site) -> None:
    """Of the same page; only one computation runs at a time, of all pages."""
    running, most, stopped = [], [], []
    lock = threading.Lock()

    def slow(ask: Ask, emit: Emit, cancelled: Callable[[], bool]) -> None:
        with lock:
            running.append(ask.size)
            most.append(len(running))
        try:
            ending = time.monotonic() + 20
            while not cancelled() and time.monotonic() < ending:
                time.sleep(0.01)
                if ask.size == 0.09:
                    return
            stopped.append(ask.size)
            raise Stopped
        finally:
            with lock:
                running.remove(ask.size)

    from verify.explore.asking import read_ask

    desk = Desk(slow, explained)
    asks = [
        read_ask(body(size=size), site.subject, site.tools.attacks) for size in (0.01, 0.02, 0.09)
    ]
    first, second, third = (desk.start(ask) for ask in asks)
    assert [name for name, _ in filter(None, third.read(5.0))] == ["done"]
    assert first.over.is_set()
    assert second.over.is_set()
    assert max(most) == 1
    assert 0.09 not in stopped


def test_who_goes_away_is_not_computed_for(site: Site) -> None:
    """Closing the stream cancels."""
    gone = threading.Event()

    def slow(ask: Ask, emit: Emit, cancelled: Callable[[], bool]) -> None:
        emit("clean", {})
        while not cancelled():
            time.sleep(0.01)
        gone.set()

    site.desk = Desk(slow, explained)
    server = open_server(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            data = body()
            line.sendall(
                f"POST /{site.token}/ask HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            assert b"event: clean" in read_some(line, b"event: clean")
        assert gone.wait(20)
    finally:
        server.shutdown()
        server.server_close()


def read_some(line: socket.socket, until: bytes) -> bytes:
    got = b""
    line.settimeout(20)
    while until not in got:
        got += line.recv(4096)
    return got


def test_only_this_machine_is_served(site: Site) -> None:
    """The socket is bound to 127.0.0.1 and nothing else."""
    server = open_server(site, 0)
    assert server.socket.getsockname()[0] == "127.0.0.1"
    server.server_close()


@pytest.fixture(scope="module")
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a user runs it."""
    root = Path(__file__).resolve().parents[2]
    started = subprocess.Popen(
        [sys.executable, "-m", "verify", "explore", CONV, "--no-browser", "--limit", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert started.stdout is not None
    said = ""
    while "Ctrl-C" not in said:
        line = started.stdout.readline()
        assert line, said
        said += line
    found = re.search(r"http://\S+", said)
    assert found
    yield started, found[0]
    started.kill()
    started.wait()


def test_the_command_serves_answers_and_ends_at_ctrl_c(
    process: tuple[subprocess.Popen[str], str],
) -> None:
    """In the middle of a computation: exit code 0, no traceback."""
    started, address = process
    with urllib.request.urlopen(f"{address}about") as answer:
        assert json.load(answer)["classes"] == 10
        assert answer.headers["Server"] == "tashika"
    asked = urllib.request.Request(
        f"{address}ask", data=body(size=0.09), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as stream:
        assert stream.readline() == b"event: clean\n"
        started.send_signal(signal.SIGINT)
        out, _ = started.communicate(timeout=30)
    assert (started.returncode, out.splitlines()[-1]) == (0, "ended")
    assert "Traceback" not in out


def test_without_the_extra_one_line_says_what_to_install(
    verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, before anything is read."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = verify("explore", "nowhere.onnx")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "pip install 'tashika[explore]'" in done.err


def test_bad_options_are_one_line(verify: Run, tmp_path: Path) -> None:
    """A port that is taken, a model that is not there, members that are the same."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = verify("explore", CONV, "--no-browser", "--port", taken.getsockname()[1])
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "cannot be had" in done.err
    for arguments in (
        (tmp_path / "no.onnx",),
        (CONV, "--ensemble", CONV),
        (CONV, "--timeout", "-1"),
        (CONV, "--image-shape", "1,2,3"),
    ):
        done = verify("explore", *arguments, "--no-browser")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err


def test_the_client_of_the_tests_is_a_client() -> None:
    """The table of bad questions differs from a good one in one thing each."""
    assert json.loads(body())["client"] == CLIENT
