"""VM exits of single instructions on numbers: reason, qualification, and what comes before the exit.

Expected values are the manual's (SDM vol. 3C, "VM-Exit Information Fields" and "VMX Non-Root Operation").
"""

from __future__ import annotations

from typing import Any

import pytest

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.machine import build
from popek.architectures.vtx.operation.state import (
    EXIT_INFORMATION,
    PinControls,
    PrimaryControls,
    SecondaryControls,
    VmxIa32,
)
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word
from popek_specs.vtx import rows

MACHINE = build()
GUEST = {"cr0": 0x80000031, "cr4": 0x2000, "non_root": 1}
SECONDARY = {"primary.activate_secondary_controls": 1}


def guest(**changes: int) -> VmxIa32:
    """A guest's kernel in non-root operation."""
    plain = VmxIa32.reset().with_changes({**GUEST, "primary": 0})
    return plain.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def step(form: str, state: VmxIa32, **operands: int) -> Outcome[VmxIa32]:
    """Run a form; operands by name, spaces and dots as underscores."""
    assert MACHINE.invariant(state).value == 1
    instruction = MACHINE.instructions[form]
    parts = {
        name: Word(
            width, operands.get(name.removeprefix("operand ").replace(" ", "_").replace(".", "_"), first)
        )
        for operand in instruction.inputs
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
        for first in (operand.kind.first.get(part, 0),)
    }
    return MACHINE.step(instruction, state, parts)


def exited(outcome: Outcome[VmxIa32]) -> VmxIa32:
    """The state of a VM exit."""
    assert isinstance(outcome, Trap)
    assert outcome.vector is VM_EXIT
    assert outcome.error_code is not None
    assert int(outcome.state.exit_reason) == int(outcome.error_code)
    return outcome.state


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("CPUID", 10), ("INVD", 13), ("VMCALL", 18), ("VMCLEAR m64", 19), ("VMLAUNCH", 20), ("VMPTRLD m64", 21),
        ("VMPTRST m64", 22), ("VMREAD r32, r32", 23), ("VMRESUME", 24), ("VMWRITE r32, r32", 25), ("VMXOFF", 26),
        ("VMXON m64", 27), ("INVEPT r32, m128", 50), ("INVVPID r32, m128", 53),
    ],
)  # fmt: skip
def test_some_instructions_always_exit(form: str, reason: int) -> None:
    assert int(exited(step(form, guest())).exit_reason) == reason


def test_outside_non_root_operation_nothing_exits() -> None:
    state = guest(non_root=0, exception_bitmap=0xFFFFFFFF, primary=0xFFFFFFFF, secondary=0xFFFFFFFF)
    for form in ("CPUID", "HLT", "INVD", "MOV CR3, r32", "MOV r32, DR0", "RDTSC", "SGDT m", "IN AL, imm8"):
        assert isinstance(step(form, state), Next), form


CONDITIONAL = [
    ("HLT", "primary.hlt_exiting", 12),
    ("INVLPG m", "primary.invlpg_exiting", 14),
    ("RDPMC", "primary.rdpmc_exiting", 15),
    ("RDTSC", "primary.rdtsc_exiting", 16),
    ("MOV CR3, r32", "primary.cr3_load_exiting", 28),
    ("MOV r32, CR3", "primary.cr3_store_exiting", 28),
    ("MOV DR7, r32", "primary.mov_dr_exiting", 29),
    ("IN AL, imm8", "primary.unconditional_io_exiting", 30),
    ("MWAIT", "primary.mwait_exiting", 36),
    ("MONITOR seg", "primary.monitor_exiting", 39),
    ("PAUSE", "primary.pause_exiting", 40),
    ("LGDT m16&32", "secondary.descriptor_table_exiting", 46),
    ("STR r16", "secondary.descriptor_table_exiting", 47),
    ("WBINVD", "secondary.wbinvd_exiting", 54),
    ("RDRAND r32", "secondary.rdrand_exiting", 57),
    ("RDSEED r32", "secondary.rdseed_exiting", 61),
]


