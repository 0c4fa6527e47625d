"""EPT and nested paging as what keeps the monitor's storage from a guest's processor.

What a processor holds of translations is one translation, any: a step that finds it takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from popek.architectures.vtd.assignment import own_route, reader, stored
from popek.architectures.vtd.platform import CELL, HOST_WIDTH, PAGE, Pc, build, moved
from popek.kernel.agents import Attachment, Devices, MonitorDuty, RefusedError
from popek.kernel.memory import Memory
from popek.kernel.state import Role, State, word
from popek.kernel.words import TRUE, Word, all_of, concat, ite, symbol

from .ledger import second_stage_rules
from .processor import PageWalker, agent, reference_address, reference_of
from .tables import (
    ADDRESS,
    EPT,
    NESTED,
    Modes,
    Read,
    Reference,
    SecondStageAbilities,
    TableFormat,
    Walked,
    frame_of,
    walk,
)


class SecondStage(State):
    """What the monitor sets, and one translation that the processor may hold."""

    on = word(1, role=Role.RESOURCE)
    root = word(64, role=Role.RESOURCE)  # EP4TA, or nCR3
    flags = word(1, role=Role.RESOURCE)  # EPTP bit 6
    mode_based = word(1, role=Role.RESOURCE)
    tag = word(16, role=Role.RESOURCE)  # nested paging: the guest's ASID
    held = word(1, role=Role.HIDDEN)
    held_page = word(52, role=Role.HIDDEN)  # guest-physical
    held_frame = word(52, role=Role.HIDDEN)
    held_rights = word(4, role=Role.HIDDEN)  # R, W, X, XU; R lowest
    held_root = word(64, role=Role.HIDDEN)  # under which it was made
    held_tag = word(16, role=Role.HIDDEN)


@attrs.frozen(eq=False)
class SecondStageKind:
    """A format of tables on a processor.

    Attributes:
        form: of the tables.
        can: the processor.
        tagged: the rule that says under what a held translation is used.
        same: it is used here (width 1).
    """

    form: TableFormat
    can: SecondStageAbilities
    tagged: str
    same: Callable[[SecondStage], Word]

    def walked(
        self,
        read: Read,
        unit: SecondStage,
        address: Word,
        reference: Reference,
        without: frozenset[str] = frozenset(),
    ) -> Walked:
        """The tables' answer, on or off."""
        modes = Modes(unit.flags, unit.mode_based)
        return walk(
            read, frame_of(unit.root, self.can), address, reference, self.form, modes, self.can, without
        )

    def permits(self, rights: Word, unit: SecondStage, reference: Reference) -> Word:
        """Rights that are held permit a reference (width 1)."""
        modes = Modes(unit.flags, unit.mode_based)
        counted = attrs.evolve(
            reference, write=reference.write | (reference.walk & self.form.counts_as_write(modes))
        )
        return all_of(~fails for _, fails in self.form.permission(rights, counted, modes))


EPT_4 = SecondStageKind(
    EPT, SecondStageAbilities(HOST_WIDTH, 4), "EPT-TLB-ROOT", lambda u: u.held_root == u.root
)
EPT_5 = attrs.evolve(EPT_4, can=SecondStageAbilities(HOST_WIDTH, 5, execute_only=False))
NPT_4 = SecondStageKind(
    NESTED, SecondStageAbilities(HOST_WIDTH, 4), "NPT-TLB-ASID", lambda u: u.held_tag == u.tag
)


def _kinds_of_reference(place: Word) -> list[Reference]:
    """Every one that a permission tells apart."""
    return [
        Reference(),
        Reference(write=TRUE),
        Reference(fetch=TRUE),
        Reference(fetch=TRUE, user=TRUE),
    ]


def _used(kind: SecondStageKind, unit: SecondStage, address: Word, without: frozenset[str]) -> Word:
    """The processor answers from what it holds (width 1)."""
    same = TRUE if kind.tagged in without else kind.same(unit)
    return (unit.on == 1) & (unit.held == 1) & same & (unit.held_page == address[63:12])


def _route(
    kind: SecondStageKind,
    without: frozenset[str],
    hardware: Pc,
    unit: SecondStage,
    walker: PageWalker,
    address: Word,
    write: bool,
) -> Word:
    """Where a reference of the guest's goes.

    Raises:
        RefusedError: a VM exit.
    """
    reference = reference_of(walker, write)
    if unit.on == 0:
        if address[63:HOST_WIDTH] != 0:
            raise RefusedError("no storage there")
        return address[CELL + 2 : 3]
    used = _used(kind, unit, address, without)
    found = kind.walked(reader(hardware.memory), unit, address, reference, without)
    there = concat(unit.held_frame, address[11:0])
    # What is held and does not permit the reference is no answer: the tables are walked.
    answer = used & kind.permits(unit.held_rights, unit, reference)
    if ~answer & ~found.passes:
        names = [rule for rule, fails in found.checks if fails.value == 1]
        raise RefusedError(f"a VM exit ({names[0]})" if names else "a VM exit")
    goes = ite(answer, there, found.address)
    if goes[63:HOST_WIDTH] != 0:
        raise RefusedError("no storage there")
    return goes[CELL + 2 : 3]


