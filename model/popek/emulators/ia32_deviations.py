"""Known deviations of Bochs from the manual, and what the manual leaves to the processor.

The list with its evidence is ``popek_specs/ia32/bochs-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains.  A difference that no entry explains is a bug of the model.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Final

import attrs

from popek.architectures.ia32.state import GPR_NAMES
from popek.emulators.ia32_cases import Case
from popek.emulators.ia32_expectation import Expectation
from popek.emulators.ia32_step import StepCase, StepResult, initial_registers


@attrs.frozen
class Deviation:
    """One entry of the list.

    Attributes:
        name: its key.
        summary: what the emulator does.
        evidence: what the manual says, and where.
    """

    name: str
    summary: str
    evidence: str


@attrs.frozen
class Found:
    """A difference, as the recognisers see it."""

    case: Case
    step: StepCase
    expected: Expectation
    result: StepResult
    differing: frozenset[str]

    @property
    def ends(self) -> tuple[tuple[str, int | None, int | None], tuple[str, int | None, int | None]]:
        """How it ends on the model and on Bochs: kind, vector, error code."""
        expected, result = self.expected, self.result
        return (
            (expected.kind, expected.vector, expected.error_code),
            (result.kind, result.vector, result.error_code),
        )


_TOP = 1 << 32
_NEAR = 0x40
_GD, _BT, _SMXE = 1 << 13, 1 << 15, 1 << 14


def _wraps(found: Found) -> bool:
    """An access near FFFFFFFFH in a segment of 4 GiB, which the model lets fault."""
    if found.expected.kind != "trap" or found.expected.vector not in (8, 12, 13) or found.expected.error_code:
        return False
    registers = initial_registers(found.step)
    offsets = [value for name, value in found.case.operands.items() if name.endswith(".offset")]
    offsets += [registers[name] for name in ("esp", "ebp", "esi", "edi")]
    return any(offset > _TOP - _NEAR or offset < _NEAR for offset in offsets)


def _general_detect_first(found: Found) -> bool:
    # What cannot be delivered becomes #DF, but #DB is benign: its own delivery may fault.
    _, ends = found.ends
    return found.expected.vector in (8, 13) and ends[:2] in (("trap", 1), ("trap", 10)) and _general_detect(found)


def _general_detect(found: Found) -> bool:
    return bool(found.case.registers.get("dr7", 0) & _GD) and "DR" in found.case.form


def _register_bits(found: Found, name: str) -> int:
    """The bits of one register that differ, where nothing else does; else 0."""
    if found.differing != {name}:
        return 0
    return found.expected.registers[name] ^ found.result.registers[name]


def _bt_cleared(found: Found) -> bool:
    return found.expected.vector == 1 and _register_bits(found, "dr6") & ~0xF == _BT


def _dr7_bit_11(found: Found) -> bool:
    return _register_bits(found, "dr7") == 1 << 11 and "DR" in found.case.form


def _no_smx(found: Found) -> bool:
    written = found.case.registers.get(_register_operand(found), 0)
    return found.case.form == "MOV CR4, r32" and bool(written & _SMXE) and found.ends[1] == ("trap", 13, 0)


def _counters(found: Found) -> bool:
    return found.case.form == "RDPMC" and found.differing == {"outcome"}


def _register_operand(found: Found) -> str:
    return GPR_NAMES[found.case.operands["operand r32"]] if "operand r32" in found.case.operands else ""


def _inner_sp(found: Found) -> bool:
    upper = _register_bits(found, "esp")
    return _enters_inner(found) and upper != 0 and upper & 0xFFFF == 0


def _enters_inner(found: Found) -> bool:
    return found.expected.kind == "next" and found.result.registers.get("cpl", 3) < found.case.cpl


def _saves_sp(found: Found) -> bool:
    """Memory is all that differs, and the outer stack is a 16-bit one."""
    ss = found.case.registers.get("ss", 0) & 0xFFF8
    high = [data[6] for address, data in found.case.memory if address & 0xFFF == ss and len(data) == 8]
    narrow = bool(ss) and any(not byte & 0x40 for byte in high)
    return _enters_inner(found) and found.differing == {"memory"} and narrow


def _word_popped(found: Found) -> bool:
    """A segment register popped with operand size 32 at the end of the stack."""
    return found.case.form.startswith("POP ") and found.expected.vector in (8, 12) and found.differing == {"outcome"}


def _frame_wraps(found: Found) -> bool:
    """A return frame that reaches beyond offset FFFFH of a 16-bit stack."""
    pointer = found.case.registers.get("esp", 0) & 0xFFFF
    returns = found.case.form.split()[-1] in ("RETF", "IRETD", "IRET") or "RETF imm16" in found.case.form
    return returns and pointer > 0xFFFF - 0x14 and found.ends[1] in (("trap", 12, 0), ("trap", 8, 0))


def _partial_store(found: Found) -> bool:
    """Memory is all that differs after a fault of an instruction that stores twice or more."""
    return (
        found.expected.kind == "trap"
        and found.differing == {"memory"}
        and found.case.form.split()[0] in ("SGDT", "SIDT", "CALL", "INT", "INT1", "INT3", "INTO")
    )


def _call_pushes_first(found: Found) -> bool:
    return found.case.form == "CALL rel32" and found.ends == (("trap", 13, 0), ("trap", 12, 0))


_RECOGNISED: Final[Mapping[str, Callable[[Found], bool]]] = {
    "access-wraps-at-4-gib": _wraps,
    "general-detect-before-cpl": _general_detect_first,
    "general-detect-clears-bt": _bt_cleared,
    "dr7-bit-11-kept": _dr7_bit_11,
    "no-safer-mode-extensions": _no_smx,
    "performance-counters-of-pentium-4": _counters,
    "inner-stack-pointer-16-bit": _inner_sp,
    "inner-stack-saves-sp": _saves_sp,
    "segment-pop-reads-a-word": _word_popped,
    "return-frame-does-not-wrap": _frame_wraps,
    "stores-before-a-fault": _partial_store,
    "near-call-pushes-first": _call_pushes_first,
}


@functools.cache
def deviations() -> Mapping[str, Deviation]:
    """The list, by name."""
    text = resources.files("popek_specs.ia32").joinpath("bochs-deviations.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["deviation"]
    return {name: Deviation(name, entry["summary"], entry["evidence"]) for name, entry in entries.items()}


def explain(
    case: Case, step: StepCase, expected: Expectation, result: StepResult, differing: frozenset[str]
) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    found = Found(case, step, expected, result, differing)
    return next((name for name, recognised in _RECOGNISED.items() if recognised(found)), None)
