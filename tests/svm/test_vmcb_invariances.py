"""What never changes the verdict on a VMCB, but towards undecided: prefixes, wrapping, foreign lines, cuts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pastes import OOPS, PREFIXES, QEMU, VMCB
from popek.architectures.dump import DumpError
from popek.architectures.svm.dumps import read_vmcbs
from popek.architectures.svm.verdict import judge
from popek.architectures.svm.vmcb import VmcbDump

# SYNTHETIC, in the layout that Xen prints (defects: bit 13 of CR4, CR0.NW without CR0.CD).
XEN = """\
Dumping guest's current state at vmexit...
Size of VMCB = 4096, paddr = 0x000000011e4c8000, vaddr = ffff83011e4c8000
cr_intercepts = 0xfff3fffb dr_intercepts = 0xffffffff exception_intercepts = 0x60082
general1_intercepts = 0xbdc4800f general2_intercepts = 0x2e7f
pause_filter_threshold = 0 pause_filter_count = 3000
iopm_base_pa = 0x11e4b1000 msrpm_base_pa = 0x11e4b4000 tsc_offset = 0xfffffa7d0f1c2e4a
tlb_control = 0 vintr = 0x1f01000200 int_stat = 0
event_inj 0000000080000b0e, valid? 1, ec? 1, type 3, vector 0xe
exitcode = 0xffffffffffffffff exit_int_info = 0
exitinfo1 = 0 exitinfo2 = 0x7fffdc7c2038
asid = 0x5 np_ctrl = 0x1: NP
vmsa_pa = 0 ghcb_msr = 0
virtual vmload/vmsave = 1, virt_ext = 0x2
cpl = 3 efer = 0x1d01 star = 0x23001000000000 lstar = 0xffffffff81c00080
CR0 = 0x00000000a0050033 CR2 = 0x00007fffdc7c2038
CR3 = 0x000000007a2e2000 CR4 = 0x00000000003526f0
RSP = 0x00007fffdc7c2040  RIP = 0x000000000040112a
RAX = 0x0000000000000000  RFLAGS=0x0000000000010246
DR6 = 0x00000000ffff0ff0, DR7 = 0x0000000000000400
CSTAR = 0xffffffff81c014e0 SFMask = 0x0000000000047700
KernGSBase = 0xffff88807dc00000 PAT = 0x0407050600070106
SSP = 0x0000000000000000 S_CET = 0x0000000000000000 ISST = 0x0000000000000000
H_CR3 = 0x000000011b6f5000 CleanBits = 0
       sel attr  limit   base
  CS: 0033 0afb ffffffff 0000000000000000
  DS: 0000 0000 ffffffff 0000000000000000
  SS: 002b 0cf3 ffffffff 0000000000000000
  ES: 0000 0000 ffffffff 0000000000000000
  FS: 0000 0000 ffffffff 00007f1f3b7c2740
  GS: 0000 0000 ffffffff 0000000000000000
GDTR: 0000 0000 0000007f fffffe0000001000
LDTR: 0000 0000 00000000 0000000000000000
IDTR: 0000 0000 00000fff fffffe0000000000
  TR: 0040 008b 00004087 fffffe0000003000
