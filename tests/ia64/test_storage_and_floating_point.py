"""What references, semaphores, application and floating-point registers hold afterwards (SDM vols. 1 and 3)."""

from __future__ import annotations

import pytest

from popek.architectures.ia64.state import Ia64
from popek.kernel.words import Word

from .machine_room import completed, gr, ia64, nat, put, trapped

PAGE, ENTRY = 0x4000, 1 | 3 << 7 | 2 << 9 | 0x4000
BYTES = 0x8877_6655_4433_2211  # in storage 11 22 33 44 55 66 77 88, from the lowest address up
NATVAL, ONE, MINUS = 0x1FFFE << 64, 0xFFFF << 64 | 1 << 63, 1 << 81
ONES = (1 << 64) - 1


def room(**changes: int) -> Ia64:
    """r2 points to a doubleword of `BYTES` on a page that everyone may read and write; CPL 3."""
    made = Ia64.reset(**{"psr__dt": 1, "psr__cpl": 3, **changes})
    made.psr.ri = 2
    made.translations = made.translations.store(Word(52, PAGE >> 12), Word(88, ENTRY))
    made.memory = made.memory.store(Word(47, PAGE >> 3), Word(64, BYTES))
    return put(made, 2, PAGE)


def cell(state: Ia64, address: int = PAGE) -> int:
    return int(state.memory.load(Word(47, address >> 3)))


def fr(state: Ia64, number: int) -> int:
    return int(state.read_fr(Word(7, number)))


def with_fr(state: Ia64, **values: int) -> Ia64:
    new = state.copy()
    for name, value in values.items():
        new.fr = new.fr.store(Word(7, int(name[1:])), Word(82, value))
    return new


# -- bytes in storage (vol. 1, 3.2.3) -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "offset", "little", "big"),
    [
        (1, 0, 0x11, 0x11), (1, 5, 0x66, 0x66), (2, 0, 0x2211, 0x1122), (2, 6, 0x8877, 0x7788),
        (4, 0, 0x44332211, 0x11223344), (4, 4, 0x88776655, 0x55667788),
        (8, 0, BYTES, 0x1122334455667788),
    ],
)  # fmt: skip
def test_loads_take_bytes_in_the_order_of_the_user_mask(size, offset, little, big) -> None:
    for be, value in ((0, little), (1, big)):
        start = put(room(psr__be=be), 2, PAGE + offset)
        for suffix in ("", ".s"):
            after = completed(f"ld{size}{suffix} r = [r]", start, 1, 2)
            assert (gr(after, 1), nat(after, 1)) == (value, 0)


@pytest.mark.parametrize(
    ("size", "offset", "little", "big"),
    [
        (1, 3, 0x88776655_EF332211, 0x88776655_EF332211), (2, 2, 0x88776655_CDEF2211, 0x88776655_EFCD2211),
        (4, 4, 0x89ABCDEF_44332211, 0xEFCDAB89_44332211), (8, 0, 0x0123456789ABCDEF, 0xEFCDAB8967452301),
    ],
)  # fmt: skip
def test_stores_change_their_bytes_alone(size, offset, little, big) -> None:
    for be, value in ((0, little), (1, big)):
        start = put(put(room(psr__be=be), 2, PAGE + offset), 3, 0x0123456789ABCDEF)
        assert cell(completed(f"st{size} [r] = r", start, 2, 3)) == value
        exchanged = completed(f"xchg{size} r = [r], r", start, 1, 2, 3)
        assert cell(exchanged) == value
        assert gr(exchanged, 1) == gr(completed(f"ld{size} r = [r]", start, 1, 2), 1)


def test_pairs_have_their_upper_half_in_csd() -> None:
    start = put(put(room(ar__csd=7), 2, PAGE + 16), 3, 9)
    stored = completed("st16 [r] = r", start, 2, 3)
    assert (cell(stored, PAGE + 16), cell(stored, PAGE + 24)) == (9, 7)
    stored.ar.csd = Word(64, 0)
    loaded = completed("ld16 r = [r]", stored, 1, 2)
    assert (gr(loaded, 1), int(loaded.ar.csd)) == (9, 7)


def test_a_spilled_nat_comes_back_with_its_doubleword() -> None:
    start = put(put(room(), 2, PAGE + 0x18), 3, 5, nat=1)
    spilled = completed("st8.spill [r] = r", start, 2, 3)
    assert (cell(spilled, PAGE + 0x18), int(spilled.ar.unat)) == (5, 1 << 3)
    filled = completed("ld8.fill r = [r]", spilled, 1, 2)
    assert (gr(filled, 1), nat(filled, 1)) == (5, 1)
    again = completed("st8.spill [r] = r", put(spilled, 3, 6), 2, 3)
    assert int(again.ar.unat) == 0


