"""Guest mode of x86-64 with SVM, and a hypervisor inside a hypervisor (AMD64 APM vol. 2, chapter 15)."""

from __future__ import annotations

import json
from typing import Final

import pytest

from popek.architectures.svm.operation.assistance import SVM, SVM_64, governed_forms_64
from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.machine import build_64
from popek.architectures.svm.operation.state import SvmX64
from popek.assistance.desk import desk_of
from popek.assistance.merging import directions, merged, rules
from popek.assistance.needs import derive
from popek.cli import assist
from popek.cli.assist_merge import merge
from popek.cli.errors import UserError
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

MACHINE: Final = build_64()
LENGTH: Final = 4

ALONE: Final = (
    ("RDTSC", "vector3.rdtsc", 0x6E),
    ("PUSHFQ", "vector3.pushf", 0x70),
    ("POPFQ", "vector3.popf", 0x71),
    ("IRETQ", "vector3.iret", 0x74),
    ("INT imm8", "vector3.intn", 0x75),
    ("INT1", "vector4.icebp", 0x88),
    ("XSETBV", "vector4.xsetbv", 0x8D),
    ("MONITOR", "vector4.monitor", 0x8A),
    ("MWAIT", "vector4.mwait", 0x8B),
    ("RDPMC", "vector3.rdpmc", 0x6F),
    ("LMSW r16", "cr_write.cr0", 0x10),
    ("MOV r64, CR8", "cr_read.cr8", 0x08),
    ("MOV CR8, r64", "cr_write.cr8", 0x18),
    ("MOV CR0, r64", "cr_write.cr0", 0x10),
    ("MOV CR2, r64", "cr_write.cr2", 0x12),
    ("MOV CR3, r64", "cr_write.cr3", 0x13),
    ("MOV r64, DR7", "dr_read.dr7", 0x27),
    ("MOV DR0, r64", "dr_write.dr0", 0x30),
    ("VMMCALL", "vector4.vmmcall", 0x81),
    ("VMSAVE", "vector4.vmsave", 0x83),
    ("CLGI", "vector4.clgi", 0x85),
    ("INVLPGA", "vector3.invlpga", 0x7A),
    ("SGDT m", "vector3.gdtr_read", 0x67),
)
EARLY: Final = ("PUSHFQ", "POPFQ", "IRETQ", "INT imm8", "INT1", "XSETBV", "VMMCALL")
OPEN: Final = ("RDTSC", "SGDT m")


def guest(**changes: int) -> SvmX64:
    state = SvmX64.reset(guest_mode=1, enabled=1, cr4=0x40020)
    return state.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def run(form: str, state: SvmX64, **operands: int) -> Outcome[SvmX64]:
    instruction = MACHINE.instructions[form]
    given = {name.replace("_", " "): value for name, value in operands.items()}
    parts = {
        name: Word(
            width, given.get(name, LENGTH if name == "operand length" else operand.kind.first.get(part, 0))
        )
        for operand in instruction.inputs
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
    }
    outcome: Outcome[SvmX64] = MACHINE.step(instruction, state, parts)
    return outcome


def code(outcome: Outcome[SvmX64]) -> int | None:
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        return int(outcome.state.exit_code)
    return None


def vector(outcome: Outcome[SvmX64]) -> str:
    assert isinstance(outcome, Trap)
    return outcome.vector.name


@pytest.mark.parametrize(("form", "control", "expected"), ALONE, ids=[form for form, _, _ in ALONE])
def test_each_intercept_alone_decides_and_has_its_place(form: str, control: str, expected: int) -> None:
    source = {"operand_r64": 1} if form.startswith("MOV CR") else {}  # RCX
    state = guest(rcx=0x80000031) if form == "MOV CR0, r64" else guest()
    assert code(run(form, state, **source)) is None
    intercepted = state.with_changes({control: 1})
    found = run(form, intercepted, **source)
    assert code(found) == expected
    assert isinstance(found, Trap)
    assert (int(found.state.rip), int(found.state.exit_next_rip)) == (int(state.rip), int(state.rip) + LENGTH)
    levels = {f"{name}.{part}": 3 for name in ("cs", "ss") for part in ("selector.rpl", "rights.dpl")}
    above = run(form, intercepted.with_changes(levels), **source)
    if form in (*EARLY, *OPEN):
        assert code(above) == expected
    else:
        assert vector(above) in ("#GP", "#UD")


def test_reserved_bits_of_cr8_fault_first() -> None:
    assert vector(run("MOV CR8, r64", guest(cr_write__cr8=1, rcx=0x10), operand_r64=1)) == "#GP"
    assert vector(run("MOV DR7, r64", guest(dr_write__dr7=1, rcx=1 << 32), operand_r64=1)) == "#GP"


def test_mov_cr8_works_on_the_virtual_task_priority() -> None:
    for masking, expected in ((0, (5, 3)), (1, (9, 5))):
        found = run(
            "MOV CR8, r64", guest(enables__v_intr_masking=masking, rcx=5, cr8=9, v_tpr=3), operand_r64=1
        )
        assert isinstance(found, Next)
        assert (int(found.state.cr8), int(found.state.v_tpr)) == expected
    found = run("MOV r64, CR8", guest(enables__v_intr_masking=1, cr8=9, v_tpr=3), operand_r64=2)
    assert isinstance(found, Next)
    assert int(found.state.gpr[2]) == 3


def test_what_a_port_and_a_page_tell() -> None:
    state = guest(vector3__ioio_prot=1, rdx=0x60, full_maps__iopm=1)
    found = run("INSB", state)
    assert isinstance(found, Trap)
    assert int(found.state.exit_info1) == 0x60 << 16 | 0x215  # 64-bit addresses
    assert int(found.state.exit_info2) == int(state.rip) + LENGTH


