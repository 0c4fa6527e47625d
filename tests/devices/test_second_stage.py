"""EPT, nested paging and shadow paging: expectations from the manuals' tables by hand, laws, induction, and traces."""

from __future__ import annotations

import json
from functools import cache

import jsonschema
import pytest

from popek.architectures.second_stage.attachments import SecondStage
from popek.architectures.second_stage.ledger import second_stage_rules
from popek.architectures.second_stage.tables import (
    EPT,
    NESTED,
    Modes,
    Reference,
    SecondStageAbilities,
    TableFormat,
    Walked,
    walk,
)
from popek.architectures.vtd.assignment import stored
from popek.architectures.vtd.platform import Pc
from popek.checks.device_traces import trace_by
from popek.checks.devices import CHANGES, FIDELITY, INVARIANT, LEARNS, Attached, droppable
from popek.checks.verdict import Status
from popek.emulators.non_root.second_stage import BIT_12, compare_ept, deviations, ept_summary, make_ept_cases
from popek.kernel.agents import Devices
from popek.kernel.memory import Memory
from popek.kernel.words import TRUE, Word, symbol
from popek.machines import with_devices
from popek.schemas import schemas
from popek.solving.solver import Answer, holds

L4, L3, L2, L1, PAGE, ADDRESS = 0x1000, 0x2000, 0x3000, 0x4000, 0x800000, 0x7008
PTE = L1 + 0x38
READ, WRITE, FETCH = Reference(), Reference(write=TRUE), Reference(fetch=TRUE)
USER_FETCH, WALK = Reference(fetch=TRUE, user=TRUE), Reference(walk=TRUE)
BY_MODE, FLAGS = Modes(mode_based=TRUE), Modes(flags=TRUE)
EPT_TABLES = {L4: L3 | 7, L3: L2 | 7, L2: L1 | 7, PTE: PAGE | 0x37}
NESTED_TABLES = {L4: L3 | 7, L3: L2 | 7, L2: L1 | 7, PTE: PAGE | 7}


def walked(
    form: TableFormat,
    cells: dict[int, int],
    reference: Reference = READ,
    modes: Modes | None = None,
    *,
    address: int = ADDRESS,
    root: int = L4,
    **can: object,
) -> Walked:
    abilities = SecondStageAbilities(**can)
    return walk(
        lambda at: Word(64, cells.get(int(at), 0)),
        Word(64, root), Word(64, address), reference, form, modes or Modes(), abilities,
    )  # fmt: skip


