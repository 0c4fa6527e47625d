"""`popek explore`: who is answered, and who is not."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from commands import RUN, popek
from popek.explorer.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def request(
    server: Server, path: str, message: Any = None, *, method: str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    body = (
        None if message is None else message if isinstance(message, bytes) else json.dumps(message).encode()
    )
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        given.setdefault("Content-Type", "application/json")
    connection.request(method or ("GET" if body is None else "POST"), path, body, given)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read().decode()


def test_with_the_token_the_page_and_its_answers_come(server: Server) -> None:
    status, headers, text = request(server, f"/{server.token}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    for name in re.findall(r'(?:src|href)="([\w.]+)"', text):
        assert request(server, f"/{server.token}/{name}")[0] == 200
    status, _, text = request(server, f"/{server.token}/ask", {"ask": "machine", "machine": "pg74"})
    assert (status, json.loads(text)["name"]) == (200, "pg74")


def test_without_it_nothing_is_answered(server: Server) -> None:
    question = {"ask": "machine", "machine": "pg74"}
    for path in (
        "/",
        "/ask",
        "/index.html",
        "//ask",
        f"/{server.token[:-1]}/ask",
        f"/{server.token}x/ask",
        f"/x/{server.token}/ask",
    ):
        assert request(server, path)[0] == 403
        assert request(server, path, question)[0] == 403


@pytest.mark.parametrize("host", ["popek.example", "127.0.0.1", "localhost:1", "", "[::1]:80"])
def test_under_another_name_nothing_is_answered(server: Server, host: str) -> None:
    assert request(server, f"/{server.token}/", Host=host)[0] == 403
    assert request(server, f"/{server.token}/ask", {"ask": "machines"}, Host=host)[0] == 403


def test_another_page_cannot_ask(server: Server) -> None:
    path, question = f"/{server.token}/ask", {"ask": "machine", "machine": "pg74"}
    assert request(server, path, question, Origin="https://example.org")[0] == 403
    assert request(server, path, question, Origin="null")[0] == 403
    assert request(server, path, question, Content_Type="text/plain")[0] == 403  # what a form can send
    assert (
        request(server, path, question, Origin=server.address.rpartition("/")[0].rpartition("/")[0])[0] == 200
    )


@pytest.mark.parametrize(
    "name",
    [
        "../answers.py",
        "..%2fanswers.py",
        "nothing.js",
        "answers.py",
        "site",
        "/etc/passwd",
        "example_machine.py",
    ],
)
def test_nothing_but_the_page_is_served(server: Server, name: str) -> None:
    assert request(server, f"/{server.token}/{name}")[0] == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_message_that_is_none_is_refused(server: Server, body: bytes) -> None:
    assert (
        request(server, f"/{server.token}/ask", body, method="POST", Content_Type="application/json")[0]
        == 400
    )


def test_other_methods_are_refused(server: Server) -> None:
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert request(server, f"/{server.token}/", method=method)[0] == 501


def test_code_runs_for_whoever_has_the_token_alone(server: Server, tmp_path: Any) -> None:
    trace = tmp_path / "trace"
    question = {
        "ask": "classify",
        "machine": "own",
        "text": f"import pathlib; pathlib.Path({str(trace)!r}).touch()",
    }
    assert request(server, "/ask", question)[0] == 403
    assert not trace.exists()
    status, _, text = request(server, f"/{server.token}/ask", question)
    assert (status, trace.exists()) == (200, True)
    assert "expected one Machine" in json.loads(text)["error"]


def test_tokens_are_long_and_differ() -> None:
    one, two = Server(), Server()
    assert one.token != two.token
    assert min(len(one.token), len(two.token)) >= 32
    assert one.server_address[0] == "127.0.0.1"
    one.server_close()
    two.server_close()


def test_it_ends_cleanly_when_interrupted() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "explore", "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "BROWSER": "false"},
    )
    assert process.stdout is not None
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/#machine=pg74\n", process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pg47"], "unknown machine 'pg47'; did you mean pg74?"),
        (["--port", "70000"], "--port 70000: expected a number from 0"),
        (["--pyodide", "x.tgz"], "--pyodide x.tgz: expected only with --build"),
    ],
)
def test_bad_input_is_one_line(words: list[str], told: str) -> None:
    found = popek("explore", "--no-open", *words)
    assert (found.returncode, found.stdout) == (2, "")
    assert told in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told(server: Server) -> None:
    found = popek("explore", "--no-open", "--port", str(server.server_port))
    assert found.returncode == 2
    assert "cannot listen on 127.0.0.1: Address already in use" in found.stderr


def test_a_build_says_what_is_missing(tmp_path: Any) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    found = popek("explore", "--build", str(tmp_path))
    assert found.stderr == f"popek: {tmp_path}: expected a folder that is empty or holds an earlier build\n"
    assert (tmp_path / "letters.txt").read_text() == "mine"
    (tmp_path / "pyodide").mkdir()
    found = popek("explore", "--build", str(tmp_path / "new"), "--pyodide", str(tmp_path / "pyodide"))
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "expected the npm package pyodide: pyodide.mjs is missing" in found.stderr
    found = popek("explore", "--build", str(tmp_path / "new"), "--pyodide", str(tmp_path / "letters.txt"))
    assert "expected the npm package pyodide" in found.stderr


def test_a_build_without_npm_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = popek("explore", "--build", str(tmp_path / "new"))
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "npm is not installed" in found.stderr
