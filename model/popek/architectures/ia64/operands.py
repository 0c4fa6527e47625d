"""Operand kinds of Itanium, spelled as assembly does: `r`, `ar.k`, `rr[r]`, `[r]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.kernel.instruction import OperandKind

from .state import CR_NUMBERS

FILES: Final = ("rr", "pkr", "ibr", "dbr", "pmc", "pmd", "cpuid", "msr")

# Control registers by what governs them (vol. 2, chapter 11); each kind's operand is an index into these.
INTERRUPTION: Final = ("ipsr", "isr", "iip", "ifa", "itir", "iipa", "ifs", "iim", "iha")
EXTERNAL_READ: Final = ("tpr", "irr0", "irr1", "irr2", "irr3")
# Application registers that do not exist, and those that read 0 and take no value (vol. 1, table 3-3).
RESERVED: Final = (
    *range(8, 16),
    20,
    22,
    23,
    31,
    *range(33, 36),
    *range(37, 40),
    *range(41, 44),
    46,
    47,
    *range(67, 112),
)
IGNORED: Final = (*range(48, 64), *range(112, 128))
OTHER: Final = ("dcr", "iva", "pta", "lid", "itv", "pmv", "cmcv", "lrr0", "lrr1")


def increment(number: int) -> int:
    """What fetchadd adds, by the three bits of its encoding: a sign and one of 16, 8, 4, 1."""
    return (16, 8, 4, 1)[number & 3] * (-1 if number & 4 else 1)


def _register(name: str, text: str, width: int) -> OperandKind:
    return OperandKind(name, {"": width}, spell=lambda parts: text.format(parts[""]), first={"": 1})


def _immediate(width: int) -> OperandKind:
    return OperandKind(f"imm{width}", {"": width}, spell=lambda parts: f"{parts['']:#x}")


def _numbered(kind: str, missing: tuple[int, ...], first: int) -> OperandKind:
    """An application register of those that `missing` are not."""
    return OperandKind(
        kind,
        {"": 7},
        valid=lambda parts: ~parts[""].isin(missing),
        spell=lambda parts: f"ar{parts['']}",
        first={"": first},
    )


def control_registers(kind: str, names: tuple[str, ...]) -> OperandKind:
    """The control registers of one group."""
    width = max(1, (len(names) - 1).bit_length())
    return OperandKind(
        kind,
        {"": width},
        valid=lambda parts: parts[""] <= len(names) - 1,
        spell=lambda parts: f"cr.{names[min(parts[''], len(names) - 1)]}",
    )


def _spell_unimplemented(parts: Mapping[str, int]) -> str:
    return f"cr{parts['']}"


KINDS: Final[Mapping[str, OperandKind]] = {
    kind.name: kind
    for kind in (
        _register("r", "r{}", 7),
        _register("gr", "r{}", 7),  # in forms whose mnemonic has an `r` of its own
        _register("[r]", "[r{}]", 7),
        *(_register(f"{name}[r]", name + "[r{}]", 7) for name in FILES),
        _register("dtr[r]", "dtr[r{}]", 7),
        _register("itr[r]", "itr[r{}]", 7),
        _register("b", "b{}", 3),
        _register("f", "f{}", 7),
        _numbered("ar(reserved)", tuple(n for n in range(128) if n not in RESERVED), 8),
        _numbered("ar(ignored)", tuple(n for n in range(128) if n not in IGNORED), 48),
        OperandKind("inc3", {"": 3}, spell=lambda parts: str(increment(parts[""]))),
        OperandKind("pos6", {"": 6}, spell=lambda parts: str(parts[""])),
        *(OperandKind(f"len{n}", {"": n}, spell=lambda parts: str(parts[""] + 1)) for n in (4, 6)),
        OperandKind("sf", {"": 2}, spell=lambda parts: f"s{parts['']}"),
        OperandKind("ar.k", {"": 3}, spell=lambda parts: f"ar.k{parts['']}"),
        control_registers("cr(interruption)", INTERRUPTION),
        control_registers("cr(external)", EXTERNAL_READ),
        control_registers("cr(other)", OTHER),
        OperandKind(
            "cr(unimplemented)",
            {"": 7},
            valid=lambda parts: ~parts[""].isin(tuple(CR_NUMBERS.values())),
            spell=_spell_unimplemented,
            first={"": 3},
        ),
        *map(_immediate, (2, 7, 8, 14, 21, 24, 25, 64)),
    )
}