def _marks(
    kind: SecondStageKind,
    without: frozenset[str],
    storage: Memory,
    unit: SecondStage,
    walker: PageWalker,
    address: Word,
    write: bool,
) -> Sequence[tuple[Word, Word]]:
    """The flags that a walk sets in the tables."""
    reference = reference_of(walker, write)
    found = kind.walked(reader(storage), unit, address, reference, without)
    walks = (unit.on == 1) & ~_used(kind, unit, address, without) & found.passes
    at, entry, _ = found.flagged[0]
    top = at[CELL + 2 : 3]
    kept = ite(
        walks, entry, storage.load(top)
    )  # where an entry is not on the way the first is marked once more
    marked = []
    for at, value, wanted in found.flagged:
        here = walks & wanted
        marked.append((ite(here, at[CELL + 2 : 3], top), ite(here, value, kept)))
    return marked


# -- the monitor's duties ---------------------------------------------------------------------------


def _inside(guest: Pc, private: Pc, address: Word) -> Word:
    """A host-physical address is the guest's (width 1)."""
    page = address[HOST_WIDTH - 1 : 12]
    return (address[63:HOST_WIDTH] == 0) & (page - private.start <= guest.last)


def _confined(kind: SecondStageKind, guest: Pc, private: Pc, unit: SecondStage, place: Word) -> Word:
    """Whatever the tables let through goes to the guest's storage."""
    kept = []
    for reference in _kinds_of_reference(place):
        found = kind.walked(reader(private.memory), unit, place, reference)
        kept.append(~found.passes | _inside(guest, private, found.address))
    return all_of(kept)


def _tables_ours(kind: SecondStageKind, guest: Pc, private: Pc, unit: SecondStage, place: Word) -> Word:
    """What is read to translate is the monitor's."""
    read: list[Word] = []

    def noted(address: Word) -> Word:
        read.append(address)
        return reader(private.memory)(address)

    kind.walked(noted, unit, place, Reference())
    return all_of(~_inside(guest, private, address) for address in read)


def _invalidated(kind: SecondStageKind, guest: Pc, private: Pc, unit: SecondStage, place: Word) -> Word:
    """What is held leads to the guest's storage."""
    there = concat(unit.held_frame, Word(12, 0))
    return (unit.held == 0) | ~kind.same(unit) | _inside(guest, private, there)


def _fresh(kind: SecondStageKind, guest: Pc, private: Pc, unit: SecondStage, place: Word) -> Word:
    """What is held is what the tables say."""
    page = unit.held_page
    there = concat(unit.held_frame, Word(12, 0))
    mine = (page[51:PAGE] == 0) & (page[PAGE - 1 : 0] <= guest.last)
    right = mine & (
        there == concat(page, Word(12, 0)) + concat(Word(64 - HOST_WIDTH, 0), private.start, Word(12, 0))
    )
    return (unit.held == 0) | ~kind.same(unit) | right


def _mapped(kind: SecondStageKind, guest: Pc, private: Pc, unit: SecondStage, place: Word) -> Word:
    """Every page of the guest's is mapped for every reference, and nothing else."""
    mine = (place[63:HOST_WIDTH] == 0) & (place[HOST_WIDTH - 1 : 12] <= guest.last)
    refused = []
    for reference in _kinds_of_reference(place):
        found = kind.walked(reader(private.memory), unit, place, reference)
        refused.append(~found.passes)
    there = found.well_formed & (found.rights == 15) & (found.address[63:HOST_WIDTH] == 0)
    there = there & (found.address[CELL + 2 : 3] == moved(place[CELL + 2 : 3], private.start))
    return ite(mine, there, all_of(refused))


def _duties(kind: SecondStageKind, off: bool) -> tuple[MonitorDuty, ...]:
    if off:
        return (
            MonitorDuty("off", "there is no second stage", lambda guest, private, unit, place: unit.on == 0),
        )
    return (
        MonitorDuty("on", "the second stage is on", lambda guest, private, unit, place: unit.on == 1),
        MonitorDuty(
            "confined",
            "whatever the tables let through goes to the guest's storage",
            partial(_confined, kind),
        ),
        MonitorDuty(
            "tables",
            "the tables that are read to translate are the monitor's storage",
            partial(_tables_ours, kind),
        ),
        MonitorDuty(
            "invalidated",
            "after a page was taken from the guest the processor holds no translation to it: it was invalidated",
            partial(_invalidated, kind),
        ),
        MonitorDuty(
            "fresh",
            "what the processor holds is what the tables say: changes were invalidated",
            partial(_fresh, kind),
            fidelity=True,
        ),
        MonitorDuty(
            "mapped",
            "every page of the guest's is mapped for every reference, to where the second stage has it",
            partial(_mapped, kind),
            fidelity=True,
        ),
    )


# -- the first state --------------------------------------------------------------------------------

ROOT, START, LAST, ANOTHERS_ROOT, ANOTHERS_START = 0x1000, 0x100, 1, 0x9000, 0x200


