"""Where Bochs deviates from the manual in VMX non-root operation.

The list with its evidence is ``popek_specs/vtx/bochs-guest-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.architectures.vtx.operation.state import VmxIa32
from popek.emulators.x86.deviations import Deviation, listed

from .cases import VmxGuestCase
from .harness import TSC_AUX, VmxGuestResult

_PAGED = 1 << 31 | 1  # CR0.PG and PE


@attrs.frozen
class VmxGuestFound:
    """A difference, as the recognisers see it.

    Attributes:
        case, state: what was run, and from what state.
        kind: what the model says: ``exit``, ``next``, ``halt`` or ``trap``.
        information: the exit information that the model expects, by its names.
        result: what Bochs did.
        seen: how the step ended there, as `kind`.
        differing: the names of what differs, or ``outcome``.
    """

    case: VmxGuestCase
    state: VmxIa32
    kind: str
    information: Mapping[str, int]
    result: VmxGuestResult
    seen: str
    differing: frozenset[str]

    @property
    def mnemonic(self) -> str:
        """The first word of the form that is no prefix."""
        return next(word for word in self.case.form.split() if word != "o16")

    @property
    def reason(self) -> int | None:
        """The basic exit reason that the model expects."""
        return self.information.get("exit_reason")


_RANDOM_DEFINED: Final = (
    0x1878  # of the instruction information of RDRAND and RDSEED: register and operand size
)


def _table_register_operand_size(found: VmxGuestFound) -> bool:
    wide = found.reason == 46 and not found.case.form.startswith("o16")
    if not wide or found.differing != {"exit_instruction_info"}:
        return False
    return found.information["exit_instruction_info"] ^ found.result.fields[0x440E] == 1 << 11


def _random_number_operand_size(found: VmxGuestFound) -> bool:
    small = found.case.form in ("RDRAND r16", "RDSEED r16")
    if not small or found.differing != {"exit_instruction_info"}:
        return False
    told = (found.information["exit_instruction_info"], found.result.fields[0x440E])
    return [value & _RANDOM_DEFINED for value in told] == [told[0] & 0xF << 3, told[0] & 0xF << 3 | 1 << 11]


def _exits_at_any_level(found: VmxGuestFound) -> bool:
    reason = {"XSETBV": 55, "INVPCID": 58}.get(found.mnemonic)
    return int(found.state.cpl) > 0 and found.seen == "exit" and found.result.fields[0x4402] == reason


def _repeated_port_io_asks_first(found: VmxGuestFound) -> bool:
    repeated = found.case.form.startswith(("REP INS", "REP OUTS"))
    return (
        repeated
        and found.kind == "next"
        and int(found.state.gpr[1]) == 0
        and found.result.fields[0x4402] == 30
    )


def _enabling_controls_come_late(found: VmxGuestFound) -> bool:
    control = {"XSAVES": "enable_xsaves_xrstors", "XRSTORS": "enable_xsaves_xrstors"}.get(found.mnemonic)
    return control is not None and not int(found.state.secondary_control(control))


def _guest_clears_paging(found: VmxGuestFound) -> bool:
    restricted = not int(found.state.secondary_control("unrestricted_guest"))
    cleared = found.result.fields[0x6800] & _PAGED != _PAGED
    return found.case.form == "MOV CR0, r32" and restricted and found.seen == "next" and cleared


def _auxiliary_takes_high_bits(found: VmxGuestFound) -> bool:
    writes = found.case.form == "WRMSR" and int(found.state.gpr[1]) == TSC_AUX
    return writes and int(found.state.gpr[2]) != 0 and found.seen == "next"


def _saving_state_reads_first(found: VmxGuestFound) -> bool:
    """Pages of the area that code at CPL 3 may not write: the header may be read before anything is written."""
    saves = found.case.form.startswith("XSAVE")
    return saves and bool(found.case.barred) and "outcome" in found.differing


_RECOGNISED: Final[Mapping[str, Callable[[VmxGuestFound], bool]]] = {
    "table-register-operand-size": _table_register_operand_size,
    "random-number-operand-size": _random_number_operand_size,
    "saving-state-reads-first": _saving_state_reads_first,
    "guest-clears-paging": _guest_clears_paging,
    "exits-at-any-level": _exits_at_any_level,
    "repeated-port-io-exits-first": _repeated_port_io_asks_first,
    "enabling-control-comes-late": _enabling_controls_come_late,
    "tsc-aux-takes-high-bits": _auxiliary_takes_high_bits,
}


def deviations() -> Mapping[str, Deviation]:
    """The list, by name."""
    return listed("popek_specs.vtx", "bochs-guest-deviations.toml")


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(found: VmxGuestFound) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
