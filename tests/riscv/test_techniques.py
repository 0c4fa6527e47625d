"""The ways to virtualize RV64: which settings decide, what the maps see to, and what happens without it."""

from __future__ import annotations

import attrs
import pytest
from test_rules import machine

from popek.architectures.riscv import deprivileging
from popek.architectures.riscv.state import MACHINE
from popek.checks.conditions import critical_when
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.survey import Request
from popek.checks.verdict import Truth

# By form: the settings under which it is critical, where time is state; found by trying every combination.
DECIDES = {
    ("hypervisor-extension", "SRET"): {"VTSR": (0,)},
    ("hypervisor-extension", "CSRRW rd, satp, rs1"): {"VTVM": (0,)},
    ("hypervisor-extension", "CSRRW rd, stimecmp, rs1"): {
        "SSTC": (1,), "MSTCE": (1,), "HSTCE": (1,), "MCOUNTEREN_TM": (1,), "HCOUNTEREN_TM": (1,),
    },
    ("hypervisor-extension", "CSRRS rd, cycle, rs1"): {"MCOUNTEREN_CY": (1,), "HCOUNTEREN_CY": (1,)},
    ("ring-deprivileging-u", "CSRRS rd, time, rs1"): {
        "TIME_CSR": (1,), "MCOUNTEREN_TM": (1,), "SCOUNTEREN_TM": (1,),
    },
    ("ring-deprivileging-u", "CSRRS rd, cycle, rs1"): {"MCOUNTEREN_CY": (1,), "SCOUNTEREN_CY": (1,)},
    ("hypervisor-extension", "CSRRW rd, fcsr, rs1"): {"MISA_F": (1,)},
    ("hypervisor-extension", "FMV.D.X fd, rs1"): {"MISA_D": (1,), "MISA_F": (1,)},
    ("ring-deprivileging-u", "ADD rd, rs1, rs2"): {"UXL32": (1,), "UXL": (1,)},
}  # fmt: skip


def test_sixteen_settings_decide_and_are_found() -> None:
    assert len({name for settings in DECIDES.values() for name in settings}) == 16


@pytest.mark.parametrize(("key", "settings"), DECIDES.items(), ids=[f"{t}: {f}" for t, f in DECIDES])
def test_which_settings_decide(key: tuple[str, str], settings: dict[str, tuple[int, ...]]) -> None:
    technique, form = key
    request = Request(Subject.of("rv64", technique, ["FS=3"], time_is_state=True), components=False)
    (row,) = critical_when(request, list(settings), forms=[form]).rows
    assert row.when == (settings,)
    assert row.unknown == ()


def kept(technique: object, form: str, *settings: str) -> tuple[Truth, Truth]:
    known = machine()
    found = Keeper(Subject.of(known, technique, settings)).keeps(known.instructions[form])  # type: ignore[arg-type]
    return found.fidelity.kept, found.safety.kept


def test_sret_of_a_hypervisor_in_vs_needs_vtsr() -> None:
    nested = machine().technique("hypervisor-in-vs")
    assert [kept(nested, "SRET", f"VTSR={on}")[0] for on in (0, 1)] == [Truth.NO, Truth.YES]


def test_a_misaligned_jump_leaves_the_monitor_where_the_system_is_sent_it() -> None:
    delegated = machine().technique("firmware-in-u-delegated")
    found = [kept(delegated, "JALR rd, offset(rs1)", f"MISA_C={on}") for on in (0, 1)]
    assert found == [(Truth.NO, Truth.NO), (Truth.YES, Truth.YES)]


def test_who_is_put_into_u_has_the_width_there_that_it_has_for_itself() -> None:
    """Without it, an addition of a kernel of 64 bits is one of 32."""
    plain = machine().technique("ring-deprivileging-u")

    def forgetful(guest, private):  # type: ignore[no-untyped-def]
        hardware = plain.map(guest, private)
        hardware.mstatus.uxl = guest.mstatus.uxl
        return hardware

    form, settings = "ADD rd, rs1, rs2", ("UXL32=1", "UXL=1")
    assert kept(plain, form, *settings) == (Truth.YES, Truth.YES)
    assert kept(attrs.evolve(plain, map=forgetful), form, *settings)[0] is Truth.NO


def test_firmware_whose_letters_are_not_the_harts_is_unfaithful() -> None:
    plain = machine().technique("firmware-in-u")

    def forgetful(guest, private):  # type: ignore[no-untyped-def]
        return plain.private(guest, private.with_changes({"misa": guest.misa.value}))

    assert kept(plain, "MUL rd, rs1, rs2", "MISA_WRITABLE=4269")[0] is Truth.YES
    assert (
        kept(attrs.evolve(plain, private=forgetful), "MUL rd, rs1, rs2", "MISA_WRITABLE=4269")[0] is Truth.NO
    )


def test_firmware_whose_entries_split_a_doubleword_faults_in_m_too() -> None:
    """Without the condition on the firmware's own entries, a load of both halves is silent in U and faults in M."""
    plain = machine().technique("firmware-in-u")
    any_entries = attrs.evolve(plain, guest=lambda state: (state.prv == MACHINE) & ~state.v)
    assert kept(plain, "LD rd, offset(rs1)") == (Truth.YES, Truth.YES)
    assert kept(any_entries, "LD rd, offset(rs1)")[0] is Truth.NO


def test_firmware_reaches_storage_while_mprv_is_on_unless_the_first_entry_denies_it() -> None:
    plain = machine().technique("firmware-in-u")
    without = attrs.evolve(plain, map=deprivileging._map)
    assert kept(without, "SD rs2, offset(rs1)")[0] is Truth.NO


def test_a_vmm_that_does_not_swap_scounteren_is_unfaithful() -> None:
    plain = machine().technique("hypervisor-extension")

    def forgetful(guest, private):  # type: ignore[no-untyped-def]
        hardware = plain.map(guest, private)
        hardware.scounteren = private.scounteren.value
        return hardware

    form = "CSRRS rd, scounteren, rs1"
    assert kept(plain, form) == (Truth.YES, Truth.YES)
    assert kept(attrs.evolve(plain, map=forgetful), form) == (Truth.NO, Truth.NO)


def test_a_vmm_that_delegates_no_vs_interrupt_shows_dead_bits() -> None:
    plain = machine().technique("hypervisor-extension")

    def undelegated(guest, private):  # type: ignore[no-untyped-def]
        hardware = plain.map(guest, private)
        hardware.hideleg = 0
        return hardware

    assert kept(attrs.evolve(plain, map=undelegated), "CSRRW rd, sie, rs1")[0] is Truth.NO
