"""Which MSRs there are and which values WRMSR takes at CPL 0 (SDM vol. 4, and vol. 3 for what the bits mean).

The registers are data, in ``popek_specs/vtx/msrs.csv``: when one exists, which bits are reserved, and which
rule its value obeys. An MSR that is not listed, or whose existence the processor decides and nobody told, is
not guessed: `accepts` raises `MissingField`. A value that no processor takes is refused whether or not the
register exists, for WRMSR faults in either case.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.kernel.words import Word
from popek_specs.vtx import rows

from .capabilities import FEATURES, ONES64, Capabilities
from .view import Decision, Value, View, both, canonical, either, memory_types, one_of
from .vmcs import MissingField

_FEATURE_AT: Final = {(register, bit): name for name, (register, bit, _) in FEATURES.items()}
_ALWAYS_THERE: Final = frozenset({"1.0.edx[12]", "1.0.edx[14]"})
"""MTRRs and the machine-check architecture: every processor with VMX has them."""


@attrs.frozen
class Msr:
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
    """

    number: int
    name: str
    exists: str
    rule: str
    reserved: int
    unsure: int
    place: int
    source: str


@functools.cache
def msrs() -> Mapping[int, Msr]:
    """The registers by number."""
    found: dict[int, Msr] = {}
    for row in rows("msrs.csv"):
        first, last = int(row["first"], 16), int(row["last"], 16)
        for number in range(first, last + 1):
            found[number] = Msr(
                number,
                row["name"] if first == last else _name_in_run(row["name"], number - first),
                row["exists"],
                row["accepts"],
                int(row["reserved"] or "0", 16),
                int(row["unsure"] or "0", 16),
                number - first,
                row["source"],
            )
    return found


_RUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "IA32_MPERF": ("IA32_MPERF", "IA32_APERF"),
    "IA32_SYSENTER_ESP": ("IA32_SYSENTER_ESP", "IA32_SYSENTER_EIP"),
    "IA32_XFD": ("IA32_XFD", "IA32_XFD_ERR"),
    "MSR_LER_FROM_LIP": ("MSR_LER_FROM_LIP", "MSR_LER_TO_LIP"),
    "IA32_SMRR_PHYSBASE": ("IA32_SMRR_PHYSBASE", "IA32_SMRR_PHYSMASK"),
    "IA32_RTIT_OUTPUT_BASE": ("IA32_RTIT_OUTPUT_BASE", "IA32_RTIT_OUTPUT_MASK_PTRS"),
    "IA32_HWP_REQUEST_PKG": ("IA32_HWP_REQUEST_PKG", "IA32_HWP_INTERRUPT", "IA32_HWP_REQUEST"),
    "IA32_LSTAR": ("IA32_LSTAR", "IA32_CSTAR"),
}
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
    if "VMX" in name or "FIX" in name:
        return name.rpartition("_")[0] if "FIX" in name else "a VMX capability MSR"
    return re.sub(r"\d+(?=\D*$)", lambda match: str(int(match[0]) + place), name)


def title(number: int) -> str:
    """A register as messages call it.

    >>> title(0x38E), title(0x1234)
    ('IA32_PERF_GLOBAL_STATUS (38EH)', 'MSR 1234H')
    """
    known = msrs().get(number)
    return f"{known.name} ({number:X}H)" if known else f"MSR {number:X}H"


def accepts(v: View, number: int, value: Value) -> Decision:
    """Whether WRMSR at CPL 0 takes a value, as far as that depends on the register alone.

    Args:
        v: for the processor, and what it is doing.
        number: of the register.
        value: 64 bits, an `int` or a `Word`.

    Raises:
        MissingField: that depends on something nobody told; it is named.
    """
    known = msrs().get(number)
    if known is None:
        raise MissingField(f"MSR {number:X}H: whether this processor has it, and what it takes")
    return both(_takes(v, known, value), lambda: exists(v, known))


