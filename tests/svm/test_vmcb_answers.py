"""What is said of VMCBs: no answer contradicts itself, a preset accuses of what is sure, what to do next, names."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from answers import contradictions_of, repair_contradicts
from popek.architectures.dump import DumpError
from popek.architectures.svm.baselines import MODES, baseline
from popek.architectures.svm.capabilities import load_capabilities
from popek.architectures.svm.checks import CHECKS, ledger
from popek.architectures.svm.control_bits import control_bits, readers, unchecked, unchecked_rows
from popek.architectures.svm.dumps import read_vmcbs
from popek.architectures.svm.exit_codes import codes, find_code, named
from popek.architectures.svm.explanation import explanation
from popek.architectures.svm.verdict import judge
from popek.architectures.svm.vmcb import FIELDS, SvmProcessor, Vmcb, VmcbDump, intercepts
from popek.architectures.vtx.dumps import read_dumps
from popek.report.vmcb import WORDS, text_of
from popek.report.vmcs_repair import print_repair
from popek.vmcs.vmcb import repair_vmcb

ROME, GENOA, TURIN, ZEN4 = (load_capabilities(name) for name in ("rome", "genoa", "turin", "zen4"))


def said(vmcb: Vmcb, processor: SvmProcessor | None = None) -> str:
    known = processor or SvmProcessor()
    return text_of(VmcbDump(vmcb), known, judge(vmcb, known))


def repaired(vmcb: Vmcb, processor: SvmProcessor) -> str:
    out = io.StringIO()
    print_repair(Console(file=out, width=200), "x", repair_vmcb(vmcb, processor), WORDS)
    return out.getvalue()


LOOKED_AT = sorted({name for check in CHECKS.values() for name in check.fields})


# -- contradictions ------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(list(MODES)),
    code=st.sampled_from([None, 0, 0x40, 0x78, 0x400, 0x403, 0xFFFF_FFFF, (1 << 64) - 1, (1 << 64) - 2]),
    flips=st.lists(st.tuples(st.sampled_from(LOOKED_AT), st.integers(0, 63)), max_size=3),
    kept=st.integers(1, 9),
    known=st.sampled_from([SvmProcessor(), ROME, GENOA, TURIN]),
)
def test_no_answer_contradicts_itself(
    mode: str, code: int | None, flips: list[tuple[str, int]], kept: int, known: SvmProcessor
) -> None:
    fields = {
        name: value
        for number, (name, value) in enumerate(baseline(mode).fields.items())
        if number % 9 <= kept
    }
    fields |= {name: fields[name] ^ 1 << bit % FIELDS[name].width for name, bit in flips if name in fields}
    fields.pop("EXITCODE", None)
    vmcb = Vmcb("x", fields if code is None else {**fields, "EXITCODE": code})
    text = said(vmcb, known)
    assert contradictions_of(text) == [], text
    assert not {item.id for item in judge(vmcb, known).failed} & {
        item.id for item in judge(vmcb, known).undecided
    }


def test_values_that_fail_are_not_said_to_have_entered() -> None:
    text = said(Vmcb("x", {"ASID": 0, "EXITCODE": 0x400}))
    assert contradictions_of(text) == []
    assert "comes after other values than these" in text
    assert judge(Vmcb("x", {"ASID": 0, "EXITCODE": 0x400})).explains_report == "no"


@pytest.mark.parametrize("code", [(1 << 64) - 1, 0xFFFF_FFFF, (1 << 64) - 2])
def test_repair_never_has_nothing_to_change_where_a_failure_is_reported(code: int) -> None:
    whole = baseline("64-bit").with_fields(EXITCODE=code)
    assert repair_contradicts(repaired(whole, ZEN4), reported=True) == []
    partial = Vmcb("x", {"ASID": 1, "EXITCODE": code})
    assert repair_contradicts(repaired(partial, ZEN4), reported=True) == []


def test_what_some_processors_refuse_is_no_pass_of_every_check() -> None:
    """No exception has vector 9 any more (APM vol. 2, table 8-1): some processors refuse to inject it."""
    text = said(baseline("64-bit").with_fields(EVENTINJ=0x8000_0309), GENOA.sure)
    assert contradictions_of(text) == []
    assert "SVM-INJ-04" in text
    assert "none fails on every processor" in text


def test_a_pass_is_said_of_what_was_decided() -> None:
    text = said(Vmcb("x", {"ASID": 1}))
    assert "every check passes" not in text
    undecided = len(judge(Vmcb("x", {"ASID": 1})).undecided)
    assert (
        f"no check fails of the {len(CHECKS) - undecided} that could be decided; {undecided} lack inputs"
        in text
    )


@pytest.mark.parametrize("wrong", [{"ASID": 0}, {"ASID": 0, "CR3": 1 << 60}])
def test_the_asid_that_repair_offers_is_one_that_every_processor_has(wrong: dict[str, int]) -> None:
    """CPUID 8000000AH EBX is the number of ASIDs: 8 on the first processors, so that 1 is always one of them."""
    found = repair_vmcb(baseline("64-bit").with_fields(**wrong), ZEN4)
    assert {change.field: change.after for change in found.changes}["ASID"] == 1


# -- processors by name ------------------------------------------------------------------------


def test_a_value_that_lacks_a_second_source_accuses_nobody() -> None:
    """turin is not sure of its 52 bits, so bit 50 is open; bit 52 no processor has (APM vol. 2, 5.1)."""
    assert "maxphyaddr" in TURIN.unsure
    assert [item.id for item in judge(Vmcb(fields={"N_CR3": 1 << 52, "NP_CONTROL": 1}), TURIN).failed] == [
        "SVM-CTL-07"
    ]
    virtual_nmi = {"VINTR_CONTROL": 1 << 26, "INTERCEPTS_3": 0}
    verdict = judge(baseline("64-bit").with_fields(**virtual_nmi), ZEN4)
    assert verdict.failed == ()
    assert [item.id for item in verdict.warnings] == ["SVM-CTL-09"]
    assert "by vnmi, of which zen4 is not sure" in verdict.warnings[0].message
    sure = SvmProcessor(vnmi=True, flush_by_asid=True, maxphyaddr=48, cet=True)
    assert [item.id for item in judge(baseline("64-bit").with_fields(**virtual_nmi), sure).failed] == [
        "SVM-CTL-09"
    ]


def test_a_preset_that_the_dump_contradicts_is_left_aside() -> None:
    """The exit code of a nested page fault shows that VMRUN took a CR3 with bit 50; rome has 48 bits."""
    vmcb = Vmcb("x", {"CR3": 1 << 50, "EXITCODE": 0x400})
    verdict = judge(vmcb, ROME)
    assert verdict.failed == ()
    assert len(verdict.against) == 1
    assert verdict.against[0].startswith("SVM-CR-06")
    assert "not from rome (zen2), whose values are left aside" in said(vmcb, ROME)
    assert "SVM-CR-06" in verdict.to_json()["inferred"][0]
    assert [item.id for item in judge(vmcb.with_fields(EXITCODE=0xFFFF_FFFF), ROME).failed] == ["SVM-CR-06"]


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("naples", "zen"), ("zen1", "zen"), ("EPYC 7601", "zen"), ("Ryzen 7 1700X", "zen"), ("Ryzen 5 3400G", "zen"),
        ("rome", "zen2"), ("EPYC 7742", "zen2"), ("EPYC 7H12", "zen2"), ("AMD Ryzen 9 3950X 16-Core Processor", "zen2"),
        ("milan", "zen3"), ("EPYC 7763", "zen3"), ("EPYC-Milan", "zen3"), ("Ryzen 9 5950X", "zen3"), ("75F3", ""),
        ("genoa", "genoa"), ("EPYC 9654", "genoa"), ("Ryzen 9 7950X", "zen4"), ("Ryzen 5 5500U", "zen2"),
        ("turin", "turin"), ("EPYC 9755", "turin"), ("Ryzen 9 9950X", "zen5"), ("zen5", "zen5"),
        ("Opteron 6174", "barcelona"), ("Opteron_G5", "bulldozer"), ("FX-8350", "bulldozer"),
        ("Opteron 2218", "k8-revision-f"),
    ],
)  # fmt: skip
def test_processors_by_the_names_that_people_use(name: str, preset: str) -> None:
    if not preset:
        with pytest.raises(DumpError, match="neither a processor nor a file"):
            load_capabilities(name)
        return
    found = load_capabilities(name)
    assert found.named == (preset if name == preset else f"{name} ({preset})")
    lines = explanation(name)
    assert any(line.startswith("  source") for line in lines)
    assert any(line.startswith("  unsure") for line in lines) == bool(found.unsure)


@pytest.mark.parametrize("name", ["opteron", "epyc", "Ryzen", "jaguar"])
def test_a_name_that_tells_no_processor_says_what_to_compare(name: str) -> None:
    with pytest.raises(DumpError, match="compare: "):
        load_capabilities(name)
    assert "compare" in explanation(name)[1]


# -- what to do next ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("KVM: entry failed, hardware error 0xffffffff", "load kvm_amd with dump_invalid_vmcb=1"),
        ("(XEN) d3v0 vmexit VMEXIT_INVALID", "Xen on AMD: `xl dmesg`"),
        (
            "VERR_SVM_UNABLE_TO_START_VM (-4060)",
            "VirtualBox on AMD: give `popek vmcb check` the whole VBox.log",
        ),
        ("VERR_SVM_DISABLED", "no entry was tried"),
        ("VERR_VMX_MSR_ALL_VMX_DISABLED", "no entry was tried"),
        ("VERR_VMX_INVALID_VMCS_FIELD", "VirtualBox: give the whole VBox.log"),
        ("Hyper-V: the virtual machine failed to start", "Hyper-V prints no VMCS and no VMCB"),
        ("WHvRunVpExitReasonInvalidVpRegisterValue", "event log"),
        ("Hypervisor detected: Microsoft Hyper-V\nkvm: no hardware support", "enlightened_vmcs=0"),
        ("vm exit[0]\n\treason\t\tVMX\n\trip\t\t0x10\n", "bhyve on Intel: `bhyvectl --vm=NAME"),
        ("vm exit[0]\n\treason\t\tSVM\n\trip\t\t0x10\n", "`popek vmcb check`"),
    ],
)
def test_what_to_do_next_is_one_line(text: str, words: str) -> None:
    for read in (read_dumps, read_vmcbs):
        with pytest.raises(DumpError) as caught:
            read(text.encode(), "paste")
        if "give it to" in caught.value.message and read is read_dumps:
            continue
        assert words in caught.value.message
        assert "\n" not in caught.value.message


# -- exit codes ------------------------------------------------------------------------

# APM vol. 2, appendix C, typed from the table: the first of each range, and the single ones.
APPENDIX = {
    0x0: "CR0_READ", 0xF: "CR15_READ", 0x10: "CR0_WRITE", 0x1F: "CR15_WRITE", 0x20: "DR0_READ", 0x30: "DR0_WRITE",
    0x3F: "DR15_WRITE", 0x40: "EXCP0", 0x4E: "EXCP14", 0x5F: "EXCP31", 0x60: "INTR", 0x61: "NMI", 0x62: "SMI",
    0x63: "INIT", 0x64: "VINTR", 0x65: "CR0_SEL_WRITE", 0x66: "IDTR_READ", 0x69: "TR_READ", 0x6A: "IDTR_WRITE",
    0x6D: "TR_WRITE", 0x6E: "RDTSC", 0x70: "PUSHF", 0x72: "CPUID", 0x75: "SWINT", 0x78: "HLT", 0x7B: "IOIO",
    0x7C: "MSR",
    0x7D: "TASK_SWITCH", 0x7E: "FERR_FREEZE", 0x7F: "SHUTDOWN", 0x80: "VMRUN", 0x81: "VMMCALL", 0x86: "SKINIT",
    0x88: "ICEBP", 0x89: "WBINVD", 0x8C: "MWAIT_CONDITIONAL", 0x8D: "XSETBV", 0x8E: "RDPRU", 0x8F: "EFER_WRITE_TRAP",
    0x90: "CR0_WRITE_TRAP", 0x9F: "CR15_WRITE_TRAP", 0xA0: "INVLPGB", 0xA2: "INVPCID", 0xA4: "TLBSYNC", 0x400: "NPF",
    0x401: "AVIC_INCOMPLETE_IPI", 0x402: "AVIC_NOACCEL", 0x403: "VMGEXIT", (1 << 64) - 1: "INVALID",
    (1 << 64) - 2: "BUSY", (1 << 64) - 3: "IDLE_REQUIRED",
}  # fmt: skip


@pytest.mark.parametrize("number", APPENDIX)
def test_exit_codes_are_those_of_the_appendix(number: int) -> None:
    name = f"VMEXIT_{APPENDIX[number]}"
    for subject in (name, hex(number), str(number)):
        lines = explanation(subject)
        assert lines[0].startswith(f"{name}  exit code")
        assert any("cause" in line for line in lines)


def test_every_intercept_leads_to_an_exit_code() -> None:
    assert {code for code in codes() if code <= 0xA6} == set(range(0xA7))
    assert all(item.cause and item.source for item in codes().values())
    from popek_specs.svm import rows

    for row in rows("intercepts.csv"):
        found = named(int(row["exit_code"], 16))
        assert found is not None
        assert row["intercept"].split()[0].split("/")[0].replace("INTn", "SWINT") in found.name.replace(
            "BUSLOCK", "BUS"
        )


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("-1", "INVALID"), ("-2", "BUSY"), ("-3", "IDLE_REQUIRED"), ("0xfffffffe", "BUSY"), ("SVM_EXIT_NPF", "NPF"),
        ("npf", "NPF"), ("SVM_EXIT_ERR", "INVALID"), ("400h", "NPF"),
    ],
)  # fmt: skip
def test_exit_codes_by_other_names(subject: str, name: str) -> None:
    found = find_code(subject)
    assert found is not None
    assert found.name == f"VMEXIT_{name}"


# -- the ledger ------------------------------------------------------------------------


def test_every_field_and_every_control_has_a_row() -> None:
    for field in FIELDS.values():
        assert readers(field.id) or unchecked(field.id), field.id
    for field_id, bit in intercepts():
        assert readers(field_id) or unchecked(field_id, bit), (field_id, bit)
    for bits in control_bits():
        asked = unchecked(bits.field, bits.low) or readers(bits.field)
        assert asked, bits.name
    for row in unchecked_rows().values():
        assert {name for name, _, _ in row.covers} <= set(FIELDS)
        assert row.id not in ledger()


def test_bits_without_a_check_change_no_verdict() -> None:
    """The other side of the rows: whatever they cover, a VMCB that enters still enters."""
    for mode in MODES:
        good = baseline(mode)
        for row in unchecked_rows().values():
            for name, high, low in row.covers:
                for bit in (low, min(high, FIELDS[name].width - 1)):
                    changed = good.with_fields(**{name: good.fields[name] ^ 1 << bit})
                    assert judge(changed, GENOA.sure).failed == (), (mode, row.id, bit)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("GMET", "guest-mode execute trap"), ("SSS", "supervisor shadow-stack check"), ("NP_CONTROL[3]", "SVM-CTL-20"),
        ("TSC_OFFSET", "SVM-NOCHK-06"), ("V_INTR_MASKING", "SVM-NOCHK-08"), ("SVM-NOCHK-15", "CLEAN"),
        ("GHCB", "no check"),
        ("SVM-CTL-20", "it accuses nobody"),
    ],
)  # fmt: skip
def test_what_is_not_checked_is_explained(subject: str, words: str) -> None:
    assert words in "\n".join(explanation(subject))
