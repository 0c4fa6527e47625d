"""Where Bochs deviates from the manual, and what the manual leaves to the processor.

The list with its evidence is ``popek_specs/ia32/bochs-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains, as narrowly as the case shows it.  A difference that no entry
explains is a bug of the model.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Final

import attrs

from popek.architectures.ia32.access import within
from popek.architectures.ia32.descriptors import Descriptor, in_table, read_descriptor
from popek.architectures.ia32.state import CR4_DEFINED, ECX, EDX, ESP, SEGMENT_NAMES, Ia32
from popek.emulators.ia32_cases import Case, Mode
from popek.emulators.ia32_delivery import deliverable
from popek.emulators.ia32_expectation import EXTENDED_STATE, Expectation, initial_state
from popek.emulators.ia32_step import StepCase, StepResult

_GD, _BT, _DR7_11 = 1 << 13, 1 << 15, 1 << 11
_SMXE = 1 << 14
_TIGERLAKE_CR4 = 1 << 16 | 1 << 23  # FSGSBASE, CET
_TOP = 1 << 32
_LARGEST_FRAME = 0x100  # bytes that one instruction moves on the stack
_COUNTERS = range(8)
_FIXED_COUNTERS = range(0x40000000, 0x40000003)
_BOCHS_COUNTERS = range(18)
_SEVERAL_ACCESSES = frozenset(
    (
        *(
            "RETF",
            "IRET",
            "IRETD",
            "ADD",
            "SUB",
            "AND",
            "OR",
            "XOR",
            "ARPL",
            "XCHG",
            "CMPXCHG",
            "CMPXCHG8B",
            "BOUND",
        ),
        *(
            "POPA",
            "POPAD",
            "MOVSB",
            "MOVSW",
            "MOVSD",
            "CMPSB",
            "CMPSW",
            "CMPSD",
            "REP",
            "REPE",
            "REPNE",
            "PUSH",
            "ENTER",
        ),
    )
)
_STACK = ("PUSH", "POP", "CALL", "RET", "INT", "IRET", "LEAVE", "JMP", "ENTER")


@attrs.frozen
class Deviation:
    """One entry of the list.

    Attributes:
        name: its key.
        summary: what the emulator does.
        evidence: what the manual says, and where.
    """

    name: str
    summary: str
    evidence: str


@attrs.frozen
class Found:
    """A difference, as the recognisers see it.

    Attributes:
        case, step: what was run.
        expected: what the model says.
        result: what Bochs did.
        differing: the names of the registers that differ, ``memory``, ``msr`` or ``outcome``.
    """

    case: Case
    step: StepCase
    expected: Expectation
    result: StepResult
    differing: frozenset[str]

    @property
    def state(self) -> Ia32:
        """The model's state at the start."""
        return initial_state(self.step)

    @property
    def mnemonic(self) -> str:
        """The first word of the form that is no prefix."""
        return next(word for word in self.case.form.split() if word != "o16")

    @property
    def faults(self) -> tuple[tuple[int | None, int | None], tuple[int | None, int | None]]:
        """Vector and error code on the model and on Bochs, None where it did not trap."""
        expected, result = self.expected, self.result
        return (expected.vector, expected.error_code), (result.vector, result.error_code)

    def bits(self, name: str) -> int:
        """The bits of one register that differ, where nothing else does; else 0."""
        if self.differing != {name}:
            return 0
        return self.expected.registers[name] ^ self.result.registers[name]


def _access_wraps(found: Found) -> bool:
    (vector, code), _ = found.faults
    state = found.state
    inward = vector == 12 and found.mnemonic.startswith(("CALL", "INT"))
    if inward and any(_wrapping_inner_stack(state, ring) for ring in range(found.case.cpl)):
        return True
    if vector not in (8, 12, 13) or code not in (0, 1):
        return False
    spans: list[tuple[str, int, int]] = []
    operands = found.case.operands
    for name, offset in operands.items():
        if name.endswith(".offset") and name.replace(".offset", ".segment") in operands:
            segment = SEGMENT_NAMES[operands[name.replace(".offset", ".segment")]]
            spans.append((segment, offset, offset + (16 if "m128" in found.case.form else 8)))
    string = next((word for word in found.case.form.split() if not word.startswith("REP")), "")
    reach = _LARGEST_FRAME if found.mnemonic.startswith("REP") else 4
    if string.startswith(("INS", "MOVS", "STOS", "SCAS", "CMPS")):
        spans.append(("es", int(state.gpr[7]), int(state.gpr[7]) + reach))
    if string.startswith(("OUTS", "MOVS", "LODS", "CMPS")) and "operand seg" in operands:
        spans.append((SEGMENT_NAMES[operands["operand seg"]], int(state.gpr[6]), int(state.gpr[6]) + reach))
    if found.mnemonic.startswith(_STACK):
        for register in (4, 5) if found.mnemonic == "LEAVE" else (4,):
            pointer = int(state.gpr[register])
            spans.append(("ss", pointer - _LARGEST_FRAME, pointer + _LARGEST_FRAME))
    return any(
        (low < 0 or high > _TOP) and int(state[f"{segment}.limit"]) == _TOP - 1
        for segment, low, high in spans
    )