def reads(v: View, number: int) -> bool:
    """Whether RDMSR at CPL 0 finds the register.

    Raises:
        MissingField: that depends on something nobody told; it is named.
    """
    known = msrs().get(number)
    if known is None:
        raise MissingField(f"MSR {number:X}H: whether this processor has it")
    if known.name in ("IA32_PRED_CMD", "IA32_FLUSH_CMD"):
        return False  # commands are only written
    return exists(v, known)


def _takes(v: View, known: Msr, value: Value) -> Decision:
    """Whether the value is legal where the register exists."""
    fits: Decision = value & known.reserved == 0
    if known.rule:
        fits = both(fits, lambda: _RULES[known.rule](v, known, value))
    if known.unsure:
        return both(fits, lambda: _sure(known, value))
    return fits


def _sure(known: Msr, value: Value) -> Decision:
    unclear = value & known.unsure
    if isinstance(unclear, Word) and not unclear.concrete:
        return unclear == 0
    if int(unclear):
        bits = f"{int(unclear):#x}"
        raise MissingField(f"MSR {known.number:X}H: whether this model takes bits {bits} of {known.name}")
    return True


# -- existence ---------------------------------------------------------------------------

_CONTROL: Final = re.compile(r"(sec|ter|entry)\[(\d+)\]")
_CPUID: Final = re.compile(r"([0-9a-f]+\.[0-9a-f]+\.e[abcd]x)\[(\d+)\]")
_MSR_BIT: Final = re.compile(r"msr ([0-9a-f]+)\[(\d+)\]")


def exists(v: View, known: Msr) -> bool:
    """Whether the processor has the register.

    Raises:
        MissingField: nobody told what that depends on.
    """
    terms = [term.strip() for term in known.exists.split("|")]
    answers = {term: _holds(v, known, term) for term in terms}
    if True in answers.values():
        return True
    # A control that may be 1 shows that the register exists; one that may not shows nothing.
    for term, answer in answers.items():
        if answer is None and not _CONTROL.fullmatch(term):
            raise MissingField(f"{_asked(term)}: whether there is {title(known.number)}")
    return False


def _asked(term: str) -> str:
    if match := _CPUID.fullmatch(term):
        return f"CPUID 0x{match[1]}[{match[2]}]"
    if match := _MSR_BIT.fullmatch(term):
        return f"MSR {match[1].upper()}H[{match[2]}]"
    words = {
        "counter": "CPUID 0xa.0.eax",
        "fixed-counter": "CPUID 0xa.0.edx",
        "mtrr": "MSR FEH",
        "bank": "MSR 179H",
        "bank2": "MSR 179H",
    }
    return words.get(term, "CPUID 0xa.0.eax" if term.startswith("pmu") else "MSR of the model")


def _holds(v: View, known: Msr, term: str) -> bool | None:
    capabilities: Capabilities = v.cap.capabilities
    if term in _ALWAYS_THERE or term in ("always", "vmx"):
        return True
    if term == "intel64":
        return bool(v.cap.intel64)
    if match := _CPUID.fullmatch(term):
        return _cpuid_bit(capabilities, f"0x{match[1]}", int(match[2]))
    if match := _MSR_BIT.fullmatch(term):
        value = capabilities.msrs.get(int(match[1], 16))
        return None if value is None else bool(value >> int(match[2]) & 1)
    if match := _CONTROL.fullmatch(term):
        return _control_possible(v, match[1], int(match[2]))
    return _counted(capabilities, known, term)


def _cpuid_bit(capabilities: Capabilities, register: str, bit: int) -> bool | None:
    name = _FEATURE_AT.get((register, bit))
    if name is not None:
        return capabilities.has(name)
    return bool(capabilities.cpuid[register] >> bit & 1) if register in capabilities.cpuid else None


def _control_possible(v: View, word: str, bit: int) -> bool | None:
    """True if the control may be 1; None otherwise, for that shows nothing."""
    try:
        return True if getattr(v.cap, f"{word}_may") >> bit & 1 else None
    except MissingField:
        return None


def _counted(capabilities: Capabilities, known: Msr, term: str) -> bool | None:
    leaf, msr = capabilities.cpuid, capabilities.msrs
    if term.startswith("pmu"):
        version = leaf.get("0xa.0.eax")
        return None if version is None else version & 0xFF >= int(term.split()[1])
    if term == "counter":
        return known.place < (leaf["0xa.0.eax"] >> 8 & 0xFF) if "0xa.0.eax" in leaf else None
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


