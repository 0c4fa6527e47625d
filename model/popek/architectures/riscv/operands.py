"""Operands: registers, immediates, references to storage (unprivileged manual, "RV32I", "RV64I")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import OperandKind
from popek.kernel.words import Word


def _register(name: str, letter: str = "x") -> OperandKind:
    return OperandKind(name, {"": 5}, spell=lambda parts: f"{letter}{parts['']}")


def _number(name: str, width: int, *, signed: bool = False, unit: int = 1) -> OperandKind:
    def spell(parts: Mapping[str, int]) -> str:
        value = parts[""] - (signed and parts[""] >> width - 1) * (1 << width)
        return str(value * unit)

    return OperandKind(name, {"": width}, spell=spell)


def _place(parts: Mapping[str, int]) -> str:
    offset = parts["offset"] - (parts["offset"] >> 11) * (1 << 12)
    return f"{offset}(x{parts['base']})"


def _based(parts: Mapping[str, Word]) -> tuple[Word, Word]:
    return parts["offset"], parts["base"]


KINDS: Final = {
    kind.name: kind
    for kind in (
        _register("rd"),
        _register("rs1"),
        _register("rs2"),
        _register("fd", "f"),
        _register("fs2", "f"),
        _register("fs1", "f"),
        _number("imm", 12, signed=True),
        _number("upper", 20),
        _number("branch", 12, signed=True, unit=2),
        _number("jump", 20, signed=True, unit=2),
        _number("uimm", 5),
        _number("shamt", 6),
        _number("shamtw", 5),
        OperandKind("offset(rs1)", {"offset": 12, "base": 5}, spell=_place, make=_based),
        OperandKind("(rs1)", {"": 5}, spell=lambda parts: f"(x{parts['']})"),
    )
}
