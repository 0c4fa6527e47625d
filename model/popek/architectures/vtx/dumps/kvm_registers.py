"""The guest's registers as ``KVM_GET_REGS`` and ``KVM_GET_SREGS`` give them: in JSON, or as Rust prints them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

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


# -- as programs print the structures ---------------------------------------------------------------

_END = r"(?=\s*[,}\]])"
_RUST_STRUCTURE = re.compile(
    r"\b(?P<name>cs|ds|es|fs|gs|ss|tr|ldt|gdt|idt): \w+ \{(?P<parts>[^{}]*)(?P<end>\}?)"
)
_RUST_PART = re.compile(rf"\b(?P<key>\w+): (?P<value>0x[0-9a-f]+|[0-9a-f]+){_END}")
_RUST = re.compile(r"\bkvm_s?regs \{|\b(?:cs|gdt): \w+ \{|\bkvm_(?:segment|dtable) \{|\bSegmentRegister \{")
_C_SEGMENT = re.compile(
    r"\b(?P<name>[CDEFGS]S|TR|LDT)\s+(?P<parts>base:\s*0x[0-9a-f]+\s+limit:\s*0x[0-9a-f]+\s+selector:"
    r"(?:\s*0x[0-9a-f]+\s+\w+:){8,9}\s*0x[0-9a-f]+)"
)
_C_WORD = re.compile(r"\b(?P<key>RIP|RSP|RFLAGS|CR[02348]|EFER|DR7):\s*(?P<value>0x[0-9a-f]+)")
_C_PART = re.compile(r"(?P<key>\w+):\s*(?P<value>0x[0-9a-f]+)")
_LIMITS = {"type": 15, "present": 1, "dpl": 3, "db": 1, "s": 1, "l": 1, "g": 1, "avl": 1, "unusable": 1}
_LIMITS |= {"limit": (1 << 32) - 1, "selector": 0xFFFF}


@attrs.frozen
class Printed:
    """What a text shows of the structures: values by field, what is reported, what was left out, and the places."""

    fields: Mapping[str, tuple[int, int]]
    viewed: Mapping[str, str]
    dropped: tuple[tuple[int, str], ...]
    spans: tuple[tuple[int, int], ...]


def printed(text: str) -> Printed | None:
    """What Rust's debug format or a program in C prints of `kvm_regs` and `kvm_sregs`; None if there is none.

    Places are offsets in the text. A number that nothing ends was cut, and is left out.
    """
    if _RUST.search(text):
        return _of_rust(text)
    segments = list(_C_SEGMENT.finditer(text))
    if not {"CS", "DS", "ES"} <= {match["name"] for match in segments}:
        return None
    reader = _Reader(text, 16)
    for match in segments:
        parts = {part["key"]: (part["value"], match.start()) for part in _C_PART.finditer(match["parts"])}
        reader.structure(match["name"].lower(), parts)
    for match in _C_WORD.finditer(text):
        reader.word(match["key"].lower(), match["value"], match.start())
    spans = tuple(match.span() for match in (*segments, *_C_WORD.finditer(text)))
    return Printed(reader.fields, reader.viewed, tuple(reader.dropped), spans)


def _of_rust(text: str) -> Printed:
    structures = list(_RUST_STRUCTURE.finditer(text))
    parts = [
        {
            part["key"].rstrip("_"): (part["value"], match.start("parts") + part.start())
            for part in _parts(match)
        }
        for match in structures
    ]
    rest = _RUST_STRUCTURE.sub(lambda match: " " * len(match[0]), text)
    words = [part for part in _RUST_PART.finditer(rest) if part["key"] in (*_KVM_WORDS, *_VIEWED)]
    given = [item for part in parts for item in part.items()]
    reader = _Reader(text, _base(given, [part["value"] for part in words]))
    for match, found in zip(structures, parts, strict=True):
        reader.structure(match["name"], found)
    for part in words:
        reader.word(part["key"], part["value"], part.start())
    first = _RUST.search(text)
    assert first is not None
    ends = [match.end() for match in (*structures, *words)]
    last = max(ends, default=first.end())
    return Printed(reader.fields, reader.viewed, tuple(reader.dropped), ((first.start(), last),))


def _parts(match: re.Match[str]) -> list[re.Match[str]]:
    return list(_RUST_PART.finditer(match["parts"] + match["end"]))


def _base(given: list[tuple[str, tuple[str, int]]], words: list[str]) -> int:
    """Of numbers without `0x`: 16 if one has a letter, 10 if one would not fit as hexadecimal, 0 if nothing tells."""
    plain = [(key, text) for key, (text, _) in given if text[:2] != "0x"]
    texts = [text for _, text in plain] + [text for text in words if text[:2] != "0x"]
    if any(re.search("[a-f]", text) for text in texts):
        return 16
    if any(int(text, 16) > _LIMITS.get(key, (1 << 64) - 1) for key, text in plain):
        return 10
    return 10 if any(int(text, 16) >> 64 for text in texts) else 0


class _Reader:
    """Takes numbers of structures; what is none, or does not fit, is left out and named."""

    def __init__(self, text: str, base: int) -> None:
        self.text, self.base = text, base
        self.fields: dict[str, tuple[int, int]] = {}
        self.viewed: dict[str, str] = {}
        self.dropped: list[tuple[int, str]] = []

    def structure(self, name: str, parts: Mapping[str, tuple[str, int]]) -> None:
        """A segment register or a table."""
        register = {"gdt": "GDTR", "idt": "IDTR"}.get(name, _KVM_SEGMENTS.get(name, ""))
        for part in ("selector", "base", "limit"):
            if part in parts and (part != "selector" or name not in ("gdt", "idt")):
                self._put(f"GUEST_{register}_{part.upper()}", *parts[part])
        if name in ("gdt", "idt") or not parts:
            return
        field, place = f"GUEST_{register}_ACCESS_RIGHTS", min(place for _, place in parts.values())
        if not set(_KVM_BITS) <= parts.keys():
            self.dropped.append((place, f"{field}: not all of its bits are there: not read"))
            return
        bits = {key: self._number(parts[key][0]) for key in _KVM_BITS}
        rights = 0
        for key, low in _KVM_BITS.items():
            value = bits[key]
            if value is None or value > _LIMITS[key]:
                self.dropped.append((parts[key][1], f"{field}: {key} = {parts[key][0]}: not read"))
                return
            rights |= value << low
        self.fields.setdefault(field, (rights, place))

    def word(self, key: str, text: str, place: int) -> None:
        """A register of one word."""
        if key in _KVM_WORDS:
            self._put(f"GUEST_{_KVM_WORDS[key]}", text, place)
        elif key in _VIEWED and (value := self._number(text)) is not None:
            self.viewed.setdefault(f"kvm_{key}", hex(value))

    def _put(self, field: str, text: str, place: int) -> None:
        value = self._number(text)
        if value is None:
            self.dropped.append(
                (place, f"{field}: nothing tells whether {text} is decimal or hexadecimal: not read")
            )
        elif value >> FIELDS[field].width:
            self.dropped.append(
                (place, f"{field}: {text} does not fit in {FIELDS[field].width} bits: not read")
            )
        elif self.fields.setdefault(field, (value, place))[0] != value:
            self.dropped.append((place, f"{field}: {text} here, and another value above: the first is taken"))

    def _number(self, text: str) -> int | None:
        if text[:2] == "0x":
            return int(text, 16)
        if self.base:
            return int(text, self.base) if self.base == 16 or text.isdigit() else None
        return int(text) if len(text) == 1 and text.isdigit() else None
