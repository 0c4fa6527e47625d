"""IA-32 instruction forms of the model as machine code, assembled by nasm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from popek.emulators.x86.assembly import assembled
from popek.kernel.instruction import Instruction

_RENAMED: Final = {
    "PUSHF": "pushfw", "POPF": "popfw", "IRET": "iretw", "PUSHA": "pushaw", "POPA": "popaw",
}  # fmt: skip
_SIZED: Final = ("PUSH m32", "JMP m32")  # forms whose memory operand must say its size
_BYTES: Final = {"RDPKRU": "0f01ee", "WRPKRU": "0f01ef", "SKINIT": "0f01de"}  # nasm: 64-bit mode only
_NEAR: Final = {"rel8": ("short", 2, 8), "rel32": ("near", 5, 32)}
_SIXTEEN: Final = "bits 16:"
# Forms with 32-bit operands whose text does not say so, for code segments of 16 bits.
_DEFAULT_SIZE: Final = frozenset(
    ("RETF", "RETF imm16", "RET", "RET imm16", "LEAVE", "LGDT m16&32", "LIDT m16&32")
)
_DEFAULT_SIZES: Final = ("PUSH ES", "PUSH CS", "PUSH SS", "PUSH DS", "PUSH FS", "PUSH GS", "POP ES", "POP SS", "POP DS",
                         "POP FS", "POP GS", "ENTER", "PUSH imm")  # fmt: skip
_STRING: Final = frozenset(
    ("INS", "OUTS", "MONITOR", "MOVS", "STOS", "LODS", "CMPS", "SCAS", "LOOP", "JECXZ", "XLAT")
)
_WIDE_OFFSET: Final = re.compile(r"\[(\w\w:)?(0x[0-9a-f]{5,8})\]")


def assembly_text(instruction: Instruction, operands: Mapping[str, int], bits: int = 32) -> str:
    """The instruction as nasm spells it for a code segment of 16 or 32 bits.

    Relative targets are relative to the instruction itself.  A text for 16 bits begins with ``bits 16:``.

    `operands` has the number of each part by its name as a symbol (``operand m.offset``).  The segment
    registers 6 and 7, which do not exist, are written ``sreg6`` and ``sreg7``.
    """
    text = _near_text(instruction, operands, bits) or _text(instruction, operands)
    if bits == 32:
        return text
    prefixes = []
    if instruction.form in _DEFAULT_SIZE or instruction.form.startswith(_DEFAULT_SIZES):
        prefixes.append("o32")
    if instruction.mnemonic in _STRING or instruction.form.startswith("a32"):
        prefixes.append("a32")
    wide = _WIDE_OFFSET.sub(lambda found: f"[{found[1] or ''}dword {found[2]}]", text)
    return " ".join((_SIXTEEN, *prefixes, wide))


def _near_text(instruction: Instruction, operands: Mapping[str, int], bits: int) -> str | None:
    """A near transfer with 32-bit operands, relative to itself; None for other instructions."""
    first = instruction.form.partition(" ")[0].lower()
    kinds = {operand.kind.name for operand in instruction.operands}
    for kind, (distance, length, width) in _NEAR.items():
        if kind in kinds:
            offset = operands[f"operand {kind}"]
            offset -= (offset >> width - 1) << width
            counts = instruction.mnemonic == "LOOP" or first == "jecxz"  # of which nasm knows only short ones
            if bits == 32:
                return f"{first} {'' if counts else distance} $+{length}{offset:+d}"
            # One byte more for the operand size, and one for the size of ECX.
            length += 2 if counts else 1
            prefix, distance = ("o32 ", "" if counts else distance) if kind == "rel8" else ("", "dword")
            return f"{prefix}{first} {distance} $+{length}{offset:+d}"
    return None


def _text(instruction: Instruction, operands: Mapping[str, int]) -> str:
    first, _, _ = instruction.form.partition(" ")
    if first in _BYTES:
        return "db " + ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(_BYTES[first]))
    kinds = {operand.kind.name for operand in instruction.operands}
    text = instruction.assembly(operands)
    if first in _RENAMED:
        text = text.replace(first, _RENAMED[first], 1)
    if kinds & {"m16:16", "m16:32"} and first in ("CALL", "JMP"):
        size = "word" if "m16:16" in kinds else "dword"
        return f"{first.lower()} {size} far {text.split(maxsplit=1)[1]}"
    if kinds & {"ptr16:16", "ptr16:32"}:
        size = "word" if "ptr16:16" in kinds else "dword"
        return f"{first.lower()} {size} {text.split(maxsplit=1)[1]}"
    if "seg" in kinds:
        *prefixed, segment = text.split()
        return f"{segment} {' '.join(prefixed).lower()}"
    if instruction.form in _SIZED:
        return text.lower().replace(" ", " dword ", 1)
    if instruction.form == "PUSH imm8":
        return f"push byte {operands['operand imm8'] - (operands['operand imm8'] >> 7 << 8)}"
    return text.lower()


def assemble_all(texts: Iterable[str]) -> dict[str, bytes]:
    """The machine code of instructions, by text, all in one run of nasm.

    Raises:
        BochsError: nasm refused one; with its own words.
    """
    keys = {text: (16 if text.startswith(_SIXTEEN) else 32, text.removeprefix(_SIXTEEN)) for text in texts}
    codes = assembled(keys.values())
    return {text: codes[key] for text, key in keys.items()}