@pytest.mark.parametrize(("form", "control", "reason"), CONDITIONAL)
def test_a_control_decides(form: str, control: str, reason: int) -> None:
    off = guest().with_changes(SECONDARY)
    assert isinstance(step(form, off), Next)
    state = exited(step(form, off.with_changes({control: 1}), length=3))
    assert int(state.exit_reason) == reason
    assert int(state.exit_instruction_length) == 3


@pytest.mark.parametrize(
    ("form", "control", "reason"), [c for c in CONDITIONAL if c[1].startswith("secondary")]
)
def test_secondary_controls_count_only_where_they_are_activated(form: str, control: str, reason: int) -> None:
    assert isinstance(step(form, guest().with_changes({control: 1})), Next)


def test_an_exit_leaves_the_guest_where_it_was() -> None:
    before = guest(primary__hlt_exiting=1, shadow__sti=1, eip=0x1234)
    state = exited(step("HLT", before))
    for name, word in before.words().items():
        if name not in EXIT_INFORMATION:
            assert state[name].value == word.value, name


# -- exit qualification and instruction information --------------------------------------------------


@pytest.mark.parametrize(
    ("form", "operands", "changes", "qualification"),
    [
        ("MOV CR3, r32", {"r32": 6}, {"primary.cr3_load_exiting": 1}, 0x603),
        ("MOV r32, CR3", {"r32": 1}, {"primary.cr3_store_exiting": 1}, 0x113),
        ("MOV CR0, r32", {"r32": 2}, {"cr0_mask": 1, "cr0_shadow": 1}, 0x200),
        ("MOV CR4, r32", {"r32": 7}, {"cr4_mask": 0x2000, "cr4_shadow": 0x2000}, 0x704),
        ("CLTS", {}, {"cr0_mask": 8, "cr0_shadow": 8}, 0x20),
        ("LMSW r16", {"r16": 3}, {"ebx": 0x1234A, "cr0_mask": 2}, 0x234A0030),
        ("MOV DR7, r32", {"r32": 5}, {"primary.mov_dr_exiting": 1}, 0x507),
        ("MOV r32, DR4", {"r32": 4}, {"primary.mov_dr_exiting": 1}, 0x414),
        ("IN AL, imm8", {"imm8": 0x60}, {"primary.unconditional_io_exiting": 1}, 0x600048),
        ("OUT DX, EAX", {}, {"edx": 0xCF8, "primary.unconditional_io_exiting": 1}, 0xCF80003),
        ("INSW", {}, {"edx": 0x1F0, "primary.unconditional_io_exiting": 1}, 0x1F00019),
        ("INVLPG m", {"m_offset": 0x5000}, {"ds.base": 0x100, "primary.invlpg_exiting": 1}, 0x5100),
    ],
)  # fmt: skip
def test_exit_qualification(
    form: str, operands: dict[str, int], changes: dict[str, int], qualification: int
) -> None:
    assert (
        int(exited(step(form, guest().with_changes(changes), **operands)).exit_qualification) == qualification
    )


def test_instruction_information_names_register_segment_and_instruction() -> None:
    tables = guest(secondary__descriptor_table_exiting=1).with_changes(SECONDARY)
    # SIDT of fs:[...]: no index and no base, segment 4, 32-bit addresses, identity 1.
    memory = exited(step("SIDT m", tables, m_segment=4, m_offset=0x10))
    assert int(memory.exit_instruction_info) == 1 << 28 | 1 << 27 | 1 << 22 | 4 << 15 | 1 << 11 | 1 << 7
    assert int(memory.exit_qualification) == 0x10
    # LTR of BX: a register operand.
    register = exited(step("LTR r16", tables, r16=3))
    assert int(register.exit_instruction_info) & 0x30000478 == 3 << 28 | 1 << 10 | 3 << 3


SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


def sixteen_bits(mode: str) -> dict[str, int]:
    """What makes the code of `guest` one of 16 bits."""
    if mode == "protected":
        return {"cs.rights": 0x9B}
    rights = 0xF3 if mode == "virtual-8086" else 0xC093 if "D left" in mode else 0x93
    changes = {f"{name}.rights": rights for name in SEGMENTS} | {f"{name}.limit": 0xFFFF for name in SEGMENTS}
    changes |= {
        f"{name}.{part}": value
        for name in SEGMENTS
        for part, value in (("selector", 0x200), ("base", 0x2000))
    }
    if mode == "virtual-8086":
        return changes | {"eflags": 1 << 17 | 2}
    return changes | {"cr0": 0x30, "secondary.unrestricted_guest": 1}


