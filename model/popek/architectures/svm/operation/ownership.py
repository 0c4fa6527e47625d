"""What a VMM wants to own, and the hardware state in which its guest runs.

A profile names what holds the VMM's values while the guest runs.  Everything else is the guest's: VMRUN and #VMEXIT
switch it, or VMLOAD and VMSAVE, or the VMM does.  CR0 and CR4 have no read shadows here: what the guest believes of the
bits that are the VMM's is in the VMM's memory alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, TypeVar

import attrs

from popek.architectures.x86.assisted.ownership import OWNABLE as BARE
from popek.architectures.x86.assisted.ownership import (
    SYSENTER_MSRS,
    WORDS,
    Owned,
    hardware_state,
    register_bits,
)
from popek.architectures.x86.msrs import IA32_EFER
from popek.kernel.assistance import Ownable
from popek.kernel.words import Word

from ...ia32.state import Cr4
from ...x86_64.instructions.msrs import MSRS
from .state import VM_HSAVE_PA, Svm, SvmIa32, SvmX64

S = TypeVar("S", bound=Svm)

OWNABLE: Final[Mapping[str, Ownable]] = {
    "time": Ownable("the time-stamp counter; the guest has a clock of its own", ("tsc", "msr")),
    "cr3": Ownable(
        "CR3 and the TLBs: shadow paging; without it the VMM has nested paging",
        ("cr3", "tlb_stale", "cr0", "cr4"),
    ),
    **{name: BARE[name] for name in ("debug", "counters")},
    "cpuid": Ownable("what CPUID reports", ("cpuid",)),
    "msrs": Ownable(
        "every MSR but those that are switched (IA32_SYSENTER_CS, _ESP, _EIP) and IA32_TSC_AUX", ("msr",)
    ),
    **{name: BARE[name] for name in ("apic", "ports", "halt", "caches")},
    "interrupts": Ownable("physical interrupts"),
    "nmis": Ownable("non-maskable interrupts"),
    # A guest that loads FS or GS reaches it, and no intercept is about that.
    "vmload": Ownable(
        "what VMRUN does not switch: FS, GS, TR and LDTR with their hidden parts, the SYSENTER registers;"
        " the VMM executes no VMLOAD",
        ("fs", "gs", "tr", "ldtr", "msr"),
        alone=False,
    ),
}
TOUCHES: Final = ("guest_mode", "gif", "host_memory", "msr")
"""Components of which something is the VMM's whatever it owns: of the MSRs, EFER and VM_HSAVE_PA."""

EVERYTHING: Final = frozenset(OWNABLE) - {"cr3", "vmload"}

OWNABLE_64: Final[Mapping[str, Ownable]] = {
    **OWNABLE,
    "msrs": Ownable("IA32_MISC_ENABLE, and every MSR that no processor has", ("msr",)),
    "apic": Ownable("IA32_APIC_BASE", ("msr",)),
    "tpr": Ownable("CR8, by which a guest would keep physical interrupts from the VMM", ("cr8",)),
    "vmload": Ownable(
        "what VMRUN does not switch: FS, GS, TR and LDTR with their hidden parts, the registers of SYSCALL, SYSENTER"
        " and SWAPGS; the VMM executes no VMLOAD",
        ("fs", "gs", "tr", "ldtr", "msr"),
        alone=False,
    ),
}
EVERYTHING_64: Final = frozenset(OWNABLE_64) - {"cr3", "vmload"}
TOUCHES_64: Final = ("guest_mode", "gif", "host_memory", "enabled")

