"""A machine tried before it is believed: its declaration, the law that ties its uses together, and what looks odd.

The law: of every state on numbers exactly one path of the exploration is taken, and what the path says comes to the
same as the run on numbers.  A semantics breaks it that is not a function of the state: one that counts its calls, or
looks at Python values instead of words.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.declaration import advice, mistakes
from popek.kernel.evaluation import evaluate
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import DeclarationError, Next, Outcome, SemanticsError, Trap
from popek.kernel.state import UNDEFINED, Role, State, leaves_with
from popek.kernel.words import Word
from popek.solving.solver import Answer, Effort

from .presence import NothingToAskError, present
from .runs import Run, explore_instruction
from .subject import Subject
from .verdict import Question

S = TypeVar("S", bound=State)

STATES = 32
_MANY = 3  # forms that a choice by the mode concerns, from which on it is a register bank


class TrialKind(enum.Enum):
    """What was found."""

    MISTAKE = "mistake"  # nothing can be asked
    LAW = "law"  # what is explored is not what runs
    LIMIT = "limit"  # more than the budget
    ADVICE = "advice"  # may be meant


@attrs.frozen
class TrialFinding:
    """One thing that was found.

    Attributes:
        form: the instruction it is about; empty where it is about the machine.
        text: a line for people.
    """

    kind: TrialKind
    form: str
    text: str

    def to_json(self) -> dict[str, str]:
        """For `popek machines --check --json`."""
        return {"kind": self.kind.value, "form": self.form, "text": self.text}


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
    runs: dict[str, Run[S]] = {}
    rng = random.Random(seed)
    for form, instruction in machine.instructions.items():
        try:
            runs[form] = explore_instruction(machine, instruction, subject.effort)
        except PathBudgetError as error:
            yield TrialFinding(TrialKind.LIMIT, form, f"{form}: {error}")
            continue
        except SemanticsError as error:
            yield TrialFinding(TrialKind.MISTAKE, form, str(error))
            continue
        yield from _Law(machine, instruction, runs[form], start, rng).broken(states)
    yield from (TrialFinding(TrialKind.ADVICE, "", line) for line in advice(machine))
    yield from _odd(machine, runs)


# -- the law --------------------------------------------------------------------------------------


@attrs.frozen
class _Contents:
    """Storage with something at every address."""

    seed: int
    width: int

    def __call__(self, address: Word) -> Word:
        mixed = (int(address) * 0x9E3779B97F4A7C15 + self.seed * 0xBF58476D1CE4E5B9) & (1 << 64) - 1
        return Word(self.width, (mixed >> 11 ^ mixed >> 37) & (1 << self.width) - 1)


@attrs.frozen
class _Law(Generic[S]):
    """The law for one form."""

    machine: Machine[S]
    instruction: Instruction
    run: Run[S]
    start: S
    rng: random.Random

    def broken(self, states: int) -> Iterator[TrialFinding]:
        """The first state that breaks it."""
        form = self.instruction.form
        for _ in range(states):
            state, operands = self._state(), self._operands()
            if operands is None:
                return
            try:
                concrete = self.machine.step(self.instruction, state, operands)
            except SemanticsError as error:
                yield TrialFinding(TrialKind.MISTAKE, form, str(error))
                return
            how = self._unlike(state, operands, concrete)
            if how:
                yield TrialFinding(TrialKind.LAW, form, f"{form}: {how}, from {state!r}")
                return

    def _state(self) -> S:
        """A random state that exists, not too far from one that is known to."""
        state = self.start.with_changes({})
        for name, content in state.memories().items():
            made = Memory(
                content.address_width,
                content.cell_width,
                _Contents(self.rng.getrandbits(32), content.cell_width),
            )
            state._memories[name] = made
        for leaf in self.rng.sample(state.leaves, len(state.leaves)):
            changed = state.with_changes({leaf.name: self._number(leaf.width)})
            if self.machine.invariant(changed).value == 1:
                state = changed
        return state

    def _number(self, width: int) -> int:
        return self.rng.choice(
            (0, 1, (1 << width) - 1, 1 << width - 1, *(self.rng.getrandbits(width),) * 4)
        ) & ((1 << width) - 1)

    def _operands(self) -> dict[str, Word] | None:
        """Random operands that exist; None where none were met."""
        for _ in range(64):
            parts = {
                name: Word(width, self._number(width)) for name, width in self.instruction.widths.items()
            }
            if self.instruction.valid(parts).value == 1:
                return parts
        return None

    def _unlike(self, state: S, operands: Mapping[str, Word], concrete: Outcome[S]) -> str:
        """What differs between the path that is taken and the run on numbers; empty if nothing does."""
        variables = {name: int(word) for name, word in (*state.words().items(), *operands.items())}
        functions = {name: _reader(content) for name, content in state.memories().items()}

        def numbers(roots: list[terms.Term]) -> list[int]:
            undefined = {name: 0 for name in terms.variables_of(roots) if name.startswith(UNDEFINED)}
            return evaluate(roots, undefined | variables, functions)

        taken = [path for path in self.run.paths if all(numbers(list(path.conditions)))]
        if len(taken) != 1:
            return f"{len(taken)} paths of the exploration are taken: it is to be a function of the state"
        said = taken[0].result
        if type(said) is not type(concrete):
            return f"explored it ends in {type(said).__name__}, on numbers in {type(concrete).__name__}"
        if not (isinstance(said, Next | Trap) and isinstance(concrete, Next | Trap)):
            return ""
        if isinstance(said, Trap) and isinstance(concrete, Trap) and said.vector != concrete.vector:
            return f"explored it raises {said.vector}, on numbers {concrete.vector}"
        words = said.state.words()
        for (name, _), expected in zip(words.items(), numbers([w.term for w in words.values()]), strict=True):
            if int(concrete.state.words()[name]) != expected:
                return (
                    f"{name} is {expected:#x} explored and {int(concrete.state.words()[name]):#x} on numbers"
                )
        for name, content in said.state.memories().items():
            for where, _ in _stores(content) | _stores(concrete.state.memories()[name]):
                address = numbers([where.term])[0] if not where.concrete else int(where)
                cell = Word(content.address_width, address)
                expected = numbers([content.load(cell).term])[0]
                if int(concrete.state.memories()[name].load(cell)) != expected:
                    return f"{name} at {address:#x} differs between exploration and numbers"
        return ""


def _reader(content: Memory) -> Callable[..., int]:
    return lambda address: int(content.load(Word(content.address_width, address)))


def _stores(content: Memory) -> set[tuple[Word, Any]]:
    return {(s[0], None) for s in content.stores if isinstance(s, tuple)}


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
