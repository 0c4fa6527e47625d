"""VT-x as a technique: the guest runs at its own four levels in non-root operation.

The guest's kernel is at CPL 0, so the user mode of Theorem 1 is non-root operation at CPL 0, and its twin differs in
`non_root` alone.  What VM entry and VM exit switch is no resource of the VMM's: of this machine's components, only
what the ownership profile names is one.  Two things do not fit the paper's notion of a trap, and are decided in
`arrangement`: a fault in non-root operation goes to the guest, not to the VMM, unless the exception bitmap says so; and
an instruction that works on a read shadow, or on the TSC offset, is critical by the letter and yet faithful.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

import attrs

from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word, all_of, ite

from ...x86.assisted.ownership import controls_and_owned, processors_own, state_of
from . import machine as vmx
from .arrangement import CONTROLS, COVERS, covered, exists_in_cr0, plain_guest, target
from .non_root import supports
from .ownership import (
    EVERYTHING,
    EVERYTHING_64,
    VmxProfile,
    VmxProfile64,
    profile,
    profile_64,
    virtual_machine,
)
from .state import BITMAPS, GUEST_STATUS, Vmx

SOURCE: Final = "Intel SDM vol. 3C, chapters on VMX; Uhlig et al. 2005"

# What a VMM sets, where it is to own everything: the first processors, and those with EPT.
_ALWAYS: Final = (
    "pin.external_interrupt_exiting", "pin.nmi_exiting", "pin.virtual_nmis", "primary.hlt_exiting",
    "primary.mwait_exiting", "primary.monitor_exiting", "primary.rdpmc_exiting", "primary.use_tsc_offsetting",
    "primary.mov_dr_exiting", "primary.unconditional_io_exiting",
)  # fmt: skip
PRESETS: Final[Mapping[str, tuple[VmxProfile, tuple[str, ...]]]] = {
    "vt-x-2005": (
        profile(EVERYTHING - {"caches"} | {"cr3"}),
        (*_ALWAYS, "primary.invlpg_exiting", "primary.cr3_load_exiting", "primary.cr3_store_exiting"),
    ),
    "vt-x": (
        profile(EVERYTHING),
        (
            *_ALWAYS, "primary.activate_secondary_controls", "secondary.enable_ept", "secondary.enable_vpid",
            "secondary.wbinvd_exiting", "secondary.enable_rdtscp", "secondary.enable_invpcid",
            "secondary.enable_xsaves_xrstors",
        ),
    ),
}  # fmt: skip
PRESETS_64: Final[Mapping[str, tuple[VmxProfile64, tuple[str, ...]]]] = {
    "vt-x-2005": (
        profile_64(EVERYTHING_64 - {"caches"} | {"cr3"}),
        (*PRESETS["vt-x-2005"][1], "primary.cr8_load_exiting", "primary.cr8_store_exiting"),
    ),
    "vt-x": (profile_64(EVERYTHING_64), (*PRESETS["vt-x"][1], "primary.use_tpr_shadow")),
}
TITLES: Final = {
    "vt-x-2005": "VT-x as of 2005: no secondary controls, so shadow paging",
    "vt-x": "VT-x with EPT and secondary controls",
}
# The settings that `--set` knows: by their names in the manual's tables.
_SETTINGS: Final = tuple(
    name
    for name in (*CONTROLS, "primary.activate_secondary_controls")
    if not name.startswith("pin.") and not name.endswith(("_apic_accesses", "x2apic_mode", "_virtualization"))
)


def owned_leaves(owned: VmxProfile) -> tuple[str, ...]:
    """The leaves and memories that are the VMM's: the controls, and what the profile says."""
    return controls_and_owned(owned, (*GUEST_STATUS, "tsc_offset"), (*BITMAPS, "virtual_apic"))


@cache
def state_class(owner: VmxProfile) -> type[Vmx]:
    """The state as a technique sees it: what it leaves to the guest is no resource."""
    return state_of(owner, owned_leaves(owner), "non_root")


def _masks(owned: VmxProfile, state: Vmx, value: Word) -> Word:
    """The guest/host masks of CR0 and CR4 cover all bits (2), what the VMM owns (1), or anything (0)."""
    covers = ((state.cr0_mask & owned.cr0) == owned.cr0) & ((state.cr4_mask & owned.cr4) == owned.cr4)
    every = (~state.cr0_mask == 0) & (~state.cr4_mask == 0)
    return ite(value == 2, every, (value == 0) | covers)


@cache
def hardware(name: str) -> Machine[Any]:
    """The machine that runs the guests of a technique of `PRESETS`, with its controls as settings.

    Exceptions do not exit: an exit of an exception only gives the VMM control more often.
    """
    return _hardware(name, f"ia32-{name}", "IA-32", vmx.build(exceptions=False), *PRESETS[name])


