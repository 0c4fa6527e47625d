"""Arithmetic, logic, shifts, fields and comparisons of general registers (vol. 3): none looks at level or mode.

The two target predicates of a comparison are one register here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.words import Word, concat, ite

from ..interruptions import check_target
from ..state import Ia64

SIZES: Final = (1, 2, 4)
One = Callable[[Word], Word]
Two = Callable[[Word, Word], Word]


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    _of_one(machine)
    _of_two(machine)
    _with_counts(machine)
    _fields(machine)


def pointer(total: Word, base: Word) -> Word:
    """A 32-bit sum as an address in the region that the base's bits 31:30 name."""
    return concat(Word(1, 0), base[31:30], Word(29, 0), total[31:0])


def leading_zeros(value: Word) -> Word:
    """How many bits above the first 1 are 0; 64 of 0."""
    result = Word(64, 64)
    for number in range(64):
        result = ite(value[number], Word(64, 63 - number), result)
    return result


def first_zero(value: Word, size: int, from_left: bool) -> Word:
    """The number of the first element of `size` bytes that is 0, from one side; how many there are if none is."""
    width = 8 * size
    elements = [value[low + width - 1 : low] for low in range(0, 64, width)]
    if from_left:
        elements.reverse()
    result = Word(64, len(elements))
    for number in range(len(elements) - 1, -1, -1):
        result = ite(elements[number] == 0, Word(64, number), result)
    return result


@opaque(64, 64)
def ones(value: Word) -> Word:
    """How many bits are 1; of two counts a solver is told at first that they are equal where the words are."""
    result = Word(64, 0)
    for number in range(64):
        result = result + value[number].zero_extend(64)
    return result


@opaque(64, 64, 64, 6)
def of_a_pair(high: Word, low: Word, count: Word) -> Word:
    """The low 64 bits of a pair shifted right; told as `ones` is."""
    return (concat(high, low) >> count.zero_extend(128))[63:0]


def _of_one(machine: Machine[Ia64]) -> None:
    operations: dict[str, One] = {"clz": leading_zeros, "popcnt": ones}
    for size in SIZES:
        operations[f"sxt{size}"] = lambda a, size=size: a.truncate(8 * size).sign_extend(64)  # type: ignore[misc]
        operations[f"zxt{size}"] = lambda a, size=size: a.truncate(8 * size).zero_extend(64)  # type: ignore[misc]
    for size in (1, 2):
        operations[f"czx{size}.l"] = lambda a, size=size: first_zero(a, size, True)  # type: ignore[misc]
        operations[f"czx{size}.r"] = lambda a, size=size: first_zero(a, size, False)  # type: ignore[misc]
    for name, operation in operations.items():

        @machine.instruction(
            f"{name} r = r",
            source=f"SDM vol. 3, {name[:3] if name[1:3] in ('xt', 'zx') else name}",
            mnemonic=name.upper(),
            operation=operation,
        )
        def compute(cpu: Ia64, r1: Word, r3: Word, *, operation: One) -> None:
            """The result, NaT where the source is."""
            check_target(cpu, r1)
            cpu.write_gr(r1, operation(cpu.read_gr(r3)), cpu.read_nat(r3))

    @machine.instruction("movl r = imm64", source="SDM vol. 3, movl", mnemonic="MOVL")
    def move_long(cpu: Ia64, r1: Word, immediate: Word) -> None:
        """The immediate."""
        check_target(cpu, r1)
        cpu.write_gr(r1, immediate)


def _of_two(machine: Machine[Ia64]) -> None:
    operations: dict[str, Two] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
        "cmp.eq": lambda a, b: (a == b).zero_extend(64),
        "cmp.ltu": lambda a, b: (a < b).zero_extend(64),
        "andcm": lambda a, b: a & ~b,
        "addp4": lambda a, b: pointer(a + b, b),
        "cmp.lt": lambda a, b: a.signed_lt(b).zero_extend(64),
        "cmp4.eq": lambda a, b: (a[31:0] == b[31:0]).zero_extend(64),
        "cmp4.lt": lambda a, b: a[31:0].signed_lt(b[31:0]).zero_extend(64),
        "cmp4.ltu": lambda a, b: (a[31:0] < b[31:0]).zero_extend(64),
        "shl": lambda a, b: a << b,
        "shr": lambda a, b: a.arithmetic_shift_right(b),
        "shr.u": lambda a, b: a >> b,
    }
    for name, operation in operations.items():

        @machine.instruction(
            f"{name} r = r, r",
            source=f"SDM vol. 3, {name.split('.')[0]}",
            mnemonic=name.upper(),
            operation=operation,
        )
        def compute(cpu: Ia64, r1: Word, r2: Word, r3: Word, *, operation: Two) -> None:
            """The result, NaT where a source is."""
            check_target(cpu, r1)
            cpu.write_gr(r1, operation(cpu.read_gr(r2), cpu.read_gr(r3)), cpu.read_nat(r2) | cpu.read_nat(r3))

    @machine.instruction("adds r = imm14, r", source="SDM vol. 3, add", mnemonic="ADDS")
    def add_immediate(cpu: Ia64, r1: Word, immediate: Word, r3: Word) -> None:
        """The sum, NaT where the source is."""
        check_target(cpu, r1)
        cpu.write_gr(r1, cpu.read_gr(r3) + immediate.sign_extend(64), cpu.read_nat(r3))

    @machine.instruction("tnat r = r", source="SDM vol. 3, tnat", mnemonic="TNAT")
    def test_nat(cpu: Ia64, r1: Word, r3: Word) -> None:
        """Whether the source is NaT; the target predicate is one register."""
        check_target(cpu, r1)
        cpu.write_gr(r1, cpu.read_nat(r3).zero_extend(64))


