"""Deliberate mistakes in semantics, each caught by a check that is named.

A check is a statement of a manual or a publication.  It holds of the machine as it is and fails on the
machine with the mistake; so the check is not empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from machine_shop import NO, YES, classified, promised, replaced

from popek.architectures.ia32 import MACHINES as IA32
from popek.architectures.ia32 import access
from popek.architectures.ia32.instructions import (
    control_registers,
    descriptor_tables,
    far_transfers,
    flags,
    port_io,
    protection,
)
from popek.architectures.ia32.state import Ia32
from popek.architectures.pg74 import machine as pg74
from popek.architectures.pg74.state import MEMORY_TRAP, Pg74
from popek.architectures.x86.access import MemoryOperand
from popek.architectures.x86.exceptions import GP, NP
from popek.architectures.x86.flags import IF
from popek.checks.runs import explore_instruction
from popek.checks.verdict import Status
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault, Next, Trap
from popek.kernel.state import State
from popek.kernel.words import TRUE, Word, all_of
from popek.solving.solver import Answer, holds

Made = Machine[Any]
Patch = pytest.MonkeyPatch
RING_1, RING_3 = "ring-deprivileging-0/1/3", "ring-deprivileging-0/3/3"


def ia32() -> Made:
    """A fresh machine, which a mutation may change."""
    return IA32["ia32"]()


# -- checks: statements of manuals and publications -----------------------------------------------


def lgdt_is_privileged(machine: Made) -> bool:
    return classified(machine, "LGDT m16&32").privileged is YES


def hlt_is_privileged(machine: Made) -> bool:
    return classified(machine, "HLT").privileged is YES


def umip_makes_smsw_privileged(machine: Made) -> bool:
    return classified(machine, "SMSW r32", "UMIP=1").privileged is YES


def umip_takes_sidt_off_the_list(machine: Made) -> bool:
    return classified(machine, "SIDT m", "UMIP=1").critical is NO


def iopl_1_makes_cli_critical_at_ring_1(machine: Made) -> bool:
    return classified(machine, "CLI", "IOPL=1", technique=RING_1).critical is YES


def out_traps_at_ring_1_without_permission(machine: Made) -> bool:
    return classified(machine, "OUT DX, AL", "IOPL=0", technique=RING_1).privileged is YES


def popf_in_user_mode_changes_no_resource(machine: Made) -> bool:
    found = classified(machine, "POPFD", "IOPL=0", technique=RING_1)
    return found.truth("user_control_sensitive") is NO


def lar_shows_the_privilege_level(machine: Made) -> bool:
    return classified(machine, "LAR r32, r16", technique=RING_1).truth("mode_sensitive") is YES


def tsd_makes_rdtsc_privileged(machine: Made) -> bool:
    return classified(machine, "RDTSC", "TSD=1", technique=RING_3).privileged is YES


def the_level_is_checked_before_the_operand(machine: Made) -> bool:
    """LLDT above CPL 0 never gets as far as a storage reference."""
    run = explore_instruction(machine, machine.instructions["LLDT m16"])
    claims = []
    for path in run.paths:
        if isinstance(path.result, Trap) and path.result.memory:
            claims.append(~path.condition | (run.before.cpl == 0))
    assert claims
    return holds(all_of(claims), [machine.invariant(run.before)]) is Answer.UNSAT


def pushf_shows_the_interrupt_flag(machine: Made) -> bool:
    found = classified(machine, "PUSHFD", components=True)
    return "eflags.if" in found.components


def an_error_code_has_no_rpl(machine: Made) -> bool:
    """A far jump to a selector outside the table: #GP(selector with RPL cleared)."""
    return trapped(machine, 0x0FF3, {}) == ("#GP", 0x0FF0)


def privilege_is_checked_before_presence(machine: Made) -> bool:
    """A far jump to an absent code segment of another level: #GP, not #NP."""
    absent = {0x2D: 0x7B}  # DPL 3, S, code, readable, accessed; not present
    assert trapped(machine, 0x28, {0x2D: 0x1B}) == ("#NP", 0x28), "of its own level it is #NP"
    return trapped(machine, 0x28, absent) == ("#GP", 0x28)


def popf_leaves_a_state_that_exists(machine: Made) -> bool:
    state = machine.state.reset()
    state.memory = state.memory.store_little_endian(Word(32, 0x8000), Word(32, 0xFFFFFFFF))
    after = completed(machine, "POPFD", state)
    return machine.invariant(after).value == 1


def a_strapped_grel_is_privileged(machine: Made) -> bool:
    return classified(machine, "GREL a").privileged is YES


