"""VM entry and VM exit as transformers of one IA-32 state (SDM vol. 3C, "VM Entries" and "VM Exits").

What a VM exit saves is the guest-state area, what it loads the host-state area; a VM entry loads the guest's
and may inject an event, which goes through the guest's IDT as if it had happened there.  Everything else stays in
the registers: the general registers, CR2, the debug registers but DR7, XCR0, the time-stamp counter and the MSRs
but SYSENTER's are for the VMM to switch.  Of CR0 neither touches ET, CD, NW and bits that do not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from popek.kernel.outcome import Fault, Next, NotModelled, NotModelledError, Outcome, Trap
from popek.kernel.words import Word, ite

from ...ia32 import access
from ...ia32.instructions.interrupts import deliver_software_interrupt
from ...ia32.msrs import IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP
from ...ia32.state import SEGMENT_NAMES
from .exits import (
    ERROR_CODE_VALID,
    SOFTWARE,
    SOFTWARE_EXCEPTION,
    SOFTWARE_INTERRUPT,
    VALID,
    exit_of_exception,
)
from .state import VmxIa32, begin

SEGMENTS: Final = (*SEGMENT_NAMES, "ldtr", "tr")
WORDS: Final = (
    "cr0", "cr3", "cr4", "dr7", "esp", "eip", "eflags", "halted", "shadow", "nmi_blocked",
    *(f"{name}.{part}" for name in SEGMENTS for part in ("selector", "base", "limit", "rights")),
    *(f"{name}.{part}" for name in ("gdtr", "idtr") for part in ("base", "limit")),
)  # fmt: skip
SYSENTER: Final = (IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP)
KEPT_IN_CR0: Final = 0x7FFAFFD0  # ET, CD, NW and the bits that do not exist
NMI: Final = 2  # a type of interruption


@attrs.frozen(eq=False)
class Area:
    """A guest-state area: the components of `WORDS` by name, and the SYSENTER MSRs by number."""

    words: Mapping[str, Word]
    msrs: Mapping[int, Word]


@attrs.frozen(eq=False)
class Host:
    """A host-state area of a 32-bit VMM; every word as wide as the field."""

    cr0: Word
    cr3: Word
    cr4: Word
    eip: Word
    esp: Word
    selectors: Mapping[str, Word]
    bases: Mapping[str, Word]  # fs, gs, tr, gdtr, idtr
    msrs: Mapping[int, Word]


def save_guest(cpu: VmxIa32) -> Area:
    """What a VM exit saves."""
    return Area({name: cpu[name] for name in WORDS}, {n: cpu.msr.load(Word(32, n)) for n in SYSENTER})


def load_host(cpu: VmxIa32, host: Host) -> VmxIa32:
    """The state in which the VMM goes on (SDM vol. 3C, "Loading Host State")."""
    after = cpu.copy()
    after.non_root = Word(1, 0)
    after.cr0 = _loaded(cpu.cr0.value, host.cr0)
    after.cr3, after.cr4 = host.cr3, host.cr4
    after.dr7, after.eflags = Word(32, 0x400), Word(32, 2)
    after.eip, after["esp"] = host.eip, host.esp
    after.halted, after.shadow = Word(1, 0), Word(2, 0)
    for name in SEGMENT_NAMES:
        selector = host.selectors[name]
        after[f"{name}.selector"] = selector
        after[f"{name}.base"] = host.bases.get(name, Word(32, 0))
        after[f"{name}.limit"] = Word(32, 0xFFFFFFFF)
        usable = Word(17, 0xC09B if name == "cs" else 0xC093)
        after[f"{name}.rights"] = ite(selector == 0, Word(17, 0x10000), usable)
    after["ldtr.selector"], after["ldtr.rights"] = Word(16, 0), Word(17, 0x10000)
    after["tr.selector"], after["tr.base"] = host.selectors["tr"], host.bases["tr"]
    after["tr.limit"], after["tr.rights"] = Word(32, 0x67), Word(17, 0x8B)
    for name in ("gdtr", "idtr"):
        after[f"{name}.base"], after[f"{name}.limit"] = host.bases[name], Word(16, 0xFFFF)
    return _with_msrs(after, host.msrs)


def vm_exit(exited: VmxIa32, host: Host) -> tuple[Area, VmxIa32]:
    """The guest-state area and the VMM's state after a VM exit; `exited` is the state of its trap."""
    return save_guest(exited), load_host(exited, host)


def load_guest(cpu: VmxIa32, area: Area) -> VmxIa32:
    """The guest's state after a VM entry that injects nothing (SDM vol. 3C, "Loading Guest State")."""
    after = cpu.copy()
    after.non_root = Word(1, 1)
    for name, word in area.words.items():
        after[name] = _loaded(cpu.cr0.value, word) if name == "cr0" else word
    return _with_msrs(after, area.msrs)


def vm_entry(
    cpu: VmxIa32, area: Area, injected: int = 0, error_code: Word | None = None, length: int = 0
) -> Outcome[VmxIa32]:
    """The guest after a VM entry.

    Args:
        injected: VM-entry interruption information; nothing is injected unless bit 31 is set.
        error_code: 32 bits, for a hardware exception that has one (bit 11).
        length: of the instruction that a software interrupt or exception stands for.

    Returns:
        A trap where delivering the event faults: the VM exit, or the guest's own fault.
    """
    guest = load_guest(cpu, area)
    if not injected & VALID:
        return Next(guest)
    guest.halted = Word(1, 0)
    start = guest.copy()
    begin(guest, Word(4, length & 0xF))
    kind = injected >> 8 & 7
    code = error_code if injected & ERROR_CODE_VALID else None
    guest._vectoring = kind, Word(8, injected & 0xFF), code
    if kind in SOFTWARE:
        guest.eip = guest.eip + length
    if kind == NMI:
        guest.nmi_blocked = Word(1, 1)
    try:
        try:
            checked = kind in (SOFTWARE_INTERRUPT, SOFTWARE_EXCEPTION)
            deliver_software_interrupt(guest, Word(8, injected & 0xFF), check_dpl=checked)
            if code is not None:
                access.push(guest, code)
        except Fault as fault:
            exit_of_exception(guest, fault)
            raise
    except Fault as fault:
        return Trap(fault.vector, fault.error_code, fault.memory, guest if fault.keeps else start)
    except NotModelledError as stop:
        return NotModelled(str(stop))
    return Next(guest)


def _loaded(old: Word, new: Word) -> Word:
    """CR0 after a load that leaves some bits alone."""
    kept = Word(32, KEPT_IN_CR0)
    return (old & kept) | (new & ~kept)


def _with_msrs(cpu: VmxIa32, msrs: Mapping[int, Word]) -> VmxIa32:
    for number, value in msrs.items():
        cpu.msr = cpu.msr.store(Word(32, number), value)
    return cpu
