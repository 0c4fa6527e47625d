"""General instructions that both machines have (GA22-7000, "General Instructions")."""

from __future__ import annotations

from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .operands import declare
from .state import Address, Cpu

C = TypeVar("C", bound=Cpu)

SOURCE: Final = "GA22-7000, General Instructions"
SAVE: Final = "GA22-7000, Branch-and-Save Facility; A27-2719 for the Model 67"


def declare_general(machine: Machine[C]) -> None:
    """The unprivileged instructions of System/360 that are modelled."""
    _branching(machine)
    _loads_and_stores(machine)
    _arithmetic(machine)
    _bytes(machine)


def link(cpu: Cpu) -> Word:
    """ILC, condition code, program mask, updated instruction address: the same in every mode."""
    return concat(cpu.ilc, cpu.psw.cc, cpu.psw.program_mask, cpu.psw.address)


def branch_target(cpu: Cpu, register: Word) -> Word:
    """The branch address of an RR instruction; R2 = 0 does not branch."""
    return ite(register == 0, cpu.psw.address, cpu.gr[register].truncate(24))


def _branching(machine: Machine[C]) -> None:
    @declare(machine, "SPM R1", source=SOURCE)
    def set_program_mask(cpu: C, r1: Word) -> None:
        """Condition code and program mask := bits 2-7 of R1."""
        cpu.psw.cc, cpu.psw.program_mask = cpu.gr[r1][29:28], cpu.gr[r1][27:24]

    @declare(machine, "BALR R1,R2", source=SOURCE)
    def branch_and_link_register(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := link information; branch to R2 unless R2 is 0."""
        target = branch_target(cpu, r2)
        cpu.gr[r1] = link(cpu)
        cpu.psw.address = target

    @declare(machine, "BAL R1,D2(X2,B2)", source=SOURCE)
    def branch_and_link(cpu: C, r1: Word, second: Address) -> None:
        """R1 := link information; branch."""
        target = cpu.effective(second)
        cpu.gr[r1] = link(cpu)
        cpu.psw.address = target

    @declare(machine, "BCTR R1,R2", source=SOURCE)
    def branch_on_count_register(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := R1 - 1; branch to R2 unless that gives 0 or R2 is 0."""
        target = branch_target(cpu, r2)
        cpu.gr[r1] = cpu.gr[r1] - 1
        cpu.psw.address = ite(cpu.gr[r1] == 0, cpu.psw.address, target)

    @declare(machine, "BCT R1,D2(X2,B2)", source=SOURCE)
    def branch_on_count(cpu: C, r1: Word, second: Address) -> None:
        """R1 := R1 - 1; branch unless that gives 0."""
        target = cpu.effective(second)
        cpu.gr[r1] = cpu.gr[r1] - 1
        cpu.psw.address = ite(cpu.gr[r1] == 0, cpu.psw.address, target)

    @declare(machine, "BCR M1,R2", source=SOURCE)
    def branch_on_condition_register(cpu: C, m1: Word, r2: Word) -> None:
        """Branch to R2 where the mask selects the condition code and R2 is not 0."""
        cpu.psw.address = ite(_selected(cpu, m1), branch_target(cpu, r2), cpu.psw.address)

    @declare(machine, "BC M1,D2(X2,B2)", source=SOURCE)
    def branch_on_condition(cpu: C, m1: Word, second: Address) -> None:
        """Branch where the mask selects the condition code."""
        cpu.psw.address = ite(_selected(cpu, m1), cpu.effective(second), cpu.psw.address)

    @declare(machine, "BASR R1,R2", source=SAVE)
    def branch_and_save_register(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := the updated instruction address; branch to R2 unless R2 is 0."""
        target = branch_target(cpu, r2)
        cpu.gr[r1] = cpu.psw.address.zero_extend(32)
        cpu.psw.address = target

    @declare(machine, "BAS R1,D2(X2,B2)", source=SAVE)
    def branch_and_save(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the updated instruction address; branch."""
        target = cpu.effective(second)
        cpu.gr[r1] = cpu.psw.address.zero_extend(32)
        cpu.psw.address = target

    @declare(machine, "SVC I", source=SOURCE)
    def supervisor_call(cpu: C, code: Word) -> None:
        """The supervisor-call interruption, in either state."""
        raise Fault(program.SUPERVISOR_CALL, code, keeps=True)


def _selected(cpu: Cpu, mask: Word) -> Word:
    cc = cpu.psw.cc
    return ite(cc[1], ite(cc[0], mask[0], mask[1]), ite(cc[0], mask[2], mask[3]))


def _loads_and_stores(machine: Machine[C]) -> None:
    @declare(machine, "LR R1,R2", source=SOURCE)
    def load_register(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := R2."""
        cpu.gr[r1] = cpu.gr[r2]

    @declare(machine, "LTR R1,R2", source=SOURCE)
    def load_and_test(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := R2; condition code by its sign."""
        cpu.gr[r1] = cpu.gr[r2]
        cpu.psw.cc = sign(cpu.gr[r1])

    @declare(machine, "LA R1,D2(X2,B2)", source=SOURCE)
    def load_address(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the address, which is neither translated nor checked."""
        cpu.gr[r1] = cpu.effective(second).zero_extend(32)

    @declare(machine, "L R1,D2(X2,B2)", source=SOURCE)
    def load(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the word."""
        cpu.gr[r1] = cpu.fetch(second, 4)

    @declare(machine, "LH R1,D2(X2,B2)", source=SOURCE)
    def load_halfword(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the halfword, with its sign."""
        cpu.gr[r1] = cpu.fetch(second, 2).sign_extend(32)

    @declare(machine, "IC R1,D2(X2,B2)", source=SOURCE)
    def insert_character(cpu: C, r1: Word, second: Address) -> None:
        """Bits 24-31 of R1 := the byte."""
        cpu.gr[r1] = cpu.gr[r1].replace(7, 0, cpu.fetch(second, 1))

    @declare(machine, "ST R1,D2(X2,B2)", source=SOURCE)
    def store(cpu: C, r1: Word, second: Address) -> None:
        """The word := R1."""
        cpu.store(second, cpu.gr[r1])

    @declare(machine, "STH R1,D2(X2,B2)", source=SOURCE)
    def store_halfword(cpu: C, r1: Word, second: Address) -> None:
        """The halfword := the right half of R1."""
        cpu.store(second, cpu.gr[r1].truncate(16))

    @declare(machine, "STC R1,D2(X2,B2)", source=SOURCE)
    def store_character(cpu: C, r1: Word, second: Address) -> None:
        """The byte := bits 24-31 of R1."""
        cpu.store(second, cpu.gr[r1].truncate(8))

    for name, count in (("R1,R3=R1", 1), ("R1,R3=R1+1", 2)):

        @declare(machine, f"LM {name},D2(B2)", source=SOURCE, count=count)
        def load_multiple(cpu: C, r1: Word, second: Address, count: int) -> None:
            """R1 through R3 := consecutive words."""
            words = cpu.fetch(second, 4 * count, unit=4)
            for i in range(count):
                low = 32 * (count - 1 - i)
                cpu.gr[r1 + i] = words[low + 31 : low]

        @declare(machine, f"STM {name},D2(B2)", source=SOURCE, count=count)
        def store_multiple(cpu: C, r1: Word, second: Address, count: int) -> None:
            """Consecutive words := R1 through R3."""
            cpu.store(second, concat(*(cpu.gr[r1 + i] for i in range(count))), unit=4)


def sign(result: Word) -> Word:
    """0 zero, 1 less than zero, 2 greater."""
    return ite(result == 0, Word(2, 0), ite(result[result.width - 1], Word(2, 1), Word(2, 2)))


def compared(less: Word, equal: Word) -> Word:
    """0 equal, 1 first operand low, 2 first operand high."""
    return ite(equal, Word(2, 0), ite(less, Word(2, 1), Word(2, 2)))


def add_signed(cpu: Cpu, r1: Word, addend: Word, *, subtract: bool) -> None:
    """R1 := R1 ± addend; on overflow condition code 3 and, if the program mask says so, an interruption."""
    first = cpu.gr[r1]
    result = first - addend if subtract else first + addend
    differ = first[31] ^ addend[31]
    overflow = (differ if subtract else ~differ) & (first[31] ^ result[31])
    cpu.gr[r1] = result
    cpu.psw.cc = ite(overflow, Word(2, 3), sign(result))
    if overflow & cpu.psw.program_mask[3]:
        raise program.exception(program.FIXED_POINT_OVERFLOW)


def _arithmetic(machine: Machine[C]) -> None:
    @declare(machine, "AR R1,R2", source=SOURCE, subtract=False)
    @declare(machine, "SR R1,R2", source=SOURCE, subtract=True)
    def add_register(cpu: C, r1: Word, r2: Word, subtract: bool) -> None:
        """R1 := R1 + R2, or minus."""
        add_signed(cpu, r1, cpu.gr[r2], subtract=subtract)

    @declare(machine, "A R1,D2(X2,B2)", source=SOURCE, subtract=False)
    @declare(machine, "S R1,D2(X2,B2)", source=SOURCE, subtract=True)
    def add(cpu: C, r1: Word, second: Address, subtract: bool) -> None:
        """R1 := R1 plus, or minus, the word."""
        add_signed(cpu, r1, cpu.fetch(second, 4), subtract=subtract)

    @declare(machine, "C R1,D2(X2,B2)", source=SOURCE, signed=True)
    @declare(machine, "CL R1,D2(X2,B2)", source=SOURCE, signed=False)
    def compare(cpu: C, r1: Word, second: Address, signed: bool) -> None:
        """Condition code := R1 compared with the word."""
        first, other = cpu.gr[r1], cpu.fetch(second, 4)
        cpu.psw.cc = compared(first.signed_lt(other) if signed else first < other, first == other)

    @declare(machine, "XR R1,R2", source=SOURCE)
    def exclusive_or(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := R1 xor R2."""
        cpu.gr[r1] = cpu.gr[r1] ^ cpu.gr[r2]
        cpu.psw.cc = (cpu.gr[r1] != 0).zero_extend(2)


def _bytes(machine: Machine[C]) -> None:
    @declare(machine, "TM D1(B1),I2", source=SOURCE)
    def test_under_mask(cpu: C, first: Address, mask: Word) -> None:
        """Condition code := the selected bits: all zeros, mixed, all ones."""
        selected = cpu.fetch(first, 1) & mask
        mixed = ite(selected == mask, Word(2, 3), Word(2, 1))
        cpu.psw.cc = ite(selected == 0, Word(2, 0), mixed)

    @declare(machine, "MVI D1(B1),I2", source=SOURCE)
    def move_immediate(cpu: C, first: Address, value: Word) -> None:
        """The byte := I2."""
        cpu.store(first, value)

    @declare(machine, "NI D1(B1),I2", source=SOURCE, union=False)
    @declare(machine, "OI D1(B1),I2", source=SOURCE, union=True)
    def combine_immediate(cpu: C, first: Address, value: Word, union: bool) -> None:
        """The byte := the byte and (or) I2."""
        (place,) = cpu.locate(cpu.effective(first), 1, store=True)
        old = cpu.load(place)
        new = old | value if union else old & value
        cpu.write((place,), new)
        cpu.psw.cc = (new != 0).zero_extend(2)

    @declare(machine, "CLI D1(B1),I2", source=SOURCE)
    def compare_immediate(cpu: C, first: Address, value: Word) -> None:
        """Condition code := the byte compared with I2."""
        byte = cpu.fetch(first, 1)
        cpu.psw.cc = compared(byte < value, byte == value)

    @declare(machine, "TS D2(B2)", source=SOURCE)
    def test_and_set(cpu: C, second: Address) -> None:
        """Condition code := the leftmost bit; the byte := all ones."""
        (place,) = cpu.locate(cpu.effective(second), 1, store=True)
        cpu.psw.cc = cpu.load(place)[7].zero_extend(2)
        cpu.write((place,), Word(8, 0xFF))

    for size in (1, 2):

        @declare(machine, f"MVC D1({size},B1),D2(B2)", source=SOURCE, size=size)
        def move(cpu: C, first: Address, second: Address, size: int) -> None:
            """The first operand := the second, byte by byte from the left."""
            source = cpu.locate(cpu.effective(second), size, store=False)
            target = cpu.locate(cpu.effective(first), size, store=True)
            for here, there in zip(target, source, strict=True):
                cpu.write((here,), cpu.load(there))

    @declare(machine, "CLC D1(2,B1),D2(B2)", source=SOURCE, size=2)
    def compare_characters(cpu: C, first: Address, second: Address, size: int) -> None:
        """Condition code := the first operand compared with the second."""
        left = cpu.fetch(first, size, unit=1)
        right = cpu.fetch(second, size, unit=1)
        cpu.psw.cc = compared(left < right, left == right)
