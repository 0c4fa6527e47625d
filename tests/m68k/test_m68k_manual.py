"""The 68000 and the 68010 by the numbers of Motorola's manuals, worked out by hand from their pages.

User's Manual: section 6 (exceptions, vector table 6-2, stack frames).  Reference Manual: the instructions' pages.
"""

from __future__ import annotations

from typing import Any

import pytest

from popek.architectures.m68k.machine import build
from popek.architectures.m68k.operands import encode
from popek.architectures.m68k.state import M68k
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word

MACHINE = build()
M68000, M68010 = 0, 1
USER, SUPERVISOR = 0x0000, 0x2000
X, N, Z, V, C = 16, 8, 4, 2, 1


def state(model: int, sr: int, storage: dict[int, int] | None = None, **given: int) -> M68k:
    """A state with PC 1000, the stack in use at 2000, the other at 3000; storage as words by even address."""
    made = M68k.reset().with_changes(
        {"pc": 0x1000, "sp": 0x2000, "other_sp": 0x3000, "m68010": model, **given}
    )
    made.sr = sr
    cells = {address >> 1: value for address, value in (storage or {}).items()}
    made.memory = Memory(23, 16, cells)
    return made


def step(before: M68k, form: str, **operands: int) -> Any:
    """One step; an operand is named by its kind, with `_` where there is no letter."""
    instruction = MACHINE.instructions[form]
    names = list(instruction.widths)
    assert len(names) == len(operands), names
    given = dict(zip(names, operands.values(), strict=True))
    return MACHINE.step(instruction, before, {n: Word(w, given[n]) for n, w in instruction.widths.items()})


def storage(after: M68k, address: int) -> int:
    return int(after.memory.load(Word(23, address >> 1)))


# -- MOVE from SR: what the two processors differ in (Reference Manual, MOVE from SR) --------------


@pytest.mark.parametrize(
    ("model", "sr", "traps"),
    [(M68000, USER, None), (M68000, SUPERVISOR, None), (M68010, USER, 8), (M68010, SUPERVISOR, None)],
)
def test_move_from_sr(model: int, sr: int, traps: int | None) -> None:
    ends = step(state(model, sr | 0x8515, d0=0xFFFF0000), "MOVE SR, Dn", Dn=0)
    if traps is None:
        assert isinstance(ends, Next)
        assert int(ends.state.d[Word(3, 0)]) == 0xFFFF0000 | sr | 0x8515
    else:
        assert isinstance(ends, Trap)
        assert ends.vector.number == traps


# Forms, operands, and the vector in user state on a 68000 and on a 68010 (User's Manual, sections 6.3.5 and 6.3.6; the
# pages of the instructions); None: it runs.
PRIVILEGE = [
    ("MOVE Dn, SR", (0,), 8, 8),
    ("MOVE Dn, CCR", (0,), None, None),
    ("MOVE CCR, Dn", (0,), 4, None),
    ("ANDI #w, SR", (0,), 8, 8),
    ("ORI #w, SR", (0,), 8, 8),
    ("EORI #w, SR", (0,), 8, 8),
    ("ANDI #b, CCR", (0,), None, None),
    ("ORI #b, CCR", (0,), None, None),
    ("EORI #b, CCR", (0,), None, None),
    ("MOVE USP, An", (0,), 8, 8),
    ("MOVE An, USP", (0,), 8, 8),
    ("RESET", (), 8, 8),
    ("STOP #w", (0x2700,), 8, 8),
    ("RTE", (), 8, 8),
    ("RTR", (), None, None),
    ("RTD #w", (0,), 4, None),
    ("MOVEC VBR, Rn", (0,), 4, 8),
    ("MOVEC Rn, VBR", (0,), 4, 8),
    ("MOVEC SFC, Rn", (0,), 4, 8),
    ("MOVEC Rn, DFC", (0,), 4, 8),
    ("MOVEC USP, Rn", (0,), 4, 8),
    ("MOVEC Rc, Rn", (0x802, 0), 4, 8),
    ("MOVES.W (An), Rn", (0, 0), 4, 8),
    ("MOVES.L Rn, (An)", (0, 0), 4, 8),
    ("ILLEGAL", (), 4, 4),
    ("BKPT #q", (0,), 4, 4),
    ("LINE 1010, line", (0,), 10, 10),
    ("LINE 1111, line", (0,), 11, 11),
    ("TRAP #t", (0,), 32, 32),
    ("TRAP #t", (15,), 47, 47),
    ("NOP", (), None, None),
]


