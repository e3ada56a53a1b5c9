"""The local page's server: 127.0.0.1 alone, a secret in every address, nothing read from disk.

Every address begins with the secret, so that every request carries it and no other page can make
one. A cookie would not do: browsers send a cookie to all ports of 127.0.0.1, other people's servers
included. The page's files are named in a table and read once, so no path is ever looked up.

Werkzeug, because it is one typed package over the standard library's server that brings MarkupSafe
alone (which jinja2 has already), limits bodies, and streams from a thread per request; Flask and
Starlette with uvicorn each bring five packages more for what four addresses do not need.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from verify.errors import InputError, SettingError
from verify.explore.asking import most_bytes, read_ask
from verify.explore.desk import Computation, Desk
from verify.explore.subject import Subject
from verify.explore.tools import Tools

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ADDRESS = "127.0.0.1"
HEARTBEAT = 2.0
"""Seconds after which a silent stream says that it still lives, which shows who has gone."""
IDLE = 30.0
"""Seconds that a connection may take to send its request."""
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    **{
        f"{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("main", "wire", "pixels", "drawing", "picking", "bars", "bracket", "words")
    },
    "explore.css": ("explore.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""What the page consists of: address behind the secret -> file, type."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOG = logging.getLogger("verify")


class Refused(Exception):
    """A request that is not answered: status and one line."""

    def __init__(self, status: int, line: str) -> None:
        """What to say instead."""
        super().__init__(line)
        self.status, self.line = status, line


@dataclass(eq=False)
class Site:
    """The WSGI application.

    Attributes:
        subject, tools, desk: what is explored.
        seconds: that one answer may take.
        token: the secret that every address begins with.
        hosts: what a request may call this server; filled once the port is known.
    """

    subject: Subject
    tools: Tools
    desk: Desk
    seconds: float
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    hosts: frozenset[str] = frozenset()
    files: dict[str, tuple[bytes, str]] = field(init=False)

    def __post_init__(self) -> None:
        """Read the page's files."""
        folder = Path(__file__).parent / "page"
        self.files = {
            name: ((folder / file).read_bytes(), kind) for name, (file, kind) in FILES.items()
        }

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request; whatever goes wrong, no traceback is sent."""
        request = Request(environ)
        request.max_content_length = most_bytes(self.subject)
        try:
            response = self.answer(request)
        except Refused as refused:
            response = plain(refused.status, refused.line)
        except RequestEntityTooLarge:
            response = plain(413, f"more than {most_bytes(self.subject)} bytes")
        except InputError as error:
            response = plain(400, str(error))
        except HTTPException as error:
            response = plain(error.code or 400, error.name)
        except Exception as error:
            LOG.error("explore: %s", error, exc_info=error)
            response = plain(500, "unexpected error; the terminal says more")
        for name, value in HEADERS.items():
            response.headers[name] = value
        if response.status_code >= 400:
            # What is left of a refused body must not be taken for the next request.
            response.headers["Connection"] = "close"
        return response(environ, start)

    def answer(self, request: Request) -> Response:
        """Whatever the address stands for.

        Raises:
            Refused: if there is no answer.
        """
        name = self.inside(request)
        if name == "ask":
            return self.ask(request)
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "only GET is answered here")
        if name == "about":
            return as_json(self.subject.about(self.tools, self.seconds))
        if name == "inputs":
            start = request.args.get("start", "0")
            if not (start.isascii() and start.isdigit() and len(start) < 10):
                raise Refused(400, "start is no row number")
            return as_json(self.subject.inputs(int(start)))
        if name in self.files:
            body, kind = self.files[name]
            return Response(body, content_type=kind)
        raise Refused(404, "there is nothing here")

    def inside(self, request: Request) -> str:
        """The address behind the secret.

        Raises:
            Refused: if the request comes under another name, from another page, or without it.
        """
        host = request.environ.get("HTTP_HOST", "")
        if host.lower() not in self.hosts:
            # A name that somebody else made to point here: DNS rebinding.
            raise Refused(403, "this server answers to its own address only")
        origin = request.environ.get("HTTP_ORIGIN")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}:
            raise Refused(403, "asked by another page")
        site = request.environ.get("HTTP_SEC_FETCH_SITE", "none")
        # A link on another page leads here; it may be followed, but nothing may be embedded.
        followed = request.environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        if site not in ("none", "same-origin") and not followed:
            raise Refused(403, "asked by another page")
        token, slash, name = request.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.token.encode()) or not slash:
            raise Refused(403, "the address lacks its secret; use the one in the terminal")
        return name

    def ask(self, request: Request) -> Response:
        """A stream of server-sent events, while it is computed."""
        if request.method != "POST":
            raise Refused(405, "only POST is answered here")
        if request.mimetype != "application/json":
            raise Refused(415, "a question is JSON")
        if request.content_length is None:
            raise Refused(411, "the length of the question is not stated")
        ask = read_ask(request.get_data(), self.subject, self.tools.attacks)
        return Response(events(self.desk.start(ask)), content_type="text/event-stream")


def events(made: Computation) -> Iterator[bytes]:
    """A computation as the text of an event stream; once it is closed, nobody waits any more."""
    for event in made.read(HEARTBEAT):
        if event is None:
            yield b": working\n\n"
            continue
        name, data = event
        yield f"event: {name}\ndata: {as_text(data)}\n\n".encode()


def as_text(data: object) -> str:
    """JSON in one line; raises ValueError for numbers that JSON has not."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


def as_json(data: object) -> Response:
    """An answer of data."""
    return Response(as_text(data), content_type="application/json")


def plain(status: int, line: str) -> Response:
    """One line of text."""
    return Response(line + "\n", status=status, content_type="text/plain; charset=utf-8")


class Handler(WSGIRequestHandler):
    """Quiet: requests hold the secret, and nobody wants them on the terminal."""

    timeout = IDLE

    def log(self, type: str, message: str, *args: object) -> None:
        """Nothing."""

    def version_string(self) -> str:
        """No versions."""
        return "tashika"


def open_server(site: Site, port: int) -> BaseWSGIServer:
    """A server for the site, which from then on knows its own name.

    Args:
        site: the application.
        port: 0 for any that is free.

    Raises:
        SettingError: if the port cannot be had.
    """
    # Werkzeug ends the process itself when a port is taken, so it is asked for here first.
    import socket

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen(64)
    except (OSError, OverflowError) as error:
        listener.close()
        raise SettingError(
            f"port {port} of {ADDRESS} cannot be had ({error}); leave out --port for a free one"
        ) from error
    server = make_server(
        ADDRESS, port, site, threaded=True, request_handler=Handler, fd=listener.fileno()
    )
    listener.close()
    site.hosts = frozenset((f"{ADDRESS}:{server.port}", f"localhost:{server.port}"))
    return server


Opened = Callable[[str], object]
"""Told the page's address."""


def serve(site: Site, port: int, opened: Opened) -> None:
    """Answer until Ctrl-C.

    Raises:
        SettingError: if the port cannot be had.
    """
    server = open_server(site, port)
    try:
        opened(f"http://{ADDRESS}:{server.port}/{site.token}/")
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        site.desk.end()
