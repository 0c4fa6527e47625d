"""A name means one thing: no two public classes of the library and of the proofs share one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import popek
import popek_proofs

ROOTS = (Path(popek.__path__[0]), Path(popek_proofs.__path__[0]))
OF_THE_STATE = {"Register", "Group"}
"""Bases of registers and groups of components: two manuals may call theirs alike."""
REASONS = {
    "Cr4": "CR4 has other bits in IA-32e mode, and both are registers of the state",
}
"""Names that stand for several things, each with the reason."""


def public_classes() -> dict[str, list[str]]:
    """Where each public class is defined, by name; parts of a machine's state are left out."""
    found: dict[str, list[str]] = defaultdict(list)
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                    continue
                if OF_THE_STATE.isdisjoint(base.id for base in node.bases if isinstance(base, ast.Name)):
                    found[node.name].append(str(path.relative_to(root.parent)))
    return found


def test_no_two_public_classes_share_a_name() -> None:
    several = {name: places for name, places in public_classes().items() if len(places) > 1}
    assert {name: places for name, places in several.items() if name not in REASONS} == {}
    assert sorted(REASONS.keys() - several) == [], "shared no longer: strike it from the list"
