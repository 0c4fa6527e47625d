"""What instructions do when they complete, and what an interruption does (SDM vols. 1 to 3)."""

from __future__ import annotations

import pytest

from popek.architectures.ia64.interruptions import deliver, implemented
from popek.architectures.ia64.state import CR_NUMBERS, PSR_DEFINED, VIRTUAL_BITS, Ia64, Psr, VirtualPsr
from popek.kernel.outcome import Trap
from popek.kernel.words import Word
from popek_specs.ia64 import table

from .machine_room import completed, gr, guest_kernel, ia64, put, run, trapped

COLLECT, ENABLE, BN, VM = 1 << 13, 1 << 14, 1 << 44, 1 << 46
PRESENT, PROMOTION = 1, 7 << 9


def page(state: Ia64, address: int, entry: int) -> Ia64:
    new = state.copy()
    new.translations = new.translations.store(Word(52, address >> 12), Word(88, entry))
    return new


# -- layout -----------------------------------------------------------------------------------------


def test_psr_fields_are_where_the_manual_has_them() -> None:
    places = {name: (b.high, b.low) for name, b in Psr.fields()}
    assert places["cpl"] == (33, 32)
    assert places["ri"] == (42, 41)
    assert {n: places[n][0] for n in ("be", "ic", "i", "dt", "si", "it", "bn", "vm")} == {
        "be": 1, "ic": 13, "i": 14, "dt": 17, "si": 23, "it": 36, "bn": 44, "vm": 46
    }  # fmt: skip
    assert sum((2 << b.high) - (1 << b.low) for _, b in Psr.fields()) == PSR_DEFINED
    assert sum(1 << b.high for _, b in VirtualPsr.fields()) == VIRTUAL_BITS
    assert all(places[name] == (b.high, b.low) for name, b in VirtualPsr.fields())


def test_every_control_register_but_eoi_is_a_component() -> None:
    names = {slot.name for slot in Ia64.layout if slot.name.startswith("cr.")}
    assert names == {f"cr.{name}" for name in CR_NUMBERS} - {"cr.eoi"}


def test_the_control_bits_of_the_vpd_are_those_of_the_facts() -> None:
    facts = table("vti.toml")
    for group in ("vac", "vdc"):
        names = [slot.name for slot in Ia64.layout if slot.name.startswith(f"{group}.")]
        assert names == [f"{group}.{row['name']}" for row in facts[group]]


def test_the_open_points_of_the_facts_are_settings() -> None:
    settings = {setting.name for setting in ia64().settings}
    assert {row["setting"] for row in table("vti.toml")["assumptions"]} <= settings


# -- registers --------------------------------------------------------------------------------------


def test_a_bank_switch_changes_gr16_to_31_and_nothing_else() -> None:
    state = put(put(Ia64.reset(), 16, 11), 15, 10)
    other = completed("bsw.0", state)
    assert (gr(other, 15), gr(other, 16)) == (10, 0)
    other = put(other, 16, 22)
    assert gr(completed("bsw.1", other), 16) == 11


def test_an_accelerated_bank_switch_exchanges_registers_with_the_vpd() -> None:
    state = guest_kernel(vac__a_bsw=1, vpsr__bn=1)
    state = put(put(state, 16, 11), 31, 13)
    state.vgr = state.vgr.store(Word(7, 16), Word(64, 22))
    after = completed("bsw.0", state)
    assert gr(after, 16) == 22
    assert int(after.vgr.load(Word(7, 0))) == 11
    assert int(after.vgr.load(Word(7, 15))) == 13
    assert int(after.vpsr.bn) == 0
    assert int(after.psr.bn) == 1
    assert gr(completed("bsw.1", after), 31) == 13
    assert gr(completed("bsw.0", after), 16) == 22  # it is there already


