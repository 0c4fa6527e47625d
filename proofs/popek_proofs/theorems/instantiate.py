"""From theorem to machine: ask the theorems' premises of each instruction, and say what follows.

For one machine, technique and configuration, `popek.checks.premises` asks A0 to A10.  The theorems hold of the machine
where all that they need hold, for the forms that are modelled.  The classes of 1974 explain the verdict; where a class
and a premise disagree about a form, the form is named.

    virtualizable by Theorem 1, for what is modelled: over 11 modelled forms …
    hybrid virtualizable by Theorem 3, not by Theorem 1, because DROP …
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import attrs

from popek.checks.certification import Certifier
from popek.checks.classification import Classification
from popek.checks.ladder import Ladder, LadderStep, Reached, Rung, ladder
from popek.checks.premise import (
    A1,
    A6_CLOSURE,
    CLOSURE,
    INTERRUPTS,
    TAKEN_FOR_GRANTED,
    THEOREM1,
    THEOREM2,
    THEOREM3,
    TITLES,
    Premise,
    holds_all,
)
from popek.checks.premises import Premises
from popek.checks.presence import Present, present
from popek.checks.scope_words import scope_json, scope_line
from popek.checks.subject import Subject
from popek.checks.verdict import Status, Truth
from popek.kernel.scope import Scope, scope_of
from popek.kernel.state import State
from popek_proofs import rocq

from .by_form import of_forms
from .disagreement import Disagreement

# By the name of a theorem: what Coq proved of machines with the premises that are asked here.
PROVED = {
    "theorem1": "Theorem1.theorem_1_told_apart",
    "theorem2": "Theorem2.theorem_2_from_premises",
    "theorem3": "Theorem3.theorem_3_told_apart",
}
# The same where interrupts come between instructions, and the guest may hold them off.
WITH_INTERRUPTS = {
    "theorem1": "HeldOff.theorem_1_with_held_interrupts",
    "theorem3": "HeldOff.theorem_3_with_held_interrupts",
}
# Recursively virtualizable is, by the theorem of 1974, only what is virtualizable.
NEEDED = {
    "theorem1": THEOREM1,
    "theorem2": tuple(dict.fromkeys((*THEOREM1, *THEOREM2))),
    "theorem3": THEOREM3,
}
# What Theorem 2 takes for granted of control programs, by its definitions in Coq.
OF_CONTROL_PROGRAMS = {
    "any_notes_kept": "each control program can keep its notes of any guest",
    "told_by_image": "and keeps them in what is its own",
    "room": "each fits into the machine around it",
    "coded_at": "and is coded as a program that comes to an end",
}

S = TypeVar("S", bound=State)

MANY, MANY_WAYS = 6, 12


def _witness_of(found: Classification[Any]) -> dict[str, Any] | None:
    return None if found.witness is None else found.witness.to_json()


@attrs.frozen(eq=False, slots=False)
class Instantiation(Generic[S]):
    """What the theorems say of one machine.

    Attributes:
        subject: of what.
        classes: the classification of each form that was explored.
        premises: each premise for each form, and those that are asked once.
        scope: over which forms.
        asked: how many of them were asked.
        there: states that the questions range over.
        seconds: time spent.
    """

    subject: Subject[S]
    classes: tuple[Classification[S], ...]
    premises: tuple[Premise[S], ...]
    scope: Scope
    asked: int
    there: Present[S]
    seconds: float

    @property
    def part(self) -> bool:
        """Whether some forms were not asked: a theorem can be refuted then, and cannot hold."""
        return self.asked < self.scope.forms

    def verdict(self, names: Sequence[str]) -> Status:
        """Whether the premises of these names hold for all instructions; unknown where those that were asked do."""
        found = Status.of(holds_all(self.premises, names))
        return Status.UNKNOWN if self.part and found is not Status.REFUTED else found

    @property
    def theorem1(self) -> Status:
        """Whether the premises of Theorem 1 hold."""
        return self.verdict(THEOREM1)

    @property
    def theorem2(self) -> Status:
        """Whether the premises of Theorem 2 hold, and those of Theorem 1."""
        return self.verdict(NEEDED["theorem2"])

    @property
    def theorem3(self) -> Status:
        """Whether the premises of Theorem 3 hold."""
        return self.verdict(THEOREM3)

    @property
    def closed(self) -> Truth:
        """Whether a guest stays a guest, whatever it runs."""
        return holds_all(self.premises, (*CLOSURE, A6_CLOSURE))

    @property
    def interrupts(self) -> Truth:
        """Whether interrupts between any two instructions find the guest; not asked where none is declared."""
        return holds_all(self.premises, INTERRUPTS) if self.subject.machine.interruptions else Truth.NOT_ASKED

    @property
    def leaving(self) -> tuple[str, ...]:
        """The forms that may make of a guest what is none any more, by completing or by a trap."""
        return tuple(dict.fromkeys(p.form for p in self.failing(CLOSURE)))

    def proved(self, theorem: str) -> str:
        """The theorem in Coq whose premises were found: with interrupts, where they are declared and find the guest."""
        with_them = theorem in WITH_INTERRUPTS and self.interrupts is Truth.YES
        return WITH_INTERRUPTS[theorem] if with_them else PROVED[theorem]

    def failing(self, names: Sequence[str]) -> tuple[Premise[S], ...]:
        """The premises of these names that do not hold, or are unknown."""
        bad = (Truth.NO, Truth.UNKNOWN)
        return tuple(p for p in self.premises if p.name in names and p.truth in bad)

    def not_asked(self, names: Sequence[str]) -> tuple[Premise[S], ...]:
        """The premises of these names that were not asked."""
        return tuple(p for p in self.premises if p.name in names and p.truth is Truth.NOT_ASKED)

    def certified(self, certifier: Certifier) -> Instantiation[S]:
        """The same, with certificates.

        Raises:
            SolversDisagreeError: a solver finds an assignment, or a proof is not accepted.
        """
        return attrs.evolve(self, premises=tuple(p.certified(certifier) for p in self.premises))

    def ladder(self, names: Sequence[str], *, confirm: bool = False) -> Ladder:
        """How far the evidence for the premises of these names goes.

        Args:
            confirm: ask a second solver, where that was not done.
        """
        steps = (p.steps(confirm=confirm) for p in self.premises if p.name in names)
        return ladder(one for one in steps if one)

    @cached_property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """Forms on which the classes of 1974 and A1 part, and how."""
        faithful = {p.form: p for p in self.premises if p.name == A1}
        found = []
        for one in self.classes:
            form, premise = one.instruction.form, faithful[one.instruction.form]
            if one.critical is Truth.YES and premise.truth is Truth.YES:
                how = "critical, and faithful all the same"
                found.append(Disagreement(form, how, partial(_witness_of, one)))
            elif one.critical is Truth.NO and premise.truth is Truth.NO:
                kind = "privileged" if one.privileged is Truth.YES else "not sensitive"
                make = partial(getattr, premise, "witness")
                found.append(Disagreement(form, f"{kind}, and not faithful", make))
        return tuple(found)

    def __str__(self) -> str:
        title = f"{self.subject.machine.name} ({self.subject.technique.name}; {self.subject.configuration})"
        if self.theorem1 is Status.HOLDS:
            return f"{title} is virtualizable by Theorem 1 for what is modelled, {self._over('theorem1')}"
        why = self._reasons(THEOREM1)
        if self.theorem3 is Status.HOLDS:
            return (
                f"{title} is hybrid virtualizable by Theorem 3, not by Theorem 1, because {why}; "
                f"for what is modelled, {self._over('theorem3')}"
            )
        if Status.REFUTED not in (self.theorem1, self.theorem3):
            return f"{title}: the theorems do not decide, because {why}"
        title += f", over {self._counted}," if self.part else ""
        if self.theorem3 is not Status.REFUTED:
            why += f"; Theorem 3 does not decide, because {self._reasons(THEOREM3)}"
            return f"{title} is not virtualizable by Theorem 1, because {why}"
        why = self._reasons(THEOREM3)
        return f"{title} is virtualizable neither by Theorem 1 nor by Theorem 3, because {why}"

    @property
    def recursively(self) -> str:
        """What Theorem 2 says."""
        if self.theorem2 is Status.HOLDS:
            granted = "; ".join(OF_CONTROL_PROGRAMS.values())
            quiet = "while no interrupt comes, " if self._declared else ""
            return (
                f"{self.subject.machine.name} is recursively virtualizable by Theorem 2 for what is modelled, "
                f"{quiet}to any depth to which {granted}; {_concluded(PROVED['theorem2'])}"
            )
        verb = "does not apply to" if self.theorem2 is Status.REFUTED else "does not decide about"
        return f"Theorem 2 {verb} {self.subject.machine.name}, because {self._reasons(NEEDED['theorem2'])}"

    @property
    def _counted(self) -> str:
        return f"{self.asked} {'form' if self.asked == 1 else 'forms'} asked of {self.scope.forms}"

    @property
    def _declared(self) -> list[str]:
        return [one.name for one in self.subject.machine.interruptions]

    def _over(self, theorem: str) -> str:
        """What the verdict speaks of."""
        names = NEEDED[theorem]
        told = scope_line(self.scope)
        if self.closed is not Truth.YES:
            left = self._leaving_words(Truth.NO)
            told += "; while the guest stays ok" + (f" (not {', nor '.join(left)})" if left else "")
            open_ = self._leaving_words(Truth.UNKNOWN)
            why = dict.fromkeys(p.how for p in self.failing(CLOSURE) if p.truth is Truth.UNKNOWN)
            told += f" (not known {', nor '.join(open_)}: {_few(list(why))})" if open_ else ""
        if self.interrupts is Truth.YES:
            told += f"; with interrupts between any two instructions ({', '.join(self._declared)})"
        elif self._declared:
            told += f"; while no interrupt comes ({'; '.join(dict.fromkeys(p.how for p in self.failing(INTERRUPTS)))})"
        granted = [TITLES[name] for name in taken_for_granted(theorem)]
        granted += [f"{TITLES[p.name]} ({p.how})" for p in self.not_asked(names)]
        return f"{told}; taken for granted: {'; '.join(granted)}; {_concluded(self.proved(theorem))}"

    def _leaving_words(self, truth: Truth) -> list[str]:
        """By which forms a guest may leave, or of which that is not known."""
        ways = zip(("through", "through a trap of"), CLOSURE, strict=True)
        by = [(words, [p for p in self.failing((name,)) if p.truth is truth]) for words, name in ways]
        return [f"{words} {_mnemonics(found)}" for words, found in by if found]

    def _reasons(self, names: Sequence[str]) -> str:
        """Why a theorem does not apply, with the classes as explanation; where nothing refutes it, what is unknown."""
        failing = self.failing(names)
        if not failing and self.part:
            return f"over {self._counted} no premise fails, and a theorem speaks of every form"
        refuted = [premise for premise in failing if premise.truth is Truth.NO]
        known = {one.instruction.form: one for one in self.classes}
        told: dict[str, list[str]] = {}
        seen: set[str] = set()
        for premise in refuted or failing:
            if premise.form not in seen:
                seen.add(premise.form)
                why = f"{premise.how or premise.name}{_explained(known.get(premise.form))}"
                told.setdefault(why, []).append(premise.form or "the technique")
        said = [f"{_few(forms)}: {why}" for why, forms in told.items()]
        return "; ".join(said[:MANY_WAYS]) + (
            f"; and in {more} ways more" if (more := len(said) - MANY_WAYS) > 0 else ""
        )

    def to_json(self) -> list[dict[str, object]]:
        """Rows for `popek prove --json`: what each theorem says of this machine."""
        return [self._row(theorem) for theorem in NEEDED]

    def _row(self, theorem: str) -> dict[str, object]:
        names = NEEDED[theorem]
        failing = self.failing(names)
        other = [p for p in self.failing(tuple(TITLES)) if p not in failing]
        return {
            "id": f"{theorem}.of.{self.subject.machine.name}",
            "verdict": self.verdict(names).value,
            "statement": self.recursively if theorem == "theorem2" else str(self),
            "technique": self.subject.technique.name,
            "configuration": dict(self.subject.configuration.settings),
            "hypotheses": [f"{name}: {TITLES[name]}" for name in names],
            "failing": [premise.to_json() for premise in failing],
            "premises": [premise.to_json(witness=False) for premise in (*failing, *other)],
            "not_asked": [
                {"id": p.name, "form": p.form or None, "why": p.how} for p in self.not_asked(tuple(TITLES))
            ],
            "taken_for_granted": taken_for_granted(theorem),
            "scope": scope_json(self.scope),
            "forms_asked": self.asked,
            "while_the_guest_stays_ok": self.closed is not Truth.YES,
            "guest_may_leave_by": list(self.leaving),
            "interrupts": {
                "declared": self._declared,
                "found": (Truth.NOT_ASKED if theorem == "theorem2" else self.interrupts).value,
                "closed": (
                    holds_all(self.premises, (A6_CLOSURE,)) if self._declared else Truth.NOT_ASKED
                ).value,
            },
            "disagreements": [one.to_json() for one in self.disagreements],
            "there_are": self.there.to_json(),
            "theorem": rocq.load().to_json(self.proved(theorem)),
            "ladder": [
                *self.ladder(names, confirm=True).to_json(),
                *ladder([(locked(self.proved(theorem)),)]).to_json(),
            ],
            "seconds": round(self.seconds, 3),
            "evidence": {
                "premises": [
                    {
                        "id": p.name,
                        "form": p.form or None,
                        "verdict": Status.of(p.truth).value,
                        "query": None if p.evidence is None else p.evidence.to_json(),
                    }
                    for p in self.premises
                    if p.name in names
                ]
            },
            "vacuous": "no",
        }


def locked(name: str) -> LadderStep:
    """How far a theorem's proof goes: the lock, held against the files where they are there."""
    lock, folder = rocq.load(), rocq.checkout()
    told = f"{name}, Coq {lock.coq}, no axioms, lock {lock.sha256[:16]}"
    changed = [] if folder is None else rocq.compare(lock, folder)
    if changed:
        return LadderStep(Rung.THEOREM, Reached.UNKNOWN, f"{told}; {'; '.join(changed)}")
    return LadderStep(Rung.THEOREM, Reached.YES, told + (" (files not here)" if folder is None else ""))


