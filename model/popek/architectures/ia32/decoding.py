"""Machine code of 16- and 32-bit code segments as forms of the instruction table.

The rules are those of `popek.architectures.x86.decoding`.
"""

from __future__ import annotations

from functools import cache

from popek.architectures.x86.decoded import Decoded
from popek.architectures.x86.decoding import Dialect, decode_as, dialect
from popek.architectures.x86.registers import NAMES_8, NAMES_16, NAMES_32

from .machine import build


def decode(code: bytes, bits: int = 32) -> Decoded:
    """The first instruction of IA-32 machine code, for a code segment of 16 or 32 bits.

    Raises:
        DecodingError: the bytes are no instruction, or none that the machine `ia32` has.
    """
    return decode_as(_ia32(), code, bits, (16, 32))


@cache
def _ia32() -> Dialect:
    return dialect("ia32", {8: NAMES_8, 16: NAMES_16, 32: NAMES_32}, 32, build().instructions)
