"""The paper's machine with a call that goes in without a trap: as it should be, and as somebody might only say it is.

The call exchanges PSWs as a trap does, by E[0] and E[1]; what the technique calls an entry is what E[1] says.
`without_trap.toml` says what each machine should get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import ADDRESS, PRIVILEGED_TRAP, Pg74
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.state import word
from popek.kernel.technique import Technique
from popek.kernel.words import TRUE, Word, ite


class Calling(Pg74):
    """The paper's state and a register of the program's."""

    x = word(ADDRESS)


Made = Machine[Calling]
Entries = Callable[[Calling, Calling], Word]


def next_psw(before: Calling, after: Calling) -> Word:
    """M, P and R are as E[1] says."""
    expected = before.copy()
    expected.load_psw(before.memory.load(Word(ADDRESS, 1)))
    return expected.psw == after.psw


def anything(before: Calling, after: Calling) -> Word:
    """Whatever is in supervisor mode."""
    return TRUE


def exchange(cpu: Calling) -> None:
    """E[0] := PSW, PSW := E[1]."""
    cpu.memory = cpu.memory.store(Word(ADDRESS, 0), cpu.psw)
    cpu.load_psw(cpu.memory.load(Word(ADDRESS, 1)))


def whole(cpu: Calling) -> None:
    """R := all of E."""
    cpu.relocation.base, cpu.relocation.bound = Word(ADDRESS, 0), Word(ADDRESS, 255)


def base(
    semantics: Any = exchange, form: str = "CALL", entries: Entries = anything, **technique: Any
) -> Made:
    """The machine with one call; the guest has its register on the hardware."""
    paper: Any = build()
    plain = paper.technique()

    def image(guest: Calling, private: Calling) -> Calling:
        hardware: Calling = plain.map(guest, private)
        hardware.x = guest.x
        return hardware

    def expects(guest: Calling, private: Calling) -> Word:
        """E[1] leads to the monitor's location 0, in supervisor mode, with all of E."""
        fits: Word = plain.private(guest, private)
        return fits & (private.memory.load(Word(ADDRESS, 1)) == 0xFF)

    def has_psws(guest: Calling) -> Word:
        """E[0], E[1] and E[2] exist."""
        return guest.last >= 2

    given: dict[str, Any] = {
        "map": image,
        "entries": entries,
        "private": expects,
        "guest": has_psws,
        **technique,
    }
    made: Technique[Calling] = attrs.evolve(plain, **given)
    machine: Made = attrs.evolve(
        paper,
        name="calling",
        state=Calling,
        techniques={made.name: made},
        instructions={form: paper.instructions[form] for form in ("MOVE a, b", "SVC", "LPSW a")},
        architecture=None,
    )
    machine.instruction(form)(semantics)
    return machine


def as_it_should_be() -> Made:
    """The call is the paper's trap by another name."""
    return base(entries=next_psw)


def back() -> Made:
    """Supervisor mode, and on in the program."""

    def semantics(cpu: Calling, a: Word) -> None:
        cpu.mode, cpu.pc = Word(1, 0), a

    return base(semantics, "CALL a")


def at_zero() -> Made:
    """Supervisor mode at 0, which is the program's 0: R is as it was.  Natively it does nothing."""

    def semantics(cpu: Calling) -> None:
        if cpu.mode == 1:
            cpu.mode, cpu.pc = Word(1, 0), Word(ADDRESS, 0)

    return base(semantics, entries=lambda before, after: after.pc == 0)


def notes_where_it_is_told() -> Made:
    """The exchange, and P into the cell of E that an operand says."""

    def semantics(cpu: Calling, a: Word) -> None:
        pc = cpu.pc.zero_extend(32)
        exchange(cpu)
        cpu.memory = cpu.memory.store(a, pc)

    return base(semantics, "CALL a", next_psw)


def notes_where_the_program_says() -> Made:
    """The exchange, and E[x] := 0, where that is the monitor's: natively, too."""

    def semantics(cpu: Calling) -> None:
        cpu.memory = cpu.memory.store(cpu.x, Word(32, 0))
        exchange(cpu)

    return base(semantics)


def forgets() -> Made:
    """The exchange, and in user mode x := 0: what the program had in it is nowhere."""

    def semantics(cpu: Calling) -> None:
        if cpu.mode == 1:
            cpu.x = Word(ADDRESS, 0)
        exchange(cpu)

    return base(semantics, entries=next_psw)


def the_program_says_where() -> Made:
    """P is E[1]'s or E[2]'s: the program's register decides."""

    def semantics(cpu: Calling) -> None:
        second = cpu.memory.load(Word(ADDRESS, 2))
        exchange(cpu)
        whole(cpu)
        cpu.mode, cpu.pc = Word(1, 0), ite(cpu.x == 0, Word(ADDRESS, 0), second[0].zero_extend(ADDRESS))

    return base(semantics)


def its_operand_says_where() -> Made:
    """P is the operand's lowest bit, in the monitor's storage: whether it expects both is not known."""

    def semantics(cpu: Calling, a: Word) -> None:
        exchange(cpu)
        whole(cpu)
        cpu.mode, cpu.pc = Word(1, 0), a[0].zero_extend(ADDRESS)

    return base(semantics, "CALL a")


def the_program_says_the_bound() -> Made:
    """The exchange; and the bound of R, which is the monitor's, is the program's x."""

    def semantics(cpu: Calling) -> None:
        exchange(cpu)
        whole(cpu)
        cpu.mode, cpu.pc, cpu.relocation.bound = Word(1, 0), Word(ADDRESS, 0), cpu.x

    return base(semantics)


def from_where_it_fetches_is_not_said() -> Made:
    """The right exchange, on a machine that does not say from which cell the next instruction comes."""
    return attrs.evolve(base(entries=next_psw), fetches=None)


def a_trap_besides() -> Made:
    """Where E[1] says user mode, it is a trap: the entry is the hardware's to take or not."""

    def semantics(cpu: Calling) -> None:
        if (cpu.mode == 1) & cpu.memory.load(Word(ADDRESS, 1))[24]:
            raise Fault(PRIVILEGED_TRAP)
        exchange(cpu)

    return base(semantics, entries=next_psw)


MACHINES = {
    "as it should be": as_it_should_be,
    "a trap besides": a_trap_besides,
    "back": back,
    "at zero": at_zero,
    "notes where it is told": notes_where_it_is_told,
    "notes where the program says": notes_where_the_program_says,
    "forgets": forgets,
    "the program says where": the_program_says_where,
    "its operand says where": its_operand_says_where,
    "the program says the bound": the_program_says_the_bound,
    "from where it fetches is not said": from_where_it_fetches_is_not_said,
}