@pytest.mark.parametrize("mode", ["real", "real, D left from protected mode", "virtual-8086", "protected"])
def test_code_of_16_bits_has_addresses_and_operands_of_16_bits(mode: str) -> None:
    tables = {"secondary.descriptor_table_exiting": 1, **SECONDARY}
    state = guest().with_changes({**tables, **sixteen_bits(mode)})
    for form, identity in (("SGDT m", 0), ("SIDT m", 1)):
        near = exited(step(form, state, m_segment=3, m_offset=0x10))
        assert int(near.exit_instruction_info) == identity << 28 | 1 << 27 | 1 << 22 | 3 << 15, form
        # Only an address of 32 bits reaches this.
        far = exited(step(form, state, m_segment=3, m_offset=0x10000))
        assert int(far.exit_instruction_info) & 0xF80 == 1 << 7, form


def test_random_numbers_tell_their_operand_size() -> None:
    state = guest(secondary__rdrand_exiting=1).with_changes(SECONDARY)
    for form, size in (("RDRAND r16", 0), ("RDRAND r32", 1)):
        register = form.rpartition(" ")[2]
        information = int(exited(step(form, state, **{register: 6})).exit_instruction_info)
        assert information & 0x1878 == size << 11 | 6 << 3, form


def test_strings_tell_the_address_and_the_segment() -> None:
    state = guest(primary__unconditional_io_exiting=1, esi=0x40, gs__base=0x1000)
    found = exited(step("OUTSB seg", state, seg=5))
    assert int(found.exit_linear_address) == 0x1040
    assert int(found.exit_instruction_info) == 5 << 15 | 1 << 7


# -- bitmaps, masks, targets -------------------------------------------------------------------------


def test_a_bit_of_the_io_bitmap_per_port() -> None:
    state = guest(primary__use_io_bitmaps=1, primary__unconditional_io_exiting=1)
    state.io_bitmap = state.io_bitmap.store(Word(16, 0x61), Word(1, 1))
    assert isinstance(step("IN AL, imm8", state, imm8=0x60), Next)
    assert int(exited(step("IN AL, imm8", state, imm8=0x61)).exit_reason) == 30
    assert int(exited(step("IN AX, imm8", state, imm8=0x60)).exit_reason) == 30


def test_an_access_that_wraps_around_exits() -> None:
    state = guest(primary__use_io_bitmaps=1, edx=0xFFFE)
    assert isinstance(step("IN AX, DX", state), Next)
    assert int(exited(step("IN EAX, DX", state)).exit_reason) == 30


@pytest.mark.parametrize(("number", "place"), [(0x174, 0x174), (0xC0000080, 1 << 13 | 0x80)])
def test_bits_of_the_msr_bitmap_by_range_and_direction(number: int, place: int) -> None:
    state = guest(primary__use_msr_bitmaps=1, ecx=number)
    assert isinstance(step("RDMSR", state), Next)
    state.msr_bitmap = state.msr_bitmap.store(Word(15, place), Word(1, 1))
    assert int(exited(step("RDMSR", state)).exit_reason) == 31
    assert isinstance(step("WRMSR", state), Next)
    state.msr_bitmap = state.msr_bitmap.store(Word(15, 1 << 14 | place), Word(1, 1))
    assert int(exited(step("WRMSR", state)).exit_reason) == 32


# -- MSRs that do not exit ---------------------------------------------------------------------------

PASSED = {"primary__use_msr_bitmaps": 1}
READ_ONLY = (0x17, 0xFE, 0x179, *range(0x480, 0x48B))


