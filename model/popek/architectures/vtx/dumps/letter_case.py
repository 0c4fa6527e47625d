"""A text whose letters all became capitals, or all small ones, in the case that its format prints."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from .layouts import CONTROL, GROUPS, GUEST, HOST, SEGMENT_REGISTERS, TABLE_REGISTERS

_OF_DUMP_VMCS: Final = re.compile(
    r"guest state|host state|control state|cr[04]: actual=|rflags=0x|pinbased\s*=|vmentry: intr_info|\bsel=0x"
)
_OF_QEMU: Final = re.compile(
    r"[re]ip=[0-9a-f]{8,16} [re]fl=|\b(?:[cdefgs]s|ldt|tr) ?=[0-9a-f]{4} [0-9a-f]{8}|[gi]dt= +[0-9a-f]{8}|cpl=\d ii="
)
_QEMU_WORD: Final = re.compile(
    r"\b(?:[re](?:[abcd]x|[sd]i|[bs]p|ip|fl)|r\d+|[cdefgs]s|ldt|tr|[gi]dt|cr[0-4]|dr[0-7]"
    r"|efer|cpl|ii|a20|smm|hlt)(?= ?=)"
)
_HEADERS: Final = (
    *(
        "VMCS",
        "VMCB",
        "VM-entry",
        "CPU",
        "VMLAUNCH",
        "VMRESUME",
        "VMRUN",
        "KVM",
        "XEN",
        "VCPU",
        "Domain",
        "Failed",
    ),
    *(
        "Instruction",
        "FATAL",
        "VM-Entry",
        "MSR",
        "Sysenter",
        "Guest",
        "Host",
        "Control",
        "State",
        "Areas",
        "Area",
    ),
)
_LISTS: Final = re.compile(r"MSR (?:Guest|Host) autoload|MSR=|Exit reason|Entry failed", re.IGNORECASE)
"""Phrases with small letters of words that have a capital elsewhere."""
_JAILHOUSE: Final = ("RIP", "RSP", "FLAGS", "CS", "BASE", "AR-BYTES", "EFER", "CR0", "CR3", "CR4", "LMA")


@cache
def _words() -> tuple[re.Pattern[str], dict[str, str]]:
    """The words of `dump_vmcs` and of headers, by their small letters."""
    headed = (word for _, words in GROUPS.values() for word in words)
    known = (*GUEST, *HOST, *CONTROL, *GROUPS, *headed, *SEGMENT_REGISTERS, *TABLE_REGISTERS, *_HEADERS)
    spelt = {word.lower(): word for word in (*known, "CS:RIP", "SVI|RVI", "EFER(MSR LL)")}
    longest_first = sorted(spelt, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"), spelt


def in_its_case(text: str) -> str:
    """The text with its words as their format has them, if its letters are all capitals or all small.

    >>> in_its_case("*** GUEST STATE ***\\nRFLAGS=0X00000002\\nEPT POINTER = 0X1")
    '*** Guest State ***\\nRFLAGS=0x00000002\\nEPT pointer = 0x1'
    """
    is_small = text.islower()
    if not is_small and not text.isupper():
        return text
    small = text.lower()
    if len(small) != len(text):
        return text
    if _OF_DUMP_VMCS.search(small):
        pattern, spelt = _words()
        found = pattern.sub(lambda match: spelt[match[0]], small)
        return _LISTS.sub(lambda match: match[0].lower().replace("msr ", "MSR "), found)
    if re.search(r"^\W*fatal: vm", small, re.MULTILINE):
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(_JAILHOUSE)})(?=[: ])", re.IGNORECASE)
        small = re.sub(r"fatal: vm-entry", "FATAL: VM-Entry", small).replace("fatal:", "FATAL:")
        return pattern.sub(lambda match: match[0].upper(), small)
    if _OF_QEMU.search(small):
        return _QEMU_WORD.sub(lambda match: match[0].upper(), small.replace("kvm: entry", "KVM: entry"))
    return small if not is_small and re.search(r"[re]ip=|\{[0-9a-f]{4} base=|kvm_\w+ \{", small) else text


__all__ = ["in_its_case"]
