"""The virtual-APIC page under RDMSR and WRMSR, the TPR threshold, and virtual-interrupt delivery.

Expected values are the manual's (SDM vol. 3C, 30.1, 30.2, 30.5 and 27.7.7).
"""

from __future__ import annotations

import pytest

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.machine import build
from popek.architectures.vtx.operation.state import EXIT_INFORMATION, VmxIa32
from popek.architectures.vtx.operation.transitions import save_guest, vm_entry
from popek.checks.runs import explore_instruction
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word, any_of
from popek.solving.solver import Answer, holds

MACHINE = build(exceptions=False)
PAGE = {0x20: 0x11, 0x80: 0x53, 0x81: 0xAA, 0x84: 0xBB}


def guest(number: int = 0x808, **changes: int) -> VmxIa32:
    """A guest whose x2APIC is virtual, with a bitmap that lets everything through."""
    state = VmxIa32.reset().with_changes(
        {
            "cr0": 0x80000031, "cr4": 0x2000, "non_root": 1, "primary": 0, "ecx": number,
            "primary.use_msr_bitmaps": 1, "primary.use_tpr_shadow": 1, "primary.activate_secondary_controls": 1,
            "secondary.virtualize_x2apic_mode": 1,
        }
    )  # fmt: skip
    state.virtual_apic = Memory(12, 8, PAGE)
    return state.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def step(form: str, state: VmxIa32) -> Outcome[VmxIa32]:
    return MACHINE.step(MACHINE.instructions[form], state, {"operand length": Word(4, 2)})


def fault(outcome: Outcome[VmxIa32]) -> str:
    assert isinstance(outcome, Trap)
    return outcome.vector.name


def test_the_tpr_is_read_from_the_page_and_other_registers_where_a_control_says_so() -> None:
    read = step("RDMSR", guest())
    assert isinstance(read, Next)
    assert (int(read.state.gpr[0]), int(read.state.gpr[2])) == (0xAA53, 0xBB)
    assert fault(step("RDMSR", guest(0x802))) == "#GP"
    registers = {"secondary__apic_register_virtualization": 1}
    other = step("RDMSR", guest(0x802, **registers))
    assert isinstance(other, Next)
    assert int(other.state.gpr[0]) == 0x11
    for number in (0x7FF, 0x900):
        # No registers of the x2APIC: whether there are any is up to the processor.
        assert isinstance(step("RDMSR", guest(number, **registers)), NotModelled)


@pytest.mark.parametrize(
    "off",
    [
        {"secondary__virtualize_x2apic_mode": 0}, {"primary__activate_secondary_controls": 0}, {"non_root": 0},
    ],
)  # fmt: skip
def test_without_the_control_there_is_no_such_msr(off: dict[str, int]) -> None:
    for form in ("RDMSR", "WRMSR"):
        assert fault(step(form, guest(**off))) == "#GP"


def test_the_bitmap_and_the_privilege_level_come_first() -> None:
    assert fault(step("RDMSR", guest(primary__use_msr_bitmaps=0))) == "VM exit"
    level = {"cs__selector": 0x1B, "ss__selector": 0x23, "cs__rights": 0xC0FB, "ss__rights": 0xC0F3}
    assert fault(step("RDMSR", guest(**level, primary__use_msr_bitmaps=0))) == "#GP"


def test_a_write_reaches_the_page_and_exits_after_the_instruction_below_the_threshold() -> None:
    written = step("WRMSR", guest(eax=0x3F, tpr_threshold=3))
    assert isinstance(written, Next)
    assert int(written.state.virtual_apic.load_little_endian(Word(12, 0x80), 8)) == 0x3F
    below = step(
        "WRMSR", guest(eax=0x2F, tpr_threshold=3, eip=0x100, shadow__sti=1, exit_instruction_length=9)
    )
    assert isinstance(below, Trap)
    assert (below.vector, int(below.state.exit_reason)) == (VM_EXIT, 43)
    after = below.state
    assert int(after.virtual_apic.load(Word(12, 0x80))) == 0x2F  # trap-like: the write stands
    assert (int(after.eip), int(after.shadow.value)) == (0x102, 0)
    assert int(after.exit_instruction_length) == 9  # not defined for this exit


@pytest.mark.parametrize("value", [{"eax": 0x100}, {"edx": 1}])
def test_reserved_bits_of_the_tpr_fault(value: dict[str, int]) -> None:
    outcome = step("WRMSR", guest(**value))
    assert fault(outcome) == "#GP"
    assert isinstance(outcome, Trap)
    assert int(outcome.state.virtual_apic.load(Word(12, 0x80))) == 0x53


def with_delivery(number: int, requested: int = 0, serving: int = 0, **changes: int) -> VmxIa32:
    """The same with virtual-interrupt delivery, one vector requested and one in service, and a TPR of 0."""
    state = guest(number, secondary__virtual_interrupt_delivery=1, rvi=requested, svi=serving, **changes)
    # Bit x of VISR is at (x & 1FH) of offset 100H | (x & E0H) >> 1; VIRR is at 200H (29.1.1).
    page = {base | (vector & 0xE0) >> 1 | (vector & 0x1F) >> 3: 1 << vector % 8
            for base, vector in ((0x200, requested), (0x100, serving)) if vector}  # fmt: skip
    state.virtual_apic = Memory(12, 8, page)
    return state


