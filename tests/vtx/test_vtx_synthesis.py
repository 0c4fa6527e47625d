"""The controls with the fewest exits, what real hypervisors come to, and the command line."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
import pytest

import commands
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.operation.arrangement import CONTROLS
from popek.architectures.vtx.operation.assistance import VT_X, governed_forms
from popek.architectures.vtx.operation.ownership import EVERYTHING
from popek.architectures.vtx.operation.processor import of_capabilities
from popek.architectures.vtx.operation.settings import hypervisors, of_vmcs
from popek.architectures.vtx.verdict import judge as judge_entry
from popek.architectures.vtx.vmcs import Vmcs
from popek.assistance.desk import desk_of
from popek.assistance.gain import gain
from popek.assistance.judgement import Judgement, judge
from popek.assistance.synthesis import Synthesis, WeightsError, load_weights, processor_of, synthesize
from popek.kernel.assistance import AssistanceError
from popek.solving.solver import Answer
from popek_specs.vtx import rows

SKYLAKE, PENRYN = "intel-skylake", "bochs-core2-penryn-t9600"


DESK = desk_of(VT_X)


@cache
def synthesis(processor: str, *more: str) -> Synthesis:
    """For a VMM that owns everything, and more."""
    return synthesize(DESK, processor_of(DESK, processor), EVERYTHING | set(more))


# -- synthesis -----------------------------------------------------------------------------------------


def test_the_controls_enter_and_are_faithful_and_safe() -> None:
    found = synthesis(SKYLAKE)
    assert found.answer is Answer.SAT
    assert found.outcome == "enters"
    for form in governed_forms():
        assert DESK.required(form, found.profile).allows(found.controls), form


def test_with_ept_neither_cr3_nor_invlpg_exits() -> None:
    controls = synthesis(SKYLAKE).controls
    assert controls["secondary.enable_ept"]
    for name in ("cr3_load_exiting", "cr3_store_exiting", "invlpg_exiting"):
        assert not controls[f"primary.{name}"], name


def test_before_ept_they_must() -> None:
    found = synthesis(PENRYN, "cr3")
    assert found.answer is Answer.SAT
    for name in ("cr3_load_exiting", "cr3_store_exiting", "invlpg_exiting"):
        assert found.controls[f"primary.{name}"], name
    assert found.profile.unknown_mnemonics >= {"RDTSCP", "INVPCID", "XSAVES"}
    assert found.fields["CR0_GUEST_HOST_MASK"] & 0x80010001 == 0x80010001


def test_the_fewest_exits() -> None:
    controls = synthesis(SKYLAKE).controls
    for needless in ("rdtsc_exiting", "pause_exiting", "monitor_exiting", "mwait_exiting"):
        assert not controls[f"primary.{needless}"], needless
    for needless in ("descriptor_table_exiting", "rdrand_exiting", "rdseed_exiting"):
        assert not controls[f"secondary.{needless}"], needless
    assert controls["primary.use_tsc_offsetting"]
    assert controls["primary.use_msr_bitmaps"]
    assert synthesis(SKYLAKE).controls["msr_bitmap"] == 1


def test_without_io_bitmaps_every_port_exits() -> None:
    found = synthesis(SKYLAKE)
    io = found.controls["primary.use_io_bitmaps"], found.controls["primary.unconditional_io_exiting"]
    assert io == (0, 1) or (io[0] == 1 and found.controls["io_bitmap"] == 1)
    # A processor that cannot use I/O bitmaps leaves one way.
    capabilities = load_capabilities(SKYLAKE)
    msrs = dict(capabilities.msrs)
    for number in (0x482, 0x48E):
        msrs[number] &= ~(1 << 32 + 25)
    less = synthesize(DESK, of_capabilities(attrs.evolve(capabilities, msrs=msrs)))
    assert less.controls["primary.unconditional_io_exiting"] == 1


def test_without_ept_and_with_the_guests_page_tables_there_is_no_answer() -> None:
    found = synthesis(PENRYN)
    assert found.answer is Answer.UNSAT
    assert "memory" in found.core
    assert [(item.control, item.where) for item in found.missing] == [
        ("secondary.enable_ept", "IA32_VMX_PROCBASED_CTLS2[33]")
    ]


def test_weights_are_read_and_bad_ones_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.toml"
    file.write_text("RDTSC = 1e6\nHLT = 3\n")
    assert load_weights(str(file)) == {"RDTSC": 1e6, "HLT": 3.0}
    file.write_text('RDTSC = "often"\n')
    with pytest.raises(WeightsError, match=r"weights\.toml: RDTSC: expected a number"):
        load_weights(str(file))
    with pytest.raises(WeightsError, match="No such file"):
        load_weights(str(tmp_path / "none.toml"))


# -- judging -----------------------------------------------------------------------------------------


@cache
def judged(name: str) -> Judgement:
    """A hypervisor, without witnesses."""
    return judge(VT_X, hypervisors()[name], witnesses=False)


def harmed(judgement: Judgement) -> set[tuple[str, str]]:
    """Who is harmed by what."""
    return {(harm.owner, row.mnemonic) for row in judgement.rows for harm in row.harms}


def test_the_settings_are_those_of_the_facts() -> None:
    facts = {
        (row["control"], row["id"]): set(row["used_by"].split()) | set(row["required_by"].split())
        for row in rows("hypervisor-controls.csv")
    }
    for name, settings in hypervisors().items():
        known = {"KVM-without-EPT": "KVM"}.get(name, name)
        for control, value in ((c, settings.controls[c]) for c in CONTROLS):
            group, _, bit = control.partition(".")
            assert not value or known in facts[group, bit.upper()], f"{name}: {control}"


def test_kvm_can_own_everything_but_wastes_two_exits() -> None:
    found = judged("KVM")
    assert set(found.kept) == EVERYTHING
    assert not harmed(found)
    assert {row.mnemonic for row in found.rows if row.needless} == {"MONITOR", "MWAIT"}


def test_a_thin_hypervisor_owns_nothing() -> None:
    found = judged("SimpleVisor")
    assert found.kept == ()
    assert {item.name for item in found.lacking} == {"external interrupts", "NMIs"}
    assert {
        ("ports", "IN"),
        ("ports", "OUT"),
        ("halt", "HLT"),
        ("time", "RDTSC"),
        ("debug", "MOV to DR"),
    } <= harmed(found)
    # It passes every VM-entry check, and leaves CR0.PE and CR4.VMXE to the guest.
    assert {("", "MOV to CR"), ("", "MOV from CR")} <= harmed(found)


def test_a_configuration_that_enters_and_is_not_safe_is_shown() -> None:
    """CR0.PE left to an unrestricted guest of a VMM that relies on it, and a port left open."""
    start = synthesis(SKYLAKE)
    secondary = start.fields["SECONDARY_PROC_CONTROLS"] | 1 << 7
    primary = start.fields["PRIMARY_PROC_CONTROLS"] & ~(1 << 24)
    from popek.architectures.vtx.baselines import baseline

    capabilities = load_capabilities(SKYLAKE)
    vmcs = baseline("32-bit", capabilities).with_fields(
        **{**start.fields, "EXCEPTION_BITMAP": 0, "SECONDARY_PROC_CONTROLS": secondary,
           "PRIMARY_PROC_CONTROLS": primary, "CR0_GUEST_HOST_MASK": 0x20, "CR4_GUEST_HOST_MASK": 0}
    )  # fmt: skip
    assert judge_entry(vmcs, capabilities).outcome.kind == "enters"
    owner = attrs.evolve(of_vmcs(vmcs), assume={})
    found = judge(VT_X, owner, forms=["MOV CR0, r32", "MOV CR4, r32", "MOV r32, CR4", "OUT imm8, AL"])
    shown = {row.form: row.harms[0] for row in found.rows if row.harms}
    assert shown["MOV CR0, r32"].failure == "unsafe"
    assert shown["MOV r32, CR4"].failure == "unfaithful"
    assert shown["OUT imm8, AL"].owner == "ports"
    witness = shown["MOV CR0, r32"].witness
    assert witness is not None
    assert "cr0.pe 1 → 0" in witness.virtualized or "cr0.pg 1 → 0" in witness.virtualized


def test_a_vmcs_without_its_controls_is_refused() -> None:
    with pytest.raises(AssistanceError, match="dump: PRIMARY_PROC_CONTROLS: not given"):
        of_vmcs(Vmcs("dump", {"PIN_CONTROLS": 0x3F}))


# -- the command line --------------------------------------------------------------------------------


run = partial(commands.popek, "assist")


def test_requirements_as_json() -> None:
    done = run("requirements", "vt-x", "HLT", "RDTSC", "--own", "halt,time", "--witnesses", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["schema"] == "popek/assistance-requirements/1"
    by_form = {row["form"]: row for row in answer["instructions"]}
    assert by_form["HLT"]["safe"] == "primary.hlt_exiting = 1"
    assert {(n["control"], n["value"]) for n in by_form["HLT"]["needs"]} == {("primary.hlt_exiting", 1)}
    assert by_form["HLT"]["needs"][0]["witness"]["virtualized"] == "eip 0x1000 → 0x1001; halted 0 → 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("requirements", "vt-x", "--own", "prots"),
            "--own prots: nothing called 'prots' can be owned; did you mean ports?",
        ),
        (("requirements", "vt-x", "HTL"), "unknown instruction 'HTL'"),
        (("synthesize", "vt-x", "--processor", "intel-skylak"), "intel-skylak"),
        (("judge", "vt-x", "KWM"), "KWM: neither a file nor a known configuration; did you mean kvm?"),
        (("synthesize", "vt-x", "--own", "cr3", "--assume", "unrestricted"), "needs EPT"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_dump_is_judged(tmp_path: Path) -> None:
    file = tmp_path / "vmcs.json"
    fields = {"PIN_CONTROLS": "0x16", "PRIMARY_PROC_CONTROLS": "0x401e172", "CR0_GUEST_HOST_MASK": "0x0"}
    file.write_text(json.dumps({"name": "open", "fields": fields}))
    done = run("judge", "vt-x", str(file), "--no-witnesses", "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert answer["can_own"] == []
    harmed_by = {(row["mnemonic"], h["owner"]) for row in answer["instructions"] for h in row["harms"]}
    assert ("HLT", "halt") in harmed_by
    assert ("MOV from CR", "any") in harmed_by


# -- before and after ----------------------------------------------------------------------------------


def test_what_was_critical_before_is_faithful_and_safe_after() -> None:
    found = gain(VT_X, ["POPFD", "SGDT m", "MOV r32, Sreg", "MOV CR3, r32"])
    assert set(found.critical) == {"POPF", "SGDT", "MOV sreg"}
    assert found.as_claimed
    by_form = {row.form: row for row in found.rows}
    assert by_form["POPFD"].problem == "interrupt virtualization"
    assert {under.exits for under in by_form["POPFD"].after.values()} == {"never"}
    after = {name: under.exits for name, under in by_form["MOV CR3, r32"].after.items()}
    assert after == {"vt-x-2005": "always", "best": "never"}