ALWAYS_OWNED: Final = (IA32_EFER, VM_HSAVE_PA)

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    **WORDS,
    "vmload": tuple(f"{name}.{part}" for name in ("fs", "gs", "tr", "ldtr")
                    for part in ("selector", "base", "limit", "rights")),
}  # fmt: skip
_WORDS_64: Final[Mapping[str, tuple[str, ...]]] = {
    **_WORDS,
    "msrs": ("msr.misc_enable",),
    "apic": ("msr.apic_base",),
    "tpr": ("cr8",),
    "vmload": (*_WORDS["vmload"], *(f"msr.{name}" for name in (
        "star", "lstar", "cstar", "fmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip",
    ))),
}  # fmt: skip
_PAGING_CR4: Final = register_bits(Cr4, ("pse", "pae", "pge", "smep", "smap", "pke"))
_HELD: Final = {"ports": "ports", "pmc": "counters", "cpuid": "cpuid"}


@attrs.frozen
class SvmProfile(Owned):
    """What the VMM owns: names of `OWNABLE`."""

    state: ClassVar[type[Svm]] = SvmIa32
    words_of: ClassVar[Mapping[str, tuple[str, ...]]] = _WORDS
    promised: ClassVar[Mapping[str, int]] = {"cr0.pe": 1, "eflags.vm": 0}
    """Of what the VMM has: it runs in protected mode."""
    always: ClassVar[tuple[str, ...]] = ("guest_mode", "gif", "host_memory")

    owns: frozenset[str] = EVERYTHING

    @property
    def cr4(self) -> int:
        """The bits of CR4 that are the VMM's."""
        return _PAGING_CR4 if "cr3" in self.owns else 0

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        return (*(name for name, owner in _HELD.items() if owner in self.owns), "msr")

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a cell is the VMM's (width 1)."""
        if memory == "msr":
            return self.owns_msr(address)
        return Word(1, int(memory in self.memories or memory == "host_memory"))

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) is the VMM's (width 1)."""
        owned = number.isin(ALWAYS_OWNED) | super().owns_msr(number)
        return owned | number.isin(SYSENTER_MSRS) if "vmload" in self.owns else owned


@attrs.frozen
class SvmProfile64(SvmProfile):
    """What the VMM of a 64-bit guest owns."""

    state: ClassVar[type[Svm]] = SvmX64
    words_of: ClassVar[Mapping[str, tuple[str, ...]]] = _WORDS_64
    promised: ClassVar[Mapping[str, int]] = {"rflags.vm": 0, "msr.misc_enable.monitor": 1}
    """In IA-32e mode, and MONITOR and MWAIT are enabled."""
    always: ClassVar[tuple[str, ...]] = (*SvmProfile.always, "enabled")

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        return tuple(name for name, owner in _HELD.items() if owner in self.owns)

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a cell is the VMM's (width 1)."""
        return Word(1, int(memory in (*self.memories, "host_memory")))

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) is the VMM's (width 1); EFER shows SVME."""
        mine = [known for known, msr in MSRS.items() if msr.component in self.words]
        owned = number.isin((*mine, IA32_EFER))
        return owned | ~number.isin(tuple(MSRS)) if "msrs" in self.owns else owned


def profile(owns: Iterable[str]) -> SvmProfile:
    """A profile by the names of what is owned."""
    return SvmProfile(frozenset(owns))


def profile_64(owns: Iterable[str]) -> SvmProfile64:
    """The same for a 64-bit guest."""
    return SvmProfile64(frozenset(owns))


# -- the hardware state -------------------------------------------------------------------------------


def virtual_machine(owned: SvmProfile, guest: S, private: S) -> S:
    """The hardware state in which the guest that believes in `guest` runs.

    `private` supplies the VMCB's controls and what the VMM owns.
    """
    hardware = hardware_state(owned, guest, private, "guest_mode")
    if "tpr" in owned.owns:
        hardware.v_tpr = guest["cr8"].zero_extend(8)
    return hardware


def exists(guest: Svm) -> Word:
    """The guest's machine is its own: EFER.SVME is 0, and nothing is kept from it by pages (width 1)."""
    return (guest.guest_mode == 0) & ~guest.svme & (guest.reserved.size == 0) & (guest.read_only.size == 0)
