"""Samples of the M extension (unprivileged manual, "M")."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

from ..counters import UNPRIVILEGED
from ..exceptions import ILLEGAL
from ..state import Rv64
from .integer import Operation, computed, narrow, needs_64

SOURCE = f'{UNPRIVILEGED}, "M" Extension'


def _high(a: Word, b: Word) -> Word:
    """The upper half of a product without signs."""
    width = a.width
    return (a.zero_extend(2 * width) * b.zero_extend(2 * width))[2 * width - 1 : width]


def needs_m(cpu: Rv64) -> None:
    """Illegal without M."""
    if ~cpu.misa.m:
        raise Fault(ILLEGAL)


def _signed(operation: str, a: Word, b: Word) -> Word:
    """Quotient towards zero, or the remainder with the dividend's sign; x / 0 is all ones, x % 0 is x."""
    minus_a, minus_b = a.signed_lt(0), b.signed_lt(0)
    size_a, size_b = ite(minus_a, -a, a), ite(minus_b, -b, b)
    if operation == "REM":
        rest = size_a % size_b
        return ite(minus_a, -rest, rest)
    quotient = size_a // size_b
    return ite(b == 0, ~(a ^ a), ite(minus_a ^ minus_b, -quotient, quotient))


MULTIPLY: dict[str, Operation] = {
    "MUL": lambda a, b: a * b,
    "MULHU": lambda a, b: _high(a, b),
    "DIV": lambda a, b: _signed("DIV", a, b),
    "DIVU": lambda a, b: a // b,
    "REM": lambda a, b: _signed("REM", a, b),
    "REMU": lambda a, b: a % b,
}


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""

    def multiply(cpu: Rv64, rd: Word, rs1: Word, rs2: Word, operation: Operation) -> None:
        """rd := rs1 op rs2."""
        needs_m(cpu)
        cpu.write_x(rd, computed(cpu, operation, cpu.read_x(rs1), cpu.read_x(rs2)))

    @machine.instruction("MULW rd, rs1, rs2", source=SOURCE)
    def mulw(cpu: Rv64, rd: Word, rs1: Word, rs2: Word) -> None:
        """rd := rs1 * rs2, on the low halves."""
        needs_m(cpu)
        needs_64(cpu)
        cpu.write_x(rd, narrow(MULTIPLY["MUL"], cpu.read_x(rs1), cpu.read_x(rs2)))

    for name, operation in MULTIPLY.items():
        machine.instruction(f"{name} rd, rs1, rs2", source=SOURCE, operation=operation)(multiply)
