"""AMD-V as a technique: the guest runs at its own four levels in guest mode.

The guest's kernel is at CPL 0, so the user mode of Theorem 1 is guest mode at CPL 0, and its twin differs in
`guest_mode` alone.  What VMRUN, VMLOAD and their counterparts switch is no resource of the VMM's: of this machine's
components, only what the ownership profile names is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

import attrs

from popek.kernel.machine import Machine, leaf_setting
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word

from ...x86.assisted.ownership import controls_and_owned, processors_own, state_of
from . import machine as svm
from .arrangement import CONTROLS, COVERS, covered, exists_in_cr0, target
from .ownership import EVERYTHING, EVERYTHING_64, SvmProfile, SvmProfile64, exists, virtual_machine

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

NEVER_CHANGED: Final = ("tsc_offset", "v_tpr")
"""Leaves of the VMCB that the map sets for the guest."""


def setting_name(control: str) -> str:
    """A control as `--set` knows it: the manual's name, with the vector's where that does not say what it is."""
    word, _, name = control.partition(".")
    return name.upper() if word in ("vector3", "vector4", "vector5", "enables") else f"{word}_{name}".upper()


def owned_leaves(owned: SvmProfile) -> tuple[str, ...]:
    """The leaves and memories that are the VMM's: the VMCB's controls, and what the profile says."""
    return controls_and_owned(owned, NEVER_CHANGED, ("iopm", "msrpm"))


@cache
def hardware() -> Machine[Any]:
    """The machine that runs the guests of `ia32`, with its controls as settings."""
    return _hardware("ia32-svm", "svm", svm.build(exceptions=False), SvmProfile(EVERYTHING), USUAL)


@cache
def hardware_64() -> Machine[Any]:
    """The same of `x86-64`."""
    return _hardware("x86-64-svm", "svm", svm.build_64(exceptions=False), SvmProfile64(EVERYTHING_64), USUAL)


def named(machine: Machine[Any], name: str) -> Machine[Any]:
    """The machine, its technique under another name."""
    return attrs.evolve(machine, techniques={name: attrs.evolve(machine.technique("svm"), name=name)})


def _hardware(
    name: str, technique_name: str, plain: Machine[Any], owner: SvmProfile, chosen: frozenset[str]
) -> Machine[Any]:
    controls = [
        leaf_setting(
            setting_name(name), name, 1, name.partition(".")[2].replace("_", " "), int(name in chosen)
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
        name=name,
        title=f"{plain.title.partition(':')[0]}: AMD-V with nested paging",
        state=state_of(owner, owned_leaves(owner), "guest_mode"),
        settings=(*plain.settings, *controls, *maps),
        techniques={technique_name: technique(owner)},
        relocate=None,  # the guest has an address space of its own
        invariant=lambda state: plain.invariant(state) & exists_in_cr0(state.cr0.value),
        notes=(*plain.notes, "intercepted exceptions other than those of SVM's instructions"),
    )


def _map(owner: SvmProfile, guest: Any, private: Any) -> Any:
    every: Mapping[str, Word] = dict.fromkeys(COVERS, Word(1, 1))
    return virtual_machine(owner, guest, covered(owner, private, every))


def technique(owner: SvmProfile) -> Technique[Any]:
    """AMD-V of a VMM that owns so much; the machine's settings say what the controls are."""
    owned = owned_leaves(owner)
    values = processors_own(owner, owned)
    kept = {*owner.words, *owner.memories}
    return Technique(
        "svm",
        "AMD-V with nested paging",
        map=partial(_map, owner),
        owned=owned,
        replaced=values,
        shadowed=tuple(n for n in values if (n in kept or n.startswith(("dr6", "dr7"))) and n != "cr8"),
        owns_cell=owner.owns_cell,
        deprivileged=lambda state: (state.guest_mode == 1) & (state.cpl == 0),
        guest=exists,
        private=lambda guest, private: exists_in_cr0(private.cr0.value) & private.svme,
        entries=TRAPS_ONLY,
        delivered=tuple(n for n in owned if n.startswith("exit_")),
        target=target,
        keeps_hidden=True,  # VMRUN, VMLOAD and their counterparts move the hidden parts, too
        source=svm.SOURCE,
    )
