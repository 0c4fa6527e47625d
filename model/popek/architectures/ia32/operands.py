"""Operand kinds of IA-32, spelled as the instruction reference does (SDM vol. 2A, "Instruction Column")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from popek.kernel.instruction import OperandKind
from popek.kernel.words import Word

from .access import MemoryOperand
from .state import DS, GPR_NAMES, SEGMENT_NAMES

NAMES_16: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
NAMES_8: Final = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")


@attrs.frozen
class FarPointer:
    """A selector (16 bits) and an offset (16 or 32 bits)."""

    selector: Word
    offset: Word


def _register(name: str, names: tuple[str, ...]) -> OperandKind:
    return OperandKind(name, {"": 3}, spell=lambda parts: names[parts[""]])


def _immediate(name: str, width: int) -> OperandKind:
    return OperandKind(name, {"": width}, spell=lambda parts: f"{parts['']:#x}")


def _spell_memory(parts: Mapping[str, int]) -> str:
    prefix = "" if parts["segment"] == DS else SEGMENT_NAMES[parts["segment"]] + ":"
    return f"[{prefix}{parts['offset']:#x}]"


def _memory(name: str) -> OperandKind:
    return OperandKind(
        name,
        {"segment": 3, "offset": 32},
        valid=lambda parts: parts["segment"] < 6,
        spell=_spell_memory,
        make=lambda parts: MemoryOperand(parts["segment"], parts["offset"]),
        first={"segment": DS},
    )


def _segment_override(name: str) -> OperandKind:
    """The segment of a string instruction's source."""
    return OperandKind(
        name,
        {"": 3},
        valid=lambda parts: parts[""] < 6,
        spell=lambda parts: SEGMENT_NAMES[parts[""]],
        first={"": DS},
    )


def _far(name: str, offset: int) -> OperandKind:
    return OperandKind(
        name,
        {"selector": 16, "offset": offset},
        spell=lambda parts: f"{parts['selector']:#x}:{parts['offset']:#x}",
        make=lambda parts: FarPointer(parts["selector"], parts["offset"]),
    )


KINDS: Final[Mapping[str, OperandKind]] = {
    kind.name: kind
    for kind in (
        _register("r8", NAMES_8),
        _register("r16", NAMES_16),
        _register("r32", GPR_NAMES),
        _immediate("imm8", 8),
        _immediate("imm16", 16),
        _immediate("imm32", 32),
        _immediate("rel8", 8),
        _immediate("rel16", 16),
        _immediate("rel32", 32),
        *map(
            _memory,
            ("m", "m8", "m16", "m32", "m64", "m128", "m16&32", "m16:16", "m16:32", "m32&32", "m16&16"),
        ),
        _far("ptr16:16", 16),
        _far("ptr16:32", 32),
        _segment_override("seg"),
        OperandKind(
            "Sreg",
            {"": 3},  # 6 and 7 encode no register: #UD
            spell=lambda parts: (*SEGMENT_NAMES, "sreg6", "sreg7")[parts[""]],
        ),
    )
}

# Every instruction has a length; it decides the return address and nothing else.
LENGTH: Final = OperandKind("length", {"": 4}, valid=lambda parts: parts[""] != 0, first={"": 1})
