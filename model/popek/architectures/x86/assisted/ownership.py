"""What a VMM may own of an x86 processor, and the hardware state in which its guest runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import attrs

from popek.kernel.assistance import Ownable
from popek.kernel.memory import Memory
from popek.kernel.state import Register, Role
from popek.kernel.words import FALSE, Word, ite

from .state import Assisted

IA32_TIME_STAMP_COUNTER, IA32_APIC_BASE = 0x10, 0x1B
X2APIC_MSRS: Final = range(0x800, 0x900)
SYSENTER_MSRS: Final = (0x174, 0x175, 0x176)
IA32_TSC_AUX: Final = 0xC0000103
SWITCHED_MSRS: Final = (*SYSENTER_MSRS, IA32_TSC_AUX)
"""MSRs that a VMM leaves to the guest: they are switched, or no instruction of the VMM's uses them."""

OWNABLE: Final[Mapping[str, Ownable]] = {
    "debug": Ownable("DR0 to DR3, DR6 and DR7", ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")),
    "counters": Ownable("the performance counters", ("pmc",)),
    "apic": Ownable("IA32_APIC_BASE and the MSRs of the x2APIC", ("msr",)),
    "ports": Ownable("every I/O port", ("ports",)),
    "halt": Ownable("whether the processor rests", ("halted",)),
    "caches": Ownable("write-back of the caches, and CR0.CD and CR0.NW", ("cache_dirty", "cr0")),
}
"""What a VMM may own under every assistance."""

WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("tsc",),
    "cr3": ("cr3", "tlb_stale"),
    "debug": OWNABLE["debug"].touches,
    "halt": ("halted",),
    "caches": ("cache_dirty",),
}
"""The words of the state that go with it."""

_CACHE_CR0: Final = 0x60000000  # CD and NW
_PAGING_CR0: Final = 0x80010000  # PG and WP

S = TypeVar("S", bound=Assisted)


def register_bits(kind: type[Register], names: Iterable[str] = ()) -> int:
    """The named bits of a register; all by default."""
    wanted = frozenset(names)
    return sum(1 << bits.low for name, bits in kind.fields() if name in wanted or not wanted)


@attrs.frozen
class Owned:
    """What a VMM owns.

    Attributes:
        owns: names of what it may own.
    """

    state: ClassVar[type[Assisted]]
    """The state with the assistance; its `processor` is the one without."""
    words_of: ClassVar[Mapping[str, tuple[str, ...]]]
    """The words of the state by what is owned."""
    promised: ClassVar[Mapping[str, int]]
    """Of what the VMM has."""
    always: ClassVar[tuple[str, ...]]
    """What it cannot but own."""

    owns: frozenset[str]

    @property
    def cr0(self) -> int:
        """The bits of CR0 that are the VMM's, as far as they go with CR3 and with the caches."""
        return (_PAGING_CR0 if "cr3" in self.owns else 0) | (_CACHE_CR0 if "caches" in self.owns else 0)

    @property
    def cr4(self) -> int:
        """The bits of CR4 that are the VMM's."""
        raise NotImplementedError

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the state that are the VMM's as a whole."""
        return tuple(name for owned, names in self.words_of.items() if owned in self.owns for name in names)

    @property
    def memories(self) -> tuple[str, ...]:
        """The memories of which some cells are the VMM's."""
        raise NotImplementedError

    def owns_cell(self, memory: str, address: Word) -> Word:
        """Whether a cell is the VMM's (width 1)."""
        raise NotImplementedError

    def owns_msr(self, number: Word) -> Word:
        """Whether an MSR (32 bits) of a processor that keeps them in a memory is the VMM's (width 1)."""
        owned = number == IA32_TIME_STAMP_COUNTER if "time" in self.owns else FALSE
        if "apic" in self.owns:
            extended = (number >= X2APIC_MSRS.start) & (number < X2APIC_MSRS.stop)
            owned = owned | (number == IA32_APIC_BASE) | extended
        if "msrs" in self.owns:
            clock = (IA32_TIME_STAMP_COUNTER,) if "time" not in self.owns else ()
            owned = owned | ~number.isin((*SWITCHED_MSRS, *self.msrs_left, *clock))
        return owned

    @property
    def msrs_left(self) -> tuple[int, ...]:
        """With `msrs`, those that are left to the guest besides `SWITCHED_MSRS`."""
        return ()


