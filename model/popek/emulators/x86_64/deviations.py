"""Where Bochs deviates from the manual on x86-64, and what the manual leaves to the processor.

The list with its evidence is ``popek_specs/x86_64/bochs-deviations.toml``; here is, for each entry, how to
recognise a difference that it explains.  A difference that no entry explains is a bug of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.architectures.x86.descriptors import Descriptor, in_table, is_null, read_descriptor
from popek.architectures.x86.registers import SEGMENT_NAMES, SS_
from popek.architectures.x86_64 import access
from popek.architectures.x86_64.descriptors import is_64_bit_code
from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.x86.deviations import Deviation, StepDifference, explainer, listed
from popek.emulators.x86_64.cases import X64Case
from popek.emulators.x86_64.cases_builder import EDGES
from popek.emulators.x86_64.expectation import initial_state, memory_differences
from popek.emulators.x86_64.step import ARENA_BYTES, X64StepCase, initial_memory
from popek.kernel.outcome import MemoryFault
from popek.kernel.words import Word

_DB, _NP, _SS, _GP, _PF, _AC = 1, 11, 12, 13, 14, 17
_BT, _LOW = 1 << 15, 0xFFFFFFFF
_FMASK, _TSC_AUX = 0xC0000084, 0xC0000103
_SS_PARTS = ("ss.selector", "ss.base", "ss.limit", "ss.rights")
_FRAME = 48  # no operand and no frame has more bytes


@attrs.frozen
class X64Difference(StepDifference[X64Case, X64StepCase]):
    """A difference, as the recognisers see it."""

    @property
    def returns_to(self) -> int | None:
        """The level that IRET's frame names, where it can be read."""
        size = {"IRET": 2, "IRETD": 4, "IRETQ": 8}.get(self.case.form)
        where = self.step.state["rsp"] + (size or 0)
        if size is None or where >= ARENA_BYTES:
            return None
        return initial_memory(self.step)[where] & 3

    @property
    def completes(self) -> bool:
        """The instruction completed on the emulator, whether or not the next one could be fetched."""
        elsewhere = self.result.kind == "trap" and self.result.registers["rip"] != self.step.state["rip"]
        return self.result.kind == "next" or elsewhere

    @property
    def page_fault(self) -> int | None:
        """The address of a #PF, if the emulator ended with one."""
        return self.result.registers["cr2"] if self.result.vector == _PF else None

    def descriptor(self, selector: int) -> Descriptor | None:
        """What a selector names at the start."""
        state, wanted = initial_state(self.step), Word(16, selector)
        if is_null(wanted) or not in_table(state, wanted):
            return None
        return read_descriptor(state, wanted)

    def bits(self, name: str) -> int:
        """The bits of one component that differ, where nothing else does; else 0."""
        if self.differing != {name}:
            return 0
        return self.expected.registers[name] ^ self.result.registers[name]


def _general_detect_first(found: X64Difference) -> bool:
    return "DR" in found.case.form and found.case.cpl > 0 and found.vectors == (_GP, _DB)


def _general_detect_clears_bt(found: X64Difference) -> bool:
    return found.vectors == (_DB, _DB) and found.bits("dr6") & ~0xF == _BT


def _dr7_bit_11(found: X64Difference) -> bool:
    return found.case.form.startswith("MOV DR") and found.bits("dr7") == 1 << 11


def _narrow_iret(found: X64Difference) -> bool:
    """The emulator is right above the frame of three, in the stack segment it had; all else agrees."""
    size = {"IRET": 2, "IRETD": 4}.get(found.case.form)
    if size is None or not found.case.long or found.returns_to != found.case.cpl:
        return False
    start, end = found.step.state, found.result.registers
    if found.expected.kind == "trap" and not found.completes:
        # The model looks at SS:RSP before the target.
        return (found.result.vector, found.result.error_code) == (_GP, 0)
    above = found.completes and end["rsp"] == start["rsp"] + 3 * size
    if not above or end["ss.selector"] != start["ss.selector"] or found.expected.kind == "trap":
        return above and end["ss.selector"] == start["ss.selector"]
    table = start["ldtr.base" if found.expected.registers["ss.selector"] & 4 else "gdtr.base"]
    marked = table + (found.expected.registers["ss.selector"] & 0xFFF8) + 5
    bytes_differ = {where for where, _, _ in memory_differences(found.step, found.expected, found.result)}
    return found.differing <= {"rsp", "memory", *_SS_PARTS} and bytes_differ <= {marked}


def _absent_stack_on_iret(found: X64Difference) -> bool:
    faults = (found.expected.vector, found.result.vector) == (_SS, _NP)
    same = found.expected.error_code == found.result.error_code
    return found.case.form.startswith("IRET") and faults and same and found.expected.error_code != 0


