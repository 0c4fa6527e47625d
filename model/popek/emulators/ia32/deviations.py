"""Where Bochs deviates from the manual, and what the manual leaves to the processor.

The list with its evidence is ``popek_specs/ia32/bochs-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.  A difference that no entry
explains is a bug of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from popek.architectures.ia32.state import CR4_DEFINED, EAX, ECX, EDX, ESP, XCR0_UNDEFINED, Ia32
from popek.architectures.x86.access import misaligned, within
from popek.architectures.x86.descriptors import Descriptor, in_table, read_descriptor
from popek.architectures.x86.msrs import IA32_TSC_AUX
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.ia32.cases import CaseMode
from popek.emulators.ia32.delivery import deliverable
from popek.emulators.ia32.expectation import EXTENDED_STATE, memory_differences
from popek.emulators.ia32.found import (
    FIRST_PART,
    Ia32Difference,
    operand_spans,
    operands,
    stack_spans,
    string_spans,
)
from popek.emulators.x86.deviations import Deviation, explainer, listed
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.words import Word

_GD, _BT, _DR7_11 = 1 << 13, 1 << 15, 1 << 11
_SMXE = 1 << 14
_TIGERLAKE_CR4 = 1 << 16 | 1 << 23  # FSGSBASE, CET
_TIGERLAKE_XCR0 = 0x2E0  # AVX-512 state, PKRU
_TOP = 1 << 32
_LARGEST_FRAME = 4 * (4 + 31)  # bytes that one instruction moves on an inner stack
_COUNTERS = range(8)
_FIXED_COUNTERS = range(0x40000000, 0x40000003)
_BOCHS_COUNTERS = range(18)


def _access_wraps(found: Ia32Difference) -> bool:
    vector, code = found.raised
    if not found.expected.storage or vector not in (12, 13):
        return False
    state = found.state
    if _enters_a_full_stack(found):
        return any(_begins_near_0(state, ring, _TOP - 1) for ring in range(found.case.cpl))
    return code in (0, 1, None) and any(
        (low < 0 or high > _TOP) and int(state[f"{segment}.limit"]) == _TOP - 1
        for segment, low, high in (*operand_spans(found), *string_spans(found), *stack_spans(found))
    )


def _enters_a_full_stack(found: Ia32Difference) -> bool:
    """#SS that names the stack segment of an inner level, for want of room."""
    (vector, code), inward = found.raised, found.mnemonic.startswith(("CALL", "INT"))
    return inward and found.expected.storage and vector == 12 and code not in (0, 1, None)


def _begins_near_0(state: Ia32, ring: int, limit: int) -> bool:
    """Whether the TSS's stack for a level begins near 0 in a segment of this limit."""
    small = not state.tr.rights.type[3]
    entry = state.memory.load_little_endian(state.tr.base + (2 + 4 * ring if small else 4 + 8 * ring), 6)
    selector, pointer = (entry[31:16], entry[15:0]) if small else (entry[47:32], entry[31:0])
    if int(pointer) >= _LARGEST_FRAME or not in_table(state, selector):
        return False
    return int(read_descriptor(state, selector).limit) == limit


def _inner_stack_wraps_at_64_kib(found: Ia32Difference) -> bool:
    if not _enters_a_full_stack(found):
        return False
    selector = Word(16, found.raised[1] or 0)
    narrow = not read_descriptor(found.state, selector).rights[14]
    return narrow and any(_begins_near_0(found.state, ring, 0xFFFF) for ring in range(found.case.cpl))


def _alignment_check_order(found: Ia32Difference) -> bool:
    """One of them misaligned, the other wrong without alignment checks, or where nothing else is checked."""
    if not (found.state.cpl == 3) & found.state.cr0.am & found.state.eflags.ac:
        return False
    ours, theirs = found.raised, found.observed
    if found.case.form in EXTENDED_STATE:
        # Misaligned: #GP, or where it is enabled #AC, as the processor likes.
        return (ours, theirs) == ((13, 0), (17, 0))
    if ours[0] == 17 and theirs[0] in (12, 13):
        state = found.state.copy()
        state.eflags.ac = 0
        return found.raised_from(state) == theirs
    misaligned = theirs[0] == 17 and ours in ((12, theirs[1]), (13, theirs[1]))
    return misaligned and found.raised_from(found.without_limits()) == theirs