# -- rules for values --------------------------------------------------------------------

_MTRR_TYPES: Final = (0, 1, 4, 5, 6)


def _apic_base(v: View, known: Msr, value: Value) -> Decision:
    """Nothing beyond the physical address; x2APIC mode needs the APIC on, and is left only by turning it off."""
    off, extended = value & 1 << 11 == 0, value & 1 << 10 != 0

    def transition() -> Decision:
        mode = value & 0xC00
        if v.x2apic:
            return (mode == 0xC00) | (mode == 0)
        return either(mode != 0xC00, lambda: _x2apic_supported(v))

    # EXTD without EN is refused in every mode.
    return both((extended & off) == False, lambda: both(_within(v, value), transition))  # noqa: E712


def _x2apic_supported(v: View) -> bool:
    """CPUID.1:ECX[21]; an APIC that is off cannot go to x2APIC mode at once, which nobody tells."""
    known = _cpuid_bit(v.cap.capabilities, "0x1.0.ecx", 21)
    if known is not False:
        raise MissingField(
            "CPUID 0x1.0.ecx[21] and the mode of the local APIC: whether it can go to x2APIC mode"
        )
    return False


def _within(v: View, value: Value) -> Decision:
    """No bit at or above the physical-address width; what no processor has needs no width."""
    return both(value >> 52 == 0, lambda: value & v.cap.beyond_physical == 0)


def _mtrr_pair(v: View, known: Msr, value: Value) -> Decision:
    if known.place & 1:
        return both(value & 0x7FF == 0, lambda: _within(v, value))
    return both((value & 0xF00 == 0) & one_of(value & 0xFF, _MTRR_TYPES), lambda: _within(v, value))


def _mtrr_types(v: View, known: Msr, value: Value) -> Decision:
    found: Decision = True
    for low in range(0, 64, 8):
        found = one_of(value >> low & 0xFF, _MTRR_TYPES) & found
    return found


def _machine_check(v: View, known: Msr, value: Value) -> Decision:
    """Status, address and miscellaneous registers take 0 only; what a control takes depends on the model."""
    if known.place & 3:
        return value == 0
    return _sure(attrs.evolve(known, unsure=ONES64), value)


def _spec_ctrl(v: View, known: Msr, value: Value) -> Decision:
    return value & v.cap.spec_ctrl_reserved == 0


def _canonical(v: View, known: Msr, value: Value) -> Decision:
    """Canonical by the processor's width; where that is not known, what every width says."""
    try:
        return canonical(v, value)
    except MissingField:
        # Canonical with 48 bits is canonical with 57 bits, too.
        if one_of(value >> 47, (0, 0x1_FFFF)):
            return True
        if not one_of(value >> 56, (0, 0xFF)):
            return False
        raise


def _cet(v: View, known: Msr, value: Value) -> Decision:
    """Not SUPPRESS and TRACKER together; a canonical bitmap; only the half that exists."""
    fits = both(value & 0xC00 != 0xC00, lambda: _canonical(v, known, value))
    for feature, bits in (("CET_SS", 3), ("CET_IBT", ONES64 & ~3)):
        if v.cap.capabilities.has(feature) is False:
            fits = fits & (value & bits == 0)
    return fits


def _xss(v: View, known: Msr, value: Value) -> Decision:
    """Only states that CPUID.0DH.1:EDX:ECX reports."""

    def reported() -> bool:
        leaf = v.cap.capabilities.cpuid
        if "0xd.1.ecx" not in leaf:
            raise MissingField("CPUID 0xd.1.ecx: which bits IA32_XSS has")
        supported = leaf["0xd.1.ecx"] | leaf.get("0xd.1.edx", 0) << 32
        outside: bool = value & (ONES64 & ~supported) == 0
        return outside

    return either(value == 0, reported)


def _efer(v: View, known: Msr, value: Value) -> Decision:
    return value & v.cap.efer_reserved & ~(1 << 10) == 0  # LMA is not written


