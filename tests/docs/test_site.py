"""The site builds without a warning, and says what is installed; the pictures are current."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from snippets import ROOT, pages

from popek.cli import app
from popek.machines import makers

SCHEMA = re.compile(r'"(popek/[a-z-]+/\d+)"')
BY_HAND = re.compile(r"<!-- (?P<file>docs/images/\S+\.svg): drawn by hand -->")
PICTURE = re.compile(r"<!-- (?P<file>docs/images/\S+\.svg): (?P<command>popek [^\n]*) -->")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.links = "", set[str]()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        links = [
            value
            for name, value in attributes
            if name in ("src", "href") and tag in ("script", "link", "img")
        ]
        self.links |= {link for link in links if link}


def _read(page: Path) -> _Text:
    found = _Text()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def _commands(group: object, path: tuple[str, ...] = ("popek",)) -> set[str]:
    names = {" ".join(path)}
    for name in group:  # type: ignore[attr-defined]
        if not name.startswith("-"):
            names |= _commands(group[name], (*path, name))  # type: ignore[index]
    return names


def test_site_builds_without_warnings_and_holds_what_is_installed(tmp_path: Path) -> None:
    built = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "doctrees")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(built)], capture_output=True, text=True, check=False, timeout=900
    )
    assert (done.returncode, done.stderr) == (0, "")
    commands = _read(built / "reference" / "commands.html").text
    for name in _commands(app):
        assert f"Usage: {name} " in commands
    machines = _read(built / "reference" / "machines.html").text
    for name, make in makers().items():
        assert name in machines
        assert list(make().instructions)[-1] in machines
    assert "Exactly what" not in machines
    kernel = _read(built / "reference" / "kernel.html").text
    assert "A word that may have any value, called name." in kernel  # the docstring of words.symbol
    for page in built.rglob("*.html"):
        for link in _read(page).links:
            assert not link.startswith(("http:", "https:", "//")), f"{page.name} needs the network: {link}"


def test_every_json_interface_is_documented() -> None:
    documented = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    sources = [file for root in ("model", "proofs") for file in (ROOT / root).rglob("*.py")]
    schemas = {name for file in sources for name in SCHEMA.findall(file.read_text(encoding="utf-8"))}
    assert len(schemas) > 10
    assert {schema for schema in schemas if f"`{schema}`" not in documented} == set()


def test_links_between_pages_lead_somewhere() -> None:
    """On a forge, too: every relative link is a file."""
    for page in pages():
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def _pictures() -> list[tuple[str, str]]:
    return [
        (found["file"], found["command"])
        for page in pages()
        for found in PICTURE.finditer(page.read_text(encoding="utf-8"))
    ]


def test_every_picture_says_how_it_was_made() -> None:
    by_hand = {
        found["file"] for page in pages() for found in BY_HAND.finditer(page.read_text(encoding="utf-8"))
    }
    assert {file for file, _ in _pictures()} | by_hand == {
        str(file.relative_to(ROOT)) for file in (ROOT / "docs" / "images").iterdir()
    }


def test_pictures_are_current(tmp_path: Path) -> None:
    """The command beside a picture makes the picture, byte by byte."""
    (tmp_path / "docs" / "images").mkdir(parents=True)
    assert _pictures()
    for file, command in _pictures():
        words = [str(Path(sys.executable).with_name("popek")), *shlex.split(command)[1:]]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=900)
        drawn = (tmp_path / file).read_text(encoding="utf-8")
        assert drawn == (ROOT / file).read_text(encoding="utf-8"), command
        assert "prefers-color-scheme:dark" in drawn  # readable on a dark page, too