def _wrapping_inner_stack(state: Ia32, ring: int) -> bool:
    """Whether the TSS's stack for a level begins near 0 in a segment of 4 GiB."""
    entry = state.memory.load_little_endian(state.tr.base + 4 + 8 * ring, 6)
    selector = entry[47:32]
    if int(entry[31:0]) >= _LARGEST_FRAME or not in_table(state, selector):
        return False
    return int(read_descriptor(state, selector).limit) == _TOP - 1


def _alignment_check_order(found: Found) -> bool:
    (vector, code), (observed, other) = found.faults
    checked = bool((found.state.cpl == 3) & found.state.cr0.am & found.state.eflags.ac)
    several = (
        found.case.form.endswith(("m16:16", "m16:32"))
        or found.case.form
        in EXTENDED_STATE  # misaligned: #GP, or where it is enabled #AC, as the processor likes
        or found.mnemonic in _SEVERAL_ACCESSES
    )
    return checked and several and {vector, observed} in ({17, 12}, {17, 13}) and code == other == 0


def _general_detect_before_cpl(found: Found) -> bool:
    # What cannot be delivered becomes #DF, but #DB is benign: its own delivery may fault.
    (vector, _), (observed, _) = found.faults
    detecting = bool(found.case.registers.get("dr7", 0) & _GD) and " DR" in found.case.form
    return found.case.cpl > 0 and vector in (8, 13) and observed in (1, 8, 10, 12) and detecting


def _general_detect_clears_bt(found: Found) -> bool:
    return found.expected.vector == 1 and found.bits("dr6") & ~0xF == _BT


def _dr7_bit_11(found: Found) -> bool:
    return found.case.form in ("MOV DR7, r32", "MOV DR5, r32") and found.bits("dr7") == _DR7_11


def _cr4_of_another_processor(found: Found) -> bool:
    if found.case.form != "MOV CR4, r32" or found.case.cpl > 0:
        return False
    written = int(found.state.gpr[found.case.operands["operand r32"]])
    extra = written & ~CR4_DEFINED
    if found.expected.kind == "trap":
        return found.result.kind == "next" and extra != 0 and extra & ~_TIGERLAKE_CR4 == 0
    return found.faults[1][0] in (8, 13) and bool(written & _SMXE)


def _counters(found: Found) -> bool:
    if found.case.form != "RDPMC" or (found.case.cpl > 0 and not found.state.cr4.pce):
        return False
    number = int(found.state.gpr[ECX])
    ours = number in _COUNTERS or number in _FIXED_COUNTERS
    return found.differing == {"outcome"} and ours != ((number & 0x7FFFFFFF) in _BOCHS_COUNTERS)


def _wide_sysenter_msrs(found: Found) -> bool:
    state = found.state
    written = found.case.form == "WRMSR" and found.case.cpl == 0 and 0x174 <= int(state.gpr[ECX]) <= 0x176
    return written and int(state.gpr[EDX]) != 0 and (found.faults[1] == (13, 0) or found.differing == {"msr"})


def _enters_inner(found: Found) -> bool:
    return found.expected.kind == "next" and found.expected.registers["cpl"] < found.case.cpl


def _inner_stack_keeps_upper_half(found: Found) -> bool:
    if not _enters_inner(found) or found.expected.registers.get("ss.access", 0) >> 22 & 1:
        return False
    # The old stack may be a 16-bit one too; see the next entry.
    also = {"memory"} if not found.state.ss.rights.db else set()
    bits = found.expected.registers["esp"] ^ found.result.registers["esp"]
    return found.differing - also == {"esp"} and bits & 0xFFFF == 0


def _inner_stack_saves_sp(found: Found) -> bool:
    return _enters_inner(found) and found.differing == {"memory"} and not found.state.ss.rights.db


def _segment_pop_reads_a_word(found: Found) -> bool:
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


def _conforming_call_ignores_alignment(found: Found) -> bool:
    """CPL stays 3, so the code segment was a conforming one."""
    registers = found.result.registers
    return (
        found.mnemonic == "CALL"
        and found.faults == ((17, 0), (None, None))
        and found.case.cpl == registers.get("cpl") == 3
        and registers.get("cs") != found.state.cs.selector.value.value
    )


