"""IA-32 instruction forms of the model as machine code, assembled by nasm."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from popek.emulators.bochs import BochsError, assemble
from popek.kernel.instruction import Instruction

_RENAMED: Final = {"PUSHF": "pushfw", "POPF": "popfw", "IRET": "iretw"}
_NEAR: Final = {"rel8": ("short", 2, 8), "rel32": ("near", 5, 32)}
_SLOT: Final = 16  # bytes an instruction gets in nasm's output, the last of them its length
_MISSING_SREG = re.compile(r"\bsreg([67])\b")


def assembly_text(instruction: Instruction, operands: Mapping[str, int]) -> str:
    """The instruction as nasm spells it; relative targets are relative to the instruction itself.

    `operands` has the number of each part by its name as a symbol (``operand m.offset``).  The segment
    registers 6 and 7, which do not exist, are written ``sreg6`` and ``sreg7``.
    """
    first, _, _ = instruction.form.partition(" ")
    kinds = {operand.kind.name for operand in instruction.operands}
    for kind, (distance, length, width) in _NEAR.items():
        if kind in kinds:
            offset = operands[f"operand {kind}"]
            offset -= (offset >> width - 1) << width
            return f"{first.lower()} {distance} $+{length}{offset:+d}"
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
        mnemonic, segment = text.split()
        return f"{segment} {mnemonic.lower()}"
    return text.lower()


_known: dict[str, bytes] = {}


def assemble_all(texts: Iterable[str]) -> dict[str, bytes]:
    """Assemble instructions for a 32-bit code segment, all in one run of nasm.

    Returns the machine code by text.  Raises `BochsError` with nasm's own words for text it refuses.
    """
    wanted = dict.fromkeys(texts)
    new = [text for text in wanted if text not in _known]
    if new:
        lines = ["bits 32"]
        for number, text in enumerate(new):
            # An instruction on a segment register that does not exist is one on ES with another number.
            spelled = _MISSING_SREG.sub("es", text)
            lines += [f"s{number}: {spelled}", f"e{number}: times {_SLOT - 1}-(e{number}-s{number}) db 0"]
            lines.append(f"db e{number}-s{number}")
        with tempfile.TemporaryDirectory(prefix="popek-nasm-") as folder:
            source = Path(folder) / "instructions.asm"
            source.write_text("\n".join(lines) + "\n", encoding="ascii")
            image = assemble(source)
        for number, text in enumerate(new):
            slot = image[_SLOT * number : _SLOT * (number + 1)]
            _known[text] = _with_sreg(slot[: slot[-1]], text)
    return {text: _known[text] for text in wanted}


def _with_sreg(code: bytes, text: str) -> bytes:
    missing = _MISSING_SREG.search(text)
    if missing is None:
        return code
    at = next(i for i, byte in enumerate(code) if byte in (0x8C, 0x8E)) + 1
    if code[at] & 0x38:
        raise BochsError(f"nasm gave an unexpected encoding for {text!r}: {code.hex()}")
    return code[:at] + bytes([code[at] | int(missing[1]) << 3]) + code[at + 1 :]