@pytest.mark.parametrize(("form", "operands", "first", "second"), PRIVILEGE)
def test_what_traps_in_user_state(
    form: str, operands: tuple[int, ...], first: int | None, second: int | None
) -> None:
    for model, vector in ((M68000, first), (M68010, second)):
        ends = step(state(model, USER), form, **{str(i): n for i, n in enumerate(operands)})
        assert (ends.vector.number if isinstance(ends, Trap) else None) == vector, (form, model)


@pytest.mark.parametrize(
    ("form", "operands", "model", "vector"),
    [
        ("MOVEC Rc, Rn", (0x802, 0), M68010, 4),
        ("MOVEC VBR, Rn", (0,), M68000, 4),
        ("MOVE CCR, Dn", (0,), M68000, 4),
    ],
)
def test_what_does_not_exist_is_illegal_in_supervisor_state(
    form: str, operands: tuple[int, ...], model: int, vector: int
) -> None:
    ends = step(state(model, SUPERVISOR), form, **{str(i): n for i, n in enumerate(operands)})
    assert isinstance(ends, Trap)
    assert ends.vector.number == vector


# -- exceptions (User's Manual, sections 6.2 and 6.3) ---------------------------------------------


def test_an_exception_of_the_68000_pushes_six_bytes_and_reads_the_vector_at_0() -> None:
    before = state(M68000, 0x8704 & ~SUPERVISOR, {0x80: 0x0001, 0x82: 0x2345}, vbr=0)
    after = MACHINE.deliver(before, step(before, "TRAP #t", t=0))
    assert (int(after.pc), int(after.sr.value)) == (0x12345, 0x2704)  # S set, T cleared, the mask stays
    assert (int(after.sp), int(after.other_sp)) == (0x3000 - 6, 0x2000)
    assert [storage(after, 0x2FFA + i) for i in (0, 2, 4)] == [0x8704, 0x0000, 0x1002]  # SR, PC of the next


def test_an_exception_of_the_68010_has_a_format_word_and_a_vector_base() -> None:
    before = state(M68010, USER, {0x4020: 0x0000, 0x4022: 0x5678}, vbr=0x4000)
    after = MACHINE.deliver(before, step(before, "MOVE SR, Dn", Dn=0))
    assert (int(after.pc), int(after.sp)) == (0x5678, 0x3000 - 8)
    # A privilege violation: PC of the instruction; format 0, offset 20.
    assert [storage(after, 0x2FF8 + i) for i in (0, 2, 4, 6)] == [0, 0, 0x1000, 0x0020]


def test_a_bus_error_of_the_68000_pushes_seven_words() -> None:
    before = state(M68000, USER, {0x8: 0, 0xA: 0x4444}, a0=0x00123456, bound=1, ahead=2)
    ends = step(before, "MOVE.W (An), Dn", An=0, Dn=0)
    assert isinstance(ends, Trap)
    assert (ends.vector.number, ends.memory) == (2, True)
    after = MACHINE.deliver(before, ends)
    assert int(after.sp) == 0x3000 - 14
    # Access word, address, instruction, SR, PC two words ahead.
    assert [storage(after, 0x2FF2 + i) for i in (2, 4, 8, 10, 12)] == [0x0012, 0x3456, 0, 0, 0x1004]


