"""Operand kinds that every mode has, spelled as the instruction reference does (SDM vol. 2A, "Instruction Column")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from popek.kernel.instruction import OperandKind
from popek.kernel.words import Word

from .access import MemoryOperand
from .registers import DS, SEGMENT_NAMES


@attrs.frozen
class FarPointer:
    """A selector (16 bits) and an offset (16 or 32 bits)."""

    selector: Word
    offset: Word


def register(name: str, names: tuple[str, ...]) -> OperandKind:
    """A general register by its number."""
    return OperandKind(name, {"": (len(names) - 1).bit_length()}, spell=lambda parts: names[parts[""]])


def immediate(name: str, width: int) -> OperandKind:
    """A constant."""
    return OperandKind(name, {"": width}, spell=lambda parts: f"{parts['']:#x}")


def _spell_memory(parts: Mapping[str, int]) -> str:
    prefix = "" if parts["segment"] == DS else SEGMENT_NAMES[parts["segment"]] + ":"
    return f"[{prefix}{parts['offset']:#x}]"


def memory(name: str, width: int) -> OperandKind:
    """A reference, whose offset has so many bits."""
    return OperandKind(
        name,
        {"segment": 3, "offset": width},
        valid=lambda parts: parts["segment"] < 6,
        spell=_spell_memory,
        make=lambda parts: MemoryOperand(parts["segment"], parts["offset"]),
        first={"segment": DS},
    )


def far(name: str, offset: int) -> OperandKind:
    """A direct far pointer."""
    return OperandKind(
        name,
        {"selector": 16, "offset": offset},
        spell=lambda parts: f"{parts['selector']:#x}:{parts['offset']:#x}",
        make=lambda parts: FarPointer(parts["selector"], parts["offset"]),
    )


SEGMENT_OVERRIDE: Final = OperandKind(
    "seg",
    {"": 3},
    valid=lambda parts: parts[""] < 6,
    spell=lambda parts: SEGMENT_NAMES[parts[""]],
    first={"": DS},
)
"""The segment of a string instruction's source."""

SEGMENT_REGISTER: Final = OperandKind(
    "Sreg",
    {"": 3},  # 6 and 7 encode no register: #UD
    spell=lambda parts: (*SEGMENT_NAMES, "sreg6", "sreg7")[parts[""]],
)

LENGTH: Final = OperandKind("length", {"": 4}, valid=lambda parts: parts[""] != 0, first={"": 1})
"""Every instruction has a length; it decides the return address and nothing else."""
