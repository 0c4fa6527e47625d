"""The premises of the theorems that are about one instruction form, as questions (see `premises`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import State
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, all_of, any_of
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .absent_cells import goes_by_absent_cells, without_absent_cells
from .counterexample import Counterexample, Executed, assert_replay, assert_within, differences, execute
from .obligation import Obligation, with_the_time_of
from .passed_on import PassedOn
from .premise import A1S, A4, A5, A5_VECTOR, A6_NOTICED, A8, A10, Premise
from .premise_meaning import OfForm
from .premise_reading import WayToFail
from .premise_reading import ways as ways_to_fail
from .premise_texts import TEXTS
from .runs import EXCLUDED, PROBE, Run, conjunction, handed_over, probe, there_is_none
from .verdict import Evidence, Question, Truth
from .witness import find_minimal

if TYPE_CHECKING:
    from .premises import Premises

S = TypeVar("S", bound=State)

# Solver resources for one way in which a premise can fail.
WAY = 8_000_000


class FormPremises(Generic[S]):
    """One form on S and on f(S, P)."""

    def __init__(self, premises: Premises[S], instruction: Instruction, general: Run[S]) -> None:
        self._p, self._instruction, self._general = premises, instruction, general
        self.name = instruction.form
        self._native = general.at(premises.guest)
        self._hardware = general.at(premises.image)
        self._valid = instruction.valid(general.operands)
        self._ask = Asker(premises.effort, [*premises.okay, self._valid], excluded=premises.excluded)
        # Ways on the hardware that cannot be taken, and what was asked to know that.
        self._ruled_out: list[tuple[Word, list[SolverQuery]]] = []

    @cached_property
    def _ends(self) -> list[tuple[tuple[Term, ...], S]]:
        """How the run on the hardware completes: not where it goes in at an entry of the control program's."""
        p, found = self._p, []
        for conditions, after in self._hardware.completions():
            over = handed_over(p.machine, p.technique, self._hardware.before, after, p.private)
            given = (*conditions, (~over).term)
            asked: list[SolverQuery] = []
            possible = all(Word(1, term).value != 0 for term in given)
            if possible and self._possible(given, asked=asked) is not Answer.UNSAT:
                found.append((given, after))
            else:
                self._ruled_out.append((conjunction(given), asked))
        return found

    def _possible(self, given: Sequence[Term], *also: Word, asked: list[SolverQuery] | None = None) -> Answer:
        return self._ask.first([[conjunction(given), *also]], rlimit=WAY, asked=asked)

    def _none(self, way: WayToFail, asked: list[SolverQuery]) -> bool:
        """Whether a way is impossible, asked part by part; what was asked takes the place of the whole question."""
        parts: list[SolverQuery] = []
        for part in way.parts() if way.parts is not None else ():
            if part.value != 0 and self._possible(way.given, part, asked=parts) is not Answer.UNSAT:
                return False
        asked[-1:] = parts
        return True

    def note_traps(self) -> None:
        """Tell the premises about entries which kinds of trap there may be on the hardware."""
        self._p.entries.note(self._instruction, self._general, self._hardware, self._valid)

    def read(self, name: str) -> Premise[S]:
        """A premise as its text says."""
        return self.premise(name, self._ways(name))

    def _ways(self, name: str) -> Iterator[WayToFail]:
        p = self._p
        direct = p.machine.user(p.guest) if name == A10 else TRUE
        meaning = OfForm(p, self._general, self._native, self._hardware, lambda: self._ends, direct)
        symbols = TEXTS[name].symbols
        for way in ways_to_fail(name, meaning):
            others = (meaning.at_another_time,) if "same" in symbols else ()
            yield attrs.evolve(way, hardware="image" in symbols, states=others)

    def silent(self) -> Iterator[WayToFail]:
        """A1s: it completes where the model does not say what happens."""
        yield from self._ways(A1S)
        for given, after in self._ends:
            excluded = there_is_none(self._p.machine, self._hardware.before, after)
            yield WayToFail(EXCLUDED, given, excluded, silent=True)
        ends = any_of(conjunction(given) for given, _ in self._ends)
        how = "completes where the model does not say what it does natively"
        yield WayToFail(how, (), ends & self._native.not_modelled, silent=True)

    def let_through(self) -> Iterator[WayToFail]:
        """A6: an interrupt that the guest held off is taken by it now, and the hardware has not stopped."""
        p = self._p
        runs = [("completes on the hardware", self._native.completions(), self._ends)]
        for there, here in self._passed_on.steps() if p.entries.interruptions else ():
            runs.append(("traps past the control program", here.completions(), list(there.completions())))
        for words, native, ends in [(words, list(native), ends) for words, native, ends in runs]:
            for taken in p.entries.interruptions:
                before = taken.takes(p.guest)
                how = f"{words}, and the guest takes the {taken.name} that it held off before"
                for (conditions, after), (others, _) in itertools.product(native, ends):
                    opened = ~before & taken.takes(after)
                    if opened.value != 0:
                        yield WayToFail(how, (*others, *conditions), opened, hardware=False)

    @property
    def _passed_on(self) -> PassedOn[S]:
        p = self._p
        due = Obligation(p.machine, p.technique, self._instruction, self._native, self._hardware, p.private)
        return PassedOn(due, p.effort)

    def traps(self) -> list[Premise[S]]:
        """What a trap leaves: nothing that hides the guest (A4), and what is owned is as it was (A5).

        A trap that goes past the control program, by delegation, is a step of the guest's own machine (A5_vector).
        """
        found: list[Premise[S]] = []
        lost, taken = self._p.keeper.traps(self._instruction, self._general)
        past = self._p.keeper.elsewhere(self._instruction, self._general)
        for name, promise in ((A4, lost), (A5, taken), *([] if past is None else [(A5_VECTOR, past)])):
            truth = promise.kept
            made = None
            if truth is Truth.NO:
                made = lambda promise=promise: None if promise.witness is None else promise.witness.to_json()  # noqa: E731
            found.append(Premise(name, self._instruction.form, truth, promise.how, promise.evidence, made))
        absent = list(goes_by_absent_cells(self._p, self._general, self._native))
        return [self._also(one, absent) if one.name == A4 and absent else one for one in found]

    def _also(self, premise: Premise[S], ways: list[WayToFail]) -> Premise[S]:
        """A premise that has held so far, and of which more is asked."""
        more = self.premise(premise.name, iter(ways))
        if premise.truth is not Truth.YES or more.truth is not Truth.YES:
            return more if premise.truth is Truth.YES or more.truth is Truth.NO else premise
        if premise.evidence is None or more.evidence is None:
            return premise
        also = (*premise.evidence.also, more.evidence.question)
        return attrs.evolve(premise, evidence=attrs.evolve(premise.evidence, also=also))

    # -- asking -------------------------------------------------------------------------------

    def premise(self, name: str, ways: Iterator[WayToFail]) -> Premise[S]:
        """The premise holds where no way is possible."""
        p, form = self._p, self._instruction.form
        title = f"{p.machine.name}: {form} violates {name} under {p.technique.name}"
        excluded: list[Word] = []
        asked: list[SolverQuery] = []
        unknown = ""
        for way in ways:
            if way.also.value == 0 or any(Word(1, term).value == 0 for term in way.given):
                continue
            answer = self._possible(way.given, way.also, asked=asked)
            question = Question(title, [*p.okay, self._valid, *way.conditions])
            if answer is Answer.UNKNOWN and way.parts is not None and self._none(way, asked):
                answer = Answer.UNSAT
            if answer is Answer.UNKNOWN:  # among the other forms' questions, and with little work: now alone
                asked[-1] = question.put(p.effort)
                answer = asked[-1].answer
            if answer is Answer.SAT and way.silent:
                unknown = unknown or way.how
                continue
            if answer is Answer.SAT:
                make = lambda way=way, question=question: self._witness(name, way, question)  # noqa: E731
                return Premise(name, form, Truth.NO, way.how, Evidence(question, answer, (asked[-1],)), make)
            unknown = unknown or (way.how if answer is Answer.UNKNOWN else "")
            excluded.append(conjunction(way.given) & way.also)
        excluded += [one for one, _ in self._ruled_out]
        asked += [one for _, found in self._ruled_out for one in found]
        question = Question(title, [*p.okay, self._valid, any_of(excluded)])
        answer = Answer.UNKNOWN if unknown else Answer.UNSAT
        truth = Truth.UNKNOWN if unknown else Truth.YES
        return Premise(name, form, truth, unknown, Evidence(question, answer, tuple(asked)))

    def _witness(self, name: str, way: WayToFail, question: Question) -> dict[str, Any] | None:
        p, instruction = self._p, self._instruction
        answer, model, solver = question.ask(p.effort)
        if answer is not Answer.SAT or model is None or solver is None:
            return None
        starts = [p.guest, p.private, *way.states]
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in p.guest.memories().items()}
        found = find_minimal(p.machine, instruction, question, solver, model, starts, probes)
        guest, private, *others = found.states
        beside = "at another time" if name in TEXTS and "same" in TEXTS[name].symbols else "with other cells"
        assert_within(p.machine, instruction, name, what_is_a_guest=all_of(p.ok(guest, private)))
        native = execute(p.machine, instruction, "on the guest's own machine", guest, found.operands)
        second: Executed[S] | None = None
        if name == A6_NOTICED:
            ended = self._ended(guest, native)
            differ = () if ended is None else differences(guest, ended, found.addresses)
            fails = bool(differ)
        elif way.hardware:
            image = p.technique.map(guest, private)
            second = execute(p.machine, instruction, "on the hardware", image, found.operands)
            differ = (
                differences(image, second.outcome.state, found.addresses)
                if isinstance(second.outcome, Next)
                else ()
            )
            if isinstance(native.outcome, Next) and isinstance(second.outcome, Next):
                if p.clocks:
                    private = with_the_time_of(p.technique, private, native.outcome.state)
                expected = p.technique.map(native.outcome.state, private)
                unlike = differences(expected, second.outcome.state, found.addresses)
                differ = tuple(d for d in unlike if d.name not in p.clocks) or native.changes
            fails = isinstance(second.outcome, Next) and (isinstance(native.outcome, Trap) or bool(differ))
            if name == A8:
                fails = isinstance(native.outcome, Next) and not isinstance(second.outcome, Next)
                fails = fails or isinstance(second.outcome, Next)  # it went in at an entry
        elif others:
            second = execute(p.machine, instruction, beside, others[0], found.operands)
            ends = [s for s in (self._ended(guest, native), self._ended(others[0], second)) if s is not None]
            differ = differences(ends[0], ends[1], found.addresses) if len(ends) == 2 else ()
            absent = without_absent_cells(p.technique, guest)
            differ = tuple(d for d in differ if d.name not in p.clocks and absent(d.name))
            fails = len(ends) < 2 or bool(differ)
        else:
            outcome = native.outcome
            after = getattr(outcome, "state", guest)
            if isinstance(outcome, Trap) and p.machine.deliver is not None:
                after = p.machine.delivered(guest, outcome)
            differ = differences(guest, after, found.addresses)
            fails = all_of(p.ok(after, private)).value == 0
        assert_replay(
            fails, instruction, name, lambda: [r.describe() for r in (native, second) if r is not None]
        )
        return Counterexample(
            name,
            way.how[0].upper() + way.how[1:] + ".",
            instruction,
            instruction.assembly(found.operands),
            differences(p.machine.state.reset(), guest),
            native,
            second,
            differ,
        ).to_json()

    def _ended(self, before: S, run: Executed[S]) -> S | None:
        """The state after a run, its trap delivered; None where nothing says what that makes."""
        machine = self._p.machine
        if isinstance(run.outcome, Next):
            return run.outcome.state
        if isinstance(run.outcome, Trap) and machine.deliver is not None:
            return machine.delivered(before, run.outcome)
        return None