@pytest.mark.parametrize("number", [0x80B, 0x83F])
def test_without_delivery_the_other_registers_are_no_msrs(number: int) -> None:
    assert fault(step("WRMSR", guest(number))) == "#GP"


@pytest.mark.parametrize(
    ("priority", "requested", "serving", "shown", "recognized"),
    [
        (0x20, 0x31, 0, 0x20, 1),
        (0x30, 0x31, 0, 0x30, 0),  # the same class is masked
        (0x25, 0x51, 0x43, 0x40, 1),  # PPR: the class in service outranks the TPR, and its low half is 0
        (0x4F, 0x51, 0x43, 0x4F, 1),  # of one class the TPR counts whole
    ],
)
def test_a_write_to_the_tpr_makes_the_ppr_and_recognizes_what_outranks_it(
    priority: int, requested: int, serving: int, shown: int, recognized: int
) -> None:
    done = step("WRMSR", with_delivery(0x808, requested, serving, eax=priority))
    assert isinstance(done, Next)
    page = done.state.virtual_apic
    assert [int(page.load(Word(12, at))) for at in (0x80, 0xA0)] == [priority, shown]
    assert int(done.state.recognized) == recognized


def test_an_open_interrupt_window_keeps_virtual_interrupts_from_being_recognized() -> None:
    done = step("WRMSR", with_delivery(0x808, 0x31, primary__interrupt_window_exiting=1))
    assert isinstance(done, Next)
    assert int(done.state.recognized) == 0


def test_an_eoi_ends_the_highest_in_service_and_exits_where_the_bitmap_says_so() -> None:
    state = with_delivery(0x80B, 0x31, 0x43)
    state.virtual_apic = state.virtual_apic.store(Word(12, 0x110), Word(8, 1 << 1))  # 21H is in service, too
    done = step("WRMSR", state)
    assert isinstance(done, Next)
    assert (int(done.state.svi), int(done.state.recognized)) == (0x21, 1)
    assert int(done.state.virtual_apic.load(Word(12, 0x120))) == 0
    state.eoi_exit_bitmap = Memory(8, 1, {0x43: 1})
    left = step("WRMSR", state.with_changes({"eip": 0x100}))
    assert isinstance(left, Trap)
    after = left.state
    assert (int(after.exit_reason), int(after.exit_qualification), int(after.eip)) == (45, 0x43, 0x102)
    assert int(after.svi) == 0x21  # trap-like: the end of the interrupt stands
    assert fault(step("WRMSR", with_delivery(0x80B, eax=1))) == "#GP"


def test_a_self_ipi_is_requested_and_one_of_a_reserved_vector_exits() -> None:
    done = step("WRMSR", with_delivery(0x83F, eax=0x45))
    assert isinstance(done, Next)
    assert int(done.state.virtual_apic.load(Word(12, 0x220))) == 1 << 5
    assert (int(done.state.rvi), int(done.state.recognized)) == (0x45, 1)
    reserved = step("WRMSR", with_delivery(0x83F, eax=0xF))
    assert isinstance(reserved, Trap)
    assert (int(reserved.state.exit_reason), int(reserved.state.exit_qualification)) == (56, 0x3F0)
    assert fault(step("WRMSR", with_delivery(0x83F, eax=0x100))) == "#GP"


def test_an_entry_below_the_threshold_exits_at_once() -> None:
    shadowed = guest(tpr_threshold=6, secondary__virtualize_apic_accesses=1)
    outcome = vm_entry(shadowed, save_guest(shadowed))
    assert isinstance(outcome, Trap)
    assert int(outcome.state.exit_reason) == 43
    for change in (
        {"tpr_threshold": 5}, {"secondary.virtualize_apic_accesses": 0}, {"primary.use_tpr_shadow": 0},
        {"secondary.virtual_interrupt_delivery": 1},
    ):  # fmt: skip
        state = shadowed.with_changes(change)
        assert isinstance(vm_entry(state, save_guest(state)), Next)


@pytest.mark.parametrize("form", ["RDMSR", "WRMSR"])
def test_one_path_for_every_state_and_it_is_the_concrete_run(form: str) -> None:
    """On symbols, against numbers near the virtual registers."""
    run = explore_instruction(MACHINE, MACHINE.instructions[form])
    assert (
        holds(any_of(path.condition for path in run.paths), [MACHINE.invariant(run.before)]) is Answer.UNSAT
    )
    for number in (0x10, 0x174, 0x480, 0x800, 0x802, 0x808, 0x80B, 0x8FF):
        for registers in (0, 1):
            for changes in ({}, {"eax": 0x20, "tpr_threshold": 3}, {"edx": 1}):
                state = guest(number, secondary__apic_register_virtualization=registers, **changes)
                found = [p.result for p in run.at(state).paths if p.condition.value == 1]
                assert len(found) == 1
                same(step(form, state), found[0])


def same(a: Outcome[VmxIa32], b: Outcome[VmxIa32]) -> None:
    assert type(a) is type(b)
    if isinstance(a, NotModelled) or isinstance(b, NotModelled):
        return
    if isinstance(a, Trap) and isinstance(b, Trap):
        assert a.vector is b.vector
    for name, word in a.state.words().items():
        if name not in EXIT_INFORMATION and name != "eip":  # the length is still a symbol there
            assert word.value == b.state[name].value, name
    where = Word(12, 0x80)
    assert a.state.virtual_apic.load(where).value == b.state.virtual_apic.load(where).value