def test_a_bus_error_of_the_68010_has_29_words_and_format_8() -> None:
    before = state(M68010, USER, {0x8: 0, 0xA: 0x4444}, a0=0x00123456, bound=1)
    after = MACHINE.deliver(before, step(before, "MOVE.W (An), Dn", An=0, Dn=0))
    assert int(after.sp) == 0x3000 - 58
    assert storage(after, 0x3000 - 58 + 6) == 0x8008
    assert [storage(after, 0x3000 - 58 + i) for i in (10, 12)] == [0x0012, 0x3456]


@pytest.mark.parametrize(
    ("form", "odd"), [("MOVE.W (An), Dn", 3), ("MOVE.L (An), Dn", 3), ("MOVE.B (An), Dn", None)]
)
def test_an_odd_address_is_an_error_for_words_and_longwords(form: str, odd: int | None) -> None:
    ends = step(state(M68000, USER, a0=0x501), form, An=0, Dn=0)
    assert (ends.vector.number if isinstance(ends, Trap) else None) == odd


def test_rte_of_the_68000_pops_six_bytes_and_of_the_68010_eight() -> None:
    frame = {0x2000: 0x0015, 0x2002: 0x0004, 0x2004: 0x5678, 0x2006: 0x0008}
    for model, other in ((M68000, 0x2006), (M68010, 0x2008)):
        after = step(state(model, SUPERVISOR, frame), "RTE").state
        assert (int(after.pc), int(after.sr.value)) == (0x45678, 0x0015)
        assert (int(after.sp), int(after.other_sp)) == (0x3000, other)  # in user state now


def test_rte_of_a_format_that_is_none_is_a_format_error() -> None:
    ends = step(state(M68010, SUPERVISOR, {0x2006: 0x3000}), "RTE")
    assert isinstance(ends, Trap)
    assert ends.vector.number == 14


@pytest.mark.parametrize(("level", "mask", "taken"), [(3, 2, 1), (3, 3, 0), (7, 7, 1), (1, 0, 1)])
def test_interrupts_above_the_mask_and_level_7_always(level: int, mask: int, taken: int) -> None:
    (interrupt,) = MACHINE.interruptions
    before, given = state(M68000, mask << 8, {(24 + level) * 4 + 2: 0x7000}), {"level": Word(3, level)}
    assert int(interrupt.takes(before, given)) == taken
    after = interrupt.enter(before, given)
    assert (int(after.pc), int(after.sr.value)) == (0x7000, SUPERVISOR | level << 8)


def test_a_change_of_s_changes_the_stack() -> None:
    after = step(state(M68000, SUPERVISOR), "ANDI #w, SR", w=0x071F).state
    assert (int(after.sp), int(after.other_sp), int(after.sr.s)) == (0x3000, 0x2000, 0)


def test_movec_reads_three_bits_with_zeros_and_writes_them() -> None:
    after = step(state(M68010, SUPERVISOR, sfc=5, d3=0xFFFFFFFF), "MOVEC SFC, Rn", Rn=3).state
    assert int(after.d[Word(3, 3)]) == 5
    after = step(state(M68010, SUPERVISOR, a2=0xFFFFFFFE), "MOVEC Rn, DFC", Rn=10).state
    assert int(after.dfc) == 6


def test_moves_reads_the_users_space() -> None:
    before = state(M68010, SUPERVISOR, {0x600: 0xBEEF, 0x400: 0x1111}, a0=0x400, sfc=1, other_base=1)
    after = step(before, "MOVES.W (An), Rn", An=0, Rn=9).state  # into A1, sign-extended
    assert int(after.a[Word(3, 1)]) == 0xFFFFBEEF


# -- what programs compute: form, operands, before, and what is after (Reference Manual) -----------