def _general_detect_before_cpl(found: Ia32Difference) -> bool:
    # What cannot be delivered becomes #DF, but #DB is benign: its own delivery may fault.
    (vector, _), (observed, _) = found.faults
    detecting = bool(found.case.registers.get("dr7", 0) & _GD) and " DR" in found.case.form
    return found.case.cpl > 0 and vector in (8, 13) and observed in (1, 8, 10, 12) and detecting


def _general_detect_clears_bt(found: Ia32Difference) -> bool:
    return found.expected.vector == 1 and found.bits("dr6") & ~0xF == _BT


def _dr7_bit_11(found: Ia32Difference) -> bool:
    return found.case.form in ("MOV DR7, r32", "MOV DR5, r32") and found.bits("dr7") == _DR7_11


def _cr4_of_another_processor(found: Ia32Difference) -> bool:
    if found.case.form != "MOV CR4, r32" or found.case.cpl > 0:
        return False
    written = int(found.state.gpr[found.case.operands["operand r32"]])
    extra = written & ~CR4_DEFINED
    if found.expected.kind == "trap":
        return found.result.kind == "next" and extra != 0 and extra & ~_TIGERLAKE_CR4 == 0
    return found.faults[1][0] in (8, 13) and bool(written & _SMXE)


def _counters(found: Ia32Difference) -> bool:
    if found.case.form != "RDPMC" or (found.case.cpl > 0 and not found.state.cr4.pce):
        return False
    number = int(found.state.gpr[ECX])
    ours = number in _COUNTERS or number in _FIXED_COUNTERS
    return found.differing == {"outcome"} and ours != ((number & 0x7FFFFFFF) in _BOCHS_COUNTERS)


def _wide_sysenter_msrs(found: Ia32Difference) -> bool:
    state = found.state
    written = found.case.form == "WRMSR" and found.case.cpl == 0 and 0x174 <= int(state.gpr[ECX]) <= 0x176
    return written and int(state.gpr[EDX]) != 0 and (found.faults[1] == (13, 0) or found.differing == {"msr"})


def _wide_tsc_aux(found: Ia32Difference) -> bool:
    written = found.case.form == "WRMSR" and found.case.cpl == 0 and int(found.state.gpr[ECX]) == IA32_TSC_AUX
    refused = written and int(found.state.gpr[EDX]) != 0 and found.raised[0] == 13
    return refused and found.result.kind == "next"


def _enters_inner(found: Ia32Difference) -> bool:
    return found.expected.kind == "next" and found.expected.registers["cpl"] < found.case.cpl


def _inner_stack_keeps_upper_half(found: Ia32Difference) -> bool:
    if not _enters_inner(found) or "esp" not in found.differing:
        return False
    if found.expected.registers.get("ss.access", 0) >> 22 & 1:
        return False
    bits = found.expected.registers["esp"] ^ found.result.registers["esp"]
    # The old stack may be a 16-bit one too; see the next entry.
    also = {"memory"} if _saves_sp(found) else set()
    return found.differing - also == {"esp"} and bits & 0xFFFF == 0


def _inner_stack_saves_sp(found: Ia32Difference) -> bool:
    return _enters_inner(found) and found.differing == {"memory"} and _saves_sp(found)


def _saves_sp(found: Ia32Difference) -> bool:
    """Only the upper half of the ESP that is pushed differs, and is 0."""
    state = found.state
    upper = int(state.gpr[ESP]) >> 16
    halves = {upper & 0xFF, upper >> 8}
    changed = list(memory_differences(found.step, found.expected, found.result))
    addresses = [at for at, _, _ in changed]
    close = bool(changed) and max(addresses) - min(addresses) <= 1
    return (
        not state.ss.rights.db and close and all(byte == 0 and value in halves for _, value, byte in changed)
    )


