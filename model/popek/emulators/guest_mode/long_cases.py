"""Random steps of a 64-bit guest of SVM: an instruction and its state as for bare x86-64, and a VMCB's controls.

The state comes from `popek.emulators.x86_64.cases`; intercepts are drawn as for a 32-bit guest.
"""

from __future__ import annotations

import random
from typing import Any

import attrs

from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.guests.case import LongCase, bytes_shown
from popek.emulators.guests.drawing import CD, NW, VMXE, port_bits
from popek.emulators.guests.long_drawing import without_segment
from popek.emulators.guests.long_memory import moved_table
from popek.emulators.vmrun.harness import DEFAULT_MODEL, processor
from popek.emulators.x86_64 import cases as x86_64_cases
from popek.kernel.instruction import Instruction

from .cases import EDGES, drawn_controls, in_iopm, in_msrpm

V_INTR_MASKING = 1 << 24


@attrs.frozen
class SvmLongCase(LongCase):
    """A step of a guest in IA-32e mode.

    Attributes:
        nested: with nested paging that maps memory onto itself.
        maps: bytes in the permissions maps: (address, bytes).
    """

    nested: bool = False
    maps: tuple[tuple[int, bytes], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**super().to_json(), "nested": self.nested, "maps": bytes_shown(self.maps)}


def random_long_case(
    instruction: Instruction, cpl: int, rng: random.Random, *, long: bool, model: str = DEFAULT_MODEL
) -> SvmLongCase:
    """Draw a step for one form at one privilege level."""
    guest = x86_64_cases.random_case(instruction, cpl, long, rng)
    registers = dict(guest.registers)
    _adapt(instruction, guest, registers, rng, model)
    if instruction.form in ("RDMSR", "WRMSR") and rng.random() < 0.2:
        registers["rcx"] = rng.choice(EDGES)
    controls = drawn_controls(instruction, rng)
    controls["VINTR_CONTROL"] = V_INTR_MASKING | registers.pop("cr8", 0)
    ports = [registers.get("rdx", 0) & 0xFFFF]
    ports += [guest.operands[name] for name in ("operand imm8",) if name in guest.operands]
    maps = [*port_bits(ports, in_iopm, rng), *in_msrpm(registers.get("rcx", 0) & 0xFFFF_FFFF, rng)]
    guest = attrs.evolve(guest, registers=registers)
    relative = long and without_segment(guest) and rng.random() < 0.3
    return SvmLongCase(guest, relative, rng.random() < 0.5, tuple(maps), controls=controls)


def _adapt(
    instruction: Instruction,
    guest: x86_64_cases.X64Case,
    registers: dict[str, int],
    rng: random.Random,
    model: str,
) -> None:
    """Keep the guest alive, and let most values moved be ones that the processor has."""
    state = guest.state()
    registers.pop("xcr0", None)
    registers.pop("pkru", None)
    has = (processor(model).cr4 or 0) & ~VMXE
    registers["cr0"] = state["cr0"] & ~(NW | CD)
    registers["cr4"] = state["cr4"] & has
    for name, value in {**state, **registers}.items():
        if name in ("cr3", *GPR_NAMES) and moved_table(value) != value:
            registers[name] = moved_table(value)
    if instruction.form == "MOV CR4, r64" and rng.random() < 0.9:
        name = GPR_NAMES[guest.operands["operand r64"]]
        if name != "rsp":
            registers[name] = registers.get(name, state[name]) & (has | ((1 << 64) - (1 << 32)))