COMPUTED: list[tuple[str, tuple[int, ...], dict[str, int], int, dict[str, int], int]] = [
    ("ADD.B Dn, Dn", (0, 1), {"d0": 0x7F, "d1": 0xABCD0001}, 0, {"d1": 0xABCD0080}, N | V),
    ("ADD.B Dn, Dn", (0, 1), {"d0": 0xFF, "d1": 0x01}, 0, {"d1": 0x00}, X | Z | C),
    ("SUB.W Dn, Dn", (0, 1), {"d0": 0x0001, "d1": 0x8000}, 0, {"d1": 0x7FFF}, V),
    ("SUB.W Dn, Dn", (0, 1), {"d0": 0x0001, "d1": 0x0000}, 0, {"d1": 0xFFFF}, X | N | C),
    ("CMP.L Dn, Dn", (0, 1), {"d0": 1, "d1": 0}, X, {"d1": 0}, X | N | C),
    ("ADDX.B Dn, Dn", (0, 1), {"d0": 0xFF, "d1": 0}, X | Z, {"d1": 0}, X | Z | C),
    ("ADDX.B Dn, Dn", (0, 1), {"d0": 0xFF, "d1": 0}, X, {"d1": 0}, X | C),  # Z is not set
    ("SUBX.B Dn, Dn", (0, 1), {"d0": 0, "d1": 0}, X, {"d1": 0xFF}, X | N | C),
    ("NEG.B Dn", (0,), {"d0": 0x80}, 0, {"d0": 0x80}, X | N | V | C),
    ("NEGX.W Dn", (0,), {"d0": 0}, Z, {"d0": 0}, Z),
    ("CLR.W Dn", (0,), {"d0": 0xFFFFFFFF}, X | N | V | C, {"d0": 0xFFFF0000}, X | Z),
    ("NOT.L Dn", (0,), {"d0": 0}, 0, {"d0": 0xFFFFFFFF}, N),
    ("TST.B Dn", (0,), {"d0": 0x180}, V | C, {"d0": 0x180}, N),
    ("MOVEQ #n, Dn", (0x80, 0), {}, X, {"d0": 0xFFFFFF80}, X | N),
    ("MOVEA.W Dn, An", (0, 1), {"d0": 0x8000}, Z, {"a1": 0xFFFF8000}, Z),
    ("ADDQ.W #q, An", (0, 1), {"a1": 0xFFFFFFFF}, Z, {"a1": 7}, Z),
    ("SUBQ.B #q, Dn", (1, 0), {"d0": 0}, 0, {"d0": 0xFF}, X | N | C),
    ("ADDA.W Dn, An", (0, 1), {"d0": 0xFFFF, "a1": 5}, C, {"a1": 4}, C),
    ("EXT.W Dn", (0,), {"d0": 0x12345680}, C, {"d0": 0x1234FF80}, N),
    ("EXT.L Dn", (0,), {"d0": 0x12347FFF}, 0, {"d0": 0x00007FFF}, 0),
    ("SWAP Dn", (0,), {"d0": 0x8000FFFF}, C, {"d0": 0xFFFF8000}, N),
    ("EXG Dn, An", (0, 7), {"d0": 1, "sp": 2}, Z, {"d0": 2, "sp": 1}, Z),
    ("MULU Dn, Dn", (0, 1), {"d0": 0xFFFF, "d1": 0xFFFF}, C, {"d1": 0xFFFE0001}, N),
    ("MULS Dn, Dn", (0, 1), {"d0": 0xFFFF, "d1": 2}, 0, {"d1": 0xFFFFFFFE}, N),
    ("DIVU Dn, Dn", (0, 1), {"d0": 7, "d1": 100}, C, {"d1": 0x0002000E}, 0),
    ("DIVS Dn, Dn", (0, 1), {"d0": 0xFFF9, "d1": 100}, C, {"d1": 0x0002FFF2}, N),  # 100 = -14 x -7 + 2
    (
        "DIVS Dn, Dn",
        (0, 1),
        {"d0": 7, "d1": 0xFFFFFF9C},
        0,
        {"d1": 0xFFFEFFF2},
        N,
    ),  # the remainder is negative
    ("ABCD Dn, Dn", (0, 1), {"d0": 0x45, "d1": 0x67}, X, {"d1": 0x13}, X | C),
    ("SBCD Dn, Dn", (0, 1), {"d0": 0x01, "d1": 0x00}, Z, {"d1": 0x99}, X | C),
    ("NBCD Dn", (0,), {"d0": 0x01}, 0, {"d0": 0x99}, X | C),
    ("ASL.B Dn, Dn", (0, 1), {"d0": 1, "d1": 0x40}, 0, {"d1": 0x80}, N | V),
    ("ASL.B #q, Dn", (0, 1), {"d1": 0x01}, 0, {"d1": 0x00}, X | Z | V | C),  # by 8
    ("ASR.W Dn, Dn", (0, 1), {"d0": 63, "d1": 0x8000}, 0, {"d1": 0xFFFF}, X | N | C),
    ("LSR.L Dn, Dn", (0, 1), {"d0": 32, "d1": 0x80000000}, 0, {"d1": 0}, X | Z | C),
    ("LSR.L Dn, Dn", (0, 1), {"d0": 33, "d1": 0xFFFFFFFF}, 0, {"d1": 0}, Z),
    ("LSL.B Dn, Dn", (0, 1), {"d0": 64, "d1": 0x81}, X | C, {"d1": 0x81}, X | N),  # a count of 0: X stays
    ("ROL.B #q, Dn", (1, 1), {"d1": 0x81}, X, {"d1": 0x03}, X | C),
    ("ROR.W #q, Dn", (1, 1), {"d1": 0x0001}, 0, {"d1": 0x8000}, N | C),
    ("ROXL.B #q, Dn", (1, 1), {"d1": 0x80}, X, {"d1": 0x01}, X | C),
    ("ROXR.B #q, Dn", (1, 1), {"d1": 0x01}, 0, {"d1": 0x00}, X | Z | C),
    ("ROXL.W Dn, Dn", (0, 1), {"d0": 17, "d1": 0x1234}, X, {"d1": 0x1234}, X | C),  # all the way round
    ("BTST Dn, Dn", (0, 1), {"d0": 33, "d1": 2}, Z, {"d1": 2}, 0),  # modulo 32
    ("BSET #b, Dn", (31, 1), {"d1": 0}, 0, {"d1": 0x80000000}, Z),
    ("TAS Dn", (0,), {"d0": 0}, C, {"d0": 0x80}, Z),
    ("SNE Dn", (0,), {"d0": 0x1234}, Z, {"d0": 0x1200}, Z),
    ("DBF Dn, d16", (0, 0x10), {"d0": 0x10000}, 0, {"d0": 0x1FFFF, "pc": 0x1004}, 0),  # -1 is reached
    ("DBF Dn, d16", (0, 0x10), {"d0": 1}, 0, {"d0": 0, "pc": 0x1012}, 0),
    ("DBEQ Dn, d16", (0, 0x10), {"d0": 1}, Z, {"d0": 1, "pc": 0x1004}, Z),
    ("BRA.B d8", (0xFE,), {}, 0, {"pc": 0x1000}, 0),
    ("BHI.W d16", (0x7FFE,), {}, 0, {"pc": 0x9000}, 0),
    ("BHI.W d16", (0x7FFE,), {}, C, {"pc": 0x1004}, C),
    (
        "LEA d8(An+Xn), An",
        (3, 0, 1, 0, 0xF0, 4),
        {"a3": 0x5000, "d1": 0x1FFFF},
        0,
        {"a4": 0x4FEF},
        0,
    ),  # D1.W = -1
    ("LEA d16(PC), An", (0x100, 4), {}, 0, {"a4": 0x1102, "pc": 0x1004}, 0),
]


