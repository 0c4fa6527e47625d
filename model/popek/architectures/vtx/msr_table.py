"""Which model-specific registers there are, by processor (SDM vol. 4, and vol. 3 for what decides it).

The registers are data, in ``popek_specs/vtx/msrs.csv``: when one exists, which bits are reserved, which rule its
value obeys, and which public sources say the same (`checked`). What none of them says is uncertain.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Final

import attrs

from popek_specs.vtx import rows

from .capabilities import FEATURES, Capabilities
from .view import View
from .vmcs import MissingField

_FEATURE_AT: Final = {(register, bit): name for name, (register, bit, _) in FEATURES.items()}
_ALWAYS_THERE: Final = frozenset({"1.0.edx[12]", "1.0.edx[14]"})
"""MTRRs and the machine-check architecture: every processor with VMX has them."""


WRITE_ONLY: Final = (0x49, 0x10B)
"""IA32_PRED_CMD and IA32_FLUSH_CMD: commands, which RDMSR does not find."""


@attrs.frozen
class ListedMsr:
    """A register of the table.

    Attributes:
        number: of the register.
        name: as the manual has it; those of a run carry their place in it.
        exists: the condition, as the table writes it.
        rule: of `_RULES`, or empty if reserved bits are all there is.
        reserved: bits that must be 0 on every processor.
        unsure: bits that are reserved on some processors only.
        place: in a run of registers that share a row, from 0.
        source: where this comes from.
        sure: whether others say the same.
    """

    number: int
    name: str
    exists: str
    rule: str
    reserved: int
    unsure: int
    place: int
    source: str
    sure: bool


@functools.cache
def msrs() -> Mapping[int, ListedMsr]:
    """The registers by number."""
    found: dict[int, ListedMsr] = {}
    for row in rows("msrs.csv"):
        first, last = int(row["first"], 16), int(row["last"], 16)
        for number in range(first, last + 1):
            found[number] = ListedMsr(
                number,
                row["name"] if first == last else _name_in_run(row["name"], number - first),
                row["exists"],
                row["accepts"],
                int(row["reserved"] or "0", 16),
                int(row["unsure"] or "0", 16),
                number - first,
                row["source"],
                row["confidence"] == "sure",
            )
    return found


_RUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "IA32_MPERF": ("IA32_MPERF", "IA32_APERF"),
    "IA32_SYSENTER_ESP": ("IA32_SYSENTER_ESP", "IA32_SYSENTER_EIP"),
    "IA32_XFD": ("IA32_XFD", "IA32_XFD_ERR"),
    "MSR_LER_FROM_LIP": ("MSR_LER_FROM_LIP", "MSR_LER_TO_LIP"),
    "IA32_UINTR_HANDLER": ("IA32_UINTR_HANDLER", "IA32_UINTR_STACKADJUST"),
    "IA32_SMRR_PHYSBASE": ("IA32_SMRR_PHYSBASE", "IA32_SMRR_PHYSMASK"),
    "IA32_RTIT_OUTPUT_BASE": ("IA32_RTIT_OUTPUT_BASE", "IA32_RTIT_OUTPUT_MASK_PTRS"),
    "IA32_HWP_REQUEST_PKG": ("IA32_HWP_REQUEST_PKG", "IA32_HWP_INTERRUPT", "IA32_HWP_REQUEST"),
}
_VMX: Final = tuple(
    f"IA32_VMX_{name}"
    for name in (
        *("BASIC", "PINBASED_CTLS", "PROCBASED_CTLS", "EXIT_CTLS", "ENTRY_CTLS", "MISC"),
        *("CR0_FIXED0", "CR0_FIXED1", "CR4_FIXED0", "CR4_FIXED1", "VMCS_ENUM"),
    )
)
_BANK: Final = ("CTL", "STATUS", "ADDR", "MISC")


def _name_in_run(name: str, place: int) -> str:
    if name in _RUNS:
        return _RUNS[name][place]
    if name == "IA32_MC0_CTL":
        return f"IA32_MC{place >> 2}_{_BANK[place & 3]}"
    if name == "IA32_MTRR_PHYSBASE0":
        return f"IA32_MTRR_PHYS{'MASK' if place & 1 else 'BASE'}{place >> 1}"
    if name == "IA32_RTIT_ADDR0_A":
        return f"IA32_RTIT_ADDR{place >> 1}_{'AB'[place & 1]}"
    if name == "IA32_VMX_BASIC":
        return _VMX[place]
    if "MTRR_FIX" in name:
        return name.rpartition("_")[0]
    return re.sub(r"\d+(?=\D*$)", lambda match: str(int(match[0]) + place), name)


def title(number: int) -> str:
    """A register as messages call it.

    >>> title(0x38E), title(0x1234)
    ('IA32_PERF_GLOBAL_STATUS (38EH)', 'MSR 1234H')
    """
    known = msrs().get(number)
    return f"{known.name} ({number:X}H)" if known else f"MSR {number:X}H"


_CET: Final = {"7.0.ecx[7]", "7.0.edx[20]"}
"""Either shows what both have; a host with CR4.CET shows one of them."""
_CONTROL: Final = re.compile(r"(only )?(pri|sec|ter|exit|entry)\[(\d+)\]")
_CPUID: Final = re.compile(r"([0-9a-f]+\.[0-9a-f]+\.e[abcd]x)\[(\d+)\]")
_MSR_BIT: Final = re.compile(r"msr ([0-9a-f]+)\[(\d+)\]")


def exists(v: View, known: ListedMsr) -> bool:
    """Whether the processor has the register.

    Raises:
        MissingField: nobody told what that depends on.
    """
    terms = [term.strip() for term in known.exists.split("|")]
    answers = {term: _holds(v, known, term) for term in terms}
    if True in answers.values() or (set(terms) >= _CET and v.cap.capabilities.features.get("CET")):
        return True
    # A control that may be 1 shows that the register exists; one that may not shows nothing, unless it is the only one.
    for term, answer in answers.items():
        control = _CONTROL.fullmatch(term)
        if answer is None and (control is None or control[1]):
            raise MissingField(f"{_asked(term)}: whether there is {title(known.number)}")
    return False


_WORDS: Final = {
    "pri": "primary processor-based", "sec": "secondary processor-based", "ter": "tertiary processor-based",
    "exit": "VM-exit", "entry": "VM-entry",
}  # fmt: skip


def _asked(term: str) -> str:
    if match := _CPUID.fullmatch(term):
        return f"CPUID 0x{match[1]}[{match[2]}]"
    if match := _MSR_BIT.fullmatch(term):
        return f"MSR {match[1].upper()}H[{match[2]}]"
    if match := _CONTROL.fullmatch(term):
        return f"whether bit {match[3]} of the {_WORDS[match[2]]} controls may be 1"
    words = {
        "rtit-ranges": "CPUID 0x14.1.eax",
        "counter": "CPUID 0xa.0.eax",
        "fixed-counter": "CPUID 0xa.0.edx",
        "mtrr": "MSR FEH",
        "bank": "MSR 179H",
        "bank2": "MSR 179H",
    }
    return words.get(term, "CPUID 0xa.0.eax" if term.startswith("pmu") else "MSR of the model")


def _holds(v: View, known: ListedMsr, term: str) -> bool | None:
    capabilities: Capabilities = v.cap.capabilities
    if term in _ALWAYS_THERE or term in ("always", "vmx"):
        return True
    if term == "intel64":
        return bool(v.cap.intel64)
    if match := _CPUID.fullmatch(term):
        return cpuid_bit(capabilities, f"0x{match[1]}", int(match[2]))
    if match := _MSR_BIT.fullmatch(term):
        value = capabilities.msrs.get(int(match[1], 16))
        return None if value is None else bool(value >> int(match[2]) & 1)
    if match := _CONTROL.fullmatch(term):
        possible = _control_possible(v, match[2], int(match[3]))
        return possible if match[1] else possible or None
    return _counted(capabilities, known, term)


def cpuid_bit(capabilities: Capabilities, register: str, bit: int) -> bool | None:
    """A bit that CPUID reports; None where nobody told."""
    name = _FEATURE_AT.get((register, bit))
    if name is not None:
        return capabilities.has(name)
    return bool(capabilities.cpuid[register] >> bit & 1) if register in capabilities.cpuid else None


def _control_possible(v: View, word: str, bit: int) -> bool | None:
    """Whether the control may be 1; None where nobody tells."""
    try:
        return bool(getattr(v.cap, f"{word}_may") >> bit & 1)
    except MissingField:
        return None


def _counted(capabilities: Capabilities, known: ListedMsr, term: str) -> bool | None:
    leaf, msr = capabilities.cpuid, capabilities.msrs
    if term.startswith("pmu"):
        version = leaf.get("0xa.0.eax")
        return None if version is None else version & 0xFF >= int(term.split()[1])
    if term == "counter":
        return known.place < (leaf["0xa.0.eax"] >> 8 & 0xFF) if "0xa.0.eax" in leaf else None
    if term == "rtit-ranges":
        return known.place >> 1 < (leaf["0x14.1.eax"] & 7) if "0x14.1.eax" in leaf else None
    if term == "fixed-counter":
        if "0xa.0.edx" not in leaf:
            return None
        listed = leaf.get("0xa.0.ecx", 0) if leaf.get("0xa.0.eax", 0) & 0xFF >= 5 else 0
        return known.place < (leaf["0xa.0.edx"] & 0x1F) or bool(listed >> known.place & 1)
    if term == "mtrr":
        return known.place >> 1 < (msr[0xFE] & 0xFF) if 0xFE in msr else None
    if term in ("bank", "bank2"):
        if 0x179 not in msr:
            return None
        bank = known.place >> 2 if term == "bank" else known.place
        return bank < msr[0x179] & 0xFF and (term == "bank" or bool(msr[0x179] >> 10 & 1))
    return None  # the model decides
