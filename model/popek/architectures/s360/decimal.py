"""Decimal addition, subtraction and comparison (GA22-7000, "Decimal Instructions").

Two bytes stand for the sixteen: three digits and a sign.  Of a sum a solver is told at first that it is the same where
the operands are (`kernel.opaque`).
"""

from __future__ import annotations

from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .operands import declare
from .state import Address, Cpu

C = TypeVar("C", bound=Cpu)

SOURCE: Final = "GA22-7000, Decimal Instructions"
SIZE: Final = 2
BINARY: Final = 16  # bits in which sums are computed
MOST: Final = 999


@opaque(1, 16)
def wrong(packed: Word) -> Word:
    """Some digit, or the sign, is none (width 1)."""
    found = packed[3:0] < 10
    for low in (4, 8, 12):
        found = found | (packed[low + 3 : low] > 9)
    return found


@opaque(20, 16, 16, 1, 1)
def added(first: Word, second: Word, subtract: Word, ascii_codes: Word) -> Word:
    """Overflow, zero, below zero (each of width 1), 0, and the sum or difference of two packed numbers.

    An overflow loses the first digit of the result and not its sign.
    """
    a, b = _value(first), _value(second)
    total = ite(subtract, a - b, a + b)
    negative = total[BINARY - 1]
    magnitude = ite(negative, -total, total)
    rest, digits = magnitude % (MOST + 1), []
    for _ in range(2 * SIZE - 1):
        digits.append((rest % 10)[3:0])
        rest = rest // 10
    code = ite(ascii_codes, Word(4, 0xA), Word(4, 0xC)) | negative.zero_extend(4)
    facts = concat(magnitude > MOST, total == 0, negative, Word(1, 0))
    return concat(facts, *reversed(digits), code)


def _value(packed: Word) -> Word:
    """The number, signed."""
    total = Word(BINARY, 0)
    for low in (12, 8, 4):
        total = total * 10 + packed[low + 3 : low].zero_extend(BINARY)
    return ite(packed[3:0].isin((0xB, 0xD)), -total, total)


def declare_decimal(machine: Machine[C]) -> None:
    """Add them to a machine."""

    @declare(machine, "AP D1(2,B1),D2(2,B2)", source=SOURCE, size=SIZE, other=SIZE, kind="add")
    @declare(machine, "SP D1(2,B1),D2(2,B2)", source=SOURCE, size=SIZE, other=SIZE, kind="subtract")
    @declare(machine, "ZAP D1(2,B1),D2(2,B2)", source=SOURCE, size=SIZE, other=SIZE, kind="move")
    @declare(machine, "CP D1(2,B1),D2(2,B2)", source=SOURCE, size=SIZE, other=SIZE, kind="compare")
    def decimal(cpu: C, first: Address, second: Address, size: int, other: int, kind: str) -> None:
        """The first operand := itself plus, or minus, the second, or the second; or they are compared."""
        source = cpu.locate(cpu.effective(second), other, store=False)
        target = cpu.locate(cpu.effective(first), size, store=kind != "compare")
        number = cpu.read(source)
        own = cpu.read(target) if kind != "move" else Word(8 * size, 0xC)
        if wrong(number) | (wrong(own) if kind != "move" else Word(1, 0)):
            raise program.exception(program.DATA)
        minus = Word(1, int(kind in ("subtract", "compare")))
        found = added(own, number, minus, cpu.ascii_codes)
        overflow = found[19] if kind != "compare" else Word(1, 0)
        sign = ite(found[18], Word(2, 0), ite(found[17], Word(2, 1), Word(2, 2)))
        cpu.psw.cc = ite(overflow, Word(2, 3), sign)
        if kind != "compare":
            cpu.write(target, found[15:0])
        if overflow & cpu.psw.program_mask[2]:
            raise program.exception(program.DECIMAL_OVERFLOW)


__all__ = ["declare_decimal"]
