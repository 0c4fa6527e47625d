"""Shared set-up: this folder is importable (`from strategies import ...`), and hypothesis has no deadline."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import playwright
import pytest
from hypothesis import HealthCheck, settings

from popek.emulators import programs
from popek.emulators.bochs import simulator

os.environ["POPEK_CACHE"] = (
    "off"  # what a test is told is found by the code that it tests, not kept from an earlier run
)

settings.register_profile(
    "popek", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("popek")


REQUIRED = os.environ.get("POPEK_EMULATORS") == "required"  # in continuous integration: what is missing fails
KINDS = {  # by marker
    "emulator": "comparisons with emulators",
    "browser": "tests in a browser",
    "rocq": "compiling the Coq proofs",
    "pyodide": "the explorer without a server",
    "musashi": "comparisons with Musashi",
}
QUICK = [line.strip() for line in Path(__file__).with_name("quick.txt").read_text("utf-8").splitlines()]
"""Files whose tests are marked quick, and, behind a minus, the tests of them that are not."""
OPTIONAL = {
    "pyodide",
    "musashi",
}  # npm is none of the packages that the README asks for; .ci/run asks Musashi itself
left_out: dict[str, dict[str, int]] = {}  # by marker: how many tests, by what is missing


@functools.cache
def missing(command: str) -> str | None:
    """One line that says what a command lacks, and the package that has it."""
    if command == "bochs":
        return simulator.missing()
    if command == "machine68k":
        return None if importlib.util.find_spec(command) else "the Python package machine68k (extra m68k)"
    if command == "playwright":
        node = Path(playwright.__file__).parent / "driver" / "node"
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stderr
        library = re.search(r"error while loading shared libraries: ([^\s:]+)", said)
        return programs.not_found(library[1]) if library else None
    return None if programs.find(command) else programs.not_found(command)


def needs(marker: pytest.Mark) -> tuple[str, ...]:
    """The commands that a marked test starts: those that its marker names, or the usual ones."""
    usual = {"emulator": ("bochs", "nasm"), "browser": ("chromium", "playwright"), "rocq": ("coqc", "coqchk")}
    usual |= {"pyodide": ("npm",), "musashi": ("machine68k",)}
    return marker.args or usual[marker.name]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m quick` reads no other file: reading all of them takes longer than the quick tests do."""
    if config.option.markexpr != "quick" or not collection_path.match("test_*.py"):
        return None
    return None if str(collection_path.relative_to(Path(__file__).parent)) in QUICK else True


@pytest.hookimpl(specname="pytest_collection_modifyitems", tryfirst=True)
def pytest_mark_what_is_quick(items: list[pytest.Item]) -> None:
    """Those of `quick.txt`."""
    for item in items:
        file, _, name = item.nodeid.removeprefix("tests/").partition("::")
        if any(item.get_closest_marker(kind) for kind in KINDS):
            continue
        if file in QUICK and not {f"-{name}", f"-{name.partition('[')[0]}"} & set(QUICK):
            item.add_marker("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a program that is not there."""
    kept, without = [], []
    for item in items:
        marks = [mark for kind in KINDS for mark in item.iter_markers(kind)]
        lacks = [(mark.name, line) for mark in marks for name in needs(mark) if (line := missing(name))]
        lacks = [(kind, line) for kind, line in lacks if not REQUIRED or kind in OPTIONAL]
        for kind, line in lacks[:1]:
            counts = left_out.setdefault(kind, {})
            counts[line] = counts.get(line, 0) + 1
        (without if lacks else kept).append(item)
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    """A worker tells what it left out."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["left_out"] = left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every worker collects everything, so one of them tells all."""
    left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left out, in the last lines."""
    for kind, counts in left_out.items():
        for line, count in counts.items():
            terminalreporter.write_line(f"{KINDS[kind]} left out: {count}; {line}", yellow=True)
