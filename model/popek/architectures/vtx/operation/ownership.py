"""What a VMM wants to own, and the hardware state in which its guest runs.

A `Profile` names what holds the VMM's values while the guest runs.  Everything else is the guest's: VM entry and
VM exit switch it, or the VMM does.  What the guest believes of the VMM's things is in the VMM's
memory, in the read shadows of CR0 and CR4, and in the TSC offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from popek.architectures.x86.registers import Cr0
from popek.kernel.assistance import AssistanceError, Ownable
from popek.kernel.memory import Memory
from popek.kernel.words import FALSE, Word, ite

from ...ia32.state import (
    Cr4,
    Ia32,
)
from .non_root import CR0_FIXED, CR0_PAGED, CR4_FIXED
from .state import VmxIa32

OWNABLE: Final[Mapping[str, Ownable]] = {
    "time": Ownable("the time-stamp counter; the guest has a clock of its own", ("tsc", "msr")),
    "cr3": Ownable(
        "CR3 and the TLBs: shadow paging; without it the VMM has EPT", ("cr3", "tlb_stale", "cr0", "cr4")
    ),
    # Nobody can own all of CR0 or CR4: bits such as CR0.AM and CR4.UMIP work on instructions that never exit.
    "cr0": Ownable("every bit of CR0, not only those that VMX operation fixes", alone=False),
    "cr4": Ownable("every bit of CR4, not only CR4.VMXE", alone=False),
    "debug": Ownable("DR0 to DR3, DR6 and DR7", ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")),
    "counters": Ownable("the performance counters", ("pmc",)),
    "msrs": Ownable(
        "every MSR but those that VM entry and exit switch (IA32_SYSENTER_CS, _ESP, _EIP) and IA32_TSC_AUX",
        ("msr",),
    ),
    "apic": Ownable("IA32_APIC_BASE and the MSRs of the x2APIC", ("msr",)),
    "ports": Ownable("every I/O port", ("ports",)),
    "halt": Ownable("whether the processor rests", ("halted",)),
    "caches": Ownable("write-back of the caches, and CR0.CD and CR0.NW", ("cache_dirty", "cr0")),
    "interrupts": Ownable("external interrupts"),
    "nmis": Ownable("non-maskable interrupts", ("nmi_blocked",)),
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

IA32_TIME_STAMP_COUNTER, IA32_APIC_BASE = 0x10, 0x1B
SWITCHED_MSRS: Final = (0x174, 0x175, 0x176, 0xC0000103)
APIC_MSRS: Final = (IA32_APIC_BASE, range(0x800, 0x900))

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("tsc",),
    "cr3": ("cr3", "tlb_stale"),
    "debug": ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    "halt": ("halted",),
    "caches": ("cache_dirty",),
}
_CACHE_BITS: Final = 0x60000000  # CR0.CD and NW
_PAGING_CR0: Final = 0x80010000  # PG, WP
_PAGING_CR4: Final = sum(
    1 << bits.low for name, bits in Cr4.fields() if name in ("pse", "pae", "pge", "smep", "smap", "pke")
)
_EVERY_CR0: Final = sum(1 << bits.low for name, bits in Cr0.fields() if name != "et")
_EVERY_CR4: Final = sum(1 << bits.low for _, bits in Cr4.fields())


@attrs.frozen
class Profile:
    """What the VMM owns.

    Attributes:
        owns: names of `OWNABLE`.
        unrestricted: the guest may leave protected mode and turn paging off on the hardware: CR0.PE and CR0.PG
            are the guest's.
        ports: with `ports`, those that are left to the guest all the same.
        msrs: with `msrs`, those that are left to the guest besides the switched ones.
        hidden: controls of `FEATURES` whose instructions the guest is told that it does not have.
    """

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
        bits |= _PAGING_CR0 if "cr3" in self.owns else 0
        bits |= _CACHE_BITS if "caches" in self.owns else 0
        return bits | (_EVERY_CR0 if "cr0" in self.owns else 0)

    @property
    def cr4(self) -> int:
        """The bits of CR4 that are the VMM's."""
        bits = CR4_FIXED | (_PAGING_CR4 if "cr3" in self.owns else 0)
        return bits | (_EVERY_CR4 if "cr4" in self.owns else 0)

    @property
    def words(self) -> tuple[str, ...]:
        """The components that are the VMM's as a whole."""
        return tuple(name for owned in OWNABLE if owned in self.owns for name in _WORDS.get(owned, ()))

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

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) is the VMM's (width 1)."""
        owned = number == IA32_TIME_STAMP_COUNTER if "time" in self.owns else FALSE
        if "apic" in self.owns:
            extended = (number >= APIC_MSRS[1].start) & (number < APIC_MSRS[1].stop)
            owned = owned | (number == IA32_APIC_BASE) | extended
        if "msrs" in self.owns:
            clock = (IA32_TIME_STAMP_COUNTER,) if "time" not in self.owns else ()
            owned = owned | ~number.isin((*SWITCHED_MSRS, *self.msrs, *clock))
        return owned


def profile(owns: Iterable[str], *, unrestricted: bool = False, hidden: Iterable[str] = ()) -> Profile:
    """A profile by the names of what is owned.

    Raises:
        AssistanceError: an unrestricted guest of a VMM that owns CR3.
    """
    names = frozenset(owns)
    if unrestricted and "cr3" in names:
        raise AssistanceError("an unrestricted guest needs EPT, and owning cr3 means that there is none")
    return Profile(names, unrestricted, hidden=frozenset(hidden))


# -- the hardware state -------------------------------------------------------------------------------


def virtual_machine(owned: Profile, guest: VmxIa32, private: VmxIa32) -> VmxIa32:
    """The hardware state in which the guest that believes in `guest` runs.

    `private` supplies the controls and what the VMM owns.
    """
    hardware = private.copy()
    processor = [slot.name for slot in Ia32.layout]
    for slot in Ia32.layout:
        if not slot.address and slot.name not in owned.words:
            hardware[slot.name] = guest[slot.name]
    for name, bits in (("cr0", owned.cr0), ("cr4", owned.cr4)):
        hardware[name] = chosen(Word(32, bits), private[name], guest[name])
        mask = private[f"{name}_mask"]
        hardware[f"{name}_shadow"] = chosen(mask, guest[name], private[f"{name}_shadow"])
    hardware.non_root = Word(1, 1)
    hardware.nmi_blocked = guest.nmi_blocked
    hardware.tsc_offset = guest.tsc - hardware.tsc
    for name, content in guest.memories().items():
        if name in processor:
            hardware._memories[name] = _shared(owned, name, content, private.memories()[name])
    return hardware


def chosen(mask: Word, ones: Word, zeros: Word) -> Word:
    """Bit by bit `ones` where the mask is 1, else `zeros`."""
    return (ones & mask) | (zeros & ~mask)


def _shared(owned: Profile, name: str, mine: Memory, theirs: Memory) -> Memory:
    if name not in owned.memories:
        return mine

    def cell(address: Word) -> Word:
        own = owned.owns_cell(name, address)
        if own.concrete:
            return theirs.load(address) if own.value else mine.load(address)
        return ite(own, theirs.load(address), mine.load(address))

    return Memory(mine.address_width, mine.cell_width, cell)
