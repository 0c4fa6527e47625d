"""PDP-11/45: MOV and JMP in further addressing modes, the remaining branches, condition codes, MARK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from popek.kernel.machine import Machine
from popek.kernel.words import FALSE, Word, ite

from .state import HANDBOOK, Pdp11

Indexed = tuple[Word, Word]

BRANCHES: Final[dict[str, tuple[int, Callable[[Pdp11], Word]]]] = {
    "BNE": (0o001000, lambda cpu: ~cpu.ps.z),
    "BGE": (0o002000, lambda cpu: ~(cpu.ps.n ^ cpu.ps.v)),
    "BLT": (0o002400, lambda cpu: cpu.ps.n ^ cpu.ps.v),
    "BGT": (0o003000, lambda cpu: ~(cpu.ps.z | (cpu.ps.n ^ cpu.ps.v))),
    "BLE": (0o003400, lambda cpu: cpu.ps.z | (cpu.ps.n ^ cpu.ps.v)),
    "BPL": (0o100000, lambda cpu: ~cpu.ps.n),
    "BMI": (0o100400, lambda cpu: cpu.ps.n),
    "BHI": (0o101000, lambda cpu: ~(cpu.ps.c | cpu.ps.z)),
    "BLOS": (0o101400, lambda cpu: cpu.ps.c | cpu.ps.z),
    "BVC": (0o102000, lambda cpu: ~cpu.ps.v),
    "BVS": (0o102400, lambda cpu: cpu.ps.v),
    "BCC": (0o103000, lambda cpu: ~cpu.ps.c),
    "BCS": (0o103400, lambda cpu: cpu.ps.c),
}
"""Mnemonic: opcode and condition."""

CODES: Final = {"C": 1, "V": 2, "Z": 4, "N": 8}
"""The condition codes and their bits in the operators and in PS."""


def add(machine: Machine[Pdp11]) -> None:
    """Declare them."""
    _from(machine)
    _to(machine)
    _deferred(machine)
    _control(machine)


def _moved(cpu: Pdp11, value: Word) -> Word:
    cpu.set_nz(value)
    cpu.ps.v = FALSE
    return value


def _immediate_word(cpu: Pdp11) -> None:
    """The PC moves past the instruction's second word, whose value is an operand."""
    cpu.pc = cpu.pc + 2


