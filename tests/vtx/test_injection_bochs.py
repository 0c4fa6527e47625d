"""Event injection against Bochs: where the handler begins, or the exit that comes of a fault of the delivery."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import attrs
import pytest

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.vtx.operation.transitions import save_guest, vm_entry
from popek.emulators.guests.expectation import step_of
from popek.emulators.guests.memory import arena_of
from popek.emulators.ia32.step import StepCaseError
from popek.emulators.non_root.cases import random_case
from popek.emulators.non_root.expectation import state_of, step_run, vmx_machine
from popek.emulators.non_root.harness import MARKER, VmxGuestResult, VmxGuestStep, baseline, run_guests
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator

CASES = 600
STUBS = 0xF8000  # where the gates lead: VMCALL at every fourth byte
EXTERNAL, NMI, HARDWARE, SOFTWARE_INTERRUPT, PRIVILEGED, SOFTWARE = 0, 2, 3, 4, 5, 6
WITH_CODE = (8, 10, 11, 12, 13, 14, 17)


@attrs.frozen(eq=False)
class Injected:
    """A case, and what the model says."""

    information: int
    level: int
    step: VmxGuestStep
    outcome: Outcome[VmxIa32]

    @property
    def kind(self) -> int:
        return self.information >> 8 & 7


def drawn(rng: random.Random) -> Iterator[Injected]:
    """Guests with gates of all kinds or too few of them, and an event for each."""
    while True:
        case = random_case(vmx_machine().instructions["CLC"], rng.choice((0, 0, 0, 3)), rng)
        registers = dict(case.guest.registers)
        if rng.random() < 0.4:
            registers["idtr.limit"] = rng.choice((0x27, 0x47, 0x6F, 0x77, 0x87))
        bitmap = rng.choice((0xFFFFFFFF, 0, 1 << 8, 1 << 13, 1 << 11, 0xFFFFFFFF & ~(1 << 13))) | 2
        case = attrs.evolve(
            case,
            guest=attrs.evolve(case.guest, registers=registers),
            controls={**case.controls, "EXCEPTION_BITMAP": bitmap},
            barred={},
        )
        try:
            step = step_of(case, MARKER)
            arena = arena_of(step, MARKER)
            state = state_of(case, step, arena)
        except (OutsideError, StepCaseError):
            continue
        if int(state.gpr[4]) < 64:
            continue  # a stack that wraps around 4 GiB: the difference is one of storage, not of injection
        yield injected(state, step_run(case, state, arena, (), DEFAULT_MODEL), rng)


def injected(state: VmxIa32, step: VmxGuestStep, rng: random.Random) -> Injected:
    """Some event for a guest, such as VM entry takes."""
    kind = rng.choice((EXTERNAL, NMI, HARDWARE, HARDWARE, HARDWARE, SOFTWARE_INTERRUPT, PRIVILEGED, SOFTWARE))
    vector = {
        EXTERNAL: rng.randrange(32, 256), NMI: 2, HARDWARE: rng.choice((0, 5, 6, 7, 8, 8, *WITH_CODE)),
        SOFTWARE_INTERRUPT: rng.randrange(256), PRIVILEGED: 1, SOFTWARE: rng.choice((3, 4)),
    }[kind]  # fmt: skip
    information = 1 << 31 | kind << 8 | vector
    code = None
    if kind == HARDWARE and vector in WITH_CODE:
        information |= 1 << 11
        code = Word(32, 0 if vector == 17 else rng.getrandbits(15))
    length = rng.randrange(1, 5) if kind >= SOFTWARE_INTERRUPT else 0
    if kind == EXTERNAL:
        state.eflags.if_ = 1
    if kind in (EXTERNAL, NMI):
        state.shadow = Word(2, 0)
    state.nmi_blocked = Word(1, 0)
    fields = {
        **step.fields,
        0x4016: information,
        0x4018: 0 if code is None else int(code),
        0x401A: length,
        0x6820: int(state.eflags.value),
        0x4824: int(state.shadow.value),
    }
    outcome = vm_entry(state, save_guest(state), information, code, length)
    return Injected(information, int(state.cpl), attrs.evolve(step, fields=fields), outcome)


def expected(case: Injected) -> tuple[object, ...]:
    """What the model says, in the terms of `observed`."""
    outcome = case.outcome
    if isinstance(outcome, Next):
        after = outcome.state
        # With a 16-bit inner stack Bochs keeps the upper half (deviation inner-stack-keeps-upper-half).
        top = int(after.gpr[4]) & (0xFFFF if case.level else 0xFFFFFFFF)
        blocked = int(after.nmi_blocked) if case.kind == NMI else None
        return "handler", int(after.eip), top, int(after.shadow.value), blocked
    assert isinstance(outcome, Trap)
    if outcome.vector is not VM_EXIT:
        return "fault", outcome.vector.number
    after = outcome.state
    if int(after.exit_reason) != 0:
        return "exit", int(after.exit_reason)
    information = int(after.exit_interruption_info)
    code = int(after.exit_interruption_error) if information >> 11 & 1 else None
    return "exit", 0, information, code, int(after.exit_idt_vectoring_info)


def observed(case: Injected, result: VmxGuestResult) -> tuple[object, ...]:
    """What Bochs did: of what the model's kind of outcome shows."""
    fields, entry, kind = result.fields, result.entry, expected(case)[0]
    if kind == "handler":
        top = fields[0x681C] & (0xFFFF if case.level else 0xFFFFFFFF)
        blocked = fields[0x4824] >> 3 & 1 if case.kind == NMI else None
        return "handler", fields[0x681E], top, fields[0x4824] & 3, blocked
    if kind == "fault":
        return "fault", (fields[0x681E] - STUBS) // 4
    if entry.basic_reason != 0:
        return "exit", entry.basic_reason
    code = fields[0x4406] if fields[0x4404] >> 11 & 1 else None
    # Bit 12 of the IDT-vectoring information is undefined.
    return "exit", 0, fields[0x4404], code, fields[0x4408] & ~(1 << 12)