# -- semaphores (vol. 3, cmpxchg 3:46, fetchadd 3:74) ------------------------------------------------


@pytest.mark.parametrize(
    ("size", "ccv", "stored"),
    [
        (1, 0x11, 0x88776655_443322EF), (1, 0x111, BYTES), (2, 0x2211, 0x88776655_4433CDEF),
        (4, 0x44332211, 0x88776655_89ABCDEF), (4, BYTES, BYTES), (8, BYTES, 0x0123456789ABCDEF), (8, 1, BYTES),
    ],
)  # fmt: skip
def test_the_whole_of_ccv_is_compared_with_the_zero_extended_bytes(size, ccv, stored) -> None:
    after = completed(f"cmpxchg{size} r = [r], r", put(room(ar__ccv=ccv), 3, 0x0123456789ABCDEF), 1, 2, 3)
    assert (cell(after), gr(after, 1)) == (stored, BYTES & (1 << 8 * size) - 1)


@pytest.mark.parametrize("upper", [0, 8])
def test_sixteen_bytes_change_around_the_eight_that_were_compared(upper) -> None:
    start = put(put(room(ar__csd=7), 2, PAGE + upper), 3, 9)
    start.ar.ccv = Word(64, cell(start, PAGE + upper))
    after = completed("cmp8xchg16 r = [r], r", start, 1, 2, 3)
    assert (cell(after), cell(after, PAGE + 8), gr(after, 1)) == (9, 7, cell(start, PAGE + upper))
    start.ar.ccv = Word(64, 1)
    assert cell(completed("cmp8xchg16 r = [r], r", start, 1, 2, 3)) == BYTES


@pytest.mark.parametrize(("encoded", "added"), list(enumerate((16, 8, 4, 1, -16, -8, -4, -1))))
def test_what_fetchadd_adds(encoded, added) -> None:
    eight = completed("fetchadd8 r = [r], inc3", room(), 1, 2, encoded)
    assert (cell(eight), gr(eight, 1)) == (BYTES + added, BYTES)
    four = completed("fetchadd4 r = [r], inc3", room(), 1, 2, encoded)
    assert (cell(four), gr(four, 1)) == ((BYTES >> 32 << 32) + 0x44332211 + added, 0x44332211)
    assert ia64().instructions["fetchadd8 r = [r], inc3"].assembly(
        {"operand r": 1, "operand [r]": 2, "operand inc3": encoded}
    ) == f"fetchadd8 r1 = [r2], {added}"  # fmt: skip


def test_semaphores_need_both_rights() -> None:
    start = room()
    read_only = Word(88, ENTRY & ~(7 << 9))
    start.translations = start.translations.store(Word(52, PAGE >> 12), read_only)
    completed("ld8 r = [r]", start, 1, 2)
    for form, rest in (
        ("xchg8 r = [r], r", (1, 2, 3)),
        ("cmpxchg8 r = [r], r", (1, 2, 3)),
        ("fetchadd8 r = [r], inc3", (1, 2, 0)),
    ):
        assert trapped(form, start, *rest)[0] == "Data Access Rights fault"


def test_a_prefetch_faults_only_where_it_is_told_to_and_not_under_psr_ed() -> None:
    nowhere = put(room(), 2, PAGE << 1)
    completed("lfetch [r]", nowhere, 2)
    assert trapped("lfetch.fault [r]", nowhere, 2)[0] == "Data TLB fault"
    after = completed("lfetch.fault [r]", nowhere.with_changes({"psr.ed": 1}), 2)
    assert int(after.psr.ed) == 0


# -- branches and checks -----------------------------------------------------------------------------


def test_a_counted_loop_ends_at_0() -> None:
    start = Ia64.reset(ar__lc=1)
    start.psr.ri = 2
    once = completed("br.cloop imm25", start, (1 << 25) - 2)
    assert (int(once.ip), int(once.ar.lc)) == (int(start.ip) - 32, 0)
    once.psr.ri = 2
    after = completed("br.cloop imm25", once, (1 << 25) - 2)
    assert (int(after.ip), int(after.ar.lc)) == (int(once.ip) + 16, 0)


