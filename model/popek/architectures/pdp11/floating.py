"""PDP-11/45: the floating point processor FP11 (handbook, chapter 7), as one family.

Status, accumulators, loads, stores, signs and the division by zero are exact.  What arithmetic makes of its
operands is a function that the state holds as a table, `floating`, of which nothing is known but that it is the same
whoever asks: a result, condition codes, and whether it overflows or underflows.  Which of these trap is exact again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .state import FLOATING_TRAP, FPS_BITS, HANDBOOK, Pdp11

SOURCE: Final = f"{HANDBOOK}, chapter 7"
DIVIDE_BY_ZERO, OVERFLOW, UNDERFLOW, UNDEFINED = 4, 8, 10, 12
# Mnemonic: number in the table, and whether the result goes to the accumulator.
ARITHMETIC: Final = {
    "MULF": (0, True), "ADDF": (1, True), "SUBF": (2, True), "DIVF": (3, True), "CMPF": (4, False),
}  # fmt: skip


def add(machine: Machine[Pdp11]) -> None:
    """Declare them."""
    _status(machine)
    _signs(machine)
    _transfers(machine)
    _arithmetic(machine)


def _status(machine: Machine[Pdp11]) -> None:
    @machine.instruction("LDFPS R", source=SOURCE)
    def load_status(cpu: Pdp11, src: Word) -> None:
        """FPS := register."""
        cpu.fps.value = cpu.register(src) & FPS_BITS

    @machine.instruction("STFPS R", source=SOURCE)
    def store_status(cpu: Pdp11, dst: Word) -> None:
        """Register := FPS."""
        cpu.set_register(dst, cpu.fps.value)

    @machine.instruction("STST R", source=SOURCE)
    def store_exception(cpu: Pdp11, dst: Word) -> None:
        """Register := code of the last exception."""
        cpu.set_register(dst, cpu.fec.zero_extend(16))

    @machine.instruction("CFCC", source=SOURCE)
    def copyset_codes(cpu: Pdp11) -> None:
        """The condition codes := those of FPS."""
        cpu.ps.value = cpu.ps.value.replace(3, 0, cpu.fps.value[3:0])

    def switch(cpu: Pdp11, bit: int, on: bool) -> None:
        """Single or double precision; short or long integers."""
        cpu.fps.value = cpu.fps.value.replace(bit, bit, Word(1, int(on)))

    for name, bit, on in (("SETF", 7, False), ("SETD", 7, True), ("SETI", 6, False), ("SETL", 6, True)):
        machine.instruction(name, source=SOURCE, bit=bit, on=on)(switch)


def set_codes(cpu: Pdp11, value: Word, overflow: Word = FALSE) -> None:
    """N and Z by sign and exponent, V as told; C := 0."""
    cpu.fps.value = cpu.fps.value.replace(3, 0, concat(value[63], value[62:55] == 0, overflow, FALSE))


def put(cpu: Pdp11, number: Word, value: Word) -> None:
    """An accumulator := a number; in single precision its right half stays."""
    old = cpu.fac[number]
    cpu.fac[number] = ite(cpu.fps.double, value, concat(value[63:32], old[31:0]))


def operand(cpu: Pdp11, number: Word) -> Word:
    """An accumulator as an operand: in single precision its left half."""
    value = cpu.fac[number]
    return ite(cpu.fps.double, value, concat(value[63:32], Word(32, 0)))


def note(cpu: Pdp11, code: Word, when: Word) -> None:
    """Note an exception, whose code has 4 bits, where there is one."""
    cpu.fps.error = cpu.fps.error | when
    cpu.fec, cpu.fea = ite(when, code, cpu.fec), ite(when, cpu.pc - 2, cpu.fea)


def raise_noted(cpu: Pdp11, when: Word) -> None:
    """Trap, at the end of the instruction, for what was noted, unless FPS says not to."""
    if when & ~cpu.fps.disabled:
        raise Fault(FLOATING_TRAP, keeps=True)


def _signs(machine: Machine[Pdp11]) -> None:
    def change(cpu: Pdp11, number: Word, made: Callable[[Word], Word]) -> None:
        """The accumulator := what the mnemonic makes of it; what has exponent 0 becomes 0."""
        old = operand(cpu, number)
        result = ite(old[62:55] == 0, Word(64, 0), made(old))
        put(cpu, number, result)
        set_codes(cpu, result)

    kinds: dict[str, Callable[[Word], Word]] = {
        "CLRF": lambda old: Word(64, 0),
        "ABSF": lambda old: old.replace(63, 63, 0),
        "NEGF": lambda old: old.replace(63, 63, ~old[63]),
    }
    for name, made in kinds.items():
        machine.instruction(f"{name} FS", source=SOURCE, made=made)(change)

    @machine.instruction("TSTF FS", source=SOURCE)
    def test(cpu: Pdp11, number: Word) -> None:
        """Condition codes of FPS by the accumulator."""
        set_codes(cpu, operand(cpu, number))


def load_words(cpu: Pdp11, address: Word, double: Word) -> Word:
    """A number of two words, or of four, as 64 bits."""
    words = [cpu.load(address), cpu.load(address + 2), Word(16, 0), Word(16, 0)]
    if double:
        words[2:] = [cpu.load(address + 4), cpu.load(address + 6)]
    return concat(*words)


def store_words(cpu: Pdp11, address: Word, value: Word, double: Word) -> None:
    """Two words, or four := a number of 64 bits."""
    cpu.store(address, value[63:48])
    cpu.store(address + 2, value[47:32])
    if double:
        cpu.store(address + 4, value[31:16])
        cpu.store(address + 6, value[15:0])


def _transfers(machine: Machine[Pdp11]) -> None:
    @machine.instruction("LDF FS, AC", source=SOURCE)
    def load_register(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Accumulator to accumulator."""
        value = operand(cpu, src)
        put(cpu, dst.zero_extend(3), value)
        set_codes(cpu, value)

    @machine.instruction("LDF (R), AC", source=SOURCE)
    def load(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Two words, or four in double precision, to an accumulator; -0 is undefined and may trap."""
        value = load_words(cpu, cpu.register(src), cpu.fps.double)
        if value[63] & (value[62:55] == 0) & cpu.fps.undefined_enabled:
            note(cpu, Word(4, UNDEFINED), TRUE)
            raise_noted(cpu, TRUE)
            return  # nothing is loaded, whether it traps or not
        put(cpu, dst.zero_extend(3), value)
        set_codes(cpu, value)

    @machine.instruction("STF AC, FS", source=SOURCE)
    def store_register(cpu: Pdp11, src: Word, dst: Word) -> None:
        """Accumulator to accumulator."""
        put(cpu, dst, operand(cpu, src.zero_extend(3)))

    @machine.instruction("STF AC, (R)", source=SOURCE)
    def store(cpu: Pdp11, src: Word, dst: Word) -> None:
        """An accumulator to two words, or to four in double precision."""
        store_words(cpu, cpu.register(dst), cpu.fac[src.zero_extend(3)], cpu.fps.double)


def looked_up(cpu: Pdp11, number: int, accumulator: Word, other: Word) -> Word:
    """What the table says of an operation: exception code, condition codes, result."""
    return cpu.floating.load(concat(Word(3, number), cpu.fps.double, accumulator, other))


def _arithmetic(machine: Machine[Pdp11]) -> None:
    def operate(cpu: Pdp11, src: Word, dst: Word, number: int, writes: bool) -> None:
        """The accumulator and the condition codes := what the table says of it and the other; an exception, too."""
        target, fps = dst.zero_extend(3), cpu.fps
        found = looked_up(cpu, number, operand(cpu, target), operand(cpu, src))
        by_zero = operand(cpu, src)[62:55] == 0 if number == ARITHMETIC["DIVF"][0] else FALSE
        if writes:
            put(cpu, target, ite(by_zero, operand(cpu, target), found[63:0]))
        fps.value = fps.value.replace(3, 0, found[67:64])
        code = ite(by_zero, Word(4, DIVIDE_BY_ZERO), found[71:68])
        over, under = (code == OVERFLOW) & fps.overflow_enabled, (code == UNDERFLOW) & fps.underflow_enabled
        wrong = by_zero | over | under
        note(cpu, code, wrong)
        raise_noted(cpu, wrong)

    for name, (number, writes) in ARITHMETIC.items():
        machine.instruction(f"{name} FS, AC", source=SOURCE, number=number, writes=writes)(operate)
