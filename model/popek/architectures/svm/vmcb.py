"""The fields of a VMCB, and a VMCB as somebody gave it to us."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import attrs

from popek.architectures.dump import Remark
from popek.errors import PopekError
from popek_specs.svm import rows

SIZE = 4096
"""Bytes of a VMCB: the control area (0-3FFH), then the state-save area."""


@attrs.frozen
class VmcbField:
    """A field of the VMCB.

    Attributes:
        id: name.
        offset: in bytes.
        width: in bits.
        area: ``control``, ``save`` or ``exit``.
        title: what it is.
    """

    id: str
    offset: int
    width: int
    area: str
    title: str

    @property
    def mask(self) -> int:
        """All bits of the field."""
        return (1 << self.width) - 1


FIELDS: Mapping[str, VmcbField] = {
    row["id"]: VmcbField(row["id"], int(row["offset"], 16), int(row["width"]), row["area"], row["title"])
    for row in rows("fields.csv")
}
"""All fields by id, in the order of the layout."""


class UnknownVmcbField(PopekError):  # noqa: N818 -- reads as what it is
    """No field has this name; one line with near ones."""


def find(name: str) -> VmcbField:
    """A field by id (any case, ``-`` for ``_``) or by offset, such as ``0x58``.

    Raises:
        UnknownVmcbField: there is none.
    """
    key = name.strip().upper().replace("-", "_")
    if key in FIELDS:
        return FIELDS[key]
    if key.startswith("0X"):
        for field in FIELDS.values():
            if key[2:].isalnum() and f"{field.offset:X}" == key[2:].lstrip("0").rjust(1, "0"):
                return field
    near = difflib.get_close_matches(key, FIELDS, n=2)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise UnknownVmcbField(f"no VMCB field is called {name.strip()[:40]!r}{hint}")


@attrs.frozen
class Vmcb:
    """A VMCB, complete or not: a field that is not in `fields` is unknown, not zero.

    Attributes:
        name: what it is called.
        fields: values by field id.
        memory: quadwords that VMRUN reads beside the VMCB, by physical address; what is not here is unknown.
    """

    name: str = ""
    fields: Mapping[str, int] = attrs.field(factory=dict)
    memory: Mapping[int, int] = attrs.field(factory=dict)

    def with_fields(self, **changes: int) -> Vmcb:
        """A copy with some fields set."""
        return attrs.evolve(self, fields={**self.fields, **changes})


@attrs.frozen
class SvmProcessor:
    """What VMRUN's checks ask of a processor, and of the host that executes it; None is unknown.

    Attributes:
        maxphyaddr: width of physical addresses in bits.
        flush_by_asid: CPUID 8000000AH EDX[6].
        long_mode: CPUID 80000001H EDX[29].
        cet: shadow stacks, CPUID 7.0 ECX[7].
        host_paging: CR0.PG of the host.
        vnmi: virtual NMI, CPUID 8000000AH EDX[25]; without it VMRUN ignores the V_NMI enable bit.
        sev: SEV, CPUID 8000001FH EAX[1]; where it is unknown its enable bits are taken at their word.
        ibt: indirect-branch tracking, CPUID 7.0 EDX[20].
        gmet: guest-mode execute traps, CPUID 8000000AH EDX[17].
        sss: supervisor shadow-stack checks, EDX[19] of it.
        bus_lock_threshold: EDX[29] of it.
        efer: bits of EFER that it has; None stands for every bit that some processor has.
        cr4: bits of CR4 that it has, likewise.
        named: what somebody called it, if nobody asked it for these; else empty.
        unsure: names of what lacks a second source, by which nobody is accused.
    """

    maxphyaddr: int | None = None
    flush_by_asid: bool | None = None
    long_mode: bool | None = True
    cet: bool | None = None
    host_paging: bool | None = True
    vnmi: bool | None = None
    sev: bool | None = None
    ibt: bool | None = None
    gmet: bool | None = None
    sss: bool | None = None
    bus_lock_threshold: bool | None = None
    efer: int | None = None
    cr4: int | None = None
    named: str = ""
    unsure: tuple[str, ...] = ()

    @property
    def sure(self) -> SvmProcessor:
        """The processor without what nobody is sure of."""
        doubtful: dict[str, Any] = dict.fromkeys(self.unsure)
        return attrs.evolve(self, unsure=(), **doubtful) if doubtful else self


@attrs.define
class VmcbDump:
    """One VMCB as a text gave it.

    Attributes:
        vmcb: the fields that are known.
        processor: what the input says of the processor.
        lines: the line that each field was read from.
        remarks: what was dropped, and why.
        unrecognised: pieces of text that mean nothing here.
    """

    vmcb: Vmcb
    processor: SvmProcessor = attrs.field(factory=SvmProcessor)
    lines: dict[str, int] = attrs.field(factory=dict)
    remarks: list[Remark] = attrs.field(factory=list)
    unrecognised: list[Remark] = attrs.field(factory=list)


def from_bytes(data: bytes, name: str = "") -> Vmcb:
    """A VMCB from its 4096 bytes of memory."""
    fields = {
        field.id: int.from_bytes(data[field.offset : field.offset + field.width // 8], "little")
        for field in FIELDS.values()
    }
    return Vmcb(name, fields)


@functools.cache
def intercepts() -> Mapping[tuple[str, int], str]:
    """Names of intercepts by field and bit."""
    return {(row["field"], int(row["bit"])): row["intercept"] for row in rows("intercepts.csv")}


@functools.cache
def exit_codes() -> Mapping[int, str]:
    """Names of the exit codes that have one of their own."""
    found = {int(row["exit_code"], 16): row["intercept"] for row in rows("intercepts.csv")}
    return found | {
        0x400: "nested page fault",
        (1 << 64) - 1: "VMEXIT_INVALID",
        0xFFFF_FFFF: "VMEXIT_INVALID",
    }
