"""What a VMM wants to own, and the hardware state in which its guest runs.

A profile names what holds the VMM's values while the guest runs.  Everything else is the guest's: VM entry and
VM exit switch it, or the VMM does.  What the guest believes of the VMM's things is in the VMM's
memory, in the read shadows of CR0 and CR4, and in the TSC offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, TypeVar

import attrs

from popek.architectures.x86.assisted.ownership import OWNABLE as BARE
from popek.architectures.x86.assisted.ownership import (
    WORDS,
    X2APIC_MSRS,
    Owned,
    chosen,
    hardware_state,
    register_bits,
)
from popek.architectures.x86.registers import Cr0
from popek.kernel.assistance import AssistanceError, Ownable
from popek.kernel.words import FALSE, TRUE, Word, concat

from ...ia32.state import Cr4
from ...x86_64.instructions.msrs import MSRS as MSRS_64
from ...x86_64.state import CR4_DEFINED as CR4_DEFINED_64
from ...x86_64.state import Cr4 as Cr4Of64
from .non_root import CR0_FIXED, CR0_PAGED, CR4_FIXED
from .state import BITMAPS, GUEST_STATUS, Vmx, VmxIa32, VmxX64
from .virtual_apic import VPPR, VTPR, entered

V = TypeVar("V", bound=Vmx)

OWNABLE: Final[Mapping[str, Ownable]] = {
    "time": Ownable("the time-stamp counter; the guest has a clock of its own", ("tsc", "msr")),
    "cr3": Ownable(
        "CR3 and the TLBs: shadow paging; without it the VMM has EPT", ("cr3", "tlb_stale", "cr0", "cr4")
    ),
    # Nobody can own all of CR0 or CR4: bits such as CR0.AM and CR4.UMIP work on instructions that never exit.
    "cr0": Ownable("every bit of CR0, not only those that VMX operation fixes", alone=False),
    "cr4": Ownable("every bit of CR4, not only CR4.VMXE", alone=False),
    **{name: BARE[name] for name in ("debug", "counters")},
    "msrs": Ownable(
        "every MSR but those that VM entry and exit switch (IA32_SYSENTER_CS, _ESP, _EIP) and IA32_TSC_AUX",
        ("msr",),
    ),
    **{name: BARE[name] for name in ("apic", "ports", "halt", "caches")},
    "interrupts": Ownable("external interrupts"),
    "nmis": Ownable("non-maskable interrupts", ("nmi_blocked",)),
}
OWNABLE_64: Final[Mapping[str, Ownable]] = {
    **OWNABLE,
    "time": Ownable("the time-stamp counter; the guest has a clock of its own", ("tsc",)),
    "msrs": Ownable(
        "IA32_MISC_ENABLE, IA32_PAT, IA32_XSS and MSRs that this model does not name",
        ("msr.misc_enable", "msr.pat", "xss", "other_msrs"),
    ),
    "apic": Ownable("IA32_APIC_BASE and the MSRs of the x2APIC", ("msr.apic_base", "other_msrs")),
    "tpr": Ownable("CR8, the task priority", ("cr8", "virtual_apic")),
    # SYSCALL and SWAPGS never exit, and work on these.
    "syscalls": Ownable(
        "IA32_STAR, _LSTAR, _CSTAR, _FMASK", ("msr.star", "msr.lstar", "msr.cstar", "msr.fmask"), alone=False
    ),
    "gs": Ownable("IA32_KERNEL_GS_BASE", ("msr.kernel_gs_base",), alone=False),
}
TOUCHES: Final = ("cr0", "cr4", "non_root")
"""Components of which something is the VMM's whatever it owns."""
FEATURES: Final[Mapping[str, tuple[str, ...]]] = {
    "secondary.enable_rdtscp": ("RDTSCP", "RDPID"),
    "secondary.enable_invpcid": ("INVPCID",),
    "secondary.enable_xsaves_xrstors": ("XSAVES", "XRSTORS"),
}
"""Controls without which instructions are undefined; CPUID, which always exits, tells the guest which it has."""

EVERYTHING: Final = frozenset(OWNABLE) - {"cr0", "cr4", "cr3"}
EVERYTHING_64: Final = EVERYTHING | {"tpr"}

_WORDS_64: Final[Mapping[str, tuple[str, ...]]] = {
    **WORDS,
    **{name: OWNABLE_64[name].touches for name in ("syscalls", "gs")},
    "msrs": ("msr.misc_enable", "msr.pat", "xss"),
    "apic": ("msr.apic_base",),
    "tpr": ("cr8",),
}
_PAGING_FLAGS: Final = ("pse", "pae", "pge", "pcide", "smep", "smap", "pke")
_EVERY_CR0: Final = register_bits(Cr0) & ~register_bits(Cr0, ("et",))


