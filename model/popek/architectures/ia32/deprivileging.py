"""Ring deprivileging of IA-32: the guest's kernel at ring 1 (0/1/3) or at ring 3 (0/3/3).

The map is the best VMM of this kind that can be had without rewriting code.  It owns the table
registers, the control registers, IF, IOPL, the debug registers, MSRs, counters and ports.  Its GDT
shadows the guest's: entry by entry the same, with DPLs compressed, and with everything that it must
interpret marked not present, so that *loading* it traps: gates and other system segments, and segments
whose accessed bit is still clear (loading those writes to the guest's table).  Two entries are the VMM's
own: its code segment, to which every gate of its IDT leads, and after it the segment of its stack; those
gates have DPL 0.  There is no LDT.  Its tables lie in 128 KiB of storage that the guest cannot reach:
GDT, IDT, TSS, whatever else.  The guest's GDT is write-protected.

What such a VMM still gets wrong, no VMM of this kind gets right.
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
from popek.architectures.x86.registers import NAMES_32
from popek.kernel.memory import Memory
from popek.kernel.technique import Hypothesis, Technique
from popek.kernel.words import TRUE, Word, all_of, concat, ite

from .state import Ia32

SOURCE: Final = "Robin and Irvine 2000, section 3; Uhlig et al. 2005"
VMM_CODE: Final = 0x00CF9B000000FFFF  # flat, DPL 0, present, accessed
VMM_DATA: Final = 0x00CF93000000FFFF
GATE: Final = 0x8E  # present 32-bit interrupt gate, DPL 0


def _map(ring: Ring, guest: Ia32, private: Ia32, *, without: frozenset[str] = frozenset()) -> Ia32:
    kept = (*NAMES_32, "eip", "shadow", "extended")
    hardware = with_its_own_tables(ring, guest, private, kept, "eflags")
    for name in ("cs", "ss"):
        level = guest[f"{name}.selector.rpl"]  # in virtual-8086 mode these bits are part of the address
        hardware[f"{name}.selector.rpl"] = ite(guest.virtual_8086, level, ring(level))
    # Alignment checks are for CPL 3, and a guest's kernel that runs there must not feel them.
    unfelt = (hardware.cpl == 3) & (guest.cpl != 3)
    hardware.cr0.am = ite(unfelt, Word(1, 0), guest.cr0.am)
    hardware.read_only.base = guest.gdtr.base
    hardware.read_only.size = guest.gdtr.limit.zero_extend(32) + 1
    hardware.memory = Memory(32, 8, partial(_storage, ring, guest, private, without=without))
    if PAGES in without:
        hardware.reserved.size = 0
    if OWN_TABLES in without:
        for name in ("gdtr", "idtr", "tr"):
            hardware[f"{name}.base"] = private[f"{name}.base"]
    if NO_LDT in without:
        hardware.ldtr.rights = private.ldtr.rights.value
    return hardware


def _storage(
    ring: Ring, guest: Ia32, private: Ia32, address: Word, *, without: frozenset[str] = frozenset()
) -> Word:
    return storage(
        guest,
        private,
        address,
        gate=None if IDT_GATES in without else lambda entry: _gate_byte(private, entry[2:0]),
        descriptor=lambda at: _shadow_byte(ring, guest, private, at, gates=NO_GATES in without),
    )


def _gate_byte(private: Ia32, number: Word) -> Word:
    """A byte of a gate in the VMM's IDT; all gates are the same."""
    selector, zero, entry = private.cs.selector.value, Word(8, 0), entry_of(private)
    low = (entry[7:0], entry[15:8], selector[7:0], selector[15:8], zero, Word(8, GATE))
    return select(number, (*low, entry[23:16], entry[31:24]))


def _shadow_byte(ring: Ring, guest: Ia32, private: Ia32, offset: Word, *, gates: bool = False) -> Word:
    """A byte of the VMM's GDT."""
    code, data = (tuple(Word(8, whole >> 8 * i & 0xFF) for i in range(8)) for whole in (VMM_CODE, VMM_DATA))
    entry, own = concat(offset[31:3], Word(3, 0)), private.cs.selector.value.replace(2, 0, 0).zero_extend(32)
    theirs = guest.memory.load(guest.gdtr.base + offset)
    theirs = ite(offset[2:0] == 5, compressed(ring, theirs, gates=gates), theirs)
    theirs = ite(offset <= guest.gdtr.limit.zero_extend(32), theirs, Word(8, 0))
    theirs = ite(entry == own + 8, select(offset[2:0], data), theirs)
    return ite(entry == own, select(offset[2:0], code), theirs)