@pytest.mark.parametrize(("form", "operands", "before", "codes", "after", "then"), COMPUTED)
def test_what_is_computed(
    form: str, operands: tuple[int, ...], before: dict[str, int], codes: int, after: dict[str, int], then: int
) -> None:
    ends = step(state(M68000, codes, **before), form, **{str(i): n for i, n in enumerate(operands)})
    assert isinstance(ends, Next)
    assert {name: int(ends.state[name]) for name in after} == after
    undefined = N | V if "BCD" in form else 0
    assert int(ends.state.sr.value) & ~undefined == then & ~undefined, form


def test_a_byte_moves_a7_by_two() -> None:
    after = step(state(M68000, USER, {0x2000: 0xAB00}), "MOVE.B (An)+, Dn", An=7, Dn=0).state
    assert (int(after.sp), int(after.d[Word(3, 0)])) == (0x2002, 0xAB)


def test_link_and_unlk() -> None:
    linked = step(state(M68000, USER, a6=0x77), "LINK Am, #w", Am=6, w=0xFFF0).state
    assert (int(linked.a[Word(3, 6)]), int(linked.sp), storage(linked, 0x1FFE)) == (0x1FFC, 0x1FEC, 0x77)
    undone = step(linked, "UNLK Am", Am=6).state
    assert (int(undone.a[Word(3, 6)]), int(undone.sp)) == (0x77, 0x2000)


