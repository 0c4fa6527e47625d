"""VMRUN and #VMEXIT: what they switch and what they leave (AMD64 APM vol. 2, 15.5 and 15.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.machine import build
from popek.architectures.svm.operation.state import SvmIa32
from popek.architectures.svm.operation.transitions import leave_guest
from popek.architectures.svm.vmcb import FIELDS
from popek.emulators.vmrun.harness import baseline
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word

MACHINE: Final = build()
ADDRESS: Final = 0x30000
LEFT: Final = (
    *("ecx", "edx", "ebx", "ebp", "esi", "edi", "dr0", "dr1", "dr2", "dr3", "xcr0"),
    *(
        f"{name}.{part}"
        for name in ("fs", "gs", "ldtr", "tr")
        for part in ("selector", "base", "limit", "rights")
    ),
)
"""What APM vol. 2, 15.5.1 does not list among what VMRUN loads."""


def host(**fields: int) -> SvmIa32:
    """A host about to run the plain 32-bit guest, with these fields of its VMCB changed."""
    state = SvmIa32.reset(cr0=0x80000011, eax=ADDRESS, ecx=0x11, esi=0x22, dr0=0x33, cr2=0x44)
    state = state.with_changes({"fs.base": 0x5000, "gdtr.base": 0x6000, "idtr.limit": 0x77, "esp": 0x8888})
    state.msr = state.msr.store(Word(32, 0xC0000080), Word(64, 0x1000)).store(Word(32, 0x174), Word(64, 0x9))
    known: Mapping[str, int] = {**baseline("32-bit", nested=False), **fields}
    for name, value in known.items():
        field = FIELDS[name]
        place = Word(32, ADDRESS + field.offset)
        state.host_memory = state.host_memory.store_little_endian(place, Word(field.width, value))
    return state


def run(form: str, state: SvmIa32) -> Outcome[SvmIa32]:
    instruction = MACHINE.instructions[form]
    parts = {
        name: Word(width, 3 if name == "operand length" else operand.kind.first.get(part, 0))
        for operand in instruction.inputs
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
    }
    outcome: Outcome[SvmIa32] = MACHINE.step(instruction, state, parts)
    return outcome


def entered(**fields: int) -> SvmIa32:
    outcome = run("VMRUN", host(**fields))
    assert isinstance(outcome, Next)
    return outcome.state


def test_vmrun_loads_the_save_area_and_the_controls() -> None:
    known = baseline("32-bit", nested=False)
    guest = entered(TSC_OFFSET=5, VINTR_CONTROL=1 << 24)
    assert (int(guest.guest_mode), int(guest.gif), int(guest.cpl)) == (1, 1, 0)
    for name, field in (
        ("eip", "RIP"),
        ("esp", "RSP"),
        ("eax", "RAX"),
        ("cr3", "CR3"),
        ("idtr.limit", "IDTR_LIMIT"),
    ):
        assert int(guest[name]) == known[field], name
    assert int(guest["cs.selector"]) == known["CS_SELECTOR"]
    assert int(guest.cs.base) == known["CS_BASE"]
    assert int(guest.vector3.value) == known["INTERCEPTS_3"]
    assert int(guest.cr_write.value) == known["CR_INTERCEPTS"] >> 16
    assert (int(guest.tsc_offset), int(guest.enables.v_intr_masking)) == (5, 1)
    assert int(guest.iopm.load(Word(17, 0x1234))) == 0
    assert int(guest.msr.load(Word(32, 0xC0000080))) == known["EFER"]


def test_the_maps_are_in_physical_memory() -> None:
    state = host()
    place = Word(32, baseline("32-bit", nested=False)["IOPM_BASE"] + 0x1234 // 8)
    state.host_memory = state.host_memory.store(place, Word(8, 1 << (0x1234 & 7)))
    outcome = run("VMRUN", state)
    assert isinstance(outcome, Next)
    assert [int(outcome.state.iopm.load(Word(17, port))) for port in (0x1233, 0x1234, 0x1235)] == [0, 1, 0]


@pytest.mark.parametrize("name", LEFT)
def test_vmrun_leaves_to_the_guest_what_the_host_had(name: str) -> None:
    """It shows the guest what is the host's, unless the VMM executes VMLOAD and switches the rest itself."""
    assert int(entered()[name]) == int(host()[name])


def test_an_exit_gives_the_host_its_part_back_and_leaves_the_guest_s_rest() -> None:
    before = host()
    guest = entered().with_changes(
        {"ecx": 0xAAAA, "fs.base": 0xBBBB, "cr2": 0xCCCC, "eflags.df": 1, "dr0": 0xDDDD}
    )
    exited = run("CPUID", guest)
    assert isinstance(exited, Trap)
    assert exited.vector is VM_EXIT
    resumed = before.with_changes({"eip": int(before.eip) + 3})
    after = leave_guest(exited.state, resumed, Word(32, ADDRESS))
    for name in (
        "eax",
        "esp",
        "eip",
        "eflags",
        "cr0",
        "cr3",
        "cr4",
        "gdtr.base",
        "idtr.limit",
        "cs.selector",
    ):
        assert int(after[name]) == int(resumed[name]), name
    for name in ("ecx", "fs.base", "cr2", "dr0"):
        assert int(after[name]) == int(guest[name]), name
    assert (int(after.guest_mode), int(after.gif), int(after.dr7.value)) == (0, 0, 0x400)

    def saved(field: str) -> int:
        known = FIELDS[field]
        return int(after.host_memory.load_little_endian(Word(32, ADDRESS + known.offset), known.width // 8))

    assert saved("EXITCODE") == 0x72
    assert saved("NEXT_RIP") == int(guest.eip) + 3
    assert (saved("RIP"), saved("RAX"), saved("CR2")) == (int(guest.eip), int(guest.gpr[0]), 0xCCCC)
    assert saved("RFLAGS") == int(guest.eflags.value)
    assert saved("CS_ATTRIBUTES") == baseline("32-bit", nested=False)["CS_ATTRIBUTES"]


@pytest.mark.parametrize(
    ("field", "value"), [("INTERCEPTS_4", 0), ("ASID", 0), ("EFER", 0), ("CR0", 0x20000010), ("CR4", 1 << 31)]
)
def test_what_vmrun_refuses_leaves_the_host_where_it_is(field: str, value: int) -> None:
    state = host(**{field: value})
    outcome = run("VMRUN", state)
    assert isinstance(outcome, Next)
    after = outcome.state
    assert (int(after.guest_mode), int(after.gif)) == (0, 0)
    code = after.host_memory.load_little_endian(Word(32, ADDRESS + FIELDS["EXITCODE"].offset), 8)
    assert int(code) == (1 << 64) - 1
    assert int(after.cr3) == int(state.cr3)


def test_injected_events_are_not_modelled() -> None:
    assert isinstance(run("VMRUN", host(EVENTINJ=0x80000300)), NotModelled)
