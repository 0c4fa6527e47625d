"""Processors as people give them: by name, or by what vmxcap, /proc/cpuinfo, rdmsr and a debugger print."""

from __future__ import annotations

import attrs
import pytest

from popek.architectures.vtx import processor_names
from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import (
    CapabilityError,
    from_mapping,
    from_text,
    load_capabilities,
    presets,
    to_mapping,
)
from popek.architectures.vtx.dumps import read_dumps
from popek.architectures.vtx.dumps.explanation import explain
from popek.architectures.vtx.verdict import judge
from popek.architectures.vtx.vmcs import Vmcs
from popek_specs.vtx import table

SKYLAKE = load_capabilities("intel-skylake")


@pytest.mark.parametrize(
    "text",
    [
        "lkd> rdmsr 480\nmsr[480] = 00da0400`00000004\nlkd> rdmsr 481\nmsr[481] = 0000007f`00000016\n",
        "# rdmsr 0x480\nda040000000004\n# rdmsr 0x481\n7f00000016\n",
        "root@host:~# rdmsr -p 0 0x480\nda040000000004\nroot@host:~# rdmsr -p 0 0x481\n7f00000016\n",
        "$ sudo rdmsr -a 480\n\n0xda040000000004\n$ sudo rdmsr 481\n0x7f00000016\n",
        "IA32_VMX_BASIC (480H) = 00DA040000000004H\nIA32_VMX_PINBASED_CTLS (481H) = 0000007F00000016H\n",
        "IA32_VMX_BASIC (480H) = 0x00da040000000004\nIA32_VMX_PINBASED_CTLS (481h): 7f00000016\n",
    ],
)
def test_ways_to_write_an_msr(text: str) -> None:
    assert from_text(text).msrs == {0x480: 0x00DA_0400_0000_0004, 0x481: 0x7F_0000_0016}


def test_msrs_beside_a_dump_are_the_processors() -> None:
    text = (
        "msr[481] = 0000007f`00000016\nIA32_VMX_BASIC (480H) = 00DA040000000004H\nrdmsr 0x482 = 0xfff9fffe0401e172\n"
        "PIN_CONTROLS = 0x96\n"
    )
    (dump,) = read_dumps(text.encode(), "input")
    assert dump.capabilities == {
        "0x481": "0x7f00000016",
        "0x480": "0xda040000000004",
        "0x482": "0xfff9fffe0401e172",
    }
    assert dump.unrecognised == ()
    assert dump.fields == {"PIN_CONTROLS": 0x96}


def test_a_number_that_answers_nothing_is_no_msr() -> None:
    with pytest.raises(CapabilityError, match="no VMX capability MSR"):
        from_text("da040000000004\n7f00000016\n")
    # Prose between a command and a number ends the question.
    assert 0x481 not in from_text("# rdmsr 0x480\n1\n# rdmsr 0x481\nrdmsr: CPU 0 cannot read MSR\n16\n").msrs


# -- vmxcap ----------------------------------------------------------------------------------------

VMXCAP = """\
Basic VMX Information
  Hex: 0xda040000000004
  Revision                                 4
pin-based controls
  External interrupt exiting               yes
  NMI exiting                              yes
  Virtual NMIs                             yes
  Activate VMX-preemption timer            yes
  Process posted interrupts                no
primary processor-based controls
  CR3-load exiting                         default
  CR3-store exiting                        forced
  Activate secondary control               yes
secondary processor-based controls
  Enable EPT                               yes
  Enable RDTSCP                            no
  Mode-based execute control (XS/XU)       no
tertiary processor-based controls
  Enable IPI virtualization                no
VM-Exit controls
  Conceal VM exits from PT                 no
VM-Entry controls
  Load IA32_EFER                           yes
Miscellaneous data
  Hex: 0x7004c1e7
"""


def test_vmxcap_tells_single_bits() -> None:
    known = from_text(VMXCAP)
    assert known.msrs == {0x480: 0xDA0400_00000004, 0x485: 0x7004_C1E7}
    assert known.partial[0x481] == (0x69 << 32, 1 << 39 | 0xE9)
    # default: fixed to 1 by the plain MSR, free by the TRUE one; forced: by both.
    assert known.partial[0x482] == (0x8001_8000 << 32 | 0x1_8000, 1 << 31)
    assert known.partial[0x48E] == (0x8001_8000 << 32 | 0x1_0000, 1 << 31 | 1 << 15)
    assert known.partial[0x48B] == (2 << 32, 0x40_0008 << 32 | 0x40_000A)
    assert known.partial[0x492] == (0, 0x10)
    assert known.partial[0x483][1] == 1 << 56 | 1 << 24
    assert known.partial[0x484][0] == 1 << 47


def _failing(known: Capabilities, **fields: int) -> set[str]:
    return {item.id for item in judge(START.with_fields(**fields), known).failed}


START: Vmcs = baseline("64-bit", SKYLAKE)


def test_a_control_that_the_report_denies_fails_and_one_that_it_does_not_list_does_not() -> None:
    known = from_text(VMXCAP)
    pin = START.get("PIN_CONTROLS") or 0
    assert "CTL-CAP-01" in _failing(known, PIN_CONTROLS=pin | 0x80)
    assert "CTL-CAP-01" not in _failing(known, PIN_CONTROLS=pin | 0x40)
    assert "CTL-CAP-01" not in _failing(known, PIN_CONTROLS=pin | 0x100)
    assert "CTL-CAP-01" not in _failing(UNKNOWN, PIN_CONTROLS=pin | 0x80)


