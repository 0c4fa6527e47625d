"""Shared set-up: this folder is importable (`from strategies import ...`), and hypothesis has no deadline."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "popek", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("popek")


EMULATORS = {"bochs": "bochs", "nasm": "nasm", "pdp11": "simh", "hercules": "hercules"}  # command: package
NEEDS = {  # by marker
    "emulator": EMULATORS,
    "browser": {"chromium": "chromium"},
    "rocq": {"coqc": "coq", "coqchk": "coq"},
}
WHAT = {
    "emulator": "comparisons with emulators",
    "browser": "tests in a browser",
    "rocq": "compiling the Coq proofs",
}


def _missing(marker: str) -> list[str]:
    """The packages that tests with a marker need and that are not there.

    None with `POPEK_EMULATORS=required` (continuous integration): then a missing program is a failure.
    """
    if os.environ.get("POPEK_EMULATORS") == "required":
        return []
    return sorted({package for command, package in NEEDS[marker].items() if shutil.which(command) is None})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a program that is not there."""
    for marker in NEEDS:
        left_out = [item for item in items if _missing(marker) and item.get_closest_marker(marker)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left out, in the last lines."""
    for marker in NEEDS:
        if missing := _missing(marker):
            terminalreporter.write_line(
                f"{WHAT[marker]} left out; they need: apt-get install {' '.join(missing)}", yellow=True
            )