def taken_for_granted(theorem: str) -> list[str]:
    """Hypotheses of a theorem that are not asked: of fetching, and (Theorem 2) of control programs."""
    needed = rocq.load().theorem(PROVED[theorem]).premises
    of_programs = list(OF_CONTROL_PROGRAMS) if theorem == "theorem2" else []
    return [name for name in TAKEN_FOR_GRANTED if name in needed] + of_programs


def _concluded(name: str) -> str:
    """By which theorem of Coq's the premises give the verdict, and how far the prover went."""
    lock = rocq.load()
    name = lock.theorem(name).name
    return f"concluded by {name} (Coq {lock.coq}, no axioms), instantiated outside the prover"


def _mnemonics(failing: Sequence[Premise[Any]]) -> str:
    names = list(dict.fromkeys(premise.form.split()[0] for premise in failing if premise.form))
    return ", ".join(names[:MANY]) + (" …" if len(names) > MANY else "")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(names[:MANY]) + more


def _explained(found: Classification[S] | None) -> str:
    """What the classes of 1974 say of a form."""
    if found is None:
        return ""
    kinds = [
        n.replace("_", "-")
        for n in found.findings
        if not n.startswith("user_") and found.truth(n) is Truth.YES
    ]
    privileged = "" if found.privileged is Truth.YES else "not "
    return f" ({' and '.join(kinds) or 'not sensitive'}, {privileged}privileged)"


def instantiate(
    subject: Subject[S],
    forms: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    jobs: int = 1,
    whole: bool = True,
) -> Instantiation[S]:
    """Ask the premises of Theorems 1 to 3 for each instruction.

    Args:
        forms: only these; all by default.
        progress: is told after each how many are done, of how many.
        jobs: processes; 0 for one per processor. With others than this one there is no evidence to be certified.
        whole: JSON is wanted of all that others find, with witnesses.

    Raises:
        NothingToAskError: the questions would be about nothing.
        SemanticsError: what is explored is not what runs.
        ReplayError: a defect of popek.
    """
    start = time.perf_counter()
    machine = subject.machine
    there = present(subject)
    asked = Premises(subject)
    asked.assert_some()
    chosen = list(machine.instructions if forms is None else dict.fromkeys(forms))
    classes, premises = of_forms(
        subject, asked, chosen, lambda: there, jobs=jobs, whole=whole, progress=progress
    )
    every = len(chosen) == len(machine.instructions)
    premises += asked.once() if every else asked.not_of_a_part()
    return Instantiation(
        subject,
        tuple(classes),
        tuple(premises),
        scope_of(machine),
        len(chosen),
        there,
        time.perf_counter() - start,
    )
