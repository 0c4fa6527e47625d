"""Itanium and VT-i facts as data, each with its source and a confidence grade.

Grades: H read in a primary source, M one secondary source or a clear inference, L recollection only.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def table(name: str) -> dict[str, Any]:
    """The contents of a TOML file of this package, for example ``vti.toml``."""
    return tomllib.loads(files(__name__).joinpath(name).read_text("utf-8"))
