"""PUSHA POPA ENTER LEAVE (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.registers import SS_
from popek.kernel.machine import Machine
from popek.kernel.outcome import MemoryFault
from popek.kernel.words import Word, ite

from .. import access
from ..access import MemoryOperand
from ..state import (
    EBP,
    ESP,
    Ia32,
)

BEFORE_THE_END = (7, 9, 11, 13, 15)  # SDM vol. 2B, PUSHA, "Real-Address Mode Exceptions"


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    for suffix, size in (("", 16), ("D", 32)):

        @machine.instruction(f"PUSHA{suffix}", source="SDM vol. 2B, PUSHA", mnemonic="PUSHA", size=size)
        def pusha(cpu: Ia32, *, size: int) -> None:
            """Push the eight general registers, the stack pointer as it was.

            In real-address and virtual-8086 mode #GP(0), not #SS(0), where an odd stack pointer from 7 to 15 would run
            across offset 0.
            """
            pointer = access.stack_offset(cpu, 0)
            if ~cpu.protected & pointer.isin(BEFORE_THE_END):
                raise MemoryFault(GP, 0)
            for value in [cpu.read_register(number, size) for number in range(8)]:
                access.push(cpu, value)

        @machine.instruction(f"POPA{suffix}", source="SDM vol. 2B, POPA", mnemonic="POPA", size=size)
        def popa(cpu: Ia32, *, size: int) -> None:
            """Pop the eight general registers, all but the stack pointer."""
            values = {
                number: access.peek(cpu, (7 - number) * size // 8, size // 8)
                for number in reversed(range(8))
                if number != ESP  # skipped, not read
            }
            access.move_stack_pointer(cpu, size)  # eight items
            for number, value in values.items():
                cpu.write_register(number, value)

    for prefix, size in (("", 32), ("o16 ", 16)):
        for nested in (False, True):

            @machine.instruction(
                f"{prefix}ENTER imm16, {int(nested)}",
                source="SDM vol. 2A, ENTER",
                mnemonic="ENTER",
                size=size,
                nested=nested,
            )
            def enter(cpu: Ia32, room: Word, *, size: int, nested: bool) -> None:
                """Make a stack frame with `room` bytes, of lexical level 0 or 1."""
                access.push(cpu, cpu.read_register(EBP, size))
                frame = cpu.gpr[ESP].truncate(size)
                if nested:
                    access.push(cpu, frame)
                access.move_stack_pointer(cpu, Word(32, 0) - room.zero_extend(32))
                top = MemoryOperand(Word(3, SS_), access.stack_offset(cpu, 0))
                # A byte there could be written: nothing is, so its alignment does not matter.
                access.linear_address(cpu, top, 1, write=True)
                cpu.write_register(EBP, frame)

    @machine.instruction("LEAVE", source="SDM vol. 2A, LEAVE", size=32)
    @machine.instruction("o16 LEAVE", source="SDM vol. 2A, LEAVE", mnemonic="LEAVE", size=16)
    def leave(cpu: Ia32, *, size: int) -> None:
        """ESP := EBP, then pop EBP."""
        frame = cpu.gpr[EBP]
        kept = cpu.gpr[ESP].replace(15, 0, frame.truncate(16))
        cpu.gpr[ESP] = ite(cpu.ss.rights.db, frame, kept)
        cpu.write_register(EBP, access.pop(cpu, size // 8))
