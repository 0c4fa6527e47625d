"""Faults of far transfers and interrupts in the manual's order (SDM vol. 2, Operation of CALL, INT n, RET, IRET)."""

from __future__ import annotations

import pytest
from ia32_steps import MACHINE, after, at_level, fault, peek, poke

from popek.architectures.ia32.state import Ia32

GDT, IDT, TSS, STACK, INNER = 0x10000, 0x12000, 0x14000, 0x25000, 0x29000
CODE, DATA = 0x1B, 0x13  # types with S and the accessed bit
CODE_1, DATA_1, CODE_3, DATA_3, ABSENT, SHORT_1, SHORT_3, GATE = range(0x18, 0x58, 8)
VECTOR = 0x21


def descriptor(kind: int, dpl: int, *, limit: int = 0xFFFFFFFF, present: bool = True) -> int:
    """A 32-bit segment at 0."""
    whole, high = (limit >> 12, 0xC) if limit > 0xFFFFF else (limit, 0x4)
    access = kind | dpl << 5 | present << 7
    return whole & 0xFFFF | access << 40 | (whole >> 16) << 48 | high << 52


def gate(selector: int, offset: int, kind: int, dpl: int, count: int = 0) -> int:
    """A present gate of 32 or 16 bits."""
    high = offset & 0xFFFF0000 | 0x8000 | dpl << 13 | kind << 8 | count
    return high << 32 | selector << 16 | offset & 0xFFFF


def world(level: int, **changes: int) -> Ia32:
    """A state with descriptors of every level, inner stacks, and interrupt gates to code that keeps the level."""
    state = at_level(level, esp=STACK, gdtr__base=GDT, idtr__base=IDT, tr__base=TSS, **changes)
    segments = {
        8: descriptor(CODE, 0), 0x10: descriptor(DATA, 0), CODE_1: descriptor(CODE, 1),
        DATA_1: descriptor(DATA, 1), CODE_3: descriptor(CODE, 3), DATA_3: descriptor(DATA, 3),
        ABSENT: descriptor(DATA, 3, present=False), SHORT_1: descriptor(CODE, 1, limit=0xFFF),
        SHORT_3: descriptor(CODE, 3, limit=0xFFF),
    }  # fmt: skip
    for selector, raw in segments.items():
        state = poke(state, GDT + selector, raw, 8)
    for ring, selector in ((0, 0x10), (1, DATA_1 | 1)):
        state = poke(state, TSS + 4 + 8 * ring, selector << 32 | INNER, 8)
    for vector in (1, 3, VECTOR):
        state = poke(state, IDT + 8 * vector, gate(CODE_3, 0x8000, 14, 3), 8)
    return state


def checking_alignment(**changes: int) -> Ia32:
    """Level 3 with alignment checks and a stack pointer that is 2 modulo 4."""
    return world(3, cr0=0x11 | 1 << 18, eflags=2 | 1 << 18, **changes).with_changes({"esp": STACK - 2})


def calling(state: Ia32, offset: int, selector: int = CODE_1, count: int = 0) -> Ia32:
    """The state with a call gate to level 1."""
    return poke(state, GDT + GATE, gate(selector, offset, 12, 3, count), 8)


def call(state: Ia32) -> tuple[str, int | None]:
    return fault("CALL ptr16:32", state, ptr16_32_selector=GATE)


# -- stacks of other levels ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["RETF", "IRETD", "o16 RETF", "IRET"])
def test_a_return_to_an_absent_stack_segment_is_a_stack_fault(form: str) -> None:
    size = 2 if form in ("o16 RETF", "IRET") else 4
    frame = [0x8000, CODE_3 | 3, *([2] if "IRET" in form else []), 0x6000, ABSENT | 3]
    state = world(0)
    for number, word in enumerate(frame):
        state = poke(state, STACK + size * number, word, size)
    assert fault(form, state) == ("#SS", ABSENT)


