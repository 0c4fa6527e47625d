"""The hypervisor extension as assistance: what its controls must be, found, and what real hypervisors have set."""

from __future__ import annotations

import json
from functools import cache

import pytest

from commands import popek
from popek.architectures.riscv import csrs
from popek.architectures.riscv.hypervisor import levels
from popek.architectures.riscv.hypervisor.arrangement import CHOSEN, GIVEN
from popek.architectures.riscv.hypervisor.assistance import H
from popek.architectures.riscv.hypervisor.interrupts import INTERRUPTS
from popek.architectures.riscv.hypervisor.settings import hypervisors, of_registers, read, written
from popek.architectures.riscv.state import Rv64
from popek.assistance.desk import Desk, desk_of
from popek.assistance.exits import governs
from popek.assistance.judgement import Judgement, judge
from popek.assistance.requirements import Requirement, disjunction
from popek.assistance.synthesis import Synthesis, processor_of, synthesize
from popek.checks.verdict import Status
from popek.kernel.assistance import AssistanceError
from popek.solving.solver import Answer
from popek_proofs.assistance.interrupts import Prover, prover_of

DESK = desk_of(H)


def required(form: str, owns: str = "", **assume: int) -> Requirement:
    names = [name for name in owns.split() if name]
    return DESK.required(DESK.find([form])[0], H.owner(names, assume=assume))


def faithful(form: str, owns: str = "", **assume: int) -> str:
    """The weakest condition, what M has to delegate left out."""
    found = required(form, owns, **assume)
    assert not found.undecided
    fixed = {name: place for place, name in enumerate(found.knobs) if name in GIVEN}
    kept = [place for place, name in enumerate(found.knobs) if name not in GIVEN]
    usual = {
        tuple(values[place] for place in kept)
        for values in found.faithful
        if all(values[place] == GIVEN[name] for name, place in fixed.items())
    }
    return disjunction([found.knobs[place] for place in kept], frozenset(usual))


# -- the weakest conditions, as the manual's chapter on H has them ------------------------------------


@pytest.mark.parametrize(
    ("form", "owns", "condition"),
    [
        ("SRET", "", "always"),
        ("CSRRW satp", "", "always"),
        ("CSRRW satp", "translation", "hstatus.vtvm = 1"),
        ("CSRRS time", "", "always"),
        ("CSRRS time", "time", "hcounteren.tm = 0"),
        ("CSRRS cycle", "", "always"),
        ("CSRRS cycle", "counters", "hcounteren.cy = 0"),
        ("CSRRS stimecmp", "timer", "hcounteren.tm = 0 or henvcfg.stce = 0"),
        ("CSRRW senvcfg", "environment", "hstateen0.envcfg = 0"),
        ("CSRRW scounteren", "counter-enables", "never"),  # it has no VS copy, and nothing traps it
        ("CSRRW sie", "", "hideleg.vssi = 1 and hideleg.vsti = 1 and hideleg.vsei = 1"),
        ("FMV.D.X", "", "floating_point = 1 or hedeleg.illegal = 0"),
        ("FMV.D.X", "floating-point", "hedeleg.illegal = 0 and floating_point = 0"),
        ("ECALL", "", "always"),
        ("MRET", "", "always"),
    ],
)
def test_the_weakest_condition(form: str, owns: str, condition: str) -> None:
    assert faithful(form, owns) == condition


def test_sret_is_what_nesting_needs_a_trap_for() -> None:
    assert faithful("SRET", hypervisor=1) == "hstatus.vtsr = 1"
    assert faithful("CSRRW hstatus", hypervisor=1) == "always"
    assert faithful("CSRRW satp", hypervisor=1) == "always"


def test_what_m_keeps_goes_to_firmware_that_is_not_the_guests() -> None:
    found = required("CSRRW hstatus")
    assert found.condition(found.faithful) == "medeleg.virtual_instruction = 1"
    found = required("EBREAK")
    assert found.condition(found.faithful) == "medeleg.breakpoint = 1"
    found = required("ECALL")
    assert found.condition(found.faithful) == "medeleg.ecall_u = 1 and medeleg.ecall_vs = 1"


