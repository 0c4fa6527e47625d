"""The explorer without a server: Python and the solver in the browser, from one folder of files."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import HOLDS, REFUTED, Visitor, chromium, walk

from popek.explorer.build import PROMISED, build

pytestmark = [pytest.mark.browser, pytest.mark.pyodide]


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("built") / "site"
    found = build(place, machines=("pg74", "pdp10-ka10"))
    assert found.size < PROMISED
    return place


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    handler = functools.partial(Files, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_the_same_walk_in_the_browser_alone(address: str, folder: Path) -> None:
    with chromium() as browser:
        visitor = Visitor(browser, address)
        link = walk(visitor)
        assert visitor.page.inner_text("#engine") == "Solved in this browser"
        visitor.assert_well_behaved()
        other = Visitor(browser, address)  # the link alone; in the browser's own room nothing asks for trust
        page = other.goto(link)
        other.verdict(HOLDS)
        page.wait_for_selector("#restore")
        page.click("#restore")
        other.verdict(REFUTED)
        page.click("#view-doctor")
        page.click("#example")
        page.wait_for_selector("#diagnosis .verdict")
        assert "GUEST-CR-09" in page.inner_text("#diagnosis")
        page.click("#view-machine")
        kept = json.loads((folder / "mode.json").read_text())["answers"]["classify pdp10-ka10 "]
        with page.expect_response(lambda reply: reply.url.endswith(kept)):
            page.select_option("#machine-name", "pdp10-ka10")
        other.verdict(REFUTED, "JRST")
        page.select_option("#machine-name", "own")
        other.verdict(REFUTED, "GETT is sensitive")
        other.assert_well_behaved()


def test_a_build_replaces_an_earlier_one_and_holds_no_link_outside(folder: Path) -> None:
    texts = [f for f in folder.iterdir() if f.suffix in (".html", ".css", ".js", ".json")]
    assert {"index.html", "app.js", "worker.js", "mode.json"} <= {file.name for file in texts}
    for file in texts:
        if file.name != "icon.svg":
            assert "://" not in file.read_text().replace("http://www.w3.org/2000/svg", ""), file.name