def _clears_upper_half(found: X64Difference) -> bool:
    left = found.case.long and not found.result.registers.get("cs.rights", 1 << 13) >> 13 & 1
    return left and found.bits("rsp") != 0 and found.bits("rsp") & 0xFFFFFFFF == 0


def _sysret_keeps_ss(found: X64Difference) -> bool:
    only = found.differing <= {"ss.limit", "ss.rights", "rsp"}
    if not only or not found.case.form.startswith("SYSRET"):
        return False
    kept = found.result.registers["ss.limit"] == found.step.state["ss.limit"]
    attributes = found.result.registers["ss.rights"]
    kept = kept and (attributes ^ found.step.state["ss.rights"]) & 0xF000 == 0
    same = found.expected.registers["ss.rights"] ^ attributes
    return (
        kept
        and same & 0xFF == 0
        and (found.expected.registers["rsp"] ^ found.result.registers["rsp"]) & _LOW == 0
    )


def _cmpxchg_keeps_upper_half(found: X64Difference) -> bool:
    name = GPR_NAMES[found.case.operands.get("operand r32", 0)]
    return found.case.form == "CMPXCHG r32, r32" and found.bits(name) != 0 and found.bits(name) & _LOW == 0


def _stores_before(found: X64Difference) -> bool:
    traps = found.expected.kind == "trap" and found.vectors[0] == found.vectors[1]
    return traps and found.differing == {"memory"}


def _near_call_pushes_first(found: X64Difference) -> bool:
    near = found.case.form in ("CALL rel32", "CALL r64")
    return near and found.vectors[0] == _GP and found.vectors[1] in (_SS, _PF, _AC)


def _pop_reads_a_word(found: X64Difference) -> bool:
    """The stack slot cannot be read, and its first two bytes can."""
    if found.case.form not in ("POP FS", "POP GS", "POP DS", "POP ES", "POP SS"):
        return False
    slot = 8 if found.case.long else 4
    return found.expected.storage and not _readable(found, slot) and _readable(found, 2)


def _readable(found: X64Difference, size: int) -> bool:
    """Whether so many bytes at the top of the stack may be read."""
    state = initial_state(found.step)
    top = access.MemoryOperand(Word(3, SS_), access.stack_offset(state, 0))
    try:
        access.linear_address(state, top, size, write=False)
    except MemoryFault:
        return False
    return True


def _supervisor_push(found: X64Difference) -> bool:
    pushes = found.case.form.startswith(("INT", "CALL m", "CALL p")) and found.case.cpl == 3
    faults = (found.vectors[0], found.expected.error_code) in ((_PF, 7), (_AC, 0))
    if not pushes or not faults:
        return False
    target = found.descriptor(_entered(found))
    if target is not None and target.is_conforming:
        return True
    # A far CALL that faults does not show its target: a supervisor's write; or what is looked at next, the offset.
    ends = found.result.vector, found.result.error_code
    return found.case.form.startswith("CALL") and ends in ((_PF, 3), (_GP, 0))


def _entered(found: X64Difference) -> int:
    """The code selector that an interrupt's gate names, or that a far CALL has left in CS."""
    vector = {"INT3": 3, "INTO": 4, "INT1": 1}.get(found.case.form, found.case.operands.get("operand imm8"))
    if vector is None:
        return found.result.registers.get("cs.selector", 0)
    gate = found.step.state["idtr.base"] + 16 * vector
    return int.from_bytes(initial_memory(found.step)[gate + 2 : gate + 4], "little")


def _wraps(found: X64Difference) -> bool:
    """An offset that the instruction uses lies so that the operand runs past the end."""
    if found.case.long or not found.expected.storage or found.vectors[0] not in (_GP, _SS):
        return False
    state, operands = found.step.state, found.case.operands
    offsets = [value for name, value in operands.items() if name.endswith(".offset")]
    offsets += [state[name] for name in ("rsi", "rdi")] if not found.case.form.startswith("PUSH") else []
    past = any(offset & _LOW > _LOW - _FRAME for offset in offsets)
    return past or (state["rsp"] + _FRAME & _LOW) < 2 * _FRAME


def _parts_in_order(found: X64Difference) -> bool:
    """The page that may not be used lies beside addresses that are not canonical, or outside a segment."""
    where, state = found.page_fault, found.step.state
    if where is None or not found.expected.storage or found.vectors[0] not in (_GP, _SS):
        return False
    ends = [EDGES[0] - where, where - EDGES[3]]
    if not found.case.long:
        ends = [state[f"{name}.base"] + state[f"{name}.limit"] - where for name in SEGMENT_NAMES]
    return any(0 <= end < _FRAME for end in ends)


