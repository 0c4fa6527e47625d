"""Looks for what is wrong with an entry: of one pair of arrivals after another, and on numbers what is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from popek.kernel.outcome import Outcome
from popek.kernel.state import State
from popek.kernel.words import Word, any_of
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .arrivals import Arrival, DirtyTrap
from .counterexample import StateDifference, differences
from .premise import Premise
from .presence import plainest_given
from .verdict import Evidence, Question, Truth

if TYPE_CHECKING:
    from .entering import Entry
    from .premises import Premises

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False)
class EntryFault:
    """A way to go wrong: words for it, and when (width 1); or that the model does not say."""

    how: str
    when: Word
    silent: bool = False


@attrs.frozen(eq=False)
class ArrivalPair(Generic[S]):
    """TrapArrivals from the images of two guests.

    Attributes:
        ways: the forms that trap so, on numbers; None where the state is the image.
        exact: there are such arrivals; otherwise more than these.
        renamed: the other form has operands of its own.
    """

    mine: Arrival[S]
    theirs: Arrival[S]
    ways: tuple[DirtyTrap[S] | None, DirtyTrap[S] | None] = (None, None)
    exact: bool = True
    renamed: bool = False


End = tuple[Word, "Outcome[S]"]
Asked = Callable[[ArrivalPair[S], S], Iterator[EntryFault]]
Replayed = tuple[bool, tuple[StateDifference, ...]]
"""Whether numbers show what the solver found, and in what."""
Replay = Callable[[ArrivalPair[S], Sequence[S], Mapping[str, Word]], Replayed]


class EntrySearch(Generic[S]):
    """One question, asked of one pair of arrivals after another."""

    def __init__(
        self, entry: Entry[S], name: str, wrong: Asked[S], other: S, ask: Asker, given: Sequence[Word]
    ) -> None:
        self._entry, self._name, self._wrong, self._other, self._ask = entry, name, wrong, other, ask
        self._given = given
        p = entry.premises
        self._title = f"{p.machine.name}: {name} fails for {entry.name} under {p.technique.name}"
        self._asked: list[SolverQuery] = []
        self._excluded: list[Word] = []
        self._unsure = ""
        self._latest: EntryFault | None = None

    def of(self, pair: ArrivalPair[S]) -> Answer:
        """Whether something is wrong with a pair, as far as can be said of it."""
        answer = Answer.UNSAT
        for one in self._wrong(pair, self._other):
            if one.when.value == 0:
                continue
            asked: list[SolverQuery] = []
            found = self._ask.first([[one.when]], asked=asked)
            if found is Answer.UNSAT:
                self._asked += asked
                self._excluded.append(one.when)
            elif not pair.exact:
                return found
            elif found is Answer.SAT and not one.silent:
                self._latest = one
                return found
            else:
                self._unsure = self._unsure or one.how
                self._asked += asked
                answer = Answer.UNKNOWN
        return answer

    def holds(self) -> Premise[S]:
        """Nothing was found."""
        unsure = Answer.UNKNOWN if self._unsure else Answer.UNSAT
        question = Question(self._title, [*self._given, any_of(self._excluded)])
        evidence = Evidence(question, unsure, tuple(self._asked))
        truth = Truth.UNKNOWN if self._unsure else Truth.YES
        return Premise(self._name, "", truth, self._unsure, evidence)

    def found(self, pair: ArrivalPair[S], replay: Replay[S]) -> Premise[S] | None:
        """What was found, on numbers; None where nothing ends so."""
        entry, p, wrong = self._entry, self._entry.premises, self._latest
        assert wrong is not None
        if pair.ways[0] is None and entry.arrivals is not None and not entry.met():
            return None
        question = Question(self._title, [*self._given, wrong.when])
        told = question.put(p.effort)
        evidence = Evidence(question, told.answer, (told,))
        form = pair.ways[0].instruction.form if pair.ways[0] is not None else ""
        how = f"{form}: {wrong.how}" if form else wrong.how
        supplied = dict(entry.supplied)
        for way, prefix, theirs in zip(pair.ways, ("mine ", "theirs "), (False, True), strict=True):
            if way is not None:
                operands = way.others_operands if theirs and pair.renamed else way.general.operands
                supplied |= {prefix + name: word for name, word in operands.items()}
        symbolic = [p.guest, p.private, self._other]
        made = partial(replay, pair)
        return found_on_numbers(p, self._name, how, question, evidence, symbolic, supplied, made)


def found_on_numbers(
    p: Premises[S],
    name: str,
    how: str,
    question: Question,
    evidence: Evidence,
    symbolic: Sequence[S],
    supplied: Mapping[str, Word],
    replay: Callable[[Sequence[S], Mapping[str, Word]], Replayed],
) -> Premise[S]:
    """What refutes a premise, if numbers show it.

    Args:
        symbolic, supplied: the states and words that the question speaks of.
    """
    states, given = plainest_given(p.machine, question, symbolic, p.effort, supplied)
    if not states:
        return Premise(name, "", Truth.UNKNOWN, how, evidence)
    seen, differ = replay(states, given)
    if not seen:
        return Premise(name, "", Truth.UNKNOWN, f"it was not found whether {how}", evidence)
    reset = p.machine.state.reset()
    shown = [{d.name: hex(d.after) for d in differences(reset, state)} for state in states]
    unlike = {d.name: [hex(d.before), hex(d.after)] for d in differ}
    numbers = {name: hex(int(word)) for name, word in given.items()}
    story = {"story": how, "states": shown, "given": numbers, "differ": unlike}
    return Premise(name, "", Truth.NO, how, evidence, lambda: story)


__all__ = [
    "ArrivalPair",
    "Asked",
    "End",
    "EntryFault",
    "EntrySearch",
    "Replay",
    "Replayed",
    "found_on_numbers",
]
