"""Instructions that touch or show what belongs to the supervisor (User's Manual, section 6; Reference Manual).

On the 68000 all of them trap in user state but one: MOVE from SR.  The 68010 made it privileged, gave user programs
MOVE from CCR, and brought MOVEC, MOVES and the vector base register, which trap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import FALSE, Word, ite

from .operands import ALTERABLE_MEMORY, DATA, DATA_ALTERABLE, declare, place, spelled
from .state import FORMAT_ERROR, ILLEGAL, PRIVILEGE, REFERENCE, M68k, is_68010, only_on_68010, supervisor_only

FORMAT_0, FORMAT_8 = 0, 8
CCR_BITS = 0x1F


def add(machine: Machine[M68k]) -> None:
    """Declare them."""
    _status(machine)
    _immediate_to_status(machine)
    _control(machine)
    _returns(machine)
    _control_registers(machine)
    _other_space(machine)


def _status(machine: Machine[M68k]) -> None:
    def from_sr(cpu: M68k, operand: Any, mode: str) -> None:
        """The operand := SR; privileged on the 68010."""
        if is_68010(cpu):
            supervisor_only(cpu)
        status = cpu.sr.value
        place(cpu, mode, operand, 16).put(status)

    def from_ccr(cpu: M68k, operand: Any, mode: str) -> None:
        """The operand := the condition codes, high byte 0; on the 68010 alone."""
        only_on_68010(cpu)
        place(cpu, mode, operand, 16).put(cpu.sr.value & CCR_BITS)

    for mode in DATA_ALTERABLE:
        declare(
            machine,
            "MOVE SR,",
            0x40C0,
            (mode, "ea"),
            source=f"{REFERENCE}, MOVE from SR",
            called="MOVE from SR",
            mode=mode,
        )(from_sr)
        declare(
            machine, "MOVE CCR,", 0x42C0, (mode, "ea"), source=f"{REFERENCE}, MOVE from CCR", called="MOVE from CCR",
            mode=mode,
        )(from_ccr)  # fmt: skip

    def to_ccr(cpu: M68k, operand: Any, mode: str) -> None:
        """The condition codes := the low five bits of a word."""
        new = place(cpu, mode, operand, 16).get()
        cpu.sr.value = cpu.sr.value.replace(7, 0, new[7:0] & CCR_BITS)

    def to_sr(cpu: M68k, operand: Any, mode: str) -> None:
        """SR := the operand; privileged."""
        supervisor_only(cpu)
        cpu.set_status(place(cpu, mode, operand, 16).get())

    for mode in DATA:
        declare(
            machine, "MOVE", 0x44C0, (spelled(mode, 16), "ea"), ("CCR", ""), source=f"{REFERENCE}, MOVE to CCR",
            called="MOVE to CCR", mode=mode,
        )(to_ccr)  # fmt: skip
        declare(
            machine, "MOVE", 0x46C0, (spelled(mode, 16), "ea"), ("SR", ""), source=f"{REFERENCE}, MOVE to SR",
            called="MOVE to SR", mode=mode,
        )(to_sr)  # fmt: skip


def _immediate_to_status(machine: Machine[M68k]) -> None:
    def to_ccr(cpu: M68k, number: Word, operation: Callable[[Word, Word], Word]) -> None:
        """The condition codes := what the mnemonic makes of them and a byte."""
        new = operation(cpu.sr.value[7:0], place(cpu, "#", number, 8).get())
        cpu.sr.value = cpu.sr.value.replace(7, 0, new & CCR_BITS)

    def to_sr(cpu: M68k, number: Word, operation: Callable[[Word, Word], Word]) -> None:
        """SR := what the mnemonic makes of it and a word; privileged."""
        supervisor_only(cpu)
        cpu.set_status(operation(cpu.sr.value, place(cpu, "#", number, 16).get()))

    operations: dict[str, tuple[int, Callable[[Word, Word], Word]]] = {
        "ORI": (0x003C, lambda a, b: a | b),
        "ANDI": (0x023C, lambda a, b: a & b),
        "EORI": (0x0A3C, lambda a, b: a ^ b),
    }
    for mnemonic, (code, operation) in operations.items():
        for name, kind, first, semantics in (("CCR", "#b", code, to_ccr), ("SR", "#w", code | 0x40, to_sr)):
            declare(
                machine, mnemonic, first, (kind, "next"), (name, ""), source=f"{REFERENCE}, {mnemonic} to {name}",
                called=f"{mnemonic} to {name}", operation=operation,
            )(semantics)  # fmt: skip


def _control(machine: Machine[M68k]) -> None:
    @declare(machine, "MOVE USP,", 0x4E68, ("An", "0"), source=f"{REFERENCE}, MOVE USP", called="MOVE USP")
    def from_usp(cpu: M68k, number: Word) -> None:
        """An := the user stack pointer; privileged."""
        supervisor_only(cpu)
        cpu.set_address_register(number, cpu.other_sp)

    @declare(
        machine, "MOVE", 0x4E60, ("An", "0"), ("USP", ""), source=f"{REFERENCE}, MOVE USP", called="MOVE USP"
    )
    def to_usp(cpu: M68k, number: Word) -> None:
        """The user stack pointer := An; privileged."""
        supervisor_only(cpu)
        cpu.other_sp = cpu.address_register(number)

    @declare(machine, "RESET", 0x4E70, source=f"{REFERENCE}, RESET")
    def reset(cpu: M68k) -> None:
        """Pulse the line that resets the devices; privileged."""
        supervisor_only(cpu)

    @declare(machine, "STOP", 0x4E72, ("#w", "next"), source=f"{REFERENCE}, STOP")
    def stop(cpu: M68k, new: Word) -> None:
        """SR := the operand; stop until an interrupt or a reset; privileged."""
        supervisor_only(cpu)
        status = place(cpu, "#", new, 16).get()
        if status[13] == 0:
            raise Fault(PRIVILEGE)
        cpu.set_status(status)
        cpu.running = FALSE


def _returns(machine: Machine[M68k]) -> None:
    @declare(machine, "RTE", 0x4E73, source=f"{REFERENCE}, RTE, and User's Manual, section 6.4")
    def rte(cpu: M68k) -> None:
        """SR and PC := what the exception's frame holds; privileged."""
        supervisor_only(cpu)
        status = cpu.load(cpu.sp, 16)
        pc = cpu.load(cpu.sp + 2, 32)
        if is_68010(cpu):
            form = cpu.load(cpu.sp + 6, 16)[15:12]
            if form == FORMAT_8:
                raise NotModelledError("RTE of a frame of format 8, whose words only the processor knows")
            if form != FORMAT_0:
                raise Fault(FORMAT_ERROR)
            cpu.sp = cpu.sp + 2
        cpu.sp = cpu.sp + 6
        cpu.set_status(status)
        cpu.pc = pc


