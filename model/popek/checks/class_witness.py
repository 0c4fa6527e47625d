"""Witnesses for the classes."""

from __future__ import annotations

from typing import Generic, TypeVar

from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next
from popek.kernel.state import State
from popek.kernel.terms import Term
from popek.kernel.words import Word
from popek.solving.solver import Answer, Solver

from .counterexample import (
    Counterexample,
    Executed,
    ReplayError,
    assert_replay,
    assert_within,
    differences,
    execute,
)
from .definitions import Definition
from .runs import (
    PROBE,
    probe,
)
from .subject import Subject
from .verdict import Question
from .witness import find_minimal

S = TypeVar("S", bound=State)


LABELS = {
    "control_sensitive": ("run",),
    "mode_sensitive": ("user mode", "supervisor mode"),
    "resource_sensitive": ("one value", "another value"),
    "location_sensitive": ("here", "relocated"),
}
STORIES = {
    "control_sensitive": "It completes and changes a mode or resource.",
    "mode_sensitive": "The two states differ only in mode, neither run traps, and the results differ.",
    "resource_sensitive": (
        "The two states differ only in what the technique replaces, neither run traps, and the results differ."
    ),
    "location_sensitive": "Moving the program in storage before the run or after it does not give the same.",
}


class ClassWitness(Generic[S]):
    """Makes witnesses for the classes of one form: minimal, inside what was assumed, and run again on numbers."""

    def __init__(self, subject: Subject[S], instruction: Instruction, before: S) -> None:
        self._subject, self._machine, self._instruction = subject, subject.machine, instruction
        self._before = before

    def find(
        self,
        name: str,
        question: Question,
        definition: Definition[S],
        beside: Solver | None = None,
        guess: dict[str, int] | None = None,
    ) -> Counterexample[S] | None:
        """The counterexample for a class; None where a time limit was in the way.

        Args:
            beside: a solver whose translations it shares.
            guess: as in `find_minimal`.

        Raises:
            ReplayError: a defect of popek.
        """
        runs, offset = definition.runs, definition.offset
        answer, model, solver = question.ask(self._subject.effort, beside=beside)
        if answer is Answer.UNKNOWN:  # there is one, and no time to find it again
            return None
        if model is None or solver is None:
            raise ReplayError(f"{self._instruction.form}: {name} was satisfiable and is no more")
        machine, instruction = self._machine, self._instruction
        relocate = machine.relocate if offset is not None else None
        starts = [run.before for run in (runs[:1] if relocate else runs)]
        found = find_minimal(
            machine, instruction, question, solver, model, starts, self._probes(), guess=guess
        )
        states, claim = list(found.states), name.replace("_", "-")
        kind = name.removeprefix("user_")
        if relocate:
            assert offset is not None
            distance = Word(offset.width, found.model(offset.term))
            states.append(relocate(states[0], distance))
        for state in states:
            assert_within(
                machine,
                instruction,
                claim,
                the_invariant=machine.invariant(state),
                the_configuration=self._subject.holds(state),
            )
        executed = [
            execute(machine, instruction, label, state, found.operands)
            for label, state in zip(LABELS[kind], states, strict=True)
        ]
        after = [_after(run, instruction, claim) for run in executed]
        if relocate:
            differ = differences(relocate(after[0], distance), after[1], found.addresses)
        elif len(executed) == 2:
            # A leaf that was made to differ counts only where a run changed it.
            varied = {d.name for d in differences(states[0], states[1])}
            changed = {d.name for run in executed for d in run.changes}
            differ = tuple(
                d
                for d in differences(after[0], after[1], found.addresses)
                if d.name not in varied or d.name in changed
            )
        else:
            differ = executed[0].changes
        assert_replay(bool(differ), instruction, claim, lambda: [run.describe() for run in executed])
        return Counterexample(
            claim,
            STORIES[kind],
            instruction,
            instruction.assembly(found.operands),
            differences(machine.state.reset(), states[0]),
            executed[0],
            executed[1] if len(executed) == 2 else None,
            differ,
        )

    def _probes(self) -> dict[str, Term]:
        return {
            name: probe(content, f"{PROBE} in {name}").term
            for name, content in self._before.memories().items()
        }


def _after(executed: Executed[S], instruction: Instruction, claim: str) -> S:
    outcome = executed.outcome
    if not isinstance(outcome, Next):
        raise ReplayError(f"{instruction.form}: the witness for {claim!r} {executed.describe()}")
    return outcome.state
