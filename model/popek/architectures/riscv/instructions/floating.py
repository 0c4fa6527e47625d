"""Samples of the D extension: what needs FS to be on and makes it dirty (unprivileged manual, "D")."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..access import load, store
from ..counters import UNPRIVILEGED, is_off
from ..exceptions import ILLEGAL
from ..state import XLEN, Rv64
from .integer import needs_64

SOURCE = f'{UNPRIVILEGED}, "D" Extension'


def _needs_floating_point(cpu: Rv64) -> None:
    """Illegal, never virtual, without D, and while FS is off: for a guest its own or HS's."""
    if ~cpu.has_d | is_off(cpu):
        raise Fault(ILLEGAL)


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""

    @machine.instruction("FLD fd, offset(rs1)", source=SOURCE)
    def fld(cpu: Rv64, fd: Word, where: tuple[Word, Word]) -> None:
        """fd := storage."""
        _needs_floating_point(cpu)
        cpu.write_f(fd, load(cpu, _address(cpu, where), 8))

    @machine.instruction("FSD fs2, offset(rs1)", source=SOURCE)
    def fsd(cpu: Rv64, fs2: Word, where: tuple[Word, Word]) -> None:
        """Storage := fs2; FS stays."""
        _needs_floating_point(cpu)
        store(cpu, _address(cpu, where), cpu.read_f(fs2))

    @machine.instruction("FMV.X.D rd, fs1", source=SOURCE)
    def fmv_x_d(cpu: Rv64, rd: Word, fs1: Word) -> None:
        """rd := fs1, bit by bit; FS stays."""
        needs_64(cpu)
        _needs_floating_point(cpu)
        cpu.write_x(rd, cpu.read_f(fs1))

    @machine.instruction("FMV.D.X fd, rs1", source=SOURCE)
    def fmv_d_x(cpu: Rv64, fd: Word, rs1: Word) -> None:
        """fd := rs1, bit by bit."""
        needs_64(cpu)
        _needs_floating_point(cpu)
        cpu.write_f(fd, cpu.read_x(rs1))


def _address(cpu: Rv64, where: tuple[Word, Word]) -> Word:
    offset, base = where
    return cpu.effective(cpu.read_x(base) + offset.sign_extend(XLEN))
