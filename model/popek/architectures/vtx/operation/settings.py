"""Concrete settings of the VM-execution controls: of public hypervisors, or out of a dump."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from popek.kernel.assistance import AssistanceError, Settings
from popek_specs.vtx import rows, table

from ..vmcs import Vmcs
from .arrangement import CONTROLS, COVERS
from .ownership import FEATURES

FIELDS: Final = {
    "pin": "PIN_CONTROLS", "primary": "PRIMARY_PROC_CONTROLS", "secondary": "SECONDARY_PROC_CONTROLS",
}  # fmt: skip
TPR_SHADOW: Final = "tpr_shadow"
"""What is assumed of a VMM that keeps its guest's task priority in the virtual-APIC page."""
ACTIVATE_SECONDARY: Final = 1 << 31


def bit_numbers() -> Mapping[str, int]:
    """The bit of each control, by names such as `primary.hlt_exiting`."""
    return {
        f"{row['control']}.{row['id'].lower()}": int(row["bit"])
        for row in rows("controls.csv")
        if row["control"] in FIELDS
    }


def hypervisors() -> Mapping[str, Settings]:
    """The hypervisors of `hypervisor-settings.toml`, by name."""
    return {row["name"]: _hypervisor(row) for row in table("hypervisor-settings.toml")["hypervisor"]}


def hypervisors_64() -> Mapping[str, Settings]:
    """The same, around a 64-bit guest."""
    return {name: of_64_bit_guest(settings) for name, settings in hypervisors().items()}


def of_64_bit_guest(settings: Settings) -> Settings:
    """With a TPR shadow the VMM cannot but own CR8."""
    if not settings.controls["primary.use_tpr_shadow"]:
        return settings
    return attrs.evolve(settings, assume={**settings.assume, TPR_SHADOW: 1}, owns=(*settings.owns, "tpr"))


def _hypervisor(row: Mapping[str, Any]) -> Settings:
    on = {f"{group}.{name.lower()}" for group in FIELDS for name in row[group]}
    if "primary.activate_secondary_controls" not in on:
        on = {name for name in on if not name.startswith("secondary.")}
    return _settings(
        row["name"],
        row["source"],
        {name: int(name in on) for name in CONTROLS},
        {name: int(row[name], 16) for name in ("cr0_mask", "cr4_mask") if name in row},
        {name: int(row[name] == "all") for name in ("io_bitmap", "msr_bitmap")},
        row.get("unrestricted", False),
        tuple(row["notes"]),
    )


def _settings(
    name: str,
    source: str,
    controls: Mapping[str, int],
    masks: Mapping[str, int],
    bitmaps: Mapping[str, int],
    unrestricted: bool,
    notes: tuple[str, ...],
) -> Settings:
    """Settings of the controls, as they take effect.

    Args:
        masks: `cr0_mask` and `cr4_mask`, where they are known.
        bitmaps: `io_bitmap` and `msr_bitmap`: 1 all ones but for what is passed through, 0 all zeros; missing
            where nobody says, and then taken to cover what is owned.
        unrestricted: the guest may leave protected mode.
    """
    ept = bool(controls["secondary.enable_ept"])
    return Settings(
        name,
        source,
        {**controls, **dict.fromkeys(COVERS, 1), **bitmaps},
        masks,
        assume={"unrestricted": 1} if unrestricted and ept else {},
        lacks=frozenset(name for name in FEATURES if not controls[name]),
        # Without EPT the VMM cannot but own CR3.
        excludes=("cr3",) if ept else (),
        owns=() if ept else ("cr3",),
        notes=notes,
    )


def of_vmcs(vmcs: Vmcs) -> Settings:
    """The settings in a VMCS; what the bitmaps hold is not in it.

    Raises:
        AssistanceError: a field that decides is not given.
    """
    words: dict[str, int] = {}
    for group, field in FIELDS.items():
        value = vmcs.get(field)
        if value is None and group == "secondary" and not words["primary"] & ACTIVATE_SECONDARY:
            value = 0
        if value is None:
            raise AssistanceError(f"{vmcs.name or 'VMCS'}: {field}: not given, and it decides what exits")
        words[group] = value
    if not words["primary"] & ACTIVATE_SECONDARY:
        words["secondary"] = 0
    numbers = bit_numbers()
    controls = {name: words[name.partition(".")[0]] >> numbers[name] & 1 for name in CONTROLS}
    names = {"cr0_mask": "CR0_GUEST_HOST_MASK", "cr4_mask": "CR4_GUEST_HOST_MASK"}
    masks = {name: value for name, field in names.items() if (value := vmcs.get(field)) is not None}
    cr0 = vmcs.get("GUEST_CR0")
    leaves = bool(controls["secondary.unrestricted_guest"]) and cr0 is not None
    notes = ["what the bitmaps hold is not in the VMCS"]
    if words["secondary"] >> numbers["secondary.virtualize_x2apic_mode"] & 1:
        notes.append(
            "the guest of this model has no x2APIC: what 'virtualize x2APIC mode' gives it is not judged"
        )
    return _settings(vmcs.name or "VMCS", "dump", controls, masks, {}, leaves, tuple(notes))
