"""A machine tried before it is believed: its declaration, the law that ties its uses together, and what looks odd.

The law: of every state on numbers exactly one path of the exploration is taken, and what the path says comes to the
same as the run on numbers.  A semantics breaks it that is not a function of the state: one that counts its calls, or
looks at Python values instead of words.  The same is asked of what it does besides: deliveries, interrupts, relocation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import TypeVar

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.declaration import advice, mistakes
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import DeclarationError, SemanticsError, Trap
from popek.kernel.state import Role, State, leaves_with
from popek.solving.solver import Answer, Effort

from .presence import NothingToAskError, present
from .runs import Run, explore_instruction
from .subject import Subject
from .trial_entries import TrialEntries
from .trial_finding import TrialFinding, TrialKind
from .trial_law import RandomStates, unlike
from .verdict import Question

S = TypeVar("S", bound=State)

STATES = 32
_MANY = 3  # forms that a choice by the mode concerns, from which on it is a register bank


def tried(subject: Subject[S], *, states: int = STATES, seed: int = 0) -> Iterator[TrialFinding]:
    """What is wrong or odd with a machine; an iterator, so that progress can be shown.

    Args:
        states: on numbers, per form.
        seed: of their choice.
    """
    machine = subject.machine
    wrong = [TrialFinding(TrialKind.MISTAKE, "", line) for line in mistakes(machine)]
    yield from wrong
    if wrong:
        return
    try:
        start = next(iter(present(subject).states.values()))[0]
    except (NothingToAskError, DeclarationError) as error:
        yield TrialFinding(TrialKind.MISTAKE, "", str(error))
        return
    known = RandomStates(machine, start, random.Random(seed))
    told = _Told()
    runs: dict[str, Run[S]] = {}
    traps: list[tuple[S, Trap[S]]] = []
    for form, instruction in machine.instructions.items():
        try:
            runs[form] = explore_instruction(machine, instruction, subject.effort)
        except PathBudgetError as error:
            yield TrialFinding(TrialKind.LIMIT, form, f"{form}: {error}")
            continue
        except SemanticsError as error:
            yield from told.once(form, error)
            continue
        yield from _steps(known, instruction, runs[form], states, told, traps)
    beside = TrialEntries(machine, known, subject.effort, states)
    yield from beside.deliveries(traps)
    yield from beside.interruptions()
    yield from beside.relocation()
    yield from (TrialFinding(TrialKind.ADVICE, "", line) for line in advice(machine))
    if not told.forms:  # of what could not be explored nobody knows what it uses
        yield from _odd(machine, runs)


class _Told:
    """Mistakes in semantics: what several forms run into is told once."""

    def __init__(self) -> None:
        self.forms: dict[str, str] = {}  # the first form, by what is wrong

    def once(self, form: str, error: SemanticsError) -> Iterator[TrialFinding]:
        """The mistake, if no form before ran into it at the same place."""
        where, _, wrong = str(error).rpartition(f", {form}: ")
        known = f"{where}: {wrong}"
        if known not in self.forms:
            self.forms[known] = form
            yield TrialFinding(TrialKind.MISTAKE, form, str(error))


def _steps(
    known: RandomStates[S],
    instruction: Instruction,
    run: Run[S],
    states: int,
    told: _Told,
    traps: list[tuple[S, Trap[S]]],
) -> Iterator[TrialFinding]:
    """The first step on numbers that breaks the law; the traps that are met are kept."""
    form, machine = instruction.form, known.machine
    for _ in range(states):
        state, operands = known.state(), known.operands(instruction)
        if operands is None:
            return
        try:
            concrete = machine.step(instruction, state, operands)
        except SemanticsError as error:
            yield from told.once(form, error)
            return
        how = unlike(run, state, operands, concrete)
        if how:
            yield TrialFinding(TrialKind.LAW, form, f"{form}: {how}, from {state!r}")
            return
        if isinstance(concrete, Trap):
            traps.append((state, concrete))


# -- what looks odd -------------------------------------------------------------------------------


def _odd(machine: Machine[S], runs: Mapping[str, Run[S]]) -> Iterator[TrialFinding]:
    """What a machine's forms, taken together, do not use, or use in a way that is a mistake more often."""
    read = {name for run in runs.values() for name in run.mentioned}
    written = {form: set(_written(run)) for form, run in runs.items()}
    anything = set().union(*written.values())
    for leaf in machine.state.leaves:
        used = leaf.component in read or leaf.name in anything
        if not used and leaf.role not in (Role.GENERAL, Role.PC):
            yield TrialFinding(TrialKind.ADVICE, "", f"{leaf.name}: no instruction reads or changes it")
    state = machine.state.symbolic()
    for setting in machine.settings:
        held = [Configuration({setting.name: value}).holds(machine, state).term for value in setting.values]
        spoken = set(terms.variables_of(held))
        if spoken and not spoken & (
            read | {leaf.component for leaf in machine.state.leaves if leaf.name in anything}
        ):
            yield TrialFinding(
                TrialKind.ADVICE, "", f"setting {setting.name}: no instruction reads what it speaks of"
            )
    yield from _banked(machine, runs)
    yield from _like_a_resource(machine, runs, written)


def _written(run: Run[S]) -> Iterator[str]:
    before = run.before
    for _, after in run.completions():
        yield from (
            leaf.name for leaf in before.leaves if after[leaf.name].term is not before[leaf.name].term
        )


def _banked(machine: Machine[S], runs: Mapping[str, Run[S]]) -> Iterator[TrialFinding]:
    """Forms that choose between two registers by the mode, and say nothing else of it."""
    modes = {leaf.component for leaf in leaves_with(machine.state, [Role.MODE])}
    found = []
    for form, run in runs.items():
        # A condition on the mode alone is a check of privilege; one on what the bank holds is what the choice brings.
        decided = any(
            {*terms.variables_of([c])} and {*terms.variables_of([c])} <= modes
            for path in run.paths
            for c in path.conditions
        )
        results = [
            word.term
            for _, after in run.completions()
            for name, word in after.words().items()
            if name not in modes and word.term is not run.before.words()[name].term
        ]
        if not decided and modes & set(terms.variables_of(results)):
            found.append(form)
    if len(found) >= _MANY:
        yield TrialFinding(
            TrialKind.ADVICE,
            "",
            f"{', '.join(found[:4])}{' and more' if len(found) > 4 else ''} choose a register by the mode, so each is "
            "mode-sensitive: if it is a bank of registers, declare the one in use as a component of its own, and "
            "exchange it where the mode changes",
        )


def _like_a_resource(
    machine: Machine[S], runs: Mapping[str, Run[S]], written: Mapping[str, set[str]]
) -> Iterator[TrialFinding]:
    """General leaves that nothing changes but what can trap otherwise than on storage."""
    for leaf in machine.state.leaves:
        writers = [form for form, names in written.items() if leaf.name in names]
        if leaf.role is Role.GENERAL and writers and all(_guarded(machine, runs[form]) for form in writers):
            yield TrialFinding(
                TrialKind.ADVICE,
                "",
                f"{leaf.name} has the role general, and only {', '.join(writers[:3])} can change it, which trap in "
                "user mode: is it a resource?",
            )


def _guarded(machine: Machine[S], run: Run[S]) -> bool:
    """Whether it can trap otherwise than on storage, and cannot complete in user mode."""
    if run.traps_not_on_memory.value == 0:
        return False
    completes = [machine.invariant(run.before), machine.user(run.before), run.completes]
    return Question(f"{machine.name}: completes in user mode", completes).ask(Effort())[0] is Answer.UNSAT
