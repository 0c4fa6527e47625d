"""Fenced blocks of the documentation, run and compared with what the page shows.

    .venv/bin/python tests/docs/snippets.py docs/tutorial.md

runs a page and puts what the commands print now in the place of what it shows.  Lines that were left out (`…`) stay
left out where their neighbors are the same; look at what changed before you keep it.

Blocks may be preceded by a comment that a reader does not see:

    <!-- file: toy.py -->             the block is a file in the page's folder, not something to run
    <!-- run instead: popek … -->     run this for the first command, which takes too long
    <!-- from: model/popek/… -->      the block stands in this file, but for its indentation
    <!-- run by .ci/run -->           continuous integration runs these commands, word for word

`console` blocks hold commands after `$ ` and what they print; a comment `# exit code 1` after a command says how it
ends.  `…` stands for anything on a line, and alone for any lines.  `python` blocks run one after the other in one
namespace; those with `>>>` are compared.  `toml` and `json` blocks must be what they say they are.
"""

from __future__ import annotations

import difflib
import doctest
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "notebooks/README.md")
RUN = {"console", "python", "toml", "json"}
SHOWN = {"text"}  # formal statements, layouts: nothing that could be run
DIRECTIVES = re.compile(r"\{[\w-]+\}")  # of the site's generator
BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.M | re.S,
)
EXIT = re.compile(r"\s+# exit code (\d+)$")
ELISION = "…"
WIDEST = 160  # characters of a line that is put on a page
SECONDS = 600  # a command may take on a busy machine


class SnippetError(AssertionError):
    """A snippet does not do what its page shows."""


@attrs.frozen
class Block:
    """A fenced block of a page; `start` is where its body begins in the page's text."""

    language: str
    comment: str
    body: str
    start: int
    line: int
    indent: int = 0

    @property
    def text(self) -> str:
        """The body without the indentation of a list."""
        return "".join(line[self.indent :] or "\n" for line in self.body.splitlines(keepends=True))


@attrs.frozen
class Command:
    """A command of a `console` block and what it prints; `shown` is empty where nothing is shown."""

    text: str
    shown: tuple[str, ...]
    code: int


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.md"))


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(
            found["language"].strip(),
            found["comment"] or "",
            found["body"],
            found.start("body"),
            text.count("\n", 0, found.start("body")),
            len(found["indent"]),
        )
        for found in BLOCK.finditer(text)
    ]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `console` block."""
    head, *parts = re.split(r"^\$ ", block.text, flags=re.M)
    if head.strip() or not parts:
        raise SnippetError(f"line {block.line}: a console block begins with `$ `")
    for part in parts:
        lines = part.rstrip("\n").split("\n")
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        ending = EXIT.search(lines[count - 1])
        yield Command("\n".join(lines[:count]), tuple(lines[count:]), int(ending[1]) if ending else 0)


def matches(shown: Sequence[str], printed: str) -> bool:
    """Whether a command printed what a page shows: spacing aside, `…` standing for anything."""
    pattern = ""
    for line in _squeezed(shown):
        if line == ELISION:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split(ELISION)) + r"\n"
    lines = "".join(line + "\n" for line in _squeezed(printed.strip("\n").split("\n")))
    return re.fullmatch(pattern, lines) is not None


def _squeezed(lines: Sequence[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def merged(shown: Sequence[str], printed: Sequence[str]) -> list[str]:
    """What is printed now, with the gaps of what was shown."""
    found: list[str] = []
    old, new = _squeezed(shown), _squeezed(printed)
    for _, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        lines = [line.rstrip() if len(line) <= WIDEST else line[:WIDEST] + ELISION for line in printed[c:d]]
        if ELISION in old[a:b]:
            before = old[a:b].index(ELISION)
            after = old[a:b][::-1].index(ELISION)
            lines = [*lines[:before], ELISION, *lines[max(before, len(lines) - after) :]]
        found += lines
    return found


class Page:
    """A page being run in a folder of its own, laid out like a checkout."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.text = file.read_text(encoding="utf-8")
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        for name in ("tests", "specs", "notebooks", "docs"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, *, update: bool = False) -> str:
        """Run every block; the page's text, with `update` as it should be.

        Raises:
            SnippetError: a block does not do what the page shows.
        """
        text = self.text
        for block in blocks(self.text):
            try:
                body = self._run(block, update)
            except SnippetError as error:
                raise SnippetError(f"{self.file.name}, line {block.line}: {error}") from None
            text = text.replace(block.body, body, 1) if body != block.body else text
        return text

    def _run(self, block: Block, update: bool) -> str:
        kind, _, argument = block.comment.partition(": ")
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "json" and ELISION not in block.text:
            json.loads(block.text)
        if kind == "from" and _flat(block.text) not in _flat((ROOT / argument).read_text(encoding="utf-8")):
            raise SnippetError(f"this is not what stands in {argument}")
        if kind == "file":
            target = self.folder / argument
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.language == "console" and kind != "run by .ci/run":
            return self._console(block, argument if kind == "run instead" else "", update)
        return block.body

    def _python(self, block: Block) -> None:
        with chdir(self.folder):
            if ">>>" not in block.text:
                exec(compile(block.text, f"{self.file.name}:{block.line}", "exec"), self.namespace)
                return
            source = block.text.replace(ELISION, "...")
            test = doctest.DocTestParser().get_doctest(
                source, self.namespace, self.file.name, None, block.line
            )
            test.globs = self.namespace
            wrong: list[str] = []
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            runner.run(test, out=wrong.append, clear_globs=False)
            if runner.failures:
                raise SnippetError("".join(wrong))

    def _console(self, block: Block, instead: str, update: bool) -> str:
        body = block.body
        for command in commands(block):
            done = self._shell(instead or command.text)
            instead = ""
            printed = done.stdout + done.stderr
            if done.returncode != command.code:
                raise SnippetError(
                    f"$ {command.text}\nends with exit code {done.returncode}, not {command.code}:\n{printed}"
                )
            if not command.shown or matches(command.shown, printed):
                continue
            lines = printed.strip("\n").split("\n")
            if not update:
                difference = "\n".join(
                    difflib.unified_diff(command.shown, lines, "shown", "printed", lineterm="")
                )
                raise SnippetError(f"$ {command.text}\nprints otherwise:\n{difference}")
            margin = " " * block.indent
            old = "".join(f"{margin}{line}".rstrip() + "\n" for line in command.shown)
            new = "".join(f"{margin}{line}".rstrip() + "\n" for line in merged(command.shown, lines))
            if old not in body:
                raise SnippetError(f"$ {command.text}\nwhat it prints has trailing spaces on the page")
            body = body.replace(old, new, 1)
        return body

    def _shell(self, command: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "NO_COLOR": "1", "TERM": "dumb"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


def _flat(text: str) -> str:
    """The text without indentation."""
    return "\n".join(line.strip() for line in text.splitlines())


def main() -> None:
    """Update the pages that are named."""
    for name in sys.argv[1:]:
        file = Path(name)
        with tempfile.TemporaryDirectory() as folder:
            page = Page(file, Path(folder))
            text = page.run(update=True)
        if text != page.text:
            file.write_text(text, encoding="utf-8")
        print(f"{name}: {'updated' if text != page.text else 'as it was'}")


if __name__ == "__main__":
    main()
