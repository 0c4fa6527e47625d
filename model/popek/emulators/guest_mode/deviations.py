"""Where Bochs deviates from the manual in SVM's guest mode.

The list with its evidence is ``popek_specs/svm/bochs-guest-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from popek.architectures.ia32.state import CR4_DEFINED
from popek.architectures.x86_64.state import PHYSICAL_BITS
from popek.emulators.guests.case import AssistedCase
from popek.emulators.vmrun.harness import processor
from popek.emulators.x86.deviations import Deviation, listed
from popek.emulators.x86.expectation import Expectation

from .harness import SvmGuestResult


@attrs.frozen
class SvmGuestFound:
    """A difference, as the recognisers see it.

    Attributes:
        case, state: what was run, and from what state, of IA-32 or of x86-64.
        kind: what the model says: ``exit``, ``next`` or ``trap``.
        information: the exit information that the model expects, by its names.
        expected: the rest of what it expects.
        result: what Bochs did.
        seen, vector: how the step ended there, as `kind`, and the exception that the guest took.
        differing: the names of what differs, or ``outcome``.
    """

    case: AssistedCase
    state: Any
    kind: str
    information: Mapping[str, int]
    expected: Expectation
    result: SvmGuestResult
    seen: str
    vector: int | None
    differing: frozenset[str]

    @property
    def code(self) -> int | None:
        """The exit code that the model expects."""
        return self.information.get("exit_code")


_PAGED: Final = 1 << 31 | 1  # CR0.PG and PE
_EXCEPTIONS: Final = range(0x40, 0x60)
_GP, _UD = 0x4D, 0x46
_RDPMC, _IOIO, _TASK_SWITCH = 0x6F, 0x7B, 0x7D
_SYSENTER: Final = {0x175: "SYSENTER_ESP", 0x176: "SYSENTER_EIP"}
SOFTWARE: Final = ("INT imm8", "INT1", "INT3", "INTO")
"""Forms that deliver events of software."""
_SVM: Final = {"VMRUN": 0x80, "VMLOAD": 0x82, "VMSAVE": 0x83}


def moved(found: SvmGuestFound) -> int:
    """The value that an instruction moves to a control register."""
    operands = found.case.guest.operands
    number = next(operands[name] for name in ("operand r32", "operand r64") if name in operands)
    return int(found.state.gpr[number])


def expects(found: SvmGuestFound, vector: int) -> bool:
    """The model expects an exception, taken by the guest or leaving it."""
    return found.code == _EXCEPTIONS.start + vector or found.expected.vector == vector


def has_next_rip_of_its_own(information: Mapping[str, int]) -> bool:
    """Whether the model says that an exit tells no next rIP, and Bochs says otherwise."""
    code = information.get("exit_code")
    return (code in _EXCEPTIONS or code == _TASK_SWITCH) and information.get("exit_next_rip") == 0


def _next_rip_of_every_exit(found: SvmGuestFound) -> bool:
    return has_next_rip_of_its_own(found.information) and found.differing == {"exit_next_rip"}


def _paging_without_protection(found: SvmGuestFound) -> bool:
    if found.case.form != "MOV CR0, r32" or found.seen == "hang":
        return False
    value = moved(found)
    return value & _PAGED == 1 << 31 and expects(found, 13)


def _vmcb_address_comes_late(found: SvmGuestFound) -> bool:
    form = found.case.form
    faults = expects(found, 13)
    address = int(found.state.gpr[0])
    refused = bool(address & 0xFFF or address >> PHYSICAL_BITS)
    return form in _SVM and faults and refused and found.result.fields["EXITCODE"] == _SVM[form]


def _monitor_of_uncached_memory(found: SvmGuestFound) -> bool:
    return found.case.form.startswith("MONITOR") and found.code == 0x8A and found.seen == "next"


def _rsm_is_undefined_first(found: SvmGuestFound) -> bool:
    undefined = found.vector == 6 if found.seen == "trap" else found.result.fields["EXITCODE"] == _UD
    return found.case.form == "RSM" and found.code == 0x73 and undefined


def _lmsw_is_selective(found: SvmGuestFound) -> bool:
    return found.case.form.startswith("LMSW") and found.code == 0x65 and found.seen != "hang"


def _repeated_port_io_asks_first(found: SvmGuestFound) -> bool:
    repeated = found.case.form.startswith(("REP INS", "REP OUTS"))
    empty = found.kind == "next" and int(found.state.gpr[1]) == 0
    return repeated and empty and found.result.fields["EXITCODE"] == _IOIO


def _counter_comes_late(found: SvmGuestFound) -> bool:
    faults = expects(found, 13)
    return found.case.form == "RDPMC" and faults and found.result.fields["EXITCODE"] == _RDPMC


def _events_of_software(found: SvmGuestFound) -> bool:
    return found.case.form in SOFTWARE and found.differing == {"exit_int_info"}


def _bits_of_cr4(found: SvmGuestFound) -> bool:
    """MOV CR4 of a value with bits that the model's processor has and the emulated one has not, or the other way."""
    if not found.case.form.startswith("MOV CR4,") or found.seen == "hang":
        return False
    value = moved(found)
    here = expects(found, 13)
    there = found.result.fields["EXITCODE"] == _GP or found.vector == 13
    return bool(value & (CR4_DEFINED ^ (processor().cr4 or 0))) and here != there


def _sysenter_of_64_bits(found: SvmGuestFound) -> bool:
    number = int(found.state.gpr[1])
    if found.case.form != "WRMSR" or found.differing != {f"msr {number:#x}"} or number not in _SYSENTER:
        return False
    return found.result.fields[_SYSENTER[number]] == int(found.state.gpr[2]) << 32 | int(found.state.gpr[0])


def _alignment_before_pages(found: SvmGuestFound) -> bool:
    page = expects(found, 14)
    alignment = found.vector == 17 if found.seen == "trap" else found.result.fields["EXITCODE"] == 0x51
    checked = bool(found.state.cr0.am & found.state.eflags.ac & (found.state.cpl == 3))
    return page and alignment and checked


_RECOGNISED: Final[Mapping[str, Callable[[SvmGuestFound], bool]]] = {
    "next-rip-of-every-exit": _next_rip_of_every_exit,
    "vmcb-address-comes-late": _vmcb_address_comes_late,
    "monitor-of-uncached-memory": _monitor_of_uncached_memory,
    "rsm-is-undefined-first": _rsm_is_undefined_first,
    "lmsw-is-selective": _lmsw_is_selective,
    "repeated-port-io-asks-first": _repeated_port_io_asks_first,
    "counter-comes-late": _counter_comes_late,
    "paging-without-protection": _paging_without_protection,
    "events-of-software": _events_of_software,
    "alignment-before-pages": _alignment_before_pages,
    "bits-of-cr4": _bits_of_cr4,
    "sysenter-of-64-bits": _sysenter_of_64_bits,
}


ANY_GUEST: Final = {
    name: _RECOGNISED[name]
    for name in (
        "next-rip-of-every-exit", "vmcb-address-comes-late", "monitor-of-uncached-memory", "rsm-is-undefined-first",
        "lmsw-is-selective", "counter-comes-late", "events-of-software", "bits-of-cr4",
    )
}  # fmt: skip
"""What is recognised of a 64-bit guest, too."""


def deviations() -> Mapping[str, Deviation]:
    """The list, by name."""
    return listed("popek_specs.svm", "bochs-guest-deviations.toml")


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(found: SvmGuestFound) -> str | None:
    """The name of the entry that explains a difference, if one does; nothing explains a hang."""
    if not found.result.fields:
        return None
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
