"""Every command and snippet of the documentation does what its page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from snippets import (
    DIRECTIVES,
    ROOT,
    RUN,
    SHOWN,
    Page,
    SnippetError,
    blocks,
    commands,
    matches,
    merged,
    pages,
)

from popek.emulators import programs

IDS = [str(page.relative_to(ROOT)) for page in pages()]


def _marked(page: Path) -> Any:
    """A page, marked where its commands assemble."""
    assembles = re.search(
        r"popek difftest|--confirm", "".join(block.body for block in blocks(page.read_text("utf-8")))
    )
    return pytest.param(page, marks=pytest.mark.emulator("nasm") if assembles else ())


@pytest.mark.parametrize("page", [_marked(page) for page in pages()], ids=IDS)
def test_snippets_do_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    run = Page(page, tmp_path)
    assert run.run() == run.text


@pytest.mark.parametrize("page", pages(), ids=IDS)
def test_no_snippet_escapes(page: Path) -> None:
    """Everything that looks like code is in a fenced block of a language that is run or known not to be."""
    text = page.read_text(encoding="utf-8")
    found = blocks(text)
    assert text.count("```") == sum(2 + block.body.count("```") for block in found)
    for block in found:
        known = block.language in RUN | SHOWN or DIRECTIVES.fullmatch(block.language.split(" ")[0])
        assert known, f"line {block.line}: ```{block.language}"
    for block in found:
        code = block.language in SHOWN and re.search(
            r"^ *(@\w|def |import |from \w+ import )", block.body, re.M
        )
        assert not code or block.comment.startswith("from: "), f"line {block.line}: code that nothing runs"
    prose = text
    for block in found:
        prose = prose.replace(block.body, "")
    assert (
        re.findall(
            r"^    \S.*$", re.sub(r"^(?:- |\* |\d+\. ).*(?:\n {2,}\S.*)*", "", prose, flags=re.M), re.M
        )
        == []
    )


def test_continuous_integration_runs_what_is_left_to_it() -> None:
    """Commands that install something are not run here; `.ci/run` must take them from the page or name them."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    patterns = re.findall(r"sed -n 's/\^(.*)\$/\\1/p' README.md", script)
    taken = [re.compile(pattern.replace(r"\(", "(").replace(r"\)", ")")) for pattern in patterns]
    left = [
        (page.name, command.text)
        for page in pages()
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.comment == "run by .ci/run"
        for command in commands(block)
    ]
    assert len(left) >= len(taken) == 2
    for name, command in left:
        from_readme = name == "README.md" and any(pattern.fullmatch(f"$ {command}") for pattern in taken)
        assert from_readme or command.removeprefix("$ ") in script, command


def test_the_packages_that_programs_name_are_those_of_the_readme() -> None:
    """`.ci/run` installs what the README names and nothing else."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"`sudo apt-get install -y ([^`]*)`", text)
    assert first.split() == ["git", "python3-venv"]
    compiler = {"build-essential", "python3-dev"}  # Musashi has no wheel
    assert set(second.split()) == {*programs.PACKAGES.values(), "bochs-term", *compiler}


def test_every_dependency_has_a_lower_bound_and_what_runs_with_it_exists() -> None:
    script = subprocess.run(
        [sys.executable, ROOT / ".ci" / "lowest"], capture_output=True, text=True, check=True
    )
    named = {line.partition("==")[0] for line in script.stdout.splitlines()}
    assert {"attrs", "bitwuzla", "capstone", "cyclopts", "nbclient", "sphinx", "z3-solver", "mypy"} <= named
    lines = (ROOT / ".ci" / "lowest-tests").read_text(encoding="utf-8").splitlines()
    for test in (line.strip() for line in lines if line.startswith("  ")):
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8"), test


# -- the runner itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed", "right"),
    [
        (["a  b", "c"], "a b\nc\n", True),
        (["a", "…", "c"], "a\nb\nb\nc\n", True),
        (["a", "…", "c"], "a\nc\n", True),
        (["a … c"], "a b c\n", True),
        (["a", "…"], "a\n", True),
        (["a", "c"], "a\nb\nc\n", False),
        (["a", "…", "d"], "a\nb\nc\n", False),
        (["a … c"], "a b\n", False),
        (["a"], "", False),
        (["1.2"], "1x2\n", False),
    ],
)
def test_what_is_shown_is_compared_with_what_is_printed(shown: list[str], printed: str, right: bool) -> None:
    assert matches(shown, printed) is right


def _page(text: str, folder: Path) -> Page:
    file = folder / "page.md"
    file.write_text(text, encoding="utf-8")
    work = folder / "work"
    work.mkdir()
    return Page(file, work)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```console\n$ echo yes\nno\n```\n", "prints otherwise"),
        ("```console\n$ false\n```\n", "exit code 1, not 0"),
        ("```console\n$ true  # exit code 3\n```\n", "exit code 0, not 3"),
        ("```console\necho yes\n```\n", "begins with"),
        ("```python\n>>> 1 + 1\n3\n```\n", "Got:\n    2"),
    ],
)
def test_a_wrong_snippet_is_caught(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SnippetError, match=message):
        _page(text, tmp_path).run()


def test_other_wrong_blocks_are_caught(tmp_path: Path) -> None:
    for number, (text, error) in enumerate(
        [("```toml\na = \n```\n", ValueError), ("```python\nassert 1 == 2\n```\n", AssertionError)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(error):
            _page(text, folder).run()


def test_files_names_and_comments_are_used(tmp_path: Path) -> None:
    page = _page(
        "<!-- file: a.txt -->\n```text\nhello\n```\n\n```console\n$ cat a.txt\nhello\n$ false  # exit code 1\n```\n\n"
        "<!-- run instead: echo slow -->\n```console\n$ sleep 1000\nslow\n```\n\n"
        "```python\nx = 2\n```\n\n```python\n>>> x + 1\n3\n```\n\n"
        "- in a list\n\n  ```console\n  $ printf 'a\\n  b\\n'\n  a\n    b\n  ```\n",
        tmp_path,
    )
    assert page.run() == page.text


def test_update_keeps_what_was_left_out(tmp_path: Path) -> None:
    text = "```console\n$ printf '1\\n2\\n3\\n4\\n'\n1\n…\n5\n```\n"
    assert _page(text, tmp_path).run(update=True) == text.replace("5\n", "4\n")
    assert merged(["a", "…", "x", "d"], ["a", "b", "c", "y", "d"]) == ["a", "…", "y", "d"]
