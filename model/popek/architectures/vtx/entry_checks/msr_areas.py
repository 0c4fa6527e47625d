"""Loading MSRs from the VM-entry MSR-load area (E.4), and what the VM-exit areas will do.

LOAD-06 asks whether WRMSR would fault, by `popek.architectures.vtx.msr_writes`. An entry that is known to be
refused fails the area whatever is not known of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.architectures.vtx import msr_writes
from popek.architectures.vtx.view import Decision, View, both
from popek.architectures.vtx.vmcs import MissingField
from popek.kernel.words import Word

from .msr_entries import Entry, entry
from .registry import CheckGroup, Condition, checker, refuses

check = checker(CheckGroup("msr-load-area", "VM-entry MSR-load area", refuses(None, 34), stage=3))

LOADS = (Condition("ENTRY_MSR_LOAD_COUNT > 0", lambda v: v.ENTRY_MSR_LOAD_COUNT != 0),)

IA32_EFER: Final = 0xC000_0080
_FS_BASE, _GS_BASE = 0xC000_0100, 0xC000_0101


def _count(v: View, area: str) -> int:
    count = getattr(v, f"{area}_COUNT")
    return int(count) if isinstance(count, Word) else min(count, _MOST_LOOKED_AT)


_MOST_LOOKED_AT: Final = 4096  # as many as any processor recommends

Legal = Callable[[View, Entry], Decision]


def all_legal(v: View, legal: Legal, area: str = "ENTRY_MSR_LOAD") -> bool:
    """Whether every entry of an area is legal.

    Raises:
        MissingField: no entry is known to be illegal, and of one that is not known.
    """
    lacking: MissingField | None = None
    for number in range(_count(v, area)):
        try:
            if not legal(v, entry(v, number, area)):
                return False
        except MissingField as error:
            lacking = lacking or error
            if error.what.startswith("memory") or error.what == f"{area}_ADDR":
                break  # what nobody described goes on
    if lacking is not None:
        raise lacking
    return True


def numbers(v: View, legal: Legal, area: str = "ENTRY_MSR_LOAD") -> tuple[int, ...]:
    """The entries, counted from 1, that may be the first illegal one; the last is known to be; none: nothing is."""
    perhaps: list[int] = []
    for number in range(1, _count(v, area) + 1):
        try:
            if not legal(v, entry(v, number - 1, area)):
                return (*perhaps, number)
        except MissingField as error:
            perhaps.append(number)
            if error.what.startswith("memory"):
                break
    return ()


def _check(
    check_id: str, legal: Legal, message: str, note: Callable[[View, Entry], str] | None = None
) -> None:
    def noted(v: View) -> str:
        found = numbers(v, legal)
        if not found:
            return ""
        number, item = found[-1], entry(v, found[-1] - 1)
        return f"entry {number}: {note(v, item) if note else msr_writes.title(item[0])}"

    check(
        check_id,
        LOADS,
        lambda v: all_legal(v, legal),
        message + " (in the {ENTRY_MSR_LOAD_COUNT} entries at {ENTRY_MSR_LOAD_ADDR})",
        numbers=lambda v: numbers(v, legal),
        note=noted,
    )


def _symbolic(index: int | Word) -> bool:
    return isinstance(index, Word) and not index.concrete


def _wrmsr(v: View, item: Entry) -> Decision:
    index, _, value = item
    # The rows before this one answer for what only they refuse; an entry that nobody described can be any.
    if _symbolic(index) or index >> 8 == 8 or index in _REFUSED_BY_NAME:
        return True
    return msr_writes.accepts(v, int(index), value)


_SMM_ONLY: Final = (0x9B, 0x9E)
_MICROCODE: Final = (0x79, 0x8B)
_REFUSED_BY_NAME: Final = (_FS_BASE, _GS_BASE, *_SMM_ONLY, *_MICROCODE)

_check(
    "LOAD-01",
    lambda v, item: item[0] not in (_FS_BASE, _GS_BASE),
    "IA32_FS_BASE and IA32_GS_BASE cannot be loaded by the MSR-load area",
)
_check(
    "LOAD-02",
    lambda v, item: item[0] >> 8 != 8,
    "an x2APIC MSR cannot be loaded by the MSR-load area",
)
_check(
    "LOAD-03",
    lambda v, item: item[0] not in _SMM_ONLY or v.launch.in_smm,
    "IA32_SMM_MONITOR_CTL and IA32_SMBASE are for SMM only",
)
_check(
    "LOAD-04",
    lambda v, item: item[1] == 0,
    "bits 63:32 of each MSR-load entry must be 0",
    lambda v, item: f"bits 63:32 are {item[1]:#x}",
)
_check("LOAD-05", lambda v, item: item[0] not in _MICROCODE, "microcode-update MSRs cannot be loaded")
_check(
    "LOAD-06",
    _wrmsr,
    "WRMSR would not accept the value of an MSR-load entry",
    lambda v, item: msr_writes.why(v, item[0], item[2]),
)
_check(
    "LOAD-07",
    lambda v, item: (
        item[0] != IA32_EFER or v.GUEST_CR0 & 1 << 31 == 0 or (item[2] >> 8 ^ v.ENTRY_CONTROLS >> 9) & 1 == 0
    ),
    "IA32_EFER.LME cannot change while the guest has paging on",
    lambda v, item: f"IA32_EFER = {item[2]:#x}",
)


# -- the VM-exit areas: what a bad entry does is a VMX abort at the next VM exit, not a failed entry ---------


def _loaded_at_exit(v: View, item: Entry) -> Decision:
    index, high, _ = item
    if _symbolic(index):
        return True
    if index in (_FS_BASE, _GS_BASE, *_MICROCODE, *_SMM_ONLY) or index >> 8 == 8:
        return False
    # Bits 63:32 are asked for last: a list by KVM does not have them.
    return both(_wrmsr(v, item), lambda: high == 0)


def _stored_at_exit(v: View, item: Entry) -> Decision:
    index, high, _ = item
    if _symbolic(index):
        return True
    if index >> 8 == 8 or (index == _SMM_ONLY[1] and not v.launch.in_smm):
        return False
    return both(index in _REFUSED_BY_NAME or msr_writes.reads(v, int(index)), lambda: high == 0)


def _described_ones_legal(v: View, legal: Legal, area: str) -> bool:
    """As `all_legal`, of the entries whose memory is described: VM entry does not ask for the others."""
    try:
        return all_legal(v, legal, area)
    except MissingField as error:
        if error.what.startswith("memory"):
            return True
        raise


def _exit_area(check_id: str, area: str, legal: Legal, what: str, note: Callable[[View, Entry], str]) -> None:
    def noted(v: View) -> str:
        found = numbers(v, legal, area)
        return f"entry {found[-1]}: {note(v, entry(v, found[-1] - 1, area))}" if found else ""

    check(
        check_id,
        (Condition(f"{area}_COUNT > 0", lambda v: getattr(v, f"{area}_COUNT") != 0),),
        lambda v: _described_ones_legal(v, legal, area),
        f"an entry cannot be {what} at the next VM exit, which ends in a VMX abort (in the {{{area}_COUNT}} "
        f"entries at {{{area}_ADDR}})",
        certainty="warning",
        note=noted,
    )


_exit_area(
    "EXIT-08",
    "EXIT_MSR_LOAD",
    _loaded_at_exit,
    "loaded",
    lambda v, item: (
        msr_writes.title(item[0])
        if item[0] in _REFUSED_BY_NAME or item[0] >> 8 == 8
        else f"bits 63:32 are {item[1]:#x}"
        if item[1]
        else msr_writes.why(v, item[0], item[2])
    ),
)
_exit_area(
    "EXIT-09",
    "EXIT_MSR_STORE",
    _stored_at_exit,
    "stored",
    lambda v, item: f"bits 63:32 are {item[1]:#x}" if item[1] else msr_writes.title(item[0]),
)
