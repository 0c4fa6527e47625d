"""IN OUT INS OUTS (SDM vol. 1, "Input/Output"; vol. 3A, "I/O Permission Bit Map").

A port shows what its device holds (`ports`); side effects of reading a device are outside the model.
"""

from __future__ import annotations

from popek.architectures.x86.access import supervisor_load
from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.interception import PortAccess
from popek.architectures.x86.registers import ES
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import MemoryOperand, low_half
from ..state import RAX, RDI, RDX, RSI, X64


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    for size, name in ((8, "AL"), (16, "AX"), (32, "EAX")):

        @machine.instruction(f"IN {name}, imm8", source="SDM vol. 2A, IN", mnemonic="IN", size=size)
        def in_immediate(cpu: X64, port: Word, *, size: int) -> None:
            """Read a port."""
            _input(cpu, port.zero_extend(16), size, immediate=True)

        @machine.instruction(f"IN {name}, DX", source="SDM vol. 2A, IN", mnemonic="IN", size=size)
        def in_dx(cpu: X64, *, size: int) -> None:
            """Read the port that DX names."""
            _input(cpu, cpu.read_register(RDX, 16), size, immediate=False)

        @machine.instruction(f"OUT imm8, {name}", source="SDM vol. 2B, OUT", mnemonic="OUT", size=size)
        def out_immediate(cpu: X64, port: Word, *, size: int) -> None:
            """Write a port."""
            _output(cpu, port.zero_extend(16), size, immediate=True)

        @machine.instruction(f"OUT DX, {name}", source="SDM vol. 2B, OUT", mnemonic="OUT", size=size)
        def out_dx(cpu: X64, *, size: int) -> None:
            """Write the port that DX names."""
            _output(cpu, cpu.read_register(RDX, 16), size, immediate=False)

    for size, letter in ((8, "B"), (16, "W"), (32, "D")):

        @machine.instruction(f"INS{letter}", source="SDM vol. 2A, INS", mnemonic="INS", size=size)
        def ins(cpu: X64, *, size: int) -> None:
            """Port DX to ES:RDI."""
            port = cpu.read_register(RDX, 16)
            check_io_permission(cpu, port, size)
            operand = MemoryOperand(Word(3, ES), cpu.gpr[RDI])
            cpu.interception.port(cpu, PortAccess(port, size, write=False, memory=operand))
            access.store(cpu, operand, _read(cpu, port, size))
            _advance(cpu, RDI, size)

        @machine.instruction(f"OUTS{letter} seg", source="SDM vol. 2B, OUTS", mnemonic="OUTS", size=size)
        def outs(cpu: X64, segment: Word, *, size: int) -> None:
            """Segment:RSI to port DX."""
            port = cpu.read_register(RDX, 16)
            check_io_permission(cpu, port, size)
            operand = MemoryOperand(segment, cpu.gpr[RSI])
            cpu.interception.port(cpu, PortAccess(port, size, write=True, memory=operand))
            value = access.load(cpu, operand, size // 8)
            cpu.ports = cpu.ports.store_little_endian(port, value)
            _advance(cpu, RSI, size)


def check_io_permission(cpu: X64, port: Word, size: int) -> None:
    """CPL <= IOPL, or every bit of the TSS's permission map for these ports is 0.

    Raises:
        Fault: #GP(0), not permitted, or the map does not reach so far.
    """
    if cpu.cpl <= cpu.rflags.iopl:
        return
    limit = cpu.tr.limit
    base = supervisor_load(cpu, cpu.tr.base + 0x66, 2).zero_extend(32)
    where = base + (port >> 3).zero_extend(32)
    bits = supervisor_load(cpu, cpu.tr.base + where.zero_extend(64), 2)  # two bytes even for one port
    window = bits >> concat(Word(13, 0), port[2:0])
    if (limit < 0x67) | (where + 1 > limit) | ((window & ((1 << size // 8) - 1)) != 0):
        raise Fault(GP, 0)


def _read(cpu: X64, port: Word, size: int) -> Word:
    return cpu.ports.load_little_endian(port, size // 8)


def _input(cpu: X64, port: Word, size: int, *, immediate: bool) -> None:
    check_io_permission(cpu, port, size)
    cpu.interception.port(cpu, PortAccess(port, size, write=False, immediate=immediate))
    cpu.write_register(RAX, _read(cpu, port, size))


def _output(cpu: X64, port: Word, size: int, *, immediate: bool) -> None:
    check_io_permission(cpu, port, size)
    cpu.interception.port(cpu, PortAccess(port, size, write=True, immediate=immediate))
    cpu.ports = cpu.ports.store_little_endian(port, cpu.read_register(RAX, size))


def _advance(cpu: X64, index: int, size: int) -> None:
    step = Word(64, size // 8)
    moved = ite(cpu.rflags.df, cpu.gpr[index] - step, cpu.gpr[index] + step)
    cpu.gpr[index] = ite(cpu.long, moved, low_half(moved))
