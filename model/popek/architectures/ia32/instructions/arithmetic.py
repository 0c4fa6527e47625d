"""Arithmetic, shifts, conversions and exchanges for every program (SDM vol. 2A, 2B and 2C)."""

from __future__ import annotations

from popek.architectures.x86.arithmetic import CONDITIONS, OPERATIONS, set_status, subtract
from popek.architectures.x86.exceptions import DE
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, concat, ite

from .. import access
from ..access import MemoryOperand
from ..state import (
    EAX,
    EBX,
    ECX,
    EDX,
    Ia32,
)
from .flags import undefine_status

NOT_WRITTEN = ("CMP", "TEST")
SHIFTS = ("SHL", "SHR", "SAR", "ROL", "ROR")


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    _narrow(machine)
    _carries(machine)
    _shifts(machine)
    _products(machine)
    _exchanges(machine)
    _conversions(machine)
    _by_condition(machine)


def _narrow(machine: Machine[Ia32]) -> None:
    for name in OPERATIONS:
        for size in (8, 16):

            @machine.instruction(
                f"{name} r{size}, r{size}", source=f"SDM vol. 2, {name}", name=name, size=size
            )
            def register_register(cpu: Ia32, a: Word, b: Word, *, name: str, size: int) -> None:
                """Combine two registers and set the status flags."""
                result = OPERATIONS[name](cpu, cpu.read_register(a, size), cpu.read_register(b, size))
                if name not in NOT_WRITTEN:
                    cpu.write_register(a, result)

    for name in ("ADD", "CMP", "AND"):

        @machine.instruction(f"{name} r32, imm32", source=f"SDM vol. 2, {name}", name=name)
        def register_immediate(cpu: Ia32, a: Word, number: Word, *, name: str) -> None:
            """Combine a register with a number and set the status flags."""
            result = OPERATIONS[name](cpu, cpu.gpr[a], number)
            if name not in NOT_WRITTEN:
                cpu.gpr[a] = result

        @machine.instruction(f"{name} r32, m32", source=f"SDM vol. 2, {name}", name=name)
        def register_memory(cpu: Ia32, a: Word, m: MemoryOperand, *, name: str) -> None:
            """Combine a register with memory and set the status flags."""
            result = OPERATIONS[name](cpu, cpu.gpr[a], access.load(cpu, m, 4))
            if name not in NOT_WRITTEN:
                cpu.gpr[a] = result


def _carries(machine: Machine[Ia32]) -> None:
    for name in ("ADC", "SBB"):

        @machine.instruction(f"{name} r32, r32", source=f"SDM vol. 2, {name}", subtract=name == "SBB")
        def with_carry(cpu: Ia32, a: Word, b: Word, *, subtract: bool) -> None:
            """Add or subtract with CF, and set the status flags."""
            left, right = cpu.gpr[a], cpu.gpr[b]
            wide, carry = left.zero_extend(33), cpu.eflags.cf.zero_extend(33)
            total = wide - right.zero_extend(33) - carry if subtract else wide + right.zero_extend(33) + carry
            result = total[31:0]
            same = (left[31] != right[31]) if subtract else (left[31] == right[31])
            set_status(cpu, result, total[32], same & (result[31] != left[31]), (left ^ right ^ result)[4])
            cpu.gpr[a] = result

    @machine.instruction("NEG r32", source="SDM vol. 2B, NEG")
    def neg(cpu: Ia32, r: Word) -> None:
        """0 - register."""
        cpu.gpr[r] = subtract(cpu, Word(32, 0), cpu.gpr[r])

    @machine.instruction("NOT r32", source="SDM vol. 2B, NOT")
    def invert(cpu: Ia32, r: Word) -> None:
        """Every bit the other way; no flags."""
        cpu.gpr[r] = ~cpu.gpr[r]


