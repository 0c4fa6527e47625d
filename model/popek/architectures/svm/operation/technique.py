"""AMD-V as a technique: the guest runs at its own four levels in guest mode.

The guest's kernel is at CPL 0, so the user mode of Theorem 1 is guest mode at CPL 0, and its twin differs in
`guest_mode` alone.  What VMRUN, VMLOAD and their counterparts switch is no resource of the VMM's: of this machine's
components, only what the ownership profile names is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

import attrs

from popek.kernel.machine import Machine, leaf_setting
from popek.kernel.state import Role
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word

from ...ia32.state import Ia32
from . import machine as svm
from .arrangement import CONTROLS, COVERS, covered, exists_in_cr0, target
from .ownership import EVERYTHING, Profile, efer_of, exists, virtual_machine
from .ownership import owned_leaves as owned_of_processor
from .state import SvmIa32

USUAL: Final = frozenset(
    (
        *("cr_read.cr0", "cr_write.cr0"),
        *(f"{word}.dr{n}" for word in ("dr_read", "dr_write") for n in range(8)),
        *(f"vector3.{name}" for name in (
            "intr", "nmi", "smi", "init", "rdpmc", "cpuid", "invd", "hlt", "invlpga", "ioio_prot", "msr_prot",
            "task_switch", "ferr_freeze", "shutdown",
        )),
        *(f"vector4.{name}" for name in (
            "vmrun", "vmmcall", "vmload", "vmsave", "stgi", "clgi", "skinit", "wbinvd", "monitor", "mwait",
        )),
        *("enables.nested_paging", "enables.v_intr_masking", "exceptions.db", "exceptions.gp"),
    )
)  # fmt: skip
"""What a VMM sets that has nested paging and owns everything it can."""

NEVER_CHANGED: Final = ("tsc_offset",)
"""Leaves of the VMCB that the map sets for the guest."""


def setting_name(control: str) -> str:
    """A control as `--set` knows it: the manual's name, with the vector's where that does not say what it is."""
    word, _, name = control.partition(".")
    return name.upper() if word in ("vector3", "vector4", "vector5", "enables") else f"{word}_{name}".upper()


def owned_leaves(owned: Profile) -> tuple[str, ...]:
    """The leaves and memories that are the VMM's: the VMCB's controls, and what the profile says."""
    processor = {leaf.name for leaf in Ia32.leaves}
    controls = [leaf.name for leaf in SvmIa32.leaves if leaf.name not in (*processor, *NEVER_CHANGED)]
    return tuple(dict.fromkeys((*controls, *owned_of_processor(owned), "iopm", "msrpm")))


@cache
def state_class() -> type[SvmIa32]:
    """The state as the technique sees it: what it leaves to the guest is no resource."""
    owned = set(owned_leaves(Profile(EVERYTHING)))

    def role(leaf: str, own: Role) -> Role:
        yielding = leaf != "guest_mode" and own in (Role.RESOURCE, Role.MODE, Role.TIME)
        return Role.GENERAL if yielding and leaf not in owned else own

    return SvmIa32.with_roles(role)


@cache
def hardware() -> Machine[SvmIa32]:
    """The machine that runs the guests, with its controls as settings."""
    plain = svm.build(exceptions=False)
    controls = [
        leaf_setting(
            setting_name(name), name, 1, name.partition(".")[2].replace("_", " "), int(name in USUAL)
        )
        for name in CONTROLS
    ]
    maps = [
        leaf_setting(
            f"{name}_FULL".upper(), f"full_maps.{name}", 1, f"the {text} permissions map is all ones", 1
        )
        for name, text in (("iopm", "I/O"), ("msrpm", "MSR"))
    ]
    return attrs.evolve(
        plain,
        name="ia32-svm",
        title="IA-32 with SVM: AMD-V with nested paging",
        state=state_class(),
        settings=(*plain.settings, *controls, *maps),
        techniques={"svm": technique()},
        relocate=None,  # the guest has an address space of its own
        invariant=lambda state: plain.invariant(state) & exists_in_cr0(state.cr0.value),
        notes=(*plain.notes, "intercepted exceptions other than those of SVM's instructions"),
    )


def _map(guest: SvmIa32, private: SvmIa32) -> SvmIa32:
    every: Mapping[str, Word] = dict.fromkeys(COVERS, Word(1, 1))
    owner = Profile(EVERYTHING)
    return virtual_machine(owner, guest, covered(owner, private, every))


def technique() -> Technique[SvmIa32]:
    """AMD-V of a VMM that owns everything it can; the machine's settings say what the controls are."""
    owner = Profile(EVERYTHING)
    owned = owned_leaves(owner)
    processor = {*(leaf.name for leaf in Ia32.leaves), *(slot.name for slot in Ia32.layout)}
    values = tuple(n for n in owned if n in processor)
    kept = {*owner.words, *owner.memories}
    return Technique(
        "svm",
        "AMD-V with nested paging",
        map=_map,
        owned=owned,
        replaced=values,
        shadowed=tuple(n for n in values if n in kept or n.startswith(("dr6", "dr7"))),
        owns_cell=owner.owns_cell,
        deprivileged=lambda state: (state.guest_mode == 1) & (state.cpl == 0),
        guest=exists,
        private=lambda guest, private: exists_in_cr0(private.cr0.value) & efer_of(private),
        entries=TRAPS_ONLY,
        delivered=tuple(n for n in owned if n.startswith("exit_")),
        target=target,
        keeps_hidden=True,  # VMRUN, VMLOAD and their counterparts move the hidden parts, too
        source=svm.SOURCE,
    )