@pytest.mark.parametrize(
    ("kind", "limit", "vector"), [(0x8B, 0x11, None), (0x8B, 0x10, "#TS"), (0x83, 9, None), (0x83, 8, "#TS")]
)
def test_the_tss_must_reach_the_last_byte_of_the_inner_stacks_selector(
    kind: int, limit: int, vector: str | None
) -> None:
    state = calling(world(3), 0x8000).with_changes({"tr.limit": limit, "tr.rights": kind})
    if kind == 0x83:
        state = poke(state, TSS + 6, (DATA_1 | 1) << 16 | 0x9000, 4)
    if vector is None:
        entered = after("CALL ptr16:32", state, ptr16_32_selector=GATE)
        assert int(entered.ss.selector.value) == DATA_1 | 1
        assert int(entered.gpr[4]) == (INNER if kind == 0x8B else 0x9000) - 16
    else:
        assert call(state) == (vector, 0x18)


def test_returning_outward_makes_the_selector_of_a_null_segment_0() -> None:
    state = world(0, ds__selector=3, ds__rights=0x10000, fs__selector=0, fs__rights=0x10000)
    for number, word in enumerate((0x8000, CODE_3 | 3, 0x6000, DATA_3 | 3)):
        state = poke(state, STACK + 4 * number, word, 4)
    returned = after("RETF", state)
    assert (int(returned.ds.selector.value), int(returned.es.selector.value), int(returned.cpl)) == (0, 0, 3)


# -- room, target, pushes -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["CALL ptr16:32", "INT imm8"])
def test_on_the_same_stack_room_comes_before_the_target_and_the_target_before_the_pushes(form: str) -> None:
    beyond, inside = 0x1000, 0xFFF
    full = {"ss.limit": STACK + 0x100, "ss.rights": 0xC0F7}  # expand-down: nothing below

    def outcome(state: Ia32, offset: int) -> tuple[str, int | None]:
        if form == "INT imm8":
            return fault(form, poke(state, IDT + 8 * VECTOR, gate(SHORT_3, offset, 14, 3), 8), imm8=VECTOR)
        return fault(form, state, ptr16_32_selector=SHORT_3, ptr16_32_offset=offset)

    assert outcome(checking_alignment().with_changes(full), beyond) == ("#SS", 0)
    assert outcome(checking_alignment(), beyond) == ("#GP", 0)
    assert outcome(checking_alignment(), inside) == ("#AC", 0)


def test_through_a_gate_inward_room_comes_before_the_target_and_the_target_before_the_parameters() -> None:
    unreadable = {"ss.limit": STACK + 1, "esp": STACK}
    small = calling(world(3), 0x1000, SHORT_1, count=2).with_changes(unreadable)
    nothing_below = descriptor(0x17, 1, limit=INNER)  # expand-down
    assert call(poke(small, GDT + DATA_1, nothing_below, 8)) == ("#SS", DATA_1)
    assert call(small) == ("#GP", 0)
    assert call(calling(small, 0xFFF, SHORT_1, count=2)) == ("#SS", 0)
    readable = small.with_changes({"ss.limit": 0xFFFFFFFF})
    assert int(after("CALL ptr16:32", calling(readable, 0xFFF, SHORT_1), ptr16_32_selector=GATE).eip) == 0xFFF


def test_parameters_are_not_copied_to_where_the_inner_level_may_not_write() -> None:
    state = calling(world(3), 0x8000, count=2)
    for number, word in enumerate((0x11111111, 0x22222222)):
        state = poke(state, STACK + 4 * number, word, 4)
    entered = after("CALL ptr16:32", state, ptr16_32_selector=GATE)
    assert [peek(entered, INNER - 16 + 4 * i, 4) for i in range(2)] == [0x11111111, 0x22222222]
    for kind in ("read_only", "reserved"):
        guarded = state.with_changes({f"{kind}.base": INNER - 16, f"{kind}.size": 4})
        assert call(guarded) == ("#PF", 3)
    assert MACHINE.invariant(entered).value == 1


def test_only_of_int1_a_fault_on_the_way_is_of_an_external_event() -> None:
    assert fault("INT1", checking_alignment()) == ("#AC", 1)
    assert fault("INT3", checking_alignment()) == ("#AC", 0)
    absent = world(3)
    for vector in (1, 3):
        absent = poke(absent, IDT + 8 * vector + 5, 0x6E, 1)
    assert fault("INT1", absent) == ("#NP", 8 + 3)
    assert fault("INT3", absent) == ("#NP", 3 * 8 + 2)
