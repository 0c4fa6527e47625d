"""EPT violations as exits of references: what they tell (SDM vol. 3C, "Exit Qualification for EPT Violations")."""

from __future__ import annotations

import pytest

from popek.architectures.vtx.operation import extended_paging
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.extended_paging import EptX64
from popek.architectures.vtx.operation.machine import build_ept
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

MACHINE = build_ept()
ON = {
    "cr0.ne": 1, "cr4.vmxe": 1, "non_root": 1, "primary": 1 << 31, "secondary.enable_ept": 1,
    "ept_reserved.base": 0x3000, "ept_reserved.size": 0x1000,
    "ept_read_only.base": 0x5000, "ept_read_only.size": 0x1000,
}  # fmt: skip


def step(form: str, offset: int = 0, **changes: int) -> Outcome[EptX64]:
    state = EptX64.reset().with_changes({**ON, **{n.replace("__", "."): v for n, v in changes.items()}})
    instruction = MACHINE.instructions[form]
    parts = {name: Word(width, 0) for operand in instruction.inputs for name, width in operand.part_names()}
    for name in parts:
        if name.endswith(".segment"):
            parts[name] = Word(3, 3)
        elif name.endswith(".offset"):
            parts[name] = Word(64, offset)
    return MACHINE.step(instruction, state, {**parts, "operand length": Word(4, 4)})


def told(outcome: Outcome[EptX64]) -> tuple[int, int, int]:
    """Qualification, linear and guest-physical address of an EPT violation."""
    assert isinstance(outcome, Trap)
    assert (outcome.vector, outcome.memory) == (VM_EXIT, True)
    after = outcome.state
    assert (int(after.exit_reason), int(after.rip)) == (48, 0x1000)
    return (
        int(after.exit_qualification),
        int(after.exit_linear_address),
        int(after.exit_guest_physical_address),
    )


@pytest.mark.parametrize(
    ("form", "offset", "qualification", "address"),
    [
        # Bit 0 a read, 1 a write; 5:3 what the page allows; 7 and 8: of the linear address itself.
        ("MOV r64, m64", 0x3010, 1 << 0 | 3 << 7, 0x3010),
        ("MOV m64, r64", 0x3010, 1 << 1 | 3 << 7, 0x3010),
        ("MOV m64, r64", 0x5010, 1 << 1 | 5 << 3 | 3 << 7, 0x5010),
        ("MOV r64, m64", 0x2FFC, 1 << 0 | 3 << 7, 0x3000),
        ("SGDT m", 0x4FFE, 1 << 1 | 5 << 3 | 3 << 7, 0x5000),
    ],
)
def test_what_an_exit_tells(form: str, offset: int, qualification: int, address: int) -> None:
    assert told(step(form, offset)) == (qualification, address, address)


def test_reading_what_may_be_read_and_no_ept_at_all_exits_not() -> None:
    assert isinstance(step("MOV r64, m64", 0x5010), Next)
    assert isinstance(step("MOV r64, m64", 0x3010, secondary__enable_ept=0), Next)
    assert isinstance(step("MOV r64, m64", 0x3010, primary=0), Next)


def test_tables_are_kept_too_and_delivery_tells_of_its_event() -> None:
    outcome = step("INT imm8", idtr__base=0x3000)
    assert told(outcome)[0] == 1 << 0 | 3 << 7
    assert isinstance(outcome, Trap)
    assert int(outcome.state.exit_idt_vectoring_info) == 1 << 31 | 4 << 8


def test_the_pages_of_the_guest_come_first() -> None:
    user = {"cs__selector": 0x3B, "ss__selector": 0x43, "cs__rights": 0xA0FB, "ss__rights": 0xC0F3}
    outcome = step("MOV r64, m64", 0x3010, reserved__base=0x3000, reserved__size=0x1000, **user)
    assert isinstance(outcome, Trap)
    assert outcome.vector.name == "#PF"


def test_an_iret_that_violates_has_unblocked_nmis_and_says_so() -> None:
    """Bit 12: NMIs are not blocked any more."""
    outcome = step("IRETQ", rsp=0x3000, nmi_blocked=1)
    assert told(outcome)[0] == 1 << 12 | 1 << 0 | 3 << 7
    assert isinstance(outcome, Trap)
    assert int(outcome.state.nmi_blocked) == 0


@pytest.mark.emulator
def test_a_violation_told_as_a_read_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from popek.emulators.guests.compare import difftest
    from popek.emulators.non_root.long_compare import LONG_GUESTS

    forms = ["MOV m64, r64", "XCHG m64, r64", "SGDT"]
    assert difftest(LONG_GUESTS, 90, seed=1, forms=forms).unexplained == 0
    monkeypatch.setattr(extended_paging, "WRITE", extended_paging.READ)
    assert difftest(LONG_GUESTS, 90, seed=1, forms=forms).unexplained > 0
