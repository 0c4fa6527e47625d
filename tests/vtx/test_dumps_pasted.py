"""What people paste: any prefix, wrapping, encoding and foreign line; nothing false, and what is dropped is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answers import contradictions_of
from pastes import VMCS
from popek.architectures.vtx.dumps import Dump, DumpError, read_dumps
from popek.architectures.vtx.dumps.diagnosis import Diagnosis, diagnose

FOLDER = Path(__file__).parent / "dumps"
NAMES = ["03", "11", "12", "16", "21"]


def body(number: str) -> list[str]:
    (path,) = FOLDER.glob(f"{number}-*.txt")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [re.sub(r"^\[[\d.]+\]\[T\d+\] ", "", line) for line in lines]


def one(data: bytes | str) -> Dump:
    (dump,) = read_dumps(data.encode() if isinstance(data, str) else data, "input")
    return dump


PREFIXES = {
    "Markdown": "    ",
    "tab": "\t",
    "patch": "+",
    "patch and blank": "+ ",
    "removed": "-",
    "bar": "| ",
    "quoted bar": "> > | ",
    "GitHub": "2024-05-01T12:34:56.1234567Z ",
    "Jenkins": "[2024-05-01T12:34:56.123Z] ",
    "clock": "12:34:56  ",
    "dmesg -x": "kern  :warn  : [  123.456789] ",
    "dmesg -d": "[  123.456789 <    0.000012>] ",
    "dmesg -H": "[  +0.000012] ",
    "dmesg -H, first": "[Jun24 17:25] ",
    "journal in full": "Wed 2024-06-26 12:00:01 UTC host kernel: ",
    "journal, ISO": "2024-06-26T12:00:01+0200 host kernel: ",
    "dmesg, ISO": "2024-06-26T12:00:01,123456+02:00 ",
    "journal, seconds": "1719400000.123456 host kernel: ",
    "journal, monotonic": "[  123.456789] host kernel: ",
    "German": "M\u00e4r 24 17:25:51 host kernel: ",
    "French": "d\u00e9c. 24 17:25:51 host kernel: ",
    "Chinese": "6\u6708 24 17:25:51 host kernel: ",
    "without a host": "Jun 24 17:25:51 kernel: ",
    "Xen's console": "Jun 19 10:11:12.345678 (XEN) ",
    "Android": "06-24 17:25:51.123  1234  5678 I kernel  : ",
    "container": "qemu-1  | ",
    "no-break spaces": "\u00a0\u00a0",
}


@pytest.mark.parametrize("number", NAMES)
@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES.keys())
def test_prefixes_change_no_field(number: str, prefix: str) -> None:
    assert (
        one("\n".join(prefix + line for line in body(number))).fields == one("\n".join(body(number))).fields
    )


@pytest.mark.parametrize("number", ["03", "11", "16", "21"])
@pytest.mark.parametrize(
    "prefix", ["~~node7~~ 12/34 ", "cell 3: ", "Jun 24 17:25:51 myhost ", "a=b; c 1 -> "]
)
def test_a_prefix_that_nobody_knows_is_learnt_from_the_headings(number: str, prefix: str) -> None:
    assert (
        one("\n".join(prefix + line for line in body(number))).fields == one("\n".join(body(number))).fields
    )


@pytest.mark.parametrize("number", NAMES)
def test_line_numbers_html_and_encodings_change_no_field(number: str) -> None:
    lines = body(number)
    expected = one("\n".join(lines)).fields
    assert one("\n".join(f"{count:4} {line}" for count, line in enumerate(lines, 1))).fields == expected
    assert one("\n".join(f"log.txt:{count}:{line}" for count, line in enumerate(lines, 1))).fields == expected
    marked = [line.replace("&", "&amp;").replace(">", "&gt;").replace(" ", "&nbsp;") for line in lines]
    assert one("<br>\n".join(marked)).fields == expected
    assert one("<pre>" + "<br/>".join(marked) + "</pre>").fields == expected
    for encoding in ("utf-16", "utf-16-le", "utf-8-sig"):
        assert one("\n".join(lines).encode(encoding)).fields == expected


@pytest.mark.parametrize("number", ["03", "11", "16", "21"])
@pytest.mark.parametrize("width", [72, 80])
def test_lines_that_a_terminal_broke(number: str, width: int) -> None:
    lines = [f"[ 1234.567890] kvm_intel: {line}" for line in body(number)]
    broken = [line[at : at + width] for line in lines for at in range(0, max(len(line), 1), width)]
    found, expected = one("\n".join(broken)).fields, one("\n".join(body(number))).fields
    assert found.items() <= expected.items()
    assert len(found) >= len(expected) - 2  # what stands behind a name that was broken is not read


# -- false statements ----------------------------------------------------------------------


def test_registers_of_a_guest_are_not_the_hosts() -> None:
    text = "Attr SS = 0xc093\nAttr DS = 0xc093\nAttr CS = 0xa09b\nGUEST_RFLAGS = 0x2\n"
    assert one(text).fields == {"GUEST_RFLAGS": 2}
    qemu = (
        "EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000600\n"
        "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n"
        "ES =0000 00000000 0000ffff 00009300\nCS =f000 ffff0000 0000ffff 00009b00\n"
        "SS =0000 00000000 0000ffff 00009300\nTR =0000 00000000 0000ffff 00008b00\n"
    )
    for indent in ("", "    ", "\t"):
        dump = one("".join(indent + line + "\n" for line in qemu.splitlines()))
        assert not [name for name in dump.fields if name.startswith("HOST_")]
        assert dump.fields["GUEST_CS_SELECTOR"] == 0xF000


def test_a_header_survives_its_prefix() -> None:
    lines = body("11")
    assert any("error" in line for line in lines[:3])
    text = "\n".join("Jun 19 10:11:12.345678 " + line for line in lines)
    assert one(text).fields["VM_INSTRUCTION_ERROR"] == 7
    found = diagnose(one(text))
    assert "succeeded" not in " ".join((found.summary, found.agreement, *found.happening.sentences))


@pytest.mark.parametrize(
    "line", ["reason = 5", "INTR_STATE=00000001", "the reason = 12 was given", "target0=1"]
)
def test_a_foreign_line_does_not_refuse_the_dump(line: str) -> None:
    lines = body("03")
    for place in range(0, len(lines), 7):
        dump = one("\n".join((*lines[:place], line, *lines[place:])))
        assert dump.fields == one("\n".join(lines)).fields
        assert any(line.split()[0].split("=")[0] in item.text for item in (*dump.unrecognised, *dump.remarks))


def test_a_foreign_line_in_front_makes_no_second_dump() -> None:
    for number in NAMES:
        lines = body(number)
        for foreign in ("reason = 5", "limit=12", "base = 1", "qualification = 0"):
            assert one("\n".join((foreign, *lines))).fields == one("\n".join(lines)).fields, (number, foreign)


def test_a_log_in_brackets_with_a_brace_is_no_json() -> None:
    text = "[ 1.0] start {\n" + "\n".join(f"[ 1.000000] {line}" for line in body("03"))
    assert one(text).fields == one("\n".join(body("03"))).fields


@pytest.mark.parametrize(
    "prefix", ["", "[ 1.000000] ", "Jun 24 17:25:51 host kernel: ", "> ", "2024-05-01T12:34:56.1Z "]
)
@pytest.mark.parametrize(
    "text",
    [
        "KVM: entry failed, hardware error 0xffffffff\nEIP=0000fff0 EFL=00000002 [-------] CPL=0",
        "SVM: VMCB 00000000a1b2c3d4, last attempted VMRUN on CPU 3\nVMCB Control Area:\ncr_read:            0000",
    ],
)
def test_amds_texts_are_told_apart(text: str, prefix: str) -> None:
    with pytest.raises(DumpError, match="AMD VMCB") as caught:
        one("\n".join(prefix + line for line in text.splitlines()))
    assert "popek vmcb check" in caught.value.message


def test_two_values_of_a_field_are_neither_taken() -> None:
    dump = one("GUEST_RFLAGS = 0x2\nGUEST_CR0 = 0x1\nGUEST_RFLAGS = 0x3\nGUEST_RFLAGS = 0x2\n")
    assert dump.fields == {"GUEST_CR0": 1}
    assert "GUEST_RFLAGS is 0x3 here but 0x2 on line 1: neither is taken" in dump.remarks[0].text


# -- what never changes ----------------------------------------------------------------------


def verdicts(text: str) -> Diagnosis:
    return diagnose(one(text))


def failed(found: Diagnosis) -> set[str]:
    return {item.id for item in found.verdict.failed}


def contradicts_itself(found: Diagnosis) -> bool:
    """Whether an answer says both that the entry failed and that it succeeded."""
    said = (found.label, found.summary, found.agreement, *found.happening.sentences)
    return contradictions_of(" ".join(said)) != []


FOREIGN = st.sampled_from(
    [
        "usb 1-1: new high-speed USB device number 2", "reason = 5", "foo: CS = 12", "CR3 is wrong", "limit=12",
        "RIP: 0010:0xffffffff81000000", "CPU: 3 PID: 4321 Comm: qemu", "CR2: 0000000000000000 CR3: 0000000001000000",
        "RAX: 0000000000000000 RBX: ffff888000000000", "error = 0x7", "Attr SS = 0xc093", "[drm] x = {1}", "---", "",
        "Code: 0f 01 c3 90 90", "EFLAGS: 00010246", "IDTR broken?", "base = 1", "--- a/b.c", "1 2 3",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    number=st.sampled_from(NAMES),
    prefix=st.sampled_from(["", *PREFIXES.values()]),
    foreign=st.lists(st.tuples(st.integers(0, 200), FOREIGN), max_size=6),
)
def test_no_prefix_and_no_foreign_line_makes_a_check_fail(
    number: str, prefix: str, foreign: list[tuple[int, str]]
) -> None:
    lines = body(number)
    whole = verdicts("\n".join(lines))
    for place, text in foreign:
        lines.insert(place % (len(lines) + 1), text)
    found = verdicts("\n".join(prefix + line for line in lines))
    assert failed(found) <= failed(whole)
    assert not contradicts_itself(found)
    lost = set(whole.dump.fields) - set(found.dump.fields)
    assert not lost or found.dump.remarks or found.dump.unrecognised


@settings(deadline=None, max_examples=60)
@given(
    number=st.sampled_from(NAMES), at=st.floats(0, 1), prefix=st.sampled_from(["", "[ 1.000000] ", "    "])
)
def test_a_dump_that_is_cut_fails_nothing_more(number: str, at: float, prefix: str) -> None:
    text = "\n".join(prefix + line for line in body(number))
    whole = verdicts(text)
    try:
        found = verdicts(text[: int(len(text) * at)])
    except DumpError:
        return
    assert failed(found) <= failed(whole)
    assert not contradicts_itself(found)


@settings(deadline=None, max_examples=40)
@given(number=st.sampled_from(NAMES), width=st.integers(40, 100))
def test_wrapping_fails_nothing_more(number: str, width: int) -> None:
    lines = body(number)
    whole = verdicts("\n".join(lines))
    broken = [line[at : at + width] for line in lines for at in range(0, max(len(line), 1), width)]
    try:
        found = verdicts("\n".join(broken))
    except DumpError:
        return  # a number that cannot be put together again is named
    assert failed(found) <= failed(whole)


# -- MSR areas that KVM lists ----------------------------------------------------------------------------

_LISTED = "   0: msr=0x00000600 value=0x0000000000000000"


def _with_list(entries: str, reason: str = "80000022", qualification: int = 1) -> Diagnosis:
    text = VMCS.replace(_LISTED, entries, 1)
    text = text.replace(
        "reason=80000021 qualification=" + "0" * 16, f"reason={reason} qualification={qualification:016x}"
    )
    text = text.replace("RFLAGS=0x00000244", "RFLAGS=0x00000246").replace("=0000d1ff", "=0000d3ff")
    (dump,) = read_dumps(text.encode(), "x")
    return diagnose(dump)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("msr=0x00000480 value=0x0000000000000000", "IA32_VMX_BASIC (480H) is read-only"),
        ("msr=0x00000277 value=0x0000000000000002", "IA32_PAT (277H)"),
        ("msr=0x000000fe value=0x0000000000000000", "IA32_MTRRCAP (FEH) is read-only"),
    ],
)
def test_a_listed_msr_that_cannot_be_loaded_is_named(entry: str, words: str) -> None:
    """Where the area lies is not printed, and nobody needs it."""
    found = _with_list(f"   0: {entry}")
    assert [item.id for item in found.verdict.failed] == ["LOAD-06"]
    assert words in found.verdict.failed[0].message
    assert found.agreement == "The failed checks explain this."


def test_listed_msrs_that_can_be_loaded_are_no_question_and_others_are_named() -> None:
    found = _with_list("   0: msr=0x00000277 value=0x0000000000000006")
    lacking = {item.id: item.missing for item in found.verdict.undecided if item.id.startswith("LOAD")}
    assert lacking == {"LOAD-04": ("memory: bits 63:32 of the entries of the MSR area",)}
    found = _with_list("   0: msr=0x00001234 value=0x0000000000000006")
    (what,) = next(item.missing for item in found.verdict.undecided if item.id == "LOAD-06")
    assert "1234H" in what
    # What only a VM exit would tell is not asked for.
    assert not any(item.id.startswith("EXIT") for item in found.one_away)


def test_a_list_with_a_hole_is_none() -> None:
    whole = "   0: msr=0x00000480 value=0x0000000000000000\n   1: msr=0x00000277 value=0x0000000000000006"
    assert [item.id for item in _with_list(whole).verdict.failed] == ["LOAD-06"]
    for text in (
        whole.split("\n")[0].replace("0: msr", "1: msr"),
        whole.replace("480 value=0x0", "480 value=*"),
    ):
        assert not _with_list(text).verdict.failed