# -- /proc/cpuinfo -------------------------------------------------------------------------------

CPUINFO = """\
processor\t: 0
model name\t: Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz
flags\t\t: fpu vme msr pae mce lm nx syscall smep
vmx flags\t: vnmi preemption_timer invvpid ept_x_only ept_ad ept_1gb tsc_offset vtpr mtf vapic ept vpid ple pml
address sizes\t: 39 bits physical, 48 bits virtual

processor\t: 1
address sizes\t: 46 bits physical, 57 bits virtual
"""


def test_cpuinfo_is_a_partial_processor() -> None:
    known = from_text(CPUINFO)
    assert (known.name, known.maxphyaddr, known.linear_address_width) == (
        "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", 39, 48,
    )  # fmt: skip
    assert known.msrs == {}
    assert known.partial[0x481] == (0x60 << 32, 0)
    # "unrestricted_guest" is missing and every kernel with these flags shows it; "tsc_scaling" may be too new.
    assert known.partial[0x48B][1] == 1 << 39
    assert known.has("NX") is True
    assert known.has("FRED") is None
    encrypted = from_text(CPUINFO.replace("smep", "smep tme"))
    assert encrypted.maxphyaddr is None


def test_what_is_partly_known_decides_no_more_than_every_processor_that_fits() -> None:
    known = from_text(CPUINFO)
    for number, (ones, zeros) in known.partial.items():
        if number in SKYLAKE.msrs and number != 0x48B:  # a Skylake has unrestricted guests
            assert SKYLAKE.msrs[number] & ones == ones
            assert SKYLAKE.msrs[number] & zeros == 0
    told = attrs.evolve(SKYLAKE, msrs={0x480: SKYLAKE.msrs[0x480]}, partial={
        number: (value, (1 << 64) - 1 ^ value) for number, value in SKYLAKE.msrs.items() if number != 0x480
    })  # fmt: skip
    for changes in ({}, {"PIN_CONTROLS": 0x80}, {"SECONDARY_PROC_CONTROLS": 1 << 25}, {"GUEST_CR4": 1 << 22}):
        whole, bits = (judge(START.with_fields(**changes), one) for one in (SKYLAKE, told))
        assert {i.id for i in bits.failed} == {i.id for i in whole.failed}, changes
        assert {i.id for i in bits.undecided} <= {"CTL-CAP-09"}, changes


def test_partial_capabilities_are_written_and_read() -> None:
    known = from_text(VMXCAP)
    assert from_mapping(to_mapping(known)).partial == known.partial
    with pytest.raises(CapabilityError, match="said to be 1 and to be 0"):
        from_mapping({"bits": {"0x481": ["0x3", "0x1"]}})
    with pytest.raises(CapabilityError, match="expected two numbers"):
        from_mapping({"bits": {"0x481": "0x3"}})
    with pytest.raises(CapabilityError, match="no MSR number"):
        from_mapping({"bits": {"pin": ["0x3", "0x0"]}})


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("skylake", "intel-skylake"), ("coffee-lake", "intel-skylake"), ("Coffee Lake", "intel-skylake"),
        ("i7-8700", "intel-skylake"), ("i5-10400F", "intel-skylake"), ("i7-4770", "intel-haswell"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "intel-skylake"), ("icelake", "bochs-corei7-icelake-u"),
        ("i7-1065G7", "bochs-corei7-icelake-u"), ("tigerlake", "intel-tiger-lake"),
        ("nehalem", "bochs-corei5-lynnfield-750"),
        ("cascadelake", "partial/cascadelake-server"), ("sapphire-rapids", "partial/sapphire-rapids"),
        ("Icelake-Server", "partial/icelake-server"), ("i9-7900X", "bochs-corei7-skylake-x"),
    ],
)  # fmt: skip
def test_processors_have_the_names_that_people_use(name: str, preset: str) -> None:
    found = processor_names.find(name)
    assert found is not None
    assert found.preset == preset
    known = load_capabilities(name)
    assert known.source
    assert name in known.name
    (told,) = explain(name)
    assert ("source", known.source) in told.rows


@pytest.mark.parametrize("name", ["alder-lake", "i9-12900K", "Emerald Rapids", "meteorlake"])
def test_where_nothing_is_known_the_nearest_is_named_and_not_taken(name: str) -> None:
    with pytest.raises(CapabilityError, match=r"no public values .* name (intel-tiger-lake|sapphire-rapids)"):
        load_capabilities(name)


def test_every_name_leads_to_a_file_and_no_name_twice() -> None:
    rows = table("capabilities/partial/names.toml")
    names = [name for kind in ("processor", "unknown") for row in rows[kind] for name in row["names"]]
    assert len(names) == len(set(names))
    for row in rows["processor"]:
        assert row["preset"] in presets() or table(f"capabilities/{row['preset']}.toml")["source"]
    for row in rows["unknown"]:
        assert load_capabilities(row["compare"]).source
    assert processor_names.find("i7-6800K") is None  # a Broadwell by a Skylake's number


def test_what_a_server_has_at_least_is_allowed_and_what_it_may_have_is_not_denied() -> None:
    known = load_capabilities("sapphire-rapids")
    secondary = START.get("SECONDARY_PROC_CONTROLS") or 0
    for bit in (20, 25):  # XSAVES, which QEMU tells; TSC scaling, which it does not
        assert "CTL-CAP-03" not in _failing(known, SECONDARY_PROC_CONTROLS=secondary | 1 << bit)
