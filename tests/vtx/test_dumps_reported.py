"""What public reports have: lines of other programs that name a failure, KVM's registers as C prints them.

The texts are made up, their layouts are not.
"""

from __future__ import annotations

import pytest

from pastes import QEMU, VMCS
from popek.architectures.vtx.dumps import read_dumps
from popek.architectures.vtx.dumps.diagnosis import Diagnosis, diagnose


def read(text: str) -> Diagnosis:
    (dump,) = read_dumps(text.encode(), "x")
    return diagnose(dump)


@pytest.mark.parametrize(
    ("line", "said", "next_step"),
    [
        ("kvm: unhandled exit 80000021", "exit reason 33", True),
        ("KVM: fail entry 0x80000022", "exit reason 34", True),
        ("ERROR: KVM_EXIT_FAIL_ENTRY: hardware_entry_failure_reason = 0x80000021", "exit reason 33", True),
        ("[12:34] VM-entry failure exit reason: ffffffff00000021", "exit reason 33", False),
        ("ERROR:  - vm_instruction_error: VM entry with invalid host-state field(s)", "error 8", False),
        ("vm-instruction error = VM entry with invalid control field(s)", "error 7", False),
        ("[hv] VMLAUNCH failed. Instruction error = 7.", "error 7", False),
    ],
)
def test_an_error_line_alone_says_what_failed(line: str, said: str, next_step: bool) -> None:
    found = read(f"the first line\n{line}\n")
    assert said in found.happening.sentences[0]
    assert (found.label, not found.verdict.failed, bool(found.next_step)) == ("UNDECIDED", True, next_step)
    assert found.relevant


def test_an_internal_error_of_kvm_is_no_failed_entry() -> None:
    text = "KVM internal error. Suberror: 1\nemulation failure\n" + QEMU.split("processors.\n\n")[1]
    found = read(text)
    assert "could not emulate" in found.happening.sentences[0]
    assert "no VM entry failed" in found.happening.sentences[0]
    assert (found.near_misses, found.next_step) == ((), "")


SEGMENT = (
    "{0}  base: {1}     limit:0xffffffff selector: 0x8 type: {2} present: 0x1\n"
    "    dpl:0x0 db:0x0 s:0x1 l:{3} g:0x1 avl:0x0 unusable:0x0\n"
)


@pytest.mark.parametrize("base", [0x7000_0000_1000, 0x1000])
def test_kvms_registers_as_c_prints_them(base: int) -> None:
    """SDM vol. 3C, "Checks on Guest Segment Registers": bits 63:32 of the base of CS are 0."""
    text = (
        "vm: KVM_EXIT_FAIL_ENTRY\n== KVM_GET_REGS ==\nRAX: 0x5     RBX: 0x0\nRIP: 0x401000     RFLAGS: 0x46\n"
    )
    text += "== KVM_GET_SREGS ==\n" + SEGMENT.format("CS", hex(base), "0xb", "0x1")
    text += "".join(SEGMENT.format(name, "0x0", "0x3", "0x0") for name in ("DS", "ES", "FS"))
    found = read(text + "CR0: 0x80050033  CR3: 0x1000  CR4: 0x20\nEFER: 0x500\n")
    assert found.dump.format == "KVM registers"
    assert found.dump.fields["GUEST_CS_BASE"] == base
    assert found.dump.fields["GUEST_CS_ACCESS_RIGHTS"] == 0xA09B
    assert (found.dump.fields["GUEST_RIP"], found.dump.fields["GUEST_RFLAGS"]) == (0x401000, 0x46)
    assert found.dump.reported["kvm_cr4"] == "0x20"
    assert {item.id for item in found.verdict.failed} == ({"GUEST-BASE-11"} if base >> 32 else set())


def test_a_field_of_logfmt_is_the_line() -> None:
    wrapped = "\n".join(
        f'time="2026-11-30T16:05:12Z" level=error msg="{line}" name=containerd-shim-v2 pid=2577 source=qemu'
        for line in VMCS.rstrip().split("\n")
    )
    assert read(wrapped).dump.fields == read(VMCS).dump.fields
