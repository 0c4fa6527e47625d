"""Random states for single IA-32 instructions, biased to where the manual draws a line.

A case starts from the plain state of the step harness and builds what its instruction needs to complete; a
few things are then made wrong, most often one: a null selector, one below or above a limit, another DPL, a
segment not present.  Everything else (flags, control bits, other segment registers) is drawn as well, as a
change of the plain state that can be taken back one by one.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from popek.emulators.ia32.cases_8086 import SPECIAL_8086, surroundings_8086
from popek.emulators.ia32.cases_builder import Ia32CaseBuilder, words
from popek.emulators.ia32.cases_general import SPECIAL_GENERAL
from popek.emulators.ia32.cases_protected import SPECIAL_PROTECTED
from popek.emulators.ia32.cases_surroundings import surroundings
from popek.emulators.ia32.cases_system import SPECIAL
from popek.kernel.instruction import Instruction

UNTESTED: Final[Mapping[str, str]] = {
    "TF = 1": "debug traps are outside the model",
    "breakpoints that match": "debug traps are outside the model",
    "EFLAGS.VIF and VIP with CR4.PVI at CPL 3": "a pending virtual interrupt comes before the instruction",
    "MOV CR0 that sets PG": "the harness has no page tables; attempts that fault are tested",
    "NT = 1 with IRET": "task switches are not modelled",
    "16-bit code segments to start in": "the model's forms are those of a 32-bit code segment",
    "CR4.VMXE = 1": "an SMI does not keep it, so VMXON is tested without",
    "CR4.SMXE = 1": "no processor model has it, so GETSEC is tested without",
    "devices": "only ports without a device",
    "MSRs": "those of the model, but for the next two, and numbers that no processor has",
    "IA32_MISC_ENABLE": "the emulator's processor has none",
    "IA32_FEATURE_CONTROL": "a lock that a case sets would stay for the next",
}
"""What no case starts from, each with the reason.  No form is left out."""


class CaseMode(enum.Enum):
    """The operating mode that a case starts in."""

    PROTECTED = "protected"
    VIRTUAL_8086 = "virtual-8086"
    REAL = "real"


@attrs.frozen
class Ia32Case:
    """An instruction and the state it starts from, as changes of the harness's plain state.

    Attributes:
        form: the instruction's form.
        operands: the number of each part by its name as a symbol, without the length.
        cpl: the current privilege level.
        registers: as in `popek.emulators.ia32.step.StepCase`.
        memory: likewise.
        stale: likewise.
        msrs: likewise.
        hidden: likewise.
    """

    form: str
    operands: Mapping[str, int]
    cpl: int = 0
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    stale: tuple[tuple[int, bytes], ...] = ()
    msrs: Mapping[int, int] = attrs.field(factory=dict)
    hidden: Mapping[str, tuple[int, int, int]] = attrs.field(factory=dict)

    @property
    def mode(self) -> CaseMode:
        """As CR0.PE and EFLAGS.VM say."""
        if not self.registers.get("cr0", 1) & 1:
            return CaseMode.REAL
        return CaseMode.VIRTUAL_8086 if self.registers.get("eflags", 0) >> 17 & 1 else CaseMode.PROTECTED

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "form": self.form,
            "cpl": self.cpl,
            "mode": self.mode.value,
            "operands": dict(self.operands),
            "registers": dict(self.registers),
            "memory": [[address, data.hex()] for address, data in self.memory],
            "stale": [[address, data.hex()] for address, data in self.stale],
            "msrs": {str(number): value for number, value in self.msrs.items()},
            "hidden": {name: list(parts) for name, parts in self.hidden.items()},
        }


def random_case(
    instruction: Instruction, cpl: int, rng: random.Random, mode: CaseMode = CaseMode.PROTECTED
) -> Ia32Case:
    """Draw a case for one form at one privilege level, which is 0 in real-address and 3 in virtual-8086 mode."""
    builder = Ia32CaseBuilder(instruction, cpl, rng)
    special = {**SPECIAL_PROTECTED, **SPECIAL, **SPECIAL_GENERAL}
    if mode is CaseMode.PROTECTED:
        surroundings(builder)
    else:
        surroundings_8086(builder, virtual=mode is CaseMode.VIRTUAL_8086)
        special |= SPECIAL_8086
    _instruction_state(builder, special)
    return Ia32Case(
        instruction.form,
        builder.operands,
        cpl,
        builder.registers,
        tuple(builder.memory),
        tuple(builder.stale),
        builder.msrs,
        builder.hidden,
    )


def _instruction_state(b: Ia32CaseBuilder, special: Mapping[str, Callable[[Ia32CaseBuilder], None]]) -> None:
    """What this form looks at; `special` goes by form or else by mnemonic."""
    draw = special.get(b.instruction.form) or special.get(b.instruction.mnemonic)
    if draw is not None:
        draw(b)
    _rest_of_operands(b)


def _rest_of_operands(b: Ia32CaseBuilder) -> None:
    """The operands that nothing has chosen."""
    for operand in b.instruction.operands:
        names = [name for name, _ in operand.part_names()]
        if names[0] in b.operands:
            continue
        kind = operand.kind.name
        if kind.startswith("m"):
            size = {"m8": 1, "m16": 2, "m32": 4, "m64": 8, "m128": 16}.get(kind, 6)
            b.point(operand.name, words(*(b.number() for _ in range(4)))[:size])
        elif kind == "seg":
            b.operands[names[0]] = b.rng.randrange(6)
        else:
            for name, width in operand.part_names():
                b.operands[name] = b.rng.getrandbits(width)
    if b.instruction.form in ("POP r16", "POP r32"):
        b.on_stack(words(b.number()))
