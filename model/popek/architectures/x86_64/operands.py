"""Operand kinds of x86-64, spelled as the instruction reference does (SDM vol. 2A, "Instruction Column").

Registers are numbered as with a REX prefix: 8 to 15 have one, and 4 to 7 of `r8` are SPL, BPL, SIL and DIL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.architectures.x86.operands import (
    SEGMENT_OVERRIDE,
    SEGMENT_REGISTER,
    far,
    immediate,
    memory,
    register,
)
from popek.architectures.x86.registers import NAMES_8, NAMES_16, NAMES_32
from popek.kernel.instruction import OperandKind

from .state import GPR_NAMES

_NEW: Final = GPR_NAMES[8:]
REGISTER_NAMES: Final[Mapping[int, tuple[str, ...]]] = {
    8: (*NAMES_8[:4], *("spl", "bpl", "sil", "dil"), *(f"{name}b" for name in _NEW)),
    16: (*NAMES_16, *(f"{name}w" for name in _NEW)),
    32: (*NAMES_32, *(f"{name}d" for name in _NEW)),
    64: GPR_NAMES,
}
"""The names of the general registers by size in bits."""


KINDS: Final[Mapping[str, OperandKind]] = {
    kind.name: kind
    for kind in (
        *(register(f"r{size}", names) for size, names in REGISTER_NAMES.items()),
        immediate("imm8", 8),
        immediate("imm16", 16),
        immediate("imm32", 32),
        immediate("imm64", 64),
        immediate("rel8", 8),
        immediate("rel32", 32),
        *(
            memory(name, 64)
            for name in ("m", "m8", "m16", "m32", "m64", "m128", "m16&64", "m16:16", "m16:32", "m16:64")
        ),
        far("ptr16:32", 32),
        SEGMENT_OVERRIDE,
        SEGMENT_REGISTER,
    )
}