def table_cells(kind: SecondStageKind, *, pages: int, start: int, at: int = ROOT) -> dict[int, int]:
    """Tables that map guest-physical pages from 0 on."""
    link = 7 | 1 << 10 if kind.form is EPT else 0x67
    leaf = link | 6 << 3 if kind.form is EPT else link
    levels = kind.can.levels
    cells = {at + 0x1000 * depth: at + 0x1000 * (depth + 1) | link for depth in range(levels - 1)}
    last = at + 0x1000 * (levels - 1)
    return cells | {last + 8 * page: (start + page) << 12 | leaf for page in range(pages)}


def _first(
    kind: SecondStageKind, off: bool, rules: frozenset[str], dropped: frozenset[str]
) -> tuple[Pc, Pc, SecondStage]:
    guest = Pc.reset(last=LAST).with_contents({"memory": "memory"})
    private = Pc.reset(start=START)
    pages = LAST + 1 if "confined" not in dropped else LAST + 2
    cells: dict[int, int | Word] = dict(table_cells(kind, pages=pages, start=START))
    unit = SecondStage.reset(on=int(not off and "on" not in dropped), root=ROOT, tag=1)
    last = ROOT + 0x1000 * (kind.can.levels - 1)
    checks = rules - {kind.tagged, kind.form.width}
    if checks:  # two entries that are to keep the monitor's page 0, and nothing else that does
        cells = dict(table_cells(kind, pages=1, start=0))
        above, leaf = (symbol(f"quadword at {at:#x}@vmm", 64) for at in (last - 0x1000, last))
        cells |= {last - 0x1000: (above & ~frame_of(Word(64, ADDRESS), kind.can)) | last, last: leaf}
        unit.mode_based = Word(1, int("EPT-XU" in rules))
    if "tables" in dropped:  # the last table is the guest's page 1
        cells |= {last - 0x1000: (START + 1) << 12 | (7 if kind.form is EPT else 0x67)}
        cells |= {(START + 1) << 12: START << 12 | (0x37 if kind.form is EPT else 0x67)}
    private.memory = stored(cells)
    if "invalidated" in dropped:  # the page behind the guest's was its own until a moment ago
        unit = unit.with_changes(_holding(LAST + 1, START + LAST + 1, ROOT, 1))
    if kind.tagged in rules:  # the processor holds a translation of another guest's
        unit = unit.with_changes(_holding(0, ANOTHERS_START, ANOTHERS_ROOT, 2))
    if "fresh" in dropped and not rules:
        unit = unit.with_changes(_holding(1, START, ROOT, 1))
    return guest, private, unit


def _holding(page: int, frame: int, root: int, tag: int) -> Mapping[str, int]:
    return {
        "held": 1,
        "held_page": page,
        "held_frame": frame,
        "held_rights": 15,
        "held_root": root,
        "held_tag": tag,
    }


def _rules(kind: SecondStageKind) -> dict[str, str]:
    """Those of the format that this processor checks, by id."""
    found = {rule.id: rule.rule for rule in second_stage_rules().values() if rule.format == kind.form.name}
    if kind.can.execute_only:
        found.pop("EPT-EXECUTE-ONLY", None)
    return found


def _attachment(
    name: str, title: str, kind: SecondStageKind, off: bool = False, without: frozenset[str] = frozenset()
) -> Attachment:
    return Attachment(
        name,
        title,
        route=partial(_route, kind, without),
        unit=SecondStage,
        marks=None if off else partial(_marks, kind, without),
        flags=0 if off else (0x300 if kind.form is EPT else 0x60),
        duties=_duties(kind, off),
        places=lambda guest, walker, private, unit: (reference_address(walker),),
        first=partial(_first, kind, off, without),
        rules={} if off else _rules(kind),
        without=lambda rules: _attachment(name, title, kind, off, rules),
        longest=1 if without else 2,
        source="Intel SDM vol. 3C, chapter 28" if kind.form is EPT else "AMD APM vol. 2, 15.25",
    )


DIRECT = _attachment(
    "direct", "no second stage: a guest-physical address is a host-physical one", EPT_4, off=True
)
WAYS = (
    DIRECT,
    _attachment("nested", "nested paging, four levels", NPT_4),
    _attachment("ept-5-level", "EPT of five levels, on a processor without execute-only translations", EPT_5),
    _attachment("ept", "EPT of four levels", EPT_4),
)


def devices() -> Devices[Pc]:
    """A guest's processor over storage that is shared with the monitor."""
    return Devices(
        "x86-memory",
        "a guest's processor, reference by reference",
        build,
        "second-stage",
        agent(),
        own_route,
        {one.name: one for one in WAYS},
        place=64,
        forms=(),
        notes=(
            "the guest's paging: presence, R/W, U/S, accessed, dirty, large pages; CR0.WP = 1; no keys, SMEP, SMAP",
            "PDPTEs are read with the walk; a processor without nested paging reads them with MOV CR3",
            "page-modification logs, sub-page permissions, #VE, shadow stacks, paging-write entries",
        ),
        source="Intel SDM vol. 3C, chapter 28; AMD APM vol. 2, 15.25",
    )
