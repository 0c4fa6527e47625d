"""Machine code of 64-bit mode and compatibility mode as forms of the instruction table.

The rules are those of `popek.architectures.x86.decoding`, and:

- The opcodes that 64-bit mode lacks (``PUSH ES``, ``PUSHAD``) are their forms, which raise #UD there.
- In compatibility mode an operand that has the mode's own size is called 64-bit where the table has no
  other form (``PUSH r64``, ``MOV r64, CR0``, ``PUSHFQ``).
"""

from __future__ import annotations

from functools import cache

from popek.architectures.x86.decoded import Decoded
from popek.architectures.x86.decoding import Dialect, decode_as, dialect

from .machine import build
from .operands import REGISTER_NAMES


def decode(code: bytes, bits: int = 64) -> Decoded:
    """The first instruction of x86-64 machine code: 64-bit mode, or compatibility mode with `bits` 32.

    Raises:
        DecodingError: the bytes are no instruction, or none that the machine `x86-64` has.
    """
    return decode_as(_x86_64(), code, bits, (32, 64))


@cache
def _x86_64() -> Dialect:
    return dialect("x86-64", REGISTER_NAMES, 64, build().instructions)
