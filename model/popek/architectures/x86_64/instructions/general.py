"""Instructions for every program: the innocuous controls (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.arithmetic import CONDITIONS, OPERATIONS, add, subtract
from popek.architectures.x86.registers import (
    DS,
    ES,
)
from popek.kernel.machine import Machine
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import MemoryOperand, low_half, natural, needs_long_mode
from ..state import RAX, RBP, RBX, RCX, RDI, RDX, RSI, X64


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    _data(machine)
    _stack(machine)
    _arithmetic(machine)
    _strings(machine)
    _near_transfers(machine)


def _mode_of(cpu: X64, size: int) -> None:
    """Operands of 64 bits need REX.W."""
    if size == 64:
        needs_long_mode(cpu)


def _data(machine: Machine[X64]) -> None:
    @machine.instruction("PAUSE", source="SDM vol. 2B, PAUSE")
    def pause(cpu: X64) -> None:
        """Nothing but a hint."""
        cpu.interception.instruction(cpu, "PAUSE")

    for form in ("NOP", "LFENCE", "MFENCE", "SFENCE"):

        @machine.instruction(form, source=f"SDM vol. 2, {form}")
        def nothing(cpu: X64) -> None:
            """Nothing but time and order."""

    @machine.instruction("CLFLUSH m8", source="SDM vol. 2A, CLFLUSH")
    def clflush(cpu: X64, m: MemoryOperand) -> None:
        """Write a cache line back; faults as a load of one byte."""
        access.load(cpu, m, 1)

    for size in (8, 16, 32, 64):

        @machine.instruction(f"MOV r{size}, r{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_register(cpu: X64, to: Word, source: Word, *, size: int) -> None:
            """Register to register; 32 bits clear the upper half."""
            _mode_of(cpu, size)
            cpu.write_register(to, cpu.read_register(source, size))

        @machine.instruction(f"MOV r{size}, m{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_load(cpu: X64, to: Word, m: MemoryOperand, *, size: int) -> None:
            """Memory to register."""
            _mode_of(cpu, size)
            cpu.write_register(to, access.load(cpu, m, size // 8))

        @machine.instruction(f"MOV m{size}, r{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_store(cpu: X64, m: MemoryOperand, source: Word, *, size: int) -> None:
            """Register to memory."""
            _mode_of(cpu, size)
            access.store(cpu, m, cpu.read_register(source, size))

    for size in (32, 64):

        @machine.instruction(f"MOV r{size}, imm{size}", source="SDM vol. 2B, MOV", mnemonic="MOV", size=size)
        def mov_immediate(cpu: X64, to: Word, value: Word, *, size: int) -> None:
            """Constant to register."""
            _mode_of(cpu, size)
            cpu.write_register(to, value)

        @machine.instruction(f"LEA r{size}, m", source="SDM vol. 2A, LEA", size=size)
        def lea(cpu: X64, r: Word, m: MemoryOperand, *, size: int) -> None:
            """The offset itself."""
            _mode_of(cpu, size)
            cpu.write_register(r, m.offset.truncate(size))

        @machine.instruction(f"XCHG r{size}, r{size}", source="SDM vol. 2B, XCHG", size=size)
        def xchg(cpu: X64, a: Word, b: Word, *, size: int) -> None:
            """Swap two registers."""
            _mode_of(cpu, size)
            first, second = cpu.read_register(a, size), cpu.read_register(b, size)
            cpu.write_register(a, second)
            cpu.write_register(b, first)

        @machine.instruction(f"XCHG m{size}, r{size}", source="SDM vol. 2B, XCHG", size=size)
        def xchg_memory(cpu: X64, m: MemoryOperand, r: Word, *, size: int) -> None:
            """Swap memory and a register, locked."""
            _mode_of(cpu, size)
            where = access.linear_address(cpu, m, size // 8, write=True)
            old = cpu.translation.load(cpu, where, size // 8)
            cpu.translation.store(cpu, where, cpu.read_register(r, size))
            cpu.write_register(r, old)

        @machine.instruction(f"BSWAP r{size}", source="SDM vol. 2A, BSWAP", size=size)
        def bswap(cpu: X64, r: Word, *, size: int) -> None:
            """Reverse the bytes."""
            _mode_of(cpu, size)
            old = cpu.read_register(r, size)
            cpu.write_register(r, concat(*(old[low + 7 : low] for low in range(0, size, 8))))

        for narrow in (8, 16):

            @machine.instruction(
                f"MOVZX r{size}, r{narrow}", source="SDM vol. 2B, MOVZX", size=size, narrow=narrow
            )
            def movzx(cpu: X64, to: Word, source: Word, *, size: int, narrow: int) -> None:
                """Zero-extended."""
                _mode_of(cpu, size)
                cpu.write_register(to, cpu.read_register(source, narrow).zero_extend(size))

            @machine.instruction(
                f"MOVSX r{size}, r{narrow}", source="SDM vol. 2B, MOVSX", size=size, narrow=narrow
            )
            def movsx(cpu: X64, to: Word, source: Word, *, size: int, narrow: int) -> None:
                """Sign-extended."""
                _mode_of(cpu, size)
                cpu.write_register(to, cpu.read_register(source, narrow).sign_extend(size))

    @machine.instruction("MOVSXD r64, r32", source="SDM vol. 2B, MOVSXD")
    def movsxd(cpu: X64, to: Word, source: Word) -> None:
        """Sign-extended from 32 bits; outside 64-bit mode the opcode is ARPL's, and REX does not exist."""
        needs_long_mode(cpu)
        cpu.write_register(to, cpu.read_register(source, 32).sign_extend(64))

    @machine.instruction("MOVSXD r64, m32", source="SDM vol. 2B, MOVSXD")
    def movsxd_load(cpu: X64, to: Word, m: MemoryOperand) -> None:
        """Sign-extended from 32 bits."""
        needs_long_mode(cpu)
        cpu.write_register(to, access.load(cpu, m, 4).sign_extend(64))


