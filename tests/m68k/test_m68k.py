"""The famous flip, derived: the 68000 fails by MOVE from SR alone, the 68010 does not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import popek
from popek.architectures.m68k.machine import build
from popek.architectures.m68k.state import M68k
from popek.checks.premise import A4
from popek.checks.premises import Premises
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine

# By the Reference Manual: these check S, on the model (1: the 68010 alone).
PRIVILEGED = {
    "MOVE to SR": 0, "ANDI to SR": 0, "ORI to SR": 0, "EORI to SR": 0, "MOVE USP": 0, "RESET": 0, "STOP": 0, "RTE": 0,
    "MOVE from SR": 1, "MOVES": 1,
}  # fmt: skip


@pytest.mark.parametrize("model", [0, 1])
def test_each_instruction_that_checks_s_is_privileged_and_none_but_move_from_sr_is_critical(
    model: int,
) -> None:
    machine = build()
    told = dict.fromkeys(("MOVE from SR", *PRIVILEGED, "MOVE from CCR", "RTR", "MOVE to CCR", "TRAP"))
    forms = [next(i.form for i in machine.instructions.values() if i.mnemonic == name) for name in told]
    table = popek.rows(popek.classify(machine, *forms, MODEL=model))
    critical = {row["mnemonic"] for row in table if row["critical"] == "yes"}
    privileged = {row["mnemonic"] for row in table if row["privileged"] == "yes"}
    assert critical == ({"MOVE from SR"} if model == 0 else set())
    assert privileged == {name for name, since in PRIVILEGED.items() if since <= model}


@pytest.mark.parametrize(("model", "lost"), [(0, True), (1, False)])
def test_a_bus_error_of_the_68000_loses_where_the_instruction_begins(model: int, lost: bool) -> None:
    """User's Manual, section 6.3.9: the 68000's PC has run one to five words ahead; the 68010 goes on from its own."""
    subject = Subject.of("m68k", None, [f"MODEL={model}"])
    premises, instruction = Premises(subject), subject.machine.instructions["TST.B (An)"]
    premises.of(instruction, subject.explore(instruction))
    told = [one for one in premises.once() if one.name == A4 and "bus error" in one.how]
    assert [one.truth for one in told] == ([Truth.NO] if lost else [])


def unchecked(name: str) -> Machine[M68k]:
    """A 68010 whose MOVE from SR does not check S, or whose RTE does not, or that lets MOVEC read VBR in user state."""
    machine = build()
    changed = machine.instructions[name]

    def semantics(cpu: M68k, *operands: Any, **settings: Any) -> None:
        if cpu.m68010 == 1 and cpu.sr.s == 0:
            cpu.sr.s = 1
            changed.semantics(cpu, *operands, **settings)
            cpu.sr.s = 0
        else:
            changed.semantics(cpu, *operands, **settings)

    machine.instructions[name] = attrs.evolve(changed, semantics=semantics)
    return machine


@pytest.mark.parametrize("name", ["MOVE SR, Dn", "MOVEC VBR, Rn", "MOVE USP, An"])
def test_a_check_of_s_left_out_is_noticed(name: str) -> None:
    (row,) = popek.rows(popek.classify(unchecked(name), name, MODEL=1))
    assert row["critical"] == "yes"