def move_keeps_within_the_guests_storage(machine: Made) -> bool:
    return promised(machine, "MOVE a, b").safety.status is Status.HOLDS


def adding_is_innocuous(machine: Made) -> bool:
    return classified(machine, "ADD a, b").innocuous is YES


# -- running on numbers ---------------------------------------------------------------------------


def step(machine: Made, form: str, state: State, **parts: int) -> Any:
    """The outcome of a form; parts that are not given take the first value that is valid."""
    instruction, words = machine.instructions[form], {}
    for operand in instruction.inputs:
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True):
            words[name] = Word(width, parts.get(part, operand.kind.first.get(part, 0)))
    return machine.step(instruction, state, words)


def completed(machine: Made, form: str, state: State) -> Any:
    outcome = step(machine, form, state)
    assert isinstance(outcome, Next), outcome
    return outcome.state


def trapped(machine: Made, selector: int, descriptor: dict[int, int]) -> tuple[str, int]:
    """How a far jump to a selector traps, at CPL 0 with a GDT of six entries at address 0."""
    state = machine.state.reset(gdtr__limit=0x2F)
    for address, value in descriptor.items():
        state.memory = state.memory.store(Word(32, address), Word(8, value))
    outcome = step(machine, "JMP ptr16:32", state, selector=selector)
    assert isinstance(outcome, Trap), outcome
    assert outcome.error_code is not None
    return outcome.vector.name, int(outcome.error_code)


# -- mutations ------------------------------------------------------------------------------------


def lgdt_without_its_cpl_check(patch: Patch) -> Made:
    patch.setattr(descriptor_tables, "privileged", lambda cpu: None)
    return ia32()


def hlt_for_everyone(patch: Patch) -> Made:
    def hlt(cpu: Ia32) -> None:
        cpu.halted = Word(1, 1)

    return replaced(ia32(), "HLT", hlt)


def umip_at_every_level(patch: Patch) -> Made:
    def prevented(cpu: Ia32) -> None:
        if cpu.cr4.umip:
            raise Fault(GP, 0)

    patch.setattr(control_registers, "user_mode_instruction_prevention", prevented)
    return ia32()


def umip_forgotten(patch: Patch) -> Made:
    patch.setattr(descriptor_tables, "user_mode_instruction_prevention", lambda cpu: None)
    return ia32()


def cli_below_iopl_only(patch: Patch) -> Made:
    def cli(cpu: Ia32) -> None:
        if cpu.cpl >= cpu.eflags.iopl:
            raise Fault(GP, 0)
        cpu.eflags.if_ = 0

    return replaced(ia32(), "CLI", cli)


def ports_without_permission_check(patch: Patch) -> Made:
    patch.setattr(port_io, "check_io_permission", lambda cpu, port, size: None)
    return ia32()


def popf_writes_if_at_every_level(patch: Patch) -> Made:
    patch.setattr(flags, "STATUS_AND_PROGRAM", flags.STATUS_AND_PROGRAM | IF)
    return ia32()


def popf_writes_reserved_bits(patch: Patch) -> Made:
    patch.setattr(flags, "STATUS_AND_PROGRAM", 0xFFFFFFFF)
    return ia32()


def lar_blind_to_privilege(patch: Patch) -> Made:
    original = protection._visible

    class AtLevel0:
        """The processor as if it were at CPL 0."""

        def __init__(self, cpu: Ia32) -> None:
            self._cpu = cpu

        def __getattr__(self, name: str) -> Any:
            return Word(2, 0) if name == "cpl" else getattr(self._cpu, name)

    patch.setattr(protection, "_visible", lambda cpu, *rest: original(AtLevel0(cpu), *rest))  # type: ignore[arg-type]
    return ia32()


def rdtsc_trapping_at_level_0_too(patch: Patch) -> Made:
    def rdtsc(cpu: Ia32) -> None:
        if cpu.cr4.tsd:
            raise Fault(GP, 0)
        cpu.gpr[0] = cpu.tsc[31:0]

    return replaced(ia32(), "RDTSC", rdtsc)


def lldt_reading_its_operand_first(patch: Patch) -> Made:
    def lldt(cpu: Ia32, m: MemoryOperand) -> None:
        selector = access.load(cpu, m, 2)
        access.privileged(cpu)
        descriptor_tables._load_ldtr(cpu, selector)

    return replaced(ia32(), "LLDT m16", lldt)


def pushf_with_if_masked(patch: Patch) -> Made:
    def pushf(cpu: Ia32, *, size: int) -> None:
        access.push(cpu, (cpu.eflags.value & 0x00FCFDFF).truncate(size))

    return replaced(ia32(), "PUSHFD", pushf)