def owned_leaves(owned: Owned) -> tuple[str, ...]:
    """The leaves and memories of the processor that are the VMM's."""
    leaves = owned.state.processor.leaves
    bits = [
        leaf.name for leaf in leaves
        if leaf.component in ("cr0", "cr4") and getattr(owned, leaf.component) >> leaf.low & 1
    ]  # fmt: skip
    prefixes = tuple(f"{name}." for name in owned.words)
    words = [
        leaf.name for leaf in leaves
        if leaf.component in owned.words or leaf.name in owned.words or leaf.name.startswith(prefixes)
    ]  # fmt: skip
    return (*owned.always, *bits, *words, *owned.memories)


def controls_and_owned(owned: Owned, guests: Iterable[str], memories: Iterable[str]) -> tuple[str, ...]:
    """The leaves and memories that are the VMM's: the controls, and what it owns of the processor.

    Args:
        guests: leaves beside the processor's that the guest has.
        memories: of the controls.
    """
    others = {*(leaf.name for leaf in owned.state.processor.leaves), *guests}
    controls = (leaf.name for leaf in owned.state.leaves if leaf.name not in others)
    return tuple(dict.fromkeys((*controls, *owned_leaves(owned), *memories)))


def state_of(owned: Owned, leaves: Iterable[str], mode: str) -> type[Any]:
    """The state as a technique sees it: what it leaves to the guest is no resource, but for the mode."""
    kept = {mode, *leaves}

    def role(leaf: str, own: Role) -> Role:
        yields = leaf not in kept and own in (Role.RESOURCE, Role.MODE, Role.TIME)
        return Role.GENERAL if yields else own

    return owned.state.with_roles(role)


def processors_own(owned: Owned, leaves: Iterable[str]) -> tuple[str, ...]:
    """Those of the leaves and memories that the processor without the assistance has."""
    bare = owned.state.processor
    names = {*(leaf.name for leaf in bare.leaves), *(slot.name for slot in bare.layout)}
    return tuple(name for name in leaves if name in names)


def chosen(mask: Word, ones: Word, zeros: Word) -> Word:
    """Bit by bit `ones` where the mask is 1, else `zeros`."""
    return (ones & mask) | (zeros & ~mask)


def hardware_state(owned: Owned, guest: S, private: S, mode: str) -> S:
    """The hardware state in which the guest that believes in `guest` runs.

    Args:
        private: the controls, and what the VMM owns.
        mode: the component that is 1 while a guest runs.
    """
    hardware = private.copy()
    layout = owned.state.processor.layout
    for slot in layout:
        if not slot.address and slot.name not in owned.words:
            hardware[slot.name] = guest[slot.name]
    for name, bits in (("cr0", owned.cr0), ("cr4", owned.cr4)):
        hardware[name] = chosen(Word(32, bits), private[name], guest[name])
    hardware[mode] = Word(1, 1)
    hardware["tsc_offset"] = guest["tsc"] - hardware["tsc"]
    processor = {slot.name for slot in layout}
    for name, content in guest.memories().items():
        if name in processor:
            hardware._memories[name] = _shared(owned, name, content, private.memories()[name])
    return hardware


def _shared(owned: Owned, name: str, mine: Memory, theirs: Memory) -> Memory:
    if name not in owned.memories:
        return mine

    def cell(address: Word) -> Word:
        own = owned.owns_cell(name, address)
        if own.concrete:
            return theirs.load(address) if own.value else mine.load(address)
        return ite(own, theirs.load(address), mine.load(address))

    return Memory(mine.address_width, mine.cell_width, cell)
