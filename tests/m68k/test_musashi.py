"""The model beside Musashi: what is said of the long run, on few cases."""

from __future__ import annotations

import attrs
import pytest

from popek.architectures.m68k.machine import build
from popek.architectures.m68k.state import M68k
from popek.emulators.musashi.compare import difftest
from popek.emulators.musashi.deviations import RECOGNISERS
from popek.kernel.instruction import Instruction
from popek_specs.instructions import table

pytestmark = pytest.mark.musashi


def test_every_form_on_both_models() -> None:
    report = difftest(3000, seed=1)
    assert report.unexplained == 0, report.differences
    assert set(report.by_form) == set(build().instructions)


def test_the_deviations_are_listed() -> None:
    listed = [one["id"] for one in table("m68k", "musashi-deviations")["deviations"]]
    assert sorted(listed) == sorted(RECOGNISERS)


def broken(form: str) -> Instruction:
    """The form with C the other way round after it."""
    instruction = build().instructions[form]

    def semantics(cpu: M68k, *operands: object, **settings: object) -> None:
        instruction.semantics(cpu, *operands, **settings)
        cpu.sr.c = ~cpu.sr.c

    return attrs.evolve(instruction, semantics=semantics)


@pytest.mark.parametrize("form", ["ROXL.B Dn, Dn", "RTR", "CMP.L Dn, Dn"])
def test_a_wrong_carry_is_noticed(form: str) -> None:
    machine = build()
    machine.instructions[form] = broken(form)
    assert difftest(20, forms=[form], machine=machine).unexplained > 0
