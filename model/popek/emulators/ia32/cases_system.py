"""What the newer system instructions look at, drawn at random (see `popek.emulators.ia32.cases`)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from popek.architectures.ia32.msrs import (
    APIC_BSP,
    APIC_ENABLED,
)
from popek.architectures.ia32.state import CR4_PKE
from popek.architectures.x86.msrs import (
    IA32_APIC_BASE,
    IA32_EFER,
    IA32_PAT,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
    IA32_TIME_STAMP_COUNTER,
    IA32_TSC_AUX,
)
from popek.emulators.ia32.cases_builder import LANDING, Ia32CaseBuilder
from popek.emulators.ia32.step import (
    CODE_SELECTORS,
    DATA_BASE,
    RESERVED_SELECTOR,
    STACK_TOPS,
)

OSXSAVE: Final = 1 << 18
TSD: Final = 1 << 2
APIC_AT_RESET: Final = 0xFEE00000 | APIC_BSP | APIC_ENABLED
NO_MSRS: Final = (0x12345678, 0xFFFFFFFF, 0x4000)
"""Numbers that no processor has."""


def often(b: Ia32CaseBuilder, bit: int, probability: float = 0.7) -> None:
    """A bit of CR4 that the instruction asks about, mostly set."""
    value = b.registers.get("cr4", 0)
    b.registers["cr4"] = value | bit if b.chance(probability) else value & ~bit


def fast_system_call(b: Ia32CaseBuilder) -> None:
    """SYSENTER and SYSEXIT: their MSRs, and where they lead."""
    selector = b.rng.choice(
        (CODE_SELECTORS[0], CODE_SELECTORS[0] | 3, RESERVED_SELECTOR, 0x100, 0xFFF8, 0, 3, 4)
    )
    b.msrs[IA32_SYSENTER_CS] = selector | (b.rng.getrandbits(16) << 16 if b.chance(0.2) else 0)
    b.msrs[IA32_SYSENTER_ESP] = STACK_TOPS[0] - b.rng.choice((0, 0, 1, 0x100))
    b.msrs[IA32_SYSENTER_EIP] = LANDING
    b.registers["ecx"], b.registers["edx"] = STACK_TOPS[3] - b.rng.choice((0, 2)), LANDING


def counters_and_ids(b: Ia32CaseBuilder) -> None:
    """RDTSCP, RDPID: TSC_AUX and CR4.TSD."""
    often(b, TSD, 0.4)
    b.msrs[IA32_TSC_AUX] = b.number()


def identification(b: Ia32CaseBuilder) -> None:
    """CPUID: leaves that mirror CR4, and others."""
    often(b, OSXSAVE, 0.5)
    often(b, CR4_PKE, 0.5)
    b.registers["eax"] = b.rng.choice((0, 1, 1, 7, 7, 7, 0xD, 0x80000000, 0x80000001, b.number()))
    b.registers["ecx"] = b.rng.choice((0, 0, 1, b.number()))


def extended_control(b: Ia32CaseBuilder) -> None:
    """XGETBV, XSETBV: which register and which value."""
    often(b, OSXSAVE)
    b.registers["xcr0"] = b.rng.choice((1, 3, 7))
    b.registers["ecx"] = b.rng.choice((0, 0, 0, 0, 1, 2, 0x80000000, 0xFFFFFFFF))
    b.registers["eax"] = b.rng.choice((1, 3, 7, 5, 0, 2, 6, 9, 0x11, 0x201, 0xE7))
    b.registers["edx"] = b.rng.choice((0, 0, 0, 1 << 31, 1))


def protection_keys(b: Ia32CaseBuilder) -> None:
    """RDPKRU, WRPKRU."""
    often(b, CR4_PKE)
    b.registers["pkru"] = b.number()
    b.registers["ecx"] = b.rng.choice((0, 0, 0, 1, 0x80000000))
    b.registers["edx"] = b.rng.choice((0, 0, 0, 1))


def extended_area(b: Ia32CaseBuilder) -> None:
    """XSAVE and FXSAVE: an area of zeros, aligned or not; TS, EM and OSXSAVE on either side."""
    often(b, OSXSAVE)
    for bit, probability in ((1 << 3, 0.25), (1 << 2, 0.2)):
        value = b.registers.get("cr0", 0x11)
        b.registers["cr0"] = value | bit if b.chance(probability) else value & ~bit
    b.registers["eax"], b.registers["edx"] = b.rng.choice((0, 1, 3, 7, 0xFFFFFFFF)), 0
    number, segment = b.flat_segment()
    offset = DATA_BASE + 0x1000 - segment.base
    offset += b.rng.choice((0, 0, 0, 0, 16, 32, 8, 1))
    b.operands["operand m.segment"], b.operands["operand m.offset"] = number, offset & 0xFFFFFFFF
    area = bytearray(0x400)
    if b.instruction.mnemonic == "XRSTORS":
        area[527] = 0x80  # the compacted format, which alone it accepts
    b.put(DATA_BASE + 0x1000, bytes(area))


def coprocessor(b: Ia32CaseBuilder) -> None:
    """FWAIT, FNOP, EMMS: CR0.MP, EM and TS."""
    value = b.registers.get("cr0", 0x11) & ~0xE
    b.registers["cr0"] = value | b.subset((2, 4, 8), 0.4)


def invalidate(b: Ia32CaseBuilder) -> None:
    """INVPCID: types and descriptors."""
    kind = b.rng.choice((0, 1, 2, 3, 3, 4, 0x80000000))
    pcid = b.rng.choice((0, 0, 0, 1, 0xFFF, 0x1000, 1 << 63))
    b.register_operand("r32", kind)
    b.point("m128", struct.pack("<QQ", pcid, b.number()))


def monitor(b: Ia32CaseBuilder) -> None:
    """MONITOR: ECX, and an address at the edge of its segment."""
    number = b.rng.randrange(6)
    b.operands["operand seg"] = number
    b.registers["eax"] = b.target(b.segment_of(number), 1) & 0xFFFFFFFF
    b.registers["ecx"] = b.rng.choice((0, 0, 0, 1, 0x80000000))


def mwait(b: Ia32CaseBuilder) -> None:
    """MWAIT: extensions in ECX; nothing was armed, so it does not wait."""
    b.registers["ecx"] = b.rng.choice((0, 0, 1, 2, 0x80000000))


def bound(b: Ia32CaseBuilder) -> None:
    """BOUND: an index below, between, at and above its bounds."""
    size = 16 if "r16" in b.instruction.form else 32
    mask = (1 << size) - 1
    lower = b.rng.choice((0, -1, -0x8000, 5))
    upper = lower + b.rng.choice((0, 1, 10, -1, 0x7FFF))
    index = b.rng.choice((lower, upper, lower - 1, upper + 1, (lower + upper) // 2))
    pack = "<HH" if size == 16 else "<II"
    b.point(f"m{size}&{size}", struct.pack(pack, lower & mask, upper & mask))
    b.register_operand(f"r{size}", index & mask)


def model_specific(b: Ia32CaseBuilder) -> None:
    """RDMSR, WRMSR: an MSR that exists, or one that surely does not, and values it may refuse."""
    known: Mapping[int, Callable[[Ia32CaseBuilder], int]] = {
        IA32_SYSENTER_CS: _address, IA32_SYSENTER_ESP: _address, IA32_SYSENTER_EIP: _address,
        IA32_PAT: _memory_types, IA32_TSC_AUX: _address, IA32_EFER: _efer, IA32_APIC_BASE: _apic_base,
    }  # fmt: skip
    number = b.rng.choice((*known, IA32_PAT, IA32_TIME_STAMP_COUNTER, *NO_MSRS))
    b.registers["ecx"] = number
    initial = {IA32_PAT: 0x0007040600070406, IA32_APIC_BASE: APIC_AT_RESET, IA32_EFER: 0}
    if number in known:
        b.msrs[number] = initial[number] if number in initial else b.number()
        value = known[number](b)
        b.registers["eax"], b.registers["edx"] = value & 0xFFFFFFFF, value >> 32


def _address(b: Ia32CaseBuilder) -> int:
    return b.number() | (0 if b.chance(0.9) else b.number() << 32)


def _memory_types(b: Ia32CaseBuilder) -> int:
    kinds = [b.rng.choice((0, 1, 4, 5, 6, 7)) for _ in range(8)]
    if b.chance(0.4):
        kinds[b.rng.randrange(8)] = b.rng.choice((2, 3, 8, 0x10, 0xFF))
    return int.from_bytes(bytes(kinds), "little")


def _efer(b: Ia32CaseBuilder) -> int:
    """Nothing, or what is refused: the SMI that ends a step brings back the harness's own value."""
    return b.rng.choice((0, 0, 1 << 12 | 1 << 11, 1 << 1, 1 << 63, 1 << 16, 1 << 9))


