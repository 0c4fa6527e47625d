"""A processor that somebody names: what its preset is not sure of accuses nobody, and a dump can show it wrong."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console

from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.dumps import read_dumps
from popek.architectures.vtx.dumps.diagnosis import Diagnosis, diagnose
from popek.report.vmcs import print_check
from popek.vmcs.repair import repair

SECONDARY = "PRIMARY_PROC_CONTROLS = 0xb5986dfa\nSECONDARY_PROC_CONTROLS = {:#x}\n"
FAILED = """*** Guest State ***
CR3 = 0x8000000001000000
*** Control State ***
PinBased=0000007f CPUBased=b5986dfa SecondaryExec=40002c6a
EntryControls=0000d1ff ExitControls=002befff
reason={:x} qualification=0000000000000000
"""


def diagnosed(text: str, known: Capabilities) -> Diagnosis:
    return diagnose(read_dumps(text.encode(), "paste")[0], known)


def printed(found: Diagnosis) -> str:
    out = io.StringIO()
    print_check(Console(file=out, width=100, highlight=False, markup=False), found)
    return " ".join(out.getvalue().split())


def test_a_value_that_lacks_a_second_source_accuses_nobody() -> None:
    """intel-haswell is not sure of 48BH, and XSAVES (bit 20) is what it says cannot be."""
    haswell = load_capabilities("intel-haswell")
    assert "0x48b" in haswell.unsure
    assert not haswell.msrs[0x48B] >> 52 & 1
    found = diagnosed(SECONDARY.format(1 << 20), haswell)
    assert found.verdict.failed == ()
    assert [item.id for item in found.suspects] == ["CTL-CAP-03"]
    assert "bit 20 ('Enable XSAVES/XRSTORS') may not be 1" in found.suspects[0].message
    assert "(48BH), of which intel-haswell is not sure" in found.suspects[0].message
    assert "intel-haswell is not sure of these, so they decide nothing" in printed(found)


def test_the_same_value_accuses_where_somebody_is_sure_of_it() -> None:
    """The other side: the same number, given by rdmsr of 48BH, 480H and 482H."""
    haswell = load_capabilities("intel-haswell")
    asked = attrs.evolve(haswell, unsure=(), named=False)
    assert [item.id for item in diagnosed(SECONDARY.format(1 << 20), asked).verdict.failed] == ["CTL-CAP-03"]


def test_a_width_that_lacks_a_second_source_accuses_nobody() -> None:
    """intel-westmere is not sure of its 36 bits: CR3 with bit 40 is in order on other processors."""
    westmere = load_capabilities("intel-westmere")
    assert "maxphyaddr" in westmere.unsure
    found = diagnosed(f"GUEST_CR3 = {1 << 40:#x}\n", westmere)
    assert found.verdict.failed == ()
    assert diagnosed(f"GUEST_CR3 = {1 << 52:#x}\n", westmere).verdict.failed[0].id == "GUEST-CR-09"


@pytest.mark.parametrize("preset", ["bochs-core2-penryn-t9600", "intel-westmere", "sandybridge"])
def test_a_dump_that_came_as_far_as_the_guest_shows_that_its_controls_are_allowed(preset: str) -> None:
    """Exit reason 80000021H: the controls passed, bit 30 of the secondary ones, too, which these presets lack."""
    known = load_capabilities(preset)
    found = diagnosed(FAILED.format(0x80000021), known)
    assert [item.id for item in found.verdict.failed] == ["GUEST-CR-09"]
    text = printed(found)
    assert f"this dump is not from {known.name}, whose values are left aside" in text
    assert "bit 30 ('VMM bus-lock detection') may not be 1" in text
    assert f"processor: unknown, not {known.name}" in text
    assert not [item.id for item in found.suspects if item.id.startswith("CTL-")]


def test_a_dump_without_a_report_is_rather_of_another_processor() -> None:
    sandy = load_capabilities("sandybridge")
    found = diagnosed("\n".join(FAILED.splitlines()[:-1]), sandy)
    assert "CTL-CAP-03" not in [item.id for item in found.verdict.failed]
    assert "this dump is not from" in printed(found)


def test_a_reported_error_of_the_controls_is_explained_by_the_preset() -> None:
    """VM-instruction error 7 says that some control was refused."""
    sandy = load_capabilities("sandybridge")
    text = "\n".join(FAILED.splitlines()[:-1]) + "\nVMLAUNCH failed! Instruction error 7\n"
    found = diagnosed(text, sandy)
    assert "CTL-CAP-03" in [item.id for item in found.verdict.failed]
    assert found.against == ()
    assert found.agreement == "The failed checks explain this."


def test_cases_that_somebody_wrote_for_a_processor_are_judged_by_it() -> None:
    text = '{"fields": {"PIN_CONTROLS": "0x1016"}, "capabilities": "bochs-tigerlake"}'
    dump = read_dumps(text.encode(), "case")[0]
    assert [item.id for item in diagnose(dump, load_capabilities("bochs-tigerlake")).verdict.failed] == [
        "CTL-CAP-01"
    ]


def test_repair_believes_the_same_processor() -> None:
    from popek.architectures.vtx.dumps.diagnosis import vmcs_of

    dump = read_dumps(FAILED.format(0x80000021).encode(), "paste")[0]
    found = repair(vmcs_of(dump), load_capabilities("sandybridge"))
    assert [change.field for change in found.changes] == ["GUEST_CR3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PIN_CONTROLS = 0x1012\n", ["bit 2 (reserved) must be 1", "bit 12 (reserved) may not be 1"]),
        ("GUEST_CR0 = 0x80000011\n", ["bit 5 (NE, numeric error) must be 1"]),
        ("ENTRY_CONTROLS = 0x91ff\nGUEST_IA32_EFER = 0xf00\n", ["bit 9 (reserved) may not be 1"]),
        ("EXIT_CONTROLS = 0x36dff\nHOST_CR4 = 0x20\n", ["bit 13 (VMXE, VMX enable) must be 1"]),
        (
            SECONDARY.format(0x60000) + "EXIT_CONTROLS = 0xff036dff\n",
            ["bit 17 ('Enable PML') may not be 1", "bit 18 ('EPT-violation #VE') may not be 1"],
        ),
    ],
)
def test_every_bit_at_fault_is_named(text: str, words: list[str]) -> None:
    """SDM vol. 3, appendix A.3: bits of pin[2] and pin[4] are default1; CR0.NE and CR4.VMXE are fixed to 1."""
    known = attrs.evolve(load_capabilities("bochs-core2-penryn-t9600"), named=False)
    shown = printed(diagnosed(text, known))
    for word in words:
        assert word in shown