def _shifts(machine: Machine[Ia32]) -> None:
    for name in SHIFTS:

        @machine.instruction(f"{name} r32, CL", source=f"SDM vol. 2B, {name}", name=name)
        def by_cl(cpu: Ia32, r: Word, *, name: str) -> None:
            """Shift or rotate by CL, modulo 32; by 0 nothing happens."""
            cpu.gpr[r] = _shifted(cpu, name, cpu.gpr[r], cpu.gpr[ECX][4:0])

        @machine.instruction(f"{name} r32, imm8", source=f"SDM vol. 2B, {name}", name=name)
        def by_number(cpu: Ia32, r: Word, count: Word, *, name: str) -> None:
            """Shift or rotate by a number, modulo 32; by 0 nothing happens."""
            cpu.gpr[r] = _shifted(cpu, name, cpu.gpr[r], count[4:0])


def _shifted(cpu: Ia32, name: str, value: Word, count: Word) -> Word:
    """The result (32 bits) of a count of 5 bits, and the status flags."""
    before = cpu.eflags.value
    by = count.zero_extend(32)
    if name in ("ROL", "ROR"):
        left = by if name == "ROL" else (Word(32, 32) - by) & 31
        result = (value << left) | (value >> ((Word(32, 32) - left) & 31))
        result = ite(left == 0, value, result)
        carry = result[0] if name == "ROL" else result[31]
        cpu.eflags.cf = carry
        overflow = (result[31] ^ carry) if name == "ROL" else (result[31] ^ result[30])
    else:
        shift = {"SHL": value << by, "SHR": value >> by, "SAR": value.arithmetic_shift_right(by)}
        result = shift[name]
        last = (value << (by - 1))[31] if name == "SHL" else (value >> (by - 1))[0]
        overflow = {"SHL": result[31] ^ last, "SHR": value[31], "SAR": FALSE}[name]
        set_status(cpu, result, last, overflow, cpu.undefined("AF", 1))
    cpu.eflags.of = ite(count == 1, overflow, cpu.undefined("OF", 1))
    cpu.eflags = ite(count == 0, before, cpu.eflags.value)
    return result