def _control_registers(machine: Machine[M68k]) -> None:
    source = f"{REFERENCE}, MOVEC"

    def value(cpu: M68k, name: str) -> Word:
        return cpu[name].zero_extend(32)

    def general(cpu: M68k, number: Word) -> Word:
        return ite(number[3], cpu.address_register(number[2:0]), cpu.d[number[2:0]])

    def read(cpu: M68k, number: Word, name: str) -> None:
        """A general register := the control register, zero-extended; privileged, on the 68010 alone."""
        only_on_68010(cpu)
        supervisor_only(cpu)
        _second_word(cpu)
        _set_general(cpu, number, value(cpu, name))

    def write(cpu: M68k, number: Word, name: str) -> None:
        """The control register := a general register; privileged, on the 68010 alone."""
        only_on_68010(cpu)
        supervisor_only(cpu)
        _second_word(cpu)
        cpu[name] = general(cpu, number).truncate(cpu[name].width)

    def unknown(cpu: M68k, *operands: Word) -> None:
        """A control register that does not exist: an illegal instruction, after privilege."""
        only_on_68010(cpu)
        supervisor_only(cpu)
        raise Fault(ILLEGAL)

    names = {"SFC": ("sfc", 0x000), "DFC": ("dfc", 0x001), "USP": ("other_sp", 0x800), "VBR": ("vbr", 0x801)}
    for spelling, (name, code) in names.items():
        declare(
            machine, f"MOVEC {spelling},", 0x4E7A, ("Rn", "second12"), second=code, source=source, name=name
        )(read)
        declare(
            machine,
            "MOVEC",
            0x4E7B,
            ("Rn", "second12"),
            (spelling, ""),
            second=code,
            source=source,
            name=name,
        )(write)
    declare(machine, "MOVEC", 0x4E7A, ("Rc", "second0"), ("Rn", "second12"), second=0, source=source)(unknown)
    declare(machine, "MOVEC", 0x4E7B, ("Rn", "second12"), ("Rc", "second0"), second=0, source=source)(unknown)


def _second_word(cpu: M68k) -> None:
    cpu.pc = cpu.pc + 2


def _set_general(cpu: M68k, number: Word, new: Word) -> None:
    """Rn := new (32 bits); bit 3 of the number says that it is an address register."""
    which, address = number[2:0], number[3]
    cpu.d[which] = ite(address, cpu.d[which], new)
    cpu.set_address_register(which, ite(address, new, cpu.address_register(which)))


def _other_space(machine: Machine[M68k]) -> None:
    source = f"{REFERENCE}, MOVES"

    def read(cpu: M68k, operand: Any, number: Word, mode: str, width: int) -> None:
        """A general register := storage under the function code in SFC; privileged, on the 68010 alone."""
        only_on_68010(cpu)
        supervisor_only(cpu)
        _second_word(cpu)
        loaded = place(cpu, mode, operand, width, cpu.relocation(cpu.sfc)).get()
        low = cpu.d[number[2:0]].replace(width - 1, 0, loaded) if width < 32 else loaded
        _set_general(cpu, number, ite(number[3], loaded.sign_extend(32), low))

    def write(cpu: M68k, number: Word, operand: Any, mode: str, width: int) -> None:
        """Storage under the function code in DFC := a general register; privileged, on the 68010 alone."""
        only_on_68010(cpu)
        supervisor_only(cpu)
        _second_word(cpu)
        found = place(cpu, mode, operand, width, cpu.relocation(cpu.dfc))
        # Where the register also gives the address, which of its values is stored is left to the processor.
        value = ite(number[3], cpu.address_register(number[2:0]), cpu.d[number[2:0]])
        found.put(value[width - 1 : 0])

    for code, (letter, width) in enumerate({"B": 8, "W": 16, "L": 32}.items()):
        for mode in ALTERABLE_MEMORY:
            given: dict[str, Any] = {"source": source, "mode": mode, "width": width}
            first = 0x0E00 | code << 6
            declare(machine, f"MOVES.{letter}", first, (mode, "ea"), ("Rn", "second12"), second=0, **given)(
                read
            )
            declare(
                machine, f"MOVES.{letter}", first, ("Rn", "second12"), (mode, "ea"), second=1 << 11, **given
            )(write)