def test_an_exit_has_a_reason_for_each_cause() -> None:
    found = {item.reason: set(item.controls) for item in governs(DESK, DESK.find(["CSRRS time"])[0])}
    assert set(found) == {2, 22}
    assert {"hcounteren.tm", "medeleg.virtual_instruction", "mcounteren.tm"} <= found[22]
    assert {"hedeleg.illegal", "mcounteren.tm"} <= found[2]


def test_a_delegation_that_is_not_looked_at_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_to_vs(cpu: Rv64, code: int) -> str:
        return levels.M if cpu.medeleg.value[code] == 0 else levels.HS

    monkeypatch.setattr(levels, "level", never_to_vs)
    again: Desk[Rv64] = Desk(H)
    found = again.required(again.find(["FMV.D.X"])[0], H.owner([]))
    assert found.condition(found.faithful) == "medeleg.illegal = 1"


# -- the best choice ----------------------------------------------------------------------------------

SOME = (
    "SRET",
    "CSRRW satp",
    "CSRRS time",
    "CSRRS cycle",
    "CSRRW senvcfg",
    "CSRRW sie",
    "FMV.D.X",
    "EBREAK",
    "WFI",
    "LD",
)


def best(processor: str | None = None, owns: list[str] | None = None, **assume: int) -> Synthesis:
    found = synthesize(DESK, processor_of(DESK, processor), owns, assume=assume, forms=DESK.find(SOME))
    assert found.answer is Answer.SAT
    return found


def test_the_fewest_exits_are_those_of_published_hypervisors() -> None:
    found = best()
    assert found.fields["hcounteren"] == 0x2  # "VS should access only the time counter directly" (KVM)
    assert found.fields["hideleg"] == 0x444
    assert found.fields["hstatus"] == 1 << 21  # VTW, for the VMM wants to know of a guest that waits
    assert found.fields["hedeleg"] & 0x38 == 0x38  # breakpoints, and loads that fault, are the guest's own
    assert found.outcome == ""


def test_a_hypervisor_as_guest_costs_vtsr() -> None:
    assert best(hypervisor=1).fields["hstatus"] == 1 << 21 | 1 << 22
    assert best(owns=["translation"]).fields["hstatus"] == 1 << 20


def test_a_hart_without_open_counters_closes_them_all() -> None:
    assert best("no-counters").fields["hcounteren"] == 0
    assert best("no-counters", ["counter-enables"]).open == ()
    found = synthesize(DESK, processor_of(DESK), ["counter-enables"], forms=DESK.find(["CSRRW scounteren"]))
    assert found.open == ("CSRRW rd, scounteren, rs1",)


# -- published hypervisors ------------------------------------------------------------------------------


@cache
def judged(name: str) -> Judgement:
    return judge(H, hypervisors()[name], forms=DESK.find(SOME), witnesses=False)


def test_the_registers_are_read_bit_by_bit() -> None:
    kvm = hypervisors()["KVM"].controls
    assert set(kvm) <= {*CHOSEN, "floating_point", "second_stage"}
    assert kvm["hstatus.vtw"] == 1
    assert (kvm["hedeleg.illegal"], kvm["hedeleg.load_access"]) == (1, 0)
    assert of_registers({"hcounteren": 5}) == {
        "hcounteren.cy": 1, "hcounteren.tm": 0, "hcounteren.ir": 1, "hcounteren.hpm3": 0,
    }  # fmt: skip


def harmed(name: str) -> dict[str, tuple[str, ...]]:
    return {row.mnemonic: tuple(h.owner for h in row.harms) for row in judged(name).rows if row.harms}


