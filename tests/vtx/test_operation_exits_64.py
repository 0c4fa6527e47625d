"""VM exits of a 64-bit guest on numbers: reason, qualification, information, and what comes before the exit.

Expected values are the manual's (SDM vol. 3C, "VM-Exit Information Fields" with its tables of formats, "VMX Non-Root
Operation").
"""

from __future__ import annotations

import pytest

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.machine import build_64
from popek.architectures.vtx.operation.state import VmxX64
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word

MACHINE = build_64()
USER = {
    "cs.selector": 0x3B, "ss.selector": 0x43, "cs.rights": 0xA0FB, "ss.rights": 0xC0F3,
}  # fmt: skip
COMPATIBLE = {"cs.rights": 0xC09B}


def guest(**changes: int) -> VmxX64:
    """A guest's kernel in 64-bit mode and non-root operation."""
    plain = VmxX64.reset(cr0__ne=1, cr4__vmxe=1, non_root=1).with_changes({"primary": 0})
    return plain.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def step(form: str, state: VmxX64, **operands: int) -> Outcome[VmxX64]:
    """Run a form of three bytes; operands by name, spaces and dots as underscores."""
    assert MACHINE.invariant(state).value == 1
    instruction = MACHINE.instructions[form]
    given = {"length": 3, **operands}
    parts = {
        name: Word(width, given.get(name.removeprefix("operand ").replace(" ", "_").replace(".", "_"), first))
        for operand in instruction.inputs
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
        for first in (operand.kind.first.get(part, 0),)
    }
    return MACHINE.step(instruction, state, parts)


def exited(outcome: Outcome[VmxX64]) -> VmxX64:
    """The state of a VM exit."""
    assert isinstance(outcome, Trap)
    assert outcome.vector is VM_EXIT
    return outcome.state


def faulted(outcome: Outcome[VmxX64]) -> str:
    assert isinstance(outcome, Trap)
    return outcome.vector.name


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("CPUID", 10), ("INVD", 13), ("VMCALL", 18), ("VMCLEAR m64", 19), ("VMLAUNCH", 20), ("VMPTRLD m64", 21),
        ("VMPTRST m64", 22), ("VMREAD r64, r64", 23), ("VMRESUME", 24), ("VMWRITE r64, r64", 25), ("VMXOFF", 26),
        ("VMXON m64", 27), ("INVEPT r64, m128", 50), ("INVVPID r64, m128", 53), ("XSETBV", 55), ("RDMSR", 31),
        ("WRMSR", 32),
    ],
)  # fmt: skip
def test_these_exit_whatever_the_controls_are(form: str, reason: int) -> None:
    after = exited(step(form, guest(cr4__osxsave=1)))
    assert (int(after.exit_reason), int(after.exit_instruction_length), int(after.rip)) == (reason, 3, 0x1000)


@pytest.mark.parametrize(
    ("form", "control", "reason", "qualification"),
    [
        ("HLT", "primary.hlt_exiting", 12, 0),
        ("RDTSC", "primary.rdtsc_exiting", 16, 0),
        ("RDPMC", "primary.rdpmc_exiting", 15, 0),
        ("PAUSE", "primary.pause_exiting", 40, 0),
        ("MONITOR", "primary.monitor_exiting", 39, 0),
        ("WBINVD", "secondary.wbinvd_exiting", 54, 0),
        ("STR r64", "secondary.descriptor_table_exiting", 47, 0),
        # Control register 3, access type 0 (to it) or 1 (from it), general register 9.
        ("MOV CR3, r64", "primary.cr3_load_exiting", 28, 0x903),
        ("MOV r64, CR3", "primary.cr3_store_exiting", 28, 0x913),
        ("MOV CR8, r64", "primary.cr8_load_exiting", 28, 0x908),
        ("MOV r64, CR8", "primary.cr8_store_exiting", 28, 0x918),
        ("MOV r64, DR7", "primary.mov_dr_exiting", 29, 0x917),
        ("MOV DR4, r64", "primary.mov_dr_exiting", 29, 0x904),
    ],
)
def test_a_control_decides(form: str, control: str, reason: int, qualification: int) -> None:
    operands = {"r64": 9}
    off = guest(primary__activate_secondary_controls=1)
    assert isinstance(step(form, off, **operands), Next)
    after = exited(step(form, off.with_changes({control: 1}), **operands))
    assert (int(after.exit_reason), int(after.exit_qualification)) == (reason, qualification)


