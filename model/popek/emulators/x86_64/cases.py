"""Random states for single x86-64 instructions, biased to where the manual draws a line.

A case starts from a plain state of the step harness and builds what its instruction needs to complete; a few things
are then made wrong.  Everything is kept as a change of the plain state that can be taken back one by one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

from popek.emulators.x86_64.cases_builder import X64CaseBuilder
from popek.emulators.x86_64.cases_surroundings import surroundings
from popek.emulators.x86_64.cases_system import SPECIAL as SYSTEM
from popek.emulators.x86_64.cases_transfers import SPECIAL as TRANSFERS
from popek.emulators.x86_64.step import plain_state
from popek.kernel.instruction import Instruction

UNTESTED: Final[Mapping[str, str]] = {
    "TF = 1, breakpoints that match": "debug traps are outside the model",
    "EFLAGS.VIF and VIP with CR4.PVI at CPL 3": "a pending virtual interrupt comes before the instruction",
    "CR4.SMAP, protection keys that forbid": "the model's pages do not know them",
    "compatibility mode with a 16-bit code segment": "the model's forms are those of CS.D = 1",
    "memory outside the arena": "only the arena is mapped; addresses that are not canonical are tested",
    "IA32_APIC_BASE and IA32_MISC_ENABLE": "Bochs relocates its APIC, and has other bits",
    "values of CPUID, RDTSC and RDPMC": "they are the processor's",
    "REX.W = 0 forms of INS and OUTS with REP": "no REP forms in the model",
}
"""What no case starts from, each with the reason."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "BOUND r32, m64": "in 64-bit mode the opcode is the EVEX prefix, and elsewhere it is not modelled",
}
"""Forms that are not compared, each with the reason."""

_USES_MEMORY = frozenset(("m", "m8", "m16", "m32", "m64", "m128", "m16&64", "m16:16", "m16:32", "m16:64"))


@attrs.frozen
class X64Case:
    """An instruction and the state it starts from, as changes of the harness's plain state.

    Attributes:
        form: the instruction's form.
        operands: the number of each part by its name as a symbol, without the length.
        cpl: the current privilege level.
        long: 64-bit mode, not compatibility mode.
        registers: components that differ from `plain_state(cpl, long=long)`.
        memory: (linear address, bytes).
    """

    form: str
    operands: Mapping[str, int]
    cpl: int = 0
    long: bool = True
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()

    @property
    def mode(self) -> str:
        """The operating mode it starts in."""
        return "64-bit" if self.long else "compatibility"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "form": self.form,
            "cpl": self.cpl,
            "mode": self.mode,
            "operands": dict(self.operands),
            "registers": dict(self.registers),
            "memory": [[address, data.hex()] for address, data in self.memory],
        }

    def state(self) -> dict[str, int]:
        """Every component that the harness sets."""
        return plain_state(self.cpl, long=self.long) | dict(self.registers)


def random_case(instruction: Instruction, cpl: int, long: bool, rng: random.Random) -> X64Case:
    """Draw a case for one form at one privilege level."""
    builder = X64CaseBuilder(instruction, cpl, long, rng)
    surroundings(builder)
    _instruction_state(builder)
    return X64Case(instruction.form, builder.operands, cpl, long, builder.registers, tuple(builder.memory))


def _instruction_state(b: X64CaseBuilder) -> None:
    """Operands and whatever the instruction looks at."""
    form, mnemonic = b.instruction.form, b.instruction.mnemonic
    for operand in b.instruction.operands:
        kind, name = operand.kind.name, f"operand {operand.name}"
        if kind in ("r8", "r16", "r32", "r64"):
            b.register_operand(name, None, avoid=() if mnemonic in ("MOV", "PUSH", "POP") else (4,))
        elif kind in ("imm8", "imm16", "imm32", "imm64", "rel8", "rel32"):
            b.operands[name] = b.number(int(kind[3:]))
        elif kind == "Sreg":
            b.operands[name] = b.rng.choice((0, 1, 2, 3, 4, 5, 0, 2, 3, 4, 5, 6, 7))
        elif kind == "seg":
            b.operands[name] = b.rng.choice((3, 4, 5) if b.long else range(6))
        elif kind == "ptr16:32":
            pass
        elif kind in _USES_MEMORY and not form.startswith(("CALL m", "JMP m")):
            size = {"m8": 1, "m16": 2, "m32": 4, "m64": 8, "m128": 16}.get(kind, 10)
            b.memory_operand(operand.name, size, b.rng.randbytes(24))
    special = {**TRANSFERS, **SYSTEM}.get(mnemonic)
    if special is not None:
        special(b)
    elif form.startswith(("WRFSBASE", "WRGSBASE")):
        first = f"operand {b.instruction.operands[0].name}"
        b.register_operand(first, b.canonical() if b.chance(0.5) else b.number())
