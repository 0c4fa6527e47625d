"""Emulators that were written by others, and what differential tests need of them.

A package of an emulator may declare `DIFFTESTS`: per machine and emulator a function `difftest` as "module:function",
which `popek difftest` then offers under the machine's name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping


def declared_difftests() -> Mapping[str, Mapping[str, str]]:
    """The differential tests of single instructions that packages declare, by machine and emulator."""
    found: dict[str, dict[str, str]] = {}
    for package in pkgutil.iter_modules(__path__):
        if package.ispkg:
            declared = getattr(importlib.import_module(f"{__name__}.{package.name}"), "DIFFTESTS", {})
            for machine, tests in declared.items():
                found.setdefault(machine, {}).update(tests)
    return found
