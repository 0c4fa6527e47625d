"""Ring deprivileging as every mode has it: rings, what the VMM owns, and where it has its tables.

`popek.architectures.ia32.deprivileging` says what such a VMM does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs

from popek.kernel.state import Role
from popek.kernel.technique import Hypothesis, Technique
from popek.kernel.words import Word, concat, ite

from .registers import SEGMENT_NAMES
from .state import X86

Ring = Callable[[Word], Word]
"""The level that a level of the guest's runs at (2 bits)."""

# Where things are in the VMM's storage, which begins at a multiple of its size.
RESERVED: Final = 0x20000
IDT_AT: Final = 0x10000
TSS_AT: Final = 0x18000
ENTRY_AT: Final = 0x1C000


def ring_1(level: Word) -> Word:
    """0 becomes 1; the others stay."""
    return ite(level == 0, Word(2, 1), level)


def ring_3(level: Word) -> Word:
    """Every level becomes 3."""
    return Word(2, 3)


def owned_leaves(state: type[X86]) -> tuple[str, ...]:
    """What belongs to the VMM: every resource but the segment registers, which are the guest's."""
    guest = tuple(f"{name}." for name in SEGMENT_NAMES)
    roles = (Role.RESOURCE, Role.TIME)
    words = [leaf.name for leaf in state.leaves if leaf.role in roles and not leaf.name.startswith(guest)]
    return (*words, *(slot.name for slot in state.layout if slot.address and slot.role is Role.RESOURCE))


def start_of(private: X86) -> Word:
    """Where the VMM's storage begins."""
    return private.reserved.base.replace(RESERVED.bit_length() - 2, 0, 0)


def entry_of(private: X86) -> Word:
    """Where the gates of the VMM's IDT lead."""
    return start_of(private) + ENTRY_AT


def select(number: Word, choices: tuple[Word, ...]) -> Word:
    """The choice of this number; the last for every number above."""
    result = choices[-1]
    for index in range(len(choices) - 2, -1, -1):
        result = ite(number == index, choices[index], result)
    return result


def compressed(ring: Ring, rights: Word, *, gates: bool = False) -> Word:
    """Byte 5 of a descriptor: P DPL S type; with `gates`, those of the guest work."""
    loadable = rights[4] & rights[0]  # code or data, accessed
    if gates:
        loadable = loadable | ~rights[4]
    return concat(rights[7] & loadable, ring(rights[6:5]), rights[4:0])


def owns(guest: X86, private: X86, address: Word) -> Word:
    """Whether an address is in the VMM's storage (width 1)."""
    return address - start_of(private) < RESERVED


def shadows(guest: X86, address: Word) -> Word:
    """Whether an address is in the guest's GDT, of which the VMM keeps a shadow (width 1)."""
    return address - guest.gdtr.base < guest.gdtr.limit.zero_extend(address.width) + 1


def storage(
    guest: X86,
    private: X86,
    address: Word,
    *,
    gate: Callable[[Word], Word] | None,
    descriptor: Callable[[Word], Word],
) -> Word:
    """A byte of the hardware's storage: the VMM's tables and other private storage, and the guest's everywhere else.

    Args:
        gate: a byte of the VMM's IDT, by its offset there; None: the IDT is private storage like other.
        descriptor: a byte of the VMM's GDT, by its offset there.
    """
    offset = address - start_of(private)
    own = owns(guest, private, address)
    if own.value == 0:
        return guest.memory.load(address)
    content = private.memory.load(address)
    entry = offset - IDT_AT
    if gate is not None:
        content = ite(entry <= private.idtr.limit.zero_extend(entry.width), gate(entry), content)
    content = ite(offset <= private.gdtr.limit.zero_extend(offset.width), descriptor(offset), content)
    return ite(own, content, guest.memory.load(address))


CpuT = TypeVar("CpuT", bound=X86)


def with_its_own_tables(ring: Ring, guest: CpuT, private: CpuT, kept: Iterable[str], flags: str) -> CpuT:
    """The hardware that every map begins with: the VMM's tables and flags, the guest's program and segments.

    Args:
        ring: where the guest's levels run.
        guest: what the guest believes in.
        private: the VMM's own.
        kept: words that are the guest's.
        flags: the name of the flags register.
    """
    hardware = private.copy()
    start = start_of(private)
    hardware.reserved.base, hardware.reserved.size = start, Word(start.width, RESERVED)
    hardware.gdtr.base, hardware.idtr.base, hardware.tr.base = start, start + IDT_AT, start + TSS_AT
    hardware.ldtr.rights.unusable = 1
    for name in kept:
        hardware[name] = guest[name]
    value = guest.eflags.value
    for leaf in ("if", "iopl", "vif", "vip"):
        place = guest.leaf(f"{flags}.{leaf}")
        value = value.replace(place.high, place.low, private[place.name])
    hardware.eflags = value
    for name in SEGMENT_NAMES:
        for part in ("selector", "base", "limit", "rights"):
            hardware[f"{name}.{part}"] = guest[f"{name}.{part}"]
        hardware[f"{name}.rights.dpl"] = ring(guest[f"{name}.rights.dpl"])
    return hardware


@attrs.frozen
class RingVmm(Generic[CpuT]):
    """A VMM that deprivileges rings, for a guest's kernel at ring 1 or at ring 3.

    Attributes:
        state: the machine's.
        map: a ring, the guest and the VMM's private state, to the hardware's state.
        guest: what guests it has (width 1).
        promises: what it sees to, of the guest and its private state (width 1).
        entries, entered: as `Technique` has them.
        source: where the technique is described.
    """

    state: type[CpuT]
    map: Callable[..., CpuT]
    guest: Callable[[CpuT], Word]
    promises: Callable[..., Word]
    entries: Callable[[CpuT, CpuT], Word]
    entered: Callable[[CpuT, CpuT], Word]
    source: str

    def at(
        self,
        level: int,
        title: str,
        *,
        hypotheses: tuple[Hypothesis, ...] = (),
        weakened: Callable[[frozenset[str]], Technique[CpuT]] | None = None,
        **changed: Any,
    ) -> Technique[CpuT]:
        """The technique whose guest's kernel runs at a ring.

        Args:
            level: 1 or 3.
            title: of the technique.
            hypotheses: what keeps a guest in.
            weakened: the technique without some of them, by name.
            changed: what `map` and `promises` are told besides.
        """
        owned = owned_leaves(self.state)
        compressed_rings = level == 3
        return Technique(
            f"ring-deprivileging-0/{level}/3",
            title,
            map=partial(self.map, ring_3 if compressed_rings else ring_1, **changed),
            owned=owned,
            # A kernel at ring 1 feels no alignment checks, and the virtual level shows in the real one.
            replaced=owned if compressed_rings else tuple(name for name in owned if name != "cr0.am"),
            shadowed=(*owned, "cs.selector.rpl") if compressed_rings else owned,
            deprivileged=lambda state: state.cpl == level,
            guest=self.guest,
            private=partial(self.promises, **changed),
            owns_address=owns,
            shadows_address=shadows,
            entries=self.entries,
            entered=self.entered,
            hypotheses=hypotheses,
            without=weakened,
            source=self.source,
        )