def _segment_pop_reads_a_word(found: Ia32Difference) -> bool:
    if found.case.form not in tuple(f"POP {name.upper()}" for name in SEGMENT_NAMES):
        return False
    state = found.state
    offset = state.gpr[ESP] if state.ss.rights.db else state.gpr[ESP][15:0].zero_extend(32)
    fits = bool(within(state.ss, offset, 2) & ~within(state.ss, offset, 4)) and found.expected.vector in (
        8,
        12,
    )
    aligned = bool((state.ss.base + offset)[1:0] == 2) and found.expected.vector == 17
    return fits or aligned


def _conforming_call_ignores_alignment(found: Ia32Difference) -> bool:
    """CPL stays 3, so the code segment was a conforming one."""
    registers = found.result.registers
    return (
        found.mnemonic == "CALL"
        and found.faults == ((17, 0), (None, None))
        and found.case.cpl == registers.get("cpl") == 3
        and registers.get("cs") != found.state.cs.selector.value.value
    )


def _return_frame_does_not_wrap(found: Ia32Difference) -> bool:
    state, form = found.state, found.case.form
    if state.ss.rights.db or found.mnemonic not in ("RETF", "IRETD", "IRET"):
        return False
    slot = 2 if form.startswith("o16") or form == "IRET" else 4
    length = slot * (2 if found.mnemonic == "RETF" else 3)

    def word(distance: int) -> int:
        at = state.ss.base + (state.gpr[ESP] + distance)[15:0].zero_extend(32)
        return int(state.memory.load_little_endian(at, 2))

    protected = found.case.mode is CaseMode.PROTECTED
    if protected and form == "IRETD" and found.case.cpl == 0 and word(10) & 2:
        length = 36
    elif protected and word(slot) & 3 > found.case.cpl:
        length += 2 * slot + found.case.operands.get("operand imm16", 0)
    return int(state.gpr[ESP][15:0]) + length > 0x10000 and found.observed in ((12, 0), (12, None), (8, 0))


def _stores_before_a_fault(found: Ia32Difference) -> bool:
    several = found.mnemonic in (
        "SGDT",
        "SIDT",
        "CALL",
        "INT",
        "INT1",
        "INT3",
        "INTO",
        "ENTER",
        "PUSHA",
        "PUSHAD",
    )
    return found.expected.kind == "trap" and found.differing == {"memory"} and several


def _interrupt_checks_target_first(found: Ia32Difference) -> bool:
    if not found.mnemonic.startswith("INT") or found.raised[0] != 12 or found.raised[1] not in (0, 1):
        return False
    return found.raised_from(found.without_limits("ss")) == found.observed == (13, found.raised[1])


def _near_call_pushes_first(found: Ia32Difference) -> bool:
    near = found.case.form in ("CALL rel32", "CALL r32") and found.raised[0] == 13
    return (
        near and found.raised_from(found.without_limits("cs")) == found.observed and found.observed[0] == 12
    )


def _far_call_pushes_first(found: Ia32Difference) -> bool:
    """The target lies beyond its segment's limit, and the return address would be pushed to a misaligned place."""
    state = found.state
    if found.mnemonic != "CALL" or not found.expected.storage:
        return False
    top = state.ss.base + (state.gpr[ESP] if state.ss.rights.db else state.gpr[ESP][15:0].zero_extend(32))
    checked = bool((state.cpl == 3) & state.cr0.am & state.eflags.ac) and int(top) & 3 != 0
    return checked and (found.raised, found.observed) == ((13, 0), (17, 0))


def _operand_wraps_at_64_kib(found: Ia32Difference) -> bool:
    """In 16-bit code: an operand of two parts, the first of which ends at FFFFH."""
    if found.case.mode is CaseMode.PROTECTED or found.raised[0] not in (12, 13):
        return False
    return any(offset + FIRST_PART.get(kind, 0) == 0x10000 for kind, _, offset in operands(found))