def test_kvm_leaves_time_alone_and_once_left_every_counter() -> None:
    assert harmed("KVM") == {
        "CSRRS time": ("time", "counter-enables"),  # its users' reads ask scounteren, too
        "CSRRW senvcfg": ("environment",),
    }
    assert harmed("KVM-5.16")["CSRRS cycle"] == ("counters", "counter-enables")
    assert "counters" in judged("KVM").kept
    assert "counters" not in judged("KVM-5.16").kept
    assert [row.mnemonic for row in judged("KVM").rows if row.needless] == ["LD"]


def test_a_port_under_way_gives_the_guest_faults_that_are_not_its_own() -> None:
    assert harmed("Xen")["FMV.D.X"] == ("",)


def test_a_guest_that_waits_keeps_the_hart_where_vtw_is_off() -> None:
    lacking = {name: [item.control for item in judged(name).lacking] for name in ("Bao", "Salus")}
    assert lacking == {"Bao": ["hstatus.vtw"], "Salus": []}


# -- the commands ----------------------------------------------------------------------------------------


def test_the_commands_take_it_by_name() -> None:
    done = popek("assist", "requirements", "hypervisor-extension", "SRET", "--assume", "hypervisor", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["instructions"]
    assert row["faithful"] == "hstatus.vtsr = 1 and medeleg.virtual_instruction = 1"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"hedelg": "1"}, "hedelg: no such register; known: hstatus, hedeleg"),
        ({"hedeleg": "all"}, "hedeleg: expected a number such as 0x444, not 'all'"),
        (
            {"hedeleg": "0x10000000000000000"},
            "hedeleg: expected a number of 64 bits, not '0x10000000000000000'",
        ),
        ({"floating_point": "2"}, "floating_point: expected 0 or 1, not '2'"),
    ],
)
def test_bad_registers_get_one_line(fields: dict[str, str], line: str) -> None:
    with pytest.raises(AssistanceError) as error:
        written(fields)
    assert str(error.value).startswith(line)


def test_registers_come_from_a_file_too() -> None:
    (found,) = read("mine.toml", b'hedeleg = 0xb109\nhstatus = "0x200000"\n')
    assert (found.name, found.controls["hstatus.vtw"], found.controls["hedeleg.illegal"]) == (
        "mine.toml",
        1,
        0,
    )
    with pytest.raises(AssistanceError, match=r"mine.toml: hedelg: no such register"):
        read("mine.toml", b"hedelg = 1")
    with pytest.raises(AssistanceError, match=r"mine.toml: not TOML"):
        read("mine.toml", b"hedeleg")


# -- interrupts --------------------------------------------------------------------------------------------


def test_interrupts_reach_the_guest_when_its_own_machine_would_be_interrupted() -> None:
    found = prover_of(INTERRUPTS).prove()
    assert {name: status for name, _, status in found.promises} == dict.fromkeys(
        ("masked", "first-window", "control"), Status.HOLDS
    )
    assert {row.step for row in found.rows} >= {"base", "boundary", "SRET", "CSRRW rd, sie, rs1"}


@pytest.mark.parametrize(
    ("dropped", "broken", "steps"),
    [
        ("hideleg", "first-window", 3),  # HS gets it instead
        ("host-enable", "control", 1),
        ("raise-hvip", "first-window", 3),
        ("clear-hvip", "masked", 4),
    ],
)
def test_each_control_and_duty_is_needed_for_it(dropped: str, broken: str, steps: int) -> None:
    traces = {t.promise: t.steps for t in prover_of(INTERRUPTS).prove([dropped], ["SRET"]).traces}
    assert list(traces) == [broken]
    assert len(traces[broken]) == steps


def test_a_guest_that_could_mask_the_host_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """sie in VS is vsie: with the host's sie in its place, a guest masks the hart's own interrupts."""
    again = Prover(INTERRUPTS)
    monkeypatch.setattr(csrs.Csr, "meant", lambda csr, cpu: csr)
    assert any(row.status is Status.REFUTED for row in again.prove(forms=["CSRRW sie"]).rows)
