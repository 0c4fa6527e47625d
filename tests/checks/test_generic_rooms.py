"""Generic rooms name no machine: no import, which `lint-imports` holds, and no literal that is a name of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import popek.assistance
import popek.checks
import popek.cli
import popek.kernel
import popek.report
import popek.scan
import popek.solving
import popek_proofs.assistance
import popek_proofs.eight_problems
import popek_proofs.theorems
from popek.machines import assistances, machine, makers

ROOMS = [
    Path(room.__path__[0])
    for room in (
        popek.kernel,
        popek.solving,
        popek.checks,
        popek.assistance,
        popek.scan,
        popek.report,
        popek.cli,
        popek_proofs.theorems,
        popek_proofs.eight_problems,
        popek_proofs.assistance,
    )
]
MODULES = sorted(file for room in ROOMS for file in room.glob("*.py"))
# Words of the questions that some machine has as the name of a component or an instruction, too.
WORDS = {"mode", "memory", "features", "interrupts", "time", "pc", "base", "bound", "lines", "devices"}
KEYS = {"exit_reason"}
"""Keys of the JSON that `assist exits` prints, whatever the assistance."""


def names() -> set[str]:
    """Of machines, techniques, assistances, their controls, components and instructions."""
    found: set[str] = set(assistances())
    for name in makers():
        known = machine(name)
        found |= {name, *known.techniques, *known.instructions}
        found |= {instruction.mnemonic for instruction in known.instructions.values()}
        found |= {leaf.name for leaf in known.state.leaves} | {slot.name for slot in known.state.layout}
    for make in assistances().values():
        declared = make()
        found |= (
            {control.name for control in declared.controls} | set(declared.ownable) | set(declared.options)
        )
    return {name for name in found if len(name) > 1} - WORDS - KEYS


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def known() -> set[str]:
    return names()


@pytest.mark.parametrize("file", MODULES, ids=lambda file: f"{file.parent.parent.name}-{file.stem}")
def test_no_literal_is_a_name_of_a_processor(file: Path, known: set[str]) -> None:
    assert sorted(known & set(literals(ast.parse(file.read_text())))) == []


def test_a_name_would_be_found(known: set[str]) -> None:
    assert {"vt-x", "ia64", "HLT", "eflags.if", "psr.vm", "d_vmsw"} <= known


ABOUT_ONE_STRUCTURE = ("vmcs", "vmcb", "dumps", "difftest_vm", "devices")
"""Commands, and their reports, that are about one structure, by how their modules begin: VMCS, VMCB, a unit's rules."""


def test_only_commands_about_one_structure_import_an_architecture() -> None:
    importing = set()
    for room in (popek.cli, popek.report):
        for file in Path(room.__path__[0]).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                source = node.module if isinstance(node, ast.ImportFrom) else None
                if source is not None and source.startswith("popek.architectures."):
                    importing.add(file.stem)
    assert {name for name in importing if not name.startswith(ABOUT_ONE_STRUCTURE)} == set()