def _virtual_8086_return_beyond_the_limit(found: Ia32Difference) -> bool:
    if found.case.form != "IRETD" or found.faults[0] != (13, 0):
        return False
    state = found.state
    if found.case.mode is CaseMode.PROTECTED:
        at = state.ss.base + (state.gpr[ESP] if state.ss.rights.db else state.gpr[ESP][15:0].zero_extend(32))
        virtual = bool(state.memory.load(at + 10)[1])
        return virtual and int(state.memory.load_little_endian(at, 4)) > 0xFFFF
    if found.case.mode is CaseMode.REAL:
        return False
    return (
        int(state.memory.load_little_endian(state.ss.base + state.gpr[ESP][15:0].zero_extend(32), 4)) > 0xFFFF
    )


def _far_call_checks_target_first(found: Ia32Difference) -> bool:
    """In real-address and virtual-8086 mode: no room on the stack, and a target beyond FFFFH."""
    mode = found.case.mode is not CaseMode.PROTECTED
    if not mode or found.mnemonic != "CALL" or found.raised[0] != 12:
        return False
    return found.observed[0] == 13 and found.raised_from(found.without_limits("ss")) == found.observed


def _absent_stack_on_iret(found: Ia32Difference) -> bool:
    returned = found.mnemonic in ("IRET", "IRETD") and found.raised[0] == 12 and not found.expected.storage
    return returned and found.observed == (11, found.raised[1])


def _inner_stack_needs_eight_bytes(found: Ia32Difference) -> bool:
    """The TSS ends with the selector of the stack, or one byte behind it."""
    state = found.state
    selector = int(state.tr.selector.value) & 0xFFFC
    within_eight = any(int(state.tr.limit) - (4 + 8 * ring) in (5, 6) for ring in range(found.case.cpl))
    return (
        bool(state.tr.rights.type[3])
        and within_eight
        and found.observed[0] == 10
        and (found.observed[1] in (selector, selector | 1))
    )


def _target_of_interrupt(found: Ia32Difference) -> Descriptor:
    """The code segment that the gate of a software interrupt leads to."""
    state = found.state
    number = {"INT1": 1, "INT3": 3, "INTO": 4}.get(found.mnemonic, found.case.operands.get("operand imm8", 0))
    gate = state.memory.load_little_endian(state.idtr.base + 8 * number, 8)
    return read_descriptor(state, gate[31:16])


def _inner_stack_before_level_0(found: Ia32Difference) -> bool:
    """In virtual-8086 mode: the gate leads to level 1 or 2, whose stack in the TSS is wrong, too."""
    virtual = found.case.mode is CaseMode.VIRTUAL_8086 and found.mnemonic.startswith("INT")
    if not virtual or found.raised[0] != 13 or found.observed[0] not in (10, 12):
        return False
    return not found.expected.storage and int(_target_of_interrupt(found).dpl) in (1, 2)


def _redirection_by_a_narrow_task(found: Ia32Difference) -> bool:
    """INT n in virtual-8086 mode with CR4.VME and a 16-bit TSS."""
    state = found.state
    virtual = (
        found.case.mode is CaseMode.VIRTUAL_8086 and found.case.form == "INT imm8" and bool(state.cr4.vme)
    )
    return virtual and not state.tr.rights.type[3] and found.raised == (13, 0)


def _pusha_before_the_end(found: Ia32Difference) -> bool:
    mode = found.case.mode is not CaseMode.PROTECTED
    pushed = mode and found.mnemonic in ("PUSHA", "PUSHAD") and found.raised[0] == 13
    return pushed and found.observed[0] in (12, 8, 17)


def _popa_reads_all(found: Ia32Difference) -> bool:
    """The slot of the stack pointer crosses offset FFFFH of a 16-bit stack."""
    if found.mnemonic not in ("POPA", "POPAD") or found.state.ss.rights.db:
        return False
    size = 4 if found.mnemonic == "POPAD" else 2
    at = int((found.state.gpr[ESP] + 3 * size)[15:0])
    return found.expected.kind == "next" and at + size > 0x10000 and found.observed[0] in (12, 8)


def _enter_reads_the_end(found: Ia32Difference) -> bool:
    """At the final stack pointer a whole item does not fit, or is misaligned, where a byte is in order."""
    if found.mnemonic != "ENTER" or found.expected.kind != "next":
        return False
    state, size = found.state, 2 if found.case.form.startswith("o16") else 4
    end = found.expected.registers["esp"]
    offset = Word(32, end if state.ss.rights.db else end & 0xFFFF)
    beyond = not within(state.ss, offset, size) and found.observed[0] in (12, 8)
    return beyond or (bool(misaligned(state, state.ss.base + offset, size)) and found.observed == (17, 0))


