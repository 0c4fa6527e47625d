"""Witnesses of x86-64 on Bochs: set up by the step harness, or refused with the reason."""

from __future__ import annotations

from functools import cache
from typing import Any

import attrs
import pytest

from popek.architectures.x86_64.state import X64
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.cli.errors import UserError
from popek.cli.witnesses import assert_possible
from popek.emulators.witnesses import WitnessRun, WitnessVerdict, total
from popek.emulators.x86_64.compare import BOCHS
from popek.emulators.x86_64.witness import confirm
from popek.kernel.machine import Machine
from popek.kernel.words import Word
from popek.machines import machine
from popek.report.witnesses import runs_of

MACHINE: Machine[Any] = machine("x86-64")


@cache
def unfaithful(form: str) -> tuple[WitnessRun, ...]:
    """The runs of the witness that a form is not faithful under ring deprivileging."""
    witness = Keeper(Subject.of(MACHINE)).keeps(MACHINE.instructions[form]).fidelity.witness
    assert witness is not None
    return tuple(runs_of(witness))


@pytest.mark.emulator
def test_bochs_does_what_the_witnesses_say() -> None:
    """Silent loss of IF, tables that are shown, a selector's ring: at CPL 0 and at CPL 3."""
    forms = ("POPFQ", "SGDT m", "MOV r64, Sreg", "STR r64")
    found = confirm(MACHINE, [unfaithful(form) for form in forms], BOCHS)
    assert [total(runs) for runs in found] == [WitnessVerdict.CONFIRMED] * len(forms), found
    assert all(len(runs) == 2 for runs in found)


@pytest.mark.emulator
def test_a_run_that_cannot_be_set_up_says_why() -> None:
    (found,) = confirm(MACHINE, [unfaithful("RETF")], BOCHS)
    assert total(found) is WitnessVerdict.IMPOSSIBLE
    assert all(run.details and len(run.details[0].split()) > 3 for run in found)


@pytest.mark.emulator
def test_a_wrong_model_is_not_confirmed() -> None:
    instruction = MACHINE.instructions["SLDT r64"]

    def shows_another(cpu: X64, dest: Word, **settings: Any) -> None:
        instruction.semantics(cpu, dest, **settings)
        cpu.gpr[dest] = cpu.gpr[dest] ^ 8

    wrong = attrs.evolve(instruction, semantics=shows_another)
    changed = attrs.evolve(MACHINE, instructions={**MACHINE.instructions, "SLDT r64": wrong})
    (found,) = confirm(changed, [_on(changed, unfaithful("SLDT r64"))], BOCHS)
    assert total(found) is WitnessVerdict.DIFFERS


def _on(changed: Machine[Any], runs: tuple[WitnessRun, ...]) -> list[WitnessRun]:
    """The runs with the instructions of another machine."""
    return [
        attrs.evolve(
            run,
            lines=tuple(
                attrs.evolve(line, instruction=changed.instructions[line.instruction.form])
                for line in run.lines
            ),
        )
        for run in runs
    ]


def test_nobody_writes_them_as_assembly() -> None:
    with pytest.raises(UserError, match="--confirm"):
        assert_possible("x86-64", True, False)
    assert_possible("x86-64", False, "bochs")