@pytest.mark.parametrize("form", ["chk.s r, imm25", "chk.s f, imm25"])
def test_a_check_branches_on_what_is_not_a_thing(form) -> None:
    fine = with_fr(put(room(), 3, 1), f3=ONE)
    assert int(completed(form, fine, 3, 4).ip) == int(fine.ip) + 16
    bad = with_fr(put(room(), 3, 1, nat=1), f3=NATVAL)
    assert int(completed(form, bad, 3, 4).ip) == int(bad.ip) + 64


# -- application registers (vol. 1, 3.1.8) -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("lc", ONES), ("ccv", ONES), ("csd", ONES), ("unat", ONES), ("ec", 0x3F), ("bspstore", ONES - 7),
        ("rnat", ONES >> 1),
    ],
)  # fmt: skip
def test_ignored_bits_read_0(name, kept) -> None:
    for form, rest in ((f"mov ar.{name} = r", 3), (f"mov ar.{name} = imm8", 0xFF)):
        after = completed(form, put(room(), 3, ONES), rest)
        assert gr(completed(f"mov r = ar.{name}", after, 1), 1) == kept


@pytest.mark.parametrize("bit", [12, *range(58, 64)])
def test_reserved_bits_of_fpsr(bit) -> None:
    usual = 0x9804C0270033F
    assert int(completed("mov ar.fpsr = r", put(room(), 3, usual), 3).ar.fpsr) == usual
    assert (
        trapped("mov ar.fpsr = r", put(room(), 3, usual | 1 << bit), 3)[0] == "Reserved Register/Field fault"
    )


@pytest.mark.parametrize("low", [8, 21, 34, 47])
def test_a_precision_of_1_is_reserved_in_every_status_field(low) -> None:
    for precision, good in ((0, True), (1, False), (2, True), (3, True)):
        value = put(room(), 3, 0x9804C0270033F & ~(3 << low) | precision << low)
        if good:
            completed("mov ar.fpsr = r", value, 3)
        else:
            assert trapped("mov ar.fpsr = r", value, 3)[0] == "Reserved Register/Field fault"


def test_status_fields_take_the_controls_of_the_first() -> None:
    start = room(ar__fpsr=0x9804C0270033F)
    after = completed("fsetc sf, imm7, imm7", start, 2, 0x7F, 0x40)
    assert int(after.ar.fpsr) >> 32 & 0x1FFF == 0x4C  # sf0's 0x0C and td
    assert int(after.ar.fpsr) & ~(0x1FFF << 32) == 0x9804C0270033F & ~(0x1FFF << 32)
    assert (
        trapped("fsetc sf, imm7, imm7", start, 0, 0x7F, 0x40)[0] == "Reserved Register/Field fault"
    )  # sf0.td
    flagged = room(ar__fpsr=0x9804C0270033F | 0x21 << 26)  # invalid and inexact in sf1
    assert int(completed("fclrf sf", flagged, 1).ar.fpsr) == 0x9804C0270033F
    assert int(completed("fchkf sf, imm25", flagged, 1, 4).ip) == int(flagged.ip) + 64
    known = flagged.with_changes({"ar.fpsr": int(flagged.ar.fpsr) | 0x21 << 13})
    assert int(completed("fchkf sf, imm25", known, 1, 4).ip) == int(known.ip) + 16
    trapping = known.with_changes({"ar.fpsr": int(known.ar.fpsr) & ~1})
    assert int(completed("fchkf sf, imm25", trapping, 1, 4).ip) == int(known.ip) + 64


# -- floating-point registers (vol. 1, 5.1) ----------------------------------------------------------


def test_two_registers_are_constants() -> None:
    assert (fr(room(), 0), fr(room(), 1)) == (0, ONE)


@pytest.mark.parametrize(
    ("form", "a", "b", "result"),
    [
        ("fmerge.s", MINUS, ONE, MINUS | ONE), ("fmerge.ns", MINUS, ONE, ONE),
        ("fmerge.se", MINUS | ONE, 5, MINUS | 0xFFFF << 64 | 5), ("fand", ONE | 6, MINUS | 3, 0x1003E << 64 | 2),
        ("fandcm", 6, 3, 0x1003E << 64 | 4), ("for", 6, 3, 0x1003E << 64 | 7), ("fxor", 6, 3, 0x1003E << 64 | 5),
        ("fand", NATVAL, 3, NATVAL), ("fmerge.s", 3, NATVAL, NATVAL),
    ],
)  # fmt: skip
def test_fields_are_put_together(form, a, b, result) -> None:
    after = completed(f"{form} f = f, f", with_fr(room(), f3=a, f4=b), 2, 3, 4)
    assert fr(after, 2) == result


