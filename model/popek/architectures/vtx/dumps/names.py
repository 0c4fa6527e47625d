"""Which field a name in a dump stands for: exact names only, so that prose is never taken for a field."""

from __future__ import annotations

import re
from functools import cache

from ..fields import ALIASES, FIELDS, UnknownField, by_encoding, find

_PUNCTUATION = re.compile(r"[^A-Z0-9]+")
_PREFIXES = ("VMCS_", "VMX_VMCS_", "VMX_", "VMCS_FIELD_")

# Names in bhyve's and Xen's headers and in small hypervisors that differ from the ids and from Linux' names.
_MORE_ALIASES = {
    "PIN_BASED_CTLS": "PIN_CONTROLS",
    "PRI_PROC_BASED_CTLS": "PRIMARY_PROC_CONTROLS",
    "SEC_PROC_BASED_CTLS": "SECONDARY_PROC_CONTROLS",
    "PRIMARY_PROCESSOR_CONTROLS": "PRIMARY_PROC_CONTROLS",
    "SECONDARY_PROCESSOR_CONTROLS": "SECONDARY_PROC_CONTROLS",
    "EXIT_CTLS": "EXIT_CONTROLS",
    "ENTRY_CTLS": "ENTRY_CONTROLS",
    "INSTRUCTION_ERROR": "VM_INSTRUCTION_ERROR",
    "EXIT_INTERRUPTION_INFO": "EXIT_INTR_INFO",
    "VM_EXIT_INTERRUPTION_INFO": "EXIT_INTR_INFO",
    "VM_EXIT_INTR_ERROR_CODE": "EXIT_INTR_ERROR_CODE",
    "EXIT_INTERRUPTION_ERROR": "EXIT_INTR_ERROR_CODE",
    "VM_EXIT_INSTRUCTION_LEN": "EXIT_INSTRUCTION_LENGTH",
    "VMX_INSTRUCTION_INFO": "EXIT_INSTRUCTION_INFO",
    "IDT_VECTORING_INFO_FIELD": "IDT_VECTORING_INFO",
    "IDT_VECTORING_ERROR": "IDT_VECTORING_ERROR_CODE",
    "ENTRY_INTERRUPTION_INFO": "ENTRY_INTR_INFO",
    "ENTRY_INTERRUPT_INFO": "ENTRY_INTR_INFO",
    "ENTRY_INST_LENGTH": "ENTRY_INSTRUCTION_LENGTH",
    "GUEST_ACTIVITY": "GUEST_ACTIVITY_STATE",
    "GUEST_INTR_STATUS": "GUEST_INTERRUPT_STATUS",
    "GUEST_PENDING_DBG": "GUEST_PENDING_DEBUG_EXCEPTIONS",
    "GUEST_LINK_POINTER": "VMCS_LINK_POINTER",
    "LINK_POINTER": "VMCS_LINK_POINTER",
    "VIRTUAL_APIC_PAGE_ADDR": "VIRTUAL_APIC_ADDR",
    "VIRTUAL_APIC": "VIRTUAL_APIC_ADDR",
    "APIC_ACCESS": "APIC_ACCESS_ADDR",
    "POSTED_INTR_NV": "POSTED_INTR_NOTIFY_VECTOR",
    "PAGE_FAULT_ERROR_CODE_MASK": "PF_ERROR_CODE_MASK",
    "PAGE_FAULT_ERROR_CODE_MATCH": "PF_ERROR_CODE_MATCH",
    "CR0_MASK": "CR0_GUEST_HOST_MASK",
    "CR4_MASK": "CR4_GUEST_HOST_MASK",
    "CR0_SHADOW": "CR0_READ_SHADOW",
    "CR4_SHADOW": "CR4_READ_SHADOW",
    "VMX_PREEMPTION_TIMER_VALUE": "PREEMPTION_TIMER_VALUE",
    "GUEST_GDTR_BASE_ADDRESS": "GUEST_GDTR_BASE",
}


def normal_form(name: str) -> str:
    """Return a name in capitals with every run of other characters as one underscore.

    >>> normal_form("Guest CS access-rights ")
    'GUEST_CS_ACCESS_RIGHTS'
    """
    return _PUNCTUATION.sub("_", name.upper()).strip("_")


@cache
def _index() -> dict[str, str]:
    index = {normal_form(field.title): field.id for field in FIELDS.values()}
    index |= {name: id_ for name, id_ in {**ALIASES, **_MORE_ALIASES}.items() if id_ in FIELDS}
    index |= {id_: id_ for id_ in FIELDS}
    for id_ in FIELDS:
        if id_.endswith("_SELECTOR"):
            index.setdefault(id_.removesuffix("ECTOR"), id_)
        if "_IA32_" in id_:
            index.setdefault(id_.replace("_IA32_", "_"), id_)
    return index


def field_named(name: str) -> str | None:
    """Return the id of the field that a dump calls `name`, or None.

    >>> field_named("VMCS_GUEST_CR0"), field_named("Guest CR0"), field_named("CR0")
    ('GUEST_CR0', 'GUEST_CR0', None)
    """
    index = _index()
    wanted = normal_form(name)
    if wanted in index:
        return index[wanted]
    for prefix in _PREFIXES:
        if wanted.startswith(prefix) and (id_ := index.get(wanted.removeprefix(prefix))):
            return id_
    return None


def field_encoded(text: str) -> tuple[str, bool] | None:
    """Return the id of the field with an encoding in hexadecimal, and whether it names the high half."""
    try:
        field, high = by_encoding(int(text, 16))
    except (KeyError, ValueError):
        return None
    return field.id, high


def suggestion(name: str) -> str:
    """Return one line that says that no field has this name, with near matches."""
    try:
        find(name)
    except UnknownField as error:
        return str(error)
    return f"{name!r} is not written as a field name"