def _stack(machine: Machine[X64]) -> None:
    for size in (16, 64):

        @machine.instruction(f"PUSH r{size}", source="SDM vol. 2B, PUSH", mnemonic="PUSH", size=size)
        def push_register(cpu: X64, r: Word, *, size: int) -> None:
            """Push a register (32 bits in compatibility mode); PUSH RSP pushes the old value."""
            width = size if size == 16 else 8 * natural(cpu)
            access.push(cpu, cpu.read_register(r, width))

        @machine.instruction(f"POP r{size}", source="SDM vol. 2B, POP", mnemonic="POP", size=size)
        def pop_register(cpu: X64, r: Word, *, size: int) -> None:
            """Pop into a register (32 bits in compatibility mode); POP RSP keeps what was popped."""
            width = size if size == 16 else 8 * natural(cpu)
            cpu.write_register(r, access.pop(cpu, width // 8))

    @machine.instruction("PUSH imm32", source="SDM vol. 2B, PUSH", mnemonic="PUSH")
    def push_immediate(cpu: X64, value: Word) -> None:
        """Push a constant, sign-extended."""
        access.push(cpu, value.sign_extend(8 * natural(cpu)))

    @machine.instruction("LEAVE", source="SDM vol. 2A, LEAVE")
    def leave(cpu: X64) -> None:
        """RSP := RBP, then pop RBP."""
        size = natural(cpu)
        access.set_stack_pointer(cpu, cpu.gpr[RBP])
        cpu.write_register(RBP, access.pop(cpu, size))


def _arithmetic(machine: Machine[X64]) -> None:
    for name in OPERATIONS:
        for size in (32, 64):

            @machine.instruction(
                f"{name} r{size}, r{size}", source=f"SDM vol. 2, {name}", name=name, size=size
            )
            def register_register(cpu: X64, a: Word, b: Word, *, name: str, size: int) -> None:
                """Combine two registers and set the status flags."""
                _mode_of(cpu, size)
                result = OPERATIONS[name](cpu, cpu.read_register(a, size), cpu.read_register(b, size))
                if name not in ("CMP", "TEST"):
                    cpu.write_register(a, result)

        if name == "TEST":
            continue

        @machine.instruction(f"{name} m64, r64", source=f"SDM vol. 2, {name}", name=name)
        def memory_register(cpu: X64, m: MemoryOperand, b: Word, *, name: str) -> None:
            """Combine memory with a register and set the status flags."""
            needs_long_mode(cpu)
            where = access.linear_address(cpu, m, 8, write=name != "CMP")
            result = OPERATIONS[name](cpu, cpu.translation.load(cpu, where, 8), cpu.gpr[b])
            if name != "CMP":
                cpu.translation.store(cpu, where, result)

    for name in ("INC", "DEC"):
        for size in (32, 64):

            @machine.instruction(f"{name} r{size}", source=f"SDM vol. 2A, {name}", name=name, size=size)
            def step(cpu: X64, r: Word, *, name: str, size: int) -> None:
                """Add or subtract 1; CF stays."""
                _mode_of(cpu, size)
                carry = cpu.rflags.cf
                old, one = cpu.read_register(r, size), Word(size, 1)
                cpu.write_register(r, add(cpu, old, one) if name == "INC" else subtract(cpu, old, one))
                cpu.rflags.cf = carry

    for size in (32, 64):

        @machine.instruction(f"NEG r{size}", source="SDM vol. 2B, NEG", size=size)
        def neg(cpu: X64, r: Word, *, size: int) -> None:
            """0 minus the register."""
            _mode_of(cpu, size)
            cpu.write_register(r, subtract(cpu, Word(size, 0), cpu.read_register(r, size)))

        @machine.instruction(f"NOT r{size}", source="SDM vol. 2B, NOT", size=size)
        def complement(cpu: X64, r: Word, *, size: int) -> None:
            """Every bit inverted; no flags."""
            _mode_of(cpu, size)
            cpu.write_register(r, ~cpu.read_register(r, size))

        @machine.instruction(f"CMPXCHG r{size}, r{size}", source="SDM vol. 2A, CMPXCHG", size=size)
        def cmpxchg(cpu: X64, a: Word, b: Word, *, size: int) -> None:
            """If RAX equals the first operand, that becomes the second; else RAX becomes the first."""
            _mode_of(cpu, size)
            old, new, accumulator = (cpu.read_register(x, size) for x in (a, b, RAX))
            subtract(cpu, accumulator, old)
            equal = accumulator == old
            kept = cpu.gpr[RAX]
            cpu.write_register(a, ite(equal, new, old))
            taken = cpu.gpr[RAX]
            cpu.gpr[RAX] = ite(equal, ite(a == RAX, taken, kept), old.zero_extend(64))

    @machine.instruction("CMPXCHG16B m128", source="SDM vol. 2A, CMPXCHG8B/CMPXCHG16B")
    def cmpxchg16b(cpu: X64, m: MemoryOperand) -> None:
        """If RDX:RAX equals memory, that becomes RCX:RBX and ZF 1; else RDX:RAX becomes memory.

        #GP(0) unless the address is a multiple of 16.
        """
        needs_long_mode(cpu)
        where = access.linear_address(cpu, m, 16, write=True, aligned=16)
        old = cpu.translation.load(cpu, where, 16)
        equal = old == concat(cpu.gpr[RDX], cpu.gpr[RAX])
        new = ite(equal, concat(cpu.gpr[RCX], cpu.gpr[RBX]), old)
        cpu.translation.store(cpu, where, new)
        cpu.rflags.zf = equal
        cpu.gpr[RDX] = ite(equal, cpu.gpr[RDX], old[127:64])
        cpu.gpr[RAX] = ite(equal, cpu.gpr[RAX], old[63:0])


def _strings(machine: Machine[X64]) -> None:
    for size, letter in ((8, "B"), (64, "Q")):

        @machine.instruction(f"STOS{letter}", source="SDM vol. 2B, STOS", mnemonic="STOS", size=size)
        def stos(cpu: X64, *, size: int) -> None:
            """AL or RAX to ES:RDI."""
            _mode_of(cpu, size)
            access.store(cpu, MemoryOperand(Word(3, ES), cpu.gpr[RDI]), cpu.read_register(RAX, size))
            _index(cpu, RDI, size)

        @machine.instruction(f"MOVS{letter}", source="SDM vol. 2B, MOVS", mnemonic="MOVS", size=size)
        def movs(cpu: X64, *, size: int) -> None:
            """DS:RSI to ES:RDI."""
            _mode_of(cpu, size)
            value = access.load(cpu, MemoryOperand(Word(3, DS), cpu.gpr[RSI]), size // 8)
            access.store(cpu, MemoryOperand(Word(3, ES), cpu.gpr[RDI]), value)
            _index(cpu, RSI, size)
            _index(cpu, RDI, size)


def _index(cpu: X64, index: int, size: int) -> None:
    step = Word(64, size // 8)
    moved = ite(cpu.rflags.df, cpu.gpr[index] - step, cpu.gpr[index] + step)
    cpu.gpr[index] = ite(cpu.long, moved, low_half(moved))


def _near_transfers(machine: Machine[X64]) -> None:
    for name in CONDITIONS:

        @machine.instruction(f"{name} rel8", source="SDM vol. 2A, Jcc", mnemonic="Jcc", name=name)
        def jcc(cpu: X64, distance: Word, *, name: str) -> None:
            """Jump if the status flags say so; the target is looked at only then."""
            taken = CONDITIONS[name](cpu.rflags)
            access.jump_near(cpu, cpu.rip + distance.sign_extend(64), when=taken)

    @machine.instruction("JMP rel32", source="SDM vol. 2A, JMP", mnemonic="JMP near")
    def jmp_relative(cpu: X64, distance: Word) -> None:
        """RIP := RIP + distance."""
        access.jump_near(cpu, cpu.rip + distance.sign_extend(64))

    @machine.instruction("JMP r64", source="SDM vol. 2A, JMP", mnemonic="JMP near")
    def jmp_register(cpu: X64, r: Word) -> None:
        """RIP := register."""
        access.jump_near(cpu, cpu.gpr[r])

    @machine.instruction("CALL rel32", source="SDM vol. 2A, CALL", mnemonic="CALL near")
    def call_relative(cpu: X64, distance: Word) -> None:
        """Push RIP and jump; the target is checked before the stack."""
        _call(cpu, cpu.rip + distance.sign_extend(64))

    @machine.instruction("CALL r64", source="SDM vol. 2A, CALL", mnemonic="CALL near")
    def call_register(cpu: X64, r: Word) -> None:
        """Push RIP and jump; the target is checked before the stack."""
        _call(cpu, cpu.gpr[r])

    @machine.instruction("RET", source="SDM vol. 2B, RET", mnemonic="RET near")
    def ret(cpu: X64) -> None:
        """Pop RIP."""
        access.jump_near(cpu, access.pop(cpu, natural(cpu)).zero_extend(64))

    @machine.instruction("RET imm16", source="SDM vol. 2B, RET", mnemonic="RET near")
    def ret_release(cpu: X64, released: Word) -> None:
        """Pop RIP and release parameters."""
        target = access.pop(cpu, natural(cpu)).zero_extend(64)
        access.move_stack_pointer(cpu, released.zero_extend(64))
        access.jump_near(cpu, target)


def _call(cpu: X64, target: Word) -> None:
    wanted = ite(cpu.long, target, low_half(target))
    access.check_near(cpu, wanted)
    access.push(cpu, cpu.rip.truncate(8 * natural(cpu)))
    cpu.rip = wanted
