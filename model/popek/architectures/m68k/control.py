"""68000 branches, jumps, calls, traps and shifts (Reference Manual, sections 3.1.4, 3.1.7 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Vector
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .operands import CONTROL, address_of, declare, place
from .state import (
    ILLEGAL,
    LINE_A,
    LINE_F,
    OVERFLOW,
    REFERENCE,
    SIZES,
    TRAPS,
    M68k,
    only_on_68010,
)
from .supervisor import CCR_BITS

CONDITIONS: Final[dict[str, Callable[[M68k], Word]]] = {
    "T": lambda cpu: TRUE,
    "F": lambda cpu: FALSE,
    "HI": lambda cpu: ~cpu.sr.c & ~cpu.sr.z,
    "LS": lambda cpu: cpu.sr.c | cpu.sr.z,
    "CC": lambda cpu: ~cpu.sr.c,
    "CS": lambda cpu: cpu.sr.c,
    "NE": lambda cpu: ~cpu.sr.z,
    "EQ": lambda cpu: cpu.sr.z,
    "VC": lambda cpu: ~cpu.sr.v,
    "VS": lambda cpu: cpu.sr.v,
    "PL": lambda cpu: ~cpu.sr.n,
    "MI": lambda cpu: cpu.sr.n,
    "GE": lambda cpu: ~(cpu.sr.n ^ cpu.sr.v),
    "LT": lambda cpu: cpu.sr.n ^ cpu.sr.v,
    "GT": lambda cpu: ~(cpu.sr.n ^ cpu.sr.v) & ~cpu.sr.z,
    "LE": lambda cpu: (cpu.sr.n ^ cpu.sr.v) | cpu.sr.z,
}
"""In the order of their codes (Reference Manual, table 3-19)."""


def add(machine: Machine[M68k]) -> None:
    """Declare them."""
    _branches(machine)
    _jumps(machine)
    _traps(machine)
    _shifts(machine)


def _branches(machine: Machine[M68k]) -> None:
    def short(cpu: M68k, displacement: Word, condition: Callable[[M68k], Word], calls: bool) -> None:
        """PC := where the instruction begins + 2 + displacement if the condition holds."""
        there = cpu.pc + displacement.sign_extend(32)
        if calls:
            cpu.push(cpu.pc)
        cpu.pc = ite(condition(cpu), there, cpu.pc)

    def long(cpu: M68k, displacement: Word, condition: Callable[[M68k], Word], calls: bool) -> None:
        """The same with a displacement in a word of its own."""
        there = cpu.pc + displacement.sign_extend(32)
        cpu.pc = cpu.pc + 2
        if calls:
            cpu.push(cpu.pc)
        cpu.pc = ite(condition(cpu), there, cpu.pc)

    def count(cpu: M68k, number: Word, displacement: Word, condition: Callable[[M68k], Word]) -> None:
        """Unless the condition holds, count the word in the register down, and branch until it is -1."""
        there = cpu.pc + displacement.sign_extend(32)
        cpu.pc = cpu.pc + 2
        ends, counted = condition(cpu), cpu.d[number][15:0] - 1
        cpu.set_data_register(number, ite(ends, cpu.d[number][15:0], counted))
        cpu.pc = ite(ends | (counted == 0xFFFF), cpu.pc, there)

    def set_byte(cpu: M68k, destination: Any, condition: Callable[[M68k], Word], mode: str) -> None:
        """The byte := all ones if the condition holds, otherwise 0."""
        to = place(cpu, mode, destination, 8)
        if mode != "Dn":
            to.get()  # the byte is read first
        to.put(ite(condition(cpu), Word(8, 0xFF), Word(8, 0)))

    for number, (name, condition) in enumerate(CONDITIONS.items()):
        mnemonic, calls = {"T": ("BRA", False), "F": ("BSR", True)}.get(name, (f"B{name}", False))
        given: Any = {
            "source": f"{REFERENCE}, {'Bcc' if number > 1 else mnemonic}",
            "condition": CONDITIONS["T"] if calls else condition,
            "calls": calls,
            "called": mnemonic if number < 2 else "Bcc",
        }
        declare(machine, f"{mnemonic}.B", 0x6000 | number << 8, ("d8", "0"), **given)(short)
        declare(machine, f"{mnemonic}.W", 0x6000 | number << 8, ("d16", "next"), **given)(long)
        declare(
            machine, f"DB{name}", 0x50C8 | number << 8, ("Dn", "0"), ("d16", "next"), source=f"{REFERENCE}, DBcc",
            called="DBcc", condition=condition,
        )(count)  # fmt: skip
        for mode in ("Dn", "(An)"):
            declare(
                machine, f"S{name}", 0x50C0 | number << 8, (mode, "ea"), source=f"{REFERENCE}, Scc", called="Scc",
                condition=condition, mode=mode,
            )(set_byte)  # fmt: skip


def _jumps(machine: Machine[M68k]) -> None:
    def jump(cpu: M68k, operand: Any, mode: str, calls: bool) -> None:
        """PC := the operand's address; JSR pushes the old one."""
        there = address_of(cpu, mode, operand)
        if calls:
            cpu.push(cpu.pc)
        cpu.pc = there

    for mnemonic, code in (("JMP", 0x4EC0), ("JSR", 0x4E80)):
        for mode in CONTROL:
            declare(
                machine, mnemonic, code, (mode, "ea"), source=f"{REFERENCE}, {mnemonic}", mode=mode,
                calls=mnemonic == "JSR",
            )(jump)  # fmt: skip

    @declare(machine, "RTS", 0x4E75, source=f"{REFERENCE}, RTS")
    def rts(cpu: M68k) -> None:
        """PC := (A7)+."""
        cpu.pc = cpu.pop(32)

    @declare(machine, "RTR", 0x4E77, source=f"{REFERENCE}, RTR")
    def rtr(cpu: M68k) -> None:
        """The condition codes := the low bits of a word, then PC, from the stack."""
        codes = cpu.pop(16)
        there = cpu.pop(32)
        cpu.sr.value = cpu.sr.value.replace(7, 0, codes[7:0] & CCR_BITS)
        cpu.pc = there

    @declare(machine, "RTD", 0x4E74, ("#w", "next"), source=f"{REFERENCE}, RTD")
    def rtd(cpu: M68k, displacement: Word) -> None:
        """PC := (A7)+; A7 := A7 + displacement; on the 68010 alone."""
        only_on_68010(cpu)
        cpu.pc = cpu.pop(32)
        cpu.sp = cpu.sp + displacement.sign_extend(32)

    @declare(machine, "NOP", 0x4E71, source=f"{REFERENCE}, NOP")
    def nop(cpu: M68k) -> None:
        """Nothing."""


