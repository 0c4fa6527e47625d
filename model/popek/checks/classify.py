"""The classes of Popek and Goldberg, generalised, as questions to a solver.

For one instruction form, one technique and one configuration:

| class | question that must be satisfiable |
|---|---|
| control-sensitive | a run that completes changes a mode or resource leaf that is not the guest's own |
| mode-sensitive | two states that differ only in mode, one user, one supervisor; both runs complete; results differ |
| resource-sensitive | two states that differ only in leaves the technique replaces; both complete; results differ |
| location-sensitive | relocating before and after the run does not give the same |
| user-sensitive | one of these with every run in user mode |
| privileged | *no* user-mode run completes, and one that differs only in mode completes in supervisor mode |

A user-mode run that goes in at an entry of the VMM's, as the technique declares them, has handed over control: it
counts as a trap.  Any other that ends in a supervisor mode has got out: it completes, and changes the mode.  Traps on
storage are left aside, as in the paper.  Where the model does not say what happens and nothing else decides a class,
the class is unknown.  A class that means nothing for a machine or a technique is not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from popek.kernel import terms
from popek.kernel.instruction import Instruction
from popek.kernel.state import Role, State
from popek.kernel.terms import Term
from popek.kernel.words import Word, all_of, any_of
from popek.solving.asking import EVALUATION, Asker, SolverQuery
from popek.solving.solver import Answer

from .class_witness import ClassWitness
from .classification import SENSITIVE, Classification, Finding
from .definitions import Definition, Definitions, States, Varied
from .runs import (
    PathPair,
    Run,
    conjunction,
    declared_order,
    probe,
)
from .subject import Subject
from .verdict import Evidence, Question, Truth, both

S = TypeVar("S", bound=State)

# Solver resources for finding out whether one component leaks.
COMPONENT = 2_000_000


class Classifier(Generic[S]):
    """Asks the questions about one machine under a technique in a configuration.

    Args:
        components: find out which leaves leak or change.
    """

    def __init__(self, subject: Subject[S], *, components: bool = True) -> None:
        self.subject, self.components = subject, components
        self.machine, self.technique = subject.machine, subject.technique
        self.states = States(subject)
        self.met: dict[str, dict[str, int]] = defaultdict(dict)  # values in the latest witness for a class

    def classify(self, instruction: Instruction, run: Run[S] | None = None) -> Classification[S]:
        """Every class of one form.

        Raises:
            PathBudgetError: too many paths.
            ReplayError: a defect of popek.
        """
        general = run or self.subject.explore(instruction, prefer=self.likely)
        return _Questions(self, instruction, general).answer()

    def likely(self, state: S) -> Word:
        """What most questions assume of a state (width 1)."""
        return self.subject.holds(state) & self.technique.deprivileged(state)

    @property
    def state(self) -> S:
        """Any state of the configuration."""
        return self.states.state


class _Questions(Generic[S]):
    """The questions about one form."""

    def __init__(self, classifier: Classifier[S], instruction: Instruction, general: Run[S]) -> None:
        self._c, self._machine = classifier, classifier.machine
        self._instruction = instruction
        self._put = Definitions(classifier.states, instruction, general)
        self._run, self._in_user, self._assumed = self._put.run, self._put.in_user, self._put.assumed
        self._ask = Asker(classifier.subject.effort, self._assumed, general.translated)

    def answer(self) -> Classification[S]:
        in_user: list[SolverQuery] = []
        completes_in_user = self._completes_in_user(in_user)
        findings = {
            "mode_sensitive": self._finding(
                "mode_sensitive", self._put.mode(), self._in_user, completes_in_user, in_user
            )
        }
        problems = {
            "control": self._put.control(),
            "location": self._put.location(),
            "resource": self._put.resource(),
        }
        for name, problem in problems.items():
            user = self._finding(f"user_{name}_sensitive", problem, self._in_user, completes_in_user, in_user)
            findings[f"user_{name}_sensitive"] = user
            # What is so in user mode is so; only where it is not must every mode be asked about.
            findings[f"{name}_sensitive"] = self._finding(f"{name}_sensitive", problem, [], user)
        privileged = self._privileged(completes_in_user)
        completes = Question(
            f"{self._machine.name}: {self._instruction.form} completes in user mode, or is not modelled there "
            f"({self._c.technique.name}; {self._c.subject.configuration})",
            lambda: [*self._assumed, *self._in_user, self._put.completes(self._run) | self._run.not_modelled],
        )
        asked = Evidence(completes, Answer.UNSAT, tuple(in_user)) if privileged is Truth.YES else None
        return Classification(self._instruction, findings, privileged, asked)

    def _completes_in_user(self, asked: list[SolverQuery]) -> Answer:
        ways = [conditions for conditions, _ in self._put.completions(self._run)]
        if any(self._like_explored(way, *self._in_user, conjunction(way)) for way in ways):
            return Answer.SAT
        return self._ask.first(((*self._in_user, conjunction(way)) for way in ways), asked=asked)

    def _like_explored(self, way: tuple[Term, ...], *conditions: Word) -> bool:
        """Whether the assignment that the exploration met for a way to complete answers a question."""
        known = self._run.known.get(way[:-1])  # the last says that control stays with the guest
        return known is not None and self._ask.fulfilled(known, *conditions)

    def _privileged(self, completes_in_user: Answer) -> Truth:
        """Never completes in user mode; where it traps, the supervisor twin can complete."""
        if completes_in_user is Answer.SAT:
            return Truth.NO
        twin, exists = self._put.with_a_supervisor()
        traps = [*self._in_user, ~self._put.completes(self._run), ~self._run.not_modelled]
        where = [*traps, self._machine.supervisor(twin.before), exists]
        works = self._ask.first(
            (*where, conjunction(conditions)) for conditions, _ in self._put.completions(twin)
        )
        silent = self._ask.first([(*self._in_user, self._run.not_modelled)])
        return both(both(_no(completes_in_user), _no(silent)), _yes(works))

    # -- machinery ----------------------------------------------------------------------------

    def _finding(
        self,
        name: str,
        problem: Definition[S],
        also: Sequence[Word],
        known: Finding[S] | Answer,
        before: Sequence[SolverQuery] = (),
    ) -> Finding[S]:
        """The answer to one question.

        Args:
            also: conditions besides the problem's own.
            known: the finding of a narrower question, or whether any run meets the conditions.
            before: what was asked to know that.
        """
        if problem.not_asked:
            return Finding(Truth.NOT_ASKED, None, why=problem.not_asked)
        conditions = [*also, *problem.conditions]
        question = Question(
            f"{self._machine.name}: {self._instruction.form} is {name.replace('_', '-')} "
            f"({self._c.technique.name}; {self._c.subject.configuration})",
            lambda: [*self._assumed, *conditions, any_of(case.differs for case in problem.cases)],
        )
        narrower = known if isinstance(known, Finding) else None
        possible: PathPair | None = None
        asked: list[SolverQuery] = []
        if known is Answer.UNSAT:
            answer = Answer.UNSAT
            asked += before
        elif narrower is not None and narrower.evidence is not None and narrower.truth is Truth.YES:
            answer = Answer.SAT
            asked += narrower.evidence.asked
        else:
            answer, possible = self._first_case(problem.cases, conditions, asked)
        evidence = Evidence(question, answer, tuple(asked))
        if answer is Answer.SAT:
            # Questions about user mode are parts of the general ones, which list the components.
            wanted = self._c.components and name in SENSITIVE
            shown = self._components(problem, conditions) if wanted else ((), ())
            if narrower is not None and narrower.truth is Truth.YES:
                return Finding(Truth.YES, evidence, *shown, make_witness=narrower._make_witness)
            assert possible is not None
            # A witness needs no more than the case that was found possible.
            within = [self._c.subject.holds(run.before) for run in problem.runs]
            made = ClassWitness(self._c.subject, self._instruction, self._run.before)
            beside, guess = self._run.translated, self._c.met[name]
            narrow = Question(question.name, [*self._assumed, *within, *conditions, possible.differs])
            return Finding(
                Truth.YES,
                evidence,
                *shown,
                make_witness=lambda: made.find(name, narrow, problem, beside, guess),
            )
        if answer is Answer.UNKNOWN:
            return Finding(Truth.UNKNOWN, evidence)
        # Where the model does not say what happens, nothing is known unless no such runs are possible.
        silent = _gap(problem.runs)
        if self._ask.first([(*conditions, silent)]) is not Answer.UNSAT:
            return Finding(Truth.UNKNOWN, evidence)
        gap = Question(f"{question.name}, and not modelled", lambda: [*self._assumed, *conditions, silent])
        return Finding(Truth.NO, Evidence(question, answer, tuple(asked), (gap,)))

    def _first_case(
        self, cases: Iterable[PathPair], conditions: Sequence[Word], asked: list[SolverQuery]
    ) -> tuple[Answer, PathPair | None]:
        """Whether one of the cases is possible, and which; what is asked for that is added."""
        total = Answer.UNSAT
        for case in cases:
            if case.differs.value == 0:
                continue
            if self._like_explored(case.first, *conditions, case.differs):
                answer = Answer.SAT
                asked.append(SolverQuery((*self._assumed, *conditions, case.differs), answer, EVALUATION))
            else:
                answer = self._ask.first([(*conditions, case.differs)], asked=asked)
            if answer is Answer.SAT:
                return answer, case
            if answer is Answer.UNKNOWN:
                total = answer
        return total, None

    def _components(
        self, problem: Definition[S], conditions: Sequence[Word]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Which leaves, varied alone, make the results differ; for one run, which leaves change.

        Returns:
            Those that were seen to, and those of which a short search could not tell.
        """
        varied, runs = problem.varied, problem.runs
        if varied is None:
            return self._that_differ(problem.cases, conditions)
        read = self._read_by(runs[1])
        before = runs[1].before
        alone = [Varied((leaf,)) for leaf in varied.leaves if leaf.role is not Role.MODE]
        alone += [Varied((), (name,)) for name in varied.contents]
        modes = [leaf for leaf in varied.leaves if leaf.role is Role.MODE]
        if modes:  # they change together
            alone.append(Varied(tuple(leaf for leaf in modes if leaf.name in self._c.states.modes)))
        alone = [one for one in alone if one.names(before, read)]
        if len(alone) == 1:
            return self._ordered(alone[0].names(before, read)), ()
        found: dict[Answer, list[str]] = {answer: [] for answer in Answer}
        for one in alone:
            found[self._leaks(one)] += one.names(before, read)
        return self._ordered(found[Answer.SAT]), self._ordered(found[Answer.UNKNOWN])

    def _ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(declared_order(self._machine.state, names))

    def _leaks(self, varied: Varied) -> Answer:
        """Whether varying this alone can make the results differ."""
        problem = self._put.alone(varied)
        return self._ask.first(
            ((*problem.conditions, case.differs) for case in problem.cases), rlimit=COMPONENT
        )

    def _that_differ(
        self, cases: Sequence[PathPair], conditions: Sequence[Word]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names whose conditions are possible, several per model, and the undecided ones."""
        found: set[str] = set()
        undecided: set[str] = set()
        for case in cases:
            if self._seen(case, conditions, found):
                undecided |= case.unlike.keys()
        return self._ordered(found), self._ordered(undecided - found)

    def _seen(self, case: PathPair, conditions: Sequence[Word], found: set[str]) -> bool:
        """Add the names that can differ in a case, several per model, to those found.

        Returns:
            Whether the solver could not tell of some.
        """
        left = {name: condition for name, condition in case.unlike.items() if name not in found}
        solver = self._ask.solver(*conditions, case.when) if left else None
        while solver is not None and left:
            solver.add(any_of(left.values()))
            answer = solver.check(rlimit=COMPONENT)
            if answer is not Answer.SAT:
                return answer is Answer.UNKNOWN
            model = solver.model()
            found |= {name for name, condition in left.items() if model(condition.term)}
            left = {name: condition for name, condition in left.items() if name not in found}
        return False

    @staticmethod
    def _read_by(run: Run[S]) -> set[str]:
        """Variables and contents that decide the run: its conditions and whatever it changes."""
        roots = [condition for path in run.paths for condition in path.conditions]
        old = run.before
        for _, new in run.completions():
            roots += [new[n].term for n in old.words() if new[n].term is not old[n].term]
            for name, content in new.memories().items():
                if content is not old.memories()[name]:
                    roots.append(content.load(probe(content)).term)
        names = set(terms.variables_of(roots))
        return names | {str(cell.data) for cell in terms.applications_of(roots)}


def _gap(runs: Sequence[Run[S]]) -> Word:
    """No run traps, and of one the model does not say what happens (width 1)."""
    untrapped = [run.completes | run.not_modelled for run in runs]
    return all_of(untrapped) & any_of(run.not_modelled for run in runs)


def _no(answer: Answer) -> Truth:
    return {Answer.UNSAT: Truth.YES, Answer.SAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]


def _yes(answer: Answer) -> Truth:
    return {Answer.SAT: Truth.YES, Answer.UNSAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]
