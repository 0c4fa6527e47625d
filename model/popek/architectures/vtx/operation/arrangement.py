"""Guest and VMM under VT-x with the VM-execution controls left open: symbols of what the VMM has, a bit each.

Exceptions do not exit, for that could only help; the TSC multiplier is 1; there are no CR3 targets; the guest's
processor has no x2APIC, so nobody virtualizes one.  Masks and bitmaps either cover whatever the VMM owns, or nothing
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from popek.kernel.assistance import PRIVATE, Arrangement
from popek.kernel.memory import Memory
from popek.kernel.outcome import Target, Trap
from popek.kernel.technique import Technique
from popek.kernel.words import Word, concat, ite

from ...x86.assisted.ownership import owned_leaves
from ...x86.exceptions import UD
from ...x86.registers import CR0_DEFINED
from .exits import VM_EXIT
from .ownership import VmxProfile, virtual_machine
from .state import PinControls, PrimaryControls, SecondaryControls, Vmx

V = TypeVar("V", bound=Vmx)

CONTROLS: Final = tuple(
    f"{word}.{name}"
    for word, kind in (("pin", PinControls), ("primary", PrimaryControls), ("secondary", SecondaryControls))
    for name, _ in kind.fields()
    if name
    not in (
        "activate_secondary_controls",
        "activate_tertiary_controls",
        "use_tsc_scaling",
        "virtualize_x2apic_mode",
    )
)
COVERS: Final = ("cr0_mask", "cr4_mask", "io_bitmap", "msr_bitmap")
"""Masks and bitmaps, 1 where they cover whatever the VMM owns, 0 where they cover nothing of it."""


def target(trap: Trap[Any]) -> Target:
    """A fault goes to the guest, for the exception bitmap is 0."""
    return Target.VMM if trap.vector is VM_EXIT else Target.GUEST


def exists_in_cr0(value: Word) -> Word:
    """Whether CR0 can hold a value (width 1): no bits that it does not have, NW only with CD, PG only with PE."""
    known = (value & (CR0_DEFINED ^ 0xFFFFFFFF)) == 0
    return known & ~(value[29] & ~value[30]) & ~(value[31] & ~value[0])


def plain_guest(state: Vmx) -> Word:
    """The guest's machine is its own, without what ring deprivileging keeps from it (width 1)."""
    return (state.non_root == 0) & (state.reserved.size == 0) & (state.read_only.size == 0)


def anything(state: type[V], knob: Mapping[str, Word]) -> V:
    """All that the VMM may have, its controls being the knobs.

    Exceptions and a TPR threshold, which could only give it control more often, do not exit.
    """
    constant = {
        "exception_bitmap": 0, "page_fault_mask": 0, "page_fault_match": 0, "cr3_target_count": 0, "tpr_threshold": 0,
        "primary.activate_secondary_controls": 1, "secondary.use_tsc_scaling": 0,
        "secondary.virtualize_x2apic_mode": 0, "non_root": 1,
    }  # fmt: skip
    return state.symbolic(PRIVATE).with_changes({**constant, **{name: knob[name] for name in CONTROLS}})


def covered(
    owned: VmxProfile, private: V, knob: Mapping[str, Word], masks: Mapping[str, int] | None = None
) -> V:
    """The masks and bitmaps where the VMM owns something: all ones or all zeros, as the knobs say.

    `masks` are as they are.
    """
    private = private.copy()
    for name, bits in (("cr0_mask", owned.cr0), ("cr4_mask", owned.cr4)):
        width = private[name].width
        if masks is not None and name in masks:
            private[name] = Word(width, masks[name] & (1 << width) - 1)
            continue
        everywhere = ite(knob[name], Word(width, bits), Word(width, 0))
        private[name] = (private[name] & ~Word(width, bits)) | everywhere
    owners: Mapping[str, Callable[[Word], Word]] = {
        "io_bitmap": partial(owned.owns_cell, "ports"),
        "msr_bitmap": lambda place: owned.owns_msr(_msr_number(place)),
    }
    for name, owns in owners.items():
        private._memories[name] = _bitmap(private.memories()[name], knob[name], owns)
    return private


def _msr_number(place: Word) -> Word:
    """The MSR of a bit of the MSR bitmap."""
    return concat(ite(place[13], Word(19, 0xC0000000 >> 13), Word(19, 0)), place[12:0])


def _bitmap(free: Memory, knob: Word, owns: Callable[[Word], Word]) -> Memory:
    return Memory(free.address_width, 1, lambda place: ite(owns(place), knob, free.load(place)))


def arrange(owned: VmxProfile, knob: Mapping[str, Word], masks: Mapping[str, int]) -> Arrangement[Any]:
    """A guest beside a VMM that owns so much, with these words for the controls and covers."""
    leaves = owned_leaves(owned)
    technique: Technique[Any] = Technique(
        "vt-x",
        "VT-x",
        map=partial(virtual_machine, owned),
        owned=leaves,
        # The processor itself keeps the guest's TPR, in the virtual-APIC page.
        shadowed=tuple(name for name in leaves if name != "cr8"),
        owns_cell=owned.owns_cell,
        settled=True,
        # Without NMIs that are the VMM's nobody asks whether the guest's are blocked.
        uncompared=() if "nmis" in owned.owns else ("nmi_blocked",),
        deprivileged=lambda state: (state.non_root == 1) & (state.cpl == 0),
        guest=lambda guest: plain_guest(guest) & exists_in_cr0(guest.cr0.value),
        private=lambda guest, private: exists_in_cr0(private.cr0.value),
        target=target,
    )
    private = anything(owned.state, knob).with_changes(owned.promised)
    return Arrangement(
        technique,
        private,
        start=lambda state: state.with_changes({"non_root": 0}),
        place=lambda guest, private: covered(owned, private, knob, masks),
        lacks=owned.unknown_mnemonics,
        undefined=UD,
    )
