"""SVM facts as data: VMCB fields, intercepts, what VMRUN checks, and where emulators part ways with it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of this package, for example ``fields.csv``."""
    with (_HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(name: str) -> dict[str, Any]:
    """A TOML file of this package, for example ``bochs-deviations.toml``."""
    import tomllib  # most uses of this package need no TOML

    return tomllib.loads((_HERE / name).read_text("utf-8"))
