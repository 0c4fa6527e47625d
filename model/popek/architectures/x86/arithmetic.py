"""What arithmetic does to the status flags (SDM vol. 1, "Status Flags"; vol. 2, Operation of each)."""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.words import FALSE, TRUE, Word

from .registers import Eflags
from .state import X86


def _parity(result: Word) -> Word:
    total = TRUE
    for number in range(8):
        total = total ^ result[number]
    return total


def set_status(cpu: X86, result: Word, carry: Word, overflow: Word, auxiliary: Word) -> None:
    """CF PF AF ZF SF OF from a result."""
    cpu.eflags.cf = carry
    cpu.eflags.pf = _parity(result)
    cpu.eflags.af = auxiliary
    cpu.eflags.zf = result == 0
    cpu.eflags.sf = result[result.width - 1]
    cpu.eflags.of = overflow


def add(cpu: X86, a: Word, b: Word) -> Word:
    """The sum, in words of one width; it sets the status flags."""
    wide = a.zero_extend(a.width + 1) + b.zero_extend(a.width + 1)
    total, top = wide.truncate(a.width), a.width - 1
    overflow = (a[top] == b[top]) & (total[top] != a[top])
    set_status(cpu, total, wide[a.width], overflow, (a ^ b ^ total)[4])
    return total


def subtract(cpu: X86, a: Word, b: Word) -> Word:
    """The difference, likewise."""
    total, top = a - b, a.width - 1
    overflow = (a[top] != b[top]) & (total[top] != a[top])
    set_status(cpu, total, a < b, overflow, (a ^ b ^ total)[4])
    return total


def _logical(cpu: X86, result: Word) -> Word:
    set_status(cpu, result, FALSE, FALSE, cpu.undefined("AF", 1))
    return result


OPERATIONS: dict[str, Callable[[X86, Word, Word], Word]] = {
    "ADD": add,
    "SUB": subtract,
    "CMP": subtract,
    "AND": lambda cpu, a, b: _logical(cpu, a & b),
    "OR": lambda cpu, a, b: _logical(cpu, a | b),
    "XOR": lambda cpu, a, b: _logical(cpu, a ^ b),
    "TEST": lambda cpu, a, b: _logical(cpu, a & b),
}


CONDITIONS: dict[str, Callable[[Eflags], Word]] = {
    "JO": lambda f: f.of,
    "JB": lambda f: f.cf,
    "JZ": lambda f: f.zf,
    "JBE": lambda f: f.cf | f.zf,
    "JS": lambda f: f.sf,
    "JP": lambda f: f.pf,
    "JL": lambda f: f.sf ^ f.of,
    "JLE": lambda f: f.zf | (f.sf ^ f.of),
}
"""The conditions of Jcc and its like (width 1); the others are their complements."""
