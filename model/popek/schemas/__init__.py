"""JSON Schemas (draft 2020-12) of what commands print and keep.

A schema is found by the name that JSON has under `schema`, such as `popek/verification/1`; `popek/evidence/1` is part
of others, and `popek/question/1` is of the results in a folder of `popek verify --out`.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """All of them by name."""
    folder = files(__package__)
    found = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".schema.json")
    ]
    return {str(one["$id"]).removeprefix("urn:").replace(":", "/"): one for one in found}


__all__ = ["schemas"]
