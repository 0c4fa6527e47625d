"""Where Bochs deviates from the manual in VMX non-root operation of a 64-bit guest.

The list with its evidence is ``popek_specs/vtx/bochs-guest-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.architectures.vtx.operation.extended_paging import EPT_VIOLATION, EptX64
from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.guests.long_expectation import LongPrediction

from .harness import GUEST_PAGES, VmxGuestResult
from .long_cases import VmxLongCase


@attrs.frozen
class LongFound:
    """A difference, as the recognisers see it.

    Attributes:
        case, state: what was run, and from what state.
        predicted: what the model says.
        result: what Bochs did.
        seen, vector: how the step ended there.
        differing: the names of what differs, or ``outcome``.
    """

    case: VmxLongCase
    state: EptX64
    predicted: LongPrediction
    result: VmxGuestResult
    seen: str
    vector: int | None
    differing: frozenset[str]

    @property
    def mnemonic(self) -> str:
        """The first word of the form."""
        return self.case.form.split()[0]


def _table_register_operand_size(found: LongFound) -> bool:
    compatible = found.predicted.information.get("exit_reason") == 46 and not found.case.guest.long
    if not compatible or found.differing != {"exit_instruction_info"}:
        return False
    return found.predicted.information["exit_instruction_info"] ^ found.result.fields[0x440E] == 1 << 11


def _exits_at_any_level(found: LongFound) -> bool:
    reason = {"XSETBV": 55, "INVPCID": 58}.get(found.mnemonic)
    return int(found.state.cpl) > 0 and found.seen == "exit" and found.result.fields[0x4402] == reason


def _enabling_controls_come_late(found: LongFound) -> bool:
    lacking = not int(found.state.secondary_control("enable_xsaves_xrstors"))
    return found.mnemonic in ("XSAVES", "XRSTORS") and lacking


def _low_half_of_cr0(found: LongFound) -> bool:
    mask = int(found.state.cr0_mask) & int(found.state.cr0_shadow)
    wide = found.case.form in ("SMSW r64", "MOV r64, CR0") and mask >> 32
    register = GPR_NAMES[found.case.guest.operands["operand r64"]] if wide else ""
    return bool(wide) and found.differing == {register}


def _guest_clears_paging(found: LongFound) -> bool:
    restricted = not int(found.state.secondary_control("unrestricted_guest"))
    cleared = not found.result.fields[0x6800] >> 31 & 1
    return found.case.form == "MOV CR0, r64" and restricted and found.seen == "next" and cleared


def _self_ipi_is_not_stored(found: LongFound) -> bool:
    number = found.case.guest.state()["rcx"] & 0xFFFF_FFFF
    place = f"[{GUEST_PAGES.virtual_apic + 0x3F0:#x}]"
    return found.case.form == "WRMSR" and number == 0x83F and found.differing == {place}


def _another_part_first(found: LongFound) -> bool:
    information, fields = found.predicted.information, found.result.fields
    if information.get("exit_reason") != EPT_VIOLATION or fields[0x4402] != EPT_VIOLATION:
        return False
    apart = abs(information["exit_guest_physical_address"] - fields[0x2400])
    return found.differing <= {"exit_linear_address", "exit_guest_physical_address"} and 0 < apart < 48


def _first_part_before_the_limit(found: LongFound) -> bool:
    """The operand runs past the end of its segment, and its first part lies where EPT keeps it."""
    two_parts = found.mnemonic in ("SGDT", "SIDT") and not found.case.guest.long
    violates = found.seen == "exit" and found.result.fields[0x4402] == EPT_VIOLATION
    return two_parts and violates and found.predicted.storage


_RECOGNISED: Final[Mapping[str, Callable[[LongFound], bool]]] = {
    "table-register-operand-size": _table_register_operand_size,
    "exits-at-any-level": _exits_at_any_level,
    "enabling-control-comes-late": _enabling_controls_come_late,
    "high-half-of-cr0-is-not-shadowed": _low_half_of_cr0,
    "guest-clears-paging": _guest_clears_paging,
    "self-ipi-is-not-stored": _self_ipi_is_not_stored,
    "another-part-first": _another_part_first,
    "first-part-before-the-limit": _first_part_before_the_limit,
}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(found: LongFound) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
