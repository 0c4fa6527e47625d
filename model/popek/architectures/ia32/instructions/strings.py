"""MOVS STOS LODS CMPS SCAS, and REP before them and before INS and OUTS (SDM vol. 2A and 2B).

With REP an instruction does one iteration at most: while iterations remain EIP stays on the instruction, as
it is when an interrupt comes between two of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from popek.architectures.x86.arithmetic import subtract
from popek.architectures.x86.registers import ES
from popek.kernel.machine import Machine
from popek.kernel.words import Word, ite

from .. import access
from ..access import MemoryOperand
from ..state import (
    EAX,
    ECX,
    EDI,
    ESI,
    Ia32,
)
from . import port_io
from .port_io import move_index

SIZES = ((8, "B"), (16, "W"), (32, "D"))
Body = Callable[[Ia32, Word, int], None]


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    for name, body in BODIES.items():
        segment = " seg" if name in WITH_SOURCE else ""
        for size, letter in SIZES:

            @machine.instruction(
                f"{name}{letter}{segment}", source=f"SDM vol. 2, {name}", mnemonic=name, body=body, size=size
            )
            def once(cpu: Ia32, segment: Word = DS_WORD, *, body: Body, size: int) -> None:
                """One element; ESI and EDI move by its size, as DF says."""
                body(cpu, segment, size)

    for prefix, name, letters, while_equal in REPEATED:
        for size, letter in SIZES:
            if letter not in letters:
                continue
            segment = " seg" if name in WITH_SOURCE else ""

            @machine.instruction(
                f"{prefix} {name}{letter}{segment}",
                source="SDM vol. 2B, REP/REPE/REPZ/REPNE/REPNZ",
                mnemonic=name,
                body=(BODIES | PORTS)[name],
                size=size,
                while_equal=while_equal,
            )
            def repeated(
                cpu: Ia32,
                segment: Word = DS_WORD,
                *,
                body: Body,
                size: int,
                while_equal: bool | None,
            ) -> None:
                """Nothing if ECX is 0; else one element, ECX - 1, and the same again while it is not 0.

                CMPS and SCAS go on only while ZF is as the prefix wants it.  With ECX = 0 INS and OUTS are not executed
                either, so nobody asks whether the port is permitted.
                """
                if cpu.gpr[ECX] == 0:
                    return
                body(cpu, segment, size)
                cpu.gpr[ECX] = cpu.gpr[ECX] - 1
                again = cpu.gpr[ECX] != 0
                if while_equal is not None:
                    again = again & (cpu.eflags.zf if while_equal else ~cpu.eflags.zf)
                cpu.eip = ite(again, cpu.started_at, cpu.eip)


def _source(cpu: Ia32, segment: Word, size: int) -> Word:
    return access.load(cpu, MemoryOperand(segment, cpu.gpr[ESI]), size // 8)


def _target(cpu: Ia32) -> MemoryOperand:
    return MemoryOperand(Word(3, ES), cpu.gpr[EDI])


def _movs(cpu: Ia32, segment: Word, size: int) -> None:
    access.store(cpu, _target(cpu), _source(cpu, segment, size))
    move_index(cpu, ESI, size)
    move_index(cpu, EDI, size)


def _stos(cpu: Ia32, segment: Word, size: int) -> None:
    access.store(cpu, _target(cpu), cpu.read_register(EAX, size))
    move_index(cpu, EDI, size)


def _lods(cpu: Ia32, segment: Word, size: int) -> None:
    cpu.write_register(EAX, _source(cpu, segment, size))
    move_index(cpu, ESI, size)


def _cmps(cpu: Ia32, segment: Word, size: int) -> None:
    first = _source(cpu, segment, size)
    subtract(cpu, first, access.load(cpu, _target(cpu), size // 8))
    move_index(cpu, ESI, size)
    move_index(cpu, EDI, size)


def _scas(cpu: Ia32, segment: Word, size: int) -> None:
    subtract(cpu, cpu.read_register(EAX, size), access.load(cpu, _target(cpu), size // 8))
    move_index(cpu, EDI, size)


DS_WORD = Word(3, 3)
BODIES: dict[str, Body] = {"MOVS": _movs, "STOS": _stos, "LODS": _lods, "CMPS": _cmps, "SCAS": _scas}
PORTS: dict[str, Body] = {
    "INS": functools.partial(port_io.input_string, repeated=True),
    "OUTS": functools.partial(port_io.output_string, repeated=True),
}
WITH_SOURCE = ("MOVS", "LODS", "CMPS", "OUTS")
REPEATED = (
    ("REP", "INS", "BWD", None),
    ("REP", "OUTS", "BWD", None),
    ("REP", "MOVS", "BD", None),
    ("REP", "STOS", "BD", None),
    ("REPE", "CMPS", "B", True),
    ("REPNE", "SCAS", "B", False),
)
