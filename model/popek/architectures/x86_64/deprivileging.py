"""Ring deprivileging in IA-32e mode: the guest's kernel at ring 3 (0/3/3) or at ring 1 (0/1/3).

64-bit mode has no segment limits, so pages alone protect the VMM, and to page tables rings 0 to 2 are one:
a kernel at ring 3 is kept out, and lies beside its users (ring compression); a kernel at ring 1 is not
kept out at all.  The map is the one of IA-32 otherwise: the VMM owns the table registers, control registers,
IF, IOPL, debug registers, MSRs, counters and ports; its GDT shadows the guest's with DPLs compressed and with
everything that it must interpret marked not present; every gate of its IDT leads to its own 64-bit code at
DPL 0; there is no LDT.  Segment registers, with the bases of FS and GS, are the guest's.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from popek.architectures.x86.deprivileging import (
    ENTRY_AT,
    TSS_AT,
    Ring,
    RingVmm,
    compressed,
    entry_of,
    owns,
    select,
    start_of,
    storage,
    with_its_own_tables,
)
from popek.kernel.memory import Memory
from popek.kernel.technique import Technique
from popek.kernel.words import Word, all_of, concat, ite

from .state import GPR_NAMES, X64

VMM_CODE: Final = 0x00AF9B000000FFFF  # 64-bit code, DPL 0, present, accessed
GATE: Final = 0x8E  # present 64-bit interrupt gate, DPL 0


def _map(ring: Ring, guest: X64, private: X64) -> X64:
    kept = (*GPR_NAMES, "rip", "shadow", "monitored", "xinuse", "extended")
    hardware = with_its_own_tables(ring, guest, private, kept, "rflags")
    for name in ("cs", "ss"):
        hardware[f"{name}.selector.rpl"] = ring(guest[f"{name}.selector.rpl"])
    # Alignment checks are for CPL 3, and a guest's kernel that runs there must not feel them.
    unfelt = (hardware.cpl == 3) & (guest.cpl != 3)
    hardware.cr0.am = ite(unfelt, Word(1, 0), guest.cr0.am)
    # A null SS cannot be had at CPL 3: the VMM gives such a guest flat data, which reads back as null as before.
    null = guest.ss.rights.unusable & (hardware.cpl == 3)
    hardware.ss.rights = ite(null, Word(17, 0xC0F3), hardware.ss.rights.value)
    hardware.read_only.base = guest.gdtr.base
    hardware.read_only.size = guest.gdtr.limit.zero_extend(64) + 1
    hardware.memory = Memory(64, 8, partial(_storage, ring, guest, private))
    return hardware


def _storage(ring: Ring, guest: X64, private: X64, address: Word) -> Word:
    gate = partial(_gate_byte, private)
    shadow = partial(_shadow_byte, ring, guest, private)
    return storage(guest, private, address, gate=lambda entry: gate(entry[3:0]), descriptor=shadow)


def _gate_byte(private: X64, number: Word) -> Word:
    """A byte of a gate in the VMM's IDT; all gates are the same: 16 bytes, no IST."""
    selector, zero, entry = private.cs.selector.value, Word(8, 0), entry_of(private)
    at = [entry[place + 7 : place] for place in range(0, 64, 8)]
    low = (*at[:2], selector[7:0], selector[15:8], zero, Word(8, GATE))
    return select(number, (*low, *at[2:], *(zero,) * 4))


def _shadow_byte(ring: Ring, guest: X64, private: X64, offset: Word) -> Word:
    """A byte of the VMM's GDT."""
    code = tuple(Word(8, VMM_CODE >> 8 * i & 0xFF) for i in range(8))
    mine = concat(offset[63:3], Word(3, 0)) == private.cs.selector.value.replace(2, 0, 0).zero_extend(64)
    theirs = guest.memory.load(guest.gdtr.base + offset)
    theirs = ite(offset[2:0] == 5, compressed(ring, theirs), theirs)
    theirs = ite(offset <= guest.gdtr.limit.zero_extend(64), theirs, Word(8, 0))
    return ite(mine, select(offset[2:0], code), theirs)


def _entered(private: X64, hardware: X64) -> Word:
    """At the one entry that the gates of the VMM's IDT lead to, or at that of SYSENTER or SYSCALL."""
    gate = hardware.cs.selector.value == private.cs.selector.value.replace(1, 0, 0)
    return gate & (hardware.rip == entry_of(private)) | _by_call(private, hardware)


def _by_call(registers: X64, after: X64) -> Word:
    selector, msr = after.cs.selector.value, registers.msr
    sysenter = (selector == msr.sysenter_cs[15:0].replace(1, 0, 0)) & (after.rip == msr.sysenter_eip)
    return sysenter | (selector == msr.star[47:32].replace(1, 0, 0)) & (after.rip == msr.lstar)


def _entries(before: X64, after: X64) -> Word:
    """With a code segment from a table, by a gate; or by a system call.  Tables and registers are the VMM's."""
    fetched = after.cs.selector.value[15:2] != before.cs.selector.value[15:2]
    return fetched | _by_call(before, after)


def _promises(guest: X64, private: X64) -> Word:
    """What the VMM sees to."""
    own = private.cs.selector.value
    start, end = guest.gdtr.base, guest.gdtr.base + guest.gdtr.limit.zero_extend(64)
    return all_of(
        (
            private.idtr.limit >= 0xFFF,
            private.idtr.limit <= 0x7FFF,
            private.tr.limit < ENTRY_AT - TSS_AT,
            private.tr.base == start_of(private) + TSS_AT,
            (own[2:0] == 0) & (own != 0) & (own + 7 <= private.gdtr.limit) & (own <= 0xFFF8),
            private.rflags.if_ == 1,
            owns(guest, private, private.msr.sysenter_eip) & owns(guest, private, private.msr.lstar),
            # They lead there only while the guest's lead somewhere: what they overwrite, a fault would leave.
            (private.msr.sysenter_cs[15:2] == 0) | (guest.msr.sysenter_cs[15:2] != 0),
            ~private.efer.sce | guest.efer.sce,
            ~owns(guest, private, start) & ~owns(guest, private, end) & (start <= end),
        )
    )


def _guest(state: X64) -> Word:
    """A guest that uses rings 0 and 3, on a machine of its own."""
    whole = (state.reserved.size == 0) & (state.read_only.size == 0)
    return whole & ((state.cpl == 0) | (state.cpl == 3))


_VMM: Final = RingVmm(
    X64,
    _map,
    guest=_guest,
    promises=_promises,
    entries=_entries,
    entered=_entered,
    source="Robin and Irvine 2000, section 3; Uhlig et al. 2005, ring compression",
)


def techniques() -> dict[str, Technique[X64]]:
    """0/3/3, which pages allow, and 0/1/3, which they do not."""
    three = _VMM.at(3, "ring deprivileging, the guest's kernel at ring 3 beside its users")
    one = _VMM.at(1, "ring deprivileging, the guest's kernel at ring 1, which pages do not keep out")
    return {three.name: three, one.name: one}
