"""Fixed-point and logical instructions on registers and words that `general` has not: one function per group
of the manual (GA22-7000, "General Instructions")."""

from __future__ import annotations

from typing import TypeVar

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.words import FALSE, Word, concat, ite

from . import interruptions as program
from .general import SOURCE, add_signed, compared, sign
from .operands import declare
from .state import Address, Cpu

C = TypeVar("C", bound=Cpu)


def declare_arithmetic(machine: Machine[C]) -> None:
    """Signs, halfwords, logical sums, multiplication and division, shifts, logic, loops."""
    _signs(machine)
    _halfwords(machine)
    _logical_sums(machine)
    _multiplication(machine)
    _division(machine)
    _conversion(machine)
    _shifts(machine)
    _logic(machine)
    _loops(machine)


def even(register: Word) -> None:
    """A pair of registers begins with an even one."""
    if register[0]:
        raise program.exception(program.SPECIFICATION)


def pair(cpu: Cpu, register: Word) -> Word:
    """A register and the next, as one word."""
    return concat(cpu.gr[register], cpu.gr[register + 1])


def set_pair(cpu: Cpu, register: Word, value: Word) -> None:
    """A register and the next := one word."""
    cpu.gr[register], cpu.gr[register + 1] = value[63:32], value[31:0]


def _overflow(cpu: Cpu, overflow: Word) -> None:
    """The interruption that the program mask asks for; the operation is complete."""
    if overflow & cpu.psw.program_mask[3]:
        raise program.exception(program.FIXED_POINT_OVERFLOW)


def _signs(machine: Machine[C]) -> None:
    @declare(machine, "LCR R1,R2", source=SOURCE, kind="complement")
    @declare(machine, "LPR R1,R2", source=SOURCE, kind="positive")
    @declare(machine, "LNR R1,R2", source=SOURCE, kind="negative")
    def load_with_sign(cpu: C, r1: Word, r2: Word, kind: str) -> None:
        """R1 := R2 with its sign turned, positive or negative; the most negative number has no opposite."""
        value = cpu.gr[r2]
        negated = -value
        choice = {"complement": negated, "positive": ite(value[31], negated, value)}
        result = choice.get(kind, ite(value[31], value, negated))
        overflow = FALSE if kind == "negative" else value == 0x80000000
        cpu.gr[r1] = result
        cpu.psw.cc = ite(overflow, Word(2, 3), sign(result))
        _overflow(cpu, overflow)


def _halfwords(machine: Machine[C]) -> None:
    @declare(machine, "AH R1,D2(X2,B2)", source=SOURCE, subtract=False)
    @declare(machine, "SH R1,D2(X2,B2)", source=SOURCE, subtract=True)
    def add_halfword(cpu: C, r1: Word, second: Address, subtract: bool) -> None:
        """R1 := R1 plus, or minus, the halfword."""
        add_signed(cpu, r1, cpu.fetch(second, 2).sign_extend(32), subtract=subtract)

    @declare(machine, "CH R1,D2(X2,B2)", source=SOURCE)
    def compare_halfword(cpu: C, r1: Word, second: Address) -> None:
        """Condition code := R1 compared with the halfword."""
        first, other = cpu.gr[r1], cpu.fetch(second, 2).sign_extend(32)
        cpu.psw.cc = compared(first.signed_lt(other), first == other)

    @declare(machine, "CR R1,R2", source=SOURCE, signed=True)
    @declare(machine, "CLR R1,R2", source=SOURCE, signed=False)
    def compare_register(cpu: C, r1: Word, r2: Word, signed: bool) -> None:
        """Condition code := R1 compared with R2."""
        first, other = cpu.gr[r1], cpu.gr[r2]
        cpu.psw.cc = compared(first.signed_lt(other) if signed else first < other, first == other)


def _logical_sums(machine: Machine[C]) -> None:
    def logical(cpu: Cpu, r1: Word, other: Word, subtract: bool) -> None:
        addend = ~other if subtract else other
        wide = cpu.gr[r1].zero_extend(33) + addend.zero_extend(33) + int(subtract)
        cpu.gr[r1] = wide[31:0]
        cpu.psw.cc = concat(wide[32], wide[31:0] != 0)

    @declare(machine, "ALR R1,R2", source=SOURCE, subtract=False)
    @declare(machine, "SLR R1,R2", source=SOURCE, subtract=True)
    def add_logical_register(cpu: C, r1: Word, r2: Word, subtract: bool) -> None:
        """R1 := R1 + R2, or minus; condition code by carry and zero."""
        logical(cpu, r1, cpu.gr[r2], subtract)

    @declare(machine, "AL R1,D2(X2,B2)", source=SOURCE, subtract=False)
    @declare(machine, "SL R1,D2(X2,B2)", source=SOURCE, subtract=True)
    def add_logical(cpu: C, r1: Word, second: Address, subtract: bool) -> None:
        """R1 := R1 plus, or minus, the word; condition code by carry and zero."""
        logical(cpu, r1, cpu.fetch(second, 4), subtract)


@opaque(64, 32, 32)
def _product(a: Word, b: Word) -> Word:
    return a.sign_extend(64) * b.sign_extend(64)


