"""Operand kinds of x86-64, spelled as the instruction reference does (SDM vol. 2A, "Instruction Column").

Registers are numbered as with a REX prefix: 8 to 15 have one, and 4 to 7 of `r8` are SPL, BPL, SIL and DIL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.architectures.ia32.operands import NAMES_16, FarPointer
from popek.architectures.ia32.state import DS, SEGMENT_NAMES
from popek.architectures.ia32.state import GPR_NAMES as NAMES_32
from popek.kernel.instruction import OperandKind

from .access import MemoryOperand
from .state import GPR_NAMES

_NEW: Final = GPR_NAMES[8:]
REGISTER_NAMES: Final[Mapping[int, tuple[str, ...]]] = {
    8: (*("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"), *(f"{name}b" for name in _NEW)),
    16: (*NAMES_16, *(f"{name}w" for name in _NEW)),
    32: (*NAMES_32, *(f"{name}d" for name in _NEW)),
    64: GPR_NAMES,
}
"""The names of the general registers by size in bits."""


def _register(size: int) -> OperandKind:
    return OperandKind(f"r{size}", {"": 4}, spell=lambda parts: REGISTER_NAMES[size][parts[""]])


def _immediate(name: str, width: int) -> OperandKind:
    return OperandKind(name, {"": width}, spell=lambda parts: f"{parts['']:#x}")


def _spell_memory(parts: Mapping[str, int]) -> str:
    prefix = "" if parts["segment"] == DS else SEGMENT_NAMES[parts["segment"]] + ":"
    return f"[{prefix}{parts['offset']:#x}]"


def _memory(name: str) -> OperandKind:
    return OperandKind(
        name,
        {"segment": 3, "offset": 64},
        valid=lambda parts: parts["segment"] < 6,
        spell=_spell_memory,
        make=lambda parts: MemoryOperand(parts["segment"], parts["offset"]),
        first={"segment": DS},
    )


KINDS: Final[Mapping[str, OperandKind]] = {
    kind.name: kind
    for kind in (
        *map(_register, (8, 16, 32, 64)),
        _immediate("imm8", 8),
        _immediate("imm16", 16),
        _immediate("imm32", 32),
        _immediate("imm64", 64),
        _immediate("rel8", 8),
        _immediate("rel32", 32),
        *map(_memory, ("m", "m8", "m16", "m32", "m64", "m128", "m16&64", "m16:16", "m16:32", "m16:64")),
        OperandKind(
            "ptr16:32",
            {"selector": 16, "offset": 32},
            spell=lambda parts: f"{parts['selector']:#x}:{parts['offset']:#x}",
            make=lambda parts: FarPointer(parts["selector"], parts["offset"]),
        ),
        OperandKind(
            "seg",  # the segment of a string instruction's source
            {"": 3},
            valid=lambda parts: parts[""] < 6,
            spell=lambda parts: SEGMENT_NAMES[parts[""]],
            first={"": DS},
        ),
        OperandKind(
            "Sreg",
            {"": 3},  # 6 and 7 encode no register: #UD
            spell=lambda parts: (*SEGMENT_NAMES, "sreg6", "sreg7")[parts[""]],
        ),
    )
}
