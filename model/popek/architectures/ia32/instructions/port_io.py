"""IN OUT INS OUTS (SDM vol. 1, "Input/Output"; vol. 3A, "I/O Permission Bit Map").

A port shows what its device holds (`ports`); side effects of reading a device are outside the model.
"""

from __future__ import annotations

from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.interception import PortAccess
from popek.architectures.x86.registers import ES
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import MemoryOperand, supervisor_load
from ..state import (
    EAX,
    EDI,
    EDX,
    ESI,
    Ia32,
)


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    for size, name in ((8, "AL"), (16, "AX"), (32, "EAX")):

        @machine.instruction(f"IN {name}, imm8", source="SDM vol. 2A, IN", mnemonic="IN", size=size)
        def in_immediate(cpu: Ia32, port: Word, *, size: int) -> None:
            """Read a port."""
            _input(cpu, port.zero_extend(16), size, immediate=True)

        @machine.instruction(f"IN {name}, DX", source="SDM vol. 2A, IN", mnemonic="IN", size=size)
        def in_dx(cpu: Ia32, *, size: int) -> None:
            """Read the port that DX names."""
            _input(cpu, cpu.gpr[EDX].truncate(16), size)

        @machine.instruction(f"OUT imm8, {name}", source="SDM vol. 2B, OUT", mnemonic="OUT", size=size)
        def out_immediate(cpu: Ia32, port: Word, *, size: int) -> None:
            """Write a port."""
            _output(cpu, port.zero_extend(16), size, immediate=True)

        @machine.instruction(f"OUT DX, {name}", source="SDM vol. 2B, OUT", mnemonic="OUT", size=size)
        def out_dx(cpu: Ia32, *, size: int) -> None:
            """Write the port that DX names."""
            _output(cpu, cpu.gpr[EDX].truncate(16), size)

    for size, letter in ((8, "B"), (16, "W"), (32, "D")):

        @machine.instruction(f"INS{letter}", source="SDM vol. 2A, INS", mnemonic="INS", size=size)
        def ins(cpu: Ia32, *, size: int) -> None:
            """Port DX to ES:EDI."""
            input_string(cpu, Word(3, ES), size)

        @machine.instruction(f"OUTS{letter} seg", source="SDM vol. 2B, OUTS", mnemonic="OUTS", size=size)
        def outs(cpu: Ia32, segment: Word, *, size: int) -> None:
            """Segment:ESI to port DX."""
            output_string(cpu, segment, size)


def input_string(cpu: Ia32, segment: Word, size: int, *, repeated: bool = False) -> None:
    """INS: port DX to ES:EDI, whatever the segment, which has no override; EDI moves on."""
    port = cpu.gpr[EDX].truncate(16)
    check_io_permission(cpu, port, size)
    operand = MemoryOperand(Word(3, ES), cpu.gpr[EDI])
    cpu.interception.port(cpu, PortAccess(port, size, write=False, memory=operand, repeated=repeated))
    access.store(cpu, operand, _read(cpu, port, size))
    move_index(cpu, EDI, size)


def output_string(cpu: Ia32, segment: Word, size: int, *, repeated: bool = False) -> None:
    """OUTS: segment:ESI to port DX; ESI moves on."""
    port = cpu.gpr[EDX].truncate(16)
    check_io_permission(cpu, port, size)
    operand = MemoryOperand(segment, cpu.gpr[ESI])
    cpu.interception.port(cpu, PortAccess(port, size, write=True, memory=operand, repeated=repeated))
    value = access.load(cpu, operand, size // 8)
    _write(cpu, port, value)
    move_index(cpu, ESI, size)


def check_io_permission(cpu: Ia32, port: Word, size: int) -> None:
    """CPL <= IOPL but in virtual-8086 mode, or every bit of the TSS's permission map for these ports is 0.

    Raises:
        Fault: #GP(0), not permitted, or the map does not reach so far, or the TSS is a 16-bit one.
    """
    if (cpu.cpl <= cpu.eflags.iopl) & ~cpu.virtual_8086:
        return
    limit = cpu.tr.limit
    if (limit < 0x67) | ~cpu.tr.rights.type[3]:
        raise Fault(GP, 0)
    base = supervisor_load(cpu, cpu.tr.base + 0x66, 2).zero_extend(32)
    where = base + (port >> 3).zero_extend(32)
    if where + 1 > limit:
        raise Fault(GP, 0)
    bits = supervisor_load(cpu, cpu.tr.base + where, 2)  # two bytes even for one port
    window = bits >> concat(Word(13, 0), port[2:0])
    if (window & ((1 << size // 8) - 1)) != 0:
        raise Fault(GP, 0)


def _read(cpu: Ia32, port: Word, size: int) -> Word:
    return cpu.ports.load_little_endian(port, size // 8)


def _write(cpu: Ia32, port: Word, value: Word) -> None:
    cpu.ports = cpu.ports.store_little_endian(port, value)


def _input(cpu: Ia32, port: Word, size: int, *, immediate: bool = False) -> None:
    check_io_permission(cpu, port, size)
    cpu.interception.port(cpu, PortAccess(port, size, write=False, immediate=immediate))
    cpu.write_register(EAX, _read(cpu, port, size))


def _output(cpu: Ia32, port: Word, size: int, *, immediate: bool = False) -> None:
    check_io_permission(cpu, port, size)
    cpu.interception.port(cpu, PortAccess(port, size, write=True, immediate=immediate))
    _write(cpu, port, cpu.read_register(EAX, size))


def move_index(cpu: Ia32, index: int, size: int) -> None:
    """ESI or EDI to the next element of `size` bits, as DF says."""
    step = Word(32, size // 8)
    cpu.gpr[index] = ite(cpu.eflags.df, cpu.gpr[index] - step, cpu.gpr[index] + step)
