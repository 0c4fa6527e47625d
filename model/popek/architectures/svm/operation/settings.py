"""Concrete settings of the VMCB's controls: of public hypervisors, out of a dump, or field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from popek.kernel.assistance import AssistanceError, Settings
from popek_specs.svm import table

from ..vmcb import FIELDS, UnknownVmcbField, Vmcb, find
from .arrangement import CONTROLS, COVERS, GENERAL_DETECT, WORDS
from .state import Exceptions

PLACES: Final[Mapping[str, tuple[str, int]]] = {
    "cr_read": ("CR_INTERCEPTS", 0),
    "cr_write": ("CR_INTERCEPTS", 16),
    "dr_read": ("DR_INTERCEPTS", 0),
    "dr_write": ("DR_INTERCEPTS", 16),
    "exceptions": ("EXCEPTION_INTERCEPTS", 0),
    "vector3": ("INTERCEPTS_3", 0),
    "vector4": ("INTERCEPTS_4", 0),
    "cr_write_trap": ("INTERCEPTS_4", 16),
    "vector5": ("INTERCEPTS_5", 0),
}
"""The field and the lowest bit of the components of the state that are intercept vectors."""

_ENABLES: Final[Mapping[str, tuple[str, int]]] = {
    "enables.nested_paging": ("NP_CONTROL", 0),
    "enables.v_intr_masking": ("VINTR_CONTROL", 24),
    "enables.vgif": ("VINTR_CONTROL", 25),
    "enables.virtual_vmload_vmsave": ("VIRT_EXT", 1),
}


def bits() -> Mapping[str, tuple[str, int]]:
    """The VMCB's field, and the bit in it, of each control."""
    found = {}
    for word, (field, low) in PLACES.items():
        kind = WORDS.get(word, Exceptions)
        for name, place in kind.fields():
            if f"{word}.{name}" in CONTROLS:
                found[f"{word}.{name}"] = field, low + place.low
    return {**found, **_ENABLES}


def hypervisors() -> Mapping[str, Settings]:
    """The hypervisors of `hypervisor-settings.toml`, by name."""
    return {row["name"]: _hypervisor(row) for row in table("hypervisor-settings.toml")["hypervisor"]}


def _hypervisor(row: Mapping[str, Any]) -> Settings:
    on = {f"{word}.{name}" for word in (*WORDS, "exceptions") for name in row.get(word, ())}
    known = {*CONTROLS, *(f"exceptions.{name}" for name, _ in Exceptions.fields())}
    unknown = on - known
    if unknown:
        raise AssistanceError(f"{row['name']}: no such control: {', '.join(sorted(unknown))}")
    return _settings(
        row["name"],
        row["source"],
        {name: int(name in on) for name in CONTROLS},
        {name: int(row[name] == "all") for name in COVERS},
        tuple(row["notes"]),
    )


def _settings(
    name: str, source: str, controls: Mapping[str, int], maps: Mapping[str, int], notes: Iterable[str]
) -> Settings:
    """Settings of the controls; a permissions map that nobody says anything of covers what is owned."""
    nested = bool(controls["enables.nested_paging"])
    return Settings(
        name,
        source,
        {**controls, GENERAL_DETECT: 0, **dict.fromkeys(COVERS, 1), **maps},
        # Without nested paging the VMM cannot but own CR3.
        excludes=("cr3",) if nested else (),
        owns=() if nested else ("cr3",),
        notes=tuple(notes),
    )


def of_vmcb(vmcb: Vmcb) -> Settings:
    """The settings in a VMCB; what the permissions maps hold is not in it.

    Raises:
        AssistanceError: a field that decides is not given.
    """
    controls = {}
    for name, (field, bit) in bits().items():
        value = vmcb.fields.get(field)
        if value is None:
            raise AssistanceError(f"{vmcb.name or 'VMCB'}: {field}: not given, and it decides what exits")
        controls[name] = value >> bit & 1
    notes = ["what the permissions maps hold is not in the VMCB", "the VMM's own DR7.GD is taken to be 0"]
    return _settings(vmcb.name or "VMCB", "dump", controls, {}, notes)


def of_64_bit_guest(settings: Settings) -> Settings:
    """The settings for a 64-bit guest: with V_INTR_MASKING its TPR is in the VMCB, and CR8 is the VMM's own."""
    if settings.controls["enables.v_intr_masking"]:
        return attrs.evolve(settings, assume={**settings.assume, "v_tpr": 1})
    return settings


def hypervisors_64() -> Mapping[str, Settings]:
    """The hypervisors with 64-bit guests."""
    return {name: of_64_bit_guest(found) for name, found in hypervisors().items()}


def read_vmcbs(name: str, data: bytes) -> list[Settings]:
    """The settings in VMCB dumps.

    Raises:
        AssistanceError: no dump, or a field that decides is not given.
    """
    from popek.architectures.dump import DumpError

    from .. import dumps

    try:
        return [of_vmcb(dump.vmcb) for dump in dumps.read_vmcbs(data, name)]
    except DumpError as error:
        raise AssistanceError(str(error)) from None


def of_vmcb_fields(fields: Mapping[str, str]) -> Settings:
    """The settings in VMCB fields, such as INTERCEPTS_3=0x18000000; those that are not given are 0.

    Raises:
        AssistanceError: no such field, or no number.
    """
    values = {field: 0 for field, _ in bits().values()}
    for name, text in fields.items():
        try:
            field = find(name)
        except UnknownVmcbField as error:
            raise AssistanceError(str(error)) from None
        try:
            values[field.id] = int(text, 0)
        except ValueError:
            raise AssistanceError(f"{name}: expected a number such as 0x16, not {text!r}") from None
        if not 0 <= values[field.id] <= FIELDS[field.id].mask:
            raise AssistanceError(f"{name}: {text} does not fit in {field.width} bits")
    return of_vmcb(Vmcb("command line", values))