def _from(machine: Machine[Pdp11]) -> None:
    source = f"{HANDBOOK}, chapter 3 and chapter 4, MOV"

    @machine.instruction("MOV -(R), R", source=source)
    def decrement(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Autodecrement."""
        cpu.set_register(src, cpu.register(src) - 2)
        cpu.set_register(dst, _moved(cpu, cpu.load(cpu.register(src))))

    @machine.instruction("MOV X(R), R", source=source)
    def indexed(cpu: Pdp11, src: Indexed, dst: Word) -> None:
        """Index."""
        index, base = src
        _immediate_word(cpu)
        cpu.set_register(dst, _moved(cpu, cpu.load(cpu.register(base) + index)))

    @machine.instruction("MOV #i, R", source=source)
    def immediate(cpu: Pdp11, value: Word, dst: Word) -> None:
        """Immediate."""
        _immediate_word(cpu)
        cpu.set_register(dst, _moved(cpu, value))

    @machine.instruction("MOV @#i, R", source=source)
    def absolute(cpu: Pdp11, address: Word, dst: Word) -> None:
        """Absolute."""
        _immediate_word(cpu)
        cpu.set_register(dst, _moved(cpu, cpu.load(address)))

    @machine.instruction("MOV i(PC), R", source=source)
    def relative(cpu: Pdp11, distance: Word, dst: Word) -> None:
        """Relative."""
        _immediate_word(cpu)
        cpu.set_register(dst, _moved(cpu, cpu.load(cpu.pc + distance)))


def _to(machine: Machine[Pdp11]) -> None:
    source = f"{HANDBOOK}, chapter 3 and chapter 4, MOV"

    @machine.instruction("MOV R, (R)+", source=source)
    def increment(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Autoincrement; the source is read first."""
        value, place = cpu.register(src), cpu.register(dst)
        cpu.set_register(dst, place + 2)
        cpu.store(place, _moved(cpu, value))

    @machine.instruction("MOV R, i(PC)", source=source)
    def relative(cpu: Pdp11, src: Word, distance: Word) -> None:
        """Relative."""
        value = cpu.register(src)
        _immediate_word(cpu)
        cpu.store(cpu.pc + distance, _moved(cpu, value))

    @machine.instruction("MOV R, @#i", source=source)
    def absolute(cpu: Pdp11, src: Word, address: Word) -> None:
        """Absolute."""
        value = cpu.register(src)
        _immediate_word(cpu)
        cpu.store(address, _moved(cpu, value))


def _deferred(machine: Machine[Pdp11]) -> None:
    """The word that is addressed as in the mode without @ holds the operand's address."""
    source = f"{HANDBOOK}, chapter 3 and chapter 4, MOV"

    def increment(cpu: Pdp11, number: Word) -> Word:
        place = cpu.register(number)
        cpu.set_register(number, place + 2)
        return cpu.load(place)

    def decrement(cpu: Pdp11, number: Word) -> Word:
        cpu.set_register(number, cpu.register(number) - 2)
        return cpu.load(cpu.register(number))

    def indexed(cpu: Pdp11, operand: Indexed) -> Word:
        index, base = operand
        _immediate_word(cpu)
        return cpu.load(cpu.register(base) + index)

    def relative(cpu: Pdp11, distance: Word) -> Word:
        _immediate_word(cpu)
        return cpu.load(cpu.pc + distance)

    def load(cpu: Pdp11, src: Any, dst: Word, address: Callable[[Pdp11, Any], Word]) -> None:
        """Storage to register."""
        cpu.set_register(dst, _moved(cpu, cpu.load(address(cpu, src))))

    def store(cpu: Pdp11, src: Word, dst: Any, address: Callable[[Pdp11, Any], Word]) -> None:
        """Register to storage; the source is read first."""
        value = cpu.register(src)
        cpu.store(address(cpu, dst), _moved(cpu, value))

    kinds: dict[str, Callable[[Pdp11, Any], Word]] = {
        "@(R)+": increment, "@-(R)": decrement, "@X(R)": indexed, "@i(PC)": relative,
    }  # fmt: skip
    for mode, address in kinds.items():
        machine.instruction(f"MOV {mode}, R", source=source, address=address)(load)
        machine.instruction(f"MOV R, {mode}", source=source, address=address)(store)


def _control(machine: Machine[Pdp11]) -> None:
    def branch(cpu: Pdp11, offset: Word, condition: Callable[[Pdp11], Word]) -> None:
        """PC := PC + 2 d if the condition codes say so."""
        cpu.pc = ite(condition(cpu), cpu.pc + (offset.sign_extend(16) << 1), cpu.pc)

    for mnemonic, (_, condition) in BRANCHES.items():
        machine.instruction(
            f"{mnemonic} d", source=f"{HANDBOOK}, chapter 4, {mnemonic}", condition=condition
        )(branch)

    def operator(cpu: Pdp11, selected: int, on: bool) -> None:
        """Clear, or set, the condition code."""
        codes = cpu.ps.value[3:0]
        cpu.ps.value = cpu.ps.value.replace(3, 0, codes | selected if on else codes & (15 ^ selected))

    source = f"{HANDBOOK}, chapter 4, condition code operators"
    for letter, bit in CODES.items():
        for name, on in ((f"CL{letter}", False), (f"SE{letter}", True)):
            if name not in machine.instructions:
                machine.instruction(name, source=source, selected=bit, on=on)(operator)
    machine.instruction("SCC", source=source, selected=15, on=True)(operator)
    machine.instruction("NOP", source=source, selected=0, on=False)(operator)

    @machine.instruction("JMP (R)+", source=f"{HANDBOOK}, chapter 4, JMP")
    def jump_increment(cpu: Pdp11, dst: Word) -> None:
        """PC := register, which is then counted up."""
        target = cpu.register(dst)
        cpu.set_register(dst, target + 2)
        cpu.pc = target

    @machine.instruction("JMP X(R)", source=f"{HANDBOOK}, chapter 4, JMP")
    def jump_indexed(cpu: Pdp11, dst: Indexed) -> None:
        """PC := register + X."""
        index, base = dst
        cpu.pc = cpu.register(base) + index

    @machine.instruction("JMP @(R)+", source=f"{HANDBOOK}, chapter 4, JMP")
    def jump_deferred(cpu: Pdp11, dst: Word) -> None:
        """PC := the word that the register points to; the register is counted up."""
        place = cpu.register(dst)
        cpu.set_register(dst, place + 2)
        cpu.pc = cpu.load(place)

    @machine.instruction("JSR PC, X(R)", source=f"{HANDBOOK}, chapter 4, JSR")
    def call_indexed(cpu: Pdp11, dst: Indexed) -> None:
        """Push the PC; jump."""
        index, base = dst
        target = cpu.register(base) + index
        _immediate_word(cpu)
        cpu.push(cpu.pc)
        cpu.pc = target

    @machine.instruction("MARK o", source=f"{HANDBOOK}, chapter 4, MARK")
    def mark(cpu: Pdp11, number: Word) -> None:
        """SP := PC + 2 o; PC := R5; R5 is popped."""
        stack = cpu.pc + (number.zero_extend(16) << 1)
        five = Word(3, 5)
        cpu.pc = cpu.register(five)
        cpu.set_register(five, cpu.load(stack))
        cpu.sp = stack + 2
