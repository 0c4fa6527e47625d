"""A walk of tables that translate guest-physical addresses: EPT and AMD's nested paging, of any depth.

`walk` is one function on numbers and on symbols.  Each check has the id of a row of the ledger; the first that fails,
in the processor's order, decides: entry by entry from the top, present before well formed; then, of the whole way,
whether all entries permit the access.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from popek.kernel.words import FALSE, TRUE, Word, all_of, concat, ite

Read = Callable[[Word], Word]
"""The 64 bits at a host-physical address of 64 bits that is a multiple of 8."""

ADDRESS = 0xF_FFFF_FFFF_F000  # bits 51:12 of an entry
LARGE_LEVELS = (2, 3)
NO_WALK, VIOLATION, MISCONFIGURATION, FAULT = "", "violation", "misconfiguration", "fault"


@attrs.frozen(eq=False)
class Reference:
    """What is asked of a translation (width 1 each).

    Attributes:
        write, fetch: neither is a read.
        walk: the reference is to an entry of the guest's own tables.
        user: the linear address is a user-mode address.
    """

    write: Word = FALSE
    fetch: Word = FALSE
    walk: Word = FALSE
    user: Word = FALSE


@attrs.frozen
class SecondStageAbilities:
    """What a processor can do.

    Attributes:
        host_width: bits of a physical address (MAXPHYADDR).
        levels: of the tables, 4 or 5.
        large: levels at which an entry may map a page: 2 (2 MB), 3 (1 GB).
        execute_only: EPT: entries that permit nothing but fetches.
    """

    host_width: int = 39
    levels: int = 4
    large: tuple[int, ...] = LARGE_LEVELS
    execute_only: bool = True


@attrs.frozen(eq=False)
class Modes:
    """What the VMM has switched on (width 1 each).

    Attributes:
        flags: EPT: accessed and dirty flags (EPTP bit 6).
        mode_based: EPT: mode-based execute control.
    """

    flags: Word = FALSE
    mode_based: Word = FALSE


@attrs.frozen(eq=False)
class Walked:
    """What becomes of a reference.

    Attributes:
        checks: every check that was made: rule, whether it fails (width 1), in order.
        structural: how many of them are of the entries; the others are of what they permit together.
        address: where it goes (64 bits), meaningless where a check fails.
        rights: of all entries that were read, 4 bits, the first lowest: R, W, X, XU of EPT; P, R/W, U/S, not NX of
            nested paging.
        flagged: the entries that get flags where no check fails: address, new value, width 1 that it is on the way.
    """

    checks: tuple[tuple[str, Word], ...]
    structural: int
    address: Word
    rights: Word
    flagged: tuple[tuple[Word, Word, Word], ...]

    @property
    def well_formed(self) -> Word:
        """The walk comes to its end (width 1)."""
        return all_of(~fails for _, fails in self.checks[: self.structural])

    @property
    def passes(self) -> Word:
        """No check fails (width 1)."""
        return all_of(~fails for _, fails in self.checks)

    def first(self) -> str:
        """The rule that decides, of numbers; empty where the reference is let through."""
        return next((rule for rule, fails in self.checks if int(fails)), NO_WALK)


Check = Callable[[str, Word], None]


@attrs.frozen(eq=False)
class TableFormat:
    """How entries are read.

    Attributes:
        name: as the ledger has it.
        width: the rule of addresses that are too wide.
        entries: `entries(entry, level, leaf, modes, can)`: the checks of one entry that the walk has come to, in order.
        rights: `rights(entry, modes)`: what it permits (4 bits).
        permission: `permission(rights, reference, modes)`: the checks of the whole way, in order.
        flags: `flags(entry, leaf, reference, modes)`: the entry with its flags set.
        counts_as_write: `counts_as_write(modes)`: references to the guest's tables are writes (width 1).
    """

    name: str
    width: str
    entries: Callable[[Word, int, Word, Modes, SecondStageAbilities], Iterator[tuple[str, Word]]]
    rights: Callable[[Word, Modes], Word]
    permission: Callable[[Word, Reference, Modes], Iterator[tuple[str, Word]]]
    flags: Callable[[Word, Word, Reference, Modes], Word]
    counts_as_write: Callable[[Modes], Word]


def frame_of(entry: Word, can: SecondStageAbilities) -> Word:
    """The physical page address in an entry (64 bits)."""
    return entry & (((1 << can.host_width) - 1) & ADDRESS)


def walk(
    read: Read,
    root: Word,
    address: Word,
    reference: Reference,
    form: TableFormat,
    modes: Modes,
    can: SecondStageAbilities,
    without: frozenset[str] = frozenset(),
) -> Walked:
    """A guest-physical address translated.

    Args:
        root: the physical address of the topmost table (64 bits).
        address: 64 bits.
        without: rules that are not checked.
    """
    made: list[tuple[str, Word]] = []
    sound = TRUE
    reference = attrs.evolve(
        reference, write=reference.write | (reference.walk & form.counts_as_write(modes))
    )

    def check(rule: str, fails: Word) -> None:
        nonlocal sound
        if rule not in without:
            made.append((rule, fails))
            sound = sound & ~fails

    check(form.width, address[63 : 12 + 9 * can.levels] != 0)
    table, page, rights, done = root, address, Word(4, 15), FALSE
    way: list[tuple[Word, Word, Word, Word]] = []
    for level in range(can.levels, 0, -1):
        here = ~done
        shift = 12 + 9 * (level - 1)
        at = table + concat(Word(52, 0), address[shift + 8 : shift], Word(3, 0))
        # A walk that has ended reads no further: what is written as a read behind its end is one of the root.
        at = ite(here & sound, at, root)
        entry = read(at)
        leaf = TRUE if level == 1 else entry[7] if level in can.large else FALSE
        for rule, fails in form.entries(entry, level, leaf, modes, can):
            check(rule, here & fails)
        rights = ite(here, rights & form.rights(entry, modes), rights)
        offset = (1 << shift) - 1
        frame = frame_of(entry, can)
        page = ite(here & leaf, (frame & ~Word(64, offset)) | (address & offset), page)
        way.append((at, entry, leaf, here))
        done, table = done | (here & leaf), ite(here, frame, table)
    structural = len(made)
    for rule, fails in form.permission(rights, reference, modes):
        check(rule, fails)
    flagged = tuple((at, form.flags(entry, leaf, reference, modes), here) for at, entry, leaf, here in way)
    return Walked(tuple(made), structural, page, rights, flagged)


# -- EPT --------------------------------------------------------------------------------------------


def _beyond(entry: Word, can: SecondStageAbilities) -> Word:
    return entry[51 : can.host_width] != 0


def _below(entry: Word, level: int) -> Word:
    """An address bit below the page's size is set, at a level above the first (width 1)."""
    return FALSE if level == 1 else entry[12 + 9 * (level - 1) - 1 : 12] != 0