def error_codes_with_rpl(patch: Patch) -> Made:
    for module in (far_transfers, descriptor_tables):
        patch.setattr(module, "error_code", lambda selector: selector)
    from popek.architectures.x86 import descriptors

    patch.setattr(descriptors, "error_code", lambda selector: selector)
    return ia32()


def presence_checked_before_privilege(patch: Patch) -> Made:
    original = far_transfers._to_code_segment

    def swapped(cpu: Ia32, selector: Word, descriptor: Any, *rest: Any, **settings: Any) -> None:
        if not descriptor.p:
            raise Fault(NP, far_transfers.error_code(selector))
        original(cpu, selector, descriptor, *rest, **settings)

    patch.setattr(far_transfers, "_to_code_segment", swapped)
    return ia32()


def grel_silent_in_spite_of_its_strap(patch: Patch) -> Made:
    def grel(cpu: Pg74, a: Word) -> None:
        cpu.store(a, cpu.relocation.base.zero_extend(32))

    return replaced(pg74.build(), "GREL a", grel)


def bound_checked_one_too_far(patch: Patch) -> Made:
    def real_address(cpu: Pg74, reference: Word) -> Word:
        if reference > cpu.relocation.bound:
            raise MemoryFault(MEMORY_TRAP)
        return cpu.relocation.base + reference

    patch.setattr(Pg74, "real_address", real_address)
    return pg74.build()


def references_without_relocation(patch: Patch) -> Made:
    patch.setattr(Pg74, "real_address", lambda cpu, reference: reference)
    return pg74.build()


MUTATIONS: list[tuple[Callable[[Patch], Made], Callable[[Made], bool]]] = [
    (lgdt_without_its_cpl_check, lgdt_is_privileged),
    (hlt_for_everyone, hlt_is_privileged),
    (umip_at_every_level, umip_makes_smsw_privileged),
    (umip_forgotten, umip_takes_sidt_off_the_list),
    (cli_below_iopl_only, iopl_1_makes_cli_critical_at_ring_1),
    (ports_without_permission_check, out_traps_at_ring_1_without_permission),
    (popf_writes_if_at_every_level, popf_in_user_mode_changes_no_resource),
    (popf_writes_reserved_bits, popf_leaves_a_state_that_exists),
    (lar_blind_to_privilege, lar_shows_the_privilege_level),
    (rdtsc_trapping_at_level_0_too, tsd_makes_rdtsc_privileged),
    (lldt_reading_its_operand_first, the_level_is_checked_before_the_operand),
    (pushf_with_if_masked, pushf_shows_the_interrupt_flag),
    (error_codes_with_rpl, an_error_code_has_no_rpl),
    (presence_checked_before_privilege, privilege_is_checked_before_presence),
    (grel_silent_in_spite_of_its_strap, a_strapped_grel_is_privileged),
    (bound_checked_one_too_far, move_keeps_within_the_guests_storage),
    (references_without_relocation, adding_is_innocuous),
]
NAMES = [f"{mutation.__name__}, {check.__name__}" for mutation, check in MUTATIONS]


@pytest.mark.parametrize(("mutation", "check"), MUTATIONS, ids=NAMES)
def test_a_check_holds_of_the_machine_and_catches_its_mutation(
    mutation: Callable[[Patch], Made], check: Callable[[Made], bool], monkeypatch: Patch
) -> None:
    with monkeypatch.context() as patch:
        mutant = mutation(patch)
        assert not check(mutant), f"{check.__name__} does not notice {mutation.__name__}"
    sound = pg74.build() if mutant.name == "pg74" else ia32()
    assert check(sound)


def test_a_run_that_looks_whether_it_is_on_numbers_breaks_the_law_of_one_semantics() -> None:
    machine = pg74.build()

    def cheating(cpu: Pg74, a: Word) -> None:
        cpu.pc = a + 1 if a.concrete else a

    replaced(machine, "JUMP a", cheating)
    run = explore_instruction(machine, machine.instructions["JUMP a"])
    (path,) = run.paths
    operands = {"operand a": Word(8, 5)}
    before = machine.state.reset()
    concrete = machine.step(machine.instructions["JUMP a"], before, operands)
    assert path.condition.value == TRUE.value
    assert isinstance(path.result, Next)
    assert isinstance(concrete, Next)
    symbolic = path.result.state.substituted({**before.words(), **operands}, {})
    assert int(symbolic["pc"]) == 5
    assert int(concrete.state["pc"]) == 6