def _products(machine: Machine[Ia32]) -> None:
    @machine.instruction("MUL r32", source="SDM vol. 2B, MUL", signed=False)
    @machine.instruction("IMUL r32", source="SDM vol. 2A, IMUL", signed=True)
    def multiply(cpu: Ia32, r: Word, *, signed: bool) -> None:
        """EDX:EAX := EAX * register; CF and OF tell whether EDX matters."""
        a, b = cpu.gpr[EAX], cpu.gpr[r]
        wide = a.sign_extend(64) * b.sign_extend(64) if signed else a.zero_extend(64) * b.zero_extend(64)
        low, high = wide[31:0], wide[63:32]
        matters = (low.sign_extend(64) != wide) if signed else (high != 0)
        undefine_status(cpu, ("pf", "af", "zf", "sf"))
        cpu.eflags.cf, cpu.eflags.of = matters, matters
        cpu.gpr[EAX], cpu.gpr[EDX] = low, high

    @machine.instruction("DIV r8", source="SDM vol. 2A, DIV")
    def divide(cpu: Ia32, r: Word) -> None:
        """AL := AX / register, AH := the remainder; #DE for 0 or a quotient that does not fit."""
        dividend, divisor = cpu.gpr[EAX][15:0], cpu.read_register(r, 8)
        # The quotient fits exactly when the high half is less than the divisor; 0 never fits.
        if not dividend[15:8] < divisor:
            raise Fault(DE)
        wide = divisor.zero_extend(16)
        cpu.gpr[EAX] = cpu.gpr[EAX].replace(15, 0, concat((dividend % wide)[7:0], (dividend // wide)[7:0]))
        undefine_status(cpu)

    @machine.instruction("AAM imm8", source="SDM vol. 2A, AAM")
    def adjust_after_multiply(cpu: Ia32, base: Word) -> None:
        """AH := AL / base, AL := the remainder; #DE for base 0."""
        if base == 0:
            raise Fault(DE)
        low = cpu.gpr[EAX][7:0]
        result = low % base
        set_status(cpu, result, cpu.undefined("CF", 1), cpu.undefined("OF", 1), cpu.undefined("AF", 1))
        cpu.gpr[EAX] = cpu.gpr[EAX].replace(15, 0, concat(low // base, result))


def _exchanges(machine: Machine[Ia32]) -> None:
    @machine.instruction("XCHG m32, r32", source="SDM vol. 2C, XCHG")
    def exchange(cpu: Ia32, m: MemoryOperand, r: Word) -> None:
        """Swap memory and a register."""
        old = access.load_to_change(cpu, m, 4)
        access.store(cpu, m, cpu.gpr[r])
        cpu.gpr[r] = old

    @machine.instruction("XADD r32, r32", source="SDM vol. 2C, XADD")
    def exchange_and_add(cpu: Ia32, a: Word, b: Word) -> None:
        """b := a, a := the sum."""
        old = cpu.gpr[a]
        total = OPERATIONS["ADD"](cpu, old, cpu.gpr[b])
        cpu.gpr[b] = old
        cpu.gpr[a] = total

    @machine.instruction("CMPXCHG r32, r32", source="SDM vol. 2A, CMPXCHG")
    def compare_and_exchange_register(cpu: Ia32, a: Word, b: Word) -> None:
        """If EAX equals a: a := b, else EAX := a."""
        old, new = cpu.gpr[a], cpu.gpr[b]
        subtract(cpu, cpu.gpr[EAX], old)
        cpu.gpr[EAX] = ite(cpu.eflags.zf, cpu.gpr[EAX], old)
        cpu.gpr[a] = ite(cpu.eflags.zf, new, cpu.gpr[a])

    @machine.instruction("CMPXCHG m32, r32", source="SDM vol. 2A, CMPXCHG")
    def compare_and_exchange(cpu: Ia32, m: MemoryOperand, r: Word) -> None:
        """If EAX equals memory: memory := register, else EAX := memory, which is written in either case."""
        old = access.load_to_change(cpu, m, 4)
        subtract(cpu, cpu.gpr[EAX], old)
        access.store(cpu, m, ite(cpu.eflags.zf, cpu.gpr[r], old))
        cpu.gpr[EAX] = ite(cpu.eflags.zf, cpu.gpr[EAX], old)

    @machine.instruction("CMPXCHG8B m64", source="SDM vol. 2A, CMPXCHG8B/CMPXCHG16B")
    def compare_and_exchange_8(cpu: Ia32, m: MemoryOperand) -> None:
        """If EDX:EAX equals memory: memory := ECX:EBX and ZF := 1, else EDX:EAX := memory and ZF := 0."""
        old, expected = access.load_to_change(cpu, m, 8), concat(cpu.gpr[EDX], cpu.gpr[EAX])
        equal = old == expected
        access.store(cpu, m, ite(equal, concat(cpu.gpr[ECX], cpu.gpr[EBX]), old))
        cpu.eflags.zf = equal
        # Where they are equal, EDX:EAX has what memory had.
        cpu.gpr[EDX], cpu.gpr[EAX] = old[63:32], old[31:0]


def _conversions(machine: Machine[Ia32]) -> None:
    for size in (8, 16):
        for name in ("MOVZX", "MOVSX"):

            @machine.instruction(
                f"{name} r32, r{size}", source=f"SDM vol. 2B, {name}", size=size, signed=name == "MOVSX"
            )
            def extend(cpu: Ia32, to: Word, source: Word, *, size: int, signed: bool) -> None:
                """Register to a wider register, with zeros or the sign in front."""
                value = cpu.read_register(source, size)
                cpu.gpr[to] = value.sign_extend(32) if signed else value.zero_extend(32)

    for name, half in (("CBW", 8), ("CWDE", 16)):

        @machine.instruction(name, source="SDM vol. 2A, CBW/CWDE/CDQE", half=half)
        def widen(cpu: Ia32, *, half: int) -> None:
            """The low half of AX or EAX, sign-extended to all of it."""
            cpu.write_register(EAX, cpu.read_register(EAX, half).sign_extend(2 * half))

    for name, size in (("CWD", 16), ("CDQ", 32)):

        @machine.instruction(name, source="SDM vol. 2A, CWD/CDQ/CQO", size=size)
        def spread(cpu: Ia32, *, size: int) -> None:
            """DX or EDX := the sign of AX or EAX in every bit."""
            cpu.write_register(EDX, cpu.read_register(EAX, size).arithmetic_shift_right(size - 1))

    @machine.instruction("XLATB seg", source="SDM vol. 2C, XLAT/XLATB", mnemonic="XLAT")
    def xlat(cpu: Ia32, segment: Word) -> None:
        """AL := the byte at segment:EBX + AL."""
        offset = cpu.gpr[EBX] + cpu.gpr[EAX][7:0].zero_extend(32)
        cpu.write_register(EAX, access.load(cpu, MemoryOperand(segment, offset), 1))


def _by_condition(machine: Machine[Ia32]) -> None:
    for jump, condition in CONDITIONS.items():
        name = jump[1:]

        @machine.instruction(f"SET{name} r8", source="SDM vol. 2B, SETcc", mnemonic="SETcc", condition=jump)
        def setcc(cpu: Ia32, r: Word, *, condition: str) -> None:
            """Register := 1 if the status flags say so, else 0."""
            cpu.write_register(r, CONDITIONS[condition](cpu.eflags).zero_extend(8))

        @machine.instruction(
            f"CMOV{name} r32, r32", source="SDM vol. 2A, CMOVcc", mnemonic="CMOVcc", condition=jump
        )
        def cmovcc(cpu: Ia32, to: Word, source: Word, *, condition: str) -> None:
            """Register to register if the status flags say so."""
            cpu.gpr[to] = ite(CONDITIONS[condition](cpu.eflags), cpu.gpr[source], cpu.gpr[to])

        @machine.instruction(f"JN{name} rel8", source="SDM vol. 2A, Jcc", mnemonic="Jcc", condition=jump)
        def jncc(cpu: Ia32, distance: Word, *, condition: str) -> None:
            """Jump if the status flags do not say so."""
            taken = ~CONDITIONS[condition](cpu.eflags)
            access.jump_near(cpu, cpu.eip + distance.sign_extend(32), when=taken)

    for name, wanted in (("LOOP", None), ("LOOPE", True), ("LOOPNE", False)):

        @machine.instruction(
            f"{name} rel8", source="SDM vol. 2A, LOOP/LOOPcc", mnemonic="LOOP", wanted=wanted
        )
        def loop(cpu: Ia32, distance: Word, *, wanted: bool | None) -> None:
            """ECX := ECX - 1; jump unless it is 0 now, and ZF is as wanted."""
            cpu.gpr[ECX] = cpu.gpr[ECX] - 1
            taken = cpu.gpr[ECX] != 0
            if wanted is not None:
                taken = taken & (cpu.eflags.zf if wanted else ~cpu.eflags.zf)
            access.jump_near(cpu, cpu.eip + distance.sign_extend(32), when=taken)

    @machine.instruction("JECXZ rel8", source="SDM vol. 2A, Jcc", mnemonic="Jcc")
    def jecxz(cpu: Ia32, distance: Word) -> None:
        """Jump if ECX is 0."""
        taken = cpu.gpr[ECX] == 0
        access.jump_near(cpu, cpu.eip + distance.sign_extend(32), when=taken)

    @machine.instruction("CALL r32", source="SDM vol. 2A, CALL", mnemonic="CALL near")
    def call_register(cpu: Ia32, r: Word) -> None:
        """Push EIP and jump to where a register points."""
        target = cpu.gpr[r]
        access.check_near(cpu, target)
        access.push(cpu, cpu.eip)
        cpu.eip = target

    @machine.instruction("JMP m32", source="SDM vol. 2A, JMP", mnemonic="JMP near")
    def jump_memory(cpu: Ia32, m: MemoryOperand) -> None:
        """EIP := memory."""
        access.jump_near(cpu, access.load(cpu, m, 4))

    @machine.instruction("PUSH imm8", source="SDM vol. 2B, PUSH", mnemonic="PUSH")
    def push_byte(cpu: Ia32, number: Word) -> None:
        """Push a number, sign-extended to 32 bits."""
        access.push(cpu, number.sign_extend(32))

    @machine.instruction("PUSH m32", source="SDM vol. 2B, PUSH", mnemonic="PUSH")
    def push_memory(cpu: Ia32, m: MemoryOperand) -> None:
        """Push memory."""
        access.push(cpu, access.load(cpu, m, 4))