def _traps(machine: Machine[M68k]) -> None:
    @declare(machine, "TRAP", 0x4E40, ("#t", "0"), source=f"{REFERENCE}, TRAP")
    def trap(cpu: M68k, number: Word) -> None:
        """Trap in both states, through one of sixteen vectors."""
        for vector in TRAPS[:-1]:
            if number == vector.number - TRAPS[0].number:
                raise Fault(vector, keeps=True)
        raise Fault(TRAPS[-1], keeps=True)

    @declare(machine, "TRAPV", 0x4E76, source=f"{REFERENCE}, TRAPV")
    def trapv(cpu: M68k) -> None:
        """Trap if V is 1."""
        if cpu.sr.v:
            raise Fault(OVERFLOW, keeps=True)

    def unassigned(cpu: M68k, *ignored: Word, vector: Vector) -> None:
        """Trap in both states; the PC stays at the instruction."""
        raise Fault(vector)

    declare(machine, "ILLEGAL", 0x4AFC, source=f"{REFERENCE}, ILLEGAL", vector=ILLEGAL)(unassigned)
    declare(machine, "BKPT", 0x4848, ("#q", "0"), source=f"{REFERENCE}, BKPT", vector=ILLEGAL)(unassigned)
    for name, code, vector in (("LINE 1010", 0xA000, LINE_A), ("LINE 1111", 0xF000, LINE_F)):
        declare(
            machine, f"{name},", code, ("line", "0"), source=f"{REFERENCE}, unimplemented instructions", called=name,
            vector=vector,
        )(unassigned)  # fmt: skip


# -- shifts and rotations -------------------------------------------------------------------------

Shift = Callable[[Word, Word, Word], tuple[Word, Word, Word]]
"""Value and count (of the value's width), X: the result, the last bit that went out, and V."""


