"""Harts whose HS controls are to be set: which of them exist, and how a choice is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from popek.kernel.assistance import AssistanceError, Processor
from popek.kernel.words import Word, symbol
from popek_specs.riscv import table

from ..state import Rv64
from .arrangement import CHOSEN, FLOATING, SECOND_STAGE
from .settings import REGISTERS, places

USUAL: Final = "rva23"


def harts() -> Mapping[str, Mapping[str, Any]]:
    """The harts of `harts.toml`, by name."""
    return {row["name"]: row for row in table("harts.toml")["hart"]}


def processor(name: str | None) -> Processor:
    """A hart by name.

    Raises:
        AssistanceError: there is none of this name.
    """
    known = harts()
    row = known.get(name or USUAL)
    if row is None:
        raise AssistanceError(f"{name}: no such hart; known: {', '.join(known)}")
    absent = {control: text for text, controls in row["read_only"].items() for control in controls}
    bits = {control: symbol(f"chosen {control}", 1) for control in (*CHOSEN, FLOATING, SECOND_STAGE)}

    def fields(profile: Any, setting: Mapping[str, int], number: Callable[[Word], int]) -> Mapping[str, int]:
        found = dict.fromkeys(REGISTERS, 0)
        for control, (register, bit) in places().items():
            if register in found:
                found[register] |= setting[control] << bit
        return found

    return Processor(
        str(row["name"]),
        bits,
        {f"{control} is read-only 0": ~bits[control] for control in absent},
        tuple(bits.values()),
        missing=lambda control: absent.get(control, ""),
        lacks=frozenset(row["lacks"]),
        fields=fields,
        layout=_layout,
    )


def _layout(field: str, value: int) -> tuple[int, Sequence[tuple[int, int, str, str]]]:
    leaves = [leaf for leaf in Rv64.leaves if leaf.component == field and leaf.name in places()]
    return 64, [(leaf.high, leaf.low, leaf.name.partition(".")[2], "") for leaf in reversed(leaves)]