@pytest.mark.parametrize(("control", "forms"), [
    ("enable_rdtscp", ("RDTSCP", "RDPID r64")), ("enable_invpcid", ("INVPCID r64, m128",)),
    ("enable_xsaves_xrstors", ("XSAVES m", "XRSTORS m")),
])  # fmt: skip
def test_instructions_that_a_control_enables_are_undefined_without_it(
    control: str, forms: tuple[str, ...]
) -> None:
    on = guest(cr4__osxsave=1, primary__activate_secondary_controls=1)
    for form in forms:
        assert faulted(step(form, on)) == "#UD"
        assert isinstance(step(form, on.with_changes({f"secondary.{control}": 1})), Next), form


def test_masks_have_64_bits_and_a_masked_reserved_bit_exits_rather_than_faults() -> None:
    value = 0x1_80000031
    assert faulted(step("MOV CR0, r64", guest(rax=value))) == "#GP"
    after = exited(step("MOV CR0, r64", guest(rax=value, cr0_mask=1 << 32)))
    assert (int(after.exit_reason), int(after.exit_qualification)) == (28, 0)
    shown = step("MOV r64, CR0", guest(cr0_mask=1 << 32 | 1 << 31, cr0_shadow=1 << 32))
    assert isinstance(shown, Next)
    assert int(shown.state["rax"]) == 0x1_00000031
    assert exited(step("MOV CR4, r64", guest(rax=0x3020, cr4_mask=1 << 12))).exit_reason.value == 28  # LA57


def test_a_cr3_target_is_compared_whole() -> None:
    on = guest(primary__cr3_load_exiting=1, cr3_target_count=1, cr3_target0=0x12000, rax=0x12000)
    assert isinstance(step("MOV CR3, r64", on), Next)
    assert (
        exited(step("MOV CR3, r64", on.with_changes({"cr3_target0": 0x1_00012000}))).exit_reason.value == 28
    )


def test_memory_operands_tell_displacement_segment_sizes_and_instruction() -> None:
    on = guest(primary__activate_secondary_controls=1, secondary__descriptor_table_exiting=1, gs__base=0x7000)
    after = exited(step("LIDT m16&64", on, **{"m16&64_offset": 0x1234, "m16&64_segment": 5}))
    # LIDT is 3 in bits 29:28, no index (22), no base (27), GS (17:15), 64-bit addresses (9:7); bit 11 is undefined.
    defined = 3 << 28 | 1 << 27 | 1 << 22 | 7 << 15 | 7 << 7
    assert int(after.exit_instruction_info) & defined == 3 << 28 | 1 << 27 | 1 << 22 | 5 << 15 | 2 << 7
    assert (int(after.exit_reason), int(after.exit_qualification)) == (46, 0x1234)
    after = exited(step("VMREAD r64, r64", guest(), r64=12, r64_2=10))
    assert int(after.exit_instruction_info) & (0xF << 28 | 1 << 10 | 0xF << 3) == 10 << 28 | 1 << 10 | 12 << 3


def test_an_invlpg_tells_the_linear_address_and_of_a_flat_segment_the_offset() -> None:
    on = guest(primary__invlpg_exiting=1, ds__base=0x5000, fs__base=0x7000)
    assert int(exited(step("INVLPG m", on, m_offset=0x10)).exit_qualification) == 0x10
    assert int(exited(step("INVLPG m", on, m_offset=0x10, m_segment=4)).exit_qualification) == 0x7010
    assert (
        int(exited(step("INVLPG m", on.with_changes(COMPATIBLE), m_offset=0x10)).exit_qualification) == 0x5010
    )


