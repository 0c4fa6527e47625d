"""Operand kinds of the PDP-10."""

from __future__ import annotations

from popek.kernel.instruction import OperandKind

from .encoding import DEVICES, KS10_UNASSIGNED


def operands() -> dict[str, OperandKind]:
    """AC, E and what takes AC's place, by the name that forms use."""

    def octal(name: str, width: int, **more: object) -> OperandKind:
        return OperandKind(name, {"": width}, spell=lambda parts: f"{parts['']:o}", **more)  # type: ignore[arg-type]

    kinds = (
        octal("AC", 4),
        octal(
            "A", 4, valid=lambda parts: parts[""] != 0, first={"": 1}
        ),  # an accumulator of ADJBP: with 0 it is IBP
        octal("E", 18),
        octal("B", 18),  # where an indirect byte pointer leads; of a direct one not looked at
        octal("F", 4),  # flags of JFCL
        octal("P", 4, valid=lambda parts: parts[""] != 0, first={"": 4}),  # references of PXCT
        octal("L", 5, valid=lambda parts: parts[""] != 0, first={"": 1}),  # the opcode of a local UUO
        octal("U", 5),  # the low digits of a monitor UUO's opcode
        octal("N", 7, valid=lambda parts: parts[""].isin(KS10_UNASSIGNED)),
        octal("D", 7, valid=lambda parts: parts[""] >= len(DEVICES), first={"": 2}),  # a device
        # A word whose left half restores flags: the accumulator is index register, the address 0.
        OperandKind(
            "(X)",
            {"": 4},
            valid=lambda parts: parts[""] != 0,
            spell=lambda parts: f"({parts['']:o})",
            first={"": 1},
        ),
    )
    return {kind.name: kind for kind in kinds}