def _null_stack_of_another_level(found: X64Difference) -> bool:
    returns = "IRET" in found.case.form or "RETF" in found.case.form
    same = (found.vectors[0], found.expected.error_code) == (_GP, 0)
    if not returns or not same or not found.completes:
        return False
    stack = found.result.registers["ss.selector"]
    return stack < 4 and stack != found.result.registers["cs.selector"] & 3


def _reserved_half_of_msr(found: X64Difference) -> bool:
    number, high = found.step.state["rcx"] & _LOW, found.step.state["rdx"] & _LOW
    narrow = number in (_FMASK, _TSC_AUX) and high != 0
    return found.case.form == "WRMSR" and narrow and found.vectors == (_GP, None)


def _names_the_old_stack(found: X64Difference) -> bool:
    old = found.step.state["ss.selector"] & 0xFFFC
    same = found.vectors == (_SS, _SS) and found.expected.error_code in (0, 1)
    return (
        same
        and (found.result.error_code or 0) & 0xFFFC == old
        and found.case.form.startswith(("INT", "CALL"))
    )


def _alignment_order(found: X64Difference) -> bool:
    one, other = found.vectors
    of_an_operand = found.expected.storage and (other == _PF or not found.result.error_code)
    return of_an_operand and _AC in (one, other) and {one, other} <= {_AC, _GP, _SS, _PF}


def _far_call_looks_at_ss(found: X64Difference) -> bool:
    """From 64-bit mode to a code segment of compatibility mode."""
    size = {"CALL m16:16": 2, "CALL m16:32": 4, "CALL m16:64": 8}.get(found.case.form)
    if size is None or not found.case.long:
        return False
    state, name = initial_state(found.step), f"operand {found.case.form.split()[1]}"
    number, offset = found.case.operands[f"{name}.segment"], found.case.operands[f"{name}.offset"]
    where = access.linear(state, state.segment(number), Word(3, number), Word(64, offset)) + size
    if where >= ARENA_BYTES - 1:
        return False
    target = found.descriptor(int(state.memory.load_little_endian(where, 2)))
    if target is None or not target.is_code or is_64_bit_code(target):
        return False
    null = found.step.state["ss.rights"] >> 16 == 1
    return (null and found.result.vector == _SS) or found.step.state["rsp"] > _LOW


def _invpcid_reads_first(found: X64Difference) -> bool:
    kind = found.step.state[GPR_NAMES[found.case.operands.get("operand r64", 0)]]
    wide = kind if found.case.long else kind & _LOW
    return found.case.form.startswith("INVPCID") and wide > 3 and found.vectors[0] == _GP


_RECOGNISED: Final[Mapping[str, Callable[[X64Difference], bool]]] = {
    "general-detect-before-cpl": _general_detect_first,
    "general-detect-clears-bt": _general_detect_clears_bt,
    "dr7-bit-11": _dr7_bit_11,
    "iret-of-a-narrow-frame-keeps-the-stack": _narrow_iret,
    "absent-stack-on-iret": _absent_stack_on_iret,
    "sysret-clears-the-upper-half-of-rsp": _clears_upper_half,
    "sysret-keeps-hidden-parts-of-ss": _sysret_keeps_ss,
    "cmpxchg-leaves-the-upper-half": _cmpxchg_keeps_upper_half,
    "stores-before-a-fault": _stores_before,
    "near-call-pushes-first": _near_call_pushes_first,
    "segment-pop-reads-a-word": _pop_reads_a_word,
    "conforming-handler-is-pushed-for-as-supervisor": _supervisor_push,
    "alignment-check-order": _alignment_order,
    "access-wraps-at-4-gib": _wraps,
    "parts-of-an-operand-in-order": _parts_in_order,
    "null-stack-of-another-level": _null_stack_of_another_level,
    "reserved-half-of-an-msr": _reserved_half_of_msr,
    "inner-stack-fault-names-the-old-stack": _names_the_old_stack,
    "far-call-to-compatibility-mode-looks-at-ss": _far_call_looks_at_ss,
    "invpcid-reads-its-descriptor-first": _invpcid_reads_first,
}


def deviations(emulator: str = "bochs") -> Mapping[str, Deviation]:
    """The list of an emulator, by name."""
    return listed("popek_specs.x86_64", f"{emulator}-deviations.toml")


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RECOGNISED)


explain: Final = explainer(X64Difference, _RECOGNISED)
"""The name of the entry that explains a difference, if one does."""
