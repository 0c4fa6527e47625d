"""Lists of where emulators deviate from the manual, and what the manual leaves to the processor."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources

import attrs


@attrs.frozen
class Deviation:
    """One entry of a list.

    Attributes:
        name: its key.
        summary: what the emulator does.
        evidence: what the manual says, and where.
    """

    name: str
    summary: str
    evidence: str


@functools.cache
def listed(package: str, file: str) -> Mapping[str, Deviation]:
    """The entries of a file of `popek_specs`, by name."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    entries = tomllib.loads(text)["deviation"]
    return {name: Deviation(name, entry["summary"], entry["evidence"]) for name, entry in entries.items()}