def _apic_base(b: Ia32CaseBuilder) -> int:
    """The harness's watchdog needs the APIC: only values that change nothing, or are refused."""
    return APIC_AT_RESET | b.rng.choice((0, 0, 1, 1 << 7, 1 << 9, 1 << 63))


SPECIAL: Final[Mapping[str, Callable[[Ia32CaseBuilder], None]]] = {
    "SYSENTER": fast_system_call, "SYSEXIT": fast_system_call,
    "RDTSCP": counters_and_ids, "RDPID": counters_and_ids, "CPUID": identification,
    "XGETBV": extended_control, "XSETBV": extended_control,
    "RDPKRU": protection_keys, "WRPKRU": protection_keys,
    **dict.fromkeys(("XSAVE", "XSAVEOPT", "XSAVEC", "XSAVES", "XRSTOR", "XRSTORS", "FXSAVE", "FXRSTOR"), extended_area),
    **dict.fromkeys(("FWAIT", "FNOP", "EMMS"), coprocessor),
    "INVPCID": invalidate, "MONITOR": monitor, "MWAIT": mwait, "BOUND": bound,
    "RDMSR": model_specific, "WRMSR": model_specific,
}  # fmt: skip
"""By mnemonic."""

PRIVILEGED: Final = frozenset(
    (
        "SYSEXIT",
        "XSETBV",
        "XSAVES",
        "XRSTORS",
        "INVPCID",
        "MONITOR",
        "MWAIT",
        "VMXON",
        "WBNOINVD",
        "CLAC",
        "STAC",
    )
)
"""The mnemonics that complete at CPL 0 only."""
