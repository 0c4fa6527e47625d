"""A VMCS as somebody gave it to us: the fields that are known, and what the processor was doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from .fields import FIELDS

MemoryEntry = tuple[int, int, int]
"""Physical address, size in bytes, little-endian value."""


class MissingField(Exception):  # noqa: N818 -- control flow inside the checks, never shown
    """A check needs something that nobody gave.

    Attributes:
        what: a field id, or words for a capability or a place in memory.
    """

    def __init__(self, what: str) -> None:
        """Say what is missing."""
        super().__init__(what)
        self.what = what


class PerhapsMissing(MissingField):
    """A symbolic run needs it; numbers may not, as they decide whether it is asked for."""


@attrs.frozen(cache_hash=True)
class Launch:
    """What the VM-entry checks look at outside the VMCS, memory and capabilities.

    The defaults are those of a hypervisor that gets as far as the entry: VMX root operation in 64-bit mode,
    CPL 0, outside SMM, a current VMCS in the launch state that the instruction wants.

    Attributes:
        instruction: the instruction that tries the entry.
        launch_state: of the current VMCS; None takes the one that `instruction` needs.
        mov_ss_blocking: whether the instruction follows a MOV SS or POP SS.
        in_smm: whether the processor is in system-management mode.
        efer_lma: IA32_EFER.LMA while the instruction runs; None if nothing shows it.
        cpl: current privilege level.
        vmx_root: whether the processor is in VMX root operation.
        legal_mode: protected mode, and not compatibility or virtual-8086 mode.
        has_current_vmcs: whether the current-VMCS pointer is valid.
        shadow_vmcs: whether the current VMCS is a shadow VMCS.
        current_vmcs: physical address of the current VMCS, if known.
        vmxon_pointer: physical address of the VMXON region, if known.
        x2apic: whether the local APIC is in x2APIC mode, if known.
        trace_enabled: IA32_RTIT_CTL.TraceEn while the instruction runs.
        vmxoff_since_launch: whether VMXOFF and VMXON came after the VMCS was launched.
    """

    instruction: Literal["VMLAUNCH", "VMRESUME"] = "VMLAUNCH"
    launch_state: Literal["clear", "launched"] | None = None
    mov_ss_blocking: bool = False
    in_smm: bool = False
    efer_lma: bool | None = True
    cpl: int = 0
    vmx_root: bool = True
    legal_mode: bool = True
    has_current_vmcs: bool = True
    shadow_vmcs: bool = False
    current_vmcs: int | None = None
    vmxon_pointer: int | None = None
    x2apic: bool | None = None
    trace_enabled: bool = False
    vmxoff_since_launch: bool = False


_LAUNCH = Launch()


@attrs.frozen
class Vmcs:
    """A VMCS, complete or not.

    Attributes:
        name: how the reader called it, such as a file name; may be empty.
        fields: values by field id. A field that is not here is unknown, not zero.
        memory: what is known of physical memory: (address, size in bytes, little-endian value).
        default: the value of all fields that `fields` does not mention, or None if they are unknown.
        launch: what the processor was doing.
        printed: whether a machine printed it; else somebody wrote it, such as a program that tries cases.
        entered: whether it is said, beside the fields, that the last entry succeeded.
        areas: index and value of each entry of an MSR area that is listed, by ``ENTRY_MSR_LOAD``,
            ``EXIT_MSR_STORE``, ``EXIT_MSR_LOAD``; where it lies need not be known.
    """

    name: str = ""
    fields: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[MemoryEntry, ...] = ()
    default: int | None = None
    launch: Launch = _LAUNCH
    printed: bool = False
    entered: bool = False
    areas: Mapping[str, tuple[tuple[int, int], ...]] = attrs.field(factory=dict)

    def get(self, field_id: str) -> int | None:
        """The value of a field, or None if it is unknown."""
        value = self.fields.get(field_id)
        if value is None and self.default is not None:
            return self.default & FIELDS[field_id].mask
        return value

    def with_fields(self, **changes: int) -> Vmcs:
        """A copy with some fields set.

        >>> Vmcs(fields={"VPID": 0}).with_fields(VPID=1).get("VPID")
        1
        """
        return attrs.evolve(self, fields={**self.fields, **changes})