@pytest.mark.parametrize("number", READ_ONLY)
def test_capabilities_are_read_and_never_written(number: int) -> None:
    """Every processor with VMX has them."""
    state = guest(ecx=number, **PASSED)
    state.msr = state.msr.store(Word(32, number), Word(64, 0x00DA_0400_0000_0011))
    read = step("RDMSR", state)
    assert isinstance(read, Next)
    assert (int(read.state.gpr[0]), int(read.state.gpr[2])) == (0x11, 0x00DA_0400)
    assert raised(step("WRMSR", state)) == "#GP(0)"


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0x277, 2), (0x2FF, 0x99), (0x48, 1 << 40), (0x6E1, 1 << 32), (0xDA0, 1 << 62), (0x6A0, 0x3C0), (0x49, 2),
        (0x48B, 0), (0x491, 0), (0x200, 2), (0x201, 1), (0x401, 1), (0x38E, 0), (0xD90, 1 << 62), (0xC0000103, 1 << 32),
    ],
)  # fmt: skip
def test_what_no_processor_takes_faults(number: int, value: int) -> None:
    state = guest(ecx=number, eax=value & 0xFFFFFFFF, edx=value >> 32, **PASSED)
    assert raised(step("WRMSR", state)) == "#GP(0)"


@pytest.mark.parametrize("number", [0x48, 0x48B, 0x6E1, 0xDA0, 0xCE, 0x1234, 0xC0001234])
def test_what_is_up_to_the_processor_is_named_and_not_guessed(number: int) -> None:
    state = guest(ecx=number, **PASSED)
    for form in ("RDMSR",) if number == 0x48B else ("RDMSR", "WRMSR"):
        outcome = step(form, state)
        assert isinstance(outcome, NotModelled)
        assert f"{number:X}H" in outcome.reason
    # A state that chooses: such a register, or none.
    for chosen, seen in ((1, None), (0, "#GP(0)")):
        asked = state.with_undefined({"undefined of an MSR, whether the processor has it": chosen})
        assert raised(step("RDMSR", asked)) == seen


def test_commands_are_not_read_and_the_x2apic_needs_its_mode() -> None:
    for number in (0x49, 0x10B, 0x802):
        assert raised(step("RDMSR", guest(ecx=number, **PASSED))) == "#GP(0)"
    state = guest(ecx=0x802, **PASSED)
    state.msr = state.msr.store(Word(32, 0x1B), Word(64, 0xFEE00C00))
    assert isinstance(step("RDMSR", state), NotModelled)


def raised(outcome: Outcome[VmxIa32]) -> str | None:
    """The exception; None where the instruction completes."""
    if isinstance(outcome, Next):
        return None
    assert isinstance(outcome, Trap)
    code = "" if outcome.error_code is None else f"({int(outcome.error_code)})"
    return f"{outcome.vector}{code}"


def test_msrs_outside_the_bitmap_and_without_bitmaps_exit() -> None:
    assert int(exited(step("RDMSR", guest(primary__use_msr_bitmaps=1, ecx=0x2000))).exit_reason) == 31
    assert int(exited(step("WRMSR", guest(ecx=0x174))).exit_reason) == 32


def test_shadowing_spares_the_exits_of_the_fields_that_its_bitmaps_let_through() -> None:
    on = guest(secondary__vmcs_shadowing=1, eax=0x4402, ecx=0x14402).with_changes(SECONDARY)
    for form, bitmap, operands in (
        ("VMREAD r32, r32", "vmread_bitmap", {"r32": 3, "r32_2": 0}),
        ("VMWRITE r32, r32", "vmwrite_bitmap", {"r32": 0, "r32_2": 3}),
    ):
        assert isinstance(step(form, on, **operands), NotModelled)  # the shadow VMCS is not in the model
        marked = on.copy()
        setattr(marked, bitmap, marked.memories()[bitmap].store(Word(15, 0x4402), Word(1, 1)))
        assert int(exited(step(form, marked, **operands)).exit_reason) in (23, 25)
        beyond = {name: 1 if number == 0 else number for name, number in operands.items()}
        assert int(exited(step(form, on, **beyond)).exit_reason) in (
            23,
            25,
        )  # an encoding of more than 15 bits
        off = on.with_changes({"secondary.vmcs_shadowing": 0})
        assert int(exited(step(form, off, **operands)).exit_reason) in (23, 25)
        level = {"cs.selector": 0x1B, "ss.selector": 0x23, "cs.rights": 0xC0FB, "ss.rights": 0xC0F3}
        outcome = step(form, on.with_changes(level), **operands)
        assert isinstance(outcome, Trap)
        assert outcome.vector.name == "#GP"  # after the exit, that there is none of


