"""Which fault an instruction takes, in the manual's order (SDM vol. 3; binutils; Ski; Xen and KVM)."""

from __future__ import annotations

import pytest

from popek.architectures.ia64.state import Ia64
from popek.kernel.words import Word
from popek_specs.ia64 import table

from .machine_room import completed, gr, guest_kernel, guest_user, nat, put, run, trapped

PO, PR, IL = "Privileged Operation fault", "Privileged Register fault", "Illegal Operation fault"
RF, VF, NAT = "Reserved Register/Field fault", "Virtualization fault", "Register NaT Consumption fault"

# Form, operands, cause: every row of the intercept table that an instruction can take at CPL 0.
INTERCEPTED = [
    ("mov ar.itc = r", (2,), 1),
    ("mov ar.itc = imm8", (5,), 2),
    ("mov r = ar.itc", (1,), 3),
    ("mov cr(other) = r", (1, 2), 4),
    ("mov cr(interruption) = r", (1, 2), 4),
    ("mov cr.tpr = r", (2,), 4),
    ("mov cr.eoi = r", (2,), 4),
    ("mov cr.itm = r", (2,), 4),
    ("mov r = cr(other)", (1, 1), 5),
    ("mov r = cr(interruption)", (1, 1), 5),
    ("mov r = cr(external)", (1, 1), 5),
    ("mov r = cr.ivr", (1,), 5),
    ("mov r = cr.itm", (1,), 5),
    ("mov psr.l = r", (2,), 6),
    ("mov r = psr", (1,), 7),
    ("itc.d r", (2,), 8),
    ("itc.i r", (2,), 9),
    ("mov rr[r] = r", (2, 3), 10),
    ("mov dbr[r] = r", (2, 3), 11),
    ("mov ibr[r] = r", (2, 3), 12),
    ("mov pkr[r] = r", (2, 3), 13),
    ("mov pmc[r] = r", (2, 3), 14),
    ("mov pmd[r] = r", (2, 3), 15),
    ("itr.d dtr[r] = r", (2, 3), 16),
    ("itr.i itr[r] = r", (2, 3), 17),
    ("mov r = rr[r]", (1, 2), 18),
    ("mov r = dbr[r]", (1, 2), 19),
    ("mov r = ibr[r]", (1, 2), 20),
    ("mov r = pkr[r]", (1, 2), 21),
    ("mov r = pmc[r]", (1, 2), 22),
    ("mov r = cpuid[r]", (1, 2), 23),
    ("ssm imm24", (1 << 14,), 24),
    ("rsm imm24", (1 << 14,), 25),
    ("ptc.l r, r", (2, 3), 26),
    ("ptc.g r, r", (2, 3), 27),
    ("ptc.ga r, r", (2, 3), 28),
    ("ptr.d r, r", (2, 3), 29),
    ("ptr.i r, r", (2, 3), 30),
    ("thash r = r", (1, 2), 31),
    ("ttag r = r", (1, 2), 32),
    ("tpa r = r", (1, 2), 33),
    ("tak r = r", (1, 2), 34),
    ("ptc.e r", (2,), 35),
    ("cover", (), 36),
    ("rfi", (), 37),
    ("bsw.0", (), 38),
    ("bsw.1", (), 39),
    ("vmsw.0", (), 40),
    ("vmsw.1", (), 40),
]
NOT_PRIVILEGED = {"thash r = r", "ttag r = r", "mov r = cpuid[r]", "mov r = ar.itc", "cover"}
PRIVILEGED_REGISTERS = {"mov ar.itc = r", "mov ar.itc = imm8"}


@pytest.mark.parametrize(("form", "operands", "cause"), INTERCEPTED)
def test_the_guests_kernel_is_intercepted_with_its_cause(form, operands, cause) -> None:
    assert trapped(form, guest_kernel(), *operands) == (VF, cause)


def test_every_cause_of_the_manual_but_the_optional_probe_is_reached() -> None:
    causes = {int(number) for number in table("vti.toml")["causes"] if number.isdigit()}
    assert {cause for _, _, cause in INTERCEPTED} == causes - {41}


@pytest.mark.parametrize(("form", "operands", "cause"), INTERCEPTED)
def test_the_privilege_level_is_checked_before_psr_vm(form, operands, cause) -> None:
    if form in NOT_PRIVILEGED:
        return
    name, _ = trapped(form, guest_user(psr__ic=0), *operands)
    assert name == (PR if form in PRIVILEGED_REGISTERS else PO)


@pytest.mark.parametrize("form", ["thash r = r", "ttag r = r", "mov r = cpuid[r]"])
def test_three_instructions_are_intercepted_at_every_level(form) -> None:
    assert trapped(form, guest_user(), 1, 2)[0] == VF


def test_cover_is_intercepted_at_cpl_0_only() -> None:
    assert trapped("cover", guest_kernel()) == (VF, 36)
    after = completed("cover", guest_user())
    assert int(after.cfm.sof) == 0
    assert int(after.cr.ifs) == 0  # the machine's PSR.ic is 1


def test_reserved_bits_beat_interception_on_mov_psr() -> None:
    state = put(guest_kernel(), 2, 1)
    assert trapped("mov psr.l = r", state, 2)[0] == RF
    assert trapped("mov psr.l = r", put(guest_kernel(), 2, 1 << 28), 2)[0] == RF
    assert trapped("mov psr.l = r", put(guest_kernel(), 2, 1 << 13), 2) == (VF, 6)


