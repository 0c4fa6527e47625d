"""Where Unicorn deviates from the manual on IA-32: how to recognise what ``unicorn-deviations.toml`` lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from popek.architectures.ia32.state import ESP, GPR_NAMES
from popek.architectures.x86.descriptors import (
    CALL_GATE_16,
    CALL_GATE_32,
    TSS_16,
    TSS_32,
    Descriptor,
    in_table,
    is_null,
    read_descriptor,
)
from popek.architectures.x86.flags import VIF_VIP
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.ia32.cases import Ia32Case
from popek.emulators.ia32.expectation import initial_state, memory_differences
from popek.emulators.ia32.found import Ia32Difference
from popek.emulators.ia32.step import Ia32StepCase
from popek.emulators.x86.expectation import Expectation, StepResult
from popek.kernel.words import Word

_Rule = Callable[[Ia32Difference], frozenset[str]]
_NOTHING: Final[frozenset[str]] = frozenset()


def image_has_vm(step: Ia32StepCase) -> bool:
    """Whether the flags that IRETD would take have VM set."""
    state = initial_state(step)
    wide = bool(state.ss.rights.db)
    pointer = int(state.gpr[ESP]) if wide else int(state.gpr[ESP]) & 0xFFFF
    return bool(state.memory.load(Word(32, (int(state.ss.base) + pointer + 10) & 0xFFFFFFFF))[1])


def _changed_bytes(found: Ia32Difference) -> list[tuple[int, int, int]]:
    return list(memory_differences(found.step, found.expected, found.result))


def _pushes_zero_extended(found: Ia32Difference) -> frozenset[str]:
    """Only the two bytes above the selector differ, and they are 0."""
    if found.mnemonic != "PUSH" or found.case.form.split()[-1].lower() not in SEGMENT_NAMES:
        return _NOTHING
    selector = min(found.expected.memory, default=0)
    upper = {selector + 2, selector + 3}
    return _if(all(at in upper and byte == 0 for at, _, byte in _changed_bytes(found)), "memory")


def _does_not_mark_accessed(found: Ia32Difference) -> frozenset[str]:
    """Only accessed bits differ, which the model sets."""
    far = found.mnemonic in ("CALL", "JMP", "RETF", "IRET", "IRETD")
    marks = all(
        at & 7 == 5 and value == byte | 1 and not byte & 1 for at, value, byte in _changed_bytes(found)
    )
    return _if(far and marks, "memory")


def _gate(found: Ia32Difference) -> Descriptor | None:
    """The call gate that a far CALL or JMP goes through."""
    if found.mnemonic not in ("CALL", "JMP"):
        return None
    state, operands = found.state, found.case.operands
    selector: Word | None = None
    for name, value in operands.items():
        if name.endswith(".selector"):
            selector = Word(16, value)
        elif name.endswith(".offset") and name.replace(".offset", ".segment") in operands:
            segment = state.segment(operands[name.replace(".offset", ".segment")])
            slot = 2 if name.startswith("operand m16:16") else 4
            selector = state.memory.load_little_endian(segment.base + value + slot, 2)
    if selector is None or is_null(selector) or not in_table(state, selector):
        return None
    found_there = read_descriptor(state, selector)
    gates = (CALL_GATE_16, CALL_GATE_32)
    return found_there if (found_there.s == 0) & found_there.type.isin(gates) else None


def _takes_32_bits_of_a_16_bit_gate(found: Ia32Difference) -> frozenset[str]:
    gate = _gate(found)
    narrow = gate is not None and int(gate.type) == CALL_GATE_16
    return _if(
        narrow and gate is not None and found.result.registers.get("eip") == int(gate.gate_offset), "eip"
    )


def _conforming_through_gate(found: Ia32Difference) -> frozenset[str]:
    gate = _gate(found)
    if gate is None or found.mnemonic != "CALL":
        return _NOTHING
    return _if(bool(read_descriptor(found.state, gate.gate_selector).is_conforming), "cs", "cpl")


def _absent_code_through_gate(found: Ia32Difference) -> frozenset[str]:
    gate = _gate(found)
    raised = found.expected.raised
    jumped = found.mnemonic == "JMP" and gate is not None
    return _if(jumped and raised is not None and (raised[0], found.result.vector) == (11, 13), "outcome")


def _tss_in_the_ldt(found: Ia32Difference) -> frozenset[str]:
    """The selector that is at fault names a TSS in the LDT."""
    raised = found.expected.raised
    if found.mnemonic not in ("CALL", "JMP") or raised is None or raised[0] != 13 or not (raised[1] or 0) & 4:
        return _NOTHING
    descriptor = read_descriptor(found.state, Word(16, raised[1] or 0))
    task = bool((descriptor.s == 0) & descriptor.type.isin((TSS_16, TSS_32)))
    return _if(task and found.result.vector in (None, 10, 11), "outcome")


def _absent_stack(found: Ia32Difference) -> frozenset[str]:
    raised = found.expected.raised
    returned = found.mnemonic in ("RETF", "IRET", "IRETD") and raised is not None
    return _if(returned and raised is not None and (raised[0], found.result.vector) == (12, 11), "outcome")


def _absent_inner_stack(found: Ia32Difference) -> frozenset[str]:
    raised = found.expected.raised
    inward = _gate(found) is not None and found.mnemonic == "CALL" and raised is not None
    return _if(inward and raised is not None and (raised[0], found.result.vector) == (12, 10), "outcome")


def _inner_stack_keeps_upper_half(found: Ia32Difference) -> frozenset[str]:
    registers = found.expected.registers
    inward = found.expected.kind == "next" and registers["cpl"] < found.case.cpl
    narrow = not registers.get("ss.access", 0) >> 22 & 1
    bits = registers["esp"] ^ found.result.registers["esp"] if inward else 1
    return _if(narrow and bits & 0xFFFF == 0, "esp")


def _null_fs_gs_keep_rpl(found: Ia32Difference) -> frozenset[str]:
    outward = found.mnemonic in ("RETF", "IRET", "IRETD") and found.expected.kind == "next"
    registers = found.case.registers
    kept = (
        name
        for name in ("fs", "gs")
        if 0 < registers.get(name, 0) < 4 and found.result.registers.get(name) == registers[name]
    )
    return frozenset(kept) if outward else _NOTHING


def _keeps_upper_half(found: Ia32Difference) -> frozenset[str]:
    """SMSW with a 32-bit register: its low half is right."""
    if found.case.form != "SMSW r32":
        return _NOTHING
    name = GPR_NAMES[found.case.operands["operand r32"]]
    return _if((found.expected.registers[name] ^ found.result.registers[name]) & 0xFFFF == 0, name)


def _enters_virtual_8086_mode(found: Ia32Difference) -> frozenset[str]:
    entered = found.case.form == "IRETD" and found.case.cpl > 0 and image_has_vm(found.step)
    return found.differing if entered else frozenset()


def _keeps_vif_and_vip(found: Ia32Difference) -> frozenset[str]:
    if found.case.form != "IRETD" or found.case.cpl > 0 or "eflags" not in found.differing:
        return _NOTHING
    bits = found.expected.registers["eflags"] ^ found.result.registers["eflags"]
    return _if(bits & ~VIF_VIP == 0, "eflags")


def _pushes_rf(found: Ia32Difference) -> frozenset[str]:
    resume = found.case.registers.get("eflags", 0) >> 16 & 1
    changed = _changed_bytes(found)
    only_rf = len(changed) == 1 and changed[0][1] ^ changed[0][2] == 1
    return _if(found.case.form == "PUSHFD" and bool(resume) and only_rf, "memory")


def _enter_by_stack_size(found: Ia32Difference) -> frozenset[str]:
    if found.mnemonic != "ENTER":
        return frozenset()
    bits = found.expected.registers["ebp"] ^ found.result.registers["ebp"]
    return frozenset({"ebp"}) if bits & 0xFFFF == 0 else frozenset()


def _releases_signed(found: Ia32Difference) -> frozenset[str]:
    released = found.case.operands.get("operand imm16", 0)
    short = found.expected.registers["esp"] - found.result.registers.get("esp", 0) & 0xFFFFFFFF == 0x10000
    return _if(found.mnemonic == "RET" and released >= 0x8000 and short, "esp")


def _if(holds: bool, *names: str) -> frozenset[str]:
    return frozenset(names) if holds else _NOTHING


_RULES: Final[Mapping[str, _Rule]] = {
    "segment-push-zero-extends": _pushes_zero_extended,
    "far-transfers-do-not-mark-accessed": _does_not_mark_accessed,
    "16-bit-call-gate-offset": _takes_32_bits_of_a_16_bit_gate,
    "conforming-code-through-a-gate": _conforming_through_gate,
    "absent-code-through-a-gate": _absent_code_through_gate,
    "tss-in-the-ldt": _tss_in_the_ldt,
    "absent-stack-on-return": _absent_stack,
    "absent-inner-stack": _absent_inner_stack,
    "inner-stack-keeps-upper-half": _inner_stack_keeps_upper_half,
    "null-fs-and-gs-keep-their-rpl": _null_fs_gs_keep_rpl,
    "smsw-keeps-the-upper-half": _keeps_upper_half,
    "near-return-releases-signed": _releases_signed,
    "enter-goes-by-the-stack-size": _enter_by_stack_size,
    "iret-enters-virtual-8086-mode-at-any-level": _enters_virtual_8086_mode,
    "iret-keeps-vif-and-vip": _keeps_vif_and_vip,
    "pushf-shows-rf": _pushes_rf,
}


def recognised() -> frozenset[str]:
    """The names that `explain` may give."""
    return frozenset(_RULES)


def explain(
    case: Ia32Case, step: Ia32StepCase, expected: Expectation, result: StepResult, differing: frozenset[str]
) -> str | None:
    """The entries of ``unicorn-deviations.toml`` that together explain a difference, joined by " + "."""
    found = Ia32Difference(case, step, expected, result, differing)
    used = {name: rule(found) & differing for name, rule in _RULES.items()}
    covered = frozenset().union(*used.values())
    return " + ".join(name for name, parts in used.items() if parts) if covered == differing else None