# Bits by the SDM's tables 28-1 to 28-6, outcomes by 28.3.3.1 to 28.3.3.3.
@pytest.mark.parametrize(
    ("changes", "reference", "modes", "expected"),
    [
        ({}, READ, None, ""), ({}, WRITE, None, ""), ({}, FETCH, None, ""),
        ({PTE: 0}, READ, None, "EPT-P"), ({L2: L1 | 0x400}, READ, None, "EPT-P"),
        ({PTE: PAGE | 0x400}, FETCH, BY_MODE, "EPT-MEMORY-TYPE-0"), ({PTE: PAGE | 0x432}, READ, None, "EPT-WRITE-ONLY"),
        ({PTE: PAGE | 0x36}, READ, None, "EPT-WRITE-ONLY"), ({L3: L2 | 2}, READ, None, "EPT-WRITE-ONLY"),
        ({PTE: PAGE | 0x34}, FETCH, None, ""), ({PTE: PAGE | 0x34}, READ, None, "EPT-R"),
        ({PTE: PAGE | 0x31}, WRITE, None, "EPT-W"), ({PTE: PAGE | 0x33}, FETCH, None, "EPT-X"),
        ({L3: L2 | 1}, WRITE, None, "EPT-W"), ({L4: L3 | 3}, FETCH, None, "EPT-X"),
        ({PTE: PAGE | 0x433}, USER_FETCH, BY_MODE, "EPT-XU-1"), ({PTE: PAGE | 0x37}, USER_FETCH, BY_MODE, "EPT-XU"),
        ({PTE: PAGE | 0x37}, USER_FETCH, None, ""), ({PTE: PAGE | 0x433}, FETCH, BY_MODE, "EPT-X"),
        ({PTE: PAGE | 0x17}, READ, None, "EPT-MEMORY-TYPE"), ({PTE: PAGE | 0x1F}, READ, None, "EPT-MEMORY-TYPE"),
        ({PTE: PAGE | 0x3F}, READ, None, "EPT-MEMORY-TYPE"), ({PTE: PAGE | 0x27}, READ, None, ""),
        ({PTE: PAGE | 0x7 | 1 << 6 | 1 << 7}, READ, None, ""), ({L2: L1 | 7 | 1 << 6}, READ, None, "EPT-RSVD"),
        ({L4: L3 | 7 | 1 << 7}, READ, None, "EPT-RSVD"), ({L3: L2 | 7 | 1 << 3}, READ, None, "EPT-RSVD"),
        ({PTE: PAGE | 0x37 | 1 << 39}, READ, None, "EPT-RSVD"), ({PTE: PAGE | 0x37 | 1 << 51}, READ, None, "EPT-RSVD"),
        ({PTE: PAGE | 0x37 | 1 << 52}, READ, None, ""), ({L4: L3 | 7 | 1 << 8 | 1 << 9}, READ, None, ""),
        # The permission is asked of the whole way, behind every entry: the entry below decides first.
        ({L3: L2 | 1, PTE: PAGE | 0x3F}, WRITE, None, "EPT-MEMORY-TYPE"), ({L3: L2 | 1, PTE: 0}, WRITE, None, "EPT-P"),
        ({L2: L1 | 1}, WALK, None, ""), ({L2: L1 | 1}, WALK, FLAGS, "EPT-W"),
    ],
)  # fmt: skip
def test_ept_as_the_manual_has_it(
    changes: dict[int, int], reference: Reference, modes: Modes | None, expected: str
) -> None:
    found = walked(EPT, {**EPT_TABLES, **changes}, reference, modes)
    if expected == "EPT-MEMORY-TYPE-0":  # present by XU alone; uncacheable is a memory type; X is clear
        expected = "EPT-X"
    if expected == "EPT-XU-1":  # XU set in the page's entry, clear in those above
        expected = "EPT-XU"
    assert found.first() == expected
    if not expected:
        assert int(found.address) == PAGE | 8


def test_execute_only_is_a_misconfiguration_where_the_processor_has_it_not() -> None:
    cells = {**EPT_TABLES, PTE: PAGE | 0x34}
    assert walked(EPT, cells, FETCH, execute_only=False).first() == "EPT-EXECUTE-ONLY"


@pytest.mark.parametrize(
    ("cells", "expected", "page"),
    [
        ({L3: 0x40000000 | 0xB7}, "", 0x40007008), ({L3: 0x40000000 | 0xB7 | 1 << 12}, "EPT-LARGE", 0),
        ({L3: 0x40000000 | 0xB7 | 1 << 29}, "EPT-LARGE", 0), ({L2: 0x600000 | 0xB7}, "", 0x607008),
        ({L2: 0x600000 | 0xB7 | 1 << 20}, "EPT-LARGE", 0), ({L2: 0x600000 | 0x97}, "EPT-MEMORY-TYPE", 0),
    ],
)  # fmt: skip
def test_large_pages(cells: dict[int, int], expected: str, page: int) -> None:
    found = walked(EPT, {**EPT_TABLES, **cells})
    assert found.first() == expected
    assert expected or int(found.address) == page
    if not expected:
        small = walked(EPT, {**EPT_TABLES, **cells}, large=())
        assert small.first() == "EPT-RSVD"