@pytest.mark.parametrize(
    ("eax", "ecx", "enabled", "controls", "outcome"),
    [
        (0, 0, 0, 1, "#UD"), (64, 0, 1, 1, "#UD"), (0, 0, 1, 0, "VM exit"), (63, 0, 1, 1, "VM exit"),
        (0, 512, 1, 1, "VM exit"), (0, 1 << 31, 1, 1, "VM exit"), (0, 511, 1, 1, "not modelled"),
    ],
)  # fmt: skip
def test_vm_functions(eax: int, ecx: int, enabled: int, controls: int, outcome: str) -> None:
    state = guest(eax=eax, ecx=ecx, secondary__enable_vm_functions=enabled, vm_function_controls=controls)
    found = step("VMFUNC", state.with_changes(SECONDARY))
    if isinstance(found, NotModelled):
        assert outcome == "not modelled"
        return
    assert isinstance(found, Trap)
    assert found.vector.name == outcome
    if outcome == "VM exit":
        assert int(found.state.exit_reason) == 59


def test_read_shadows_stand_for_the_bits_that_the_host_owns() -> None:
    state = guest(cr0_mask=0xFFFF0000, cr0_shadow=0x60000000, cr4_mask=0x2000)
    for form, expected in (("MOV r32, CR0", 0x60000031), ("MOV r32, CR4", 0), ("SMSW r32", 0x60000031)):
        outcome = step(form, state)
        assert isinstance(outcome, Next)
        assert int(outcome.state.gpr[0]) == expected


def test_what_the_host_owns_stays_when_the_guest_writes_what_it_sees() -> None:
    outcome = step("MOV CR0, r32", guest(cr0_mask=0x80000021, cr0_shadow=1, eax=0x13))
    assert isinstance(outcome, Next)
    assert int(outcome.state.cr0.value) == 0x80000033  # MP was the guest's; PG and NE stay


def test_bits_that_vmx_fixes_give_gp_unless_the_guest_is_unrestricted() -> None:
    trapped = step("MOV CR0, r32", guest(eax=0x31))
    assert isinstance(trapped, Trap)
    assert trapped.vector.name == "#GP"
    free = guest(eax=0x31, secondary__unrestricted_guest=1).with_changes(SECONDARY)
    outcome = step("MOV CR0, r32", free)
    assert isinstance(outcome, Next)
    assert int(outcome.state.cr0.pg) == 0
    assert isinstance(step("MOV CR4, r32", guest(eax=0)), Trap)


def test_cr3_targets_spare_the_exit() -> None:
    state = guest(primary__cr3_load_exiting=1, cr3_target_count=1, cr3_target0=0x5000, eax=0x5000)
    outcome = step("MOV CR3, r32", state)
    assert isinstance(outcome, Next)
    assert int(outcome.state.cr3) == 0x5000
    assert int(exited(step("MOV CR3, r32", state.with_changes({"cr3_target_count": 0}))).exit_reason) == 28


def test_lmsw_never_exits_for_clearing_pe() -> None:
    assert isinstance(step("LMSW r16", guest(cr0_mask=1, cr0_shadow=1, eax=0)), Next)
    assert int(exited(step("LMSW r16", guest(cr0_mask=1, cr0_shadow=0, eax=1))).exit_reason) == 28


def test_clts_leaves_a_bit_that_the_host_owns_and_shows_clear() -> None:
    outcome = step("CLTS", guest(cr0=0x80000039, cr0_mask=8, cr0_shadow=0))
    assert isinstance(outcome, Next)
    assert int(outcome.state.cr0.ts) == 1


