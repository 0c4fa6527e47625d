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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the comparisons with emulators out where there are none, and say so.

    `POPEK_EMULATORS=required` (continuous integration) keeps them: then a missing emulator is a failure.
    """
    missing = sorted({package for command, package in EMULATORS.items() if shutil.which(command) is None})
    if not missing or os.environ.get("POPEK_EMULATORS") == "required":
        return
    compared = [item for item in items if item.get_closest_marker("emulator")]
    if compared:
        config.hook.pytest_deselected(items=compared)
        items[:] = [item for item in items if item not in set(compared)]
        config.stash[_MISSING] = (
            f"{len(compared)} comparisons left out; they need: apt-get install {' '.join(missing)}"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was left out, in the last lines."""
    if _MISSING in config.stash:
        terminalreporter.write_line(config.stash[_MISSING], yellow=True)