def test_a_call_renames_the_out_registers_and_a_return_undoes_it() -> None:
    state = Ia64.reset(cfm=(6 | 4 << 7), bof=90, ar__bsp=0x1F0, ip=0x1000)
    state = put(put(state, 36, 5), 32, 7)
    callee = completed("br.call b = imm25", state, 0, 0x10)
    assert (int(callee.ip), int(callee.cfm.sof)) == (0x1100, 2)
    assert gr(callee, 32) == 5
    assert int(callee.br.load(Word(3, 0))) == 0x1010
    # four registers on: 0x1F0, then the NaT collection at 0x1F8
    assert int(callee.ar.bsp) == 0x218
    back = completed("br.ret b", callee, 0)
    assert (int(back.ip), int(back.bof), int(back.ar.bsp)) == (0x1010, 90, 0x1F0)
    assert (gr(back, 32), gr(back, 36)) == (7, 5)


@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_call_leaves_the_level_in_pfs_and_alloc_shows_it(level) -> None:
    state = Ia64.reset(psr__cpl=level)
    callee = completed("br.call b = imm25", state, 0, 1)
    assert int(callee.ar.pfs.ppl) == level
    shown = completed("mov r = ar.pfs", callee.with_changes({"cfm": 8}), 32)
    assert gr(shown, 32) >> 62 == level
    allocated = completed("alloc r = ar.pfs, imm7, imm7", callee, 32, 1, 1)
    assert gr(allocated, 32) >> 62 == level


def test_a_return_lowers_the_level_and_never_raises_it() -> None:
    assert int(completed("br.ret b", Ia64.reset(ar__pfs=3 << 62), 0).psr.cpl) == 3
    assert int(completed("br.ret b", Ia64.reset(psr__cpl=3), 0).psr.cpl) == 3
    assert (
        trapped("br.ret b", Ia64.reset(ar__pfs=3 << 62, psr__lp=1), 0)[0] == "Lower-Privilege Transfer trap"
    )


def test_rsc_takes_no_level_more_privileged_than_cpl() -> None:
    state = put(Ia64.reset(psr__cpl=1), 2, 0)
    assert int(completed("mov ar.rsc = r", state, 2).ar.rsc.pl) == 1
    assert int(completed("mov ar.rsc = r", put(state, 2, 3 << 2), 2).ar.rsc.pl) == 3


def test_cover_copies_the_frame_to_ifs_only_without_collection() -> None:
    frame = 9 | 4 << 7
    after = completed("cover", Ia64.reset(cfm=frame))
    assert int(after.cr.ifs) == 1 << 63 | frame
    assert int(completed("cover", Ia64.reset(cfm=frame, psr__ic=1)).cr.ifs) == 0
    virtual = completed("cover", guest_kernel(cfm=frame, vac__a_cover=1))
    assert int(virtual.vcr.load(Word(7, 23))) == 1 << 63 | frame
    assert int(virtual.cr.ifs) == 0


# -- PSR --------------------------------------------------------------------------------------------


def test_mov_from_psr_shows_neither_level_nor_vm() -> None:
    state = Ia64.reset().with_changes({"psr": PSR_DEFINED & ~(3 << 41) & ~(3 << 32) & ~VM})
    shown = gr(completed("mov r = psr", state, 1), 1)
    assert shown == PSR_DEFINED & 0x18_FFFF_FFFF


def test_the_accelerated_read_of_psr_joins_vpsr_and_the_user_mask() -> None:
    state = guest_kernel(vac__a_from_psr=1, psr__up=1, vpsr__bn=1)
    assert gr(completed("mov r = psr", state, 1), 1) == 1 << 2


def test_ssm_and_rsm() -> None:
    assert (
        int(completed("ssm imm24", Ia64.reset(), COLLECT | ENABLE).psr.value) & (COLLECT | ENABLE)
        == COLLECT | ENABLE
    )
    assert (
        int(completed("rsm imm24", Ia64.reset(psr__ic=1, psr__i=1), ENABLE).psr.value) & (COLLECT | ENABLE)
        == COLLECT
    )
    assert trapped("ssm imm24", Ia64.reset(), 1 << 16)[0] == "Reserved Register/Field fault"


