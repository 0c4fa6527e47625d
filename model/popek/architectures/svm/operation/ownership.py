"""What a VMM wants to own, and the hardware state in which its guest runs.

A `Profile` names what holds the VMM's values while the guest runs.  Everything else is the guest's: VMRUN and #VMEXIT
switch it, or VMLOAD and VMSAVE, or the VMM does.  CR0 and CR4 have no read shadows here: what the guest believes of the
bits that are the VMM's is in the VMM's memory alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, TypeVar

import attrs

from popek.architectures.x86.msrs import IA32_EFER
from popek.kernel.assistance import Ownable
from popek.kernel.memory import Memory
from popek.kernel.words import FALSE, Word, ite

from ...ia32.state import Cr4
from ...x86_64.instructions.msrs import MSRS
from .guest_mode import VM_HSAVE_PA
from .state import Svm, SvmIa32, SvmX64

S = TypeVar("S", bound=Svm)

OWNABLE: Final[Mapping[str, Ownable]] = {
    "time": Ownable("the time-stamp counter; the guest has a clock of its own", ("tsc", "msr")),
    "cr3": Ownable(
        "CR3 and the TLBs: shadow paging; without it the VMM has nested paging",
        ("cr3", "tlb_stale", "cr0", "cr4"),
    ),
    "debug": Ownable("DR0 to DR3, DR6 and DR7", ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")),
    "counters": Ownable("the performance counters", ("pmc",)),
    "cpuid": Ownable("what CPUID reports", ("cpuid",)),
    "msrs": Ownable(
        "every MSR but those that are switched (IA32_SYSENTER_CS, _ESP, _EIP) and IA32_TSC_AUX", ("msr",)
    ),
    "apic": Ownable("IA32_APIC_BASE and the MSRs of the x2APIC", ("msr",)),
    "ports": Ownable("every I/O port", ("ports",)),
    "halt": Ownable("whether the processor rests", ("halted",)),
    "caches": Ownable("write-back of the caches, and CR0.CD and CR0.NW", ("cache_dirty", "cr0")),
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

IA32_TIME_STAMP_COUNTER, IA32_APIC_BASE = 0x10, 0x1B
SYSENTER: Final = (0x174, 0x175, 0x176)
SWITCHED_MSRS: Final = (*SYSENTER, 0xC0000103)
ALWAYS_OWNED: Final = (IA32_EFER, VM_HSAVE_PA)
X2APIC: Final = range(0x800, 0x900)

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("tsc",),
    "cr3": ("cr3", "tlb_stale"),
    "debug": ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    "halt": ("halted",),
    "caches": ("cache_dirty",),
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
_CACHE_BITS: Final = 0x60000000  # CR0.CD and NW
_PAGING_CR0: Final = 0x80010000  # PG, WP
_PAGING_CR4: Final = sum(
    1 << bits.low for name, bits in Cr4.fields() if name in ("pse", "pae", "pge", "smep", "smap", "pke")
)


@attrs.frozen
class Profile:
    """What the VMM owns: names of `OWNABLE`."""

    state: ClassVar[type[Svm]] = SvmIa32
    words_of: ClassVar[Mapping[str, tuple[str, ...]]] = _WORDS
    promised: ClassVar[Mapping[str, int]] = {"cr0.pe": 1, "eflags.vm": 0}
    """Of what the VMM has: it runs in protected mode."""
    always: ClassVar[tuple[str, ...]] = ("guest_mode", "gif", "host_memory")
    """What it cannot but own."""

    owns: frozenset[str] = EVERYTHING

    @property
    def cr0(self) -> int:
        """The bits of CR0 that are the VMM's."""
        return (_PAGING_CR0 if "cr3" in self.owns else 0) | (_CACHE_BITS if "caches" in self.owns else 0)

    @property
    def cr4(self) -> int:
        """The bits of CR4 that are the VMM's."""
        return _PAGING_CR4 if "cr3" in self.owns else 0

    @property
    def words(self) -> tuple[str, ...]:
        """The slots of the state that are the VMM's as a whole."""
        return tuple(name for owned, names in self.words_of.items() if owned in self.owns for name in names)

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        held = {"ports": "ports", "pmc": "counters", "cpuid": "cpuid"}
        return (*(name for name, owner in held.items() if owner in self.owns), "msr")

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a cell is the VMM's (width 1)."""
        if memory == "msr":
            return self.owns_msr(address)
        return Word(1, int(memory in self.memories or memory == "host_memory"))

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) is the VMM's (width 1)."""
        owned = number.isin(ALWAYS_OWNED)
        owned = owned | (number == IA32_TIME_STAMP_COUNTER if "time" in self.owns else FALSE)
        if "apic" in self.owns:
            extended = (number >= X2APIC.start) & (number < X2APIC.stop)
            owned = owned | (number == IA32_APIC_BASE) | extended
        if "vmload" in self.owns:
            owned = owned | number.isin(SYSENTER)
        if "msrs" in self.owns:
            clock = (IA32_TIME_STAMP_COUNTER,) if "time" not in self.owns else ()
            owned = owned | ~number.isin((*SWITCHED_MSRS, *clock))
        return owned