def test_levels_and_widths() -> None:
    top = 0x9000
    five = {**EPT_TABLES, top: L4 | 7}
    assert int(walked(EPT, five, root=top, levels=5).address) == PAGE | 8
    assert walked(EPT, EPT_TABLES, address=1 << 48 | ADDRESS).first() == "EPT-WIDTH"
    assert walked(EPT, five, address=1 << 48 | ADDRESS, root=top, levels=5).first() == "EPT-P"
    assert walked(EPT, five, address=1 << 57, root=top, levels=5).first() == "EPT-WIDTH"


def test_accessed_and_dirty_flags() -> None:
    found = walked(EPT, EPT_TABLES, WRITE, FLAGS)
    assert [int(value) >> 8 & 3 for _, value, _ in found.flagged] == [1, 1, 1, 3]
    assert [int(value) >> 8 & 3 for _, value, _ in walked(EPT, EPT_TABLES, READ, FLAGS).flagged] == [
        1,
        1,
        1,
        1,
    ]
    assert [int(value) >> 8 & 3 for _, value, _ in walked(EPT, EPT_TABLES, WALK, FLAGS).flagged] == [
        1,
        1,
        1,
        3,
    ]
    assert all(int(value) >> 8 & 3 == 0 for _, value, _ in walked(EPT, EPT_TABLES, WRITE).flagged)


# APM vol. 2, 15.25.5 and 15.25.6: every reference is a user's, references to the guest's tables are writes.
@pytest.mark.parametrize(
    ("changes", "reference", "expected"),
    [
        ({}, READ, ""), ({}, WRITE, ""), ({}, FETCH, ""), ({PTE: PAGE | 6}, READ, "NPT-P"),
        ({PTE: PAGE | 3}, READ, "NPT-US"), ({L3: L2 | 3}, READ, "NPT-US"), ({PTE: PAGE | 5}, WRITE, "NPT-RW"),
        ({PTE: PAGE | 5}, READ, ""), ({PTE: PAGE | 5}, WALK, "NPT-RW"), ({L2: L1 | 5}, WRITE, "NPT-RW"),
        ({PTE: PAGE | 7 | 1 << 63}, FETCH, "NPT-NX"), ({PTE: PAGE | 7 | 1 << 63}, READ, ""),
        ({L4: L3 | 7 | 1 << 63}, FETCH, "NPT-NX"), ({PTE: PAGE | 7 | 1 << 45}, READ, "NPT-RSVD"),
        ({L4: L3 | 0x87}, READ, "NPT-RSVD"), ({L2: 0x600087}, READ, ""), ({L2: 0x602087}, READ, "NPT-LARGE"),
        ({L2: 0x601087}, READ, ""), ({L2: L1 | 3, PTE: 0}, WRITE, "NPT-P"),
    ],
)  # fmt: skip
def test_nested_paging_as_the_manual_has_it(
    changes: dict[int, int], reference: Reference, expected: str
) -> None:
    assert walked(NESTED, {**NESTED_TABLES, **changes}, reference).first() == expected


@pytest.mark.parametrize("form", [EPT, NESTED], ids=lambda form: form.name)
def test_every_rule_is_checked_and_every_check_is_a_rule(form: TableFormat) -> None:
    storage, made = Memory(36, 64, "storage"), set()
    for execute_only in (False, True):
        found = walk(
            lambda at: storage.load(at[38:3]), symbol("root", 64), symbol("a", 64), READ, form, BY_MODE,
            SecondStageAbilities(execute_only=execute_only),
        )  # fmt: skip
        made |= {rule for rule, _ in found.checks}
    checked = {r.id for r in second_stage_rules().values() if r.format == form.name and "TLB" not in r.id}
    assert made == checked


def test_symbols_and_numbers_agree() -> None:
    stores = tuple((Word(36, at >> 3), Word(64, value)) for at, value in EPT_TABLES.items())
    nothing = Memory(36, 64, lambda at: Word(64, 0), stores)
    address = symbol("address", 64)
    found = walk(
        lambda at: nothing.load(at[38:3]), Word(64, L4), address, READ, EPT, Modes(), SecondStageAbilities()
    )
    mapped = (address[63:12] == ADDRESS >> 12) & (found.address == (PAGE | address & 0xFFF))
    assert holds(found.passes == mapped) is Answer.UNSAT


