"""Instructions for every program: the innocuous controls (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.arithmetic import CONDITIONS, OPERATIONS, add, subtract
from popek.kernel.machine import Machine
from popek.kernel.words import Word, concat

from .. import access
from ..access import MemoryOperand
from ..state import Ia32


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    _data(machine)
    _arithmetic(machine)
    _near_transfers(machine)


def _data(machine: Machine[Ia32]) -> None:
    @machine.instruction("NOP", source="SDM vol. 2B, NOP")
    def nop(cpu: Ia32) -> None:
        """Nothing."""

    for size in (8, 16, 32):

        @machine.instruction(f"MOV r{size}, r{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_register(cpu: Ia32, to: Word, source: Word, *, size: int) -> None:
            """Register to register."""
            cpu.write_register(to, cpu.read_register(source, size))

        @machine.instruction(f"MOV r{size}, m{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_load(cpu: Ia32, to: Word, m: MemoryOperand, *, size: int) -> None:
            """Memory to register."""
            cpu.write_register(to, access.load(cpu, m, size // 8))

        @machine.instruction(f"MOV m{size}, r{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_store(cpu: Ia32, m: MemoryOperand, source: Word, *, size: int) -> None:
            """Register to memory."""
            access.store(cpu, m, cpu.read_register(source, size))

    for size in (16, 32):

        @machine.instruction(f"PUSH r{size}", source="SDM vol. 2B, PUSH", mnemonic="PUSH", size=size)
        def push_register(cpu: Ia32, r: Word, *, size: int) -> None:
            """Push a register; PUSH ESP pushes the old value."""
            access.push(cpu, cpu.read_register(r, size))

        @machine.instruction(f"POP r{size}", source="SDM vol. 2B, POP", mnemonic="POP", size=size)
        def pop_register(cpu: Ia32, r: Word, *, size: int) -> None:
            """Pop into a register; POP ESP keeps what was popped."""
            cpu.write_register(r, access.pop(cpu, size // 8))

    @machine.instruction("LEA r32, m", source="SDM vol. 2A, LEA")
    def lea(cpu: Ia32, r: Word, m: MemoryOperand) -> None:
        """The offset itself."""
        cpu.gpr[r] = m.offset

    @machine.instruction("XCHG r32, r32", source="SDM vol. 2B, XCHG")
    def xchg(cpu: Ia32, a: Word, b: Word) -> None:
        """Swap two registers."""
        cpu.gpr[a], cpu.gpr[b] = cpu.gpr[b], cpu.gpr[a]

    @machine.instruction("BSWAP r32", source="SDM vol. 2A, BSWAP")
    def bswap(cpu: Ia32, r: Word) -> None:
        """Reverse the bytes."""
        old = cpu.gpr[r]
        cpu.gpr[r] = concat(old[7:0], old[15:8], old[23:16], old[31:24])


def _arithmetic(machine: Machine[Ia32]) -> None:
    for name in OPERATIONS:

        @machine.instruction(f"{name} r32, r32", source=f"SDM vol. 2, {name}", name=name)
        def register_register(cpu: Ia32, a: Word, b: Word, *, name: str) -> None:
            """Combine two registers and set the status flags."""
            result = OPERATIONS[name](cpu, cpu.gpr[a], cpu.gpr[b])
            if name not in ("CMP", "TEST"):
                cpu.gpr[a] = result

        if name == "TEST":
            continue

        @machine.instruction(f"{name} m32, r32", source=f"SDM vol. 2, {name}", name=name)
        def memory_register(cpu: Ia32, m: MemoryOperand, b: Word, *, name: str) -> None:
            """Combine memory with a register and set the status flags."""
            load = access.load if name == "CMP" else access.load_to_change
            result = OPERATIONS[name](cpu, load(cpu, m, 4), cpu.gpr[b])
            if name != "CMP":
                access.store(cpu, m, result)

    for name in ("INC", "DEC"):

        @machine.instruction(f"{name} r32", source=f"SDM vol. 2A, {name}", name=name)
        def step(cpu: Ia32, r: Word, *, name: str) -> None:
            """Add or subtract 1; CF stays."""
            carry = cpu.eflags.cf
            one = Word(32, 1)
            cpu.gpr[r] = add(cpu, cpu.gpr[r], one) if name == "INC" else subtract(cpu, cpu.gpr[r], one)
            cpu.eflags.cf = carry


def _near_transfers(machine: Machine[Ia32]) -> None:
    for name in CONDITIONS:

        @machine.instruction(f"{name} rel8", source="SDM vol. 2A, Jcc", mnemonic="Jcc", name=name)
        def jcc(cpu: Ia32, distance: Word, *, name: str) -> None:
            """Jump if the status flags say so; the target is looked at only then."""
            taken = CONDITIONS[name](cpu.eflags)
            access.jump_near(cpu, cpu.eip + distance.sign_extend(32), when=taken)

    @machine.instruction("JMP rel32", source="SDM vol. 2A, JMP", mnemonic="JMP near")
    def jmp_relative(cpu: Ia32, distance: Word) -> None:
        """EIP := EIP + distance."""
        access.jump_near(cpu, cpu.eip + distance)

    @machine.instruction("JMP r32", source="SDM vol. 2A, JMP", mnemonic="JMP near")
    def jmp_register(cpu: Ia32, r: Word) -> None:
        """EIP := register."""
        access.jump_near(cpu, cpu.gpr[r])

    @machine.instruction("CALL rel32", source="SDM vol. 2A, CALL", mnemonic="CALL near")
    def call_relative(cpu: Ia32, distance: Word) -> None:
        """Push EIP and jump; the limit of the target is checked before the stack."""
        target = cpu.eip + distance
        access.check_near(cpu, target)
        access.push(cpu, cpu.eip)
        cpu.eip = target

    @machine.instruction("RET", source="SDM vol. 2B, RET", mnemonic="RET near")
    def ret(cpu: Ia32) -> None:
        """Pop EIP."""
        access.jump_near(cpu, access.pop(cpu, 4))

    @machine.instruction("RET imm16", source="SDM vol. 2B, RET", mnemonic="RET near")
    def ret_release(cpu: Ia32, released: Word) -> None:
        """Pop EIP and release parameters."""
        target = access.pop(cpu, 4)
        access.move_stack_pointer(cpu, released.zero_extend(32))
        access.jump_near(cpu, target)
