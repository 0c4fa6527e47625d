"""What a technique promises, per instruction: fidelity, safety, efficiency.

With G any guest state, P whatever the VMM keeps for itself, and f the technique's map, the hardware is in
f(G, P).  There, a run that traps reaches the VMM (unless the technique has the trap go to the guest), and so does one
that goes in at an entry of the VMM's, as the technique declares them.  Any other run must keep these promises:

* *Fidelity* is broken when it ends elsewhere than in f(i(G), P); or i changes natively what the VMM keeps for
  the guest in its own memory; or the instruction would have trapped on the guest's own machine; or it ends in a
  trap that goes to the guest, and the guest's own machine does not trap so, or makes something else of the trap.
* *Safety* is broken when it changes something that the VMM owns, or ends in a supervisor mode; or when, with another
  P and the same G, its result is another.

An entry without a trap is shown to be the VMM's by where the hardware goes on there (`without_trap`): both promises.
A trap that goes to the guest ends where its delivery does.  A run that traps must leave alone what the VMM owns, too
(safety).  What else it changed before it trapped must be what the guest's own machine changes with the same trap, or
the VMM must be able to tell where the guest was (fidelity).
Time is left out, as in the paper: the guest's clock is the real one, unless time is state; what a run writes to a
clock is not.

Efficiency is another kind of promise: it lists the *needless traps*, runs of an innocuous instruction
that complete natively and trap on the hardware for another reason than a storage reference.

Settings of a configuration speak of the hardware, and of the guest's own machine where the technique has no others for
it (`guest_settings`): where they are left to the guest, they are not asked of the hardware while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.state import State
from popek.kernel.words import TRUE, Word, all_of, any_of
from popek.solving.asking import SolverQuery
from popek.solving.solver import Answer

from .breach_witness import BreachWitness
from .hosted import Hosted
from .losses import Losses
from .obligation import Breach, BreachKind
from .promise import Promise, Promises
from .runs import (
    EXCLUDED,
    Run,
    conjunction,
    differing,
    there_is_none,
    together,
)
from .subject import Subject
from .verdict import Evidence, Question, Status, Truth
from .without_trap import WithoutTrap

S = TypeVar("S", bound=State)


class Keeper(Generic[S]):
    """Asks whether a technique keeps its promises on a machine under a configuration."""

    def __init__(self, subject: Subject[S]) -> None:
        self.subject = subject

    def keeps(self, instruction: Instruction, run: Run[S] | None = None) -> Promises[S]:
        """Whether the promises are kept for one form.

        Raises:
            PathBudgetError: too many paths.
        """
        questions = FormPromises(Hosted(self.subject, instruction, run))
        return Promises(
            instruction,
            questions.promise("fidelity", questions.fidelity()),
            questions.promise("safety", questions.safety()),
            *questions.needless_trap(),
        )

    def needless_trap(self, instruction: Instruction, run: Run[S] | None = None) -> Truth:
        """Whether a form can complete natively and trap on the hardware, storage references aside.

        Raises:
            PathBudgetError: too many paths.
        """
        return FormPromises(Hosted(self.subject, instruction, run)).needless_trap()[0]

    def safety(self, instruction: Instruction, run: Run[S]) -> Promise[S]:
        """Whether safety is kept for one form."""
        questions = FormPromises(Hosted(self.subject, instruction, run))
        return questions.promise("safety", questions.safety())

    def traps(self, instruction: Instruction, run: Run[S]) -> tuple[Promise[S], Promise[S]]:
        """Whether traps of one form leave the VMM able to tell where the guest was; and the form what it owns alone."""
        questions = FormPromises(Hosted(self.subject, instruction, run))
        return (
            questions.promise("what a trap tells", questions.losses()),
            questions.promise("what it leaves alone", questions.changes()),
        )

    def elsewhere(self, instruction: Instruction, run: Run[S]) -> Promise[S] | None:
        """Whether what traps past the VMM does so on the guest's own machine, and an entry without a trap is the VMM's.

        None, where nothing does either.
        """
        form = Hosted(self.subject, instruction, run)
        traps = [path.result for path in form.hardware.paths if isinstance(path.result, Trap)]
        questions = FormPromises(form)
        if not any(map(form.due.elsewhere, traps)) and not questions.without_trap:
            return None
        return questions.promise("where it leaves the guest", questions.where())

    def secrecy(self, instruction: Instruction, run: Run[S]) -> Promise[S]:
        """Whether the result of one form depends on nothing that the VMM keeps: one half of safety."""
        questions = FormPromises(Hosted(self.subject, instruction, run))
        return questions.promise("secrecy", questions.shows())


class FormPromises(Generic[S]):
    """The questions about one form."""

    def __init__(self, form: Hosted[S]) -> None:
        self._form, self._ask, self._due = form, form.ask, form.due
        self._machine, self._technique, self._instruction = form.machine, form.technique, form.instruction
        self._native, self._hardware, self._assumed = form.native, form.hardware, form.assumed
        self._without = WithoutTrap(form)

    # -- the ways to break a promise ----------------------------------------------------------

    def fidelity(self) -> Iterator[Breach]:
        """Silent where the guest expects a trap; another result; a change the VMM never learns of."""
        yield from self._due.unlike(self._form.silent_ends)
        yield from self.past()
        yield from self._without.places()
        yield from self.losses()

    def where(self) -> Iterator[Breach]:
        """What traps past the VMM is not the guest's, or what goes in without a trap does not at the VMM's."""
        yield from self.past()
        yield from self._without.places()

    @property
    def without_trap(self) -> bool:
        """Something goes in without a trap."""
        return bool(self._without.ends)

    def past(self) -> Iterator[Breach]:
        """What traps past the VMM does not so on the guest's own machine, or its delivery is another."""
        yield from self._due.faults()
        yield from self._form.passed_on.unlike()

    def losses(self) -> Iterator[Breach]:
        """What a run changed before it trapped: the guest's own machine does not, and the VMM cannot tell what was."""
        losses = Losses(self._form)
        yield from losses.breaches()
        yield from losses.by_entries(self._without.ends, self._without.going_in)

    def safety(self) -> Iterator[Breach]:
        """The VMM's components or storage change; or they show in the result."""
        yield from self.changes()
        yield from self._without.places()
        yield from self.shows()

    def changes(self) -> Iterator[Breach]:
        """The VMM's components or storage change."""
        before = self._hardware.before
        yield from self._due.changes(self._form.silent_ends)
        for conditions, after in self._form.silent_ends:
            yield Breach(
                BreachKind.CHANGES,
                "leaves the deprivileged mode, and not for an entry of the VMM's",
                conditions,
                self._machine.supervisor(after) & ~self._machine.supervisor(before),
            )
        yield from self._form.passed_on.changes()
        yield from self.changed_before_a_trap()
        yield from self._without.changes()

    def changed_before_a_trap(self) -> Iterator[Breach]:
        """A run that traps has changed the VMM's components or storage."""
        before = self._hardware.before
        owned = frozenset(self._technique.owned) - frozenset(self._technique.delivered)
        for conditions, trap, _ in self._form.dirty_traps:
            how = f"raises {trap.vector} and has changed what the VMM owns"
            yield Breach(BreachKind.CHANGES, how, conditions, self._due.changed(before, trap.state, owned))
            for changed in self._due.own_cells(before, trap.state):
                yield Breach(BreachKind.CHANGES, how, conditions, changed)

    def shows(self) -> Iterator[Breach]:
        """With another P the result is another."""
        another = self._form.another_private()
        other, assumed = self._form.arranged(another)
        passed = self._form.passed_on
        ours = [
            (c, self._due.seen(after, [self._form.private, another]))
            for c, after in (*self._form.silent_ends, *passed.ends)
        ]
        theirs = [
            (c, self._due.seen(after, [another, self._form.private]))
            for c, after in (*self._form.untrapped(other, another), *passed.ends_of(other))
        ]
        ignoring = self._form.private_parts
        began = (self._hardware.before, other.before)
        for case in differing(
            together(ours, theirs), ignoring=ignoring, time_is_state=self._form.time, began=began
        ):
            yield Breach(
                BreachKind.SHOWS,
                "its result shows what the VMM owns",
                (*case.given, *(a.term for a in assumed)),
                any_of(case.unlike.values()),
                tuple(case.unlike.values()),
                another,
            )

    def needless_trap(self) -> tuple[Truth, Evidence]:
        """Whether it can complete natively and trap on the hardware, storage references aside."""
        alternatives = [
            (conjunction(path.conditions), conjunction(conditions))
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and not path.result.memory
            for conditions, _ in self._native.completions()
        ]
        asked: list[SolverQuery] = []
        answer = self._ask.first(alternatives, asked=asked)
        title = (
            f"{self._machine.name}: {self._instruction.form} traps needlessly under {self._technique.name}"
        )
        question = Question(title, lambda: [*self._assumed, any_of(map(all_of, alternatives))])
        truth = {Answer.SAT: Truth.YES, Answer.UNSAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]
        return truth, Evidence(question, answer, tuple(asked))

    # -- verdicts -----------------------------------------------------------------------------

    def promise(self, name: str, breaches: Iterator[Breach]) -> Promise[S]:
        """Look for a breach; the question that is recorded is that of the breach, or of all of them."""
        return self.promise_on(name, breaches, {"": TRUE})[""]

    def promise_on(
        self, name: str, breaches: Iterator[Breach], sides: Mapping[str, Word]
    ) -> dict[str, Promise[S]]:
        """The same of guests of several kinds, asked about together first.

        Args:
            sides: for which guests, a condition (width 1) each; every guest is of one of them.
        """
        title = f"{self._machine.name}: {self._instruction.form} breaks {name} under {self._technique.name}"
        asked: dict[str, list[SolverQuery]] = {side: [] for side in sides}
        together: list[SolverQuery] = []
        excluded: list[Word] = []
        found: dict[str, Promise[S]] = {}
        hard: list[tuple[str, Breach]] = []
        unsaid: dict[str, str] = {}
        for breach in breaches:
            if breach.conditions:
                excluded.append(conjunction(condition.term for condition in breach.conditions))
            if len(sides) > 1 and self._possible(breach, together)[0] is Answer.UNSAT:
                continue
            for side, where in sides.items():
                if side in found:
                    continue
                narrowed = (
                    breach if where is TRUE else attrs.evolve(breach, given=(where.term, *breach.given))
                )
                answer, narrowed = self._possible(narrowed, asked[side])
                if answer is Answer.SAT and breach.silent:
                    unsaid.setdefault(side, breach.how)
                elif answer is Answer.SAT:
                    found[side] = self._broken(title, narrowed, asked[side][-1])
                elif answer is Answer.UNKNOWN:
                    hard.append((side, narrowed))
            if len(found) == len(sides):
                return found
        # What little work among the form's other questions does not decide is asked alone, if it still matters.
        unknown: set[str] = set()
        for side, breach in hard:
            if side not in found:
                alone = Question(title, [*self._assumed, *breach.conditions]).put(self._form.subject.effort)
                asked[side].append(alone)
                if alone.answer is Answer.SAT and breach.silent:
                    unsaid.setdefault(side, breach.how)
                elif alone.answer is Answer.SAT:
                    found[side] = self._broken(title, breach, alone)
                elif alone.answer is Answer.UNKNOWN:
                    unknown.add(side)
        excluded += [way for way, _ in self._form.ruled_out]
        ruled_out = [one for _, some in self._form.ruled_out for one in some]
        for side, where in sides.items():
            if side not in found:
                queries = (*together, *asked[side], *ruled_out)
                told = unsaid.get(side, "")
                found[side] = self._unbroken(title, where, excluded, queries, told, unknown=side in unknown)
        return found

    def _possible(self, breach: Breach, asked: list[SolverQuery]) -> tuple[Answer, Breach]:
        """Whether it can be broken so; and the part of the breach that can be, where the whole is too hard."""
        answer = self._form.possible(breach, asked)
        if answer is Answer.UNKNOWN and breach.parts:
            answer = Answer.UNSAT
            for part in breach.parts:
                piece = attrs.evolve(breach, also=part, parts=())
                alone = self._form.possible(piece, asked)
                if alone is Answer.SAT:
                    return alone, piece
                answer = alone if alone is Answer.UNKNOWN else answer
        return answer, breach

    def _broken(self, title: str, breach: Breach, found: SolverQuery) -> Promise[S]:
        made = BreachWitness(self._form, breach)
        question = Question(title, [*self._assumed, *made.within(), *breach.conditions])
        evidence = Evidence(question, found.answer, (found,))
        return Promise(Status.REFUTED, evidence, breach.how, partial(made.find, question))

    def _unbroken(
        self,
        title: str,
        where: Word,
        excluded: list[Word],
        queries: Sequence[SolverQuery],
        unsaid: str,
        *,
        unknown: bool,
    ) -> Promise[S]:
        """Nothing breaks it, as far as the model goes."""
        assumed = self._assumed if where is TRUE else [*self._assumed, where]
        question = Question(title, [*assumed, any_of(excluded)])
        answer = Answer.UNKNOWN if unknown or unsaid else Answer.UNSAT
        evidence = Evidence(question, answer, tuple(queries))
        silent: list[tuple[Word, ...]] = [
            (self._hardware.not_modelled,),
            (self._native.not_modelled, self._silent()),
            (self._form.passed_on.silent,),
        ]
        gap = self._ask.first([(*one, where) for one in silent])
        outside = [
            (conjunction(given), there_is_none(self._machine, self._hardware.before, after))
            for given, after in self._form.silent_ends
        ]
        beyond = [(*one, where) for one in outside]
        if not unknown and gap is Answer.UNSAT and self._ask.first(beyond) is not Answer.UNSAT:
            unsaid = unsaid or EXCLUDED
        silent += outside
        if unknown or unsaid or gap is not Answer.UNSAT:
            return Promise(Status.UNKNOWN, evidence, self._unanswered(unsaid, unknown=unknown))
        open_ones = Question(f"{title}, where it is not modelled", [*assumed, any_of(map(all_of, silent))])
        return Promise(Status.HOLDS, attrs.evolve(evidence, also=(open_ones,)))

    def _unanswered(self, unsaid: str, *, unknown: bool) -> str:
        """Why there is no answer."""
        if unknown:
            return "not answered within the bounds"
        ends = [path.result for path in (*self._hardware.paths, *self._native.paths)]
        reasons = list(dict.fromkeys(end.reason for end in ends if isinstance(end, NotModelled)))
        return unsaid or ": ".join(("not modelled", *(["; ".join(reasons[:3])] if reasons else [])))

    def _silent(self) -> Word:
        """It does not reach the VMM (width 1)."""
        faults = [
            path.condition
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and self._due.elsewhere(path.result)
        ]
        return any_of([*(conjunction(conditions) for conditions, _ in self._form.silent_ends), *faults])
