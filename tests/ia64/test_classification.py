"""Plain Itanium under ring deprivileging, and VT-i: what is critical, and which rule closes it.

Expectations are the published statements (privify and Xen; SDM vols. 2 and 3); where the derived classes
go further, the reason stands with the test.
"""

from __future__ import annotations

from functools import cache

import attrs
import pytest

from popek.architectures.ia64.state import Ia64
from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.outcome import Next

from .machine_room import ia64

# Replaced by trapping stand-ins in binary rewriting (privify), and sensitive by a strict reading.
REWRITTEN = {"THASH", "TTAG", "FC", "MOV from CPUID", "MOV from AR.K", "MOV from PMD", "COVER"}
STRICT = {"PROBE", "MOV to AR.RSC", "MOV from AR.RSC", "MOV from AR.PFS", "BR.CALL", "BRL.CALL", "TF", "EPC"}
# Beyond the published lists: alloc copies PFS, and ppl with it, into a register; br.ret sets CPL from PFS;
# fc.i is fc; a speculative load defers where the level may not read.
DERIVED = {"ALLOC", "BR.RET", "FC.I", "LD1.S", "LD2.S", "LD4.S", "LD8.S", "LDF8.S"}

PRIVILEGED = {
    "SSM", "RSM", "MOV to PSR.L", "MOV from PSR", "BSW", "RFI", "MOV to CR", "MOV from CR", "MOV to CR16-25",
    "MOV from CR16-25", "MOV from CR65-71", "MOV from CR.IVR", "MOV to CR.TPR", "MOV to CR.EOI",
    "MOV to CR.ITM", "MOV from CR.ITM", "MOV to RR", "MOV from RR", "MOV to PKR", "MOV from PKR",
    "MOV to IBR", "MOV from IBR",
    "MOV to DBR", "MOV from DBR", "MOV to PMC", "MOV from PMC", "MOV to PMD", "MOV to MSR", "MOV from MSR",
    "ITC.D", "ITC.I", "ITR.D", "ITR.I", "PTC.L", "PTC.G", "PTC.GA", "PTC.E", "PTR.D", "PTR.I", "TPA", "TAK",
    "MOV to AR.ITC",
}  # fmt: skip
INNOCUOUS = {
    "ADD", "SUB", "ADDS", "AND", "CMP.EQ", "TNAT", "LD8", "ST8", "XCHG8", "BR", "NOP", "MF", "SRLZ.D",
    "FLUSHRS", "LOADRS", "CLRRRB", "MOV to BR", "MOV from BR", "MOV to PR", "MOV from IP", "SUM", "RUM",
    "MOV to PSR.UM",
    "CMPXCHG1", "CMP8XCHG16", "FETCHADD8", "LFETCH", "LFETCH.FAULT", "CHK.S", "BRP", "BR.CLOOP",
    "MOV to AR.FPSR", "MOV from AR.UNAT", "GETF.SIG", "SETF.EXP", "LDF.FILL", "STF.SPILL", "FMERGE.S", "FSELECT",
    "FSETC",
    "BREAK", "INVALA", "SYNC.I", "FWB", "BR.IA",
}  # fmt: skip


@cache
def classes(technique: str, *settings: str) -> dict[str, Classification]:
    """Every form's classification."""
    machine = ia64()
    classifier = Classifier(Subject.of(machine, technique, settings))
    return {form: classifier.classify(i) for form, i in machine.instructions.items()}


@cache
def one(technique: str, mnemonic: str, *settings: str) -> list[Classification]:
    """The classifications of one mnemonic."""
    machine = ia64()
    classifier = Classifier(Subject.of(machine, technique, settings))
    return [classifier.classify(i) for i in machine.find(mnemonic)]


def critical(found: dict[str, Classification]) -> set[str]:
    return {c.instruction.mnemonic for c in found.values() if c.critical is Truth.YES}


def test_nothing_is_unknown() -> None:
    for technique in ("ring-deprivileging-pl1", "vt-i"):
        for form, found in classes(technique).items():
            assert Truth.UNKNOWN not in (found.sensitive, found.privileged), f"{technique}: {form}"


def test_the_critical_set_of_plain_itanium() -> None:
    assert critical(classes("ring-deprivileging-pl1")) == REWRITTEN | STRICT | DERIVED


def test_each_critical_instruction_has_a_witness_that_replays() -> None:
    for form, found in classes("ring-deprivileging-pl1").items():
        if found.critical is Truth.YES:
            witness = found.witness
            assert witness is not None, form
            assert witness.differ, form
            assert isinstance(witness.first.outcome, Next), form


@pytest.mark.parametrize("technique", ["ring-deprivileging-pl1", "vt-i"])
def test_privileged_instructions(technique) -> None:
    found = classes(technique)
    privileged = {c.instruction.mnemonic for c in found.values() if c.privileged is Truth.YES}
    assert privileged >= PRIVILEGED


@pytest.mark.parametrize("technique", ["ring-deprivileging-pl1", "vt-i"])
def test_innocuous_instructions(technique) -> None:
    found = classes(technique)
    innocuous = {c.instruction.mnemonic for c in found.values() if c.innocuous is Truth.YES}
    assert innocuous >= INNOCUOUS


@pytest.mark.parametrize(
    ("form", "component"),
    [
        ("thash r = r", "cr.pta"), ("thash r = r", "rr"), ("ttag r = r", "rr"), ("cover", "cr.ifs"),
        ("fc r", "dirty"), ("mov r = cpuid[r]", "cpuid"), ("mov r = ar.k", "kr"), ("mov r = pmd[r]", "pmd"),
        ("mov r = pmd[r]", "psr.cpl"), ("mov ar.rsc = r", "psr.cpl"), ("mov r = ar.rsc", "ar.rsc.pl"),
        ("mov r = ar.pfs", "ar.pfs.ppl"), ("br.call b = imm25", "psr.cpl"),
        ("probe.r gr = gr, imm2", "psr.cpl"), ("tf r = imm8", "cpuid"),
    ],
)  # fmt: skip
def test_what_leaks_on_plain_itanium(form, component) -> None:
    assert component in classes("ring-deprivileging-pl1")[form].components


