"""A difference between the IA-32 model and an emulator, for those who recognise what explains it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from popek.architectures.ia32 import machine as ia32
from popek.architectures.ia32.state import EBP, ECX, EDI, ESI, ESP, Ia32
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.ia32.cases import Ia32Case
from popek.emulators.ia32.expectation import initial_state, run_to_its_end
from popek.emulators.ia32.step import Ia32StepCase
from popek.emulators.x86.deviations import StepDifference
from popek.kernel.machine import Machine
from popek.kernel.outcome import Trap

_OPERAND_BYTES: Final[Mapping[str, int]] = {
    "m8": 1, "m16": 2, "m32": 4, "m64": 8, "m128": 16,
    "m16:16": 4, "m16&16": 4, "m16&32": 6, "m16:32": 6, "m32&32": 8,
}  # fmt: skip
"""Bytes of memory operands; others (SGDT's, XSAVE's stand-in) are at most 8."""
FIRST_PART: Final[Mapping[str, int]] = {
    "m16:16": 2, "m16&16": 2, "m16&32": 2, "m16:32": 4, "m32&32": 4, "m128": 8, "m": 2,
}  # fmt: skip
"""Bytes of the first part of an operand of two parts."""
_FRAMES: Final[Mapping[str, tuple[int, int]]] = {
    "PUSH": (4, 0), "PUSHF": (2, 0), "PUSHFD": (4, 0), "PUSHA": (16, 0), "PUSHAD": (32, 0),
    "POP": (0, 4), "POPF": (0, 2), "POPFD": (0, 4), "POPA": (0, 16), "POPAD": (0, 32),
    "CALL": (8, 31 * 4), "RET": (0, 4), "RETF": (0, 16), "IRET": (0, 10), "IRETD": (0, 36),
    **dict.fromkeys(("INT", "INT1", "INT3", "INTO"), (12, 0)),
    "ENTER": (9, 0),
}  # fmt: skip
"""Bytes below and above the stack pointer that an instruction moves on the current stack, at most."""


@functools.cache
def _machine() -> Machine[Ia32]:
    return ia32.build()


@attrs.frozen
class Ia32Difference(StepDifference[Ia32Case, Ia32StepCase]):
    """A difference, as the recognisers see it."""

    @property
    def state(self) -> Ia32:
        """The model's state at the start."""
        return initial_state(self.step)

    @property
    def raised(self) -> tuple[int | None, int | None]:
        """Vector and error code of the instruction's own fault on the model, None where it has none."""
        return self.expected.raised or (None, None)

    @property
    def observed(self) -> tuple[int | None, int | None]:
        """Vector and error code on the emulator, None where it did not trap."""
        return self.result.vector, self.result.error_code

    def raised_from(self, state: Ia32) -> tuple[int | None, int | None]:
        """What the model raises from another state: vector and error code, None where it completes."""
        machine = _machine()
        instruction = machine.instructions[self.case.form]
        numbers = {**self.case.operands, "operand length": len(self.step.code)}
        parts = instruction.words(numbers)
        outcome = run_to_its_end(machine, instruction, state.with_undefined({}), parts)
        if not isinstance(outcome, Trap):
            return None, None
        code = outcome.error_code
        return outcome.vector.number, None if code is None else int(code)

    def without_limits(self, *names: str) -> Ia32:
        """The state with these segment registers reaching, and allowing, everything; all by default."""
        state = self.state.copy()
        for name in names or SEGMENT_NAMES:
            state[f"{name}.limit"] = 0xFFFFFFFF
            rights = int(state[f"{name}.rights"])
            state[f"{name}.rights"] = rights & ~0x1000F | 0x83 | 0x10  # usable, present, writable data
        return state

    @property
    def mnemonic(self) -> str:
        """The first word of the form that is no prefix."""
        return next(word for word in self.case.form.split() if word != "o16")


def operands(found: Ia32Difference) -> Iterator[tuple[str, str, int]]:
    """Kind, segment register and offset of every memory operand."""
    parts = found.case.operands
    for name, offset in parts.items():
        segment = parts.get(name.replace(".offset", ".segment"))
        if name.endswith(".offset") and segment is not None:
            yield name.removeprefix("operand ").removesuffix(".offset"), SEGMENT_NAMES[segment], offset


def operand_spans(found: Ia32Difference) -> Iterator[tuple[str, int, int]]:
    """Segment register, first offset and the one after the last, of every memory operand."""
    for kind, segment, offset in operands(found):
        yield segment, offset, offset + _OPERAND_BYTES.get(kind, 8)


def string_spans(found: Ia32Difference) -> Iterator[tuple[str, int, int]]:
    """What a string instruction reaches through EDI and ESI."""
    words = found.case.form.split()
    name = next(word for word in words if not word.startswith("REP"))
    if not name.startswith(("INS", "OUTS", "MOVS", "STOS", "LODS", "SCAS", "CMPS")):
        return
    state, size = found.state, {"B": 1, "W": 2, "D": 4}[name[-1]]
    more = size * (min(int(state.gpr[ECX]), 0x40) - 1) if words[0].startswith("REP") else 0
    down = bool(state.eflags.df)
    source = SEGMENT_NAMES[found.case.operands.get("operand seg", 3)]
    for number, segment, names in (
        (EDI, "es", ("INS", "MOVS", "STOS", "SCAS", "CMPS")),
        (ESI, source, ("OUTS", "MOVS", "LODS", "CMPS")),
    ):
        at = int(state.gpr[number])
        if name.startswith(names):
            yield segment, at - more * down, at + size + more * (not down)


def stack_spans(found: Ia32Difference) -> Iterator[tuple[str, int, int]]:
    """What an instruction reaches on a stack of 4 GiB."""
    state, parts = found.state, found.case.operands
    if not state.ss.rights.db:
        return
    if found.mnemonic == "LEAVE":
        yield "ss", int(state.gpr[EBP]), int(state.gpr[EBP]) + 4
    if found.mnemonic in _FRAMES:
        below, above = _FRAMES[found.mnemonic]
        number = parts.get("operand imm16", 0)
        below += number if found.mnemonic == "ENTER" else 0
        above += number if found.mnemonic == "RETF" else 0
        yield "ss", int(state.gpr[ESP]) - below, int(state.gpr[ESP]) + above
