"""The eight problems: present under ring deprivileging, absent where the reason for them is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from popek.architectures import ia32, pg74, x86_64
from popek.architectures.ia32.state import Ia32
from popek.architectures.x86.exceptions import GP
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.outcome import Fault, Trap
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.machines import machine as find_machine
from popek.machines import makers
from popek_proofs.eight_problems import problems as eight_problems
from popek_proofs.eight_problems import traces
from popek_proofs.eight_problems.hidden_state import hidden_state
from popek_proofs.eight_problems.search import Asking

IA32 = ia32.MACHINES["ia32"]()
YES, NO = Truth.YES, Truth.NO


def asking(
    *forms: str,
    machine: Machine[Any] = IA32,
    technique: str | Technique[Any] | None = None,
    settings: tuple[str, ...] = (),
) -> Asking:
    chosen = technique if isinstance(technique, Technique) else machine.technique(technique)
    instructions = tuple(machine.instructions[form] for form in forms)
    return Asking(Subject.of(machine, chosen, settings), instructions)


SMALL = {
    "ring-aliasing": ("PUSH CS", "NOP"),
    "address-space-compression": ("MOV r32, m32", "LSL r32, r16"),
    "non-faulting-access": ("SGDT m", "NOP"),
    "system-calls": ("SYSENTER", "SYSEXIT"),
    "interrupt-virtualization": ("POPFD", "CLI"),
    "ring-compression": ("MOV Sreg, r16", "NOP"),
    "frequent-access": ("MOV CR3, r32", "NOP"),
}
"""Forms that are enough to see a problem by; hidden state names its own."""


@pytest.mark.parametrize("name", [name for name in SMALL if name != "ring-compression"])
def test_ring_deprivileging_has_the_problem_with_a_witness_that_was_replayed(name: str) -> None:
    (found,) = eight_problems.ask(eight_problems.find([name]), asking(*SMALL[name]))
    assert found.present is YES
    for answer in found.answers:
        assert answer.present is YES, answer.question
        assert answer.witness is not None
        assert answer.forms
        assert answer.to_json()["witness"] is not None


def test_rings_are_compressed_where_the_kernel_shares_the_ring_of_its_programs() -> None:
    forms = SMALL["ring-compression"]
    assert eight_problems.one_ring_for_two(asking(*forms), False).present is NO
    shared = eight_problems.one_ring_for_two(asking(*forms, technique="ring-deprivileging-0/3/3"), False)
    assert shared.present is YES
    assert shared.witness is not None
    assert shared.witness.second is not None
    assert isinstance(shared.witness.first.outcome, Trap)
    assert int(shared.witness.first.before.cpl) == int(shared.witness.second.before.cpl) == 3


def test_hidden_state_is_found_as_a_program_of_three_and_four_instructions() -> None:
    found = eight_problems.no_way_back(asking(), False)
    assert found.present is YES
    assert found.witness is not None
    assert found.witness.second is not None
    loads = [line.instruction.form for line in found.witness.second.lines]
    assert loads == ["MOV Sreg, r16", "MOV m32, r32", "MOV Sreg, r16", "MOV r32, m32"]
    assert found.witness.first.lines == tuple(
        line for number, line in enumerate(found.witness.second.lines) if number != 2
    )


def test_nothing_is_lost_if_loading_again_gives_the_same() -> None:
    """A processor that loads nothing from the table; and a technique that keeps hidden parts."""
    machine = ia32.MACHINES["ia32"]()

    def selector_only(cpu: Ia32, sreg: Any, r16: Any) -> None:
        cpu.segment(sreg).selector = cpu.read_register(r16, 16)

    load = machine.instructions["MOV Sreg, r16"]
    machine.instructions["MOV Sreg, r16"] = attrs.evolve(load, semantics=selector_only, settings={})
    found, witness, _ = hidden_state(Subject.of(machine))
    assert (found, witness) == (NO, None)
    keeps = attrs.evolve(IA32.technique(), keeps_hidden=True)
    assert hidden_state(Subject.of(IA32, keeps))[0] is NO


def faults_above_ring_0(semantics: Callable[..., None]) -> Callable[..., None]:
    def checked(cpu: Ia32, *operands: Any, **settings: Any) -> None:
        if cpu.cpl != 0:
            raise Fault(GP, 0)
        semantics(cpu, *operands, **settings)

    return checked


@pytest.mark.parametrize(
    ("question", "form"),
    [
        (eight_problems.ring_aliasing, "PUSH CS"),
        (eight_problems.silent_reads, "SGDT m"),
        (eight_problems.seen_storage, "LSL r32, r16"),
        (eight_problems.lost_interrupt_flag, "POPFD"),
        (eight_problems.bypassed_kernel, "SYSENTER"),
    ],
)
def test_an_instruction_that_traps_instead_has_the_problem_no_more(question: Any, form: str) -> None:
    machine = ia32.MACHINES["ia32"]()
    instruction = machine.instructions[form]
    assert question(asking(form, machine=machine), False).present is YES
    semantics = faults_above_ring_0(instruction.semantics)
    machine.instructions[form] = attrs.evolve(instruction, semantics=semantics)
    assert question(asking(form, machine=machine), False).present is NO


def test_umip_takes_the_silent_reads_away_and_iopl_the_traps_of_cli() -> None:
    assert eight_problems.silent_reads(asking("SGDT m", settings=("UMIP=1",)), False).present is NO
    assert eight_problems.trapping_interrupt_flag(asking("CLI"), False).present is YES
    assert eight_problems.trapping_interrupt_flag(asking("CLI", settings=("IOPL=1",)), False).present is NO


def test_a_technique_that_changes_nothing_has_none_of_the_problems() -> None:
    """The guest on the hardware as it is: what hardware support aims at."""
    bare = attrs.evolve(
        IA32.technique(),
        name="nothing",
        map=lambda guest, private: guest,
        owned=(),
        replaced=(),
        shadowed=(),
        deprivileged=lambda state: state.cpl == 0,
        entries=TRAPS_ONLY,
        entered=None,
        owns_address=None,
        shadows_address=None,
        private=lambda guest, private: private.eflags.if_ == private.eflags.if_,
        keeps_hidden=True,
        hypotheses=(),
        without=None,
    )
    forms = ("PUSH CS", "SGDT m", "LSL r32, r16", "MOV r32, m32", "SYSENTER", "SYSEXIT", "POPFD", "CLI")
    found = eight_problems.ask(eight_problems.find([]), asking(*forms, technique=bare))
    present = {one.problem.name: one.present for one in found}
    assert len(present) == 8
    assert set(present.values()) == {NO}, present


def test_every_form_that_has_a_problem_can_be_asked_for() -> None:
    first = eight_problems.ring_aliasing(asking("NOP", "MOV r32, Sreg", "PUSH CS", "PUSH SS"), False)
    every = eight_problems.ring_aliasing(asking("NOP", "MOV r32, Sreg", "PUSH CS", "PUSH SS"), True)
    assert first.forms == ("PUSH CS",)  # the paper's example comes first
    assert set(every.forms) == {"PUSH CS", "MOV r32, Sreg", "PUSH SS"}


def test_traps_along_a_critical_section_are_counted() -> None:
    (cost,) = traces.costs(Subject.of(IA32), ("critical section",))
    assert dict(cost.lines) | {} == {
        "PUSHFD": "completes",
        "CLI": "a trap",
        "INC eax": "completes",
        "ADD [0x18000], eax": "completes",
        "POPFD": "completes, and does something else",
    }
    assert (cost.necessary, cost.needless, cost.lost) == (1, 0, 1)
    (free,) = traces.costs(Subject.of(IA32, None, ["IOPL=1"]), ("critical section",))
    assert (free.necessary, free.needless) == (0, 0)
    assert free.lost > cost.lost  # CLI masks the real interrupts


def test_the_same_questions_go_to_64_bit_mode() -> None:
    machine = x86_64.MACHINES["x86-64"]()
    assert (
        eight_problems.one_ring_for_two(asking("MOV Sreg, r16", "NOP", machine=machine), False).present is YES
    )
    assert eight_problems.silent_reads(asking("SGDT m", machine=machine), False).present is YES
    assert eight_problems.lost_interrupt_flag(asking("POPFQ", machine=machine), False).present is YES


@pytest.mark.parametrize(
    ("name", "form", "lost", "traps"),
    [
        ("pdp11-45", "SPL", YES, NO),  # in user mode it does nothing
        ("s370", "SSM D2(B2)", NO, YES),
        ("pdp10-ks10", "WRPI", NO, YES),
        ("ia64", "rsm imm24", NO, YES),
    ],
)
def test_every_kind_of_interrupt_mask_is_asked_about(name: str, form: str, lost: Truth, traps: Truth) -> None:
    machine = find_machine(name)
    (instruction,) = machine.find(form)
    asked = asking(instruction.form, machine=machine)
    assert eight_problems.lost_interrupt_flag(asked, False).present is lost
    assert eight_problems.trapping_interrupt_flag(asked, False).present is traps


def test_a_mask_of_which_the_vmm_has_another_value_is_not_lost_where_the_guest_does_not_change_it() -> None:
    machine = find_machine("ia64")
    machine.interrupt_masks = ("psr.i", "cr.tpr")
    asked = asking("rum imm24", machine=machine, technique="vt-i")
    assert eight_problems.lost_interrupt_flag(asked, False).present is NO


@pytest.mark.parametrize("name", makers())
def test_interrupt_masks_are_leaves_of_the_machine(name: str) -> None:
    machine = find_machine(name)
    assert set(machine.interrupt_masks) <= {leaf.name for leaf in machine.state.leaves}
    assert machine.interrupt_masks or name == "pg74"


def test_a_machine_without_an_interrupt_flag_is_not_asked_about_it() -> None:
    asked = asking("GMODE a", machine=pg74.MACHINES["pg74"]())
    assert eight_problems.lost_interrupt_flag(asked, False).present is Truth.NOT_ASKED
    assert eight_problems.trapping_interrupt_flag(asked, False).present is Truth.NOT_ASKED
    (found,) = eight_problems.ask(eight_problems.find(["interrupt-virtualization"]), asked)
    assert found.present is Truth.NOT_ASKED
    assert not found.unknown


def test_hidden_state_is_unknown_where_the_program_for_it_cannot_be_written() -> None:
    machine = ia32.MACHINES["ia32"]()
    del machine.instructions["MOV m32, r32"]
    assert eight_problems.no_way_back(asking(machine=machine), False).present is Truth.UNKNOWN


def test_hidden_state_is_not_asked_of_a_machine_that_names_no_program_for_it() -> None:
    asked = asking(machine=pg74.MACHINES["pg74"]())
    assert eight_problems.no_way_back(asked, False).present is Truth.NOT_ASKED


@pytest.mark.parametrize(
    ("name", "form"), [("pg74", "SVC"), ("s370", "SVC I"), ("pdp11-45", "EMT t"), ("ia64", "break imm21")]
)
def test_a_supervisor_call_that_traps_goes_to_the_vmm(name: str, form: str) -> None:
    found = eight_problems.system_calls(asking(form, machine=find_machine(name)), False)
    assert found.present is YES
    assert found.witness is not None
    assert found.witness.second is not None
    assert isinstance(found.witness.second.outcome, Trap)


def test_a_fault_that_goes_to_the_guest_is_no_system_call_into_the_vmm() -> None:
    machine = find_machine("ia32-vt-x")
    assert eight_problems.system_calls(asking("UD2", machine=machine), True).present is NO


def test_examples_and_code_are_instructions_of_the_machine() -> None:
    for name in makers():
        machine = find_machine(name)
        for forms in machine.practice.examples.values():
            assert any(form in machine.instructions for form in forms), (name, forms)


def test_an_unknown_problem_is_refused_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="ring-aliasing"):
        eight_problems.find(["ring-alias"])