def test_select_takes_bits_by_a_mask() -> None:
    start = with_fr(room(), f3=0xFF00, f4=0x00FF, f5=0xF0F0)
    assert fr(completed("fselect f = f, f, f", start, 2, 3, 4, 5), 2) == 0x1003E << 64 | 0xF00F


def test_transfers_keep_what_is_not_a_thing() -> None:
    for form, value, result in (
        ("setf.sig f = r", 7, 0x1003E << 64 | 7),
        ("setf.exp f = r", 0x2FFFF, MINUS | ONE),
    ):
        assert fr(completed(form, put(room(), 3, value), 2, 3), 2) == result
        assert fr(completed(form, put(room(), 3, value, nat=1), 2, 3), 2) == NATVAL
    for form, value, result in (
        ("getf.sig r = f", MINUS | ONE | 5, 1 << 63 | 5),
        ("getf.exp r = f", MINUS | ONE, 0x2FFFF),
    ):
        after = completed(form, with_fr(room(), f2=value), 1, 2)
        assert (gr(after, 1), nat(after, 1)) == (result, 0)
        assert nat(completed(form, with_fr(room(), f2=NATVAL), 1, 2), 1) == 1


@pytest.mark.parametrize("be", [0, 1])
@pytest.mark.parametrize("value", [MINUS | ONE | 5, NATVAL])
def test_a_spilled_register_comes_back(be, value) -> None:
    spilled = completed("stf.spill [r] = f", with_fr(room(psr__be=be), f2=value), 2, 2)
    assert fr(completed("ldf.fill f = [r]", spilled, 3, 2), 3) == value
    one, other = cell(spilled), cell(spilled, PAGE + 8)
    if not be:
        assert (one, other) == (value & ONES, value >> 64)
    else:  # the sixteen bytes the other way round
        assert one.to_bytes(8, "little") + other.to_bytes(8, "little") == value.to_bytes(16, "big")


def test_integers_go_through_their_significand() -> None:
    assert fr(completed("ldf8 f = [r]", room(), 3, 2), 3) == 0x1003E << 64 | BYTES
    assert cell(completed("stf8 [r] = f", with_fr(room(), f2=MINUS | 9), 2, 2)) == 9
    assert fr(completed("ldf8.s f = [r]", put(room(), 2, PAGE, nat=1), 3, 2), 3) == NATVAL


@pytest.mark.parametrize(
    ("target", "source", "dfl", "dfh", "code"),
    [
        (2, 3, 1, 0, 1), (31, 0, 1, 0, 1), (32, 1, 1, 0, None), (32, 1, 0, 1, 2), (127, 0, 0, 1, 2), (2, 40, 1, 1, 3),
        (2, 40, 0, 1, 2), (40, 2, 1, 0, 1), (2, 3, 0, 0, None),
    ],
)  # fmt: skip
def test_disabled_halves_are_told_in_isr(target, source, dfl, dfh, code) -> None:
    start = room(psr__dfl=dfl, psr__dfh=dfh, psr__ic=1)
    if code is None:
        after = completed("fmerge.s f = f, f", start, target, source, source)
        assert (int(after.psr.mfl), int(after.psr.mfh)) == (int(target < 32), int(target >= 32))
        return
    machine = ia64()
    instruction = machine.instructions["fmerge.s f = f, f"]
    words = {name: Word(7, n) for (name, _), n in zip(
        (part for o in instruction.inputs for part in o.part_names()), (target, source, source), strict=True
    )}  # fmt: skip
    trap = machine.step(instruction, start, words)
    assert trap.error_code is not None
    assert int(trap.error_code) == code
    delivered = machine.deliver(start, trap)
    assert int(delivered.cr.isr) & 0xFFFF == code
    assert int(delivered.ip) & 0x7FFF == 0x5500
    assert (int(delivered.psr.dfl), int(delivered.psr.dfh)) == (0, 0)


def test_which_application_registers_do_not_exist_and_which_are_ignored() -> None:
    """Vol. 1, table 3-3; 16 to 19, 21, 24 to 30, 32, 36, 40, 44, 45 and 64 to 66 have names."""
    named = {*range(8), *range(16, 20), 21, *range(24, 31), 32, 36, 40, 44, 45, 64, 65, 66}
    ignored = {*range(48, 64), *range(112, 128)}
    for name, numbers in (("ignored", ignored), ("reserved", set(range(128)) - named - ignored)):
        (kind,) = [o for o in ia64().instructions[f"mov ar({name}) = r"].operands if o.kind.name != "r"]
        assert {n for n in range(128) if int(kind.kind.valid({"": Word(7, n)}))} == numbers
