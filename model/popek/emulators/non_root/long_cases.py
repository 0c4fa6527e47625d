"""Random steps of a 64-bit guest: an instruction and its state as for bare x86-64, and VM-execution controls around it.

The state comes from `popek.emulators.x86_64.cases`; controls are drawn as for a 32-bit guest.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs

from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.guests.case import LongCase, bytes_shown
from popek.emulators.guests.drawing import CD, NW, VMXE, port_bits
from popek.emulators.guests.long_drawing import without_segment
from popek.emulators.guests.long_memory import moved_table
from popek.emulators.x86_64 import cases as x86_64_cases
from popek.emulators.x86_64.step import KERNEL_DATA, STACK_TOPS, USER_DATA
from popek.kernel.instruction import Instruction

from .cases import (
    ACTIVATE_SECONDARY,
    ENABLE_EPT,
    NE,
    PRIMARY,
    SECONDARY,
    TPR_SHADOW,
    UNRESTRICTED_GUEST,
    VIRTUAL_INTERRUPTS,
    VIRTUAL_REGISTERS,
    VIRTUAL_X2APIC,
    cr3_targets,
    drawn,
    exceptions,
    field_bitmaps,
    in_io_bitmaps,
    machine_status,
    mask_of,
    msr_bitmap,
    near,
    times,
    virtual_apic,
    vm_function,
    vm_functions,
)
from .harness import GUEST_PAGES

CR8_LOAD, CR8_STORE = 1 << 19, 1 << 20
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")


@attrs.frozen
class VmxLongCase(LongCase):
    """A step of a guest in IA-32e mode.

    Attributes:
        xss: IA32_XSS.
        kept: pages of the arena that EPT keeps from the guest, and what it may do: nothing (0), or all but write (5).
        bitmaps: bytes in the control pages: (address, bytes).
    """

    xss: int = 0
    kept: Mapping[int, int] = attrs.field(factory=dict)
    bitmaps: tuple[tuple[int, bytes], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**super().to_json(), "bitmaps": bytes_shown(self.bitmaps)}


def random_long_case(instruction: Instruction, cpl: int, rng: random.Random, *, long: bool) -> VmxLongCase:
    """Draw a step for one form at one privilege level."""
    guest = x86_64_cases.random_case(instruction, cpl, long, rng)
    registers = dict(guest.registers)
    moved = _adapt(instruction, guest, registers, rng)
    controls: dict[str, int] = {}
    bitmaps: list[tuple[int, bytes]] = []
    primary, secondary = drawn(PRIMARY, rng), drawn(SECONDARY, rng)
    if rng.random() < 0.5:
        secondary |= ENABLE_EPT | (UNRESTRICTED_GUEST if rng.random() < 0.5 else 0)
    if instruction.form.endswith("CR8") or "CR8," in instruction.form:
        primary |= rng.choice((0, 0, CR8_LOAD, CR8_STORE, CR8_LOAD | CR8_STORE))
        if rng.random() < 0.6:
            primary |= TPR_SHADOW
            bitmaps += virtual_apic({}, controls, rng)
            if rng.random() < 0.5:
                secondary |= VIRTUAL_INTERRUPTS
                bitmaps += _requests(registers, controls, rng)
    elif instruction.form in ("RDMSR", "WRMSR") and rng.random() < 0.4:
        primary |= TPR_SHADOW | (1 << PRIMARY["USE_MSR_BITMAPS"] if rng.random() < 0.9 else 0)
        secondary |= VIRTUAL_X2APIC | (VIRTUAL_REGISTERS if rng.random() < 0.5 else 0)
        named: dict[str, int] = {}
        bitmaps += virtual_apic(named, controls, rng)
        registers |= {f"r{name[1:]}": value for name, value in named.items()}
        if rng.random() < 0.6:
            secondary |= VIRTUAL_INTERRUPTS
            bitmaps += _requests(registers, controls, rng)
            if rng.random() < 0.8:
                registers["rcx"] = rng.choice((0x808, 0x80B, 0x80B, 0x83F, 0x83F))
                registers["rax"] = rng.choice((0, 0, rng.getrandbits(8), 1 << rng.randrange(32)))
                registers["rdx"] = rng.choice((0, 0, 0, 0, 1 << rng.randrange(32)))
    if instruction.mnemonic in ("VMREAD", "VMWRITE"):
        place = "operand r64 2" if instruction.mnemonic == "VMREAD" else "operand r64"
        bitmaps += field_bitmaps(GPR_NAMES[guest.operands[place]], registers, rng, "rsp")
    if instruction.form == "VMFUNC":
        functions = (0, 0, 1, 63, 64, 1 << 31, 1 << 32, rng.getrandbits(64))
        registers["rax"], registers["rcx"] = vm_function(functions, 64, rng)
        secondary |= vm_functions(secondary, controls, rng)
    if secondary or rng.random() < 0.5:
        primary |= ACTIVATE_SECONDARY
    controls["PRIMARY_PROC_CONTROLS"], controls["SECONDARY_PROC_CONTROLS"] = primary, secondary
    _control_registers(instruction, moved, controls, rng)
    exceptions(instruction, controls, rng)
    port, msr = registers.get("rdx", 0) & 0xFFFF, registers.get("rcx", 0) & 0xFFFF_FFFF
    if primary >> PRIMARY["USE_IO_BITMAPS"] & 1:
        ports = [port, *(guest.operands[name] for name in ("operand imm8",) if name in guest.operands)]
        bitmaps += port_bits(ports, in_io_bitmaps, rng)
    if primary >> PRIMARY["USE_MSR_BITMAPS"] & 1:
        bitmaps += msr_bitmap(msr, rng, seldom=bool(secondary & VIRTUAL_X2APIC))
    times(primary, secondary, controls, rng)
    xss = 0
    if instruction.mnemonic in ("XSAVES", "XRSTORS"):
        chosen = rng.choice((0, 1 << 11, 1 << 12, 3 << 11))  # CET state
        xss, controls["XSS_EXITING_BITMAP"] = chosen, rng.getrandbits(64) & rng.getrandbits(64)
    guest = attrs.evolve(guest, registers=registers)
    relative = long and without_segment(guest) and rng.random() < 0.3
    kept = {}
    if secondary & ENABLE_EPT and rng.random() < 0.5:
        pages = rng.sample((KERNEL_DATA >> 12, USER_DATA >> 12, STACK_TOPS[cpl] - 1 >> 12), 2)
        kept = dict(zip(pages, rng.sample((0, 5), 2), strict=True))
    return VmxLongCase(guest, relative, xss, kept, tuple(bitmaps), controls=controls)


def _requests(
    registers: dict[str, int], controls: dict[str, int], rng: random.Random
) -> list[tuple[int, bytes]]:
    """Vectors requested and in service, few and often near, of a guest that takes none: its IF is 0."""
    registers["rflags"] = registers.get("rflags", 2) & ~0x200
    controls["TPR_THRESHOLD"] = 0
    middle = rng.randrange(16, 256)
    drawn = []
    status = 0
    for at in (0x200, 0x100):  # VIRR, VISR
        vectors = {rng.choice((middle, rng.randrange(256), middle ^ 1 << rng.randrange(8))) for _ in range(3)}
        vectors = set(rng.sample(sorted(vectors), rng.randrange(len(vectors) + 1)))
        for number in range(8):
            word = sum(1 << vector % 32 for vector in vectors if vector // 32 == number)
            drawn.append((GUEST_PAGES.virtual_apic + at + 16 * number, word.to_bytes(4, "little")))
        status = status << 8 | max(vectors, default=0)
    # Status has what is requested in its low half.
    controls["GUEST_INTERRUPT_STATUS"] = status >> 8 | (status & 0xFF) << 8
    for number in range(4):
        controls[f"EOI_EXIT_BITMAP{number}"] = rng.choice((0, (1 << 64) - 1, rng.getrandbits(64)))
    return drawn


def _adapt(
    instruction: Instruction, guest: x86_64_cases.X64Case, registers: dict[str, int], rng: random.Random
) -> int:
    """Keep the guest alive, and let most values moved be ones that VMX operation allows; the value moved."""
    state = guest.state()
    registers.pop("xcr0", None)
    registers.pop("pkru", None)
    registers["cr0"] = (state["cr0"] | NE) & ~(NW | CD)  # VM entry does not load these two
    registers["cr4"] = state["cr4"] | VMXE
    for name, value in {**state, **registers}.items():
        if name in ("cr3", *GPR_NAMES) and moved_table(value) != value:
            registers[name] = moved_table(value)
    for name in _SEGMENTS:
        limit, rights = state[f"{name}.limit"], state[f"{name}.rights"]
        if not rights >> 16:  # VM entry wants the granularity that the limit has
            fine = limit & 0xFFF != 0xFFF
            registers[f"{name}.rights"] = (
                rights & ~0x8000 if fine else rights | (0x8000 if limit >> 20 else 0)
            )
    register = next(
        (n for name, n in guest.operands.items() if name.startswith(("operand r64", "operand r16"))), None
    )
    if instruction.mnemonic not in ("MOV to CR", "LMSW") or register is None:
        return rng.getrandbits(64)
    name = GPR_NAMES[register]
    value = registers.get(name, state[name])
    if name != "rsp" and rng.random() < 0.85:
        value |= {"MOV CR0, r64": NE, "MOV CR4, r64": VMXE}.get(instruction.form, 0)
        registers[name] = value
    return value


def _control_registers(
    instruction: Instruction, moved: int, controls: dict[str, int], rng: random.Random
) -> None:
    """Masks and read shadows near the value moved, and CR3 targets."""
    moves = instruction.mnemonic in ("MOV to CR", "MOV from CR", "LMSW", "CLTS", "SMSW")
    if not moves and rng.random() < 0.6:
        return
    for name, favoured in (("CR0", 0xE005_003F), ("CR4", 0x0037_7FFF)):
        high = rng.choice((0, 0, 0, 1 << rng.randrange(32), 0xFFFF_FFFF)) << 32
        controls[f"{name}_GUEST_HOST_MASK"] = mask_of(rng, favoured) | high
        controls[f"{name}_READ_SHADOW"] = near(moved, rng, 64 if high and rng.random() < 0.3 else 32)
    if instruction.mnemonic in ("LMSW", "CLTS"):
        machine_status(instruction, moved, controls, rng)
    cr3_targets(moved, controls, rng, 64)
