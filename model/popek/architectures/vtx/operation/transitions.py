"""VM entry and VM exit as transformers of one IA-32 state (SDM vol. 3C, "VM Entries" and "VM Exits").

What a VM exit saves is the guest-state area, what it loads the host-state area; a VM entry loads the guest's
and may inject an event, which goes through the guest's IDT as if it had happened there.  MSRs go through the areas of
`msr_areas`.  Everything else stays in the registers: the general registers, CR2, the debug registers but DR7, XCR0,
and the MSRs that are neither SYSENTER's nor in an area are for the VMM to switch.  Of CR0 neither touches ET, CD, NW
and bits that do not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

import attrs

from popek.architectures.x86.access import supervisor_load
from popek.architectures.x86.exceptions import PF
from popek.architectures.x86.msrs import (
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
)
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.kernel.outcome import Fault, Next, NotModelled, NotModelledError, Outcome, Trap, Vector
from popek.kernel.words import Word, ite

from ...ia32 import access
from ...ia32.instructions.interrupts import deliver_software_interrupt
from . import virtual_apic
from .exits import (
    ERROR_CODE_VALID,
    HARDWARE_EXCEPTION,
    SOFTWARE,
    SOFTWARE_EXCEPTION,
    SOFTWARE_INTERRUPT,
    TPR_BELOW_THRESHOLD,
    TRIPLE_FAULT,
    VALID,
    VM_EXIT,
    exit_of,
    exit_of_exception,
    trap_like_exit_of,
)
from .msr_areas import MsrAreas, load_msrs, store_msrs
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
DF: Final = Vector("#DF", 8, 16)
CONTRIBUTORY: Final = (0, 10, 11, 12, 13)  # vectors (SDM vol. 3A, "Interrupt 8--Double Fault Exception")
ENTRY_FAILURE: Final = 1 << 31  # bit of the exit reason
MSR_LOADING: Final = 34  # basic exit reason

VMX_ABORT: Final = Vector("VMX abort", 257, 32)
"""The processor shuts down; the error code is the VMX-abort indicator (SDM vol. 3C, "VMX Aborts")."""

SAVING_GUEST_MSRS, LOADING_HOST_MSRS = 1, 4  # VMX-abort indicators


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


def vm_exit(exited: VmxIa32, host: Host, areas: MsrAreas | None = None) -> tuple[Area, Outcome[VmxIa32]]:
    """The guest-state area after a VM exit, and the VMM's state; `exited` is the state of its trap.

    Guest state is saved before MSRs are stored, and host state loaded before MSRs are.  Where an MSR cannot be
    stored or loaded, there is a VMX abort instead of a state.
    """
    areas = areas or MsrAreas()
    area, after = save_guest(exited), exited.copy()
    try:
        if store_msrs(after, areas.exit_store):
            return area, _abort(after, SAVING_GUEST_MSRS)
    except NotModelledError as stop:
        return area, NotModelled(str(stop))
    return area, _to_the_vmm(after, host, areas)


def after_failed_entry(failed: VmxIa32, host: Host, areas: MsrAreas | None = None) -> Outcome[VmxIa32]:
    """The VMM's state after a VM entry that failed; `failed` is the state of its trap.

    Host state is loaded as by a VM exit; nothing of the guest is saved (SDM vol. 3C, "VM-Entry Failures During or
    After Loading Guest State").
    """
    return _to_the_vmm(failed, host, areas or MsrAreas())


def _to_the_vmm(cpu: VmxIa32, host: Host, areas: MsrAreas) -> Outcome[VmxIa32]:
    after = load_host(cpu, host)
    try:
        if load_msrs(after, areas.exit_load):
            return _abort(after, LOADING_HOST_MSRS)
    except NotModelledError as stop:
        return NotModelled(str(stop))
    return Next(after)


def _abort(cpu: VmxIa32, indicator: int) -> Outcome[VmxIa32]:
    return Trap(VMX_ABORT, Word(32, indicator), False, cpu)


def load_guest(cpu: VmxIa32, area: Area) -> VmxIa32:
    """The guest's state after a VM entry that injects nothing (SDM vol. 3C, "Loading Guest State")."""
    after = cpu.copy()
    after.non_root = Word(1, 1)
    for name, word in area.words.items():
        after[name] = _loaded(cpu.cr0.value, word) if name == "cr0" else word
    return _with_msrs(after, area.msrs)


def vm_entry(
    cpu: VmxIa32,
    area: Area,
    injected: int = 0,
    error_code: Word | None = None,
    length: int = 0,
    areas: MsrAreas | None = None,
) -> Outcome[VmxIa32]:
    """The guest after a VM entry.

    Args:
        injected: VM-entry interruption information; nothing is injected unless bit 31 is set.
        error_code: 32 bits, for a hardware exception that has one (bit 11).
        length: of the instruction that a software interrupt or exception stands for.
        areas: the MSR areas; the VM-entry MSR-load area is loaded before an event is injected.

    Returns:
        A trap where an MSR cannot be loaded: the entry failure, whose qualification is the number of the entry
        (`after_failed_entry` goes on); where delivering the event faults: the VM exit, or the guest's own fault; or
        where the TPR threshold has the guest exit at once.
    """
    guest = load_guest(cpu, area)
    try:
        number = load_msrs(guest, (areas or MsrAreas()).entry_load)
    except NotModelledError as stop:
        return NotModelled(str(stop))
    if number:
        return _failed(cpu, guest, MSR_LOADING, number)
    if not injected & VALID:
        return _entered(guest)
    return _inject(guest, injected, error_code, length)


def _inject(guest: VmxIa32, injected: int, error_code: Word | None, length: int) -> Outcome[VmxIa32]:
    """Deliver an event to a guest that was loaded (SDM vol. 3C, "Event Injection")."""
    vector, kind = injected & 0xFF, injected >> 8 & 7
    code = error_code if injected & ERROR_CODE_VALID else None
    # No blocking by STI or MOV SS outlives a vectoring entry; an NMI blocks others before it is delivered.
    guest.halted, guest.shadow = Word(1, 0), Word(2, 0)
    guest.nmi_blocked = Word(1, 1) if kind == NMI else guest.nmi_blocked
    start = guest.copy()
    begin(guest, Word(4, length & 0xF))
    guest._vectoring = kind, Word(8, vector), code
    if kind in SOFTWARE:
        guest.eip = guest.eip + length
    try:
        try:
            checked = kind in (SOFTWARE_INTERRUPT, SOFTWARE_EXCEPTION)
            deliver_software_interrupt(guest, Word(8, vector), check_dpl=checked)
            if code is not None:
                wide = supervisor_load(start, start.idtr.base + 8 * vector + 5, 1)[3]  # a 32-bit gate
                access.push(guest, code if wide else code[15:0])
        except Fault as fault:
            _fault_of_delivery(guest, fault, vector, kind)
    except Fault as fault:
        return Trap(fault.vector, fault.error_code, fault.memory, guest if fault.keeps else start)
    except NotModelledError as stop:
        return NotModelled(str(stop))
    return _entered(guest)


def _fault_of_delivery(guest: VmxIa32, fault: Fault, vector: int, kind: int) -> NoReturn:
    """What comes of a fault while an event is delivered.

    Raises:
        Fault: the VM exit, the fault, or the double fault that it is together with the event.
    """
    external = kind not in (SOFTWARE_INTERRUPT, SOFTWARE_EXCEPTION)
    code = fault.error_code
    if external and code is not None and fault.vector != PF:
        code = code | 1  # EXT
    second = Fault(fault.vector, code, memory=fault.memory, keeps=fault.keeps)
    exit_of_exception(guest, second)
    if kind != HARDWARE_EXCEPTION:
        raise second
    # A double or triple fault that exits does not count as one of event delivery.
    if vector == DF.number and fault.vector.number in (*CONTRIBUTORY, PF.number):
        guest._vectoring = None
        exit_of(guest, TRIPLE_FAULT)
    contributory = fault.vector.number in CONTRIBUTORY
    if (vector in CONTRIBUTORY and contributory) or (
        vector == PF.number and (contributory or fault.vector == PF)
    ):
        guest._vectoring, double = None, Fault(DF, 0)
        exit_of_exception(guest, double)
        raise double
    raise second


def _entered(guest: VmxIa32) -> Outcome[VmxIa32]:
    """The guest, or the VM exit that comes before its first instruction."""
    if not virtual_apic.exits_after_entry(guest):
        return Next(guest)
    try:
        trap_like_exit_of(guest, TPR_BELOW_THRESHOLD)
    except Fault as fault:
        return Trap(fault.vector, fault.error_code, False, guest)


def _failed(cpu: VmxIa32, guest: VmxIa32, reason: int, qualification: int) -> Outcome[VmxIa32]:
    """An entry failure: of the exit information reason and qualification alone are written."""
    guest.exit_reason = Word(32, ENTRY_FAILURE | reason)
    guest.exit_qualification = Word(64, qualification)
    guest.nmi_blocked = cpu.nmi_blocked  # as before the entry
    return Trap(VM_EXIT, Word(VM_EXIT.error_code_width, reason), False, guest)


def _loaded(old: Word, new: Word) -> Word:
    """CR0 after a load that leaves some bits alone."""
    kept = Word(32, KEPT_IN_CR0)
    return (old & kept) | (new & ~kept)


def _with_msrs(cpu: VmxIa32, msrs: Mapping[int, Word]) -> VmxIa32:
    for number, value in msrs.items():
        cpu.msr = cpu.msr.store(Word(32, number), value)
    return cpu
