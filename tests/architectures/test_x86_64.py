"""x86-64 on numbers: what the manual says of IA-32e mode, one sentence a test."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from popek.architectures.x86.deprivileging import IDT_AT, RESERVED, TSS_AT
from popek.architectures.x86_64.state import X64
from popek.checks.classify import Classifier
from popek.checks.subject import Subject
from popek.emulators.x86_64.expectation import initial_state
from popek.emulators.x86_64.step import (
    CODE_SELECTORS,
    COMPATIBLE_SELECTORS,
    IST_TOPS,
    KERNEL_LANDING,
    X64StepCase,
    gate_descriptor,
    plain_state,
    segment_descriptor,
    system_descriptor,
)
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word
from popek.machines import machine

MACHINE = machine("x86-64")
GDT, IDT, TSS, FREE = 0x10000, 0x12000, 0x14000, 0x78


def run(
    form: str,
    *,
    cpl: int = 0,
    long: bool = True,
    memory: Mapping[int, bytes] | None = None,
    operands: Mapping[str, int] | None = None,
    **changes: int,
) -> Outcome[X64]:
    """One instruction of length 2 from a plain state; a dot in a name is written as two underscores."""
    instruction = MACHINE.instructions[form]
    values = plain_state(cpl, long=long) | {name.replace("__", "."): v for name, v in changes.items()}
    state = initial_state(X64StepCase(b"\x90\x90", values, tuple((memory or {}).items())))
    assert MACHINE.invariant(state).value == 1
    given = {"operand length": 2} | dict(operands or {})
    parts = {n: Word(w, given.get(n, 0)) for o in instruction.inputs for n, w in o.part_names()}
    return MACHINE.step(instruction, state, parts)


def after(form: str, **rest: object) -> X64:
    outcome = run(form, **rest)  # type: ignore[arg-type]
    assert isinstance(outcome, Next), outcome
    return outcome.state


def fault(form: str, **rest: object) -> tuple[str, int | None]:
    outcome = run(form, **rest)  # type: ignore[arg-type]
    assert isinstance(outcome, Trap), outcome
    return outcome.vector.name, None if outcome.error_code is None else int(outcome.error_code)


def reference(offset: int, name: str = "m64", segment: int = 3) -> dict[str, int]:
    return {f"operand {name}.segment": segment, f"operand {name}.offset": offset & 0xFFFFFFFF_FFFFFFFF}


def traps_on_storage(form: str, **rest: object) -> bool:
    outcome = run(form, **rest)  # type: ignore[arg-type]
    assert isinstance(outcome, Trap), outcome
    return outcome.memory


# -- registers and memory -------------------------------------------------------------------------


def test_a_32_bit_result_clears_the_upper_half_and_a_16_bit_one_keeps_it() -> None:
    wide = after("MOV r32, r32", operands={"operand r32": 0, "operand r32 2": 1}, rax=2**64 - 1, rcx=5)
    assert int(wide.gpr[0]) == 5
    narrow = after("MOV r16, r16", operands={"operand r16": 0, "operand r16 2": 1}, rax=2**64 - 1, rcx=5)
    assert int(narrow.gpr[0]) == 0xFFFFFFFF_FFFF0005


def test_only_a_jump_that_is_taken_has_its_target_looked_at() -> None:
    edge = {"rip": 0x7FFF_FFFFFFFE, "operands": {"operand rel8": 0}}
    assert int(after("JZ rel8", **edge).rip) == 0x8000_00000000
    assert fault("JZ rel8", rflags=0x42, **edge) == ("#GP", 0)
    outside = {"long": False, "cs__limit": 0x4001, "operands": {"operand rel8": 0}}
    assert int(after("JZ rel8", **outside).rip) == 0x4002
    assert fault("JZ rel8", rflags=0x42, **outside) == ("#GP", 0)


def test_a_wrong_value_in_storage_is_no_trap_on_storage() -> None:
    base = {0x1000: struct.pack("<HQ", 0xFFF, 1 << 47)}
    assert not traps_on_storage("LGDT m16&64", memory=base, operands=reference(0x1000, "m16&64"))
    descriptor = {0x1000: struct.pack("<QQ", 0, 1 << 47)}
    assert not traps_on_storage("INVPCID r64, m128", memory=descriptor, operands=reference(0x1000, "m128"))
    wild = reference(0x7FFF_FFFFFFFF, "m16&64")
    assert traps_on_storage("LGDT m16&64", operands=wild)


@pytest.mark.parametrize("address", [0x8000_00000000, 0x7FFF_FFFFFFF9, 0xFFFF7FFF_FFFFFFFF])
def test_an_address_that_is_not_canonical_gives_gp(address: int) -> None:
    base = address if address >> 47 in (0, 0x1FFFF) else 0x7FFF_FFFFFFFF
    outcome = fault("MOV r64, m64", operands=reference(address - base, segment=4), fs__base=base)
    assert outcome == ("#GP", 0)


def test_a_push_below_the_canonical_addresses_gives_ss() -> None:
    assert fault("PUSH r64", rsp=0xFFFF8000_00000000) == ("#SS", 0)


def test_pages_bar_ring_3_alone() -> None:
    assert fault("MOV r64, m64", cpl=3, operands=reference(0x1000)) == ("#PF", 5)
    assert fault("MOV m64, r64", cpl=3, operands=reference(0x1FFFC)) == ("#PF", 7)
    for cpl in (0, 1, 2):
        assert isinstance(run("MOV m64, r64", cpl=cpl, operands=reference(0x1000)), Next)


def test_fs_and_gs_have_bases_and_the_others_have_none_in_64_bit_mode() -> None:
    data = {0x1100: struct.pack("<Q", 77)}
    through_fs = after("MOV r64, m64", operands=reference(0x100, segment=4), memory=data, fs__base=0x1000)
    assert int(through_fs.gpr[0]) == 77
    through_ds = after("MOV r64, m64", operands=reference(0x1100), memory=data, ds__base=0x1000)
    assert int(through_ds.gpr[0]) == 77


def test_compatibility_mode_has_limits() -> None:
    where = reference(0xFFD, "m32")
    assert fault("MOV r32, m32", long=False, operands=where, ds__limit=0xFFF) == ("#GP", 0)
    assert isinstance(run("MOV r32, m32", operands=where, ds__limit=0xFFF), Next)


def test_cmpxchg16b_wants_a_multiple_of_16() -> None:
    assert fault("CMPXCHG16B m128", operands=reference(0x1008, "m128")) == ("#GP", 0)
    assert isinstance(run("CMPXCHG16B m128", operands=reference(0x1010, "m128")), Next)


# -- tables, control registers, MSRs ---------------------------------------------------------------


@pytest.mark.parametrize("form", ["SGDT m", "SIDT m", "SLDT r64", "STR r32", "SMSW r64"])
def test_umip_bars_the_stores_above_ring_0(form: str) -> None:
    where = reference(0x30000, "m")
    assert fault(form, cpl=3, operands=where, cr4=0x20 | 1 << 11) == ("#GP", 0)
    assert isinstance(run(form, cpl=3, operands=where), Next)
    assert isinstance(run(form, operands=where, cr4=0x20 | 1 << 11), Next)


def test_sgdt_stores_ten_bytes_in_64_bit_mode_and_six_in_compatibility_mode() -> None:
    image = struct.pack("<HQ", 0xFFF, GDT)
    wide = after("SGDT m", operands=reference(0x1000, "m")).memory
    assert wide.load_little_endian(Word(64, 0x1000), 10).value == int.from_bytes(image, "little")
    narrow = after("SGDT m", long=False, operands=reference(0x1000, "m")).memory
    assert narrow.load_little_endian(Word(64, 0x1006), 4).value == 0xF1F1F1F1


def test_lgdt_refuses_a_base_that_is_not_canonical() -> None:
    image = {0x1000: struct.pack("<HQ", 0x7F, 1 << 47)}
    assert fault("LGDT m16&64", operands=reference(0x1000, "m16&64"), memory=image) == ("#GP", 0)


@pytest.mark.parametrize(
    ("base", "upper", "expected"),
    [(TSS, 0, None), (TSS, 0x1F00, ("#GP", FREE)), (TSS, 0xE000, None), (1 << 47, 0, ("#GP", FREE))],
)
def test_ltr_looks_at_all_sixteen_bytes(base: int, upper: int, expected: object) -> None:
    memory = {GDT + FREE: system_descriptor(base, 0x67, 0x8900, upper)}
    outcome = run("LTR r16", rax=FREE, memory=memory)
    if expected is None:
        assert isinstance(outcome, Next)
        assert int(outcome.state.tr.base) == base
        assert int(outcome.state.memory.load(Word(64, GDT + FREE + 5))) == 0x8B
    else:
        assert fault("LTR r16", rax=FREE, memory=memory) == expected


def test_ltr_takes_no_16_bit_tss() -> None:
    assert fault("LTR r16", rax=FREE, memory={GDT + FREE: system_descriptor(TSS, 0x67, 0x8100)}) == (
        "#GP",
        FREE,
    )


@pytest.mark.parametrize("value", [0x31, 0x80000030, 0xA0000031, 0x1_80000031])
def test_cr0_refuses_what_does_not_go_together(value: int) -> None:
    assert fault("MOV CR0, r64", rax=value) == ("#GP", 0)


def test_paging_can_be_turned_off_in_compatibility_mode_without_pcids() -> None:
    assert run("MOV CR0, r64", long=False, rax=0x31) == NotModelled("leaving IA-32e mode")
    assert fault("MOV CR0, r64", long=False, rax=0x31, cr4=0x20 | 1 << 17) == ("#GP", 0)


def test_pcids_are_turned_on_while_cr3_names_none() -> None:
    assert fault("MOV CR4, r64", rax=0x20 | 1 << 17, cr3=0x18) == ("#GP", 0)
    assert isinstance(run("MOV CR4, r64", rax=0x20 | 1 << 17), Next)
    assert fault("MOV CR4, r64", rax=0) == ("#GP", 0)


def test_bit_63_of_cr3_keeps_the_tlbs_with_pcids_and_is_refused_without() -> None:
    assert fault("MOV CR3, r64", rax=1 << 63) == ("#GP", 0)
    kept = after("MOV CR3, r64", rax=1 << 63 | 5, cr4=0x20 | 1 << 17)
    assert int(kept.cr3) == 5
    assert fault("MOV CR3, r64", rax=1 << 40) == ("#GP", 0)


@pytest.mark.parametrize(
    ("bit", "start", "stale"), [(7, 0, 0), (17, 1 << 17, 0), (20, 0, 0), (20, 1 << 20, 1), (2, 0, 1)]
)
def test_cr4_empties_the_tlbs_when_pge_changes_pcide_goes_or_smep_comes(
    bit: int, start: int, stale: int
) -> None:
    done = after("MOV CR4, r64", rax=(0x20 | start) ^ 1 << bit, cr4=0x20 | start, tlb_stale=1)
    assert int(done.tlb_stale) == stale


def test_cr8_has_four_bits() -> None:
    assert fault("MOV CR8, r64", rax=16) == ("#GP", 0)
    assert int(after("MOV CR8, r64", rax=9).cr8) == 9


@pytest.mark.parametrize(
    ("number", "value", "accepted"),
    [
        (0xC0000082, 0x7FFF_FFFFFFFF, True),
        (0xC0000082, 0x8000_00000000, False),
        (0xC0000084, 1 << 32, False),
        (0xC0000080, 0xD01, True),
        (0xC0000080, 0x401, False),
        (0xC0000080, 0x503, False),
        (0x277, 0x0007040600070406, True),
        (0x277, 2, False),
        (0xC0000101, 0xFFFF8000_00000000, True),
        (0x12345678, 0, False),
    ],
)
def test_wrmsr_refuses_reserved_bits_and_addresses_that_are_not_canonical(
    number: int, value: int, accepted: bool
) -> None:
    outcome = run("WRMSR", rcx=number, rax=value & 0xFFFFFFFF, rdx=value >> 32)
    assert isinstance(outcome, Next if accepted else Trap)
    if accepted:
        read = MACHINE.step(MACHINE.instructions["RDMSR"], outcome.state, {"operand length": Word(4, 2)})
        assert isinstance(read, Next)
        assert int(read.state.gpr[2]) << 32 | int(read.state.gpr[0]) == value


# -- system calls, segment registers ---------------------------------------------------------------


def test_syscall_saves_and_masks_the_flags() -> None:
    state = after(
        "SYSCALL", cpl=3, efer=0x501, rflags=0x246, msr__star=8 << 32, msr__lstar=0x5000, msr__fmask=0x200
    )
    assert (int(state.rip), int(state.gpr[1]), int(state.gpr[11])) == (0x5000, 0x20002, 0x246)
    assert (int(state.rflags.value), int(state.cpl), int(state.ss.selector.value)) == (0x46, 0, 0x10)


def test_syscall_is_undefined_without_sce_and_in_compatibility_mode() -> None:
    assert fault("SYSCALL") == ("#UD", None)
    assert fault("SYSCALL", long=False, efer=0x501) == ("#UD", None)


def test_sysret_to_an_address_that_is_not_canonical_faults_at_cpl_0() -> None:
    outcome = run("SYSRETQ", efer=0x501, rcx=1 << 47)
    assert isinstance(outcome, Trap)
    assert (outcome.vector.name, int(outcome.state.cpl)) == ("#GP", 0)


def test_swapgs_is_for_ring_0_and_for_64_bit_mode() -> None:
    state = after("SWAPGS", gs__base=0x1000, msr__kernel_gs_base=0x2000)
    assert (int(state.gs.base), int(state["msr.kernel_gs_base"])) == (0x2000, 0x1000)
    assert fault("SWAPGS", cpl=3) == ("#GP", 0)
    assert fault("SWAPGS", cpl=3, long=False) == ("#UD", None)


def test_wrfsbase_needs_fsgsbase_and_a_canonical_address() -> None:
    assert fault("WRFSBASE r64", cpl=3) == ("#UD", None)
    assert fault("WRFSBASE r64", cpl=3, cr4=0x20 | 1 << 16, rax=1 << 47) == ("#GP", 0)
    assert int(after("WRFSBASE r64", cpl=3, cr4=0x20 | 1 << 16, rax=0x1234).fs.base) == 0x1234


@pytest.mark.parametrize(
    ("cpl", "selector", "loads"), [(0, 0, True), (1, 1, True), (1, 0, False), (3, 3, False)]
)
def test_a_null_ss_is_for_64_bit_mode_inside_ring_3(cpl: int, selector: int, loads: bool) -> None:
    operands = {"operand Sreg": 2}
    outcome = run("MOV Sreg, r16", cpl=cpl, rax=selector, operands=operands)
    assert isinstance(outcome, Next if loads else Trap)
    if loads:
        assert outcome.state.ss.rights.value.value == 0x10000 | cpl << 5
        assert MACHINE.invariant(outcome.state).value == 1
    assert fault("MOV Sreg, r16", cpl=cpl, long=False, rax=selector, operands=operands) == ("#GP", 0)


@pytest.mark.parametrize(
    "form", ["PUSH CS", "POP DS", "PUSHAD", "INTO", "BOUND r32, m64", "LDS r32, m16:32", "SALC"]
)
def test_encodings_that_64_bit_mode_lacks_are_undefined(form: str) -> None:
    for cpl in range(4):
        assert fault(form, cpl=cpl) == ("#UD", None)


def test_push_cs_shows_the_ring_in_compatibility_mode() -> None:
    state = after("PUSH CS", cpl=1, long=False)
    assert state.memory.load_little_endian(Word(64, 0x8FFC), 2).value == COMPATIBLE_SELECTORS[1]


def test_a_rex_prefix_is_another_instruction_in_compatibility_mode() -> None:
    assert isinstance(run("ADD r64, r64", long=False), NotModelled)


# -- transfers --------------------------------------------------------------------------------------


def _call_gate(selector: int, upper: int = 0) -> dict[int, bytes]:
    return {
        GDT + FREE: gate_descriptor(selector, KERNEL_LANDING, 0xEC00, upper=upper),
        0x30000: struct.pack("<IH", 0, FREE | 3),
    }


def test_a_call_gate_switches_to_rsp0_and_a_null_ss() -> None:
    state = after(
        "CALL m16:32", cpl=3, operands=reference(0x30000, "m16:32"), memory=_call_gate(CODE_SELECTORS[0])
    )
    assert (int(state.cpl), int(state.rip), int(state.ss.selector.value)) == (0, KERNEL_LANDING, 0)
    assert int(state.ss.rights.unusable) == 1
    assert int(state.gpr[4]) == 0xB000 - 32
    frame = [int(state.memory.load_little_endian(Word(64, 0xB000 - 32 + 8 * i), 8)) for i in range(4)]
    assert frame == [0x20002, CODE_SELECTORS[3], 0x28000, 0x43]


def test_a_call_gate_of_the_same_level_checks_the_alignment_of_what_it_pushes() -> None:
    gate = {0x10078: gate_descriptor(CODE_SELECTORS[3], 0x38000, 0xEC00), 0x30000: bytes(8) + b"\x7b\0"}
    given = {"memory": gate, "operands": reference(0x30000, "m16:64"), "cpl": 3}
    flags = {"cr0": 0x80040031, "rflags": 0x40002}
    assert fault("CALL m16:64", rsp=0x27FFD, **flags, **given) == ("#AC", 0)
    assert int(after("CALL m16:64", rsp=0x27FF8, **flags, **given).rip) == 0x38000


def test_a_call_gate_whose_second_half_looks_like_a_descriptor_is_refused() -> None:
    memory = _call_gate(CODE_SELECTORS[0], upper=0x1F00)
    assert fault("CALL m16:32", cpl=3, operands=reference(0x30000, "m16:32"), memory=memory) == ("#GP", FREE)


def test_a_call_gate_lies_in_its_table_whole() -> None:
    memory, where = _call_gate(CODE_SELECTORS[0]), reference(0x30000, "m16:32")
    cut = {"gdtr__limit": FREE + 14, "cpl": 3}
    assert fault("CALL m16:32", operands=where, memory=memory, **cut) == ("#GP", FREE)
    assert isinstance(run("CALL m16:32", operands=where, memory=memory, cpl=3, gdtr__limit=FREE + 15), Next)


def test_a_call_gate_leads_to_64_bit_code_alone() -> None:
    memory = _call_gate(COMPATIBLE_SELECTORS[0])
    outcome = fault("CALL m16:32", cpl=3, operands=reference(0x30000, "m16:32"), memory=memory)
    assert outcome == ("#GP", COMPATIBLE_SELECTORS[0] & ~3)


@pytest.mark.parametrize(("ist", "top"), [(0, 0x8000 & ~15), (2, IST_TOPS[1] & ~15), (7, IST_TOPS[6] & ~15)])
def test_an_interrupt_aligns_its_frame_of_five(ist: int, top: int) -> None:
    memory = {IDT + 16 * 0x80: gate_descriptor(CODE_SELECTORS[0], KERNEL_LANDING, 0x8E00, ist=ist)}
    state = after("INT imm8", operands={"operand imm8": 0x80}, memory=memory, rsp=0x8006, rflags=0x4206)
    assert int(state.gpr[4]) == top - 40
    frame = [int(state.memory.load_little_endian(Word(64, top - 40 + 8 * i), 8)) for i in range(5)]
    assert frame == [0x4002, CODE_SELECTORS[0], 0x4206, 0x8006, 0x10]
    assert int(state.rflags.value) == 6


def test_a_trap_gate_leaves_if_alone_and_a_gate_of_a_lower_dpl_is_refused() -> None:
    memory = {IDT + 16 * 0x80: gate_descriptor(CODE_SELECTORS[0], KERNEL_LANDING, 0x8F00)}
    operands = {"operand imm8": 0x80}
    assert int(after("INT imm8", operands=operands, memory=memory, rflags=0x202).rflags.if_) == 1
    assert fault("INT imm8", cpl=3, operands=operands, memory=memory) == ("#GP", 0x80 * 8 + 2)


def test_iretq_pops_the_stack_pointer_even_at_the_same_level() -> None:
    frame = struct.pack("<5Q", KERNEL_LANDING, CODE_SELECTORS[0], 2, 0x7000, 0)
    state = after("IRETQ", memory={0x8000: frame})
    assert (int(state.gpr[4]), int(state.ss.rights.unusable)) == (0x7000, 1)


def test_iret_with_nt_faults_as_there_are_no_tasks() -> None:
    assert fault("IRETQ", rflags=0x4002) == ("#GP", 0)


def test_a_return_to_compatibility_mode_needs_a_stack_segment() -> None:
    frame = struct.pack("<5Q", KERNEL_LANDING, COMPATIBLE_SELECTORS[0], 2, 0x7000, 0)
    assert fault("IRETQ", memory={0x8000: frame}) == ("#GP", 0)


def test_a_return_outward_leaves_no_segment_of_an_inner_level() -> None:
    frame = struct.pack("<5Q", 0x38000, CODE_SELECTORS[3], 2, 0x28000, 0x43)
    state = after("IRETQ", memory={0x8000: frame}, gs__base=0x1234)
    assert [int(getattr(state, name).selector.value) for name in ("ds", "es", "fs", "gs")] == [0] * 4
    assert int(state.gs.base) == 0x1234


def test_code_of_both_widths_is_refused() -> None:
    memory = {GDT + FREE: segment_descriptor(0, 0xFFFFF, 0xE09B00), 0x1000: struct.pack("<IH", 0x5000, FREE)}
    assert fault("JMP m16:32", operands=reference(0x1000, "m16:32"), memory=memory) == ("#GP", FREE)


# -- flags, ports, privileges -----------------------------------------------------------------------


def test_popfq_drops_if_and_iopl_silently_above_iopl() -> None:
    memory = {0x28000: struct.pack("<Q", 0x3202)}
    assert int(after("POPFQ", cpl=3, memory=memory).rflags.value) == 2
    inner = after("POPFQ", memory={0x8000: struct.pack("<Q", 0x3202)})
    assert int(inner.rflags.value) == 0x3202


def test_a_port_needs_iopl_or_a_clear_bit() -> None:
    assert fault("IN AL, imm8", cpl=3, operands={"operand imm8": 0xE0}) == ("#GP", 0)
    assert isinstance(run("IN AL, imm8", cpl=3, operands={"operand imm8": 0xB2}), Next)
    assert isinstance(run("IN AL, imm8", cpl=3, operands={"operand imm8": 0xE0}, rflags=0x3002), Next)


@pytest.mark.parametrize("form", ["CLAC", "STAC", "MONITOR", "MWAIT"])
def test_what_is_privileged_through_ud(form: str) -> None:
    assert fault(form, cpl=1) == ("#UD", None)
    assert isinstance(run(form, rax=0x1000), Next)


@pytest.mark.parametrize("form", ["VMCALL", "VMRUN", "RSM", "GETSEC", "VMXON m64", "UD2"])
def test_what_is_undefined_at_every_level(form: str) -> None:
    assert {fault(form, cpl=cpl) for cpl in range(4)} == {("#UD", None)}


# -- the map of the VMM -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ring"), [("ring-deprivileging-0/3/3", 3), ("ring-deprivileging-0/1/3", 1)])
def test_the_hardware_state_of_a_guest_exists_and_is_deprivileged(name: str, ring: int) -> None:
    technique = MACHINE.technique(name)
    guest = X64.reset(ss__rights=0x10000, ss__selector=0)
    private = X64.reset(reserved__base=0x40000, rflags__if=1)
    hardware = technique.map(guest, private)
    assert MACHINE.invariant(hardware).value == 1
    assert int(hardware.cpl) == ring
    assert technique.deprivileged(hardware).value == 1
    assert int(hardware.reserved.base) == 0x40000
    assert int(hardware.reserved.size) == RESERVED
    gate = hardware.memory.load_little_endian(Word(64, 0x40000 + IDT_AT + 16 * 13), 8)
    assert (int(gate[47:40]), int(gate[31:16])) == (0x8E, int(private.cs.selector.value))
    assert int(hardware.tr.base) == 0x40000 + TSS_AT


def test_the_vmm_keeps_what_resources_there_are_but_the_segment_registers() -> None:
    owned = set(MACHINE.technique().owned)
    assert {"gdtr.base", "rflags.if", "msr.lstar", "cr8", "efer.sce", "ports", "cpuid"} <= owned
    assert not owned & {"fs.base", "gs.base", "ds.selector.index", "rax"}


def test_a_mode_that_the_invariant_fixes_is_no_component() -> None:
    """RFLAGS.VM is 0 in IA-32e mode: PUSH CS shows the level and nothing of it."""
    classifier = Classifier(Subject.of(MACHINE))
    compatibility = Classifier(Subject.of(MACHINE, None, ["MODE=0"]))
    found = compatibility.classify(MACHINE.instructions["PUSH CS"]).components
    assert "cs.selector.rpl" in found
    assert "rflags.vm" not in found
    assert "cs.selector.rpl" in classifier.states.modes
    assert "rflags.vm" not in classifier.states.modes
