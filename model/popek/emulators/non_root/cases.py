"""Random steps of a guest: an instruction and its state as for bare IA-32, and VM-execution controls around it.

The state comes from `popek.emulators.ia32.cases`.  Which controls are set is drawn for each case; those that
govern the instruction are drawn near what it moves: masks and shadows differ from a control register's value in
few bits, a CR3 target is now and then the value, the bitmaps have a bit at the port or MSR, or beside it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from popek.emulators.guests.case import ProtectedCase, bytes_shown
from popek.emulators.guests.drawing import (
    GENERAL,
    PG,
    SMXE,
    VMXE,
    barred_pages,
    keep_alive,
    port_bits,
    ports_of,
    table_root,
    time_offset,
)
from popek.emulators.ia32 import cases as ia32_cases
from popek.kernel.instruction import Instruction

from .harness import GUEST_PAGES

NE = 1 << 5
"""Of CR0."""

PRIMARY: Final[Mapping[str, int]] = {
    "USE_TSC_OFFSETTING": 3,
    "HLT_EXITING": 7,
    "INVLPG_EXITING": 9,
    "MWAIT_EXITING": 10,
    "RDPMC_EXITING": 11,
    "RDTSC_EXITING": 12,
    "CR3_LOAD_EXITING": 15,
    "CR3_STORE_EXITING": 16,
    "MOV_DR_EXITING": 23,
    "UNCONDITIONAL_IO_EXITING": 24,
    "USE_IO_BITMAPS": 25,
    "USE_MSR_BITMAPS": 28,
    "MONITOR_EXITING": 29,
    "PAUSE_EXITING": 30,
}
"""The primary controls that are drawn, with their bits."""

SECONDARY: Final[Mapping[str, int]] = {
    "DESCRIPTOR_TABLE_EXITING": 2,
    "ENABLE_RDTSCP": 3,
    "WBINVD_EXITING": 6,
    "RDRAND_EXITING": 11,
    "ENABLE_INVPCID": 12,
    "VMCS_SHADOWING": 14,
    "RDSEED_EXITING": 16,
    "ENABLE_XSAVES": 20,
    "USE_TSC_SCALING": 25,
}
"""The secondary controls that are drawn, with their bits."""

TPR_SHADOW, VIRTUAL_X2APIC, VIRTUAL_REGISTERS, VM_FUNCTIONS = 1 << 21, 1 << 4, 1 << 8, 1 << 13
VIRTUAL_INTERRUPTS = 1 << 9
VTPR_AT: Final = GUEST_PAGES.virtual_apic + 0x80
ACTIVATE_SECONDARY, ENABLE_EPT, UNRESTRICTED_GUEST = 1 << 31, 1 << 1, 1 << 7
_CONTROL_MOVES: Final = ("MOV CR0, r32", "MOV CR4, r32", "MOV CR3, r32", "LMSW r16", "LMSW m16", "CLTS")


CAPABILITY_MSRS: Final = range(0x480, 0x48B)
"""The VMX capability MSRs of every processor."""


@attrs.frozen
class VmxGuestCase(ProtectedCase):
    """A step of a 32-bit guest of VMX, without what VMX operation wants of CR0 and CR4.

    Without paging it has EPT and is an unrestricted guest.

    Attributes:
        bitmaps: bytes in the control pages: (address, bytes).
    """

    bitmaps: tuple[tuple[int, bytes], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**super().to_json(), "bitmaps": bytes_shown(self.bitmaps)}


def random_case(instruction: Instruction, cpl: int, rng: random.Random, model: str = "") -> VmxGuestCase:
    """Draw a step for one form at one privilege level."""
    guest = ia32_cases.random_case(instruction, cpl, rng)
    paging = rng.random() < 0.5
    registers = dict(guest.registers)
    _adapt(instruction, guest, registers, paging, rng)
    guest = attrs.evolve(guest, registers=registers)
    controls: dict[str, int] = {}
    bitmaps: list[tuple[int, bytes]] = []
    primary, secondary = drawn(PRIMARY, rng), drawn(SECONDARY, rng)
    if not paging:
        secondary |= ENABLE_EPT | UNRESTRICTED_GUEST
    if instruction.form in ("RDMSR", "WRMSR") and rng.random() < 0.4:
        primary |= TPR_SHADOW
        secondary |= VIRTUAL_X2APIC
        if rng.random() < 0.9:
            primary |= 1 << PRIMARY["USE_MSR_BITMAPS"]
        bitmaps += virtual_apic(registers, controls, rng)
        secondary |= VIRTUAL_REGISTERS if rng.random() < 0.5 else 0
    elif instruction.form in ("RDMSR", "WRMSR") and rng.random() < 0.3:
        registers["ecx"] = rng.choice(CAPABILITY_MSRS)
    if instruction.mnemonic in ("VMREAD", "VMWRITE"):
        last = "operand r32 2" if instruction.form == "VMREAD r32, r32" else "operand r32"
        bitmaps += field_bitmaps(GENERAL[guest.operands[last]], registers, rng, "esp")
    if instruction.form == "VMFUNC":
        functions = (0, 0, 1, 63, 64, 1 << 31)
        registers["eax"], registers["ecx"] = vm_function(functions, 32, rng)
        secondary |= vm_functions(secondary, controls, rng)
    if secondary or rng.random() < 0.5:
        primary |= ACTIVATE_SECONDARY
    controls["PRIMARY_PROC_CONTROLS"], controls["SECONDARY_PROC_CONTROLS"] = primary, secondary
    _control_registers(instruction, guest, controls, rng)
    exceptions(instruction, controls, rng)
    if primary >> PRIMARY["USE_IO_BITMAPS"] & 1:
        bitmaps += port_bits(ports_of(guest), in_io_bitmaps, rng)
    if primary >> PRIMARY["USE_MSR_BITMAPS"] & 1:
        bitmaps += msr_bitmap(guest.registers.get("ecx", 0), rng, seldom=bool(secondary & VIRTUAL_X2APIC))
    times(primary, secondary, controls, rng)
    barred = barred_pages(rng) if paging and cpl == 3 and rng.random() < 0.3 else {}
    return VmxGuestCase(guest, paging, tuple(bitmaps), controls=controls, barred=barred)


def _adapt(
    instruction: Instruction,
    guest: ia32_cases.Ia32Case,
    registers: dict[str, int],
    paging: bool,
    rng: random.Random,
) -> None:
    """Keep a guest alive that pages, and let most values moved be ones that VMX operation allows."""
    unwanted = keep_alive(registers, paging, ~SMXE)
    name = _moved_register(instruction, guest)
    if name is None:
        return
    value = registers.get(name, 0)
    if instruction.form == "MOV CR0, r32":
        if rng.random() < 0.8:
            value |= NE
        if rng.random() < 0.9:
            value = value | PG if paging else value & ~PG
    elif instruction.form == "MOV CR4, r32":
        value &= ~SMXE
        if rng.random() < 0.8:
            value |= VMXE
        value &= ~unwanted
    elif instruction.form == "MOV CR3, r32" and paging:
        value = table_root(rng)
    if name != "esp":
        registers[name] = value


def _moved_register(instruction: Instruction, guest: ia32_cases.Ia32Case) -> str | None:
    """The general register that an instruction moves to a control register."""
    if instruction.mnemonic not in ("MOV to CR", "LMSW"):
        return None
    number = guest.operands.get("operand r32", guest.operands.get("operand r16"))
    return None if number is None else GENERAL[number]


def drawn(bits: Mapping[str, int], rng: random.Random) -> int:
    """Some of the bits: none, few, many or all."""
    density = rng.choice((0.0, 0.2, 0.5, 0.5, 0.8, 1.0))
    return sum(1 << bit for bit in bits.values() if rng.random() < density)


def near(value: int, rng: random.Random, bits: int = 32) -> int:
    """The value, or one that differs in few bits."""
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        value ^= 1 << rng.randrange(bits)
    return value


def mask_of(rng: random.Random, favoured: int) -> int:
    """A guest/host mask, often of some of the favoured bits."""
    way = rng.random()
    if way < 0.15:
        return 0
    if way < 0.25:
        return 0xFFFF_FFFF
    if way < 0.6:
        return favoured & rng.getrandbits(32) | (1 << rng.randrange(32) if rng.random() < 0.3 else 0)
    return rng.getrandbits(32) & rng.getrandbits(32)


def _control_registers(
    instruction: Instruction, guest: ia32_cases.Ia32Case, controls: dict[str, int], rng: random.Random
) -> None:
    """Masks and read shadows near the value moved, and CR3 targets."""
    name = _moved_register(instruction, guest)
    moved = guest.registers.get(name, 0) if name else rng.getrandbits(32)
    if (
        instruction.mnemonic not in ("MOV to CR", "MOV from CR", "LMSW", "CLTS", "SMSW")
        and rng.random() < 0.6
    ):
        return
    controls["CR0_GUEST_HOST_MASK"] = mask_of(rng, 0xE005_003F)
    controls["CR4_GUEST_HOST_MASK"] = mask_of(rng, 0x0037_7FFF)
    if instruction.mnemonic in ("LMSW", "CLTS"):
        machine_status(instruction, moved, controls, rng)
        controls["CR4_READ_SHADOW"] = rng.getrandbits(32)
    else:
        controls["CR0_READ_SHADOW"] = near(moved, rng)
        controls["CR4_READ_SHADOW"] = near(moved, rng)
    cr3_targets(moved, controls, rng, 32)


def machine_status(
    instruction: Instruction, moved: int, controls: dict[str, int], rng: random.Random
) -> None:
    """Mask and shadow of the low bits of CR0, near what LMSW and CLTS do to them."""
    owned = rng.choice((0, 0, 0xF, 8, 8, 1, 6, 7, rng.randrange(16)))
    controls["CR0_GUEST_HOST_MASK"] = controls["CR0_GUEST_HOST_MASK"] & ~0xF | owned
    low = moved & 0xF if instruction.form == "LMSW r16" else rng.randrange(16)
    controls["CR0_READ_SHADOW"] = rng.getrandbits(28) << 4 | near(low, rng, 4)


def cr3_targets(moved: int, controls: dict[str, int], rng: random.Random, width: int) -> None:
    """CR3 targets at or near the value moved."""
    controls["CR3_TARGET_COUNT"] = rng.randrange(5)
    for number in range(4):
        controls[f"CR3_TARGET_VALUE{number}"] = moved if rng.random() < 0.2 else near(moved, rng, width)


def exceptions(instruction: Instruction, controls: dict[str, int], rng: random.Random) -> None:
    """The exception bitmap: every vector on both sides; INT1 mostly leaves, because it ends steps."""
    way = rng.random()
    bitmap = 0xFFFF_FFFF if way < 0.3 else 0 if way < 0.5 else rng.getrandbits(32)
    if instruction.form != "INT1" or rng.random() < 0.5:
        bitmap |= 1 << 1
    if instruction.form == "INT1":
        bitmap |= 1 << 6  # its handlers end with UD2
    controls["EXCEPTION_BITMAP"] = bitmap
    if rng.random() < 0.6:
        controls["PF_ERROR_CODE_MASK"] = rng.choice((0, 1, 2, 4, 7, 6, 0xF, 0x1F, 1 << 16))
        controls["PF_ERROR_CODE_MATCH"] = rng.choice((0, 1, 2, 3, 4, 5, 7, 0x10000))


def in_io_bitmaps(port: int) -> tuple[int, int]:
    """The address and the bit of a port in the I/O bitmaps."""
    near = port & 0xFFFF
    page = GUEST_PAGES.io_bitmap_b if near & 0x8000 else GUEST_PAGES.io_bitmap_a
    return page + (near & 0x7FFF) // 8, near % 8


def field_bitmaps(
    name: str, registers: dict[str, int], rng: random.Random, stack: str
) -> list[tuple[int, bytes]]:
    """Often an encoding that the VMREAD and VMWRITE bitmaps list, and the byte of each around its bit.

    Args:
        name: the register that has the encoding.
        stack: the stack pointer, which is left alone.
    """
    if name != stack and rng.random() < 0.8:
        registers[name] = rng.randrange(0x8000) | (1 << rng.randrange(15, 32) if rng.random() < 0.2 else 0)
    encoding = registers.get(name, 0)
    if encoding >= 0x8000:
        return []
    return [
        (page + encoding // 8, bytes([rng.getrandbits(8)]))
        for page in (GUEST_PAGES.vmread_bitmap, GUEST_PAGES.vmwrite_bitmap)
    ]


def virtual_apic(
    registers: dict[str, int], controls: dict[str, int], rng: random.Random
) -> list[tuple[int, bytes]]:
    """A register of the x2APIC, mostly the TPR, and a VTPR that VM entry takes: not below the threshold."""
    registers["ecx"] = 0x808 if rng.random() < 0.7 else rng.randrange(0x7FE, 0x902)
    controls["TPR_THRESHOLD"] = rng.choice((0, 1, rng.randrange(16)))
    vtpr = rng.randrange(controls["TPR_THRESHOLD"], 16) << 4 | rng.randrange(16)
    if rng.random() < 0.8:
        registers["eax"] = rng.choice((0, 0x10, 0xFF, rng.getrandbits(8), 1 << rng.randrange(32)))
        registers["edx"] = rng.choice((0, 0, 0, 1 << rng.randrange(32)))
    return [(VTPR_AT, bytes([vtpr]) + rng.randbytes(7))]


def vm_function(functions: Sequence[int], width: int, rng: random.Random) -> tuple[int, int]:
    """The number of a VM function, and of an entry of its list."""
    function = rng.choice(functions)
    return function, rng.choice((511, 512, 513, 1 << 31, rng.getrandbits(width)))


def vm_functions(secondary: int, controls: dict[str, int], rng: random.Random) -> int:
    """The secondary control by which there are VM functions, which only a guest with EPT has, and which of them."""
    if not secondary & ENABLE_EPT:
        return 0
    found = VM_FUNCTIONS if rng.random() < 0.7 else 0
    controls["VMFUNC_CONTROLS"] = rng.getrandbits(1)
    return found


def times(primary: int, secondary: int, controls: dict[str, int], rng: random.Random) -> None:
    """TSC offset and multiplier where the controls use them."""
    if primary >> PRIMARY["USE_TSC_OFFSETTING"] & 1:
        controls["TSC_OFFSET"] = time_offset(rng)
    if secondary >> SECONDARY["USE_TSC_SCALING"] & 1:
        controls["TSC_MULTIPLIER"] = rng.choice((1 << 48, 1 << 48, 2 << 48, 1 << 47, 3 << 46))


def msr_bitmap(number: int, rng: random.Random, *, seldom: bool = False) -> list[tuple[int, bytes]]:
    """The bits of the case's MSR, and of the ones beside it."""
    high = number & 0xFFFF_E000 == 0xC000_0000
    if not high and number >= 0x2000:
        return []
    at = GUEST_PAGES.msr_bitmap + (0x400 if high else 0) + (number & 0x1FFF) // 8
    if seldom and rng.random() < 0.8:
        return []
    return [(at, bytes([rng.getrandbits(8)])), (at + 0x800, bytes([rng.getrandbits(8)]))]