def _with_counts(machine: Machine[Ia64]) -> None:
    @machine.instruction("shladd r = r, imm2, r", source="SDM vol. 3, shladd", mnemonic="SHLADD", short=False)
    @machine.instruction(
        "shladdp4 r = r, imm2, r", source="SDM vol. 3, shladdp4", mnemonic="SHLADDP4", short=True
    )
    def shift_and_add(cpu: Ia64, r1: Word, r2: Word, count: Word, r3: Word, *, short: bool) -> None:
        """The first register, 1 to 4 places up (the immediate has one less), plus the second."""
        check_target(cpu, r1)
        by = count.zero_extend(64) + 1
        total = (cpu.read_gr(r2) << by) + cpu.read_gr(r3)
        cpu.write_gr(
            r1, pointer(total, cpu.read_gr(r3)) if short else total, cpu.read_nat(r2) | cpu.read_nat(r3)
        )

    @machine.instruction("shrp r = r, r, pos6", source="SDM vol. 3, shrp", mnemonic="SHRP")
    def shift_pair(cpu: Ia64, r1: Word, r2: Word, r3: Word, count: Word) -> None:
        """The low 64 bits of the pair of registers, the first one above, shifted right; NaT where a source is."""
        check_target(cpu, r1)
        result = of_a_pair(cpu.read_gr(r2), cpu.read_gr(r3), count)
        cpu.write_gr(r1, result, cpu.read_nat(r2) | cpu.read_nat(r3))


def _fields(machine: Machine[Ia64]) -> None:
    """A field has a place and a length, of which the encoding has one less."""

    def mask(length: Word) -> Word:
        return ~(Word(64, (1 << 64) - 2) << length.zero_extend(64))

    @machine.instruction("extr r = r, pos6, len6", source="SDM vol. 3, extr", mnemonic="EXTR", signed=True)
    @machine.instruction(
        "extr.u r = r, pos6, len6", source="SDM vol. 3, extr", mnemonic="EXTR.U", signed=False
    )
    def extract(cpu: Ia64, r1: Word, r3: Word, place: Word, length: Word, *, signed: bool) -> None:
        """The field, sign- or zero-extended; what lies above the register is its sign, or 0."""
        check_target(cpu, r1)
        by, bits = place.zero_extend(64), mask(length)
        value = cpu.read_gr(r3)
        moved = value.arithmetic_shift_right(by) if signed else value >> by
        top = (moved >> length.zero_extend(64))[0]
        field = moved & bits
        cpu.write_gr(r1, ite(top, field | ~bits, field) if signed else field, cpu.read_nat(r3))

    @machine.instruction("dep.z r = r, pos6, len6", source="SDM vol. 3, dep", mnemonic="DEP.Z")
    def deposit_in_zeros(cpu: Ia64, r1: Word, r2: Word, place: Word, length: Word) -> None:
        """The low bits of the register as a field, 0 around it."""
        check_target(cpu, r1)
        field = (cpu.read_gr(r2) & mask(length)) << place.zero_extend(64)
        cpu.write_gr(r1, field, cpu.read_nat(r2))

    @machine.instruction("dep r = r, r, pos6, len4", source="SDM vol. 3, dep", mnemonic="DEP")
    def deposit(cpu: Ia64, r1: Word, r2: Word, r3: Word, place: Word, length: Word) -> None:
        """The low bits of the first register as a field, the second one around it; at most 16 bits."""
        check_target(cpu, r1)
        by, bits = place.zero_extend(64), mask(length)
        around = cpu.read_gr(r3) & ~(bits << by)
        field = (cpu.read_gr(r2) & bits) << by
        cpu.write_gr(r1, around | field, cpu.read_nat(r2) | cpu.read_nat(r3))

    @machine.instruction("tbit r = r, pos6", source="SDM vol. 3, tbit", mnemonic="TBIT")
    def test_bit(cpu: Ia64, r1: Word, r3: Word, place: Word) -> None:
        """One bit; the target predicate is one register."""
        check_target(cpu, r1)
        cpu.write_gr(r1, (cpu.read_gr(r3) >> place.zero_extend(64))[0].zero_extend(64), cpu.read_nat(r3))
