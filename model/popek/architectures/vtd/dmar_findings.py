"""What a DMAR table means for a monitor that gives devices to guests: what it must own, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from .dmar import DmarStructure, DmarTable

PAGE = 0x1000
OWN, CARE, WRONG = "own", "care", "wrong"
INTR_REMAP, X2APIC_OPT_OUT, OPT_IN = 1, 2, 4
INCLUDE_ALL, ALL_PORTS, ATC_REQUIRED = 1, 1, 1


@attrs.frozen
class DmarFinding:
    """One thing that the table says.

    Attributes:
        kind: ``own``: the monitor must own it; ``care``: the monitor must mind it; ``wrong``: the table breaks a rule.
        at: offset of the structure in the table; None for the header's.
        what: in one sentence.
        region: first and last byte of host-physical storage, where it is about some.
    """

    kind: str
    at: int | None
    what: str
    region: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        region = None if self.region is None else [hex(end) for end in self.region]
        return {"kind": self.kind, "at": self.at, "what": self.what, "region": region}


def findings(table: DmarTable) -> tuple[DmarFinding, ...]:
    """What the monitor must own, what it must mind, and what is wrong, in this order."""
    found = [*_owned(table), *_minded(table), *_wrong(table)]
    order = (OWN, CARE, WRONG)
    return tuple(sorted(found, key=lambda one: order.index(one.kind)))


def _devices(one: DmarStructure) -> str:
    return ", ".join(scope.words for scope in one.scopes) or "no device"


def _owned(table: DmarTable) -> Iterator[DmarFinding]:
    for one in table.of("DRHD"):
        last = one.base + PAGE * one.pages - 1
        of = (
            f"every other device of segment {one.segment:#x}"
            if one.flags & INCLUDE_ALL
            else f"segment {one.segment:#x}: {_devices(one)}"
        )
        yield DmarFinding(
            OWN, one.at, f"the registers of a remapping unit at {one.base:#x}, of {of}: no guest may reach them",
            (one.base, last),
        )  # fmt: skip
    for one in table.of("RMRR"):
        size = one.limit - one.base + 1
        yield DmarFinding(
            OWN, one.at,
            f"{size >> 10} KB from {one.base:#x} to {one.limit:#x}, which firmware has {_devices(one)} use: no "
            "guest's storage, and mapped to itself for these devices while they have work there",
            (one.base, one.limit),
        )  # fmt: skip
    for one in table.of("DRHD"):
        for scope in one.scopes:
            if scope.kind in (3, 4):
                yield DmarFinding(
                    OWN, one.at,
                    f"the interrupts of {scope.words}: entries of the interrupt remapping table admit its source-id",
                )  # fmt: skip


def _minded(table: DmarTable) -> Iterator[DmarFinding]:
    if not table.flags & INTR_REMAP:
        yield DmarFinding(
            CARE, None,
            "the platform has no interrupt remapping (INTR_REMAP is 0): a guest with a device raises any interrupt "
            "(popek devices check x86.assignment.interrupt-injection)",
        )  # fmt: skip
    if table.flags & X2APIC_OPT_OUT:
        yield DmarFinding(CARE, None, "firmware asks not to use x2APIC (X2APIC_OPT_OUT)")
    if not table.flags & OPT_IN:
        yield DmarFinding(
            CARE, None,
            "firmware does not promise that devices keep to reserved regions until the monitor starts "
            "(DMA_CTRL_PLATFORM_OPT_IN_FLAG is 0): the units are to be on before a device is trusted",
        )  # fmt: skip
    for one in table.of("RMRR"):
        yield DmarFinding(
            CARE, one.at,
            f"a guest that is given {_devices(one)} is given a device that firmware has write to {one.base:#x}: "
            "it needs that region mapped to itself, or the device stays the monitor's",
            (one.base, one.limit),
        )  # fmt: skip
    for one in table.of("ATSR"):
        of = "every root port" if one.flags & ALL_PORTS else _devices(one)
        yield DmarFinding(
            CARE, one.at,
            f"address translation services at {of}: a device that uses them answers for its own translations, so "
            "the monitor switches them on for devices alone that it trusts, and invalidates their TLBs",
        )  # fmt: skip
    for one in table.of("SATC"):
        need = " and needs it" if one.flags & ATC_REQUIRED else ""
        yield DmarFinding(
            CARE, one.at, f"{_devices(one)} has a translation cache{need}: the monitor invalidates it, too"
        )
    for one in table.of("ANDD"):
        yield DmarFinding(
            CARE, one.at, f"{one.name} is ACPI device {one.number} of the scopes: no PCI device"
        )
    for one in table.of("RHSA"):
        yield DmarFinding(CARE, one.at, f"the unit at {one.base:#x} is near proximity domain {one.proximity}")


def _wrong(table: DmarTable) -> Iterator[DmarFinding]:
    for text in table.broken:
        yield DmarFinding(WRONG, None, text)
    if not table.checksum and table.length <= table.given:
        yield DmarFinding(WRONG, None, "the bytes' sum is not 0: something was changed, or copied wrongly")
    kinds = [one.kind for one in table.structures]
    if kinds != sorted(kinds):
        yield DmarFinding(WRONG, None, "structures are not in the order of their types")
    units = table.of("DRHD")
    if not units:
        yield DmarFinding(WRONG, None, "there is no remapping unit")
    yield from _wrong_units(table)
    yield from _wrong_regions(table)
    registers = {one.base for one in units}
    for one in table.of("RHSA"):
        if one.base not in registers:
            yield DmarFinding(
                WRONG, one.at, f"an RHSA names the registers at {one.base:#x}, which no DRHD has"
            )
    named = {(s.kind, s.identifier) for one in table.structures for s in one.scopes}
    for one in table.of("ANDD"):
        if (5, one.number) not in named:
            yield DmarFinding(WRONG, one.at, f"no scope has the ACPI device {one.number}, {one.name}")
    declared = {one.number for one in table.of("ANDD")}
    for one in table.structures:
        for scope in one.scopes:
            if scope.kind == 5 and scope.identifier not in declared:
                yield DmarFinding(WRONG, one.at, f"no ANDD names the ACPI device {scope.identifier}")
            if scope.kind not in range(1, 6):
                yield DmarFinding(WRONG, one.at, f"{scope.words}: an unknown type of scope")
        if one.title.startswith("type"):
            yield DmarFinding(WRONG, one.at, f"a structure of an unknown type, {one.kind}, was skipped")


def _wrong_units(table: DmarTable) -> Iterator[DmarFinding]:
    units = table.of("DRHD")
    for one in units:
        if one.base % PAGE or not one.base:
            yield DmarFinding(WRONG, one.at, f"a unit's registers at {one.base:#x}: no page begins there")
        if one.base >> table.host_width:
            yield DmarFinding(WRONG, one.at, f"registers at {one.base:#x} are beyond {table.host_width} bits")
        later = [other for other in units if other.at > one.at and other.segment == one.segment]
        if one.flags & INCLUDE_ALL and later:
            yield DmarFinding(
                WRONG, one.at,
                f"the unit of all other devices of segment {one.segment:#x} is not the last of that segment",
            )  # fmt: skip
        if not one.flags & INCLUDE_ALL and not one.scopes:
            yield DmarFinding(WRONG, one.at, f"the unit at {one.base:#x} has no device")
        for other in later:
            for scope in set(one.scopes) & set(other.scopes):
                yield DmarFinding(WRONG, other.at, f"{scope.words} is in the scope of two units")


def _wrong_regions(table: DmarTable) -> Iterator[DmarFinding]:
    for one in table.of("RMRR"):
        if one.base % PAGE or (one.limit + 1) % PAGE or one.limit < one.base:
            yield DmarFinding(
                WRONG, one.at,
                f"the reserved region from {one.base:#x} to {one.limit:#x} is not a whole number of pages",
            )  # fmt: skip
        if one.limit >> table.host_width:
            yield DmarFinding(
                WRONG, one.at, f"a region up to {one.limit:#x} is beyond {table.host_width} bits"
            )
        if not one.scopes:
            yield DmarFinding(WRONG, one.at, f"no device uses the reserved region at {one.base:#x}")
        for unit in table.of("DRHD"):
            if one.base <= unit.base + PAGE * unit.pages - 1 and unit.base <= one.limit:
                yield DmarFinding(
                    WRONG, one.at, f"a reserved region covers a unit's registers at {unit.base:#x}"
                )