@attrs.frozen
class VmxProfile(Owned):
    """What the VMM owns.

    Attributes:
        owns: names of `OWNABLE`.
        unrestricted: the guest may leave protected mode and turn paging off on the hardware: CR0.PE and CR0.PG
            are the guest's.
        ports: with `ports`, those that are left to the guest all the same.
        msrs: with `msrs`, those that are left to the guest besides the switched ones.
        hidden: controls of `FEATURES` whose instructions the guest is told that it does not have.
    """

    state: ClassVar[type[Vmx]] = VmxIa32
    words_of: ClassVar[Mapping[str, tuple[str, ...]]] = WORDS
    promised: ClassVar[Mapping[str, int]] = {"cr0.pe": 1, "eflags.vm": 0}
    """Of what the VMM has: it runs in protected mode."""
    always: ClassVar[tuple[str, ...]] = ("non_root",)
    paging_cr4: ClassVar[int] = register_bits(Cr4, _PAGING_FLAGS)
    every_cr4: ClassVar[int] = register_bits(Cr4)

    owns: frozenset[str] = EVERYTHING
    unrestricted: bool = False
    ports: tuple[int, ...] = ()
    msrs: tuple[int, ...] = ()
    hidden: frozenset[str] = frozenset()

    @property
    def unknown_mnemonics(self) -> frozenset[str]:
        """The instructions that the guest's machine does not have."""
        return frozenset(name for control in self.hidden for name in FEATURES[control])

    @property
    def cr0(self) -> int:
        """The bits of CR0 that are the VMM's."""
        bits = CR0_FIXED | (0 if self.unrestricted else CR0_PAGED)
        return bits | super().cr0 | (_EVERY_CR0 if "cr0" in self.owns else 0)

    @property
    def cr4(self) -> int:
        """The bits of CR4 that are the VMM's."""
        bits = CR4_FIXED | (self.paging_cr4 if "cr3" in self.owns else 0)
        return bits | (self.every_cr4 if "cr4" in self.owns else 0)

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        held = {"ports": "ports" in self.owns, "pmc": "counters" in self.owns}
        held |= {"msr": bool({"msrs", "apic"} & self.owns), "cpuid": True}
        return tuple(name for name, owned in held.items() if owned)

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a port, an MSR or a counter is the VMM's (width 1)."""
        match memory:
            case "ports":
                return FALSE if "ports" not in self.owns else ~address.isin(self.ports)
            case "msr":
                return self.owns_msr(address)
        return Word(1, int(memory in self.memories))

    @property
    def msrs_left(self) -> tuple[int, ...]:
        """With `msrs`, those that are left to the guest besides the switched ones."""
        return self.msrs


@attrs.frozen
class VmxProfile64(VmxProfile):
    """What the VMM of a 64-bit guest owns."""

    state: ClassVar[type[Vmx]] = VmxX64
    words_of: ClassVar[Mapping[str, tuple[str, ...]]] = _WORDS_64
    promised: ClassVar[Mapping[str, int]] = {"cr0.pe": 1, "rflags.vm": 0, "msr.misc_enable.monitor": 1}
    """In IA-32e mode, and MONITOR and MWAIT, whose #UD by IA32_MISC_ENABLE comes before an exit, are enabled."""
    paging_cr4: ClassVar[int] = register_bits(Cr4Of64, _PAGING_FLAGS)
    every_cr4: ClassVar[int] = CR4_DEFINED_64

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        held = {"ports": "ports" in self.owns, "pmc": "counters" in self.owns, "cpuid": True}
        held["other_msrs"] = bool({"msrs", "apic"} & self.owns)
        return tuple(name for name, owned in held.items() if owned)

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a port or a counter, or a byte of the virtual-APIC page is the VMM's (width 1)."""
        if memory == "virtual_apic":  # the processor keeps the guest's TPR there, and PPR
            return (address[11:2] != VTPR >> 2) & (address[11:2] != VPPR >> 2)
        if memory in BITMAPS:
            return TRUE
        if memory == "other_msrs":
            return self.owns_msr(address)
        return super().owns_cell(memory, address)

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) is the VMM's (width 1); with `msrs` those that nobody else has."""
        mine = [known for known, msr in MSRS_64.items() if msr.component in self.words]
        owned = number.isin(mine) if mine else FALSE
        extended = (number >= X2APIC_MSRS.start) & (number < X2APIC_MSRS.stop)
        if "apic" in self.owns:
            owned = owned | extended
        if "msrs" in self.owns:
            owned = owned | ~(number.isin(tuple(MSRS_64)) | number.isin(self.msrs) | extended)
        return owned


P = TypeVar("P", bound=VmxProfile)


def profile(owns: Iterable[str], *, unrestricted: bool = False, hidden: Iterable[str] = ()) -> VmxProfile:
    """A profile by the names of what is owned.

    Raises:
        AssistanceError: an unrestricted guest of a VMM that owns CR3.
    """
    return _profile(VmxProfile, owns, unrestricted, hidden)


def profile_64(
    owns: Iterable[str], *, unrestricted: bool = False, hidden: Iterable[str] = ()
) -> VmxProfile64:
    """As `profile`, for a 64-bit guest."""
    return _profile(VmxProfile64, owns, unrestricted, hidden)


def _profile(kind: type[P], owns: Iterable[str], unrestricted: bool, hidden: Iterable[str]) -> P:
    names = frozenset(owns)
    if unrestricted and "cr3" in names:
        raise AssistanceError("an unrestricted guest needs EPT, and owning cr3 means that there is none")
    return kind(names, unrestricted, hidden=frozenset(hidden))


# -- the hardware state -------------------------------------------------------------------------------


def virtual_machine(owned: VmxProfile, guest: V, private: V) -> V:
    """The hardware state in which the guest that believes in `guest` runs.

    `private` supplies the controls and what the VMM owns.
    """
    hardware = hardware_state(owned, guest, private, "non_root")
    for name in ("cr0", "cr4"):
        mask = private[f"{name}_mask"]
        shown = guest[name].zero_extend(mask.width)
        hardware[f"{name}_shadow"] = chosen(mask, shown, private[f"{name}_shadow"])
    for name in GUEST_STATUS:
        hardware[name] = guest[name]
    if "tpr" in owned.owns:
        priority = concat(guest["cr8"], Word(4, 0)).zero_extend(32)
        hardware.virtual_apic = private.virtual_apic.store_little_endian(Word(12, VTPR), priority)
        entered(hardware)
    return hardware