def _perf_global_ctrl(v: View, known: Msr, value: Value) -> Decision:
    return either(value == 0, lambda: value & v.cap.perf_global_ctrl_reserved == 0)


def _rtit_ctl(v: View, known: Msr, value: Value) -> Decision:
    return either(value == 0, lambda: value & v.cap.rtit_ctl_reserved == 0)


def _fixed_ctr_ctrl(v: View, known: Msr, value: Value) -> Decision:
    """Four bits for each fixed counter; whether AnyThread is one of them depends on the version."""

    def fits() -> Decision:
        leaf = v.cap.capabilities.cpuid
        if "0xa.0.edx" not in leaf:
            raise MissingField("CPUID 0xa.0.edx: how many fixed counters there are")
        inside: Decision = value >> 4 * (leaf["0xa.0.edx"] & 0x1F) == 0
        return both(inside, lambda: _sure(attrs.evolve(known, unsure=0x4444_4444_4444_4444), value))

    return either(value == 0, fits)


def _counter_width(v: View, known: Msr, value: Value) -> Decision:
    leaf = v.cap.capabilities.cpuid
    if "0xa.0.eax" not in leaf:
        raise MissingField("CPUID 0xa.0.eax: how wide the counters are")
    number, width = leaf["0xa.0.eax"] >> 8 & 0xFF, leaf["0xa.0.eax"] >> 16 & 0xFF
    return known.place < number and value >> width == 0


_RULES: Final[Mapping[str, Callable[[View, Msr, Value], Decision]]] = {
    "read-only": lambda v, known, value: False,
    "locked": lambda v, known, value: False,
    "smm": lambda v, known, value: v.launch.in_smm,
    "zero": lambda v, known, value: value == 0,
    "canonical": _canonical,
    "memory-types": lambda v, known, value: memory_types(value),
    "mtrr-type": lambda v, known, value: one_of(value & 0xFF, _MTRR_TYPES),
    "mtrr-types": _mtrr_types,
    "mtrr-pair": _mtrr_pair,
    "machine-check": _machine_check,
    "apic-base": _apic_base,
    "spec-ctrl": _spec_ctrl,
    "cet": _cet,
    "xss": _xss,
    "efer": _efer,
    "debugctl": lambda v, known, value: value & v.cap.debugctl_reserved == 0,
    "perf-global-ctrl": _perf_global_ctrl,
    "rtit-ctl": _rtit_ctl,
    "fixed-ctr-ctrl": _fixed_ctr_ctrl,
    "counter-width": _counter_width,
}

_WHY: Final[Mapping[str, str]] = {
    "read-only": "is read-only",
    "locked": "is locked, as VMXON needs it",
    "smm": "is written in SMM only",
    "zero": "takes nothing but 0",
    "memory-types": "takes memory types (0, 1, 4, 5, 6, 7) only",
    "mtrr-types": "takes memory types (0, 1, 4, 5, 6) only",
    "mtrr-type": "takes memory types (0, 1, 4, 5, 6) only",
    "machine-check": "takes nothing but 0",
}


def why(v: View, number: int, value: int) -> str:
    """Why WRMSR refuses a value, in a few words behind the register's name."""
    known = msrs().get(number)
    if known is None:
        return f"{title(number)} does not take {value:#x}"
    if known.rule in ("read-only", "locked") or (known.rule == "smm" and not v.launch.in_smm):
        return f"{title(number)} {_WHY[known.rule]}"
    if value & known.reserved:
        return f"{title(number)} = {value:#x} has reserved bits ({value & known.reserved:#x})"
    try:
        if not _takes(v, known, value):
            if known.rule in _WHY:
                return f"{title(number)} {_WHY[known.rule]}, not {value:#x}"
            if known.rule in ("canonical", "cet") and not _canonical(v, known, value):
                return f"{title(number)} = {value:#x} is not canonical"
            return f"{title(number)} does not take {value:#x}"
    except MissingField:
        return f"{title(number)} does not take {value:#x}"
    return f"this processor has no {title(number)}"


__all__ = ["Msr", "accepts", "exists", "msrs", "reads", "title", "why"]
