"""Samples of the A extension (unprivileged manual, "A"): LR and SC, one read-modify-write of each size."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import FALSE, TRUE, Word, ite

from ..access import STORE, itself, load, permitted, physical, read, write
from ..counters import UNPRIVILEGED
from ..exceptions import ILLEGAL, STORE_ACCESS
from ..state import XLEN, Rv64
from .integer import needs_64

SOURCE = f'{UNPRIVILEGED}, "A" Extension'
SIZES = {"W": 4, "D": 8}


def _place(cpu: Rv64, rs1: Word, size: int) -> Word:
    """The address; illegal without A, and what has 64 bits where the mode has 32."""
    if ~cpu.misa.a:
        raise Fault(ILLEGAL)
    if size == 8:
        needs_64(cpu)
    return cpu.effective(cpu.read_x(rs1))


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""

    def lr(cpu: Rv64, rd: Word, rs1: Word, size: int) -> None:
        """rd := storage, and reserve it."""
        address = _place(cpu, rs1, size)
        value = load(cpu, address, size)
        cpu.reserved, cpu.reservation = TRUE, address.truncate(cpu.reservation.width)
        cpu.write_x(rd, value.sign_extend(XLEN))

    def sc(cpu: Rv64, rd: Word, rs2: Word, rs1: Word, size: int) -> None:
        """If reserved, storage := rs2 and rd := 0; else rd := 1."""
        place = physical(cpu, _place(cpu, rs1, size), size, itself(cpu), STORE)
        value = cpu.read_x(rs2).truncate(8 * size)
        succeeds = cpu.reserved & (cpu.reservation == place)
        write(cpu, place, ite(succeeds, value, read(cpu, place, size)))
        cpu.reserved = FALSE
        cpu.write_x(rd, (~succeeds).zero_extend(XLEN))

    def amo(cpu: Rv64, rd: Word, rs2: Word, rs1: Word, size: int, operation: str) -> None:
        """rd := storage; storage := storage op rs2.  Its faults are a store's."""
        address = _place(cpu, rs1, size)
        place = physical(cpu, address, size, itself(cpu), STORE)
        if ~permitted(cpu, place, size, itself(cpu).prv, "r"):
            raise MemoryFault(STORE_ACCESS, address)
        old, other = read(cpu, place, size), cpu.read_x(rs2).truncate(8 * size)
        write(cpu, place, old + other if operation == "add" else other)
        cpu.write_x(rd, old.sign_extend(XLEN))

    for letter, size in SIZES.items():
        machine.instruction(f"LR.{letter} rd, (rs1)", source=SOURCE, size=size)(lr)
        machine.instruction(f"SC.{letter} rd, rs2, (rs1)", source=SOURCE, size=size)(sc)
        for operation in ("add", "swap"):
            form = f"AMO{operation.upper()}.{letter} rd, rs2, (rs1)"
            machine.instruction(form, source=SOURCE, size=size, operation=operation)(amo)