def test_division_by_zero_and_chk_trap_behind_the_instruction() -> None:
    ends = step(state(M68000, USER), "DIVU Dn, Dn", a=0, b=1)
    assert (ends.vector.number, int(ends.state.pc)) == (5, 0x1002)
    ends = step(state(M68000, USER, d0=5, d1=6), "CHK Dn, Dn", a=0, b=1)
    assert (ends.vector.number, int(ends.state.sr.n)) == (6, 0)
    ends = step(state(M68000, USER, d0=5, d1=0xFFFF), "CHK Dn, Dn", a=0, b=1)
    assert (ends.vector.number, int(ends.state.sr.n)) == (6, 1)
    assert isinstance(step(state(M68000, USER, d0=5, d1=5), "CHK Dn, Dn", a=0, b=1), Next)


# -- words (Reference Manual, the instructions' formats) -------------------------------------------


@pytest.mark.parametrize(
    ("form", "operands", "words"),
    [
        ("MOVE SR, Dn", (5,), (0x40C5,)),
        ("MOVE Dn, SR", (5,), (0x46C5,)),
        ("MOVE CCR, (An)+", (3,), (0x42DB,)),
        ("MOVE #w, CCR", (0x1F,), (0x44FC, 0x001F)),
        ("MOVE.L d16(An), Dn", (8, 2, 1), (0x222A, 0x0008)),
        ("MOVE.B Dn, xxx.L", (1, 0x123456), (0x13C1, 0x0012, 0x3456)),
        ("MOVE.W (An)+, -(An)", (2, 3), (0x371A,)),
        ("ORI #w, SR", (0x0700,), (0x007C, 0x0700)),
        ("MOVEC VBR, Rn", (9,), (0x4E7A, 0x9801)),
        ("MOVEC Rn, USP", (0,), (0x4E7B, 0x0800)),
        ("MOVES.L Rn, (An)", (15, 2), (0x0E92, 0xF800)),
        ("MOVES.B (An), Rn", (2, 15), (0x0E12, 0xF000)),
        ("LINK Am, #w", (6, 0xFFF8), (0x4E56, 0xFFF8)),
        ("TRAP #t", (15,), (0x4E4F,)),
        ("STOP #w", (0x2000,), (0x4E72, 0x2000)),
        ("JSR d8(PC+Xn)", (1, 2, 1, 4), (0x4EBB, 0xA804)),
        ("DBNE Dn, d16", (1, 0xFFFC), (0x56C9, 0xFFFC)),
        ("ASL.W #q, Dn", (0, 1), (0xE141,)),
        ("ROXR.L Dn, Dn", (2, 1), (0xE4B1,)),
        ("MOVEP.L d16(An), Dn", (4, 2, 1), (0x034A, 0x0004)),
        ("ADDX.L -(An), -(An)", (1, 2), (0xD589,)),
        ("CMPM.B (An)+, (An)+", (1, 2), (0xB509,)),
    ],
)
def test_words(form: str, operands: tuple[int, ...], words: tuple[int, ...]) -> None:
    instruction = MACHINE.instructions[form]
    assert encode(instruction, dict(zip(instruction.widths, operands, strict=True))) == words