def _arithmetic_left(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    """V if the sign changed at any time."""
    width = value.width
    wide = value.sign_extend(width + 64) << count.zero_extend(width + 64)
    result = wide[width - 1 : 0]
    overflow = wide != result.sign_extend(width + 64)
    return result, wide[width], overflow


def _arithmetic_right(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    wide = concat(value, Word(1, 0)).arithmetic_shift_right(count.zero_extend(value.width + 1))
    return wide[value.width : 1], wide[0], FALSE


def _logical_left(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    wide = value.zero_extend(value.width + 1) << count.zero_extend(value.width + 1)
    return wide[value.width - 1 : 0], wide[value.width], FALSE


def _logical_right(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    wide = concat(value, Word(1, 0)) >> count.zero_extend(value.width + 1)
    return wide[value.width : 1], wide[0], FALSE


def _around(value: Word, count: Word) -> Word:
    """Rotated left."""
    by = count % value.width
    return value << by | ite(by == 0, Word(value.width, 0), value >> (Word(value.width, value.width) - by))


def _rotate_left(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    result = _around(value, count)
    return result, result[0], FALSE


def _rotate_right(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    width = value.width
    result = _around(value, Word(width, width) - count % width)
    return result, result[width - 1], FALSE


def _extended_left(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    """Through X, which is the bit above the highest."""
    joined = _around_odd(concat(x, value), count)
    return joined[value.width - 1 : 0], joined[value.width], FALSE


def _extended_right(value: Word, count: Word, x: Word) -> tuple[Word, Word, Word]:
    whole = value.width + 1
    back = Word(value.width, whole) - count % whole
    joined = _around_odd(concat(x, value), back)
    return joined[value.width - 1 : 0], joined[value.width], FALSE


def _around_odd(value: Word, count: Word) -> Word:
    """Rotated left; the value has a bit more than the count."""
    width = value.width
    by = (count % width).zero_extend(width)
    return value << by | ite(by == 0, Word(width, 0), value >> (Word(width, width) - by))


# Mnemonic: the type's code, the shift, whether X takes part, and whether it becomes what goes out.
_SHIFTS: Final[dict[str, tuple[int, Shift, Shift]]] = {
    "AS": (0, _arithmetic_right, _arithmetic_left),
    "LS": (1, _logical_right, _logical_left),
    "ROX": (2, _extended_right, _extended_left),
    "RO": (3, _rotate_right, _rotate_left),
}


def _shifts(machine: Machine[M68k]) -> None:
    def shifted(cpu: M68k, value: Word, count: Word, shift: Shift, kind: str) -> Word:
        """The result; condition codes, where a count of 0 leaves X and clears C, but for ROX, which has C as X."""
        result, out, overflow = shift(value, count, cpu.sr.x)
        none = count == 0
        cpu.set_nz(result)
        cpu.sr.v = overflow
        if kind != "RO":
            cpu.sr.x = ite(none, cpu.sr.x, out)
        cpu.sr.c = ite(none, cpu.sr.x if kind == "ROX" else FALSE, out)
        return result

    def register(
        cpu: M68k, count: Word, number: Word, shift: Shift, kind: str, width: int, quick: bool
    ) -> None:
        """The register shifted; the count is modulo 64, or from 1 to 8."""
        wide = ite(count == 0, Word(6, 8), count.zero_extend(6)) if quick else cpu.d[count][5:0]
        value = cpu.d[number][width - 1 : 0]
        cpu.set_data_register(number, shifted(cpu, value, wide.zero_extend(width), shift, kind))

    def storage(cpu: M68k, destination: Any, shift: Shift, kind: str, mode: str) -> None:
        """A word in storage shifted by one."""
        to = place(cpu, mode, destination, 16)
        to.put(shifted(cpu, to.get(), Word(16, 1), shift, kind))

    sizes = {"B": 0x00, "W": 0x40, "L": 0x80}
    for kind, (code, right, left) in _SHIFTS.items():
        for direction, bit, shift in (("R", 0, right), ("L", 0x100, left)):
            mnemonic = kind + direction
            source = f"{REFERENCE}, {mnemonic}"
            for letter, width in SIZES.items():
                for counted, first, how in (("Dn", 0xE020, "9"), ("#q", 0xE000, "9")):
                    declare(
                        machine, f"{mnemonic}.{letter}", first | bit | sizes[letter] | code << 3, (counted, how),
                        ("Dn", "0"), source=source, shift=shift, kind=kind, width=width, quick=counted == "#q",
                    )(register)  # fmt: skip
            for mode in ("(An)", "d16(An)"):
                declare(
                    machine, f"{mnemonic}.W", 0xE0C0 | bit | code << 9, (mode, "ea"), source=source, shift=shift,
                    kind=kind, mode=mode,
                )(storage)  # fmt: skip