@pytest.fixture(scope="module")
def ran() -> list[tuple[Injected, VmxGuestResult]]:
    source = drawn(random.Random(3))
    cases = [case for case, _ in zip(source, range(CASES), strict=False)]
    cases = [case for case in cases if isinstance(case.outcome, Next | Trap)]
    return list(zip(cases, run_guests([case.step for case in cases]), strict=True))


def test_events_are_injected_as_bochs_injects_them(ran: list[tuple[Injected, VmxGuestResult]]) -> None:
    kinds: Counter[object] = Counter()
    for case, result in ran:
        assert result.entry.kind == "enters"
        wanted = expected(case)
        if wanted[0] == "fault" and result.entry.basic_reason != 18:
            kinds["a fault that cannot be delivered either"] += 1
            continue
        kinds[wanted[0]] += 1
        assert wanted == observed(case, result), hex(case.information)
    assert kinds["handler"] > CASES // 3
    assert kinds["exit"] > CASES // 20
    assert kinds["fault"] > CASES // 30


def test_double_and_triple_faults_and_the_ext_bit_came_up(ran: list[tuple[Injected, VmxGuestResult]]) -> None:
    seen = [(case.kind, expected(case)) for case, _ in ran]
    exits = [wanted for _, wanted in seen if wanted[0] == "exit"]
    assert any(wanted[1] == 2 for wanted in exits)
    assert any(wanted[1] == 0 and wanted[2] == 0x80000B08 and wanted[4] == 0 for wanted in exits)
    codes = {
        (kind in (4, 6), wanted[3] & 1) for kind, wanted in seen if wanted[:2] == ("exit", 0) and wanted[3]
    }
    assert codes == {(True, 0), (False, 1)}
    assert ("fault", 8) in {wanted for _, wanted in seen}


@pytest.mark.parametrize("virtual", [False, True], ids=["nmis", "virtual-nmis"])
def test_a_fault_of_iret_unblocks_nmis_as_on_bochs(virtual: bool) -> None:
    rng, machine = random.Random(5), vmx_machine()
    instruction, operands = machine.instructions["IRETD"], {"operand length": Word(4, 1)}
    pin = baseline()[0x4000] & ~(1 << 3) | (1 << 3 | 1 << 5 if virtual else 0)
    steps, wanted = [], []
    while len(steps) < 30:
        case = attrs.evolve(random_case(instruction, 0, rng), barred={})
        case = attrs.evolve(case, controls={**case.controls, "EXCEPTION_BITMAP": 0xFFFFFFFF})
        try:
            step = step_of(case, b"\xcf")
            arena = arena_of(step, MARKER)
            state = state_of(case, step, arena).with_changes({"nmi_blocked": 1, "pin": pin & 0xFFFFFFFF})
        except (OutsideError, StepCaseError):
            continue
        outcome = machine.step(instruction, state, operands)
        if not isinstance(outcome, Trap) or outcome.memory or int(outcome.state.exit_reason) != 0:
            continue
        run = step_run(case, state, arena, (), DEFAULT_MODEL)
        fields = {**run.fields, 0x4000: pin, 0x4824: int(state.shadow.value) | 8}
        steps.append(attrs.evolve(run, fields=fields))
        wanted.append((int(outcome.state.exit_interruption_info), int(outcome.state.nmi_blocked)))
    seen = [(r.fields[0x4404], r.fields[0x4824] >> 3 & 1) for r in run_guests(steps)]
    assert wanted == seen
    assert {(information >> 12 & 1, blocked) for information, blocked in wanted} == {(1, 0)}
