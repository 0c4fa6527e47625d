"""Guest and VMM under AMD-V with the intercepts left open: symbols of what the VMM has, a bit each.

Of the exceptions two are open.  In a guest EFER.SVME is 1, so that SVM's own instructions raise #GP where a processor
without SVM raises #UD; and the intercepts of debug registers come after the #DB of DR7.GD, which may be the VMM's.  To
intercept others could only help.  The permissions maps either cover whatever the VMM owns, or nothing of it; the MSR
permissions map separately for reads and for writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from popek.kernel.assistance import PRIVATE, Arrangement
from popek.kernel.memory import Memory
from popek.kernel.outcome import Target, Trap
from popek.kernel.technique import Technique
from popek.kernel.words import Word, ite

from ...x86.assisted.ownership import owned_leaves
from ...x86.registers import CR0_DEFINED
from .exits import VM_EXIT
from .guest_mode import MSR_RANGES
from .ownership import SvmProfile, exists, virtual_machine
from .state import (
    ControlRegisters,
    CrWriteTraps,
    DebugRegisters,
    Enables,
    Svm,
    Vector3,
    Vector4,
    Vector5,
)

WORDS: Final = {
    "cr_read": ControlRegisters,
    "cr_write": ControlRegisters,
    "dr_read": DebugRegisters,
    "dr_write": DebugRegisters,
    "vector3": Vector3,
    "vector4": Vector4,
    "cr_write_trap": CrWriteTraps,
    "vector5": Vector5,
    "enables": Enables,
}
"""The components whose bits are controls, in the order of the VMCB."""

CONTROLS: Final = (
    *(f"{word}.{name}" for word, kind in WORDS.items() for name, _ in kind.fields()),
    "exceptions.db",
    "exceptions.gp",
)
GENERAL_DETECT: Final = "dr7.gd"
"""What the VMM's own DR7 has while the guest runs: nobody chooses it for the guest's sake."""
COVERS: Final = ("iopm", "msrpm_read", "msrpm_write")
"""Permissions maps, 1 where they cover whatever the VMM owns, 0 where they cover nothing of it."""


def target(trap: Trap[Svm]) -> Target:
    """A fault that is not intercepted goes to the guest."""
    return Target.VMM if trap.vector is VM_EXIT else Target.GUEST


def exists_in_cr0(value: Word) -> Word:
    """Whether CR0 can hold a value in guest mode (width 1): no unknown bits, NW only with CD."""
    return ((value & (CR0_DEFINED ^ 0xFFFFFFFF)) == 0) & ~(value[29] & ~value[30])


def covered(owned: SvmProfile, private: Svm, knob: Mapping[str, Word]) -> Svm:
    """The permissions maps where the VMM owns something: all ones or all zeros, as the knobs say."""
    private = private.copy()
    ports, msrs = private.iopm, private.msrpm

    def port(place: Word) -> Word:
        own = owned.owns_cell("ports", place[15:0])
        return ite(own, knob["iopm"], ports.load(place))

    def msr(place: Word) -> Word:
        number = Word(32, 0)
        for index, base in enumerate(MSR_RANGES):
            number = ite(place[15:14] == index, place[13:1].zero_extend(32) | base, number)
        wanted = ite(place[0], knob["msrpm_write"], knob["msrpm_read"])
        return ite(owned.owns_msr(number), wanted, msrs.load(place))

    private._memories["iopm"] = Memory(17, 1, port)
    private._memories["msrpm"] = Memory(16, 1, msr)
    return private


def arrange(owned: SvmProfile, knob: Mapping[str, Word], masks: Mapping[str, int]) -> Arrangement[Svm]:
    """A guest beside a VMM that owns so much, with these words for the controls and covers."""
    leaves = owned_leaves(owned)
    technique: Technique[Svm] = Technique(
        "svm",
        "AMD-V",
        map=partial(virtual_machine, owned),
        owned=leaves,
        # The processor itself keeps the guest's TPR, in V_TPR.
        shadowed=tuple(name for name in leaves if name not in ("gif", "host_memory", "cr8")),
        owns_cell=owned.owns_cell,
        settled=True,
        uncompared=("gif", "virtual_gif", "host_memory", "iopm", "msrpm", "enabled"),
        deprivileged=lambda state: (state.guest_mode == 1) & (state.cpl == 0),
        guest=lambda guest: exists(guest) & exists_in_cr0(guest.cr0.value),
        private=lambda guest, private: exists_in_cr0(private.cr0.value) & private.svme,
        target=target,
    )
    constant = {"exceptions": 0, "full_maps": 0, "features": 3, "guest_mode": 1, "gif": 1}
    knobs = {name: knob[name] for name in (*CONTROLS, GENERAL_DETECT)}
    private: Svm = owned.state.symbolic(PRIVATE)
    private = private.with_changes({**constant, **knobs}).with_changes(dict(owned.promised))
    return Arrangement(
        technique,
        private,
        start=lambda state: state.with_changes({"guest_mode": 0}),
        place=lambda guest, private: covered(owned, private, knob),
    )
