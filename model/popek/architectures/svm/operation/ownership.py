"""What a VMM wants to own, and the hardware state in which its guest runs.

A `Profile` names what holds the VMM's values while the guest runs.  Everything else is the guest's: VMRUN and #VMEXIT
switch it, or VMLOAD and VMSAVE, or the VMM does.  CR0 and CR4 have no read shadows here: what the guest believes of the
bits that are the VMM's is in the VMM's memory alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from popek.architectures.x86.msrs import IA32_EFER
from popek.kernel.assistance import Ownable
from popek.kernel.memory import Memory
from popek.kernel.words import FALSE, Word, ite

from ...ia32.state import Cr4, Ia32
from .guest_mode import EFER_SVME, VM_HSAVE_PA
from .state import SvmIa32

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
_CACHE_BITS: Final = 0x60000000  # CR0.CD and NW
_PAGING_CR0: Final = 0x80010000  # PG, WP
_PAGING_CR4: Final = sum(
    1 << bits.low for name, bits in Cr4.fields() if name in ("pse", "pae", "pge", "smep", "smap", "pke")
)


@attrs.frozen
class Profile:
    """What the VMM owns: names of `OWNABLE`."""

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
        return tuple(name for owned in OWNABLE if owned in self.owns for name in _WORDS.get(owned, ()))

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


def profile(owns: Iterable[str]) -> Profile:
    """A profile by the names of what is owned."""
    return Profile(frozenset(owns))


# -- the hardware state -------------------------------------------------------------------------------


def owned_leaves(owned: Profile) -> tuple[str, ...]:
    """The leaves and memories that are the VMM's."""
    bits = [
        leaf.name for leaf in Ia32.leaves
        if leaf.component in ("cr0", "cr4") and getattr(owned, leaf.component) >> leaf.low & 1
    ]  # fmt: skip
    prefixes = tuple(f"{name}." for name in owned.words)
    words = [leaf.name for leaf in Ia32.leaves if leaf.name in owned.words or leaf.name.startswith(prefixes)]
    return ("guest_mode", "gif", "host_memory", *bits, *words, *owned.memories)


def virtual_machine(owned: Profile, guest: SvmIa32, private: SvmIa32) -> SvmIa32:
    """The hardware state in which the guest that believes in `guest` runs.

    `private` supplies the VMCB's controls and what the VMM owns.
    """
    hardware = private.copy()
    for slot in Ia32.layout:
        if not slot.address and slot.name not in owned.words:
            hardware[slot.name] = guest[slot.name]
    for name, bits in (("cr0", owned.cr0), ("cr4", owned.cr4)):
        mask = Word(32, bits)
        hardware[name] = (private[name] & mask) | (guest[name] & ~mask)
    hardware.guest_mode = Word(1, 1)
    hardware.tsc_offset = guest.tsc - hardware.tsc
    processor = {slot.name for slot in Ia32.layout}
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


def exists(guest: SvmIa32) -> Word:
    """The guest's machine is its own: EFER.SVME is 0, and nothing is kept from it by pages (width 1)."""
    return (guest.guest_mode == 0) & ~guest.svme & (guest.reserved.size == 0) & (guest.read_only.size == 0)


def efer_of(private: SvmIa32) -> Word:
    """VMRUN wants EFER.SVME in the guest's state (width 1)."""
    return (private.msr.load(Word(32, IA32_EFER)) & EFER_SVME) != 0