def _return_frame_does_not_wrap(found: Found) -> bool:
    state = found.state
    if state.ss.rights.db or found.mnemonic not in ("RETF", "IRETD", "IRET"):
        return False
    released = found.case.operands.get("operand imm16", 0)
    return int(state.gpr[ESP][15:0]) + 20 + released > 0xFFFF and found.faults[1] in ((12, 0), (8, 0))


def _stores_before_a_fault(found: Found) -> bool:
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


def _interrupt_checks_target_first(found: Found) -> bool:
    (vector, _), (observed, code) = found.faults
    if not found.mnemonic.startswith("INT") or vector not in (8, 12) or observed != 13 or code not in (0, 1):
        return False
    state = found.state
    number = {"INT1": 1, "INT3": 3, "INTO": 4}.get(found.mnemonic, found.case.operands.get("operand imm8", 0))
    gate = Descriptor(state.idtr.base, state.memory.load_little_endian(state.idtr.base + 8 * number, 8))
    return bool(gate.gate_offset > read_descriptor(state, gate.gate_selector).limit)


def _near_call_pushes_first(found: Found) -> bool:
    near = found.case.form in ("CALL rel32", "CALL r32")
    return near and (found.faults[0][0], found.faults[1][0]) in ((13, 12), (8, 12))


def _operand_wraps_at_64_kib(found: Found) -> bool:
    """In 16-bit code: an operand of two parts, the second of which lies beyond FFFFH."""
    if found.case.mode is Mode.PROTECTED or found.faults[0][0] not in (12, 13):
        return False
    operands = found.case.operands
    offsets = [
        offset
        for name, offset in operands.items()
        if name.endswith(".offset") and name.replace(".offset", ".segment") in operands
    ]
    return any(offset <= 0xFFFF < offset + 15 for offset in offsets)


def _virtual_8086_return_beyond_the_limit(found: Found) -> bool:
    if found.case.form != "IRETD" or found.faults[0] != (13, 0):
        return False
    state = found.state
    if found.case.mode is Mode.PROTECTED:
        at = state.ss.base + (state.gpr[ESP] if state.ss.rights.db else state.gpr[ESP][15:0].zero_extend(32))
        virtual = bool(state.memory.load(at + 10)[1])
        return virtual and int(state.memory.load_little_endian(at, 4)) > 0xFFFF
    if found.case.mode is Mode.REAL:
        return False
    return (
        int(state.memory.load_little_endian(state.ss.base + state.gpr[ESP][15:0].zero_extend(32), 4)) > 0xFFFF
    )


def _far_call_checks_target_first(found: Found) -> bool:
    """In real-address and virtual-8086 mode: no room on the stack, and a target beyond FFFFH."""
    mode = found.case.mode is not Mode.PROTECTED
    return mode and found.mnemonic == "CALL" and (found.faults[0][0], found.faults[1][0]) == (12, 13)


def _repeated_port_io_asks_first(found: Found) -> bool:
    """REP INS or OUTS with ECX = 0 of a port that is not permitted."""
    repeated = found.case.form.startswith(("REP INS", "REP OUTS"))
    idle = repeated and int(found.state.gpr[ECX]) == 0
    refused = (13, 0) if deliverable(found.state, 13, True) else (8, 0)
    return idle and found.expected.kind == "next" and found.faults[1] == refused


_RECOGNISED: Final[Mapping[str, Callable[[Found], bool]]] = {
    "access-wraps-at-4-gib": _access_wraps,
    "alignment-check-order": _alignment_check_order,
    "general-detect-before-cpl": _general_detect_before_cpl,
    "general-detect-clears-bt": _general_detect_clears_bt,
    "dr7-bit-11": _dr7_bit_11,
    "cr4-of-another-processor": _cr4_of_another_processor,
    "counters-of-pentium-4": _counters,
    "sysenter-msrs-of-64-bits": _wide_sysenter_msrs,
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
    "repeated-port-io-asks-first": _repeated_port_io_asks_first,
    "virtual-8086-return-beyond-the-limit": _virtual_8086_return_beyond_the_limit,
}


@functools.cache
def deviations(emulator: str = "bochs") -> Mapping[str, Deviation]:
    """The list of an emulator, by name."""
    text = (
        resources.files("popek_specs.ia32")
        .joinpath(f"{emulator}-deviations.toml")
        .read_text(encoding="utf-8")
    )
    entries = tomllib.loads(text)["deviation"]
    return {name: Deviation(name, entry["summary"], entry["evidence"]) for name, entry in entries.items()}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


def explain(
    case: Case, step: StepCase, expected: Expectation, result: StepResult, differing: frozenset[str]
) -> str | None:
    """The name of the entry that explains a difference, if one does."""
    found = Found(case, step, expected, result, differing)
    return next((name for name, applies in _RECOGNISED.items() if applies(found)), None)
