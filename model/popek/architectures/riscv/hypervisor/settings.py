"""Concrete settings of HS's registers: of public hypervisors, or given by a user."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from popek.kernel.assistance import AssistanceError, Settings
from popek_specs.riscv import table

from ..state import Rv64
from .arrangement import CHOSEN, FLOATING, GIVEN, SECOND_STAGE

REGISTERS: Final = ("hstatus", "hedeleg", "hideleg", "hcounteren", "henvcfg", "hstateen0")
"""What HS has set."""
BELOW: Final = ("medeleg", "mcounteren", "menvcfg", "mstateen0")
"""What M has set; where it is not given, M keeps nothing from HS."""
EVERYTHING: Final = -1


@functools.cache
def places() -> Mapping[str, tuple[str, int]]:
    """The register and the bit of each control that is a bit of one."""
    leaves = {leaf.name: leaf for leaf in Rv64.leaves}
    return {
        name: (leaves[name].component, leaves[name].low)
        for name in (*CHOSEN, *GIVEN)
        if leaves[name].component in (*REGISTERS, *BELOW)
    }


def of_registers(values: Mapping[str, int]) -> dict[str, int]:
    """The controls, given registers by name."""
    return {
        name: values[register] >> bit & 1 for name, (register, bit) in places().items() if register in values
    }


def hypervisors() -> Mapping[str, Settings]:
    """The hypervisors of `hypervisors.toml`, by name."""
    return {row["name"]: _hypervisor(row) for row in table("hypervisors.toml")["hypervisor"]}


def _hypervisor(row: Mapping[str, Any]) -> Settings:
    controls = of_registers({name: int(row[name], 16) for name in REGISTERS})
    controls |= {FLOATING: int(row["floating_point"]), SECOND_STAGE: 1}
    grade = () if row["confidence"] == "sure" else (f"confidence: {row['confidence']}",)
    return Settings(
        row["name"],
        row["source"],
        controls,
        lacks=frozenset(row.get("lacks", ())),
        excludes=owned_elsewhere(controls),
        owns=("floating-point",) if not controls[FLOATING] else (),
        notes=(*row["notes"], *grade),
    )


def owned_elsewhere(controls: Mapping[str, int]) -> tuple[str, ...]:
    """What a VMM with a second stage and floating point on does not own."""
    return ("translation", *(("floating-point",) if controls[FLOATING] else ()))


def written(fields: Mapping[str, str]) -> Settings:
    """The settings in registers, such as hedeleg=0xb109 and hstatus=0x200000.

    What is not given of HS's registers is 0, and of M's, everything.

    Raises:
        AssistanceError: no such register, or no number.
    """
    return _given("command line", fields)


def read(name: str, data: bytes) -> list[Settings]:
    """The settings in a TOML file of registers, such as `hedeleg = 0xb109`; as for `written`.

    Raises:
        AssistanceError: not TOML, no such register, or no number.
    """
    try:
        fields = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise AssistanceError(f"{name}: not TOML: {error}") from None
    try:
        return [_given(name, {key: str(value) for key, value in fields.items()})]
    except AssistanceError as error:
        raise AssistanceError(f"{name}: {error}") from None


def _given(name: str, fields: Mapping[str, str]) -> Settings:
    known = (*REGISTERS, *BELOW, FLOATING, SECOND_STAGE)
    values = {**dict.fromkeys(REGISTERS, 0), **dict.fromkeys(BELOW, EVERYTHING), FLOATING: 1, SECOND_STAGE: 1}
    for register, text in fields.items():
        if register not in known:
            raise AssistanceError(f"{register}: no such register; known: {', '.join(known)}")
        try:
            values[register] = int(text, 0)
        except ValueError:
            raise AssistanceError(f"{register}: expected a number such as 0x444, not {text!r}") from None
        if not 0 <= values[register] < 1 << 64:
            raise AssistanceError(f"{register}: expected a number of 64 bits, not {text!r}")
    for switch in (FLOATING, SECOND_STAGE):
        if values[switch] not in (0, 1):
            raise AssistanceError(f"{switch}: expected 0 or 1, not {fields[switch]!r}")
    controls = of_registers(values) | {name: values[name] for name in (FLOATING, SECOND_STAGE)}
    source = "command line" if name == "command line" else "file"
    return Settings(name, source, controls, excludes=owned_elsewhere(controls))