@attrs.frozen
class Profile64(Profile):
    """What the VMM of a 64-bit guest owns."""

    state: ClassVar[type[Svm]] = SvmX64
    words_of: ClassVar[Mapping[str, tuple[str, ...]]] = _WORDS_64
    promised: ClassVar[Mapping[str, int]] = {"rflags.vm": 0, "msr.misc_enable.monitor": 1}
    """In IA-32e mode, and MONITOR and MWAIT are enabled."""
    always: ClassVar[tuple[str, ...]] = (*Profile.always, "enabled")

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        held = {"ports": "ports", "pmc": "counters", "cpuid": "cpuid"}
        return tuple(name for name, owner in held.items() if owner in self.owns)

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a cell is the VMM's (width 1)."""
        return Word(1, int(memory in (*self.memories, "host_memory")))

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) is the VMM's (width 1); EFER shows SVME."""
        mine = [known for known, msr in MSRS.items() if msr.component in self.words]
        owned = number.isin((*mine, IA32_EFER))
        return owned | ~number.isin(tuple(MSRS)) if "msrs" in self.owns else owned


def profile(owns: Iterable[str]) -> Profile:
    """A profile by the names of what is owned."""
    return Profile(frozenset(owns))


def profile_64(owns: Iterable[str]) -> Profile64:
    """The same for a 64-bit guest."""
    return Profile64(frozenset(owns))


# -- the hardware state -------------------------------------------------------------------------------


def owned_leaves(owned: Profile) -> tuple[str, ...]:
    """The leaves and memories that are the VMM's."""
    leaves = owned.state.processor.leaves
    bits = [
        leaf.name for leaf in leaves
        if leaf.component in ("cr0", "cr4") and getattr(owned, leaf.component) >> leaf.low & 1
    ]  # fmt: skip
    prefixes = tuple(f"{name}." for name in owned.words)
    words = [leaf.name for leaf in leaves if leaf.name in owned.words or leaf.name.startswith(prefixes)]
    return (*owned.always, *bits, *words, *owned.memories)


def virtual_machine(owned: Profile, guest: S, private: S) -> S:
    """The hardware state in which the guest that believes in `guest` runs.

    `private` supplies the VMCB's controls and what the VMM owns.
    """
    hardware = private.copy()
    layout = owned.state.processor.layout
    for slot in layout:
        if not slot.address and slot.name not in owned.words:
            hardware[slot.name] = guest[slot.name]
    for name, bits in (("cr0", owned.cr0), ("cr4", owned.cr4)):
        mask = Word(32, bits)
        hardware[name] = (private[name] & mask) | (guest[name] & ~mask)
    hardware.guest_mode = Word(1, 1)
    hardware.tsc_offset = guest.tsc - hardware.tsc
    if "tpr" in owned.owns:
        hardware.v_tpr = guest["cr8"].zero_extend(8)
    processor = {slot.name for slot in layout}
    for name, content in guest.memories().items():
        if name in processor:
            hardware._memories[name] = _shared(owned, name, content, private.memories()[name])
    return hardware


def _shared(owned: Profile, name: str, mine: Memory, theirs: Memory) -> Memory:
    if name not in owned.memories:
        return mine

    def cell(address: Word) -> Word:
        own = owned.owns_cell(name, address)
        if own.concrete:
            return theirs.load(address) if own.value else mine.load(address)
        return ite(own, theirs.load(address), mine.load(address))

    return Memory(mine.address_width, mine.cell_width, cell)


def exists(guest: Svm) -> Word:
    """The guest's machine is its own: EFER.SVME is 0, and nothing is kept from it by pages (width 1)."""
    return (guest.guest_mode == 0) & ~guest.svme & (guest.reserved.size == 0) & (guest.read_only.size == 0)