@opaque(64, 64, 32)
def _quotient(dividend: Word, divisor: Word) -> Word:
    """The low halves of remainder and quotient, without signs; the divisor is not 0."""
    below = divisor.zero_extend(64)
    return concat((dividend % below)[31:0], (dividend // below)[31:0])


def _multiplication(machine: Machine[C]) -> None:
    def product(cpu: Cpu, r1: Word, other: Word) -> None:
        set_pair(cpu, r1, _product(cpu.gr[r1 + 1], other))

    @declare(machine, "MR R1,R2", source=SOURCE)
    def multiply_register(cpu: C, r1: Word, r2: Word) -> None:
        """The pair R1 := the register after R1 times R2."""
        even(r1)
        product(cpu, r1, cpu.gr[r2])

    @declare(machine, "M R1,D2(X2,B2)", source=SOURCE)
    def multiply(cpu: C, r1: Word, second: Address) -> None:
        """The pair R1 := the register after R1 times the word."""
        even(r1)
        product(cpu, r1, cpu.fetch(second, 4))

    @declare(machine, "MH R1,D2(X2,B2)", source=SOURCE)
    def multiply_halfword(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the right half of R1 times the halfword."""
        cpu.gr[r1] = _product(cpu.gr[r1], cpu.fetch(second, 2).sign_extend(32))[31:0]


def _division(machine: Machine[C]) -> None:
    def quotient(cpu: Cpu, r1: Word, divisor: Word) -> None:
        dividend = pair(cpu, r1)
        negative = dividend[63] ^ divisor[31]
        above = ite(dividend[63], -dividend, dividend)
        below = ite(divisor[31], -divisor, divisor)
        # Whether the quotient has 32 bits is told without dividing: |dividend| >= limit * |divisor|.
        wide = below.zero_extend(65)
        limit = (wide << 31) + ite(negative, wide, Word(65, 0))
        if (divisor == 0) | (above.zero_extend(65) >= limit):
            raise program.exception(program.FIXED_POINT_DIVIDE)
        found = _quotient(above, below)
        rest, whole = found[63:32], found[31:0]
        cpu.gr[r1] = ite(dividend[63], -rest, rest)
        cpu.gr[r1 + 1] = ite(negative, -whole, whole)

    @declare(machine, "DR R1,R2", source=SOURCE)
    def divide_register(cpu: C, r1: Word, r2: Word) -> None:
        """R1 := remainder, the next register := quotient of the pair R1 by R2."""
        even(r1)
        quotient(cpu, r1, cpu.gr[r2])

    @declare(machine, "D R1,D2(X2,B2)", source=SOURCE)
    def divide(cpu: C, r1: Word, second: Address) -> None:
        """R1 := remainder, the next register := quotient of the pair R1 by the word."""
        even(r1)
        quotient(cpu, r1, cpu.fetch(second, 4))


DIGITS = 15  # of a packed doubleword, beside the sign


@opaque(50, 4 * DIGITS)
def _number(digits: Word) -> Word:
    """What decimal digits make."""
    total = Word(50, 0)
    for low in range(4 * DIGITS - 4, -1, -4):
        total = total * 10 + digits[low + 3 : low].zero_extend(50)
    return total


@opaque(40, 32)
def _digits(number: Word) -> Word:
    """The ten decimal digits of a number."""
    found = []
    for _ in range(10):
        found.append((number % 10)[3:0])
        number = number // 10
    return concat(*reversed(found))


def _conversion(machine: Machine[C]) -> None:
    @declare(machine, "CVB R1,D2(X2,B2)", source=SOURCE)
    def convert_to_binary(cpu: C, r1: Word, second: Address) -> None:
        """R1 := the packed doubleword as a number, its last 32 bits where that needs more."""
        packed = cpu.fetch(second, 8)
        digits, sign_code = packed[63:4], packed[3:0]
        wrong = sign_code < 10
        for low in range(0, 4 * DIGITS, 4):
            wrong = wrong | (digits[low + 3 : low] > 9)
        if wrong:
            raise program.exception(program.DATA)
        magnitude, negative = _number(digits), sign_code.isin((0xB, 0xD))
        cpu.gr[r1] = ite(negative, -magnitude, magnitude)[31:0]
        if magnitude > ite(negative, Word(50, 0x80000000), Word(50, 0x7FFFFFFF)):
            raise program.exception(program.FIXED_POINT_DIVIDE)

    @declare(machine, "CVD R1,D2(X2,B2)", source=SOURCE)
    def convert_to_decimal(cpu: C, r1: Word, second: Address) -> None:
        """The doubleword := R1 in packed decimal form."""
        value = cpu.gr[r1]
        negative = value[31]
        code = ite(cpu.ascii_codes, Word(4, 0xA), Word(4, 0xC)) | negative.zero_extend(4)
        cpu.store(second, concat(Word(20, 0), _digits(ite(negative, -value, value)), code))


def _amount(cpu: Cpu, second: Address, width: int) -> Word:
    """The low six bits of an address, as wide as what is shifted."""
    return cpu.effective(second)[5:0].zero_extend(width)


def _shifted_left(value: Word, by: Word) -> tuple[Word, Word]:
    """A signed number shifted left, its sign kept, and whether a bit unlike the sign went out."""
    width = value.width
    negative = value[width - 1]
    digits = value[width - 2 : 0].zero_extend(width + 63)
    wide = digits << by.resize(width + 63)
    # Of a negative number the zeros count, those that came in from the right and went out again, too.
    zeros = ((~digits & ((1 << width - 1) - 1)) + 1 << by.resize(width + 63)) - 1
    out = ite(negative, zeros, wide)
    return concat(negative, wide[width - 2 : 0]), out[width + 62 : width - 1] != 0


def _shifts(machine: Machine[C]) -> None:
    @declare(machine, "SLL R1,D2(B2)", source=SOURCE, left=True)
    @declare(machine, "SRL R1,D2(B2)", source=SOURCE, left=False)
    def shift_single_logical(cpu: C, r1: Word, second: Address, left: bool) -> None:
        """R1 shifted; zeros come in."""
        by = _amount(cpu, second, 32)
        cpu.gr[r1] = cpu.gr[r1] << by if left else cpu.gr[r1] >> by

    @declare(machine, "SLDL R1,D2(B2)", source=SOURCE, left=True)
    @declare(machine, "SRDL R1,D2(B2)", source=SOURCE, left=False)
    def shift_double_logical(cpu: C, r1: Word, second: Address, left: bool) -> None:
        """The pair R1 shifted; zeros come in."""
        even(r1)
        by, value = _amount(cpu, second, 64), pair(cpu, r1)
        set_pair(cpu, r1, value << by if left else value >> by)

    @declare(machine, "SLA R1,D2(B2)", source=SOURCE, double=False)
    @declare(machine, "SLDA R1,D2(B2)", source=SOURCE, double=True)
    def shift_left(cpu: C, r1: Word, second: Address, double: bool) -> None:
        """R1, or the pair, shifted as a signed number; condition code by the result, or overflow."""
        if double:
            even(r1)
        value = pair(cpu, r1) if double else cpu.gr[r1]
        result, overflow = _shifted_left(value, _amount(cpu, second, value.width))
        if double:
            set_pair(cpu, r1, result)
        else:
            cpu.gr[r1] = result
        cpu.psw.cc = ite(overflow, Word(2, 3), sign(result))
        _overflow(cpu, overflow)

    @declare(machine, "SRA R1,D2(B2)", source=SOURCE, double=False)
    @declare(machine, "SRDA R1,D2(B2)", source=SOURCE, double=True)
    def shift_right(cpu: C, r1: Word, second: Address, double: bool) -> None:
        """R1, or the pair, shifted as a signed number; condition code by the result."""
        if double:
            even(r1)
        value = pair(cpu, r1) if double else cpu.gr[r1]
        result = value.arithmetic_shift_right(_amount(cpu, second, value.width))
        if double:
            set_pair(cpu, r1, result)
        else:
            cpu.gr[r1] = result
        cpu.psw.cc = sign(result)


def combined(kind: str, first: Word, second: Word) -> Word:
    """AND, OR or exclusive OR, by the letter of the mnemonic."""
    return {"N": first & second, "O": first | second, "X": first ^ second}[kind]


def _logic(machine: Machine[C]) -> None:
    @declare(machine, "NR R1,R2", source=SOURCE, kind="N")
    @declare(machine, "OR R1,R2", source=SOURCE, kind="O")
    def combine_registers(cpu: C, r1: Word, r2: Word, kind: str) -> None:
        """R1 := R1 and (or) R2."""
        cpu.gr[r1] = combined(kind, cpu.gr[r1], cpu.gr[r2])
        cpu.psw.cc = (cpu.gr[r1] != 0).zero_extend(2)

    @declare(machine, "N R1,D2(X2,B2)", source=SOURCE, kind="N")
    @declare(machine, "O R1,D2(X2,B2)", source=SOURCE, kind="O")
    @declare(machine, "X R1,D2(X2,B2)", source=SOURCE, kind="X")
    def combine(cpu: C, r1: Word, second: Address, kind: str) -> None:
        """R1 := R1 and (or, exclusive or) the word."""
        cpu.gr[r1] = combined(kind, cpu.gr[r1], cpu.fetch(second, 4))
        cpu.psw.cc = (cpu.gr[r1] != 0).zero_extend(2)


def _loops(machine: Machine[C]) -> None:
    @declare(machine, "BXH R1,R3,D2(B2)", source=SOURCE, high=True)
    @declare(machine, "BXLE R1,R3,D2(B2)", source=SOURCE, high=False)
    def branch_on_index(cpu: C, r1: Word, r3: Word, second: Address, high: bool) -> None:
        """R1 := R1 + R3; branch if it is high (low or equal), compared with the odd register of R3's pair."""
        target, bound = cpu.effective(second), cpu.gr[r3 | 1]
        total = cpu.gr[r1] + cpu.gr[r3]
        cpu.gr[r1] = total
        above = bound.signed_lt(total)
        cpu.psw.address = ite(above if high else ~above, target, cpu.psw.address)