def test_a_int_masks_virtual_interrupts_without_the_vmm() -> None:
    state = guest_kernel(vac__a_int=1, vpsr__i=1)
    after = completed("rsm imm24", state, ENABLE)
    assert (int(after.vpsr.i), int(after.psr.i)) == (0, 1)
    pending = after.with_changes({"vhpi": 0x50})
    assert trapped("ssm imm24", pending, ENABLE)[0] == "Virtual External Interrupt"
    masked = pending.copy()
    masked.vcr = masked.vcr.store(Word(7, 66), Word(64, 5 << 4))
    assert int(completed("ssm imm24", masked, ENABLE).vpsr.i) == 1
    all_masked = pending.copy()
    all_masked.vcr = all_masked.vcr.store(Word(7, 66), Word(64, 1 << 16))
    assert int(completed("ssm imm24", all_masked, ENABLE).vpsr.i) == 1
    assert trapped("ssm imm24", pending, ENABLE | COLLECT) == ("Virtualization fault", 24)


def test_the_user_mask_keeps_up_under_secure_monitors() -> None:
    assert int(completed("sum imm24", Ia64.reset(), 4).psr.up) == 1
    assert int(completed("sum imm24", Ia64.reset(psr__sp=1), 4).psr.up) == 0
    assert int(completed("rum imm24", Ia64.reset(psr__sp=1, psr__up=1), 4).psr.up) == 1


def test_rfi_can_enter_the_guest_where_the_processor_has_vt_i() -> None:
    state = Ia64.reset(cr__ipsr=VM | BN | 3 << 32, cr__iip=0x2345)
    after = completed("rfi", state)
    assert (int(after.psr.vm), int(after.psr.cpl), int(after.ip)) == (1, 3, 0x2340)
    assert int(completed("rfi", state.with_changes({"features.vm": 0})).psr.vm) == 0


# -- promotion pages --------------------------------------------------------------------------------


def test_vmsw_needs_a_promotion_page_and_ignores_the_current_mode() -> None:
    state = page(guest_kernel(ip=0x4000), 0x4000, PRESENT | PROMOTION)
    assert int(completed("vmsw.0", state).psr.vm) == 0
    assert int(completed("vmsw.1", state).psr.vm) == 1
    assert int(completed("vmsw.1", state.with_changes({"psr.vm": 0})).psr.vm) == 1
    for change in (
        {"vdc.d_vmsw": 1},
        {"psr.it": 0},
        {"features.vmsw_enabled": 0},
        {"features.vm_enabled": 0},
    ):
        assert trapped("vmsw.0", state.with_changes(change)) == ("Virtualization fault", 40)
    assert trapped("vmsw.0", page(state, 0x4000, PRESENT | 3 << 9)) == ("Virtualization fault", 40)
    assert trapped("vmsw.0", state.with_changes({"psr.cpl": 1}))[0] == "Privileged Operation fault"
    bare = state.with_changes({"features.vm": 0, "psr.vm": 0, "psr.cpl": 1})
    assert trapped("vmsw.0", bare)[0] == "Illegal Operation fault"


def test_the_page_of_the_last_slot_is_the_bundles_own() -> None:
    state = page(guest_kernel(ip=0x4FF0), 0x4FF0, PRESENT | PROMOTION).with_changes({"psr.ri": 2})
    after = completed("vmsw.0", state)
    assert (int(after.psr.vm), int(after.ip), int(after.psr.ri)) == (0, 0x5000, 0)


@pytest.mark.parametrize(("level", "it", "expected"), [(3, 1, 1), (1, 1, 1), (0, 1, 0), (3, 0, 0)])
def test_epc_raises_to_the_pages_level(level, it, expected) -> None:
    state = Ia64.reset(psr__cpl=level, psr__it=it, ar__pfs=3 << 62)
    state = page(state, 0x10000, PRESENT | PROMOTION | 1 << 7)
    assert int(completed("epc", state).psr.cpl) == expected


