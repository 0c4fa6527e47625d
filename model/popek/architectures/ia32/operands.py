"""Operand kinds of IA-32, spelled as the instruction reference does (SDM vol. 2A, "Instruction Column")."""

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

KINDS: Final[Mapping[str, OperandKind]] = {
    kind.name: kind
    for kind in (
        register("r8", NAMES_8),
        register("r16", NAMES_16),
        register("r32", NAMES_32),
        immediate("imm8", 8),
        immediate("imm16", 16),
        immediate("imm32", 32),
        immediate("rel8", 8),
        immediate("rel16", 16),
        immediate("rel32", 32),
        *(
            memory(name, 32)
            for name in (
                *("m", "m8", "m16", "m32", "m64", "m128"),
                *("m16&32", "m16:16", "m16:32", "m32&32", "m16&16"),
            )
        ),
        far("ptr16:16", 16),
        far("ptr16:32", 32),
        SEGMENT_OVERRIDE,
        SEGMENT_REGISTER,
    )
}