def _promises(guest: Ia32, private: Ia32, *, without: frozenset[str] = frozenset()) -> Word:
    """What the VMM sees to."""
    own = private.cs.selector.value
    start, end = guest.gdtr.base, guest.gdtr.base + guest.gdtr.limit.zero_extend(32)
    return all_of(
        (
            private.idtr.limit >= 0x7FF,
            private.idtr.limit <= 0x7FFF,
            private.tr.limit < ENTRY_AT - TSS_AT,
            private.tr.base == start_of(private) + TSS_AT if OWN_TABLES not in without else TRUE,
            (own[2:0] == 0) & (own != 0) & (own + 15 <= private.gdtr.limit) & (own <= 0xFFF0),
            private.eflags.if_ == 1,
            # What SYSENTER leads to, where it leads anywhere, is code of the VMM's, and no segment of the guest's.
            owns(guest, private, private.msr.load(Word(32, _SYSENTER_EIP))[31:0]),
            # It leads there only while the guest's leads somewhere: what it overwrites, a #GP(0) would leave.
            _null(private.msr.load(Word(32, _SYSENTER_CS))) | ~_null(guest.msr.load(Word(32, _SYSENTER_CS))),
            private.cr4.pke == 0 if NO_PROTECTION_KEYS not in without else TRUE,
            ~owns(guest, private, start) & ~owns(guest, private, end) & (start <= end),
        )
    )


def _null(selector: Word) -> Word:
    return selector[15:2] == 0


def _guest(state: Ia32) -> Word:
    """A guest that uses rings 0 and 3, on a machine of its own; in protected mode, or in virtual-8086 mode.

    Until it has loaded CS after it has entered protected mode, the VMM runs it: above ring 0 no CS is so.
    """
    whole = (state.reserved.size == 0) & (state.read_only.size == 0) & state.cr0.pe
    whole = whole & (state.virtual_8086 | state.cs.rights.type[3])
    return whole & ((state.cpl == 0) | (state.cpl == 3))


def _entered(private: Ia32, hardware: Ia32) -> Word:
    """At the one entry that the gates of the VMM's IDT lead to, or at that of SYSENTER."""
    selector = hardware.cs.selector.value
    gate = (selector == private.cs.selector.value.replace(1, 0, 0)) & (hardware.eip == entry_of(private))
    return gate | _by_sysenter(private, hardware)


def _by_sysenter(registers: Ia32, after: Ia32) -> Word:
    cs, entry = (registers.msr.load(Word(32, number)) for number in (_SYSENTER_CS, _SYSENTER_EIP))
    return (after.cs.selector.value == cs[15:0].replace(1, 0, 0)) & (after.eip == entry[31:0])


def _entries(before: Ia32, after: Ia32) -> Word:
    """With a code segment from a table, by a gate; or by SYSENTER.  Tables and registers are the VMM's."""
    fetched = after.cs.selector.value[15:2] != before.cs.selector.value[15:2]
    return fetched | _by_sysenter(before, after)


PAGES, OWN_TABLES, NO_GATES, IDT_GATES, NO_LDT = "pages", "own-tables", "no-gates", "idt-gates", "no-ldt"
NO_PROTECTION_KEYS = "no-pke"
HYPOTHESES: Final = (
    Hypothesis(PAGES, "pages keep code above ring 0 out of the VMM's storage", examples=("MOV m32, r32",)),
    Hypothesis(OWN_TABLES, "the real GDT, IDT and TSS lie in that storage", examples=("CALL ptr16:32",)),
    Hypothesis(
        NO_GATES,
        "the guest's gates and other system descriptors are not present in the real GDT",
        examples=("CALL ptr16:32",),
    ),
    Hypothesis(IDT_GATES, "the gates of the real IDT lead to the VMM and have DPL 0", examples=("INT imm8",)),
    Hypothesis(NO_LDT, "no LDT is loaded", examples=("CALL ptr16:32",)),
    Hypothesis(
        NO_PROTECTION_KEYS,
        "CR4.PKE is clear, so that nobody above ring 0 changes PKRU",
        examples=("WRPKRU",),
    ),
    Hypothesis("iopl", "the real IOPL is below the guest's ring", "IOPL", ("CLI",)),
    Hypothesis("io-map", "the real I/O permission map denies every port", "PORTS", ("OUT imm8, AL",)),
)
"""What keeps a guest in; each is needed."""

VIRTUAL_INTERRUPTS: Final = Hypothesis(
    "no-pvi", "CR4.PVI is clear, so that CLI and STI at ring 3 trap", "PVI", ("CLI",)
)
_SYSENTER_CS, _SYSENTER_EIP = 0x174, 0x176


_VMM: Final = RingVmm(
    Ia32,
    _map,
    guest=_guest,
    promises=_promises,
    entries=_entries,
    entered=_entered,
    source=SOURCE,
)


def techniques() -> dict[str, Technique[Ia32]]:
    """0/1/3 and 0/3/3."""
    return {made.name: made for made in (_in_ring_1(), _in_ring_3())}


def _in_ring_1(without: frozenset[str] = frozenset()) -> Technique[Ia32]:
    title = "ring deprivileging, the guest's kernel at ring 1"
    return _VMM.at(1, title, hypotheses=HYPOTHESES, weakened=_in_ring_1, without=without)


def _in_ring_3(without: frozenset[str] = frozenset()) -> Technique[Ia32]:
    title = "ring deprivileging, the guest's kernel at ring 3 beside its users"
    hypotheses = (*HYPOTHESES, VIRTUAL_INTERRUPTS)
    return _VMM.at(3, title, hypotheses=hypotheses, weakened=_in_ring_3, without=without)