def test_port_strings_tell_the_address() -> None:
    on = guest(primary__unconditional_io_exiting=1, rdx=0x3F8, rdi=0x1_00002000)
    after = exited(step("INSW", on))
    assert int(after.exit_qualification) == 0x3F8 << 16 | 1 << 4 | 1 << 3 | 1
    assert int(after.exit_linear_address) == 0x1_00002000
    assert int(after.exit_instruction_info) & 0x380 == 2 << 7


def test_privilege_comes_first_but_for_debug_registers_and_vmx_instructions() -> None:
    low = guest().with_changes({**USER, "primary": (1 << 32) - 1, "primary.use_msr_bitmaps": 0})
    for form in ("HLT", "RDMSR", "WRMSR", "MOV CR3, r64", "MOV CR8, r64", "INVLPG m", "LGDT m16&64"):
        assert faulted(step(form, low)) == "#GP", form
    assert exited(step("MOV r64, DR0", low)).exit_reason.value == 29
    assert exited(step("VMLAUNCH", low)).exit_reason.value == 20


def test_vmx_instructions_are_undefined_in_compatibility_mode_and_vmcall_is_not() -> None:
    compatible = guest().with_changes(COMPATIBLE)
    for form in ("VMLAUNCH", "VMCLEAR m64", "INVEPT r64, m128", "VMREAD r64, r64"):
        assert faulted(step(form, compatible)) == "#UD", form
    assert exited(step("VMCALL", compatible)).exit_reason.value == 18


def test_syscalls_and_swapgs_never_exit() -> None:
    every = guest(
        efer__sce=1, cr4__fsgsbase=1, primary=0xFFFFFFFF, secondary=0xFFFFFFFF, cr0_mask=(1 << 64) - 1
    )
    for form in ("SYSCALL", "SWAPGS", "RDFSBASE r64", "WRGSBASE r64", "SYSRETQ"):
        assert isinstance(step(form, every), Next), form


def test_cr8_is_the_virtual_apic_pages_with_a_tpr_shadow() -> None:
    on = guest(primary__use_tpr_shadow=1, rax=5, cr8=9, tpr_threshold=4)
    written = step("MOV CR8, r64", on)
    assert isinstance(written, Next)
    assert (int(written.state.virtual_apic.load(Word(12, 0x80))), int(written.state.cr8)) == (0x50, 9)
    read = step("MOV r64, CR8", written.state.with_changes({"rip": 0x1000}))
    assert isinstance(read, Next)
    assert int(read.state["rax"]) == 5
    below = exited(step("MOV CR8, r64", on.with_changes({"rax": 3})))
    assert (int(below.exit_reason), int(below.rip)) == (43, 0x1003)  # trap-like
    assert faulted(step("MOV CR8, r64", on.with_changes({"rax": 16}))) == "#GP"


def test_supervisor_state_that_the_bitmap_names_exits_before_the_check_of_ts() -> None:
    on = guest(
        cr4__osxsave=1, primary__activate_secondary_controls=1, secondary__enable_xsaves_xrstors=1, rax=0x800,
        xss=0x800, xss_exiting_bitmap=0x1800, cr0__ts=1,
    )  # fmt: skip
    assert exited(step("XSAVES m", on)).exit_reason.value == 63
    assert exited(step("XRSTORS m", on)).exit_reason.value == 64
    assert faulted(step("XSAVES m", on.with_changes({"xss": 0}))) == "#NM"


