"""Instructions as machine code, assembled by nasm many at once."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from popek.emulators.bochs.simulator import BochsError, assemble

_SLOT: Final = 16  # bytes an instruction gets in nasm's output, the last of them its length
_MISSING_SREG: Final = re.compile(r"\bsreg([67])\b")
_known: dict[tuple[int, str], bytes] = {}


def assembled(texts: Iterable[tuple[int, str]]) -> dict[tuple[int, str], bytes]:
    """Machine code of instructions, each for code of so many bits, all in one run of nasm.

    The segment registers 6 and 7, which do not exist, are written ``sreg6`` and ``sreg7``.

    Raises:
        BochsError: nasm refused one; with its own words.
    """
    wanted = dict.fromkeys(texts)
    new = [key for key in wanted if key not in _known]
    if new:
        lines: list[str] = []
        for number, (bits, text) in enumerate(new):
            # An instruction on a segment register that does not exist is one on ES with another number.
            lines += [f"bits {bits}", f"s{number}: {_MISSING_SREG.sub('es', text)}"]
            lines += [f"e{number}: times {_SLOT - 1}-(e{number}-s{number}) db 0", f"db e{number}-s{number}"]
        with tempfile.TemporaryDirectory(prefix="popek-nasm-") as folder:
            source = Path(folder) / "instructions.asm"
            source.write_text("\n".join(lines) + "\n", encoding="ascii")
            image = assemble(source)
        for number, key in enumerate(new):
            slot = image[_SLOT * number : _SLOT * (number + 1)]
            _known[key] = _with_sreg(slot[: slot[-1]], key[1])
    return {key: _known[key] for key in wanted}


def _with_sreg(code: bytes, text: str) -> bytes:
    missing = _MISSING_SREG.search(text)
    if missing is None:
        return code
    at = next(i for i, byte in enumerate(code) if byte in (0x8C, 0x8E)) + 1
    if code[at] & 0x38:
        raise BochsError(f"nasm gave an unexpected encoding for {text!r}: {code.hex()}")
    return code[:at] + bytes([code[at] | int(missing[1]) << 3]) + code[at + 1 :]
