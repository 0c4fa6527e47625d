"""What string instructions, stack frames and arithmetic look at, drawn at random (see `popek.emulators.ia32.cases`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from popek.emulators.ia32.cases_builder import Ia32CaseBuilder
from popek.emulators.ia32.cases_protected import branch, port
from popek.emulators.ia32.step import DATA_BASE


def string(b: Ia32CaseBuilder) -> None:
    """Source and target, equal or not, and a small count."""
    form = b.instruction.form
    number = 3
    if form.endswith("seg"):
        number = b.operands["operand seg"] = b.rng.randrange(6)
    b.registers["esi"] = b.target(b.segment_of(number), 4) & 0xFFFFFFFF
    b.registers["edi"] = b.target(b.segment_of(0), 4) & 0xFFFFFFFF
    if form.startswith("REP"):
        b.registers["ecx"] = b.rng.choice((0, 1, 1, 2, 3, 5))
    b.registers["eax"] = b.rng.choice((0xF1F1F1F1, 0xF1, b.number()))
    if b.chance(0.6):
        b.put(DATA_BASE + 0x400, bytes(b.rng.choice((0xF1, 0, 0xFF)) for _ in range(0x100)))


def string_port(b: Ia32CaseBuilder) -> None:
    """INS and OUTS: as without REP, and a small count."""
    port(b)
    if b.instruction.form.startswith("REP"):
        b.registers["ecx"] = b.rng.choice((0, 1, 1, 2, 3))


def division(b: Ia32CaseBuilder) -> None:
    """DIV and AAM: the quotient fits, just so, or not; seldom by 0."""
    divisor = b.rng.choice((0, 1, 2, 10, 0x7F, 0x80, 0xFF, b.rng.getrandbits(8)))
    high = b.rng.choice((0, max(divisor - 1, 0), divisor, b.rng.getrandbits(8))) & 0xFF
    if b.instruction.mnemonic == "AAM":
        b.operands["operand imm8"] = divisor
    else:
        b.operands["operand r8"] = b.rng.choice((1, 2, 3, 5, 6, 7))
        b.general(b.operands["operand r8"] & 3, divisor | divisor << 8)
    b.registers["eax"] = b.rng.getrandbits(16) << 16 | high << 8 | b.rng.getrandbits(8)


def exchange_8(b: Ia32CaseBuilder) -> None:
    """CMPXCHG8B: equal every other time."""
    low, high = b.number(), b.number()
    b.point("m64", low.to_bytes(4, "little") + high.to_bytes(4, "little"))
    if b.chance(0.5):
        b.registers["eax"], b.registers["edx"] = low, high


def exchange(b: Ia32CaseBuilder) -> None:
    """CMPXCHG: equal every other time."""
    value = b.number()
    if "m32" in b.instruction.form:
        b.point("m32", value.to_bytes(4, "little"))
    else:
        b.register_operand("r32", value)
    if b.chance(0.5):
        b.registers["eax"] = value


def shift(b: Ia32CaseBuilder) -> None:
    """Counts around 0, 1, 31 and 32."""
    count = b.rng.choice((0, 1, 2, 31, 32, 33, 0xFF, b.rng.getrandbits(8)))
    if "imm8" in b.instruction.form:
        b.operands["operand imm8"] = count
    else:
        b.registers["ecx"] = b.number() & ~0xFF | count


def translate(b: Ia32CaseBuilder) -> None:
    """XLAT: a table at the edge of its segment or not."""
    b.operands["operand seg"] = b.rng.randrange(6)
    b.registers["eax"] = b.number() & ~0xFF | b.rng.getrandbits(8)
    at = b.target(b.segment_of(b.operands["operand seg"]), 1)
    b.registers["ebx"] = at - (b.registers["eax"] & 0xFF) & 0xFFFFFFFF


def counted(b: Ia32CaseBuilder) -> None:
    """LOOP and JECXZ: ECX near the end."""
    b.registers["ecx"] = b.rng.choice((0, 1, 2, 0x10000, b.number()))
    branch(b)


SPECIAL_GENERAL: Final[Mapping[str, Callable[[Ia32CaseBuilder], None]]] = {
    **dict.fromkeys(("MOVS", "STOS", "LODS", "CMPS", "SCAS"), string),
    **dict.fromkeys(("INS", "OUTS"), string_port),
    **dict.fromkeys(("SHL", "SHR", "SAR", "ROL", "ROR"), shift),
    "DIV": division, "AAM": division, "CMPXCHG8B": exchange_8, "CMPXCHG": exchange, "XLAT": translate,
    "LOOP": counted, "JECXZ rel8": counted,
}  # fmt: skip
"""By form or mnemonic."""
