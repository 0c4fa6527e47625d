"""x86-64 instruction forms of the model as machine code, assembled by nasm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from popek.architectures.x86.registers import FS, SEGMENT_NAMES
from popek.architectures.x86_64.operands import REGISTER_NAMES
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.x86.assembly import assembled
from popek.kernel.instruction import Instruction

_RENAMED: Final = {
    "PUSHF": "pushfw",
    "POPF": "popfw",
    "IRET": "iretw",
    "SYSRETQ": "o64 sysret",
    "SYSEXITQ": "o64 sysexit",
    "o64 RETF": "o64 retf",
}
_NARROW: Final = {"PUSHFQ": "pushfd", "POPFQ": "popfd"}  # the same byte in compatibility mode
_NEAR: Final = {"rel8": ("short", 2, 8), "rel32": ("near", 5, 32)}
_FAR: Final = {"m16:16": "word", "m16:32": "dword", "m16:64": "qword"}
_BYTES: Final = {
    "PUSHAD": "60", "POPAD": "61", "AAA": "37", "AAS": "3f", "DAA": "27", "DAS": "2f", "AAM": "d40a", "AAD": "d50a",
    "SALC": "d6", "INTO": "ce", "PUSH CS": "0e", "PUSH DS": "1e", "PUSH ES": "06", "PUSH SS": "16", "POP DS": "1f",
    "POP ES": "07", "POP SS": "17",
}  # fmt: skip
_WIDE_TO_NARROW: Final = dict(zip(REGISTER_NAMES[64], REGISTER_NAMES[32], strict=True))


def assembly_text(instruction: Instruction, operands: Mapping[str, int], *, long: bool) -> str:
    """The instruction as nasm spells it; relative targets are relative to the instruction itself.

    Args:
        operands: the number of each part by its name as a symbol (``operand m.offset``).
        long: for 64-bit mode, else for compatibility mode.
    """
    form = instruction.form
    first, _, _ = form.partition(" ")
    kinds = {operand.kind.name for operand in instruction.operands}
    if form in _BYTES:
        return "db " + ", ".join(f"0x{_BYTES[form][i : i + 2]}" for i in range(0, len(_BYTES[form]), 2))
    for kind, (distance, length, width) in _NEAR.items():
        if kind in kinds:
            offset = operands[f"operand {kind}"]
            offset -= (offset >> width - 1) << width
            return f"{first.lower()} {distance} $+{length}{offset:+d}"
    if form in _RENAMED:
        return _RENAMED[form]
    if form in _NARROW and not long:
        return _NARROW[form]
    if form == "PUSH imm32":
        value = operands["operand imm32"]
        return f"push strict dword {value - ((value >> 31) << 32)}"
    if "ptr16:32" in kinds:
        selector, offset = operands["operand ptr16:32.selector"], operands["operand ptr16:32.offset"]
        opcode = 0x9A if first == "CALL" else 0xEA
        return f"db {opcode:#x}\ndd {offset:#x}\ndw {selector:#x}"
    text = instruction.assembly(operands).lower()
    for name in operands:
        if name.endswith(".offset"):
            segment = operands[name.replace(".offset", ".segment")]
            text = re.sub(r"\[[^]]*\]", _reference(segment, operands[name], long=long), text)
    if (far := kinds & set(_FAR)) and first in ("CALL", "JMP"):
        return f"{first.lower()} far {_FAR[far.pop()]} {text.split(maxsplit=1)[1]}"
    if "seg" in kinds:
        mnemonic, segment_name = text.split()
        return f"{segment_name} {mnemonic}" if not long or segment_name in ("fs", "gs") else mnemonic
    if first in ("LAR", "LSL"):
        # nasm wants the source as wide as the destination; only its low 16 bits are used.
        text = re.sub(r", (\w+)$", lambda found: ", " + _widened(found[1], form), text)
    if not long:
        text = re.sub(r"\br[a-z]{2}\b", lambda found: _WIDE_TO_NARROW.get(found[0], found[0]), text)
    return text


def _widened(name: str, form: str) -> str:
    """A 16-bit register by its name of the form's size."""
    size = int(form.split()[1].strip("r,"))
    return REGISTER_NAMES[size][REGISTER_NAMES[16].index(name)]


def _reference(segment: int, offset: int, *, long: bool) -> str:
    if not long:
        return f"[{SEGMENT_NAMES[segment]}:{offset & 0xFFFFFFFF:#x}]"
    signed = offset - (1 << 64 if offset >> 63 else 0)
    if not -(1 << 31) <= signed < 1 << 31:
        raise BochsError(f"{offset:#x} is no 32-bit displacement")
    prefix = f"{SEGMENT_NAMES[segment]}:" if segment >= FS else ""
    return f"[{prefix}abs {signed}]"


def assemble_all(texts: Iterable[tuple[bool, str]]) -> dict[tuple[bool, str], bytes]:
    """The machine code of instructions, each for 64-bit mode or compatibility mode, all in one run of nasm.

    Raises:
        BochsError: nasm refused one; with its own words.
    """
    keys = {key: (64 if key[0] else 32, key[1]) for key in texts}
    codes = assembled(keys.values())
    return {key: codes[found] for key, found in keys.items()}