@pytest.mark.parametrize("level", [2, 3])
def test_the_level_of_the_guests_kernel_does_not_matter(level) -> None:
    for mnemonic in ("THASH", "COVER", "MOV from PMD", "PROBE", "MOV to AR.RSC"):
        found = one(f"ring-deprivileging-pl{level}", mnemonic)
        assert all(c.critical is Truth.YES for c in found), mnemonic
    assert all(c.privileged is Truth.YES for c in one(f"ring-deprivileging-pl{level}", "SSM"))


def test_what_vt_i_leaves_open() -> None:
    # The published remainder: mov from pmd first of all, tf, the kernel registers, DCR-dependent speculation.
    found = classes("vt-i")
    speculative = {"LD1.S", "LD2.S", "LD4.S", "LD8.S", "LDF8.S"}
    assert critical(found) == {"MOV from PMD", "MOV to AR.K", "MOV from AR.K", "TF"} | speculative
    assert "pmd" in found["mov r = pmd[r]"].components


def test_what_the_guest_owns_under_vt_i_is_no_control_of_the_hardware() -> None:
    # epc and br.ret change the guest's own CPL, fc and fc.i write back the guest's own lines.
    technique = ia64().technique("vt-i")
    claimed = Classifier(Subject.of(ia64(), attrs.evolve(technique, guests_own=()), ()))
    for form, leaf in (("epc", "psr.cpl"), ("br.ret b", "psr.cpl"), ("fc r", "dirty"), ("fc.i r", "dirty")):
        instruction = ia64().instructions[form]
        assert claimed.classify(instruction).critical is Truth.YES, form
        assert leaf in technique.guests_own
        assert classes("vt-i")[form].innocuous is Truth.YES, form


@pytest.mark.parametrize("name", ["vt-i", "vt-i-switched"])
def test_what_the_guest_owns_holds_its_values_and_is_not_the_vmms(name) -> None:
    technique = ia64().technique(name)
    assert technique.guests_own
    assert not {*technique.guests_own} & {*technique.owned, *technique.replaced}
    guest = Ia64.symbolic()
    hardware = technique.map(guest, Ia64.symbolic("'"))
    for own in technique.guests_own:
        if own in guest.memories():
            assert hardware.memories()[own] is guest.memories()[own], own
        else:
            assert hardware[own].term is guest[own].term, own


@pytest.mark.parametrize("mnemonic", ["THASH", "TTAG", "COVER", "MOV from CPUID"])
def test_vt_i_makes_the_published_four_privileged(mnemonic) -> None:
    assert all(c.privileged is Truth.YES for c in one("vt-i", mnemonic))


@pytest.mark.parametrize("mnemonic", ["MOV to AR.RSC", "MOV from AR.PFS", "PROBE", "BR.CALL", "ALLOC"])
def test_under_vt_i_the_guests_level_is_its_own(mnemonic) -> None:
    assert all(c.innocuous is Truth.YES for c in one("vt-i", mnemonic))


def test_switching_registers_with_the_guest_closes_pmd_and_the_kernel_registers() -> None:
    for mnemonic in ("MOV from PMD", "MOV from AR.K"):
        assert all(c.critical is Truth.NO for c in one("vt-i-switched", mnemonic))


def test_psr_si_decides_whether_the_interval_timer_is_privileged() -> None:
    for technique in ("ring-deprivileging-pl1", "vt-i"):
        assert one(technique, "MOV from AR.ITC", "SI=1")[0].privileged is Truth.YES
        assert one(technique, "MOV from AR.ITC", "SI=0")[0].privileged is Truth.NO


def test_the_interval_timer_is_sensitive_where_time_is_state() -> None:
    machine = ia64()
    classifier = Classifier(Subject.of(machine, "vt-i", ["SI=0"], time_is_state=True))
    assert classifier.classify(machine.instructions["mov r = ar.itc"]).critical is Truth.YES


@pytest.mark.parametrize(
    ("mnemonic", "setting"),
    [
        ("MOV to CR.ITM", "D_ITM=1"), ("MOV to CR.TPR", "D_EXTINT=1"), ("MOV from CR.IVR", "D_EXTINT=1"),
        ("MOV to IBR", "D_IBR_DBR=1"), ("MOV from DBR", "D_IBR_DBR=1"), ("MOV to PMC", "D_PMC=1"),
        ("MOV to PMD", "D_TO_PMD=1"), ("RSM", "D_PSR_I=1"), ("VMSW", "D_VMSW=0"),
    ],
)  # fmt: skip
def test_a_disable_bit_opens_what_it_governs(mnemonic, setting) -> None:
    assert Truth.YES in {c.critical for c in one("vt-i", mnemonic, setting)}
    name, value = setting.split("=")
    assert Truth.YES not in {c.critical for c in one("vt-i", mnemonic, f"{name}={1 - int(value)}")}


def test_without_promotion_pages_vmsw_never_completes() -> None:
    assert all(c.innocuous is Truth.YES for c in one("vt-i", "VMSW", "D_VMSW=0", "PROMOTION_PAGES=0"))


def test_the_optional_virtualization_of_probe_makes_it_privileged() -> None:
    forms = [c for c in one("vt-i", "PROBE", "PROBE_VF=1") if not c.instruction.form.endswith("fault")]
    assert forms
    assert all(c.privileged is Truth.YES for c in forms)
