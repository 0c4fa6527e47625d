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


_MISSING = pytest.StashKey[str]()
EMULATORS = {"bochs": "bochs", "nasm": "nasm", "pdp11": "simh", "hercules": "hercules"}  # command: package
NEEDS = {"emulator": EMULATORS, "browser": {"chromium": "chromium"}}  # by marker


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs an emulator or a browser that is not there, and say so.

    `POPEK_EMULATORS=required` (continuous integration) keeps it: then a missing program is a failure.
    """
    if os.environ.get("POPEK_EMULATORS") == "required":
        return
    told = []
    for marker, commands in NEEDS.items():
        missing = sorted({package for command, package in commands.items() if shutil.which(command) is None})
        left_out = [item for item in items if missing and item.get_closest_marker(marker)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in set(left_out)]
            what = {"emulator": "comparisons", "browser": "tests in a browser"}[marker]
            told.append(f"{len(left_out)} {what} left out; they need: apt-get install {' '.join(missing)}")
    if told:
        config.stash[_MISSING] = "\n".join(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was left out, in the last lines."""
    if _MISSING in config.stash:
        terminalreporter.write_line(config.stash[_MISSING], yellow=True)
