"""Shifts, fields, extensions, counts, comparisons: rows worked out by hand from the pages of volume 3."""

from __future__ import annotations

import pytest

from popek.architectures.ia64.state import Ia64

from .machine_room import completed, gr, ia64, nat, put, trapped

ONES = (1 << 64) - 1
A = 0x8899_AABB_CCDD_EEFF

ROWS = [
    ("add r = r, r", (ONES, 2), (), 1), ("sub r = r, r", (1, 2), (), ONES),
    ("and r = r, r", (0b1100, 0b1010), (), 0b1000),
    ("or r = r, r", (0b1100, 0b1010), (), 0b1110), ("xor r = r, r", (0b1100, 0b1010), (), 0b0110),
    ("cmp.eq r = r, r", (A, A), (), 1), ("cmp.ltu r = r, r", (0, ONES), (), 1), ("cmp.ltu r = r, r", (7, 7), (), 0),
    ("andcm r = r, r", (0b1100, 0b1010), (), 0b0100),
    ("addp4 r = r, r", (0xFFFF_FFFF, 0x8000_0001), (), 0x4000_0000_8000_0000),  # bits 31:30 of the second
    ("addp4 r = r, r", (0x4000_0000, 0xF_4000_0000), (), 0x2000_0000_8000_0000),
    ("shladdp4 r = r, imm2, r", (1, 0xC000_0000), (0,), 0x6000_0000_C000_0002),
    ("shladd r = r, imm2, r", (3, 5), (0,), 11),
    ("shladd r = r, imm2, r", (3, 5), (3,), 53),
    ("shladd r = r, imm2, r", (1 << 61, 1), (3,), 1),
    ("cmp.lt r = r, r", (ONES, 0), (), 1), ("cmp.lt r = r, r", (0, ONES), (), 0), ("cmp.lt r = r, r", (7, 7), (), 0),
    ("cmp4.eq r = r, r", (A, 0xCCDD_EEFF), (), 1), ("cmp4.eq r = r, r", (A, A ^ 1), (), 0),
    ("cmp4.lt r = r, r", (1 << 32, 1), (), 1),
    ("cmp4.lt r = r, r", (A, 0), (), 1), ("cmp4.lt r = r, r", (0, A), (), 0), ("cmp4.ltu r = r, r", (0, A), (), 1),
    ("cmp4.ltu r = r, r", (1 << 32, 0), (), 0),
    ("shl r = r, r", (A, 4), (), 0x899A_ABBC_CDDE_EFF0), ("shl r = r, r", (A, 64), (), 0),
    ("shl r = r, r", (A, 1 << 63), (), 0), ("shr r = r, r", (A, 4), (), 0xF889_9AAB_BCCD_DEEF),
    ("shr r = r, r", (A, 64), (), ONES), ("shr r = r, r", (A, ONES), (), ONES), ("shr r = r, r", (A >> 1, 200), (), 0),
    ("shr.u r = r, r", (A, 4), (), 0x0889_9AAB_BCCD_DEEF), ("shr.u r = r, r", (A, 64), (), 0),
    ("clz r = r", (0,), (), 64), ("clz r = r", (1,), (), 63), ("clz r = r", (A,), (), 0),
    ("popcnt r = r", (0,), (), 0), ("popcnt r = r", (ONES,), (), 64), ("popcnt r = r", (0x8001,), (), 2),
    ("shrp r = r, r, pos6", (A, 5), (0,), 5), ("shrp r = r, r, pos6", (1, 0), (1,), 1 << 63),
    ("shrp r = r, r, pos6", (A, A), (8,), 0xFF88_99AA_BBCC_DDEE), ("shrp r = r, r, pos6", (ONES, 0), (63,), ONES - 1),
    ("sxt1 r = r", (0x180,), (), ONES - 0x7F), ("sxt2 r = r", (0x1_7FFF,), (), 0x7FFF),
    ("sxt4 r = r", (A,), (), 0xFFFF_FFFF_CCDD_EEFF),
    ("zxt1 r = r", (A,), (), 0xFF), ("zxt2 r = r", (A,), (), 0xEEFF), ("zxt4 r = r", (A,), (), 0xCCDD_EEFF),
    ("czx1.l r = r", (0x1100_2200_3344_5566,), (), 1), ("czx1.r r = r", (0x1100_2200_3344_5566,), (), 4),
    ("czx2.l r = r", (0x1111_0000_0000_2222,), (), 1), ("czx2.r r = r", (0x1111_0000_0000_2222,), (), 1),
    ("czx1.l r = r", (A,), (), 8), ("czx2.r r = r", (A,), (), 4), ("czx1.r r = r", (0,), (), 0),
    ("extr r = r, pos6, len6", (A,), (4, 7), 0xFFFF_FFFF_FFFF_FFEF), ("extr.u r = r, pos6, len6", (A,), (4, 7), 0xEF),
    ("extr r = r, pos6, len6", (A,), (4, 8), 0xEF), ("extr.u r = r, pos6, len6", (A,), (0, 63), A),
    ("extr r = r, pos6, len6", (A,), (60, 15), ONES - 7), ("extr.u r = r, pos6, len6", (A,), (60, 15), 8),
    ("dep.z r = r, pos6, len6", (A,), (8, 7), 0xFF00), ("dep.z r = r, pos6, len6", (ONES,), (60, 63), 0xF << 60),
    ("dep r = r, r, pos6, len4", (0x5, A), (8, 3), 0x8899_AABB_CCDD_E5FF),
    ("dep r = r, r, pos6, len4", (0, ONES), (56, 15), ONES >> 8),
    ("tbit r = r, pos6", (A,), (63,), 1), ("tbit r = r, pos6", (A,), (62,), 0), ("tbit r = r, pos6", (A,), (0,), 1),
]  # fmt: skip


@pytest.mark.parametrize(("form", "registers", "rest", "result"), ROWS)
def test_what_comes_of_registers(form, registers, rest, result) -> None:
    start = Ia64.reset(psr__cpl=3)
    for number, value in enumerate(registers, 2):
        start = put(start, number, value)
    values, immediates = iter((1, 2, 3)), iter(rest)
    operands = [
        next(values) if o.kind.name == "r" else next(immediates) for o in ia64().instructions[form].operands
    ]
    after = completed(form, start, *operands)
    assert (hex(gr(after, 1)), nat(after, 1)) == (hex(result), 0)
    for number, value in enumerate(registers, 2):
        assert nat(completed(form, put(start, number, value, nat=1), *operands), 1) == 1
    assert trapped(form, start, 0, *operands[1:])[0] == "Illegal Operation fault"


def test_every_form_of_the_family_has_a_row() -> None:
    module = "popek.architectures.ia64.instructions.integers"
    forms = {f for f, i in ia64().instructions.items() if i.semantics.__module__ == module}
    assert forms - {row[0] for row in ROWS} == {"movl r = imm64", "adds r = imm14, r", "tnat r = r"}
    assert gr(completed("movl r = imm64", Ia64.reset(), 1, A), 1) == A
    assert gr(completed("adds r = imm14, r", put(Ia64.reset(), 2, 5), 1, 0x3FFF, 2), 1) == 4
    assert gr(completed("tnat r = r", put(Ia64.reset(), 2, 5, nat=1), 1, 2), 1) == 1
