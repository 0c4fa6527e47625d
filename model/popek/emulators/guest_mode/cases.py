"""Random steps of an SVM guest: an instruction and its state as for bare IA-32, and a VMCB's controls around it.

The state comes from `popek.emulators.ia32.cases`.  Which intercepts are set is drawn for each case; the permissions
maps have a bit at the port or MSR, or beside it.  What ends a step is always intercepted: VMMCALL, HLT, shutdown, and
INT1 and #UD where they are landing places.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

from popek.architectures.svm.operation.guest_mode import MSR_RANGES
from popek.architectures.svm.operation.settings import bits
from popek.emulators.guests.case import ProtectedCase, bytes_shown
from popek.emulators.guests.drawing import (
    GENERAL,
    PG,
    VMXE,
    barred_pages,
    keep_alive,
    port_bits,
    ports_of,
    table_root,
    time_offset,
)
from popek.emulators.ia32 import cases as ia32_cases
from popek.emulators.vmrun.harness import DEFAULT_MODEL, processor
from popek.kernel.instruction import Instruction

from .harness import IOPM, MSRPM

ALWAYS: Final = (
    "vector3.hlt", "vector3.shutdown", "vector3.task_switch", "vector4.vmrun", "vector4.vmmcall", "vector4.vmload",
    "vector4.vmsave", "vector4.skinit",
)  # fmt: skip
"""What every VMCB intercepts, lest the guest does not come back or reaches the harness, or the emulator gives up.

The model has no task switches, and the tasks that the gates of #DF and #TS lead to have no page tables.
"""

WORDS: Final = ("CR_INTERCEPTS", "DR_INTERCEPTS", "INTERCEPTS_3", "INTERCEPTS_4", "INTERCEPTS_5")
EDGES: Final = tuple(base + 0x1FFF + beyond for base in MSR_RANGES for beyond in (0, 1))
"""MSRs at the ends of what the permissions map lists, and behind; no processor has them."""
_EVENTS: Final = 0x1F  # INTR to VINTR in intercept vector 3
_UNKNOWN: Final = {"INTERCEPTS_4": 0xFFFF8000 | 1 << 14, "INTERCEPTS_5": 0xFFFF_FFFB}
"""Bits of intercepts that the emulated processor does not have: RDPRU, traps after writes, INVLPGB, ..."""


@attrs.frozen
class SvmGuestCase(ProtectedCase):
    """A step of a guest of SVM.

    Attributes:
        nested: with nested paging that maps the arena onto itself.
        maps: bytes in the permissions maps: (address, bytes).
    """

    nested: bool = False
    maps: tuple[tuple[int, bytes], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**super().to_json(), "nested": self.nested, "maps": bytes_shown(self.maps)}


@functools.cache
def always() -> Mapping[str, int]:
    """The bits of `ALWAYS` by field."""
    found: dict[str, int] = {}
    for name in ALWAYS:
        field, bit = bits()[name]
        found[field] = found.get(field, 0) | 1 << bit
    return found


def random_case(
    instruction: Instruction, cpl: int, rng: random.Random, model: str = DEFAULT_MODEL
) -> SvmGuestCase:
    """Draw a step for one form at one privilege level."""
    guest = ia32_cases.random_case(instruction, cpl, rng)
    paging = rng.random() < 0.5
    registers = dict(guest.registers)
    has = processor(model).cr4 or 0
    unwanted = keep_alive(registers, paging, has & ~VMXE)
    if instruction.form in ("RDMSR", "WRMSR") and rng.random() < 0.5:
        registers["ecx"] = rng.choice(EDGES)
    if instruction.mnemonic == "MOV to CR":
        name = GENERAL[guest.operands["operand r32"]]
        if name != "esp":
            value = registers.get(name, 0)
            registers[name] = _moved(instruction.form, value, paging, unwanted, has, rng)
    guest = attrs.evolve(guest, registers=registers)
    controls = drawn_controls(instruction, rng)
    maps = [*port_bits(ports_of(guest), in_iopm, rng), *in_msrpm(guest.registers.get("ecx", 0), rng)]
    barred = barred_pages(rng) if paging and cpl == 3 and rng.random() < 0.3 else {}
    nested = not paging or rng.random() < 0.5  # otherwise it reaches the harness
    return SvmGuestCase(guest, paging, nested, tuple(maps), controls=controls, barred=barred)


def drawn_controls(instruction: Instruction, rng: random.Random) -> dict[str, int]:
    """The intercepts and the TSC offset of a VMCB, by field."""
    controls = {}
    for field in WORDS:
        density = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        drawn = sum(1 << bit for bit in range(32) if rng.random() < density)
        controls[field] = (drawn | always().get(field, 0)) & ~_UNKNOWN.get(field, 0)
    controls["INTERCEPTS_3"] |= _EVENTS
    _landing(instruction, controls, rng)
    controls["TSC_OFFSET"] = time_offset(rng)
    return controls


def _moved(form: str, value: int, paging: bool, unwanted: int, has: int, rng: random.Random) -> int:
    """A value for a control register, mostly with bits that the processor has and that keep the guest alive."""
    if form == "MOV CR0, r32" and rng.random() < 0.9:
        return value | PG if paging else value & ~PG
    if form == "MOV CR4, r32":
        return value & ~unwanted & (has if rng.random() < 0.9 else 0xFFFF_FFFF)
    return table_root(rng) if form == "MOV CR3, r32" and paging else value


def _landing(instruction: Instruction, controls: dict[str, int], rng: random.Random) -> None:
    """The exceptions on both sides; INT1 mostly leaves, because it ends steps, and #UD where INT1 is what runs."""
    way = rng.random()
    controls["EXCEPTION_INTERCEPTS"] = 0xFFFF_FFFF if way < 0.3 else 0 if way < 0.5 else rng.getrandbits(32)
    field, bit = bits()["vector4.icebp"]
    if instruction.form != "INT1" or rng.random() < 0.5:
        controls[field] |= 1 << bit
    else:
        controls[field] &= ~(1 << bit)
        controls["EXCEPTION_INTERCEPTS"] |= 1 << 6


def in_iopm(port: int) -> tuple[int, int]:
    """The address and the bit of a port in the I/O permissions map, also behind the last one."""
    near = max(port, 0)
    return IOPM + near // 8, near % 8


def in_msrpm(number: int, rng: random.Random) -> list[tuple[int, bytes]]:
    """The bits of an MSR in the MSR permissions map, and of the ones beside it."""
    for index, base in enumerate(MSR_RANGES):
        if number & 0xFFFF_E000 == base:
            return [(MSRPM + index * 0x800 + (number & 0x1FFF) // 4, bytes([rng.getrandbits(8)]))]
    return []