@cache
def hardware_64(name: str) -> Machine[Any]:
    """The same for a 64-bit guest, and the techniques of `PRESETS_64`."""
    return _hardware(name, f"x86-64-{name}", "x86-64", vmx.build_64(exceptions=False), *PRESETS_64[name])


def _hardware(
    name: str, machine: str, title: str, plain: Machine[Any], owner: VmxProfile, on: tuple[str, ...]
) -> Machine[Any]:
    chosen = set(on)
    controls = [
        leaf_setting(control.partition(".")[2].upper(), control, 1, control.replace("_", " "), int(control in chosen))
        for control in _SETTINGS
    ]  # fmt: skip
    masks = Setting(
        "MASKS", "the guest/host masks of CR0 and CR4", (0, 1, 2), partial(_masks, owner), 1,
        concerns=("cr0_mask", "cr4_mask"), labels={0: "any", 1: "owned bits", 2: "every bit"},
    )  # fmt: skip
    targets = Setting(
        "CR3_TARGETS",
        "the CR3-target count: so many values of CR3 load without an exit",
        (0, 1, 2, 3, 4),
        lambda state, value: state.cr3_target_count == value.zero_extend(32),
        0,
        concerns=("cr3_target_count",),
    )
    return attrs.evolve(
        plain,
        name=machine,
        title=f"{title} with VMX: {TITLES[name]}",
        state=state_class(owner),
        settings=(*plain.settings, masks, targets, *controls),
        techniques={name: _technique(name, owner)},
        relocate=None,  # the guest has an address space of its own
        invariant=lambda state: plain.invariant(state) & exists_in_cr0(state.cr0.value),
        notes=(*plain.notes, "VM exits of exceptions"),
    )


def _map(owner: VmxProfile, guest: Vmx, private: Vmx) -> Vmx:
    every = dict.fromkeys(COVERS, Word(1, 1))
    private = covered(owner, private, every)
    # An exit for a TPR below the threshold comes after its instruction, and only gives the VMM control more often.
    private.tpr_threshold = Word(32, 0)
    private.secondary.use_tsc_scaling = 0
    private.secondary.virtualize_x2apic_mode = 0
    return virtual_machine(owner, guest, private)


def _promised(owner: VmxProfile, guest: Vmx, private: Vmx) -> Word:
    """What VM entry asks of CR0 and CR4 (SDM vol. 3C, 26.3.1.1), and what the profile says.

    Where NMIs exit they are virtual, so that IRET ends the guest's own blocking by NMI (24.6.1).
    """
    nmis = (private.pin.nmi_exiting == 0) | (private.pin.virtual_nmis == 1)
    values = [private[name] == value for name, value in owner.promised.items() if name.startswith("msr")]
    return all_of([exists_in_cr0(private.cr0.value), supports(private), nmis, *values])


def technique(name: str) -> Technique[Any]:
    """VT-x with what a preset of `PRESETS` owns; the machine's settings say what the controls are."""
    return _technique(name, PRESETS[name][0])


def technique_64(name: str) -> Technique[Any]:
    """The same for a 64-bit guest, and a preset of `PRESETS_64`."""
    return _technique(name, PRESETS_64[name][0])


def _technique(name: str, owner: VmxProfile) -> Technique[Any]:
    owned = owned_leaves(owner)
    values = processors_own(owner, owned)
    bare = frozenset(slot.name for slot in owner.state.processor.layout)
    of_exits = tuple(n for n in owned if n.startswith("exit_"))
    no_vmcs = (*of_exits, "tsc_offset", "recognized")  # in which nobody can look
    return Technique(
        name,
        TITLES[name],
        map=partial(_map, owner),
        owned=owned,
        replaced=values,
        # The guest's CR0 and CR4 are in the read shadows, and the processor itself keeps its TPR.
        shadowed=tuple(n for n in values if not n.startswith(("cr0", "cr4", "cr8"))),
        # A guest has no VMCS of its own, nor what goes with one.
        has_cell=lambda state, name, cell: Word(1, name in bare),
        owns_cell=owner.owns_cell if isinstance(owner, VmxProfile64) else None,
        deprivileged=lambda state: (state.non_root == 1) & (state.cpl == 0),
        guest=lambda state: plain_guest(state) & all_of(state[name] == 0 for name in no_vmcs),
        private=partial(_promised, owner),
        entries=TRAPS_ONLY,
        delivered=of_exits,
        target=target,
        guests_own=("cr0_shadow", "cr4_shadow"),  # the guest's CR0 and CR4 stand there
        keeps_hidden=True,  # VM exit and VM entry save and load the hidden parts (SDM vol. 3C, chapters 27, 28)
        source=SOURCE,
    )