# -- what it keeps ----------------------------------------------------------------------------------


@cache
def known(name: str) -> Devices:
    return with_devices(name)


def first_trace(name: str, way: str, dropped: str, promise: str, *steps: str) -> str:
    attached = Attached.of(known(name), way, dropped.split())
    found = trace_by(attached, promise, list(attached.devices.agent.programs), steps)
    return "" if found is None else found.broken


# One way to the promise each, and only the question that finds it; `popek devices safety` looks for a shortest one.
@pytest.mark.parametrize(
    ("way", "dropped", "promise", "steps"),
    [
        ("ept", "on", CHANGES, ["reference"]), ("ept", "confined", CHANGES, ["reference"]),
        ("ept", "tables", CHANGES, ["reference", "reference"]), ("ept", "invalidated", CHANGES, ["reference"]),
        ("ept", "fresh", FIDELITY, ["reference"]), ("ept", "EPT-W", CHANGES, ["reference"]),
        ("ept", "EPT-WRITE-ONLY", CHANGES, ["reference"]), ("ept", "EPT-RSVD", CHANGES, ["reference"]),
        ("ept", "EPT-LARGE", CHANGES, ["reference"]), ("nested", "NPT-LARGE", CHANGES, ["reference"]),
        ("ept", "EPT-MEMORY-TYPE", CHANGES, ["reference"]), ("ept", "EPT-TLB-ROOT", CHANGES, ["reference"]),
        ("ept", "EPT-R", LEARNS, ["reference"]), ("ept", "EPT-X", LEARNS, ["reference"]),
        ("ept", "EPT-XU", LEARNS, ["reference"]), ("ept-5-level", "EPT-EXECUTE-ONLY", LEARNS, ["reference"]),
        ("nested", "NPT-P", CHANGES, ["reference"]), ("nested", "NPT-RSVD", CHANGES, ["reference"]),
        ("nested", "NPT-US", LEARNS, ["reference"]), ("nested", "NPT-TLB-ASID", CHANGES, ["reference"]),
    ],
)  # fmt: skip
def test_without_it_the_guest_gets_out(way: str, dropped: str, promise: str, steps: list[str]) -> None:
    assert first_trace("x86-memory", way, dropped, promise, *steps)


# Nothing gets out: what such an entry keeps off, the entry's other bits keep off too, or a read was the guest's anyway.
@pytest.mark.parametrize(("way", "dropped"), [("ept", "EPT-P"), ("nested", "NPT-RW")])
def test_rules_that_others_imply(way: str, dropped: str) -> None:
    assert not first_trace("x86-memory", way, dropped, CHANGES, "reference")


def test_an_address_that_is_too_wide_is_another_page_of_the_guests_own() -> None:
    attached = Attached.of(known("x86-memory"), "ept", ["EPT-WIDTH"], serving=True)
    found = trace_by(attached, FIDELITY, list(attached.devices.agent.programs), ["reference"])
    assert found is not None
    assert found.steps[-1].accesses[-1][1] >> 48


@pytest.mark.parametrize(("level", "pages"), [(2, 1 << 9), (3, 1 << 18)])
@pytest.mark.parametrize("way", ["ept", "nested"])
def test_large_pages_can_serve_and_misplaced_ones_cannot(way: str, level: int, pages: int) -> None:
    """The duties hold of a guest of 2 MB, or 1 GB, that one entry maps; not where the guest lacks a page of it."""
    attached = Attached.of(known("x86-memory"), way)
    link, leaf = (7, 0xB7) if way == "ept" else (0x67, 0xE7)
    cells: dict[int, int | Word] = {L4: L3 | link, L3: L2 | link}
    cells[L2 if level == 2 else L3] = pages << 12 | leaf
    unit = SecondStage.reset(on=1, root=L4, tag=1)
    private = Pc.reset(start=pages)
    private.memory = stored(cells)

    def kept(last: int) -> Answer:
        return holds(attached.kept(Pc.reset(last=last), private, unit))

    assert kept(pages - 1) is Answer.UNSAT
    assert kept(pages - 2) is Answer.SAT


