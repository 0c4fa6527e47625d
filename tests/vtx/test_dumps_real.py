"""The published dumps: every printed number is kept, and fields are what a reader of the dump sees."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from popek.architectures.vtx.dumps import Dump, DumpError, read_dumps

FOLDER = Path(__file__).parent / "dumps"
FILES = sorted(FOLDER.glob("*.txt"))
WITH_FIELDS = [path for path in FILES if not path.name.startswith("36-")]

NUMBER = re.compile(
    r"(?<![\w|#.])(?:0x[0-9a-fA-F]+|[0-9a-f]{4,16})(?![\w#.])"
    r"|(?<=[=:] )[0-9a-f]{1,3}$|[0-9a-f]{2}\|[0-9a-f]{2}"
)
PREFIX = re.compile(r"^(?:\[[ 0-9.]+\](?:\[T\d+\])? |\(XEN\) |kvm_intel: |\[NoirVisor\] )+")


def only(name: str) -> Dump:
    (path,) = FOLDER.glob(f"{name}-*.txt")
    (dump,) = read_dumps(path.read_bytes(), path.name)
    return dump


def numbers(text: str) -> Counter[int]:
    """Every number in a line, by a rule that knows nothing of the layouts."""
    found: Counter[int] = Counter()
    for word in NUMBER.findall(text):
        found[int(word.replace("|", ""), 16)] += 1
    return found


def test_all_shared_dumps_are_here() -> None:
    assert [path.name[:2] for path in FILES] == ["03", "05", "10", "11", "12", "16", "21", "26", "31", "36"]


@pytest.mark.parametrize("path", WITH_FIELDS, ids=lambda path: path.name[:2])
def test_every_number_of_a_dump_ends_in_a_field_or_is_reported(path: Path) -> None:
    (dump,) = read_dumps(path.read_bytes(), path.name)
    by_line: dict[int, Counter[int]] = {}
    for field, line in dump.lines.items():
        by_line.setdefault(line, Counter())[dump.fields[field]] += 1
    reported = numbers(" ".join(dump.reported.values()))
    checked = 0
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        if raw.startswith("#"):
            continue
        text = PREFIX.sub("", raw)
        if text.startswith("haxm_warning: "):
            text = text.split(" ", 2)[2]  # behind the encoding
        if text.startswith("SVI|RVI"):
            text = text.split("TPR")[1]  # the two halves of the interrupt status, printed before
        for value, count in (numbers(text) - by_line.get(number, Counter())).items():
            assert value in reported, f"line {number}: {value:#x} ({count} times) is lost: {raw}"
        checked += sum(numbers(text).values())
    assert checked >= 17


@pytest.mark.parametrize("path", WITH_FIELDS, ids=lambda path: path.name[:2])
def test_nothing_but_prose_is_unrecognised(path: Path) -> None:
    (dump,) = read_dumps(path.read_bytes(), path.name)
    assert [item.text for item in dump.unrecognised] == (
        ["Launching vCPU..."] if path.name[:2] == "31" else []
    )
    assert dump.remarks == ()


@pytest.mark.parametrize(
    ("name", "format_", "count"),
    [
        # Counted by hand, line by line.
        ("21", "Linux KVM", 3 + 3 + 1 + 2 + 2 + 3 + 3),
        ("26", "HAXM", 22 + 1),  # one of the lines is the event, which is a triple fault
        ("31", "NoirVisor", 8 * 4 + 2 * 2 + 1),
    ],
)
def test_number_of_fields(name: str, format_: str, count: int) -> None:
    dump = only(name)
    assert dump.format == format_
    assert len(dump.fields) == count


def test_kvm_core2duo() -> None:
    dump = only("03")
    assert dump.format == "Linux KVM"
    expected = {
        "GUEST_CR0": 0x80000031,
        "CR0_READ_SHADOW": 0xE0000031,
        "CR4_GUEST_HOST_MASK": 0xFFFFFFFFFFFFE871,
        "GUEST_RFLAGS": 0x80202,
        "GUEST_DS_ACCESS_RIGHTS": 0xC0F2,
        "GUEST_SS_LIMIT": 0xEFFF,
        "GUEST_CS_BASE": 0x2110000,
        "GUEST_GDTR_LIMIT": 0x17,
        "GUEST_IA32_EFER": 0,
        "GUEST_IA32_PAT": 0x0007040600070406,
        "HOST_RIP": 0xFFFFFFFFC12525B0,
        "HOST_TR_SELECTOR": 0x40,
        "HOST_GDTR_BASE": 0xFFFFFE0000100000,
        "HOST_IA32_SYSENTER_CS": 0x10,
        "HOST_IA32_SYSENTER_EIP": 0xFFFFFFFFBD001720,
        "HOST_IA32_EFER": 0xD01,
        "SECONDARY_PROC_CONTROLS": 0x2C6A,
        "ENTRY_CONTROLS": 0xD1FF,
        "ENTRY_INTR_INFO": 0x4E6,
        "ENTRY_INSTRUCTION_LENGTH": 2,
        "EXIT_REASON": 0x80000021,
        "EPTP": 0x5FCEC605E,
        "PLE_WINDOW": 0x1000,
        "VPID": 1,
    }
    assert {field: dump.fields[field] for field in expected} == expected


def test_kvm_caller_prefix_and_virtual_interrupts() -> None:
    dump = only("05")
    assert dump.fields["APIC_ACCESS_ADDR"] == 0xE5DFC0000
    assert dump.fields["VIRTUAL_APIC_ADDR"] == 0xD2E76C000
    assert dump.fields["POSTED_INTR_NOTIFY_VECTOR"] == 0xF2
    assert dump.fields["VPID"] == 1
    assert dump.lines["VPID"] == 47


def test_kvm_effective_efer_is_no_field() -> None:
    dump = only("10")
    assert "GUEST_IA32_EFER" not in dump.fields
    assert "HOST_IA32_EFER" not in dump.fields
    assert dump.reported["guest_efer_effective"] == "0x0000000000000d01"
    assert dump.fields["GUEST_INTERRUPT_STATUS"] == 0xEC00
    assert dump.fields["VIRTUAL_APIC_ADDR"] == 0x360524000
    assert dump.fields["GUEST_PDPTE3"] == 0x5F187001
    assert dump.fields["TERTIARY_PROC_CONTROLS"] == 0
    assert dump.reported["cpu"] == "8"


def test_xen_error_header_and_saved_registers() -> None:
    dump = only("11")
    assert dump.format == "Xen"
    assert dump.fields["VM_INSTRUCTION_ERROR"] == 7
    assert dump.fields["IDT_VECTORING_INFO"] == 0x80000B0D
    assert dump.fields["EPTP_INDEX"] == 0
    assert dump.fields["GUEST_TR_ACCESS_RIGHTS"] == 0x8B
    assert dump.reported["host_rip_symbol"] == "vmac.c#vmx_asm_vmexit_handler"


def test_xen_wrapped_by_a_mailer() -> None:
    dump = only("12")
    assert dump.fields["GUEST_RIP"] == 0x209997
    assert dump.reported["guest_rip_register"] == "0x0000000000209998"
    assert dump.fields["HOST_TR_BASE"] == 0xFFFF82D08055E000
    assert dump.fields["TSC_MULTIPLIER"] == 0
    assert dump.fields["CR4_GUEST_HOST_MASK"] == 0xFFFFFFFFFFC8F860
    assert (dump.reported["domain"], dump.reported["vcpu"]) == ("3", "0")


def test_xen_header_gives_reason_and_qualification() -> None:
    dump = only("16")
    assert dump.fields["EXIT_REASON"] == 0x80000021
    assert dump.fields["EXIT_QUALIFICATION"] == 0
    assert dump.fields["GUEST_CR3"] == 0x800000001A02F080
    assert "GUEST_TR_SELECTOR" not in dump.fields


def test_haxm_maps_by_encoding() -> None:
    dump = only("26")
    assert dump.fields["CR3_TARGET_VALUE0"] == 0
    assert dump.fields["CR4_GUEST_HOST_MASK"] == 0xFFFFFFFFFFC8F860
    assert dump.fields["VPID"] == 1
    assert dump.reported["event"] == "Triple fault"


def test_noirvisor() -> None:
    dump = only("31")
    assert dump.fields["GUEST_FS_LIMIT"] == 0xBC00
    assert dump.fields["GUEST_IDTR_BASE"] == 0xFFFF94001CC4F000
    assert dump.fields["VM_INSTRUCTION_ERROR"] == 7


def test_a_capability_log_is_no_dump_and_says_where_it_belongs() -> None:
    path = FOLDER / "36-vbox-caps-macos-357.txt"
    with pytest.raises(DumpError, match="give it to --capabilities"):
        read_dumps(path.read_bytes(), path.name)
