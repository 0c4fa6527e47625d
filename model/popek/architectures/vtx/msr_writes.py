"""Which values WRMSR takes at CPL 0, register by register (SDM vol. 4, and vol. 3 for what the bits mean).

An MSR that is not in the table of `msr_table`, or whose existence the processor decides and nobody told, is not
guessed: `accepts` raises `MissingField`. A value that no processor takes is refused whether or not the register
exists, for WRMSR faults in either case; what is uncertain refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from popek.architectures.x86.msrs import are_memory_types
from popek.kernel.words import FALSE, TRUE, Word, any_of, ite
from popek_specs.vtx import rows

from .capabilities import ONES64
from .msr_table import WRITE_ONLY, ListedMsr, cpuid_bit, exists, msrs, title
from .view import Decision, Value, View, both, canonical, either, memory_types, one_of
from .vmcs import MissingField


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
    fits = _takes(v, known, value)
    if fits is False and not known.sure:
        raise MissingField(f"MSR {number:X}H: whether this processor has it, and what it takes")
    return both(fits, lambda: exists(v, known))


def reads(v: View, number: int) -> bool:
    """Whether RDMSR at CPL 0 finds the register.

    Raises:
        MissingField: that depends on something nobody told; it is named.
    """
    known = msrs().get(number)
    if known is None:
        raise MissingField(f"MSR {number:X}H: whether this processor has it")
    if number in WRITE_ONLY:
        return False
    return exists(v, known)


def never(number: Word, value: Word) -> Word:
    """Whether no processor's WRMSR takes a value, whatever it is doing outside SMM (width 1).

    Args:
        number: of a register, 32 bits.
        value: 64 bits.
    """
    return any_of(
        inside & ((value & mask != 0) | _refused_by(rule, number, value))
        for inside, mask, rule in _runs(number)
    )


def _runs(number: Word) -> Iterator[tuple[Word, int, str]]:
    """Whether a number is in a row, and the row's reserved bits and rule; of the rows that are sure."""
    for row in rows("msrs.csv"):
        if row["confidence"] == "sure":
            first, last = int(row["first"], 16), int(row["last"], 16)
            inside = number == first if first == last else (number >= first) & (number <= last)
            yield inside, int(row["reserved"] or "0", 16), row["accepts"]


def _refused_by(rule: str, number: Word, value: Word) -> Word:
    """Whether a rule refuses a value on every processor (width 1)."""
    match rule:
        case "read-only" | "locked" | "smm":
            return TRUE
        case "zero":
            return value != 0
        case "machine-check":
            return (number[1:0] != 0) & (value != 0)
        case "memory-types":
            return ~are_memory_types(value)
        case "mtrr-type":
            return ~value[7:0].isin(_MTRR_TYPES)
        case "mtrr-types":
            return any_of(~value[low + 7 : low].isin(_MTRR_TYPES) for low in range(0, 64, 8))
        case "mtrr-pair":
            base = (value[11:8] != 0) | ~value[7:0].isin(_MTRR_TYPES)
            return (value[63:52] != 0) | ite(number[0], value[10:0] != 0, base)
        case "canonical":
            return ~value[63:56].isin((0, 0xFF))
        case "cet":
            return ~value[63:56].isin((0, 0xFF)) | (value[11:10] == 3)
        case _:
            return FALSE


def _takes(v: View, known: ListedMsr, value: Value) -> Decision:
    """Whether the value is legal where the register exists."""
    fits: Decision = value & known.reserved == 0
    if known.rule:
        fits = both(fits, lambda: _RULES[known.rule](v, known, value))
    if known.unsure:
        return both(fits, lambda: _sure(known, value))
    return fits


def _sure(known: ListedMsr, value: Value) -> Decision:
    unclear = value & known.unsure
    if isinstance(unclear, Word) and not unclear.concrete:
        return unclear == 0
    if int(unclear):
        bits = f"{int(unclear):#x}"
        raise MissingField(f"MSR {known.number:X}H: whether this model takes bits {bits} of {known.name}")
    return True


# -- rules for values --------------------------------------------------------------------

_MTRR_TYPES: Final = (0, 1, 4, 5, 6)


def _apic_base(v: View, known: ListedMsr, value: Value) -> Decision:
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
    known = cpuid_bit(v.cap.capabilities, "0x1.0.ecx", 21)
    if known is not False:
        raise MissingField(
            "CPUID 0x1.0.ecx[21] and the mode of the local APIC: whether it can go to x2APIC mode"
        )
    return False


def _within(v: View, value: Value) -> Decision:
    """No bit at or above the physical-address width; what no processor has needs no width."""
    return both(value >> 52 == 0, lambda: value & v.cap.beyond_physical == 0)


def _mtrr_pair(v: View, known: ListedMsr, value: Value) -> Decision:
    if known.place & 1:
        return both(value & 0x7FF == 0, lambda: _within(v, value))
    return both((value & 0xF00 == 0) & one_of(value & 0xFF, _MTRR_TYPES), lambda: _within(v, value))


