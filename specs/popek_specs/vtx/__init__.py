"""VT-x facts as data: VMCS fields, control bits, exit reasons, the VM-entry checks and capability presets.

`rows` reads a table, `table` a TOML file; both keep the text of the files as it is.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of this package, for example ``fields.csv``."""
    with (_HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(name: str) -> dict[str, Any]:
    """The contents of a TOML file of this package, for example ``bochs-deviations.toml``."""
    import tomllib  # most uses of this package need no TOML

    return tomllib.loads((_HERE / name).read_text("utf-8"))


@functools.cache
def _preset_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (_HERE / "capabilities").glob("*.toml")))


def presets() -> list[str]:
    """The names of the capability presets, sorted."""
    return list(_preset_names())
