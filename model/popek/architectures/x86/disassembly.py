"""One instruction of machine code as Capstone (the extra `decode`) reads it, and what Capstone leaves open.

Where Capstone 5 reads bytes otherwise than the manual defines them, this module and the next say so at the place.
Source: SDM vol. 2A, chapter 2; vol. 2D, appendix A.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from popek.kernel.code import DecodingError

from .registers import DS, SEGMENT_NAMES


class NoSuchFormError(DecodingError):
    """An instruction that the machine's table lacks.

    Attributes:
        text: the instruction as Capstone spells it.
        length: in bytes.
    """

    def __init__(self, message: str, text: str, length: int) -> None:
        super().__init__(message)
        self.text, self.length = text, length


@attrs.frozen
class Code:
    """One instruction's bytes, as far as Capstone's answer leaves questions open.

    Attributes:
        found: Capstone's instruction.
        raw: its bytes.
        bits: of the code segment (16, 32 or 64).
        at: where the opcode begins.
        size: of operands, in bits.
        segment: number of the overriding segment register, None without.
        sreg: number of the segment register in ModRM.
        length: in bytes.
    """

    found: Any
    raw: bytes
    bits: int
    at: int
    size: int
    segment: int | None
    sreg: int | None
    length: int

    @property
    def far(self) -> bool:
        """Whether it is a far call or jump through memory (FF /3, FF /5)."""
        return self.raw[self.at] == 0xFF and self.raw[self.at + 1] >> 3 & 7 in (3, 5)


_OVERRIDES: Final = {0x26: 0, 0x2E: 1, 0x36: 2, 0x3E: 3, 0x64: 4, 0x65: 5}
LEGACY_PREFIXES: Final = frozenset((*_OVERRIDES, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
# Opcodes that raise #UD in 64-bit mode (SDM vol. 2D, table A-2, superscript i64).
_NOT_IN_64_BIT_MODE: Final = bytes.fromhex("06070e16171e1f272f373f60619aced4d5d6ea")


def disassembled(code: bytes, bits: int) -> Code:
    """The first instruction as Capstone reads it, with what it does not tell."""
    capstone = _capstone()
    legacy = next((i for i, byte in enumerate(code) if byte not in LEGACY_PREFIXES), len(code))
    wide, at = False, legacy
    if bits == 64 and code[at : at + 1] and code[at] & 0xF0 == 0x40:
        wide, at = bool(code[at] & 8), at + 1
    prefixes, opcode = code[:at], code[at : at + 1]
    raw, sreg = code, None
    if opcode in (b"\x8c", b"\x8e") and len(code) > at + 1:
        sreg = code[at + 1] >> 3 & 7
        if sreg not in range(len(SEGMENT_NAMES)):
            # Capstone refuses the segment registers 6 and 7, which the machines answer with #UD.
            raw = code[: at + 1] + bytes([code[at + 1] & ~0x38]) + code[at + 2 :]
    mode = bits
    if bits == 16 and 0x66 in prefixes and _has_mandatory_prefix(code[at : at + 3]):
        # Capstone takes no 66H for part of the opcode in 16-bit code: read it as 32-bit code.
        mode = 32
        raw = (prefixes.replace(b"\x67", b"") if 0x67 in prefixes else b"\x67" + prefixes) + code[at:]
    if bits == 64 and opcode != b"" and opcode in _NOT_IN_64_BIT_MODE:
        mode, raw = 32, code[:legacy] + code[at:]  # where a REX prefix would be an instruction
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    reader = capstone.Cs(capstone.CS_ARCH_X86, modes[mode])
    reader.detail = True
    found = next(reader.disasm(raw, 0, 1), None)
    if found is None:
        shown = code[:15].hex(" ") or "no bytes"
        raise DecodingError(f"{shown}: begins with no whole instruction of {bits}-bit code")
    narrow = (0x66 in prefixes) != (bits == 16)
    override = next((_OVERRIDES[byte] for byte in reversed(prefixes) if byte in _OVERRIDES), None)
    if bits == 64 and override is not None and override <= DS:
        override = None
    unseen = found.mnemonic in ("ud0", "ud1")  # whose ModRM Capstone leaves out
    length = found.size + len(code) - len(raw) + unseen
    return Code(found, code, bits, at, 64 if wide else 16 if narrow else 32, override, sreg, length)


def plain_reader(bits: int) -> Any:
    """Capstone's reader of code of some size, without what it tells of operands."""
    capstone = _capstone()
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    return capstone.Cs(capstone.CS_ARCH_X86, modes[bits])


def _capstone() -> Any:
    try:
        import capstone
    except ImportError:
        raise DecodingError("decoding needs Capstone; install it with the extra: popek[decode]") from None
    return capstone


def _has_mandatory_prefix(opcode: bytes) -> bool:
    """Whether 66H before it makes another instruction: INVEPT and its like (0F 38), VMCLEAR (0F C7 /6)."""
    if len(opcode) < 3 or opcode[0] != 0x0F:
        return False
    return opcode[1] == 0x38 or (opcode[1] == 0xC7 and opcode[2] < 0xC0 and opcode[2] >> 3 & 7 == 6)