def rows(name: str, way: str, step: str, *dropped: str) -> dict[str, set[Status]]:
    found: dict[str, set[Status]] = {}
    for row in Attached.of(known(name), way, dropped).stepped(step):
        found.setdefault(row.promise, set()).add(row.status)
    return found


def test_nested_paging_keeps_the_monitors_storage() -> None:
    asked = list(Attached.of(known("x86-memory"), "nested").rows())
    assert {row.status for row in asked} == {Status.HOLDS}
    assert {row.promise for row in asked} == {CHANGES, FIDELITY, INVARIANT, LEARNS}


def test_shadow_paging_is_safe_and_faithful() -> None:
    attached = Attached.of(known("x86-shadow"), "shadow")
    assert {row.status for row in attached.rows()} == {Status.HOLDS}
    # Stores to the guest's own page tables are references like others: nothing intercepts them.
    assert "reference" not in attached.attachment.services


# What must be intercepted is derived: without it the step of the guest's that is named does what its machine does not.
@pytest.mark.parametrize(
    ("dropped", "step"),
    [
        ("#PF", "#PF, nothing held"), ("#PF", "#PF, not permitted"), ("MOV-CR3", "MOV CR3"),
        ("MOV-from-CR3", "MOV from CR3"), ("INVLPG", "INVLPG"), ("CR0.WP", "MOV CR0"), ("CR4.PAE-PGE", "MOV CR4"),
    ],
)  # fmt: skip
def test_what_shadow_paging_must_intercept(dropped: str, step: str) -> None:
    assert Status.REFUTED in set().union(*rows("x86-shadow", "shadow", step, dropped).values())


def test_without_mov_cr3_intercepted_the_guest_walks_tables_of_its_own() -> None:
    steps = ("MOV CR3", "walk", "reference")
    assert first_trace("x86-shadow", "shadow", "MOV-CR3", CHANGES, *steps)
    filled = ("#PF, nothing held", "MOV CR4", "walk", "reference")  # half an entry taken for a whole one
    assert first_trace("x86-shadow", "shadow", "CR4.PAE-PGE", CHANGES, *filled)
    assert first_trace("x86-shadow", "shadow", "vpid", CHANGES, "reference")


def test_what_may_be_dropped_is_named() -> None:
    names = droppable(known("x86-memory").attachments["ept"])
    assert {"EPT-TLB-ROOT", "invalidated", "tables"} <= set(names)
    assert "EPT-EXECUTE-ONLY" not in names


# -- Bochs ------------------------------------------------------------------------------------------


@pytest.mark.emulator("bochs", "nasm")
def test_bochs_does_what_the_rules_of_ept_say() -> None:
    found = ept_summary(compare_ept(make_ept_cases(250, 3)), 3)
    assert found["unexplained"] == []
    assert {
        "EPT-P",
        "EPT-R",
        "EPT-W",
        "EPT-X",
        "EPT-RSVD",
        "EPT-LARGE",
        "EPT-MEMORY-TYPE",
        "let through",
    } <= set(found["outcomes"])
    assert set(found["deviations"]) <= set(deviations()) == {BIT_12}
    schema = jsonschema.Draft202012Validator(schemas()["popek/ept-difftest/1"])
    schema.validate(json.loads(json.dumps(found)))
    example = {"unlike": "exit reason 18", "case": make_ept_cases(1, 3)[0].to_json()}
    schema.validate({**found, "unexplained": [example]})
    assert not schema.is_valid({**found, "unexplained": [{"unlike": "exit reason 18"}]})
    assert not schema.is_valid({name: found[name] for name in found if name != "deviations"})
