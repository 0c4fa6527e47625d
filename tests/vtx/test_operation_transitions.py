"""VM entry and VM exit on the same state: what is switched, what stays, and what is injected."""

from __future__ import annotations

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.machine import build
from popek.architectures.vtx.operation.state import EXIT_INFORMATION, VmxIa32
from popek.architectures.vtx.operation.transitions import (
    SEGMENTS,
    SYSENTER,
    Area,
    Host,
    load_guest,
    vm_entry,
)
from popek.architectures.vtx.operation.transitions import vm_exit as vm_exit_with_areas
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word
from popek.solving.solver import Answer, holds

MACHINE = build()
HOST = Host(
    cr0=Word(32, 0x80000031),
    cr3=Word(32, 0x7000),
    cr4=Word(32, 0x2000),
    eip=Word(32, 0xC0000000),
    esp=Word(32, 0xC0008000),
    selectors={name: Word(16, 0x08 if name == "cs" else 0x20 if name == "tr" else 0x10) for name in SEGMENTS},
    bases={name: Word(32, 0xC0010000) for name in ("tr", "gdtr", "idtr")},
    msrs={number: Word(64, 0) for number in SYSENTER},
)


def guest(**changes: int) -> VmxIa32:
    """A guest's kernel with handlers at 9000H for every vector."""
    state = VmxIa32.reset().with_changes({"cr0": 0x80000031, "cr4": 0x2000, "non_root": 1, "primary": 0})
    state = state.with_changes({"gdtr.base": 0x800, "idtr.base": 0x2000, "esp": 0x8000})
    state.memory = state.memory.store_little_endian(Word(32, 0x808), Word(64, 0x00CF9B000000FFFF))
    for vector in range(64):
        gate = Word(64, 0x00008E0000089000)
        state.memory = state.memory.store_little_endian(Word(32, 0x2000 + 8 * vector), gate)
    return state.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def vm_exit(exited: VmxIa32, host: Host) -> tuple[Area, VmxIa32]:
    """A VM exit without MSR areas, which cannot abort."""
    area, outcome = vm_exit_with_areas(exited, host)
    assert isinstance(outcome, Next)
    return area, outcome.state


def test_a_guest_comes_back_as_it_left_whatever_it_was() -> None:
    """On symbols, term by term."""
    before = VmxIa32.symbolic()
    area, host = vm_exit(before, HOST)
    after = load_guest(host, area)
    for name, word in before.words().items():
        if name in EXIT_INFORMATION or name in ("cr0", "non_root"):
            continue
        assert after[name].term is word.term, name
    assert holds(after.cr0.value == before.cr0.value) is Answer.UNSAT  # CD and NW of the VMM are the guest's
    assert after.memories()["memory"] is before.memories()["memory"]


def test_the_vmm_has_an_address_space_and_a_stack_of_its_own() -> None:
    """No byte of the VMM's need lie in the guest's linear addresses: every base it uses was loaded by the exit."""
    _, host = vm_exit(VmxIa32.symbolic(), HOST)
    for name in (
        "cr3",
        "cr4",
        "eip",
        "esp",
        "eflags",
        "dr7",
        "gdtr.base",
        "idtr.base",
        "tr.base",
        "non_root",
    ):
        assert host[name].concrete, name
    assert int(host.cr3) == 0x7000
    assert MACHINE.invariant(vm_exit(guest(), HOST)[1]).value == 1


def test_what_the_transitions_leave_is_for_the_vmm_to_switch() -> None:
    before = VmxIa32.symbolic()
    _, host = vm_exit(before, HOST)
    for name in ("eax", "cr2", "dr0", "dr6", "xcr0", "tsc", "cr0.cd", "cr0.nw"):
        assert host[name].term is before[name].term, name


def test_an_injected_interrupt_goes_through_the_guests_idt() -> None:
    area, host = vm_exit(guest(eip=0x1234, eflags=0x202, halted=1), HOST)
    outcome = vm_entry(host, area, 1 << 31 | 0x30)
    assert isinstance(outcome, Next)
    after = outcome.state
    assert int(after.eip) == 0x9000
    assert int(after.eflags.if_) == 0
    assert int(after.halted) == 0
    assert int(after.memory.load_little_endian(Word(32, 0x7FF4), 12)) == 0x202 << 64 | 0x08 << 32 | 0x1234


def test_an_injected_exception_pushes_its_code_and_software_events_their_return_address() -> None:
    area, host = vm_exit(guest(eip=0x1234), HOST)
    fault = vm_entry(host, area, 1 << 31 | 1 << 11 | 3 << 8 | 13, Word(32, 0x50))
    assert isinstance(fault, Next)
    assert int(fault.state.memory.load_little_endian(Word(32, 0x7FF0), 4)) == 0x50
    software = vm_entry(host, area, 1 << 31 | 4 << 8 | 0x21, length=2)
    assert isinstance(software, Next)
    assert int(software.state.memory.load_little_endian(Word(32, 0x7FF4), 4)) == 0x1236


def test_an_nmi_blocks_others() -> None:
    area, host = vm_exit(guest(), HOST)
    outcome = vm_entry(host, area, 1 << 31 | 2 << 8 | 2)
    assert isinstance(outcome, Next)
    assert int(outcome.state.nmi_blocked) == 1


def test_a_fault_of_the_delivery_exits_and_says_what_was_delivered() -> None:
    area, host = vm_exit(guest(idtr__limit=7, exception_bitmap=1 << 13), HOST)
    outcome = vm_entry(host, area, 1 << 31 | 0x30)
    assert isinstance(outcome, Trap)
    assert outcome.vector is VM_EXIT
    assert int(outcome.state.exit_interruption_info) == 0x80000B0D
    assert int(outcome.state.exit_interruption_error) == 0x30 * 8 + 3  # IDT, EXT
    assert int(outcome.state.exit_idt_vectoring_info) == 1 << 31 | 0x30
    silent = vm_entry(host, area, 1 << 31 | 0x30)
    assert isinstance(silent, Trap)


def test_nothing_is_injected_without_the_valid_bit() -> None:
    area, host = vm_exit(guest(eip=0x1234), HOST)
    outcome = vm_entry(host, area, 0x30)
    assert isinstance(outcome, Next)
    assert int(outcome.state.eip) == 0x1234


def test_int_n_that_faults_says_that_it_was_being_delivered() -> None:
    state = guest(idtr__limit=7, exception_bitmap=1 << 13)
    operands = {"operand imm8": Word(8, 0x21), "operand length": Word(4, 2)}
    outcome = MACHINE.step(MACHINE.instructions["INT imm8"], state, operands)
    assert isinstance(outcome, Trap)
    assert int(outcome.state.exit_idt_vectoring_info) == 1 << 31 | 4 << 8 | 0x21
    assert int(outcome.state.exit_instruction_length) == 2
    hlt = MACHINE.step(
        MACHINE.instructions["HLT"], guest(primary__hlt_exiting=1), {"operand length": Word(4, 1)}
    )
    assert isinstance(hlt, Trap)
    assert int(hlt.state.exit_idt_vectoring_info) == 0