def test_efer_shows_svme() -> None:
    found = run("RDMSR", guest(rcx=0xC0000080))
    assert isinstance(found, Next)
    assert int(found.state.gpr[0]) >> 12 & 1 == 1
    cleared = run("WRMSR", guest(rcx=0xC0000080, rax=0x500))
    assert isinstance(cleared, Next)
    assert int(cleared.state.enabled) == 0
    kept = run("WRMSR", guest(rcx=0xC0000080, rax=0x1501))
    assert isinstance(kept, Next)
    assert (int(kept.state.enabled), int(kept.state.efer.sce), int(kept.state.gpr[0])) == (1, 1, 0x1501)


def test_vmsave_and_vmload_move_the_registers_of_system_calls() -> None:
    names = ("msr.star", "msr.lstar", "msr.kernel_gs_base", "msr.sysenter_eip", "gs.base")
    state = guest(rax=0x1000, **{name.replace(".", "__"): 0x1234 + n for n, name in enumerate(names)})
    saved = run("VMSAVE", state)
    assert isinstance(saved, Next)
    loaded = run("VMLOAD", saved.state.with_changes(dict.fromkeys(names, 0)))
    assert isinstance(loaded, Next)
    assert [int(loaded.state[name]) for name in names] == [int(state[name]) for name in names]
    assert vector(run("VMSAVE", guest(rax=1 << 52))) == "#GP"


def test_the_forms_are_those_with_an_intercept() -> None:
    assert {"MOV CR8, r64", "PUSHFQ", "IRETQ", "RDMSR", "XSETBV"} <= set(governed_forms_64())
    assert not {"SWAPGS", "SYSCALL", "RDFSBASE r64", "NOP"} & set(governed_forms_64())


@pytest.mark.parametrize(
    ("form", "faithful"),
    [
        ("MOV CR8, r64", {"cr_write.cr8 = 1", "enables.v_intr_masking = 1"}),
        ("MOV r64, CR8", {"cr_read.cr8 = 1", "enables.v_intr_masking = 1"}),
        ("SWAPGS", {"always"}),
        ("SYSCALL", {"always"}),
        ("CPUID", {"vector3.cpuid = 1"}),
    ],
)
def test_what_an_instruction_asks(form: str, faithful: set[str]) -> None:
    (found,) = derive(desk_of(SVM_64), [form], SVM_64.owner())
    condition = found.requirement.condition(found.requirement.faithful)
    assert set(condition.split(" or ")) == faithful


# -- a hypervisor inside a hypervisor ------------------------------------------------------------------

INNER: Final = ("RDTSC", "CPUID", "MOV CR0, r32", "VMRUN", "CLGI", "WRMSR", "IN AL, DX", "MOV r32, CR0")


def test_every_intercept_is_merged_by_or() -> None:
    """Each intercept makes more exits and never fewer, so that the union loses nothing."""
    found = rules(desk_of(SVM), INNER)
    assert set(found.values()) <= {"or", "either"}
    assert found["vector3.rdtsc"] == found["vector4.vmrun"] == found["vector3.msr_prot"] == "or"
    (one,) = (d for d in directions(desk_of(SVM), "CPUID") if d.control == "vector3.cpuid")
    assert (one.more, one.fewer) == (True, False)


@pytest.mark.parametrize("form", ["RDTSC", "CPUID", "MOV CR0, r32", "MOV r32, CR0", "VMRUN"])
def test_merging_by_or_commutes(form: str) -> None:
    found = merged(desk_of(SVM), form)
    assert (found.lost, found.needless) == ((), ())


def test_merging_by_and_loses_an_exit() -> None:
    found = merged(desk_of(SVM), "RDTSC", "and")
    assert found.lost == ({"vector3.rdtsc": (0, 1)}, {"vector3.rdtsc": (1, 0)})


def test_a_permissions_map_that_one_of_them_does_not_use_adds_exits() -> None:
    """The union of the bits is not the union of the exits: one has the map's ones, the other its intercept."""
    found = merged(desk_of(SVM), "WRMSR")
    assert found.lost == ()
    assert {"vector3.msr_prot": (1, 0), "msrpm_write": (0, 1)} in found.needless


def test_vt_x_s_io_bitmaps_are_merged_by_no_bit() -> None:
    """With the bitmaps the unconditional control is ignored: one VMM's bitmaps would hide the other's control."""
    from popek.architectures.vtx.operation.assistance import VT_X

    found = rules(desk_of(VT_X), ["IN AL, DX", "RDMSR"])
    assert found["primary.use_io_bitmaps"] == "neither"
    assert found["primary.use_msr_bitmaps"] == "and"  # without them every MSR leaves
    assert merged(desk_of(VT_X), "IN AL, DX", found).lost
    assert not merged(desk_of(VT_X), "RDMSR", found).lost


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert merge("svm", "RDTSC", json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "popek/assistance-merge/1"
    assert answer["rules"] == {"vector3.rdtsc": "or"}
    assert merge("svm", "RDTSC", by="and") == 1
    assert "lost" in capsys.readouterr().out
    with pytest.raises(UserError, match="xor"):
        merge("svm", "RDTSC", by="xor")


def test_the_synthesis_leaves_open_what_is_intercepted_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    """A guest whose MONITOR is disabled expects #UD; the processor checks rCX, and raises #GP, before it intercepts."""
    assert assist.synthesize("svm-64", json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["open"] == ["MONITOR", "MWAIT"]
    assert answer["undecided"] == []
    assert answer["controls"]["vector4.vmrun"] == answer["controls"]["vector4.skinit"] == 1
