"""PDP-11/45: ordinary instructions by numbers from the processor handbook's chapter 4, both sides of each rule.

A row has the condition codes N, Z, V and C as one number of two octal digits: 10, 4, 2, 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from popek.architectures.pdp11 import MACHINES
from popek.architectures.pdp11.state import Pdp11
from popek.kernel.outcome import Next
from popek.kernel.words import Word

MACHINE = MACHINES["pdp11-45"]()
N, Z, V, C = 8, 4, 2, 1
PLACE = 0o2000

# Mnemonic, the destination, C before, the destination after, NZVC after.
SINGLE = (
    ("CLR", 0o177777, 1, 0, Z),
    ("COM", 0, 0, 0o177777, N | C), ("COM", 0o177777, 0, 0, Z | C),
    ("INC", 0o077777, 0, 0o100000, N | V), ("INC", 0o177777, 1, 0, Z | C), ("INC", 1, 0, 2, 0),
    ("DEC", 0o100000, 0, 0o077777, V), ("DEC", 0, 1, 0o177777, N | C), ("DEC", 1, 0, 0, Z),
    ("NEG", 1, 0, 0o177777, N | C), ("NEG", 0, 1, 0, Z), ("NEG", 0o100000, 0, 0o100000, N | V | C),
    ("NEG", 0o177777, 0, 1, C),
    ("ADC", 0o077777, 1, 0o100000, N | V), ("ADC", 0o177777, 1, 0, Z | C), ("ADC", 1, 1, 2, 0),
    ("ADC", 0o077777, 0, 0o077777, 0), ("ADC", 0o177777, 0, 0o177777, N),
    ("SBC", 0, 1, 0o177777, N | C), ("SBC", 0o100000, 1, 0o077777, V), ("SBC", 1, 1, 0, Z), ("SBC", 0, 0, 0, Z),
    ("TST", 0o100000, 1, 0o100000, N), ("TST", 0, 1, 0, Z), ("TST", 1, 0, 1, 0),
    ("ASR", 0o100001, 0, 0o140000, N | C), ("ASR", 1, 0, 0, Z | V | C), ("ASR", 2, 1, 1, 0),
    ("ASR", 0o100000, 0, 0o140000, N | V),
    ("ASL", 0o040000, 0, 0o100000, N | V), ("ASL", 0o100000, 0, 0, Z | V | C), ("ASL", 1, 1, 2, 0),
    ("ASL", 0o140000, 0, 0o100000, N | C),
    ("ROR", 1, 0, 0, Z | V | C), ("ROR", 0, 1, 0o100000, N | V), ("ROR", 1, 1, 0o100000, N | C), ("ROR", 2, 0, 1, 0),
    ("ROL", 0o100000, 0, 0, Z | V | C), ("ROL", 0, 1, 1, 0), ("ROL", 0o040000, 0, 0o100000, N | V),
    ("ROL", 0o140000, 1, 0o100001, N | C),
)  # fmt: skip

# Mnemonic, the source, the destination, C before, the destination after, NZVC after.
DOUBLE = (
    ("CMP", 1, 2, 0, 2, N | C), ("CMP", 2, 1, 1, 1, 0), ("CMP", 1, 1, 0, 1, Z), ("CMP", 0o100000, 1, 0, 1, V),
    ("CMP", 0o077777, 0o177777, 0, 0o177777, N | V | C), ("CMP", 0o177777, 0, 0, 0, N),
    ("BIT", 1, 2, 1, 2, Z | C), ("BIT", 0o100000, 0o100001, 0, 0o100001, N), ("BIT", 3, 1, 0, 1, 0),
    ("BIC", 1, 3, 0, 2, 0), ("BIC", 0o177777, 0o100001, 1, 0, Z | C), ("BIC", 1, 0o100001, 0, 0o100000, N),
    ("BIS", 0o100000, 1, 0, 0o100001, N), ("BIS", 0, 0, 1, 0, Z | C), ("BIS", 1, 2, 0, 3, 0),
)  # fmt: skip
WORDS_ONLY = (
    ("ADD", 1, 0o077777, 0, 0o100000, N | V), ("ADD", 1, 0o177777, 0, 0, Z | C), ("ADD", 1, 2, 1, 3, 0),
    ("ADD", 0o100000, 0o100000, 0, 0, Z | V | C), ("ADD", 0o177777, 0o177777, 0, 0o177776, N | C),
    ("SUB", 1, 0, 0, 0o177777, N | C), ("SUB", 1, 0o100000, 0, 0o077777, V), ("SUB", 1, 1, 1, 0, Z),
    ("SUB", 0o177777, 0o077777, 0, 0o100000, N | V | C), ("SUB", 1, 3, 1, 2, 0),
    ("XOR", 5, 7, 1, 2, C), ("XOR", 0o177777, 1, 0, 0o177776, N), ("XOR", 3, 3, 0, 0, Z),
    ("MOV", 0o100000, 5, 1, 0o100000, N | C), ("MOV", 0, 5, 0, 0, Z), ("MOV", 3, 5, 0, 3, 0),
    ("MOVB", 0o200, 5, 1, 0o177600, N | C), ("MOVB", 0o177577, 5, 0, 0o177, 0), ("MOVB", 0o177400, 5, 0, 0, Z),
)  # fmt: skip


def narrow(value: int) -> int:
    """A word of the tables as a byte: the eight bits in its middle, which are alike, left out."""
    return value >> 8 & 0xF0 | value & 0x0F


def cpu_with(ps: int, *registers: int) -> Pdp11:
    """Kernel mode, relocation off, at 1000 octal; registers from R1 on."""
    cpu = Pdp11.reset(ps=ps, pc=0o1000, sp=0o700)
    for number, value in enumerate(registers, 1):
        cpu.set_register(Word(3, number), Word(16, value))
    return cpu


def run(form: str, cpu: Pdp11, *operands: int) -> Pdp11:
    """The state after a form, its operands in their order."""
    (instruction,) = MACHINE.find(form)
    names = [part for operand in instruction.inputs for part in operand.part_names()]
    given = {name: Word(width, value) for (name, width), value in zip(names, operands, strict=True)}
    outcome = MACHINE.step(instruction, cpu, given)
    assert isinstance(outcome, Next), outcome
    return outcome.state


def register(cpu: Pdp11, number: int) -> int:
    return int(cpu.register(Word(3, number)))


def stored(cpu: Pdp11, address: int) -> int:
    """The word at an address."""
    return int(cpu.memory.load(Word(17, address // 2)))


def holding(cpu: Pdp11, address: int, value: int) -> Pdp11:
    cpu.memory = cpu.memory.store(Word(17, address // 2), Word(16, value))
    return cpu


@pytest.mark.parametrize("row", SINGLE)
def test_one_operand(row: tuple[str, int, int, int, int]) -> None:
    mnemonic, before, carry, after, codes = row
    cpu = run(f"{mnemonic} R", cpu_with(carry | V, before), 1)
    assert (register(cpu, 1), int(cpu.ps.value) & 15) == (after, codes)
    cpu = run(f"{mnemonic} (R)", holding(cpu_with(carry | V, PLACE), PLACE, before), 1)
    assert (stored(cpu, PLACE), int(cpu.ps.value) & 15) == (after, codes)
    kept = 0o123000
    cpu = run(f"{mnemonic}B R", cpu_with(carry | V, kept | narrow(before)), 1)
    assert (register(cpu, 1), int(cpu.ps.value) & 15) == (kept | narrow(after), codes)
    for odd, other in ((0, kept), (1, 0o123)):
        word, result = (narrow(value) << 8 * odd | other for value in (before, after))
        cpu = run(f"{mnemonic}B (R)", holding(cpu_with(carry | V, PLACE + odd), PLACE, word), 1)
        assert (stored(cpu, PLACE), int(cpu.ps.value) & 15) == (result, codes)


@pytest.mark.parametrize("row", DOUBLE + WORDS_ONLY)
def test_two_operands(row: tuple[str, int, int, int, int, int]) -> None:
    mnemonic, source, before, carry, after, codes = row
    cpu = run(f"{mnemonic} R, R", cpu_with(carry | V, source, before), 1, 2)
    assert (register(cpu, 2), register(cpu, 1), int(cpu.ps.value) & 15) == (after, source, codes)
    if row in DOUBLE:
        cpu = run(f"{mnemonic}B R, R", cpu_with(carry | V, narrow(source), 0o123000 | narrow(before)), 1, 2)
        assert (register(cpu, 2), int(cpu.ps.value) & 15) == (0o123000 | narrow(after), codes)
        cpu = run(f"{mnemonic} R, (R)", holding(cpu_with(carry | V, source, PLACE), PLACE, before), 1, 2)
        assert (stored(cpu, PLACE), int(cpu.ps.value) & 15) == (after, codes)
        cpu = run(f"{mnemonic} (R), R", holding(cpu_with(carry | V, PLACE, before), PLACE, source), 1, 2)
        assert (register(cpu, 2), int(cpu.ps.value) & 15) == (after, codes)


@pytest.mark.parametrize(
    ("before", "after", "codes"),
    [(0x12FF, 0xFF12, 0), (0x8012, 0x1280, N), (0x00FF, 0xFF00, Z)],  # N and Z of the low byte of the result
)
def test_swab(before: int, after: int, codes: int) -> None:
    cpu = run("SWAB R", cpu_with(V | C, before), 1)
    assert (register(cpu, 1), int(cpu.ps.value) & 15) == (after, codes)


# Of NZVC, when a branch is taken: chapter 4, branches.
TAKEN: Mapping[str, Callable[[bool, bool, bool, bool], bool]] = {
    "BR": lambda n, z, v, c: True,
    "BNE": lambda n, z, v, c: not z, "BEQ": lambda n, z, v, c: z,
    "BPL": lambda n, z, v, c: not n, "BMI": lambda n, z, v, c: n,
    "BVC": lambda n, z, v, c: not v, "BVS": lambda n, z, v, c: v,
    "BCC": lambda n, z, v, c: not c, "BCS": lambda n, z, v, c: c,
    "BGE": lambda n, z, v, c: n == v, "BLT": lambda n, z, v, c: n != v,
    "BGT": lambda n, z, v, c: not z and n == v, "BLE": lambda n, z, v, c: z or n != v,
    "BHI": lambda n, z, v, c: not c and not z, "BLOS": lambda n, z, v, c: c or z,
}  # fmt: skip


@pytest.mark.parametrize("mnemonic", TAKEN)
def test_a_branch_counts_words_from_the_next_instruction(mnemonic: str) -> None:
    for codes in range(16):
        taken = TAKEN[mnemonic](*(bool(codes & bit) for bit in (N, Z, V, C)))
        for offset, place in ((3, 0o1010), (0o177, 0o1400), (0o200, 0o402), (0o377, 0o1000)):
            cpu = run(f"{mnemonic} d", cpu_with(codes), offset)
            assert int(cpu.pc) == (place if taken else 0o1002), (codes, offset)
            assert int(cpu.ps.value) == codes


@pytest.mark.parametrize(
    ("form", "codes"),
    [("CLC", 14), ("CLV", 13), ("CLZ", 11), ("CLN", 7), ("CCC", 0), ("NOP", 15)],
)
def test_condition_codes_are_cleared(form: str, codes: int) -> None:
    assert int(run(form, cpu_with(15)).ps.value) & 15 == codes
    assert int(run(form, cpu_with(0)).ps.value) & 15 == 0


@pytest.mark.parametrize(
    ("form", "codes"), [("SEC", 1), ("SEV", 2), ("SEZ", 4), ("SEN", 8), ("SCC", 15), ("NOP", 0)]
)
def test_condition_codes_are_set(form: str, codes: int) -> None:
    assert int(run(form, cpu_with(0)).ps.value) & 15 == codes
    assert int(run(form, cpu_with(15)).ps.value) & 15 == 15


def test_jumps_and_calls() -> None:
    assert int(run("JMP (R)", cpu_with(0, 0o2000), 1).pc) == 0o2000
    cpu = run("JMP (R)+", cpu_with(0, 0o2000), 1)
    assert (int(cpu.pc), register(cpu, 1)) == (0o2000, 0o2002)
    assert int(run("JMP X(R)", cpu_with(0, 0o2000), 0o24, 1).pc) == 0o2024
    cpu = run("JMP @(R)+", holding(cpu_with(0, PLACE), PLACE, 0o3000), 1)
    assert (int(cpu.pc), register(cpu, 1)) == (0o3000, PLACE + 2)
    cpu = run("JSR PC, X(R)", cpu_with(0, 0o2000), 0o24, 1)  # two words long: the return is behind the second
    assert (int(cpu.pc), int(cpu.sp), stored(cpu, 0o676)) == (0o2024, 0o676, 0o1004)
    cpu = run("JSR PC, (R)", cpu_with(0, 0o2000), 1)
    assert (int(cpu.pc), int(cpu.sp), stored(cpu, 0o676)) == (0o2000, 0o676, 0o1002)
    cpu = run("JSR R, (R)", cpu_with(0, 0o2000, 0o55), 2, 1)  # R2 is pushed and links
    assert (int(cpu.pc), register(cpu, 2), stored(cpu, 0o676)) == (0o2000, 0o1002, 0o55)
    cpu = run("RTS R", holding(cpu_with(0, 0, 0o3000), 0o700, 0o66), 2)
    assert (int(cpu.pc), register(cpu, 2), int(cpu.sp)) == (0o3000, 0o66, 0o702)
    cpu = run("RTS PC", holding(cpu_with(0), 0o700, 0o3000))
    assert (int(cpu.pc), int(cpu.sp)) == (0o3000, 0o702)
    cpu = run("SOB R, o", cpu_with(0, 2), 1, 5)
    assert (int(cpu.pc), register(cpu, 1)) == (0o1002 - 0o12, 1)
    cpu = run("SOB R, o", cpu_with(0, 1), 1, 5)
    assert (int(cpu.pc), register(cpu, 1)) == (0o1002, 0)


def test_products_quotients_and_shifts() -> None:
    """R1 is the source, R2 and R3 the destination."""
    for source, factor, high, low, codes in (
        (2, 3, 0, 6, 0),
        (2, 0o100000, 0o177777, 0, N | C),  # -2^16: less than -2^15
        (1, 0o100000, 0o177777, 0o100000, N),
        (2, 0o40000, 0, 0o100000, C),  # 2^15
        (0, 5, 0, 0, Z),
    ):
        cpu = run("MUL R, Rn", cpu_with(15, source, factor, 0o77), 1, 2)
        assert (register(cpu, 2), register(cpu, 3), int(cpu.ps.value) & 15) == (high, low, codes)
    for high, low, by, quotient, rest, codes in (
        (0, 7, 2, 3, 1, 0),
        (0o177777, 0o177771, 2, 0o177775, 0o177777, N),  # -7 / 2 is -3, and -1 is left
        (0, 1, 2, 0, 1, Z),
    ):
        cpu = run("DIV R, Re", cpu_with(15, by, high, low), 1, 2)
        assert (register(cpu, 2), register(cpu, 3), int(cpu.ps.value) & 15) == (quotient, rest, codes)
    for count, before, after, codes in (
        (1, 0o40000, 0o100000, N | V),
        (0o77, 0o100001, 0o140000, N | C),  # -1: right
        (0o77, 1, 0, Z | C),
        (2, 1, 4, 0),
    ):
        cpu = run("ASH R, Rn", cpu_with(0, count, before), 1, 2)
        assert (register(cpu, 2), int(cpu.ps.value) & 15) == (after, codes)
