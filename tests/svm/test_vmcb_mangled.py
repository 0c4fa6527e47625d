"""A VMCB in more than a hundred manglings: no field changes, nothing is accused that was not, what is lost is named."""

from __future__ import annotations

import pytest

from pastes import LOSSY, MANGLED, OOPS, QEMU, VMCB, VMCS
from pastes_more import LOSING, MORE
from popek.architectures.dump import DumpError
from popek.architectures.svm.dumps import read_vmcbs
from popek.architectures.svm.verdict import judge
from popek.architectures.svm.vmcb import VmcbDump


def read(data: str | bytes) -> VmcbDump:
    (dump,) = read_vmcbs(data.encode() if isinstance(data, str) else data, "x")
    return dump


def failed(dump: VmcbDump) -> set[str]:
    verdict = judge(dump.vmcb)
    return {item.id for item in (*verdict.failed, *verdict.warnings)}


WHOLE = read(VMCB)
FAILED = {"SVM-CR-04"}


def test_the_dump_as_it_is() -> None:
    assert len(WHOLE.vmcb.fields) == 98
    assert failed(WHOLE) == FAILED
    assert [item.text for item in WHOLE.unrecognised] == ["vmpl: 0"]


EVERY = {**MANGLED, **MORE}


@pytest.mark.parametrize("name", EVERY)
def test_no_mangling_accuses_falsely(name: str) -> None:
    dump = read(EVERY[name](VMCB.rstrip("\n").split("\n")))
    assert dump.vmcb.fields.items() <= WHOLE.vmcb.fields.items()
    assert failed(dump) <= FAILED
    if name in LOSSY | LOSING:
        assert dump.unrecognised or dump.remarks
    else:
        assert dump.vmcb.fields == WHOLE.vmcb.fields


@pytest.mark.parametrize(
    "text",
    [
        VMCS,  # it has a line EFER= 0x…
        OOPS,
        QEMU,
        "the guest died\nEFER = 0xd01\nCR0 = 0x20000010\n",
        "EFER: 0x0\nCR0: 0x20000010",
    ],
)
def test_registers_of_something_else_are_no_vmcb(text: str) -> None:
    with pytest.raises(DumpError):
        read(text)


def test_a_vmcs_is_told_apart() -> None:
    with pytest.raises(DumpError, match="popek vmcs check") as caught:
        read(VMCS)
    assert caught.value.line == 2


def test_registers_beside_a_vmcb_are_not_its_own() -> None:
    dump = read(VMCB.replace("efer:", "ever:") + "\nEFER = 0x0\nASID = 17\n")
    assert "EFER" not in dump.vmcb.fields
    assert any("EFER = 0x0" in item.text for item in dump.unrecognised)


@pytest.mark.parametrize("cut", ["...", "\u2026", ">"])
def test_a_number_that_a_pager_cut_is_no_number(cut: str) -> None:
    """Xen pads few of its numbers, so that a part of one looks whole."""
    text = "Dumping guest's current state at vmexit...\nasid = 0x5 np_ctrl = 0x1: NP\n"
    dump = read(text + f"exitinfo1 = 0 exitinfo2 = 0x7fff{cut}\ncpl = 3 efer = 0x1d{cut}\n")
    assert dump.vmcb.fields == {"ASID": 5, "NP_CONTROL": 1, "EXITINFO1": 0, "CPL": 3}
