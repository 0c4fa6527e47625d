"""The page on this machine alone: standard library, loopback, and a token without which nothing is answered.

Whoever has the address can run Python here, since the page takes a user's own semantics.  So the token is in the path
of every request, the Host header must be ours (another name that resolves to this machine is no way in), a question
must be JSON from our own page, and the policy of the page forbids it to fetch anything from elsewhere.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from .answers import LONGEST_TEXT, Explorer

LOOPBACK = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """Serves the page and its questions under a token.

    Args:
        port: 0 for one that is free.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.token = secrets.token_urlsafe(24)
        self.explorer = Explorer()
        self.one_at_a_time = threading.Lock()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a Host header may say."""
        return f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "popek", ""
    protocol_version = "HTTP/1.0"  # the end of an answer is the end of the connection

    def do_GET(self) -> None:
        """A file of the page."""
        name = self._below_the_token()
        if name is None:
            return
        file = resources.files(__package__) / "site" / (name or "index.html")
        ending = "." + (name or "index.html").rpartition(".")[2]
        if "/" in name or "\\" in name or ending not in TYPES or not file.is_file():
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        data = file.read_bytes()
        self._begin(HTTPStatus.OK, TYPES[ending], len(data))
        self.wfile.write(data)

    def do_POST(self) -> None:
        """A question; the answers are JSON, one a line, as they are found."""
        name = self._below_the_token()
        if name is None:
            return
        origin = self.headers.get("Origin")
        ours = origin is None or origin.removeprefix("http://") in self.server.hosts
        if name != "ask" or not ours or self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= 2 * LONGEST_TEXT:
                raise ValueError
            message = json.loads(self.rfile.read(length))
            if not isinstance(message, dict):
                raise ValueError
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        self._begin(HTTPStatus.OK, "application/x-ndjson", None)
        with self.server.one_at_a_time:  # engines are not shared between threads
            for answer in self._answers(message):
                self.wfile.write(json.dumps(answer).encode() + b"\n")
                self.wfile.flush()

    def _answers(self, message: dict[str, Any]) -> Any:
        try:
            yield from self.server.explorer.answers(message)
        except (BrokenPipeError, ConnectionError):
            raise
        except Exception as error:  # a defect of popek, or whatever a user's text raises
            yield {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}

    def _below_the_token(self) -> str | None:
        """What is asked for; None where nothing may be answered, which has been said then."""
        token, _, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        allowed = hmac.compare_digest(token.encode(), self.server.token.encode())
        if not allowed or self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN)
            return None
        return name

    def _refuse(self, status: HTTPStatus) -> None:
        self._begin(status, "text/plain; charset=utf-8", None)
        self.wfile.write(f"{status.phrase}\n".encode())

    def _begin(self, status: HTTPStatus, kind: str, length: int | None) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the token would be in it."""


__all__ = ["Server"]
