"""VT-x facts as data: VMCS fields, control bits, exit reasons, the VM-entry checks and capability presets.

`rows` reads a table, `table` a TOML file; both keep the text of the files as it is.
"""

from __future__ import annotations

import csv
import io
import tomllib
from importlib.resources import files
from typing import Any


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of this package, for example ``fields.csv``."""
    return list(csv.DictReader(io.StringIO(files(__name__).joinpath(name).read_text("utf-8"))))


def table(name: str) -> dict[str, Any]:
    """The contents of a TOML file of this package, for example ``bochs-deviations.toml``."""
    return tomllib.loads(files(__name__).joinpath(name).read_text("utf-8"))


def presets() -> list[str]:
    """The names of the capability presets, sorted."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files(__name__).joinpath("capabilities").iterdir()
        if entry.name.endswith(".toml")
    )