def _ept_entries(
    entry: Word, level: int, leaf: Word, modes: Modes, can: SecondStageAbilities
) -> Iterator[tuple[str, Word]]:
    r, w, x, xu = entry[0], entry[1], entry[2], entry[10] & modes.mode_based
    yield "EPT-P", ~(r | w | x | xu)
    yield "EPT-WRITE-ONLY", ~r & w
    if not can.execute_only:
        yield "EPT-EXECUTE-ONLY", ~r & (x | xu)
    reserved = FALSE
    if level > 1:
        reserved = ~leaf & (entry[6:3] != 0) if level in can.large else entry[7:3] != 0
    yield "EPT-RSVD", reserved | _beyond(entry, can)
    yield "EPT-LARGE", leaf & _below(entry, level)
    yield "EPT-MEMORY-TYPE", leaf & entry[5:3].isin((2, 3, 7))


def _ept_rights(entry: Word, modes: Modes) -> Word:
    return concat(entry[10] | ~modes.mode_based, entry[2], entry[1], entry[0])


def _ept_permission(rights: Word, reference: Reference, modes: Modes) -> Iterator[tuple[str, Word]]:
    by_user = modes.mode_based & reference.user
    yield "EPT-R", ~reference.write & ~reference.fetch & ~rights[0]
    yield "EPT-W", reference.write & ~rights[1]
    yield "EPT-X", reference.fetch & ~by_user & ~rights[2]
    yield "EPT-XU", reference.fetch & by_user & ~rights[3]


def _ept_flags(entry: Word, leaf: Word, reference: Reference, modes: Modes) -> Word:
    accessed = entry | 1 << 8
    return ite(modes.flags, ite(leaf & reference.write, accessed | 1 << 9, accessed), entry)


EPT = TableFormat(
    "ept", "EPT-WIDTH", _ept_entries, _ept_rights, _ept_permission, _ept_flags, lambda modes: modes.flags
)


# -- nested paging ----------------------------------------------------------------------------------


def _nested_entries(
    entry: Word, level: int, leaf: Word, modes: Modes, can: SecondStageAbilities
) -> Iterator[tuple[str, Word]]:
    yield "NPT-P", ~entry[0]
    yield "NPT-RSVD", _beyond(entry, can) | (FALSE if level == 1 or level in can.large else entry[7])
    if level in can.large:
        yield "NPT-LARGE", leaf & (entry[12 + 9 * (level - 1) - 1 : 13] != 0)  # bit 12 of a large page is PAT


def _nested_permission(rights: Word, reference: Reference, modes: Modes) -> Iterator[tuple[str, Word]]:
    yield "NPT-US", ~rights[2]
    yield "NPT-RW", reference.write & ~rights[1]
    yield "NPT-NX", reference.fetch & ~rights[3]


def _nested_flags(entry: Word, leaf: Word, reference: Reference, modes: Modes) -> Word:
    accessed = entry | 1 << 5
    return ite(leaf & reference.write, accessed | 1 << 6, accessed)


NESTED = TableFormat(
    "nested",
    "NPT-WIDTH",
    _nested_entries,
    lambda entry, modes: concat(~entry[63], entry[2:0]),
    _nested_permission,
    _nested_flags,
    lambda modes: TRUE,
)
FORMATS = {"ept": EPT, "nested": NESTED}
