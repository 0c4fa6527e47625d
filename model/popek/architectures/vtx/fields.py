"""The fields of a VMCS: names, encodings, widths and areas (Intel SDM vol. 3, appendix B)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from popek.errors import PopekError
from popek_specs.vtx import rows

NATURAL_WIDTH: Final = 64
"""Bits of a natural-width field; every processor modelled here supports Intel 64 or is told apart by name."""


class UnknownField(PopekError):  # noqa: N818 -- named for what it says to the user
    """No VMCS field has this name; the message is one line with near matches."""


@attrs.frozen
class Field:
    """One VMCS field.

    Attributes:
        id: the name used everywhere, such as ``GUEST_CR0``.
        encoding: of the whole field; the high half of a 64-bit field is `encoding` + 1.
        title: the manual's name.
        width: in bits; 64 for natural-width fields.
        natural: whether the width is that of the processor.
        area: ``control``, ``guest-state``, ``host-state`` or ``exit-information``.
        access: ``read-write`` or ``read-only``.
        exists_if: the control or feature that brings the field, or an empty string.
        source: where encoding and name come from.
    """

    id: str
    encoding: int
    title: str
    width: int
    natural: bool
    area: str
    access: str
    exists_if: str
    source: str

    @property
    def mask(self) -> int:
        """All bits of the field."""
        return (1 << self.width) - 1


def _load() -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for row in rows("fields.csv"):
        natural = row["width"] == "natural"
        fields[row["id"]] = Field(
            id=row["id"],
            encoding=int(row["encoding"], 16),
            title=row["title"],
            width=NATURAL_WIDTH if natural else int(row["width"]),
            natural=natural,
            area=row["area"],
            access=row["access"],
            exists_if=row["exists_if"],
            source=row["source"],
        )
    return fields


FIELDS: Final[Mapping[str, Field]] = MappingProxyType(_load())
"""All fields by id, in the order of their encodings."""

_BY_ENCODING: Final = {field.encoding: field for field in FIELDS.values()}

# Names that manuals, headers and dumps use for the same field, beside the ids and the manual's titles.
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CPU_BASED_VM_EXEC_CONTROL": "PRIMARY_PROC_CONTROLS",
        "CPU_BASED": "PRIMARY_PROC_CONTROLS",
        "PIN_BASED_VM_EXEC_CONTROL": "PIN_CONTROLS",
        "PIN_BASED": "PIN_CONTROLS",
        "SECONDARY_VM_EXEC_CONTROL": "SECONDARY_PROC_CONTROLS",
        "TERTIARY_VM_EXEC_CONTROL": "TERTIARY_PROC_CONTROLS",
        "PRIMARY_EXIT_CONTROLS": "EXIT_CONTROLS",
        "VM_EXIT_CONTROLS": "EXIT_CONTROLS",
        "VM_ENTRY_CONTROLS": "ENTRY_CONTROLS",
        "VM_ENTRY_INTR_INFO_FIELD": "ENTRY_INTR_INFO",
        "VM_ENTRY_INTERRUPTION_INFO": "ENTRY_INTR_INFO",
        "VM_ENTRY_EXCEPTION_ERROR_CODE": "ENTRY_EXCEPTION_ERROR_CODE",
        "VM_ENTRY_INSTRUCTION_LEN": "ENTRY_INSTRUCTION_LENGTH",
        "VM_ENTRY_INSTRUCTION_LENGTH": "ENTRY_INSTRUCTION_LENGTH",
        "VM_ENTRY_MSR_LOAD_ADDR": "ENTRY_MSR_LOAD_ADDR",
        "VM_ENTRY_MSR_LOAD_COUNT": "ENTRY_MSR_LOAD_COUNT",
        "VM_EXIT_MSR_LOAD_ADDR": "EXIT_MSR_LOAD_ADDR",
        "VM_EXIT_MSR_LOAD_COUNT": "EXIT_MSR_LOAD_COUNT",
        "VM_EXIT_MSR_STORE_ADDR": "EXIT_MSR_STORE_ADDR",
        "VM_EXIT_MSR_STORE_COUNT": "EXIT_MSR_STORE_COUNT",
        "VM_EXIT_REASON": "EXIT_REASON",
        "VM_EXIT_INTR_INFO": "EXIT_INTR_INFO",
        "VIRTUAL_PROCESSOR_ID": "VPID",
        "EPT_POINTER": "EPTP",
        "GUEST_INTERRUPTIBILITY_INFO": "GUEST_INTERRUPTIBILITY",
        "GUEST_INTERRUPTIBILITY_STATE": "GUEST_INTERRUPTIBILITY",
        "GUEST_PENDING_DBG_EXCEPTIONS": "GUEST_PENDING_DEBUG_EXCEPTIONS",
        "GUEST_SYSENTER_CS": "GUEST_IA32_SYSENTER_CS",
        "GUEST_SYSENTER_ESP": "GUEST_IA32_SYSENTER_ESP",
        "GUEST_SYSENTER_EIP": "GUEST_IA32_SYSENTER_EIP",
        "HOST_SYSENTER_CS": "HOST_IA32_SYSENTER_CS",
        "HOST_SYSENTER_ESP": "HOST_IA32_SYSENTER_ESP",
        "HOST_SYSENTER_EIP": "HOST_IA32_SYSENTER_EIP",
        "GUEST_EFER": "GUEST_IA32_EFER",
        "HOST_EFER": "HOST_IA32_EFER",
        "GUEST_PAT": "GUEST_IA32_PAT",
        "HOST_PAT": "HOST_IA32_PAT",
        "GUEST_DEBUGCTL": "GUEST_IA32_DEBUGCTL",
        "IO_BITMAP_A_ADDR": "IO_BITMAP_A",
        "IO_BITMAP_B_ADDR": "IO_BITMAP_B",
        "MSR_BITMAPS": "MSR_BITMAP",
    }
    | {
        f"GUEST_{name}_{short}": f"GUEST_{name}_ACCESS_RIGHTS"
        for name in ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR")
        for short in ("AR", "AR_BYTES", "ATTR")
    }
)


def by_encoding(encoding: int) -> tuple[Field, bool]:
    """The field with this encoding, and whether the encoding names the high half of a 64-bit field.

    Raises:
        KeyError: no field has the encoding.
    """
    field = _BY_ENCODING.get(encoding)
    if field is not None:
        return field, False
    field = _BY_ENCODING[encoding & ~1]
    if field.width != 64 or field.natural:
        raise KeyError(encoding)
    return field, True


def find(name: str) -> Field:
    """The field called `name`: an id in any case, a known alias, or an encoding such as ``0x4000``.

    >>> find("guest-cr0").encoding == 0x6800
    True

    Raises:
        UnknownField: nothing fits; the message names near matches.
    """
    wanted = name.strip().upper().replace("-", "_").replace(" ", "_").replace("/", "_")
    found = FIELDS.get(wanted) or FIELDS.get(ALIASES.get(wanted, ""))
    if found is not None:
        return found
    if wanted.startswith("0X"):
        try:
            return by_encoding(int(wanted, 16))[0]
        except (KeyError, ValueError):
            raise UnknownField(f"no VMCS field has the encoding {name.strip()!r}") from None
    for field in FIELDS.values():
        if field.title.upper().replace("-", "_").replace(" ", "_") == wanted:
            return field
    near = difflib.get_close_matches(wanted, [*FIELDS, *ALIASES], n=3, cutoff=0.6)
    hint = f"; near: {', '.join(dict.fromkeys(ALIASES.get(n, n) for n in near))}" if near else ""
    raise UnknownField(f"no VMCS field is called {name.strip()!r}{hint}")
