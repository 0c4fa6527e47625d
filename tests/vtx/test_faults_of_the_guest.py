"""Under VT-x a fault goes to the guest, not to the VMM: one that its own machine does not raise breaks fidelity."""

from __future__ import annotations

import attrs
import pytest

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.vtx.operation.technique import hardware, technique
from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.checks.promise import Promise
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status
from popek.kernel.configuration import Configuration, default_configuration
from popek.kernel.outcome import Fault, Next, Target, Trap
from popek.kernel.technique import Technique

MACHINE = hardware("vt-x")


def fidelity(form: str, by: Technique[VmxIa32] | None = None, **settings: int) -> Promise[VmxIa32]:
    configuration = Configuration({**default_configuration(MACHINE).settings, **settings})
    keeper = Keeper(Subject.of(MACHINE, by or technique("vt-x"), configuration))
    return keeper.keeps(MACHINE.instructions[form]).fidelity


@pytest.mark.parametrize(
    ("form", "control"), [("RDTSCP", "ENABLE_RDTSCP"), ("INVPCID r32, m128", "ENABLE_INVPCID")]
)
def test_an_instruction_that_a_control_takes_away_is_unfaithful(form: str, control: str) -> None:
    assert fidelity(form, **{control: 1}).status is Status.HOLDS
    found = fidelity(form, **{control: 0})
    assert found.status is Status.REFUTED
    assert found.how == "raises #UD where the guest's own machine does not"
    witness = found.witness
    assert witness is not None
    native, virtualized = witness.first.outcome, witness.second and witness.second.outcome
    assert isinstance(virtualized, Trap)
    assert virtualized.vector.name == "#UD"
    assert isinstance(native, Next) or (isinstance(native, Trap) and native.vector.name != "#UD")


def test_were_the_fault_the_vmms_it_could_do_what_the_guest_wants() -> None:
    """The exception bitmap could make it so: an exit is always faithful."""
    caught = attrs.evolve(technique("vt-x"), target=lambda trap: Target.VMM)
    assert fidelity("RDTSCP", caught, ENABLE_RDTSCP=0).status is Status.HOLDS
    target = technique("vt-x").target
    assert target(Trap(UD, None, False, VmxIa32.reset())) is Target.GUEST
    assert target(Trap(VM_EXIT, None, False, VmxIa32.reset())) is Target.VMM


def test_a_trap_to_another_level_than_the_guests_own_machine_has_is_noticed() -> None:
    """Of a machine whose UD2 goes to a level below in non-root operation."""

    def wrong(cpu: VmxIa32) -> None:
        raise Fault(UD, level="below" if cpu.non_root else "kernel")

    def target(trap: Trap[VmxIa32]) -> Target:
        return Target.BELOW if trap.level == "below" else Target.GUEST

    instruction = attrs.evolve(MACHINE.instructions["UD2"], semantics=wrong)
    put = attrs.evolve(technique("vt-x"), target=target)
    found = Keeper(Subject.of(MACHINE, put)).keeps(instruction).fidelity
    assert found.status is Status.REFUTED
    assert found.how == "raises #UD to the firmware below the VMM where the guest's own machine does not"
    assert found.witness is not None
    known = attrs.evolve(put, guest_level=lambda level: "kernel")
    assert Keeper(Subject.of(MACHINE, known)).keeps(instruction).fidelity.status is Status.HOLDS


@pytest.mark.parametrize("form", ["UD2", "WRMSR", "MOV CR4, r32", "LTR r16", "POP ES"])
def test_a_fault_that_the_guests_own_machine_raises_too_is_the_guests(form: str) -> None:
    assert fidelity(form).status is Status.HOLDS


def test_an_error_code_of_another_value_is_noticed() -> None:
    """Of a machine whose UD2 gives #GP above CPL 0, with a code of its own in non-root operation."""

    def wrong(cpu: VmxIa32) -> None:
        if cpu.cpl != 0:
            raise Fault(GP, 0 if not cpu.non_root else 8)
        raise Fault(UD)

    instruction = attrs.evolve(MACHINE.instructions["UD2"], semantics=wrong)
    keeper = Keeper(Subject.of(MACHINE, technique("vt-x")))
    found = keeper.keeps(instruction).fidelity
    assert found.status is Status.REFUTED
    assert found.how == "raises #GP where the guest's own machine does not"