def test_interception_beats_nat_on_thash_and_ttag_only() -> None:
    state = put(guest_kernel(), 2, 0, nat=1)
    assert trapped("thash r = r", state, 1, 2) == (VF, 31)
    assert trapped("ttag r = r", state, 1, 2) == (VF, 32)
    for form in ("tak r = r", "tpa r = r", "mov r = rr[r]"):
        assert trapped(form, state, 1, 2)[0] == NAT
    assert trapped("mov cr.itm = r", state, 2)[0] == NAT
    assert trapped("mov psr.l = r", state, 2)[0] == NAT


def test_without_psr_vm_thash_of_a_nat_is_a_nat() -> None:
    after = completed("thash r = r", put(Ia64.reset(), 2, 0x1000, nat=1), 1, 2)
    assert nat(after, 1) == 1


def test_r0_is_no_target_and_that_comes_first() -> None:
    for form in ("mov r = psr", "thash r = r", "mov r = cpuid[r]", "tpa r = r"):
        rest = (2,) if form != "mov r = psr" else ()
        assert trapped(form, guest_user(), 0, *rest)[0] == IL


def test_a_register_outside_the_frame_is_no_target() -> None:
    state = Ia64.reset(cfm__sof=4)
    assert run("add r = r, r", state, 35, 1, 2).__class__.__name__ == "Next"
    assert trapped("add r = r, r", state, 36, 1, 2)[0] == IL


def test_inserts_and_interruption_registers_need_psr_ic_0() -> None:
    collecting = Ia64.reset(psr__ic=1)
    assert trapped("itc.d r", collecting, 2)[0] == IL
    assert trapped("mov r = cr(interruption)", collecting, 1, 0)[0] == IL
    assert trapped("itc.d r", Ia64.reset(psr__ic=1, psr__cpl=3), 2)[0] == IL
    assert trapped("itc.d r", Ia64.reset(psr__cpl=3), 2)[0] == PO


def test_psr_ic_against_interception_is_a_reading_of_the_sources() -> None:
    assert trapped("itc.d r", guest_kernel(), 2) == (VF, 8)
    assert trapped("itc.d r", guest_kernel(assume__ic_first=1), 2)[0] == IL


def test_reading_pmd_above_cpl_0_hides_privileged_counters_or_faults() -> None:
    state = put(Ia64.reset(psr__cpl=3), 2, 4)
    state.pmd = state.pmd.store(Word(8, 4), Word(64, 77))
    assert gr(completed("mov r = pmd[r]", state, 1, 2), 1) == 77
    state.pmc = state.pmc.store(Word(8, 4), Word(64, 1 << 6))
    assert gr(completed("mov r = pmd[r]", state, 1, 2), 1) == 0
    assert trapped("mov r = pmd[r]", state.with_changes({"assume.pmd_fault": 1}), 1, 2)[0] == PR
    secure = state.with_changes({"psr.sp": 1})
    secure.pmc = Ia64.reset().pmc
    assert gr(completed("mov r = pmd[r]", secure, 1, 2), 1) == 0
    assert gr(completed("mov r = pmd[r]", secure.with_changes({"psr.cpl": 0}), 1, 2), 1) == 77


def test_no_virtualization_fault_exists_for_reading_pmd() -> None:
    for state in (guest_kernel(), guest_user()):
        completed("mov r = pmd[r]", state, 1, 2)


def test_kernel_registers_are_written_at_cpl_0_and_read_anywhere() -> None:
    user = put(guest_user(), 2, 9)
    assert trapped("mov ar.k = r", user, 3, 2)[0] == PR
    after = completed("mov ar.k = r", user.with_changes({"psr.cpl": 0}), 3, 2)
    assert gr(completed("mov r = ar.k", after.with_changes({"psr.cpl": 3}), 1, 3), 1) == 9


@pytest.mark.parametrize(
    ("cpl", "vm", "si", "expected"),
    [
        (0, 0, 1, None), (3, 0, 0, None), (3, 0, 1, PR), (0, 1, 0, None), (0, 1, 1, VF), (3, 1, 0, None),
        (3, 1, 1, PR),
    ],
)  # fmt: skip
def test_the_interval_timer(cpl, vm, si, expected) -> None:
    state = Ia64.reset(psr__cpl=cpl, psr__vm=vm, psr__si=si, ar__itc=5)
    if expected is None:
        assert gr(completed("mov r = ar.itc", state, 1), 1) == 5
    else:
        assert trapped("mov r = ar.itc", state, 1)[0] == expected


def test_the_timers_offset_shows_under_psr_vm_only() -> None:
    state = Ia64.reset(psr__vm=1, features__gitc=1, ito=2, ar__itc=5)
    assert gr(completed("mov r = ar.itc", state, 1), 1) == 7
    assert gr(completed("mov r = ar.itc", state.with_changes({"psr.vm": 0}), 1), 1) == 5


def test_unimplemented_and_read_only_control_registers() -> None:
    assert trapped("mov cr(unimplemented) = r", Ia64.reset(), 3, 2)[0] == IL
    assert trapped("mov cr.ivr = r", Ia64.reset(), 2)[0] == IL
    assert trapped("mov cr.irr0 = r", Ia64.reset(psr__cpl=3), 2)[0] == IL


def test_bspstore_needs_enforced_lazy_mode() -> None:
    assert trapped("mov ar.bspstore = r", Ia64.reset().with_changes({"ar.rsc.mode": 3}), 2)[0] == IL
    after = completed("mov ar.bspstore = r", put(Ia64.reset(), 2, 0x8000), 2)
    assert (int(after.ar.bspstore), int(after.ar.bsp)) == (0x8000, 0x8000)