def _components_in_use(found: Ia32Difference) -> bool:
    asked = found.case.form == "XGETBV" and int(found.state.gpr[ECX]) == 1 and found.raised[0] == 13
    return asked and found.result.kind == "next"


def _xcr0_of_another_processor(found: Ia32Difference) -> bool:
    if found.case.form != "XSETBV" or found.case.cpl or int(found.state.gpr[ECX]) or found.raised[0] != 13:
        return False
    value = int(found.state.gpr[EDX]) << 32 | int(found.state.gpr[EAX])
    return value & XCR0_UNDEFINED & ~_TIGERLAKE_XCR0 == 0 != value & XCR0_UNDEFINED and (
        found.result.kind == "next"
    )


def _repeated_port_io_asks_first(found: Ia32Difference) -> bool:
    """REP INS or OUTS with ECX = 0 of a port that is not permitted."""
    repeated = found.case.form.startswith(("REP INS", "REP OUTS"))
    if not repeated or int(found.state.gpr[ECX]) or found.expected.kind != "next":
        return False
    try:
        refused = (13, 0) if deliverable(found.state, 13, True) else (8, 0)
    except OutsideError:
        return found.observed in ((13, 0), (8, 0))
    return found.observed == refused


_RECOGNISED: Final[Mapping[str, Callable[[Ia32Difference], bool]]] = {
    "access-wraps-at-4-gib": _access_wraps,
    "alignment-check-order": _alignment_check_order,
    "general-detect-before-cpl": _general_detect_before_cpl,
    "general-detect-clears-bt": _general_detect_clears_bt,
    "dr7-bit-11": _dr7_bit_11,
    "cr4-of-another-processor": _cr4_of_another_processor,
    "counters-of-pentium-4": _counters,
    "sysenter-msrs-of-64-bits": _wide_sysenter_msrs,
    "tsc-aux-of-64-bits": _wide_tsc_aux,
    "inner-stack-keeps-upper-half": _inner_stack_keeps_upper_half,
    "inner-stack-saves-sp": _inner_stack_saves_sp,
    "segment-pop-reads-a-word": _segment_pop_reads_a_word,
    "conforming-call-ignores-alignment": _conforming_call_ignores_alignment,
    "return-frame-does-not-wrap": _return_frame_does_not_wrap,
    "stores-before-a-fault": _stores_before_a_fault,
    "interrupt-checks-target-first": _interrupt_checks_target_first,
    "near-call-pushes-first": _near_call_pushes_first,
    "operand-wraps-at-64-kib": _operand_wraps_at_64_kib,
    "far-call-checks-target-first": _far_call_checks_target_first,
    "far-call-pushes-first": _far_call_pushes_first,
    "absent-stack-on-iret": _absent_stack_on_iret,
    "inner-stack-needs-eight-bytes": _inner_stack_needs_eight_bytes,
    "inner-stack-wraps-at-64-kib": _inner_stack_wraps_at_64_kib,
    "inner-stack-before-level-0": _inner_stack_before_level_0,
    "redirection-map-of-a-16-bit-tss": _redirection_by_a_narrow_task,
    "pusha-before-the-end": _pusha_before_the_end,
    "popa-reads-the-stack-pointer": _popa_reads_all,
    "enter-touches-a-whole-item": _enter_reads_the_end,
    "components-in-use": _components_in_use,
    "xcr0-of-another-processor": _xcr0_of_another_processor,
    "repeated-port-io-asks-first": _repeated_port_io_asks_first,
    "virtual-8086-return-beyond-the-limit": _virtual_8086_return_beyond_the_limit,
}


def deviations(emulator: str = "bochs") -> Mapping[str, Deviation]:
    """The list of an emulator, by name."""
    return listed("popek_specs.ia32", f"{emulator}-deviations.toml")


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


explain: Final = explainer(Ia32Difference, _RECOGNISED)
"""The name of the entry that explains a difference, if one does."""
