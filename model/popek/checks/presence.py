"""Is there anything to ask about?  Before any verdict the states that its questions range over are found.

A configuration that contradicts itself, an invariant that nothing satisfies, a machine without instructions: of all
of these every universal sentence is true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import attrs

from popek.errors import PopekError
from popek.kernel import terms
from popek.kernel.declaration import assert_declared
from popek.kernel.machine import Machine
from popek.kernel.outcome import DeclarationError
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.words import Word, symbol
from popek.solving.solver import Answer, Effort

from .counterexample import concretize, differences, leaf_preferences
from .minimizer import Minimizer
from .runs import operating_mode
from .subject import Subject
from .verdict import Question

S = TypeVar("S", bound=State)


TWIN = "user state and supervisor twin"


class NothingToAskError(PopekError):
    """The questions would be about nothing; the message says what is missing."""


@attrs.frozen(eq=False, slots=False)
class Present(Generic[S]):
    """States that the questions about a machine under a technique range over.

    Attributes:
        undecided: what could not be found within the bounds, and not be excluded.
    """

    undecided: tuple[str, ...]
    _found: tuple[tuple[str, Machine[S], Question, tuple[S, ...]], ...]
    _effort: Effort

    @cached_property
    def states(self) -> dict[str, tuple[S, ...]]:
        """Per kind of question the plainest states, on numbers."""
        return {
            name: plainest(machine, question, states, self._effort)
            for name, machine, question, states in self._found
        }

    def to_json(self) -> dict[str, list[dict[str, str]]]:
        """What differs from the reset state, by leaf and cell."""
        return {
            name: [{d.name: hex(d.after) for d in differences(type(s).reset(), s)} for s in states]
            for name, states in self.states.items()
        }


def present(subject: Subject[S]) -> Present[S]:
    """The states that questions need: one of the configuration, a user's, a guest and f(G, P); and a user's twin.

    Raises:
        NothingToAskError: there are none.
        DeclarationError: the machine or the technique is declared in a way that means nothing.
    """
    machine, technique, effort = subject.machine, subject.technique, subject.effort
    assert_declared(machine, [technique])
    state = machine.state.symbolic().with_changes(operating_mode(machine, subject.configuration))
    modes = {
        leaf.name: symbol(leaf.name + "'", leaf.width) for leaf in leaves_with(machine.state, [Role.MODE])
    }
    twin = state.with_changes(dict(modes))
    private = machine.state.symbolic("@vmm")
    image = technique.map(state, private)
    exists = [machine.invariant(state)]
    settings = [subject.holds(state)]
    user = [*exists, *settings, technique.deprivileged(state)]
    wanted: list[tuple[str, str, list[Word], tuple[S, ...]]] = [
        (
            "state",
            f"no state of {machine.name} fulfils {subject.configuration}",
            [*exists, *settings],
            (state,),
        ),
        (
            "user state",
            f"{subject}: there is no user state",
            user,
            (state,),
        ),
        (
            TWIN,
            "",  # without one, what differs by mode alone is not asked
            [*user, machine.supervisor(twin), machine.invariant(twin), subject.holds(twin)],
            (state, twin),
        ),
        (
            "guest and what the VMM keeps",
            f"{subject}: there is no guest that the technique can run",
            [
                *exists,
                technique.guest(state),
                technique.private(state, private),
                machine.invariant(image),
                subject.holds(image),
            ],
            (state, private),
        ),
        (
            "guest's image in user mode",
            f"{subject}: the map never leads to a state that `deprivileged` calls one of user mode",
            [
                *exists,
                technique.guest(state),
                technique.private(state, private),
                machine.invariant(image),
                subject.holds(image),
                technique.deprivileged(image),
            ],
            (state, private),
        ),
    ]
    _assert_modes_apart(machine, state, exists, effort)
    found, undecided = [], []
    for name, otherwise, conditions, states in wanted:
        question = Question(f"{machine.name}: there is a {name}", conditions)
        answer, _, _ = question.ask(effort)
        if answer is Answer.UNSAT and not otherwise:
            _assert_a_supervisor(machine, effort)
            continue
        if answer is Answer.UNSAT:
            raise NothingToAskError(f"{otherwise}; whatever is said of nothing is true")
        if answer is Answer.SAT:
            found.append((name, machine, question, states))
        else:
            undecided.append(name)
    return Present(tuple(undecided), tuple(found), effort)


def _assert_modes_apart(machine: Machine[S], state: S, exists: Sequence[Word], effort: Effort) -> None:
    """No state is in supervisor and in user mode: `mode-sensitive` compares the two."""
    both = Question(
        f"{machine.name}: a state of both modes", [*exists, machine.supervisor(state), machine.user(state)]
    )
    if both.ask(effort)[0] is Answer.SAT:
        raise DeclarationError(
            f"{machine.name}: supervisor and user overlap: expected conditions of which no state fulfils both"
        )


def _assert_a_supervisor(machine: Machine[Any], effort: Effort) -> None:
    """Where a configuration has no supervisor state beside a user's, the machine has one in another."""
    state = machine.state.symbolic()
    there = [machine.invariant(state), machine.supervisor(state)]
    if Question(f"{machine.name}: there is a supervisor state", there).ask(effort)[0] is Answer.UNSAT:
        raise NothingToAskError(
            f"{machine.name}: there is no supervisor state; whatever is said of nothing is true"
        )


def plainest(machine: Machine[S], question: Question, states: Sequence[S], effort: Effort) -> tuple[S, ...]:
    """The plainest states that fulfil a question, on numbers; none where it has no answer."""
    return plainest_given(machine, question, states, effort, {})[0]


def plainest_given(
    machine: Machine[S],
    question: Question,
    states: Sequence[S],
    effort: Effort,
    given: Mapping[str, Word],
) -> tuple[tuple[S, ...], dict[str, Word]]:
    """The plainest states that fulfil a question, and what else is given in it, on numbers; none without an answer.

    Args:
        given: words of the question, by name.
    """
    _, model, solver = question.ask(effort)
    if model is None or solver is None:
        return (), {}
    minimizer = Minimizer(solver, question.conditions)
    known: Mapping[str, Any] = minimizer.variables
    reset = machine.state.reset()
    wishes = [wish for state in states for wish in leaf_preferences(state, reset, known)]
    wishes += [(word.term, terms.const(word.width, 0)) for word in given.values()]
    cells = minimizer.cells()
    wishes += [(cell, terms.const(cell.width, 0)) for cell in cells]
    model = minimizer.run(model, wishes)
    numbers = {name: Word(word.width, model(word.term)) for name, word in given.items()}
    return tuple(concretize(state, model, cells, known, reset) for state in states), numbers
