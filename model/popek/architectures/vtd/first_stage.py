"""First-stage translation of a remapping unit in scalable mode: a request with a PASID, by tables like the processor's.

The PASID table's entry says by which stages a request goes.  In nested translation the first stage's tables are a
guest's, at guest-physical addresses: each read of them, and the page, goes through the second stage, which is the
monitor's.  So the guest may write its first stage as it likes; `tests/devices` asks that.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from popek.kernel.words import FALSE, TRUE, Word, any_of, concat, ite

from .dma import Checks
from .unit import Read

FIRST, SECOND, NESTED, PASS_THROUGH = 1, 2, 3, 4
ADDRESS = 0xF_FFFF_FFFF_F000

SecondStageMap = Callable[[Word, Word], tuple[Word, Word]]
"""From a guest-physical address (64 bits), and whether it is written, to the host's and whether it is let through."""


@attrs.frozen(eq=False)
class PasidEntry:
    """What of a PASID table entry the first stage looks at.

    Attributes:
        present: P.
        kind: PGTT, 3 bits.
        root: FSPTPTR, 64 bits.
        levels: FSPM: 0 four levels, 1 five.
        protect: WPE: supervisor requests mind R/W.
    """

    present: Word
    kind: Word
    root: Word
    levels: Word
    protect: Word

    @classmethod
    def of(cls, low: Word, third: Word) -> PasidEntry:
        """From the quadwords at bits 63:0 and 191:128 of the entry."""
        return cls(low[0], low[8:6], third & ADDRESS, third[3:2], third[4])


@attrs.frozen(eq=False)
class FirstStageRequest:
    """A request with a PASID.

    Attributes:
        address: 64 bits.
        write: of width 1.
        privileged: it asks for supervisor privilege (width 1).
    """

    address: Word
    write: Word = FALSE
    privileged: Word = FALSE


@attrs.frozen(eq=False)
class FirstStageOutcome:
    """What becomes of a request.

    Attributes:
        reason: the fault reason (8 bits); 0 where it is let through.
        address: where it goes: host-physical, or guest-physical where the caller translates further.
        checks: every check: rule, whether it fails, in order.
    """

    reason: Word
    address: Word
    checks: tuple[tuple[str, Word], ...]

    @property
    def passes(self) -> Word:
        """It is let through (width 1)."""
        return self.reason == 0


def first_stage(
    read: Read,
    entry: PasidEntry,
    request: FirstStageRequest,
    *,
    host_width: int,
    levels: tuple[int, ...] = (4,),
    second: SecondStageMap | None = None,
    without: frozenset[str] = frozenset(),
) -> FirstStageOutcome:
    """A request through the first stage, or through both; other types of entries are the caller's.

    Args:
        levels: depths that the unit has.
        second: the second stage, in nested translation.
        without: rules that are dropped.
    """
    address = request.address
    root = entry.root & ((1 << host_width) - 1)
    checks = Checks(without, read, root)
    nested = entry.kind == NESTED
    checks.check("FS-PASID-P", ~entry.present)
    deep = entry.levels == 1
    offered = any_of(deep if one == 5 else entry.levels == 0 for one in levels)
    staged = (entry.kind == FIRST) | (nested & int(second is not None))
    checks.check("FS-PASID-TYPE", ~staged | ~offered)
    sign = ite(deep, _extended(address, 57), _extended(address, 48))
    checks.check("FS-CANONICAL", sign != address)
    table, page, done = root, address, FALSE
    for level in range(max(levels), 0, -1):
        here = ~done & (TRUE if level < 5 else deep)
        shift = 12 + 9 * (level - 1)
        at = table + concat(Word(52, 0), address[shift + 8 : shift], Word(3, 0))
        if second is not None:
            moved, passes = second(at, FALSE)
            checks.check("FS-SECOND", here & nested & ~passes)
            at = ite(nested, moved, at)
        found = checks.read(at, here)
        leaf = TRUE if level == 1 else found[7] if level < 4 else FALSE
        checks.check("FS-P", here & ~found[0])
        # In nested translation the address is the guest's: what is too wide is the second stage's to refuse.
        wide = ~nested & (found[51:host_width] != 0)
        size = found[7] if level > 3 else FALSE
        low = leaf & (found[shift - 1 : 13] != 0) if level > 1 else FALSE
        checks.check("FS-RSVD", here & (wide | size | low))
        checks.check("FS-US", here & ~request.privileged & ~found[2])
        checks.check("FS-W", here & request.write & ~found[1] & (~request.privileged | entry.protect))
        offset = (1 << shift) - 1
        frame = found & ADDRESS
        page = ite(here & leaf, (frame & ~Word(64, offset)) | (address & offset), page)
        done, table = done | (here & leaf), ite(here, frame, table)
    if second is not None:
        moved, passes = second(page, request.write)
        checks.check("FS-SECOND", nested & ~passes)
        page = ite(nested, moved, page)
    return FirstStageOutcome(checks.reason(), page, tuple(checks.made))


def _extended(address: Word, width: int) -> Word:
    return address[width - 1 : 0].sign_extend(64)
