"""What a unit does with a DMA request: root entry, context entry, second-stage tables; or a fault and its reason.

`translate` is one function on numbers and on symbols.  Each check has the id of a row of the ledger
(`specs/popek_specs/vtd/rules.csv`), which has its reason code and its source; the first check that fails, in the order
of the list, is the fault.
"""

from __future__ import annotations

import attrs

from popek.kernel.words import FALSE, TRUE, Word, ite

from .ledger import reason_of, rules
from .unit import Read, RemappingCapabilities, Unit, beyond, frame

TRANSLATED, WITH_DEVICE_TLB, PASS_THROUGH = 0, 1, 2
DEEPEST = 5


@attrs.frozen(eq=False)
class Remapped:
    """What becomes of a request.

    Attributes:
        reason: the fault reason (8 bits); 0 where it is let through.
        address: where it goes (64 bits), meaningless with a fault.
        silent: the context entry disables fault processing (width 1): nothing is recorded.
        checks: every check that was made: rule, whether it fails (width 1), in order.
    """

    reason: Word
    address: Word
    silent: Word
    checks: tuple[tuple[str, Word], ...]

    @property
    def passes(self) -> Word:
        """It is let through (width 1)."""
        return self.reason == 0


@attrs.define
class Checks:
    """Checks in order, and what is read between them; those of a rule that is dropped are not made.

    Attributes:
        memory: what is read.
        first: the first address that is read.  A unit that has found a fault reads no further, so what is written as a
            read behind a check that fails is one of this address, and no one looks at what it gives.
        sound: no check has failed so far (width 1).
    """

    without: frozenset[str]
    memory: Read
    first: Word
    sound: Word = TRUE
    made: list[tuple[str, Word]] = attrs.field(factory=list)

    def check(self, rule: str, fails: Word) -> None:
        """One more check."""
        if rule not in self.without:
            self.made.append((rule, fails))
            self.sound = self.sound & ~fails

    def read(self, address: Word, wanted: Word = TRUE) -> Word:
        """The quadword there, if the unit comes to read it (and `wanted`, of width 1)."""
        return self.memory(ite(self.sound & wanted, address, self.first))

    def reason(self) -> Word:
        """The reason of the first check that fails (8 bits); 0 where none does."""
        found = Word(8, 0)
        for rule, fails in reversed(self.made):
            found = ite(fails, Word(8, reason_of(rule)), found)
        return found


def translate(
    read: Read,
    unit: Unit,
    source: Word,
    address: Word,
    write: bool,
    can: RemappingCapabilities,
    without: frozenset[str] = frozenset(),
) -> Remapped:
    """A read or write request of a device, without a PASID.

    Args:
        source: the source-id: bus, device, function (16 bits).
        address: as the device sends it (64 bits).
        without: rules of the unit that are dropped.
    """
    bus, function = source[15:8].zero_extend(64), source[7:0].zero_extend(64)
    root_at = frame(unit.root_table, can.host_width) + (bus << 4)
    checks = Checks(without, read, root_at)
    root, root_high = checks.read(root_at), checks.read(root_at + 8)
    checks.check("DMA-ROOT-P", ~root[0])
    reserved = ((root & 0xFFE) != 0) | beyond(root, can.host_width) | (root_high != 0)
    checks.check("DMA-ROOT-RSVD", reserved)
    context_at = frame(root, can.host_width) + (function << 4)
    low, high = checks.read(context_at), checks.read(context_at + 8)
    kind, width = low[3:2], high[2:0]
    checks.check("DMA-CONTEXT-P", ~low[0])
    reserved = ((low & 0xFF0) != 0) | beyond(low, can.host_width) | high[7] | (high[63:24] != 0)
    checks.check("DMA-CONTEXT-RSVD", reserved)
    passing = (kind == PASS_THROUGH) & int(can.pass_through)
    offered = FALSE
    for levels in can.levels:
        offered = offered | (width == levels - 2)
    checks.check("DMA-CONTEXT-AW", ~offered)
    defined = (kind == TRANSLATED) | passing | ((kind == WITH_DEVICE_TLB) & int(can.device_tlb))
    checks.check("DMA-CONTEXT-T", ~defined)
    levels_in = width.zero_extend(8) + 2
    bits = ite(width == 1, Word(8, 39), ite(width == 2, Word(8, 48), Word(8, 57)))
    limit = Word(8, can.guest_width)
    fits = (address >> ite(bits < limit, bits, limit).zero_extend(64)) == 0
    checks.check("DMA-WIDTH", ~passing & ~fits)
    table, done, page = frame(low, can.host_width), passing, address
    for level in range(max(can.levels), 0, -1):
        here = ~done & (levels_in >= level)
        index = (address >> (12 + 9 * (level - 1))) & 0x1FF
        entry = checks.read(table + (index << 3), here)
        checks.check("DMA-PAGE-W" if write else "DMA-PAGE-R", here & ~entry[1 if write else 0])
        large = entry[7] if level > 1 and level in can.large else FALSE
        leaf = TRUE if level == 1 else large
        offset = (1 << (12 + 9 * (level - 1))) - 1
        checks.check("DMA-PAGE-RSVD", here & _reserved(entry, level, leaf, can))
        if level > 1 and level in can.large:
            checks.check("DMA-LARGE", here & leaf & ((entry & (offset & ~0xFFF)) != 0))
        there = (frame(entry, can.host_width) & ~Word(64, offset)) | (address & offset)
        page = ite(here & leaf, there, page)
        done = done | (here & leaf)
        table = ite(here, frame(entry, can.host_width), table)
    on = unit.translation == 1
    reason, there = ite(on, checks.reason(), Word(8, 0)), ite(on, page, address)
    qualified = {rule.reason for rule in rules().values() if rule.qualified}
    silent = low[1] & reason.isin(sorted(qualified))
    return Remapped(reason, there, silent, tuple(checks.made))


def _reserved(entry: Word, level: int, leaf: Word, can: RemappingCapabilities) -> Word:
    """A reserved bit of a second-stage entry is set (width 1)."""
    always = beyond(entry, can.host_width, 52)
    if not can.device_tlb:
        always = always | entry[62]
    snoop = entry[11] & ~leaf if can.snoop else entry[11]
    if level == 1:
        return always | snoop
    return always | snoop | (FALSE if level in can.large else entry[7])
