"""A module that is longer than a reader takes in at once says why."""

from __future__ import annotations

import ast
from pathlib import Path

import popek
import popek_proofs

MOST = 450
ROOTS = (Path(popek.__path__[0]), Path(popek_proofs.__path__[0]))


def test_a_long_module_has_its_reason_in_the_docstring() -> None:
    without = []
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            docstring = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
            if text.count("\n") > MOST and "One module, though long: " not in docstring:
                without.append(f"{path.relative_to(root.parent)}: {text.count(chr(10))} lines")
    assert without == []