"""
LISTING = "ASID = 0\nEFER = 0xd01\nCR0 = 0x80010031\nCR4 = 0x20\nINTERCEPTS_4 = 1\nDR6 = 0x1ffff0ff0\n"
TEXTS = (VMCB, XEN, LISTING)
PRINTED = (VMCB, XEN)
"""Where the width of a number is known: one that is typed by hand ends where it ends."""


def one(text: str) -> VmcbDump:
    (dump,) = read_vmcbs(text.encode(), "x")
    return dump


def failed(dump: VmcbDump) -> set[str]:
    verdict = judge(dump.vmcb)
    return {item.id for item in (*verdict.failed, *verdict.warnings)}


def test_xens_listing() -> None:
    dump = one("\n".join("(XEN) [2026-11-02 08:15:30.123] " + line for line in XEN.splitlines()))
    fields = dump.vmcb.fields
    assert (fields["ASID"], fields["NP_CONTROL"], fields["N_CR3"], fields["CPL"]) == (5, 1, 0x11B6F5000, 3)
    assert (fields["VINTR_CONTROL"], fields["V_INTR_VECTOR"]) == (0x1000200, 0x1F)
    assert (fields["EVENTINJ"], fields["EVENTINJ_ERROR"]) == (0x80000B0E, 0)
    assert (fields["KERNEL_GS_BASE"], fields["G_PAT"]) == (0xFFFF88807DC00000, 0x407050600070106)
    assert (fields["PAUSE_FILTER_COUNT"], fields["CS_ATTRIBUTES"], fields["TR_LIMIT"]) == (
        3000,
        0xAFB,
        0x4087,
    )
    assert failed(dump) == {"SVM-CR-04", "SVM-CR-07"}


FOREIGN = st.sampled_from(
    [
        "usb 1-1: new high-speed USB device number 2", "EFER=0000000000000500", "CR4: 00000000000fffff", "asid of 3",
        "CR0=60000010 CR2=0000000000000000 CR3=0000000000000000 CR4=00000000", "rip: broken", "efer: 12", "", "---",
        "reason = 5", "limit=12", "INTR_STATE=00000001", *OOPS.splitlines(), *QEMU.splitlines()[8:],
    ]
)  # fmt: skip
UNKNOWN = st.sampled_from(["~~node7~~ 12/34 ", "cell 3: ", "a=b; c 1 -> ", "[vm/7] "])


def assert_nothing_new(whole: VmcbDump, dump: VmcbDump, *, prefix: str = "") -> None:
    """No value differs, nothing else is accused, and what was lost is named."""
    assert (
        dump.vmcb.fields.items()
        <= {"EXITCODE": dump.vmcb.fields.get("EXITCODE"), **whole.vmcb.fields}.items()
    )
    assert failed(dump) <= failed(whole), prefix
    lost = whole.vmcb.fields.keys() - dump.vmcb.fields.keys()
    assert not lost or dump.unrecognised or dump.remarks


@settings(deadline=None, max_examples=60)
@given(
    text=st.sampled_from(TEXTS),
    prefix=st.sampled_from(["", *PREFIXES.values()]),
    foreign=st.lists(st.tuples(st.integers(0, 60), FOREIGN), max_size=6),
)
def test_no_prefix_and_no_foreign_line_makes_a_check_fail(
    text: str, prefix: str, foreign: list[tuple[int, str]]
) -> None:
    whole, lines = one(text), text.splitlines()
    for place, words in foreign:
        # Within Xen's listing nothing tells its lines from such.
        if text is not XEN or "=" not in words:
            lines.insert(place % (len(lines) + 1), words)
    try:
        dump = one("\n".join(prefix + line for line in lines))
    except DumpError:
        assert text is LISTING  # which has no heading that an unknown prefix is learnt from
        return
    assert_nothing_new(whole, dump, prefix=prefix)


@settings(deadline=None, max_examples=20)
@given(prefix=UNKNOWN)
def test_a_prefix_that_nobody_knows_is_learnt_from_the_headings(prefix: str) -> None:
    dump = one("\n".join(prefix + line for line in VMCB.splitlines()))
    assert dump.vmcb.fields == one(VMCB).vmcb.fields


@settings(deadline=None, max_examples=60)
@given(
    text=st.sampled_from(TEXTS),
    width=st.integers(20, 110),
    prefix=st.sampled_from(["", "[ 1234.567890] kvm_amd: "]),
)
def test_wrapping_makes_no_check_fail(text: str, width: int, prefix: str) -> None:
    lines = [prefix + line for line in text.splitlines()]
    broken = [line[at : at + width] for line in lines for at in range(0, max(len(line), 1), width)]
    try:
        dump = one("\n".join(broken))
    except DumpError:
        return  # nothing of it is left, which is said
    assert_nothing_new(one(text), dump)


@settings(deadline=None, max_examples=80)
@given(
    text=st.sampled_from(PRINTED),
    at=st.floats(0, 1),
    prefix=st.sampled_from(["", "[ 1.000000] ", "    ", "> "]),
)
def test_a_cut_fails_nothing_more(text: str, at: float, prefix: str) -> None:
    whole = one(text)
    cut = "\n".join(prefix + line for line in text.splitlines())
    try:
        dump = one(cut[: int(len(cut) * at)])
    except DumpError:
        return
    assert failed(dump) <= failed(whole)
    assert dump.vmcb.fields.items() <= whole.vmcb.fields.items()


@pytest.mark.parametrize("text", [VMCB, XEN])
def test_every_cut_of_the_last_lines(text: str) -> None:
    """A number that goes on where the text was cut is not taken for a whole one."""
    whole = one(text)
    for at in range(len(text) * 3 // 4, len(text)):
        assert one(text[:at]).vmcb.fields.items() <= whole.vmcb.fields.items(), text[:at][-40:]