def test_the_tsc_is_scaled_and_offset() -> None:
    state = guest(
        tsc=1000, tsc_offset=(1 << 64) - 400, primary__use_tsc_offsetting=1, tsc_multiplier=3 << 47
    ).with_changes(SECONDARY)
    plain, scaled = step("RDTSC", state), step("RDTSC", state.with_changes({"secondary.use_tsc_scaling": 1}))
    assert isinstance(plain, Next)
    assert isinstance(scaled, Next)
    assert (int(plain.state.gpr[0]), int(scaled.state.gpr[0])) == (600, 1100)


# -- priority ------------------------------------------------------------------------------------------


def user(**changes: int) -> VmxIa32:
    """The same at CPL 3."""
    level = {"cs__selector": 0x1B, "ss__selector": 0x23, "cs__rights": 0xC0FB, "ss__rights": 0xC0F3}
    return guest(**level, **changes)


EVERY = {"primary": 0xFFFFFFFF & ~(1 << 17), "secondary": 0xFFFFFFFF}


@pytest.mark.parametrize(
    "form", ["HLT", "RDMSR", "MOV CR3, r32", "INVLPG m", "LGDT m16&32", "WBINVD", "CLTS", "INVD"]
)
def test_faults_by_privilege_come_before_the_exit(form: str) -> None:
    outcome = step(form, user().with_changes(EVERY))
    assert isinstance(outcome, Trap)
    assert outcome.vector.name == "#GP"


def test_mov_dr_exits_before_the_check_of_privilege_and_of_de() -> None:
    assert int(exited(step("MOV r32, DR4", user(cr4=0x2008).with_changes(EVERY))).exit_reason) == 29


def test_vmx_instructions_exit_before_the_check_of_privilege() -> None:
    assert int(exited(step("VMCALL", user())).exit_reason) == 18
    assert int(exited(step("VMREAD r32, r32", user())).exit_reason) == 23


def test_io_permission_comes_before_the_exit_and_the_segment_after_it() -> None:
    denied = step("IN AL, imm8", user(primary__unconditional_io_exiting=1, tr__limit=0x50))
    assert isinstance(denied, Trap)
    assert denied.vector.name == "#GP"
    null = guest(es__rights=0x10000, primary__unconditional_io_exiting=1)
    assert int(exited(step("INSB", null)).exit_reason) == 30


def test_an_msr_that_does_not_exist_exits_rather_than_faults() -> None:
    assert int(exited(step("RDMSR", guest(ecx=0xDEAD))).exit_reason) == 31


def test_an_operand_that_decides_is_fetched_first() -> None:
    outcome = step("LMSW m16", guest(ds__rights=0x10000, cr0_mask=0xF, cr0_shadow=0))
    assert isinstance(outcome, Trap)
    assert outcome.vector.name == "#GP"


@pytest.mark.parametrize(
    ("form", "control"),
    [("RDTSCP", "enable_rdtscp"), ("INVPCID r32, m128", "enable_invpcid"), ("RDPID r32", "enable_rdtscp")],
)
def test_instructions_that_a_control_enables_are_undefined_without_it(form: str, control: str) -> None:
    outcome = step(form, guest())
    assert isinstance(outcome, Trap)
    assert outcome.vector.name == "#UD"
    assert isinstance(step(form, guest().with_changes({**SECONDARY, f"secondary.{control}": 1})), Next)


# -- exceptions and task switches ----------------------------------------------------------------------


def test_the_exception_bitmap_makes_faults_exit() -> None:
    state = exited(step("HLT", user(exception_bitmap=1 << 13)))
    assert int(state.exit_reason) == 0
    assert int(state.exit_interruption_info) == 0x80000B0D
    assert int(state.exit_interruption_error) == 0


@pytest.mark.parametrize(
    ("bit", "match", "exits"), [(1, 4, True), (0, 4, False), (1, 5, False), (0, 5, True)]
)
def test_page_faults_exit_by_mask_and_match(bit: int, match: int, exits: bool) -> None:
    state = user(
        exception_bitmap=bit << 14, page_fault_mask=4, page_fault_match=match & ~1 if match == 4 else 0
    ).with_changes({"reserved.base": 0x9000, "reserved.size": 0x1000})
    outcome = step("MOV r32, m32", state, m32_offset=0x9000)
    assert isinstance(outcome, Trap)
    assert (outcome.vector is VM_EXIT) == exits


