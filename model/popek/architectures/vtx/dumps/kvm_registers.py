"""The guest's registers as ``KVM_GET_REGS`` and ``KVM_GET_SREGS`` give them: in JSON, or as Rust prints them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..fields import FIELDS
from .model import DumpError

REMARK = "read from KVM's registers, which show the guest's view: the VMCS may differ"

_KVM_SEGMENTS = {**{name: name.upper() for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr")}, "ldt": "LDTR"}
_KVM_WORDS = {"rip": "RIP", "rsp": "RSP", "rflags": "RFLAGS"}
_VIEWED = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base", "dr7")
"""What the VMCS has otherwise: the hypervisor owns bits of these registers (CR4.VMXE, CR0.NE), or shadows them."""

_KVM_BITS = {"type": 0, "s": 4, "dpl": 5, "present": 7, "avl": 12, "l": 13, "db": 14, "g": 15, "unusable": 16}


def kvm_fields(value: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, str]] | None:
    """The guest fields of what ``KVM_GET_REGS`` and ``KVM_GET_SREGS`` give, and what else it tells; None if it is none.

    Structures may be nested (``regs``, ``sregs``, ``debugregs``) or not; numbers are numbers, or hexadecimal strings.

    Raises:
        DumpError: a number is none, or does not fit.
    """
    parts = [value, *(part for part in value.values() if isinstance(part, Mapping))]
    known: dict[str, Any] = {}
    for inner in parts:
        known |= {key: item for key, item in inner.items() if key not in known}
    if not isinstance(known.get("cs"), Mapping) or "selector" not in known["cs"] or "cr0" not in known:
        return None
    fields: dict[str, int] = {}
    for key, name in _KVM_WORDS.items():
        if key in known:
            fields[f"GUEST_{name}"] = _kvm_number(known[key], f"GUEST_{name}")
    for key, name in _KVM_SEGMENTS.items():
        if isinstance(segment := known.get(key), Mapping):
            fields |= _kvm_segment(segment, f"GUEST_{name}")
    for key, register in {"gdt": "GDTR", "idt": "IDTR"}.items():
        if isinstance(table := known.get(key), Mapping):
            for part in ("base", "limit"):
                if part in table:
                    field = f"GUEST_{register}_{part.upper()}"
                    fields[field] = _kvm_number(table[part], field)
    return fields, {f"kvm_{key}": hex(_plain_number(known[key], key)) for key in _VIEWED if key in known}


def _kvm_segment(segment: Mapping[str, Any], name: str) -> dict[str, int]:
    fields = {}
    for part in ("selector", "base", "limit"):
        if part in segment:
            fields[f"{name}_{part.upper()}"] = _kvm_number(segment[part], f"{name}_{part.upper()}")
    bits = {key.rstrip("_"): item for key, item in segment.items()}
    if set(_KVM_BITS) <= set(bits):
        field = f"{name}_ACCESS_RIGHTS"
        rights = sum(int(_plain_number(bits[key], field)) << low for key, low in _KVM_BITS.items())
        fields[field] = _kvm_number(rights, field)
    return fields


def _kvm_number(value: object, field: str) -> int:
    number = _plain_number(value, field)
    if number >> FIELDS[field].width or number < 0:
        raise DumpError(f"{field}: {str(value)[:40]} does not fit in {FIELDS[field].width} bits", 1)
    return number


def _plain_number(value: object, field: str) -> int:
    try:
        if isinstance(value, str):
            return int(value, 0)
        if isinstance(value, int):
            return int(value)
    except ValueError:
        pass
    raise DumpError(f"{field}: expected a number, found {str(value)[:40]!r}", 1)


_RUST_SEGMENT = re.compile(r"\b(?P<name>cs|ds|es|fs|gs|ss|tr|ldt): kvm_segment \{(?P<parts>[^{}]*)\}")
_RUST_TABLE = re.compile(r"\b(?P<name>gdt|idt): kvm_dtable \{(?P<parts>[^{}]*)\}")
_RUST_PART = re.compile(r"\b(?P<key>\w+): (?P<value>\d+|0x[0-9a-f]+)\b")


def kvm_text(text: str) -> dict[str, Any] | None:
    """What Rust prints of `kvm_regs` and `kvm_sregs`, as `kvm_fields` takes it; None if it is no such text."""
    if "kvm_segment {" not in text:
        return _c_text(text)
    found: dict[str, Any] = {}
    for pattern in (_RUST_SEGMENT, _RUST_TABLE):
        for match in pattern.finditer(text):
            found.setdefault(
                match["name"], {part["key"]: part["value"] for part in _RUST_PART.finditer(match["parts"])}
            )
    rest = _RUST_TABLE.sub("", _RUST_SEGMENT.sub("", text))
    for part in _RUST_PART.finditer(rest):
        if part["key"] in _KVM_WORDS or part["key"] in _VIEWED:
            found.setdefault(part["key"], part["value"])
    return found


_C_SEGMENT = re.compile(
    r"\b(?P<name>[CDEFGS]S|TR|LDT)\s+(?P<parts>base:\s*0x[0-9a-f]+\s+limit:\s*0x[0-9a-f]+\s+selector:"
    r"(?:\s*0x[0-9a-f]+\s+\w+:){8,9}\s*0x[0-9a-f]+)"
)
_C_WORD = re.compile(r"\b(?P<key>RIP|RSP|RFLAGS|CR[02348]|EFER|DR7):\s*(?P<value>0x[0-9a-f]+)")


def _c_text(text: str) -> dict[str, Any] | None:
    """The same of what programs in C print, a structure after the other, by the names of the structures."""
    segments = {
        match["name"].lower(): {part["key"]: part["value"] for part in _C_PART.finditer(match["parts"])}
        for match in _C_SEGMENT.finditer(text)
    }
    if not {"cs", "ds", "es"} <= segments.keys():
        return None
    words = {match["key"].lower(): match["value"] for match in _C_WORD.finditer(text)}
    return {"cr0": "0x0", **words, **segments}


_C_PART = re.compile(r"(?P<key>\w+):\s*(?P<value>0x[0-9a-f]+)")
