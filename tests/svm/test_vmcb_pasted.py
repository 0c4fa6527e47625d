"""VMCBs as people paste them: known by their headings, behind any prefix, with foreign lines, cut and wrapped."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answers import contradictions_of
from popek.architectures.dump import DumpError
from popek.architectures.svm.dumps import VmcbDump, read_vmcbs
from popek.architectures.svm.verdict import judge
from popek.cli.errors import UserError
from popek.cli.vmcb import app

Run = Callable[..., tuple[int, str]]

# SYNTHETIC, in the layout that Linux KVM prints (defects: ASID 0, bit 29 of CR0 without bit 30).
KVM = """\
VMCB 00000000f00ba4aa, last attempted VMRUN on CPU 3
VMCB Control Area:
cr_read:            0001
cr_write:           0011
exceptions:         00060042
intercepts:         bd4c8027 0000204f
pause filter count: 3000
iopm_base_pa:       000000010a1c0000
asid:               0
nested_ctl:         1
nested_cr3:         0000000109f1c000
exit_code:          ffffffff
VMCB State Save Area:
cs:   s: f000 a: 009b l: 0000ffff b: 00000000ffff0000
cpl:            0               efer:         0000000000001000
cr0:            0000000020000010 cr2:          0000000000000000
rip:            000000000000fff0 rflags:       0000000000000002
gpat:           0007040600070406 dbgctl:       0000000000000000
"""
QEMU = """\
KVM: entry failed, hardware error 0xffffffff
RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=0000000000000000
RIP=000000000000fff0 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 0000ffff 00009300
CR0=60000010 CR2=0000000000000000 CR3=0000000000000000 CR4=00000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000500
"""
OOPS = """\
RIP: 0010:0xffffffff81000000
RSP: 0018:ffffc90000013df8 EFLAGS: 00010246
CR2: 0000000000000000 CR3: 0000000001000000 CR4: 00000000000fffff
DR0: 0000000000000000 DR6: 00000000fffe0ff0 DR7: 0000000000000400
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*args: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = app(list(args), result_action="return_value", exit_on_error=False)
        return code, capsys.readouterr().out

    return run_it


def one(text: str) -> VmcbDump:
    (dump,) = read_vmcbs(text.encode(), "x")
    return dump


EXPECTED = dict(one(KVM).vmcb.fields)


def test_registers_elsewhere_are_not_the_vmcbs() -> None:
    for text in (QEMU + KVM, KVM + QEMU, OOPS + KVM, KVM + OOPS, QEMU + KVM + OOPS):
        assert dict(one(text).vmcb.fields) | {"EXITCODE": 0} == EXPECTED | {"EXITCODE": 0}
    for text in (QEMU, QEMU.partition("\n")[2], OOPS):
        with pytest.raises(DumpError):
            read_vmcbs(text.encode(), "x")


def test_what_the_error_line_alone_asks_for() -> None:
    with pytest.raises(DumpError, match="dump_invalid_vmcb=1"):
        read_vmcbs(QEMU.encode(), "x")


def test_two_vmcbs_in_one_file(run: Run) -> None:
    second = KVM.replace("asid:               0", "asid:               7").replace("20000010", "60000010")
    first, other = read_vmcbs((KVM + second).encode(), "x")
    assert (first.vmcb.fields["ASID"], other.vmcb.fields["ASID"]) == (0, 7)
    assert (first.vmcb.name, other.vmcb.name) == ("x#1", "x#2")
    code, out = run("check", "-", "--json", stdin=KVM + second)
    assert code == 1
    assert [item["outcome"]["kind"] for item in json.loads(out)] == ["vmexit-invalid", "undecided"]


@pytest.mark.parametrize("text", ["asid = 010\n", "ASID = 010\n"])
def test_a_number_that_can_be_read_in_two_ways_is_asked_about(text: str, run: Run) -> None:
    with pytest.raises(
        UserError, match="1: ASID: 010: write 0x10 if it is hexadecimal, or the decimal number"
    ):
        run("check", "-", stdin=text)


def test_what_was_dropped_is_named(run: Run) -> None:
    text = KVM + "usb 1-1: new high-speed USB device\nASID = 0x3\n"
    code, out = run("check", "-", stdin=text)
    assert code == 1
    assert "1 piece of text not recognised" in out
    assert "usb 1-1" in out
    assert "ASID is 0x3 here but 0x0 on line 9: neither is taken" in out
    assert "SVM-CTL-02" not in [item.id for item in judge(one(text).vmcb).failed]


