"""The premises of the theorems that are about one instruction form, as questions (see `premises`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, all_of, any_of, symbol
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .counterexample import Counterexample, Executed, assert_replay, assert_within, differences, execute
from .premise import A4, A5, A8, Premise
from .runs import PROBE, Run, conjunction, differing, handed_over, probe, together
from .verdict import Evidence, Question, Truth
from .witness import find_minimal

if TYPE_CHECKING:
    from .premises import Premises

S = TypeVar("S", bound=State)

# Solver resources for one way in which a premise can fail.
WAY = 8_000_000


@attrs.frozen(eq=False)
class _Way:
    """A way in which a premise can fail: words for it, and conditions that must hold together."""

    how: str
    given: tuple[Term, ...]
    also: Word
    hardware: bool = True  # whether the run on the hardware is part of it
    states: tuple[Any, ...] = ()  # further symbolic states
    silent: bool = False  # if it is possible, nothing is known

    @property
    def conditions(self) -> list[Word]:
        return [*(Word(1, term) for term in self.given), self.also]


class FormPremises(Generic[S]):
    """One form on S and on f(S, P)."""

    def __init__(self, premises: Premises[S], instruction: Instruction, general: Run[S]) -> None:
        self._p, self._instruction, self._general = premises, instruction, general
        self._native = general.at(premises.guest)
        self._hardware = general.at(premises.image)
        self._valid = instruction.valid(general.operands)
        self._ask = Asker(premises.effort, [*premises.okay, self._valid])
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

    def unfaithful(self) -> Iterator[_Way]:
        """A1: it completes on the hardware, and not in the image of where it completes natively."""
        p = self._p
        expected = [(c, p.technique.map(after, p.private)) for c, after in self._native.completions()]
        for case in differing(
            together(self._ends, expected), ignoring=frozenset(), time_is_state=p.subject.time_is_state
        ):
            how = "completes on the hardware elsewhere than in the image of where the guest's own machine completes"
            yield _Way(how, case.given, any_of(case.unlike.values()))
        for conditions, after in self._native.completions():
            changed = any_of(
                (*self._changed(p.guest, after, p.technique.shadowed), *self._shadowed_cells(after))
            )
            if changed.value != 0:
                for others, _ in self._ends:
                    how = "completes on the hardware, and changes natively what the control program notes"
                    yield _Way(how, (*others, *conditions), changed)
        for path in self._native.paths:
            if isinstance(path.result, Trap):
                for others, _ in self._ends:
                    how = (
                        f"completes on the hardware where the guest's own machine raises {path.result.vector}"
                    )
                    yield _Way(how, (*others, *path.conditions), TRUE)

    def _changed(self, before: S, after: S, names: Sequence[str]) -> Iterator[Word]:
        for name in names:
            if name in self._p.clocks:
                continue
            if name in before.memories():
                old, new = before.memories()[name], after.memories()[name]
                if old is not new:
                    where = probe(old, f"{PROBE} in {name}")
                    yield old.load(where) != new.load(where)
            elif before[name].term is not after[name].term:
                yield before[name] != after[name]

    def _shadowed_cells(self, after: S) -> Iterator[Word]:
        shadows, guest = self._p.technique.shadows_address, self._p.guest
        for slot in guest.layout if shadows is not None else ():
            if shadows is not None and slot.address and slot.role is Role.MEMORY:
                old, new = guest.memories()[slot.name], after.memories()[slot.name]
                if old is not new:
                    where = probe(old, f"{PROBE} in {slot.name}")
                    yield shadows(guest, where) & (old.load(where) != new.load(where))

    def silent(self) -> Iterator[_Way]:
        """A1s: it completes where the model does not say what happens."""
        how = "the model does not say what it does on the hardware"
        yield _Way(how, (), self._hardware.not_modelled, silent=True)
        ends = any_of(conjunction(given) for given, _ in self._ends)
        how = "completes where the model does not say what it does natively"
        yield _Way(how, (), ends & self._native.not_modelled, silent=True)

    def no_guest_next(self) -> Iterator[_Way]:
        """A3: what it makes of a guest is none any more."""
        p = self._p
        for conditions, after in self._native.completions():
            if after is not p.guest:
                how = "what it makes of a guest is no guest any more"
                yield _Way(how, conditions, ~all_of(p.ok(after, p.private)), hardware=False)

    def no_guest_trapped(self) -> Iterator[_Way]:
        """A3: what its trap makes of a guest is none any more."""
        p = self._p
        for path in self._native.paths:
            if isinstance(path.result, Trap):
                how = f"what {path.result.vector} makes of a guest is no guest any more"
                for conditions, after in p.delivered(p.guest, path.conditions, path.result):
                    if after is None:
                        yield _Way(
                            f"the delivery of {path.result.vector} is not modelled",
                            conditions,
                            TRUE,
                            silent=True,
                        )
                    else:
                        yield _Way(how, conditions, ~all_of(p.ok(after, p.private)), hardware=False)

    def needless(self) -> Iterator[_Way]:
        """A8: it completes natively and reaches the control program on the hardware."""
        p, image = self._p, self._hardware.before
        stops = [path.conditions for path in self._hardware.paths if isinstance(path.result, Trap)]
        for conditions, after in self._hardware.completions():
            over = handed_over(p.machine, p.technique, image, after, p.private)
            if over.value != 0:
                stops.append((*conditions, over.term))
        for (conditions, _), others in itertools.product(self._native.completions(), stops):
            yield _Way("completes natively and traps on the hardware", (*others, *conditions), TRUE)

    def reads_a_clock(self) -> Iterator[_Way]:
        """A9: it does something else at another time."""
        p = self._p
        clocks = frozenset(leaf.name for leaf in leaves_with(p.machine.state, [Role.TIME]))
        fresh = {n: symbol(n + "'", p.guest[n].width) for n in clocks if not p.guest[n].concrete}
        if not fresh:
            return
        other = self._general.at(p.guest.with_changes(dict(fresh)))
        pairs = together(list(self._native.completions()), list(other.completions()))
        for case in differing(pairs, ignoring=clocks, time_is_state=True):
            how = "does something else where a clock shows another time"
            yield _Way(how, case.given, any_of(case.unlike.values()), hardware=False, states=(other.before,))
        for conditions, _ in self._native.completions():
            how = "completes or not as a clock says"
            yield _Way(how, conditions, other.traps, hardware=False, states=(other.before,))

    def traps(self) -> list[Premise[S]]:
        """What a trap leaves: nothing that hides the guest (A4); and nothing of the control program's changes (A5)."""
        found: list[Premise[S]] = []
        lost, taken = self._p.keeper.traps(self._instruction, self._general)
        for name, promise in ((A4, lost), (A5, taken)):
            truth = promise.kept
            made = None
            if truth is Truth.NO:
                made = lambda promise=promise: None if promise.witness is None else promise.witness.to_json()  # noqa: E731
            found.append(Premise(name, self._instruction.form, truth, promise.how, promise.evidence, made))
        return found

    # -- asking -------------------------------------------------------------------------------

    def premise(self, name: str, ways: Iterator[_Way]) -> Premise[S]:
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

    def _witness(self, name: str, way: _Way, question: Question) -> dict[str, Any] | None:
        p, instruction = self._p, self._instruction
        answer, model, solver = question.ask(p.effort)
        if answer is not Answer.SAT or model is None or solver is None:
            return None
        starts = [p.guest, p.private, *way.states]
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in p.guest.memories().items()}
        found = find_minimal(p.machine, instruction, question, solver, model, starts, probes)
        guest, private, *others = found.states
        assert_within(p.machine, instruction, name, what_is_a_guest=all_of(p.ok(guest, private)))
        native = execute(p.machine, instruction, "on the guest's own machine", guest, found.operands)
        second: Executed[S] | None = None
        if way.hardware:
            image = p.technique.map(guest, private)
            second = execute(p.machine, instruction, "on the hardware", image, found.operands)
            differ = (
                differences(image, second.outcome.state, found.addresses)
                if isinstance(second.outcome, Next)
                else ()
            )
            if isinstance(native.outcome, Next) and isinstance(second.outcome, Next):
                expected = p.technique.map(native.outcome.state, private)
                unlike = differences(expected, second.outcome.state, found.addresses)
                differ = tuple(d for d in unlike if d.name not in p.clocks) or native.changes
            fails = isinstance(second.outcome, Next) and (isinstance(native.outcome, Trap) or bool(differ))
            if name == A8:
                fails = isinstance(native.outcome, Next) and not isinstance(second.outcome, Next)
                fails = fails or isinstance(second.outcome, Next)  # it went in at an entry
        elif others:
            second = execute(p.machine, instruction, "at another time", others[0], found.operands)
            ends = [run.outcome.state for run in (native, second) if isinstance(run.outcome, Next)]
            differ = differences(ends[0], ends[1], found.addresses) if len(ends) == 2 else ()
            differ = tuple(d for d in differ if d.name not in p.clocks)
            fails = len(ends) < 2 or bool(differ)
        else:
            outcome = native.outcome
            after = getattr(outcome, "state", guest)
            if isinstance(outcome, Trap) and p.machine.deliver is not None:
                after = p.machine.deliver(guest, outcome)
            differ = differences(guest, after, found.addresses)
            fails = all_of(p.ok(after, private)).value == 0
        assert_replay(fails, instruction, name, [r.describe() for r in (native, second) if r is not None])
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
