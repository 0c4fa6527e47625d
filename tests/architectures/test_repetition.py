"""Nothing is said twice: six lines of code that stand in two places are one function that nobody wrote yet."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import popek
import popek_proofs

SIX = 6
ROOTS = (Path(popek.__path__[0]), Path(popek_proofs.__path__[0]))
PUNCTUATION = re.compile(r"[\W_]*")
REASONS = {
    "popek/architectures/ia32/instructions/__init__.py popek/architectures/x86_64/instructions/__init__.py": (
        "each machine lists its families in the order in which it declares them"
    ),
    "popek/emulators/non_root/harness.py popek/emulators/vm_entry/guest.py": (
        "the manual's list of control fields, with other values"
    ),
    "popek/checks/classification.py popek/checks/letter.py": (
        "an answer with its witness, once with components and once without"
    ),
    "popek/report/classification.py popek/report/letter.py": ("the heads of two tables"),
    "popek_proofs/theorems/theorem1.py popek_proofs/theorems/theorem3.py": (
        "each theorem lists its hypotheses, as the paper does"
    ),
}
ALIKE = {frozenset(pair.split()): reason for pair, reason in REASONS.items()}
"""Modules that may share six lines, each pair with the reason."""


def code(path: Path) -> list[tuple[int, str]]:
    """The lines that count, with their numbers: not imports, docstrings, comments and lone punctuation."""
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = " ".join(line.split("#", 1)[0].split())
        if number not in left_out and not PUNCTUATION.fullmatch(line):
            found.append((number, line))
    return found


def repeated() -> dict[frozenset[str], str]:
    """By pair of modules, the first six lines they share."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            lines = code(path)
            name = str(path.relative_to(root.parent))
            for start in range(len(lines) - SIX + 1):
                window = lines[start : start + SIX]
                places[tuple(line for _, line in window)].append((name, window[0][0]))
    found: dict[frozenset[str], str] = {}
    for standing in places.values():
        if len(standing) > 1:
            pair = frozenset(name for name, _ in standing)
            found.setdefault(pair, " = ".join(f"{name}:{line}" for name, line in standing))
    return found


def test_no_six_lines_stand_in_two_places() -> None:
    found = repeated()
    new = {place for pair, place in found.items() if pair not in ALIKE}
    assert new == set()
    present = {str(path.relative_to(root.parent)) for root in ROOTS for path in root.rglob("*.py")}
    gone = [sorted(pair) for pair in ALIKE if pair <= present and pair not in found]
    assert gone == [], "no longer alike: strike it from the list"
