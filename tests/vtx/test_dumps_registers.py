"""Registers of a guest that other programs print: VirtualBox' context, KVM_GET_SREGS in JSON and as Rust has it."""

from __future__ import annotations

import json

import pytest

from popek.architectures.vtx.dumps import Dump, DumpError, read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose

SEGMENT = {
    "base": 0xFFFF0000, "limit": 0xFFFF, "selector": 0xF000, "type": 11, "present": 1, "dpl": 0, "db": 0, "s": 1,
    "l": 0, "g": 0, "avl": 0, "unusable": 0,
}  # fmt: skip
DATA = {**SEGMENT, "base": 0, "selector": 0, "type": 3}
SREGS = {
    "cs": SEGMENT, "ds": DATA, "es": DATA, "fs": DATA, "gs": DATA, "ss": DATA, "tr": {**DATA, "type": 11, "s": 0},
    "ldt": {**DATA, "type": 2, "s": 0}, "gdt": {"base": 0x500, "limit": 31}, "idt": {"base": 0, "limit": 0xFFFF},
    "cr0": 0x60000010, "cr2": 0, "cr3": 0, "cr4": 0, "cr8": 0, "efer": 0, "apic_base": 0xFEE00900,
}  # fmt: skip


def one(text: str) -> Dump:
    (dump,) = read_dumps(text.encode(), "input")
    return dump


def rust(pretty: bool) -> str:
    """As `{:?}` or `{:#?}` prints it."""
    gap = "\n        " if pretty else " "

    def structure(name: str, parts: dict[str, int]) -> str:
        inner = f",{gap}".join(
            f"{'type_' if key == 'type' else key}: {value}" for key, value in parts.items()
        )
        return f"{name} {{{gap}{inner}{gap}}}"

    parts = []
    for key, value in SREGS.items():
        shown = str(value)
        if isinstance(value, dict):
            shown = structure("kvm_dtable" if key in ("gdt", "idt") else "kvm_segment", value)
        parts.append(f"{key}: {shown}")
    return (
        "vcpu 0 failed: kvm_sregs {"
        + gap
        + f",{gap}".join(parts)
        + gap
        + "}\nkvm_regs { rip: 65520, rflags: 2 }\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**SREGS, "rip": "0xfff0", "rflags": 2}),
        json.dumps({"regs": {"rip": 0xFFF0, "rflags": "0x2"}, "sregs": SREGS}, indent=2),
        rust(pretty=False),
        rust(pretty=True),
    ],
)
def test_the_registers_that_kvm_gives(text: str) -> None:
    dump = one(text)
    assert dump.format == "KVM registers"
    assert dump.fields["GUEST_RIP"] == 0xFFF0
    assert dump.fields["GUEST_RFLAGS"] == 2
    assert dump.fields["GUEST_CS_SELECTOR"] == 0xF000
    assert dump.fields["GUEST_CS_BASE"] == 0xFFFF0000
    assert dump.fields["GUEST_CS_ACCESS_RIGHTS"] == 0x9B
    assert dump.fields["GUEST_TR_ACCESS_RIGHTS"] == 0x8B
    assert dump.fields["GUEST_LDTR_ACCESS_RIGHTS"] == 0x82
    assert dump.fields["GUEST_GDTR_BASE"] == 0x500
    assert dump.fields["GUEST_GDTR_LIMIT"] == 31
    # The VMCS has other bits there (CR4.VMXE, CR0.NE): said, and not judged.
    assert dump.reported["kvm_cr0"] == "0x60000010"
    assert not {"GUEST_CR0", "GUEST_CR4", "GUEST_IA32_EFER"} & set(dump.fields)
    assert not diagnose(dump).verdict.failed
    assert "guest's view" in dump.remarks[0].text


def test_numbers_that_are_none_are_named() -> None:
    with pytest.raises(DumpError, match=r"GUEST_CS_BASE: expected a number, found 'zero'"):
        one(json.dumps({**SREGS, "cs": {**SEGMENT, "base": "zero"}}))
    with pytest.raises(DumpError, match=r"GUEST_CS_SELECTOR: 65536 does not fit in 16 bits"):
        one(json.dumps({**SREGS, "cs": {**SEGMENT, "selector": 65536}}))
    with pytest.raises(DumpError, match="no key 'fields'"):
        one(json.dumps({"cs": {}, "cr0": 0}))


GURU = """\
00:01:02.345678 HM: VERR_VMX_INVALID_GUEST_STATE
00:01:02.345678 eip=0000fff0 esp=00000200 ebp=00000000 iopl=0 nv up di pl nz na po nc
00:01:02.345678 cs={f000 base=00000000ffff0000 limit=0000ffff flags=0000009b} dr0=0000000000000000
00:01:02.345678 ss={0000 base=0000000000000000 limit=0000ffff flags=00000093} cr0=0000000060000010 cr2=0
00:01:02.345678 gdtr=0000000000000500:001f  idtr=0000000000000000:ffff  eflags=00000002
00:01:02.345678 ldtr={0000 base=00000000 limit=0000ffff flags=00000082}
00:01:02.345678 tr={0000 base=00000000 limit=0000ffff flags=0000008b}
"""


@pytest.mark.parametrize("prefix", ["", "    ", "> ", "+"])
def test_virtualbox_in_lower_case(prefix: str) -> None:
    dump = one("".join(prefix + line + "\n" for line in GURU.splitlines()))
    expected = {
        "GUEST_RIP": 0xFFF0, "GUEST_RSP": 0x200, "GUEST_RFLAGS": 2, "GUEST_CS_SELECTOR": 0xF000,
        "GUEST_CS_BASE": 0xFFFF0000, "GUEST_CS_ACCESS_RIGHTS": 0x9B, "GUEST_SS_ACCESS_RIGHTS": 0x93,
        "GUEST_GDTR_BASE": 0x500, "GUEST_GDTR_LIMIT": 0x1F, "GUEST_IDTR_LIMIT": 0xFFFF,
        "GUEST_LDTR_ACCESS_RIGHTS": 0x82, "GUEST_TR_ACCESS_RIGHTS": 0x8B,
    }  # fmt: skip
    assert expected.items() <= dump.fields.items()
    assert not [name for name in dump.fields if name.startswith("HOST_")]
    assert dump.reported["virtualbox_cr0"] == "0000000060000010"
    assert not diagnose(dump).verdict.failed
