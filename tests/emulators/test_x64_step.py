"""The 64-bit step harness runs what it is given, from the state it is given."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from popek.emulators import programs
from popek.emulators.bochs import simulator as bochs
from popek.emulators.x86.expectation import StepResult
from popek.emulators.x86_64.step import (
    COMPATIBLE_SELECTORS,
    IDT_BASE,
    KERNEL_LANDING,
    MARKER,
    RESERVED_SELECTOR,
    STACK_TOPS,
    X64StepCase,
    gate_descriptor,
    initial_memory,
    plain_state,
    run_steps,
)

pytestmark = pytest.mark.emulator

LEVELS = [(cpl, long) for cpl in range(4) for long in (True, False)]


def one(code: bytes, cpl: int = 0, long: bool = True, **rest: object) -> StepResult:
    changes = {
        name.replace("__", "."): value for name, value in rest.items() if name not in ("memory", "watch")
    }
    state = plain_state(cpl, long=long) | changes
    case = X64StepCase(code, state, rest.get("memory", ()), (KERNEL_LANDING,), rest.get("watch", ()))  # type: ignore[arg-type]
    return run_steps([case])[0]


def test_every_component_arrives_as_it_was_given() -> None:
    cases = [X64StepCase(b"\x90", plain_state(cpl, long=long)) for cpl, long in LEVELS]
    for case, result in zip(cases, run_steps(cases), strict=True):
        assert result.kind == "next"
        unlike = {name for name, value in case.state.items() if result.registers.get(name) != value}
        assert unlike == {"rip"}
        assert result.registers["rip"] == case.state["rip"] + 1


def test_values_of_64_bits_arrive_whole() -> None:
    wanted = {
        "r15": 0x0123456789ABCDEF, "rax": 1 << 63, "fs.base": 0x7FFF_FFFFFFFF, "cr2": 0xFEDCBA9876543210, "cr8": 9,
        "dr2": 1 << 46, "msr.lstar": 0xFFFF8000_00000000, "pkru": 0xFFFFFFFC, "xcr0": 7, "msr.tsc_aux": 0x89ABCDEF,
        "ds.limit": 0x1234, "ds.rights": 0x40F1,
    }  # fmt: skip
    result = one(b"\x90", 3, **{name.replace(".", "__"): value for name, value in wanted.items()})
    assert {name: result.registers[name] for name in wanted} == wanted


def test_a_fault_shows_its_vector_and_code_at_every_level() -> None:
    results = run_steps([X64StepCase(b"\x0f\x0b", plain_state(cpl, long=long)) for cpl, long in LEVELS])
    assert [(r.kind, r.vector, r.error_code) for r in results] == [("trap", 6, None)] * 8
    assert [r.registers["cs.selector"] & 3 for r in results] == [cpl for cpl, _ in LEVELS]
    privileged = one(b"\xf4", 3)
    assert (privileged.vector, privileged.error_code, privileged.registers["rsp"]) == (13, 0, STACK_TOPS[3])


def test_pages_below_user_base_are_the_supervisors() -> None:
    load = b"\x48\x8b\x04\x25\x00\x10\x00\x00"  # MOV RAX, [1000H]
    assert (one(load, 3).vector, one(load, 3).error_code) == (14, 5)
    assert one(load, 1).kind == "next"


def test_halting_ends_by_the_watchdog() -> None:
    assert one(b"\xf4").kind == "hang"


def test_a_landing_is_recognised_where_a_marker_is_and_elsewhere() -> None:
    jump = b"\xff\xe0"
    assert (one(jump, rax=KERNEL_LANDING).kind, one(jump, rax=KERNEL_LANDING).registers["rip"]) == (
        "next",
        KERNEL_LANDING,
    )
    elsewhere = one(jump, rax=0x6000)
    assert (elsewhere.kind, elsewhere.registers["rip"]) == ("next", 0x6000)


def test_hidden_parts_are_there_at_a_marker_and_not_after_a_gate() -> None:
    assert one(b"\x90", 3, False).registers["cs.rights"] == 0xC0FB
    assert "cs.rights" not in one(b"\x0f\x0b").registers
    assert one(b"\x90", 2, False).registers["cs.selector"] == COMPATIBLE_SELECTORS[2]


def test_a_gate_of_the_case_is_taken() -> None:
    gate = gate_descriptor(RESERVED_SELECTOR, KERNEL_LANDING, 0x8E00, ist=2)
    result = one(b"\xcd\x80", memory=((IDT_BASE + 0x800, gate),))
    assert (result.kind, result.registers["rip"], result.registers["rsp"]) == (
        "next",
        KERNEL_LANDING,
        0xE000 - 40,
    )


def test_watched_memory_and_the_initial_memory() -> None:
    state = plain_state(0) | {"rax": 0x1122334455667788}
    case = X64StepCase(b"\x50", state, watch=((STACK_TOPS[0] - 8, 8),))
    assert run_steps([case])[0].memory == (struct.pack("<Q", 0x1122334455667788),)
    arena = initial_memory(case)
    assert arena[state["rip"] : state["rip"] + 3] == b"\x50" + MARKER
    assert arena[STACK_TOPS[0] - 8] == 0xF1


def test_cases_do_not_touch_one_another() -> None:
    writes = X64StepCase(b"\x50", plain_state(0) | {"rax": 5})
    reads = X64StepCase(b"\x48\x8b\x04\x25\xf8\x7f\x00\x00", plain_state(0))
    assert run_steps([writes, reads])[1].registers["rax"] == 0xF1F1F1F1F1F1F1F1


def test_a_processor_that_shuts_down_costs_its_case_alone() -> None:
    lost = plain_state(0) | {"idtr.limit": 0, "rsp": 0x8000}
    results = run_steps(
        [
            X64StepCase(b"\x90", plain_state(0)),
            X64StepCase(b"\x0f\x0b", lost),
            X64StepCase(b"\x90", plain_state(3)),
        ]
    )
    assert [r.kind for r in results] == ["next", "triple-fault", "next"]


def test_bochs_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = programs.find
    monkeypatch.setattr(programs, "find", lambda command: None if command == "bochs" else find(command))
    with pytest.raises(bochs.BochsError, match=r"^bochs was not found: apt-get install bochs$"):
        run_steps([X64StepCase(b"\x90", plain_state(0))])