def _mtrr_types(v: View, known: ListedMsr, value: Value) -> Decision:
    found: Decision = True
    for low in range(0, 64, 8):
        found = one_of(value >> low & 0xFF, _MTRR_TYPES) & found
    return found


def _machine_check(v: View, known: ListedMsr, value: Value) -> Decision:
    """Status, address and miscellaneous registers take 0 only; what a control takes depends on the model."""
    if known.place & 3:
        return value == 0
    return _sure(attrs.evolve(known, unsure=ONES64), value)


def _told(v: View, known: ListedMsr, value: Value, bits: Mapping[int, str]) -> Decision:
    """Bits that come with a feature are not said to be taken where nobody told whether there is such."""
    unsure = sum(bit for bit, feature in bits.items() if v.cap.capabilities.has(feature) is None)
    return _sure(attrs.evolve(known, unsure=unsure), value)


def _debugctl(v: View, known: ListedMsr, value: Value) -> Decision:
    bits = {1 << 2: "BUS_LOCK_DETECT", 1 << 15: "RTM"}
    return both(value & v.cap.debugctl_reserved == 0, lambda: _told(v, known, value, bits))


def _spec_ctrl(v: View, known: ListedMsr, value: Value) -> Decision:
    bits = {1: "SPEC_CTRL", 2: "STIBP", 4: "SSBD"}
    return both(value & v.cap.spec_ctrl_reserved == 0, lambda: _told(v, known, value, bits))


def _canonical(v: View, known: ListedMsr, value: Value) -> Decision:
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


def _perhaps_canonical(v: View, known: ListedMsr, value: Value) -> Decision:
    """Every canonical address is taken; of others nobody says."""

    def others() -> Decision:
        raise MissingField(
            f"MSR {known.number:X}H: whether {known.name} takes an address that is not canonical"
        )

    return either(_canonical(v, known, value), others)


def _cet(v: View, known: ListedMsr, value: Value) -> Decision:
    """Not SUPPRESS and TRACKER together; a canonical bitmap; only the half that exists."""
    fits = both(value & 0xC00 != 0xC00, lambda: _canonical(v, known, value))
    for feature, bits in (("CET_SS", 3), ("CET_IBT", ONES64 & ~3)):
        if v.cap.capabilities.has(feature) is False:
            fits = fits & (value & bits == 0)
    return fits


def _xss(v: View, known: ListedMsr, value: Value) -> Decision:
    """Only states that CPUID.0DH.1:EDX:ECX reports."""

    def reported() -> bool:
        leaf = v.cap.capabilities.cpuid
        if "0xd.1.ecx" not in leaf:
            raise MissingField("CPUID 0xd.1.ecx: which bits IA32_XSS has")
        supported = leaf["0xd.1.ecx"] | leaf.get("0xd.1.edx", 0) << 32
        outside: bool = value & (ONES64 & ~supported) == 0
        return outside

    return either(value == 0, reported)


def _efer(v: View, known: ListedMsr, value: Value) -> Decision:
    # LMA is not written.
    bits = {1: "SYSCALL", 1 << 8: "INTEL64", 1 << 11: "NX"}
    return both(value & v.cap.efer_reserved & ~(1 << 10) == 0, lambda: _told(v, known, value, bits))


def _perf_global_ctrl(v: View, known: ListedMsr, value: Value) -> Decision:
    return either(value == 0, lambda: value & v.cap.perf_global_ctrl_reserved == 0)


def _rtit_ctl(v: View, known: ListedMsr, value: Value) -> Decision:
    return either(value == 0, lambda: value & v.cap.rtit_ctl_reserved == 0)


def _fixed_ctr_ctrl(v: View, known: ListedMsr, value: Value) -> Decision:
    """Four bits for each fixed counter; whether AnyThread is one of them depends on the version."""

    def fits() -> Decision:
        leaf = v.cap.capabilities.cpuid
        if "0xa.0.edx" not in leaf:
            raise MissingField("CPUID 0xa.0.edx: how many fixed counters there are")
        inside: Decision = value >> 4 * (leaf["0xa.0.edx"] & 0x1F) == 0
        return both(inside, lambda: _sure(attrs.evolve(known, unsure=0x4444_4444_4444_4444), value))

    return either(value == 0, fits)


def _counter_width(v: View, known: ListedMsr, value: Value) -> Decision:
    leaf = v.cap.capabilities.cpuid
    if "0xa.0.eax" not in leaf:
        raise MissingField("CPUID 0xa.0.eax: how wide the counters are")
    number, width = leaf["0xa.0.eax"] >> 8 & 0xFF, leaf["0xa.0.eax"] >> 16 & 0xFF
    return known.place < number and value >> width == 0


_RULES: Final[Mapping[str, Callable[[View, ListedMsr, Value], Decision]]] = {
    "read-only": lambda v, known, value: False,
    "locked": lambda v, known, value: False,
    "smm": lambda v, known, value: v.launch.in_smm,
    "zero": lambda v, known, value: value == 0,
    "canonical": _canonical,
    "perhaps-canonical": _perhaps_canonical,
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
    "debugctl": _debugctl,
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


__all__ = ["accepts", "never", "reads", "title", "why"]