@pytest.mark.parametrize(("form", "vector", "kind"), [("INT3", 3, 6), ("INTO", 4, 6), ("INT1", 1, 5)])
def test_software_exceptions_exit_and_int_n_does_not(form: str, vector: int, kind: int) -> None:
    state = guest(exception_bitmap=0xFFFFFFFF, eflags=0x802, idtr__limit=0)
    found = exited(step(form, state, length=2))
    assert int(found.exit_interruption_info) == 1 << 31 | kind << 8 | vector
    assert int(found.exit_instruction_length) == 2
    # INT n is no exception; the #GP of its empty IDT is one.
    other = exited(step("INT imm8", state, imm8=vector))
    assert int(other.exit_interruption_info) & 0x7FF == 0x30D


def _with_descriptor(state: VmxIa32, selector: int, low: int, high: int) -> VmxIa32:
    table = state.copy()
    table.memory = table.memory.store_little_endian(Word(32, 0x800 + selector), Word(64, high << 32 | low))
    return table.with_changes({"gdtr.base": 0x800})


@pytest.mark.parametrize(("kind", "rights"), [("jmp", 0x89), ("call", 0x89)])
def test_task_switches_exit_with_selector_and_source(kind: str, rights: int) -> None:
    state = _with_descriptor(guest(), 0x40, 0x67, rights << 8)
    found = exited(step(f"{kind.upper()} ptr16:32", state, **{"ptr16:32_selector": 0x40}))
    assert int(found.exit_reason) == 9
    assert int(found.exit_qualification) == {"call": 0, "jmp": 2}[kind] << 30 | 0x40


def test_a_tss_that_is_too_short_faults_before_the_exit() -> None:
    state = _with_descriptor(guest(), 0x40, 0x66, 0x8900)
    outcome: Any = step("JMP ptr16:32", state, **{"ptr16:32_selector": 0x40})
    assert (outcome.vector.name, int(outcome.error_code)) == ("#TS", 0x40)


def test_iret_keeps_blocking_by_nmi_only_where_nmis_exit_and_are_not_virtual() -> None:
    stack = guest(nmi_blocked=1, esp=0x8000)
    stack.memory = stack.memory.store_little_endian(Word(32, 0x8000), Word(96, 2 << 64 | 0x08 << 32 | 0x1000))
    stack = _with_descriptor(stack, 0x08, 0xFFFF, 0x00CF9B00)
    for pin, blocked in ((0, 0), (8, 1), (0x28, 0)):
        outcome = step("IRETD", stack.with_changes({"pin": pin}))
        assert isinstance(outcome, Next)
        assert int(outcome.state.nmi_blocked) == blocked


@pytest.mark.parametrize(("pin", "unblocked"), [(0, 1), (0x28, 1), (8, 0)])
def test_an_iret_that_faults_has_unblocked_nmis_and_says_so(pin: int, unblocked: int) -> None:
    state = guest(nmi_blocked=1, esp=0x8000, ss__limit=0x100, exception_bitmap=1 << 12).with_changes(
        {"pin": pin}
    )
    found = exited(step("IRETD", state))
    assert int(found.exit_interruption_info) == 0x80000B0C | unblocked << 12
    assert int(found.nmi_blocked) == 1 - unblocked
    plain = exited(step("IRETD", state.with_changes({"nmi_blocked": 0})))
    assert (int(plain.exit_interruption_info), int(plain.nmi_blocked)) == (0x80000B0C, 0)
    other = exited(step("RET", state))  # no other instruction does
    assert (int(other.exit_interruption_info), int(other.nmi_blocked)) == (0x80000B0C, 1)


# -- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "kind"), [("pin", PinControls), ("primary", PrimaryControls), ("secondary", SecondaryControls)]
)
def test_controls_have_the_names_and_bits_of_the_facts(word: str, kind: Any) -> None:
    facts = {row["id"].lower(): int(row["bit"]) for row in rows("controls.csv") if row["control"] == word}
    for name, bits in kind.fields():
        assert facts[name] == bits.low == bits.high, name
