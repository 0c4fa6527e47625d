"""The bits of every field with a structure: the control words and registers, and what they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .. import controls
from ..controls import EXCEPTIONS, Bit, NamedBits

_MEMORY_TYPES = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-", 2: "reserved", 3: "reserved"}
_BREAK_ON = {0: "execution", 1: "data write", 2: "I/O", 3: "data read or write"}
_LENGTHS = {0: "1 byte", 1: "2 bytes", 2: "8 bytes", 3: "4 bytes"}
_SDM = "Intel SDM vol. 3"


def _named(*bits: tuple[int, int, str, str]) -> tuple[NamedBits, ...]:
    return tuple(NamedBits(high, low, name, title, source=_SDM) for high, low, name, title in bits)


_PAT = tuple(NamedBits(8 * n + 7, 8 * n, f"PA{n}", f"memory type {n}", _MEMORY_TYPES, _SDM) for n in range(8))
_CR3 = _named(
    (11, 0, "LOW", "PCID if CR4.PCIDE = 1, else PWT (bit 3) and PCD (bit 4)"),
    (51, 12, "FRAME", "page frame of the top paging structure"),
    (60, 52, "RESERVED_60_52", "reserved"),
    (61, 61, "LAM_U57", "linear-address masking, 57-bit"),
    (62, 62, "LAM_U48", "linear-address masking, 48-bit"),
    (63, 63, "NO_FLUSH", "only an operand of MOV to CR3, never part of the register"),
)
_PDPTE = _named(
    (0, 0, "P", "present"),
    (2, 1, "RESERVED_2_1", "reserved"),
    (3, 3, "PWT", "page-level write-through"),
    (4, 4, "PCD", "page-level cache disable"),
    (8, 5, "RESERVED_8_5", "reserved"),
    (11, 9, "IGNORED", "ignored"),
    (51, 12, "FRAME", "page frame of the page directory"),
    (63, 52, "RESERVED_63_52", "reserved"),
)
_DR7 = (
    *_named(
        *((2 * n, 2 * n, f"L{n}", f"breakpoint {n} enabled locally") for n in range(4)),
        *((2 * n + 1, 2 * n + 1, f"G{n}", f"breakpoint {n} enabled globally") for n in range(4)),
        (8, 8, "LE", "local exact"),
        (9, 9, "GE", "global exact"),
        (10, 10, "RESERVED_10", "always 1"),
        (11, 11, "RTM", "advanced debugging of transactions"),
        (13, 13, "GD", "general detect"),
    ),
    *(NamedBits(17 + 4 * n, 16 + 4 * n, f"RW{n}", f"breakpoint {n} on", _BREAK_ON, _SDM) for n in range(4)),
    *(NamedBits(19 + 4 * n, 18 + 4 * n, f"LEN{n}", f"breakpoint {n} of", _LENGTHS, _SDM) for n in range(4)),
)
_S_CET = _named(
    (0, 0, "SH_STK_EN", "shadow stacks"),
    (1, 1, "WR_SHSTK_EN", "WRSS instructions"),
    (2, 2, "ENDBR_EN", "indirect-branch tracking"),
    (3, 3, "LEG_IW_EN", "legacy interworking"),
    (4, 4, "NO_TRACK_EN", "no-track prefix"),
    (5, 5, "SUPPRESS_DIS", "no suppression of tracking"),
    (9, 6, "RESERVED_9_6", "reserved"),
    (10, 10, "SUPPRESS", "tracking is suppressed"),
    (11, 11, "TRACKER", "waiting for ENDBR"),
    (63, 12, "BITMAP", "page of the legacy-code bitmap"),
)
_BNDCFGS = _named(
    (0, 0, "EN", "bounds enabled"),
    (1, 1, "BNDPRESERVE", "bounds preserved by branches"),
    (11, 2, "RESERVED_11_2", "reserved"),
    (63, 12, "BASE", "page of the bound directory"),
)

_MORE: Mapping[str, tuple[NamedBits, ...]] = MappingProxyType(
    {
        "GUEST_IA32_PAT": _PAT,
        "HOST_IA32_PAT": _PAT,
        "GUEST_CR3": _CR3,
        "HOST_CR3": _CR3,
        "GUEST_DR7": _DR7,
        "GUEST_IA32_S_CET": _S_CET,
        "HOST_IA32_S_CET": _S_CET,
        "GUEST_IA32_BNDCFGS": _BNDCFGS,
        "GUEST_INTERRUPT_STATUS": _named(
            (7, 0, "RVI", "requesting virtual interrupt"), (15, 8, "SVI", "servicing virtual interrupt")
        ),
        "EXCEPTION_BITMAP": _named(
            *((vector, vector, name, f"#{name} exits") for vector, name in EXCEPTIONS.items())
        ),
    }
    | {f"GUEST_PDPTE{n}": _PDPTE for n in range(4)}
)


def bits_of(field_id: str) -> tuple[NamedBits, ...]:
    """Return the named bits of a field, low ones first; none if the field is a plain number."""
    return controls.bits_of(field_id) or tuple(sorted(_MORE.get(field_id, ()), key=lambda bits: bits.low))


def decode(field_id: str, value: int) -> list[Bit]:
    """Return the bits of a value, low ones first; none if the field is a plain number.

    >>> [bit.meaning for bit in decode("GUEST_IA32_PAT", 0x0006)][0]
    'memory type 0: WB'
    """
    return controls.decode(field_id, value) or [_bit(bits, value) for bits in bits_of(field_id)]


def _bit(bits: NamedBits, value: int) -> Bit:
    part = value >> bits.low & (1 << bits.high - bits.low + 1) - 1
    known = bits.meaning.get(part)
    return Bit(bits.high, bits.low, bits.name, part, f"{bits.title}: {known}" if known else bits.title)
