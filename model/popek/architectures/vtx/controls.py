"""Bits by name: control words, control registers, flags, access rights and event fields, for decoding."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import attrs

from popek_specs.vtx import rows

from .fields import FIELDS


@attrs.frozen
class NamedBits:
    """Bits high:low of a field, and what they are called.

    Attributes:
        name: short, as in the manual's tables (``PCIDE``) or the facts (``USE_IO_BITMAPS``).
        title: the manual's words.
        meaning: value -> words, where the value has any beyond 0 and 1.
        source: where name and place come from.
    """

    high: int
    low: int
    name: str
    title: str
    meaning: Mapping[int, str] = attrs.field(factory=dict)
    source: str = "Intel SDM vol. 3"


@attrs.frozen
class Bit:
    """Named bits of an actual value."""

    high: int
    low: int
    name: str
    value: int
    meaning: str


def _flags(source: str, **names: tuple[int, str]) -> tuple[NamedBits, ...]:
    return tuple(NamedBits(bit, bit, name, title, source=source) for name, (bit, title) in names.items())


CR0: Final = _flags(
    "Intel SDM vol. 3, control registers",
    PE=(0, "protection enable"),
    MP=(1, "monitor coprocessor"),
    EM=(2, "emulation"),
    TS=(3, "task switched"),
    ET=(4, "extension type"),
    NE=(5, "numeric error"),
    WP=(16, "write protect"),
    AM=(18, "alignment mask"),
    NW=(29, "not write-through"),
    CD=(30, "cache disable"),
    PG=(31, "paging"),
)
CR4: Final = _flags(
    "Intel SDM vol. 3, control registers",
    VME=(0, "virtual-8086 mode extensions"),
    PVI=(1, "protected-mode virtual interrupts"),
    TSD=(2, "time-stamp disable"),
    DE=(3, "debugging extensions"),
    PSE=(4, "page-size extensions"),
    PAE=(5, "physical-address extension"),
    MCE=(6, "machine-check enable"),
    PGE=(7, "page-global enable"),
    PCE=(8, "performance-counter enable"),
    OSFXSR=(9, "FXSAVE and FXRSTOR"),
    OSXMMEXCPT=(10, "unmasked SIMD exceptions"),
    UMIP=(11, "user-mode instruction prevention"),
    LA57=(12, "57-bit linear addresses"),
    VMXE=(13, "VMX enable"),
    SMXE=(14, "SMX enable"),
    FSGSBASE=(16, "RDFSBASE and the like"),
    PCIDE=(17, "process-context identifiers"),
    OSXSAVE=(18, "XSAVE"),
    KL=(19, "key locker"),
    SMEP=(20, "supervisor-mode execution prevention"),
    SMAP=(21, "supervisor-mode access prevention"),
    PKE=(22, "protection keys for user pages"),
    CET=(23, "control-flow enforcement"),
    PKS=(24, "protection keys for supervisor pages"),
    UINTR=(25, "user interrupts"),
    LAM_SUP=(28, "linear-address masking for supervisor addresses"),
    FRED=(32, "flexible return and event delivery"),
)
RFLAGS: Final = (
    *_flags(
        "Intel SDM vol. 1, EFLAGS",
        CF=(0, "carry"),
        RESERVED_1=(1, "always 1"),
        PF=(2, "parity"),
        AF=(4, "auxiliary carry"),
        ZF=(6, "zero"),
        SF=(7, "sign"),
        TF=(8, "trap"),
        IF=(9, "interrupt enable"),
        DF=(10, "direction"),
        OF=(11, "overflow"),
    ),
    NamedBits(13, 12, "IOPL", "I/O privilege level"),
    *_flags(
        "Intel SDM vol. 1, EFLAGS",
        NT=(14, "nested task"),
        RF=(16, "resume"),
        VM=(17, "virtual-8086 mode"),
        AC=(18, "alignment check or access control"),
        VIF=(19, "virtual interrupt"),
        VIP=(20, "virtual interrupt pending"),
        ID=(21, "CPUID can be toggled"),
    ),
)
EFER: Final = _flags(
    "Intel SDM vol. 4, IA32_EFER",
    SCE=(0, "SYSCALL enable"),
    LME=(8, "IA-32e mode enable"),
    LMA=(10, "IA-32e mode active"),
    NXE=(11, "execute-disable enable"),
)
DEBUGCTL: Final = _flags(
    "Intel SDM vol. 4, IA32_DEBUGCTL",
    LBR=(0, "last-branch records"),
    BTF=(1, "single-step on branches"),
    BLD=(2, "bus-lock detection"),
    TR=(6, "trace messages"),
    BTS=(7, "branch-trace store"),
    BTINT=(8, "branch-trace interrupt"),
    BTS_OFF_OS=(9, "no branch-trace store in ring 0"),
    BTS_OFF_USR=(10, "no branch-trace store above ring 0"),
    FREEZE_LBRS_ON_PMI=(11, "freeze LBRs on a PMI"),
    FREEZE_PERFMON_ON_PMI=(12, "freeze counters on a PMI"),
    ENABLE_UNCORE_PMI=(13, "uncore PMI"),
    FREEZE_WHILE_SMM=(14, "freeze in SMM"),
    RTM_DEBUG=(15, "RTM debugging"),
)
_TYPES: Final = {
    0: "read-only data",
    1: "read-only data, accessed",
    2: "read/write data, or LDT",
    3: "read/write data, accessed, or busy 16-bit TSS",
    4: "read-only expand-down data",
    5: "read-only expand-down data, accessed",
    6: "read/write expand-down data",
    7: "read/write expand-down data, accessed",
    8: "execute-only code",
    9: "execute-only code, accessed, or available 32/64-bit TSS",
    10: "execute/read code",
    11: "execute/read code, accessed, or busy 32/64-bit TSS",
    12: "execute-only conforming code",
    13: "execute-only conforming code, accessed",
    14: "execute/read conforming code",
    15: "execute/read conforming code, accessed",
}
ACCESS_RIGHTS: Final = (
    NamedBits(3, 0, "TYPE", "segment type", _TYPES),
    NamedBits(4, 4, "S", "descriptor type", {0: "system", 1: "code or data"}),
    NamedBits(6, 5, "DPL", "descriptor privilege level"),
    NamedBits(7, 7, "P", "present"),
    NamedBits(11, 8, "RESERVED_11_8", "reserved"),
    NamedBits(12, 12, "AVL", "available to software"),
    NamedBits(13, 13, "L", "64-bit code"),
    NamedBits(14, 14, "DB", "default operation size"),
    NamedBits(15, 15, "G", "granularity"),
    NamedBits(16, 16, "UNUSABLE", "segment unusable"),
    NamedBits(31, 17, "RESERVED_31_17", "reserved"),
)
SELECTOR: Final = (
    NamedBits(1, 0, "RPL", "requested privilege level"),
    NamedBits(2, 2, "TI", "table", {0: "GDT", 1: "LDT"}),
    NamedBits(15, 3, "INDEX", "descriptor index"),
)
INTERRUPTIBILITY: Final = (
    *_flags(
        "Intel SDM vol. 3, interruptibility state",
        STI=(0, "blocking by STI"),
        MOV_SS=(1, "blocking by MOV SS"),
        SMI=(2, "blocking by SMI"),
        NMI=(3, "blocking by NMI (virtual NMIs: virtual-NMI blocking)"),
        ENCLAVE=(4, "enclave interruption"),
    ),
    NamedBits(31, 5, "RESERVED_31_5", "reserved"),
)
ACTIVITY: Final = (
    NamedBits(31, 0, "STATE", "activity state", {0: "active", 1: "HLT", 2: "shutdown", 3: "wait-for-SIPI"}),
)
PENDING_DEBUG: Final = _flags(
    "Intel SDM vol. 3, pending debug exceptions",
    B0=(0, "breakpoint 0 met"),
    B1=(1, "breakpoint 1 met"),
    B2=(2, "breakpoint 2 met"),
    B3=(3, "breakpoint 3 met"),
    BLD=(11, "bus lock"),
    ENABLED=(12, "enabled breakpoint met"),
    BS=(14, "single step"),
    RTM=(16, "RTM"),
)
EVENT_TYPES: Final = {
    0: "external interrupt",
    1: "reserved",
    2: "NMI",
    3: "hardware exception",
    4: "software interrupt",
    5: "privileged software exception",
    6: "software exception",
    7: "other event",
}
_NAMES: Final = "DE DB NMI BP OF BR UD NM DF - TS NP SS GP PF - MF AC MC XM VE CP"
EXCEPTIONS: Final = {vector: name for vector, name in enumerate(_NAMES.split()) if name != "-"}
"""Exceptions by vector, without the number sign (Intel SDM vol. 3A, table 6-1)."""

EXCEPTION_TYPES: Final = frozenset({3, 5, 6})
"""Interruption types whose vector names an exception: hardware, privileged software, software."""

_VECTORS: Final = {vector: f"#{name}" for vector, name in EXCEPTIONS.items() if name != "NMI"}
_VECTOR: Final = NamedBits(7, 0, "VECTOR", "vector", _VECTORS)
EVENT: Final = (
    _VECTOR,
    NamedBits(10, 8, "TYPE", "type", EVENT_TYPES),
    NamedBits(11, 11, "ERROR_CODE", "error code"),
    NamedBits(12, 12, "NMI_UNBLOCKING", "NMI unblocking due to IRET"),
    NamedBits(13, 13, "NESTED", "nested exception (FRED)"),
    NamedBits(31, 31, "VALID", "valid"),
)


@functools.cache
def exit_reasons() -> Mapping[int, str]:
    """Basic exit reasons by number."""
    return {int(row["number"]): row["name"] for row in rows("exit-reasons.csv")}


@functools.cache
def _exit_reason() -> tuple[NamedBits, ...]:
    return (
        NamedBits(15, 0, "BASIC", "basic exit reason", exit_reasons()),
        NamedBits(26, 26, "BUS_LOCK", "bus lock asserted"),
        NamedBits(27, 27, "ENCLAVE", "enclave mode"),
        NamedBits(28, 28, "MTF", "pending MTF"),
        NamedBits(29, 29, "FROM_ROOT", "exit from VMX root operation"),
        NamedBits(31, 31, "ENTRY_FAILURE", "VM-entry failure"),
    )


INSTRUCTION_ERRORS: Final[Mapping[int, str]] = {
    1: "VMCALL in VMX root operation",
    2: "VMCLEAR with an invalid physical address",
    3: "VMCLEAR with the VMXON pointer",
    4: "VMLAUNCH with a VMCS that is not clear",
    5: "VMRESUME with a VMCS that is not launched",
    6: "VMRESUME after VMXOFF",
    7: "VM entry with invalid control fields",
    8: "VM entry with invalid host-state fields",
    9: "VMPTRLD with an invalid physical address",
    10: "VMPTRLD with the VMXON pointer",
    11: "VMPTRLD with a wrong VMCS revision identifier",
    12: "VMREAD or VMWRITE of an unsupported field",
    13: "VMWRITE to a read-only field",
    15: "VMXON in VMX root operation",
    16: "VM entry with an invalid executive-VMCS pointer",
    17: "VM entry with an executive VMCS that is not launched",
    18: "VM entry with an executive-VMCS pointer that is not the VMXON pointer",
    19: "VMCALL with a VMCS that is not clear",
    20: "VMCALL with invalid VM-exit control fields",
    22: "VMCALL with a wrong MSEG revision identifier",
    23: "VMXOFF under dual-monitor treatment",
    24: "VMCALL with invalid SMM-monitor features",
    25: "VM entry with invalid execution controls in the executive VMCS",
    26: "VM entry with events blocked by MOV SS",
    28: "invalid operand to INVEPT or INVVPID",
}
"""VM-instruction errors by number (SDM vol. 3, VMX instruction reference)."""

CONTROL_FIELDS: Final[Mapping[str, str]] = {
    "pin": "PIN_CONTROLS",
    "primary": "PRIMARY_PROC_CONTROLS",
    "secondary": "SECONDARY_PROC_CONTROLS",
    "tertiary": "TERTIARY_PROC_CONTROLS",
    "exit": "EXIT_CONTROLS",
    "exit2": "SECONDARY_EXIT_CONTROLS",
    "entry": "ENTRY_CONTROLS",
    "vmfunc": "VMFUNC_CONTROLS",
}
"""Short names of the control words, as checks and ledger use them."""

_SHORT: Final = {"pri": "primary", "sec": "secondary", "ter": "tertiary"}


@functools.cache
def _control_bits() -> Mapping[str, tuple[NamedBits, ...]]:
    found: dict[str, list[NamedBits]] = {}
    for row in rows("controls.csv"):
        bit = int(row["bit"])
        named = NamedBits(bit, bit, row["id"], row["title"], source=row["source"])
        found.setdefault(row["field"], []).append(named)
    return {field: tuple(sorted(bits, key=lambda b: b.low)) for field, bits in found.items()}


def _family(field_id: str) -> tuple[NamedBits, ...]:
    """Bits that a field has because of the register it holds."""
    if field_id.endswith("_ACCESS_RIGHTS"):
        return ACCESS_RIGHTS
    if field_id.endswith("_SELECTOR"):
        return SELECTOR
    for register, bits in (("CR0", CR0), ("CR4", CR4), ("IA32_EFER", EFER), ("IA32_DEBUGCTL", DEBUGCTL)):
        if register in field_id:
            return bits
    return _SINGLE.get(field_id, ())


_SINGLE: Final[Mapping[str, tuple[NamedBits, ...]]] = {
    "GUEST_RFLAGS": RFLAGS,
    "GUEST_INTERRUPTIBILITY": INTERRUPTIBILITY,
    "GUEST_ACTIVITY_STATE": ACTIVITY,
    "GUEST_PENDING_DEBUG_EXCEPTIONS": PENDING_DEBUG,
    "ENTRY_INTR_INFO": EVENT,
    "EXIT_INTR_INFO": EVENT,
    "IDT_VECTORING_INFO": EVENT,
    "VM_INSTRUCTION_ERROR": (NamedBits(31, 0, "ERROR", "VM-instruction error", INSTRUCTION_ERRORS),),
    "EPTP": (
        NamedBits(2, 0, "MEMORY_TYPE", "EPT memory type", {0: "uncacheable", 6: "write-back"}),
        NamedBits(5, 3, "WALK", "page-walk length minus 1", {3: "4 levels", 4: "5 levels"}),
        NamedBits(6, 6, "AD", "accessed and dirty flags"),
        NamedBits(7, 7, "SSS", "supervisor shadow-stack pages"),
    ),
}


def bits_of(field_id: str) -> tuple[NamedBits, ...]:
    """The named bits of a field, low ones first; none if the field is a plain number."""
    if field_id == "EXIT_REASON":
        return _exit_reason()
    return _control_bits().get(field_id) or _family(field_id)


def decode(field_id: str, value: int) -> list[Bit]:
    """The named bits of a value, and each other bit that is set as ``bit N``, low ones first.

    >>> [bit.name for bit in decode("GUEST_RFLAGS", 0x202) if bit.value]
    ['RESERVED_1', 'IF']
    >>> [decode("ENTRY_INTR_INFO", kind << 8 | 14)[0].meaning for kind in (0, 3)]
    ['vector', 'vector: #PF']
    """
    named = bits_of(field_id)
    found: list[Bit] = []
    covered = 0
    for bits in named:
        mask = (1 << bits.high - bits.low + 1) - 1
        covered |= mask << bits.low
        part = value >> bits.low & mask
        known = bits.meaning.get(part)
        if bits is _VECTOR and value >> 8 & 7 not in EXCEPTION_TYPES:
            known = None  # the vector of an interrupt is a number, whatever exception has the same one
        found.append(
            Bit(bits.high, bits.low, bits.name, part, f"{bits.title}: {known}" if known else bits.title)
        )
    if not named:
        return []
    rest = value & ~covered
    while rest:
        bit = (rest & -rest).bit_length() - 1
        found.append(Bit(bit, bit, f"bit {bit}", 1, "reserved"))
        rest &= rest - 1
    return sorted(found, key=lambda item: item.low)


def find_bit(name: str) -> list[tuple[str, NamedBits]]:
    """The fields that have bits of this name, such as ``USE_IO_BITMAPS``, ``CR4.PCIDE`` or ``pri[25]``."""
    wanted = name.strip().upper().replace("-", "_").replace(" ", "_")
    owner, _, bit_name = wanted.rpartition(".")
    number = None
    if wanted.endswith("]") and "[" in wanted:
        owner, _, inner = wanted[:-1].partition("[")
        number, bit_name = (int(inner) if inner.isdecimal() else None), ""
        short = _SHORT.get(owner.lower(), owner.lower())
        owner = CONTROL_FIELDS.get(short, owner)
    found: list[tuple[str, NamedBits]] = []
    for field_id in FIELDS:
        if owner and owner not in (field_id, field_id.removeprefix("GUEST_"), field_id.removeprefix("HOST_")):
            continue
        for bits in bits_of(field_id):
            matches = bits.low <= number <= bits.high if number is not None else bits.name == bit_name
            matches = matches or (
                bool(bit_name) and bits.title.upper().replace("-", "_").replace(" ", "_") == bit_name
            )
            if matches:
                found.append((field_id, bits))
    return found