def test_epc_refuses_a_forged_previous_level() -> None:
    assert trapped("epc", Ia64.reset(psr__cpl=3))[0] == "Illegal Operation fault"


# -- storage ----------------------------------------------------------------------------------------


def test_psr_vm_withholds_the_most_significant_address_bit() -> None:
    zero, one = Word(1, 0), Word(1, 1)
    for address in (0, 1 << 48, 0x1FFF << 48, 0x1FFE << 48, 1 << 49, 1 << 50, 0x1FFC << 48, 5 << 61):
        word = Word(64, address)
        if int(implemented(word, one)):
            assert int(implemented(word, zero)), hex(address)
    assert (int(implemented(Word(64, 1 << 49), zero)), int(implemented(Word(64, 1 << 49), one))) == (1, 0)
    assert int(implemented(Word(64, 1 << 50), zero)) == 0


def test_loads_and_stores_translate_and_check() -> None:
    kernel_page = PRESENT | 2 << 9 | 0x7 << 12  # level 0, read and write, physical page 7
    state = page(put(Ia64.reset(psr__dt=1), 2, 0x5008), 0x5000, kernel_page)
    after = completed("st8 [r] = r", put(state, 3, 99), 2, 3)
    assert int(after.memory.load(Word(47, 0x7008 >> 3))) == 99
    assert gr(completed("ld8 r = [r]", after, 1, 2), 1) == 99
    assert trapped("ld8 r = [r]", after.with_changes({"psr.cpl": 1}), 1, 2)[0] == "Data Access Rights fault"
    assert trapped("ld8 r = [r]", put(after, 2, 0x6000), 1, 2)[0] == "Data TLB fault"
    assert gr(completed("ld8 r = [r]", put(after, 2, 0x7008).with_changes({"psr.dt": 0}), 1, 2), 1) == 99


def test_probe_answers_at_the_less_privileged_level() -> None:
    state = page(put(Ia64.reset(psr__dt=1), 2, 0x5000), 0x5000, PRESENT | 2 << 9 | 1 << 7)
    answers = [gr(completed("probe.w gr = gr, imm2", state, 1, 2, level), 1) for level in range(4)]
    assert answers == [1, 1, 0, 0]
    lower = state.with_changes({"psr.cpl": 2})
    assert gr(completed("probe.w gr = gr, imm2", lower, 1, 2, 0), 1) == 0
    assert trapped("probe.w.fault gr, imm2", lower, 2, 0)[0] == "Data Access Rights fault"
    virtual = lower.with_changes({"psr.vm": 1, "assume.probe_vf": 1})
    assert trapped("probe.r gr = gr, imm2", virtual, 1, 2, 0) == ("Virtualization fault", 41)


def test_thash_walks_the_linear_table_of_the_region() -> None:
    state = put(Ia64.reset(cr__pta=0x8000 | 15 << 2), 2, 0x3000)
    state.rr = state.rr.store(Word(3, 0), Word(64, 12 << 2))
    assert gr(completed("thash r = r", state, 1, 2), 1) == 0x8000 + 3 * 8


def test_a_speculative_load_defers_what_dcr_says() -> None:
    state = put(Ia64.reset(psr__dt=1), 2, 0x5000)
    assert trapped("ld8.s r = [r]", state, 1, 2)[0] == "Data TLB fault"
    after = completed("ld8.s r = [r]", state.with_changes({"cr.dcr": 1 << 8}), 1, 2)
    assert int(after.read_nat(Word(7, 1))) == 1


def test_inserted_translations_are_found_until_they_are_purged() -> None:
    state = put(Ia64.reset(cr__ifa=0x5000, cr__itir=0x33 << 8), 2, PRESENT | 0x9000)
    with_entry = completed("itc.d r", state, 2)
    asked = put(with_entry, 3, 0x5123)
    assert gr(completed("tpa r = r", asked, 1, 3), 1) == 0x9123
    assert gr(completed("tak r = r", asked, 1, 3), 1) == 0x33 << 8
    gone = completed("ptc.l r, r", asked, 3, 0)
    assert trapped("tpa r = r", gone, 1, 3)[0] == "Data TLB fault"
    assert gr(completed("tak r = r", gone, 1, 3), 1) == 1