def test_a_vm_exit_shows_that_the_guest_was_entered(run: Run) -> None:
    _, out = run("check", "-", stdin="EXITCODE = 0x78\nASID = 1\n")
    assert "the last VMRUN entered the guest" in out
    assert "VMEXIT_HLT" in out
    _, out = run("check", "-", stdin=KVM)
    assert "entered the guest" not in out


def test_values_that_fail_are_not_said_to_have_entered(run: Run) -> None:
    """ASID 0 beside the exit code of HLT: VMRUN had other values."""
    text = KVM.replace("exit_code:          ffffffff", "exit_code:          00000078")
    _, out = run("check", "-", stdin=text)
    assert contradictions_of(out) == []
    assert "comes after other values than these" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"fields": {"ASID": "0x1"}, "memroy": []}', "did you mean 'memory'"),
        ('{"fields": {"ASID": "0x1"}, "capabilities": {"maxphyadr": 48}}', "did you mean 'maxphyaddr'"),
    ],
)
def test_unknown_keys_are_errors_with_near_ones(text: str, words: str, run: Run) -> None:
    with pytest.raises(UserError, match=words):
        run("check", "-", stdin=text)


def test_json_lines(run: Run) -> None:
    lines = ['{"fields": {"ASID": "0x0"}}', "", '{"fields": {"ASIDS": "0x0"}}', '{"fields": {"ASID": "0x1"}}']
    code, out = run("check", "-", "--jsonl", stdin="\n".join(lines))
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert [answer.get("outcome", {}).get("kind") for answer in answers] == [
        "vmexit-invalid",
        None,
        "undecided",
    ]
    assert "near: ASID" in answers[1]["error"]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("SVM-CR-06", "physical-address width"),
        ("asid", "058H"),
        ("0x400", "nested page fault"),
        ("-1", "VMEXIT_INVALID"),
    ],
)
def test_explain(subject: str, words: str, run: Run) -> None:
    code, out = run("explain", "--", subject)
    assert code == 0
    assert words in out


def test_explain_says_what_is_near(run: Run) -> None:
    with pytest.raises(UserError, match="SVM-CR-06"):
        run("explain", "SVM-CR-6")


# -- what never changes ----------------------------------------------------------------------

PREFIXES = st.sampled_from(
    [
        "", "    ", "\t", "> ", ">> ", "+", "| ", "[  100.000001] ", "[  100.000001] kvm_amd: ", "SVM: ",
        "Jun 24 17:25:51 host kernel: ", "Jun 24 17:25:51 kernel: ", "2024-05-01T12:34:56.1234567Z ",
        "kern  :err   : [  123.456789] ", "[Sat Nov 21 01:02:03 2026] ", "node7> ",
        "M\u00e4r 24 17:25:51 host kernel: ",
    ]
)  # fmt: skip
FOREIGN = st.sampled_from(
    [
        "usb 1-1: new high-speed USB device number 2", "EFER=0000000000000500", "CR4: 00000000000fffff", "asid of 3",
        "CR0=60000010 CR2=0000000000000000 CR3=0000000000000000 CR4=00000000", "rip: broken", "efer: 12", "", "---",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(prefix=PREFIXES, foreign=st.lists(st.tuples(st.integers(0, 40), FOREIGN), max_size=5))
def test_prefixes_and_foreign_lines_change_no_verdict(prefix: str, foreign: list[tuple[int, str]]) -> None:
    lines = KVM.splitlines()
    for place, text in foreign:
        lines.insert(place % (len(lines) + 1), text)
    dump = one("\n".join(prefix + line for line in lines))
    assert dict(dump.vmcb.fields) == EXPECTED


@settings(deadline=None, max_examples=80)
@given(at=st.integers(0, len(KVM)), prefix=PREFIXES)
def test_a_cut_fails_nothing_more(at: int, prefix: str) -> None:
    text = "\n".join(prefix + line for line in KVM[:at].splitlines())
    try:
        dump = one(text)
    except DumpError:
        return
    assert dump.vmcb.fields.items() <= EXPECTED.items()
    assert {item.id for item in judge(dump.vmcb).failed} <= {"SVM-CTL-02", "SVM-CR-04"}


@settings(deadline=None, max_examples=40)
@given(width=st.integers(24, 80))
def test_wrapped_pairs(width: int) -> None:
    wrapped = []
    for line in KVM.splitlines():
        while len(line) > width and (at := line.rfind(" ", 12, width)) > 0:
            wrapped.append(line[:at])
            line = line[at + 1 :]
        wrapped.append(line)
    assert one("\n".join(wrapped)).vmcb.fields.items() <= EXPECTED.items()
