"""Facts about RISC-V: instructions, where simulators differ from the model, what real hypervisors set.

`table` reads a TOML file, and keeps its text as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def table(name: str) -> dict[str, Any]:
    """The contents of a TOML file of this package, for example ``hypervisors.toml``."""
    import tomllib  # most uses of this package need no TOML

    return tomllib.loads((Path(__file__).parent / name).read_text("utf-8"))
