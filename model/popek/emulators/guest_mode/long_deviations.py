"""Where Bochs deviates from the manual in SVM's guest mode of a 64-bit guest.

The list with its evidence is ``popek_specs/svm/bochs-guest-deviations.toml``; here is, for each entry that 32-bit
guests do not have, how to recognise a difference that it explains, as narrowly as the case shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from .deviations import ANY_GUEST, SvmGuestFound, expects, moved

_CR0_SEL_WRITE: Final = 0x65
_AFTER_RESERVED_BITS: Final = {
    "MOV CR3, r64": 0x13, "MOV CR8, r64": 0x18,
    **{f"MOV DR{number}, r64": 0x30 + number for number in range(4, 8)},
}  # fmt: skip
"""Forms that refuse reserved bits, and the exit codes of their intercepts."""
_LMA: Final = 1 << 10


def _reserved_bits_come_late(found: SvmGuestFound) -> bool:
    code = _AFTER_RESERVED_BITS.get(found.case.form)
    refused = int(found.state.cpl) == 0 and expects(found, 13)
    return refused and found.result.fields["EXITCODE"] == code


def _system_calls_of_compatibility_mode(found: SvmGuestFound) -> bool:
    calls = found.case.form in ("SYSCALL", "SYSRET") and not found.case.guest.long
    return calls and expects(found, 6) and found.seen == "next"


def _long_mode_is_left_first(found: SvmGuestFound) -> bool:
    selective = found.case.form == "MOV CR0, r64" and found.code == _CR0_SEL_WRITE
    if not selective or found.differing != {"efer"} or moved(found) >> 31 & 1:
        return False
    return int(found.state.efer.value) ^ found.result.fields["EFER"] & ~(1 << 12) == _LMA


_RECOGNISED: Final[Mapping[str, Callable[[SvmGuestFound], bool]]] = {
    **ANY_GUEST,
    "reserved-bits-come-late": _reserved_bits_come_late,
    "system-calls-of-compatibility-mode": _system_calls_of_compatibility_mode,
    "long-mode-is-left-first": _long_mode_is_left_first,
}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(found: SvmGuestFound) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
