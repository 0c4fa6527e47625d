"""Interrupts as steps: the machine as it should be, and one for each way in which it can go wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from interrupts import MACHINES

from popek.architectures.pg74.machine import ADDRESS, Pg74, build
from popek.checks.premise import A1, A4, A5_VECTOR, A6_CLOSURE, A6_NOTICED, A6_TELLS, Premise, holds_all
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.outcome import Trap
from popek.kernel.words import Word
from popek_proofs.theorems.instantiate import instantiate

HERE = Path(__file__).parent
WRITTEN = tomllib.loads((HERE / "interrupts.toml").read_text(encoding="utf-8"))


def asked(machine: Any, name: str, *, form: bool = False) -> list[Premise[Any]]:
    """The premises of a name, of the machine or of its forms; each witness is made, which replays it."""
    found = [p for p in instantiate(Subject.of(machine)).premises if p.name == name and bool(p.form) == form]
    assert found
    for one in found:
        assert (one.witness is not None) == (one.truth is Truth.NO)
    return found


def test_every_machine_is_written_down() -> None:
    assert list(MACHINES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_interrupts(name: str) -> None:
    premises, written = instantiate(Subject.of(MACHINES[name]())).premises, WRITTEN[name]
    once = [p for p in premises if not p.form]
    found = {
        "vector": holds_all(once, (A5_VECTOR,)).value,
        "tells": holds_all(once, (A6_TELLS,)).value,
        "closure": holds_all(once, (A6_CLOSURE,)).value,
        "lets_through": [p.form for p in premises if p.name == A6_NOTICED and p.truth is Truth.NO],
    }
    assert found == written
    assert holds_all(premises, (A1,)) is Truth.YES
    for one in premises:
        assert one.truth is not Truth.NO or one.witness is not None or not one.form


def test_a_machine_without_interrupts_is_not_asked() -> None:
    found = [
        p for p in instantiate(Subject.of(build())).premises if p.name in (A6_TELLS, A6_NOTICED, A6_CLOSURE)
    ]
    assert [(p.truth, p.how) for p in found] == [
        (Truth.NOT_ASKED, "the machine does not say what an interrupt does")
    ] * 3


def into_the_guest(before: Pg74, trap: Trap[Pg74]) -> Pg74:
    """The PSW exchange at the program's location 0: the guest's cell is lost."""
    cpu = trap.state.copy()
    cpu.memory = cpu.memory.store(cpu.relocation.base, cpu.psw)
    cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))
    return cpu


def where_the_guest_says(before: Pg74, trap: Trap[Pg74]) -> Pg74:
    """The next PSW comes from the program's location 1."""
    cpu = trap.state.copy()
    cpu.memory = cpu.memory.store(Word(ADDRESS, 0), cpu.psw)
    cpu.load_psw(cpu.memory.load(cpu.relocation.base + 1))
    return cpu


@pytest.mark.parametrize(("deliver", "name"), [(into_the_guest, A4), (where_the_guest_says, A5_VECTOR)])
def test_the_delivery_of_a_trap_is_asked_too(deliver: Any, name: str) -> None:
    machine = build()
    machine.deliver = deliver
    assert holds_all(asked(machine, name), (name,)) is Truth.NO
    assert instantiate(Subject.of(machine)).theorem1.value == "refuted"