def test_faults_exit_by_the_bitmap_and_int_n_tells_of_itself_in_the_vectoring_information() -> None:
    fault = guest(exception_bitmap=1 << 13, idtr__limit=0)
    after = exited(step("INT imm8", fault, imm8=0x80))
    # Valid, type 3 (hardware exception), an error code; valid, type 4 (software interrupt).
    assert int(after.exit_interruption_info) == 1 << 31 | 1 << 11 | 3 << 8 | 13
    assert int(after.exit_interruption_error) == 0x80 << 3 | 2
    assert int(after.exit_idt_vectoring_info) == 1 << 31 | 4 << 8 | 0x80
    assert (
        int(exited(step("INT3", guest(exception_bitmap=1 << 3))).exit_interruption_info)
        == 1 << 31 | 6 << 8 | 3
    )


# -- MSRs that do not exit ---------------------------------------------------------------------------

PASSED = {"primary__use_msr_bitmaps": 1}


def accessed(form: str, number: int, value: int = 0, **changes: int) -> Outcome[VmxX64]:
    """RDMSR or WRMSR of a register that no bitmap names."""
    state = guest(rcx=number, rax=value & 0xFFFFFFFF, rdx=value >> 32, **PASSED, **changes)
    state.other_msrs = state.other_msrs.store(Word(32, number), Word(64, 0x00DA_0400_0000_0011))
    return step(form, state)


@pytest.mark.parametrize("number", [0x17, 0xFE, 0x179, *range(0x480, 0x48B)])
def test_capabilities_are_read_and_never_written(number: int) -> None:
    """Every processor with VMX has them."""
    read = accessed("RDMSR", number)
    assert isinstance(read, Next)
    assert (int(read.state["rax"]), int(read.state["rdx"])) == (0x11, 0x00DA_0400)
    assert faulted(accessed("WRMSR", number)) == "#GP"


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0x3A, 5), (0x48, 1 << 40), (0x1B, 1 << 60), (0x2FF, 0x99), (0xDA0, 1 << 62), (0x6A0, 0x3C0), (0x38E, 0),
        (0x6E1, 1 << 32), (0xD90, 1 << 60), (0x17A, 1), (0x49, 2), (0x803, 0), (0xC0000082, 1 << 47), (0x277, 2),
    ],
)  # fmt: skip
def test_what_no_processor_takes_faults(number: int, value: int) -> None:
    assert faulted(accessed("WRMSR", number, value)) == "#GP"


@pytest.mark.parametrize("number", [0x48, 0x48B, 0x6E1, 0xDA0, 0xCE, 0x1234, 0xC0001234])
def test_what_is_up_to_the_processor_is_named_and_not_guessed(number: int) -> None:
    for form in ("RDMSR",) if number == 0x48B else ("RDMSR", "WRMSR"):
        outcome = accessed(form, number)
        assert isinstance(outcome, NotModelled)
        assert f"{number:X}H" in outcome.reason


def test_a_register_that_is_no_component_keeps_what_is_written() -> None:
    """By a processor that has it, and takes the value; IA32_XSS is a component, which XSAVES looks at."""
    takes = {
        "undefined of an MSR, what WRMSR does": 1,
        "undefined of an MSR, whether the processor has it": 1,
    }
    for number in (0xCE, 0xDA0):
        state = guest(rcx=number, rax=0x800, rdx=0, **PASSED).with_undefined(takes)
        written = step("WRMSR", state)
        assert isinstance(written, Next)
        read = step("RDMSR", written.state.with_changes({"rip": 0x1000, "rax": 0}))
        assert isinstance(read, Next)
        assert (int(read.state["rax"]), int(written.state.xss)) == (0x800, 0x800 if number == 0xDA0 else 0)


def test_a_register_of_the_model_is_stored_once() -> None:
    """WRMSR of IA32_LSTAR changes nothing of the other registers."""
    before = guest(rcx=0xC0000082, rax=0x1000, **PASSED)
    written = step("WRMSR", before)
    assert isinstance(written, Next)
    assert int(written.state["msr.lstar"]) == 0x1000
    assert int(written.state.other_msrs.load(Word(32, 0xC0000082))) == 0
