"""Hidden state: what is lost when the VMM takes over and gives back with what instructions can save and load.

A machine says how a program shows a hidden part of a register (`Practice.reloading`): load the register, change what
it was loaded from, use it.  Whoever saves and loads the register in between uses something else.  The operands that
are left open and the state are found by the solver, over the semantics of the instructions run one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from popek.checks.counterexample import Counterexample, Executed, ReplayError, differences
from popek.checks.runs import operating_mode
from popek.checks.subject import Subject
from popek.checks.verdict import Question, Truth
from popek.checks.witness import find_minimal
from popek.kernel.exploration import explore
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next
from popek.kernel.practice import Reloading
from popek.kernel.program import Line, line, run_lines
from popek.kernel.state import Role
from popek.kernel.words import Word, symbol
from popek.solving.pruning import Pruner
from popek.solving.solver import Answer

CLAIM = "a hidden part of a register does not survive a switch to the VMM"
STORY = (
    "A register is loaded and what it was loaded from changes.  The register works as before, until somebody saves "
    "what instructions can save of it and loads it again."
)
DISTURBED = "the VMM saves the register and loads it again before the last instruction"
_PLACE = "place of the change"


def hidden_state(
    subject: Subject[Any],
) -> tuple[Truth, Counterexample[Any] | None, tuple[str, ...]]:
    """Whether a hidden part is lost, and the program that shows it.

    The answer is no where the technique saves and loads the hidden parts as they are, or there are none; not asked
    where the machine names no program that would show one; unknown where it lacks an instruction of that program.

    Raises:
        ReplayError: a defect of popek.
    """
    machine, technique, effort = subject.machine, subject.technique, subject.effort
    if technique.keeps_hidden or not any(leaf.role is Role.HIDDEN for leaf in machine.state.leaves):
        return Truth.NO, None, ()
    known = machine.practice.reloading
    if known is None:
        return Truth.NOT_ASKED, None, ()
    if any(form not in machine.instructions for form, _ in (known.load, known.change, known.use)):
        return Truth.UNKNOWN, None, ()
    load, change, use = (line(machine, *step) for step in (known.load, known.change, known.use))
    state = machine.state.symbolic().with_changes(operating_mode(machine, subject.configuration))
    place = symbol(_PLACE, change.words[known.place].width)

    def step(what: Line, before: Any, **open_parts: Word) -> Any:
        words: Mapping[str, Word] = {**what.words, **open_parts}
        outcome = machine.step(what.instruction, before, words)
        return outcome.state if isinstance(outcome, Next) else None

    def program() -> tuple[Any, Any] | None:
        """The end, undisturbed and after the register was loaded again, of the ways that complete."""
        loaded = step(load, state)
        changed = loaded and step(change, loaded, **{known.place: place})
        undisturbed = changed and step(use, changed)
        again = undisturbed and step(load, changed)
        disturbed = again and step(use, again)
        return disturbed and (undisturbed, disturbed)

    assumed = [
        machine.invariant(state),
        machine.supervisor(state),
        technique.guest(state),
        subject.holds(state),
    ]
    paths = explore(program, Pruner(effort), assume=assumed, budget=4000, unasked=lambda ends: ends is None)
    unknown = False
    for path, near in itertools.product([path for path in paths if path.result], (True, False)):
        undisturbed, disturbed = path.result or (state, state)
        conditions = [*assumed, path.condition, undisturbed[known.shown] != disturbed[known.shown]]
        if near:
            conditions += known.easy(undisturbed, disturbed)
        question = Question(f"{machine.name}: {CLAIM}", conditions)
        answer, model, solver = question.ask(effort)
        unknown = unknown or answer is Answer.UNKNOWN
        if answer is Answer.SAT and model is not None and solver is not None:
            found = find_minimal(machine, load.instruction, question, solver, model, (state,), {})
            there = {**change.operands, known.place: found.model(place.term)}
            lines = (load, Line(change.instruction, there), use)
            return Truth.YES, _witness(machine, known, found.states[0], lines), (load.instruction.form,)
    return (Truth.UNKNOWN if unknown else Truth.NO), None, ()


def _witness(
    machine: Machine[Any], known: Reloading, before: Any, lines: tuple[Line, Line, Line]
) -> Counterexample[Any]:
    load, change, use = lines
    runs: list[Executed[Any]] = []
    for label, program in (("undisturbed", lines), (DISTURBED, (load, change, load, use))):
        outcome, _ = run_lines(machine, program, before)
        runs.append(Executed(label, before, outcome, program))
    ends = [run.outcome for run in runs]
    if not all(isinstance(end, Next) for end in ends):
        raise ReplayError(f"the witness for {CLAIM!r} does not replay: {[run.describe() for run in runs]}")
    first, second = (end.state for end in ends if isinstance(end, Next))
    counters = {leaf.name for leaf in machine.state.leaves if leaf.role is Role.PC}
    differ = tuple(d for d in differences(first, second) if d.name not in counters)
    if not any(d.name == known.shown for d in differ):
        raise ReplayError(f"the witness for {CLAIM!r} does not replay: {[run.describe() for run in runs]}")
    return Counterexample(
        CLAIM,
        STORY,
        load.instruction,
        "; ".join(map(str, lines)),
        differences(machine.state.reset(), before),
        runs[0],
        runs[1],
        differ,
    )
