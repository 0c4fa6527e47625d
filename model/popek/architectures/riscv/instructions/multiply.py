"""Samples of the M extension (unprivileged manual, "M")."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.words import Word, ite

from ..counters import UNPRIVILEGED
from ..state import XLEN, Rv64
from .integer import Operation, narrow

SOURCE = f'{UNPRIVILEGED}, "M" Extension'


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
    "MULHU": lambda a, b: (a.zero_extend(2 * XLEN) * b.zero_extend(2 * XLEN))[2 * XLEN - 1 : XLEN],
    "DIV": lambda a, b: _signed("DIV", a, b),
    "DIVU": lambda a, b: a // b,
    "REM": lambda a, b: _signed("REM", a, b),
    "REMU": lambda a, b: a % b,
    "MULW": lambda a, b: narrow(lambda x, y: x * y, a, b),
}


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""

    def multiply(cpu: Rv64, rd: Word, rs1: Word, rs2: Word, operation: Operation) -> None:
        """rd := rs1 op rs2."""
        cpu.write_x(rd, operation(cpu.read_x(rs1), cpu.read_x(rs2)))

    for name, operation in MULTIPLY.items():
        machine.instruction(f"{name} rd, rs1, rs2", source=SOURCE, operation=operation)(multiply)