def test_reading_ivr_takes_the_interrupt_into_service() -> None:
    state = Ia64.reset(cr__ivr=0x47, cr__irr1=0x80 | 1)
    after = completed("mov r = cr.ivr", state, 1)
    assert (gr(after, 1), int(after.cr.irr1), int(after.in_service)) == (0x47, 1, 0x47)
    spurious = completed("mov r = cr.ivr", Ia64.reset(cr__ivr=0xF, in_service=0x30), 1)
    assert int(spurious.in_service) == 0x30


# -- interruptions ----------------------------------------------------------------------------------


def test_an_interruption_leaves_the_guest_and_collects_its_state() -> None:
    state = guest_kernel(psr__cpl=3, psr__bn=1, psr__up=1, ip=0x7770, cr__iva=0x8000, cr__dcr=1)
    trap = run("mov r = rr[r]", state, 1, 2)
    assert isinstance(trap, Trap)
    host = deliver(state, trap)
    assert (int(host.psr.vm), int(host.psr.cpl), int(host.psr.ic), int(host.psr.i), int(host.psr.bn)) == (
        0,
    ) * 5
    assert (int(host.psr.dt), int(host.psr.it), int(host.psr.rt), int(host.psr.up), int(host.psr.pp)) == (
        1,
    ) * 5
    assert int(host.cr.ipsr) >> 46 & 1 == 1
    assert int(host.cr.iip) == 0x7770
    assert int(host.cr.isr) & 0xFFFF == 0x10
    assert int(host.ip) == 0x8000 + 0x5400


def test_an_intercept_hands_over_its_cause_in_gr24() -> None:
    state = guest_kernel(cr__iva=0x10000)
    trap = run("thash r = r", state, 1, 2)
    assert isinstance(trap, Trap)
    host = deliver(state, trap)
    assert int(host.ip) == 0x16100
    assert gr(host, 24) == 31


@pytest.mark.parametrize(("wanted", "gr24"), [(1, 31), (0, 0x24)])
def test_an_intercept_hands_over_its_opcode_in_gr25(wanted, gr24) -> None:
    registers = table("vti.toml")["handoff"]
    state = guest_kernel(cr__iva=0x10000)
    state.bank0 = state.bank0.store(Word(7, 24), Word(64, 0x24)).store(Word(7, 25), Word(64, 0x25))
    trap = run("thash r = r", state, 1, 2)
    assert isinstance(trap, Trap)
    host = deliver(state, trap, opcode=Word(41, 0x1_2345_6789), cause=Word(1, wanted))
    assert gr(host, registers["cause"]) == gr24
    assert gr(host, registers["opcode"]) == 0x1_2345_6789
    unknown = deliver(state, trap).read_gr(Word(7, 25))
    assert not unknown.concrete
    assert int(unknown[63:41]) == 0
    # No other interruption writes them.
    refused = run("thash r = r", state.with_changes({"psr.vm": 0, "psr.ic": 1}), 1, 2)
    assert not isinstance(refused, Trap)
    broken = deliver(state, run("break imm21", state, 5), opcode=Word(41, 7))
    assert (gr(broken, 24), gr(broken, 25)) == (0x24, 0x25)


def test_without_collection_the_interruption_registers_stay() -> None:
    state = Ia64.reset(cr__ipsr=1 << 13, cr__iip=0x10, psr__cpl=2)
    trap = run("break imm21", state, 5)
    assert isinstance(trap, Trap)
    host = deliver(state, trap)
    assert (int(host.cr.ipsr), int(host.cr.iip), int(host.cr.iim)) == (1 << 13, 0x10, 0)
    collected = deliver(state, run("break imm21", state.with_changes({"psr.ic": 1}), 5))
    assert int(collected.cr.iim) == 5
