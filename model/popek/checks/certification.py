"""One question that has no answer, once more by others: second and third solver, and a checked certificate.

What was found can be kept in a folder, by the hash of the question's text, and is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from popek.solving import second_solver
from popek.solving.certificate import CONFLICTS, NotCertifiedError, RefutedError, TooHardError, certify
from popek.solving.solver import Answer, Effort

from .certified_files import Files
from .ladder import NOT_WANTED
from .verdict import CONFIRMATION, Question

_TRIED: Final = "conflicts"


@attrs.frozen
class Certification:
    """What became of one question.

    Attributes:
        sha256: of its text.
        solvers: what each said; the first is the one that answered.
        certified: there is a certificate, and it was checked.
        why: why there is none, or what is wrong.
        wrong: a solver, the clauses or the proof contradict the answer.
        figures: of the certificate; or how many conflicts were too few for one.
        files: SHA-256 of text, clauses and proof, by how their names end; of what there is.
        seconds: of processor time.
    """

    sha256: str
    solvers: Mapping[str, str]
    certified: bool
    why: str = ""
    wrong: bool = False
    figures: Mapping[str, int] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)
    seconds: float = 0.0

    @property
    def _agreeing(self) -> int:
        return sum(answer == Answer.UNSAT.value for answer in self.solvers.values())

    @property
    def confirmed(self) -> bool:
        """A second solver says the same."""
        return self._agreeing > 1

    @property
    def confirmed_twice(self) -> bool:
        """A third says the same."""
        return self._agreeing > 2

    def to_json(self) -> dict[str, object]:
        """`evidence.schema.json`, `certificate`."""
        return {
            "certified": self.certified,
            "why": self.why or None,
            "figures": dict(self.figures),
            "files": dict(self.files),
        }


@attrs.frozen
class Certifier:
    """How questions are certified.

    Attributes:
        certificates: make and check them; otherwise other solvers are asked alone.
        conflicts: of the SAT solver, before a question counts as too hard.
        files: where texts, clauses, proofs and results are kept, if anywhere.
    """

    certificates: bool = True
    conflicts: int = CONFLICTS
    files: Files | None = None

    def of(self, question: Question, by: str) -> Certification:
        """A question without an answer.

        Args:
            by: who found none, and how.
        """
        return self.check(question.smtlib, by, question)

    def check(self, text: str, answered: str = "", question: Question | None = None) -> Certification:
        """A text that is said to be unsatisfiable, or what an earlier run kept of it.

        Args:
            answered: by which solver; empty if by none.
            question: of which it is the text, to be compared with.
        """
        kept = None if self.files is None else self.files.kept(text, certified=self.certificates)
        if kept is not None:
            found = Certification(**kept)
            if not self.certificates or found.figures.get(_TRIED, self.conflicts) >= self.conflicts:
                return found
        begin = time.process_time()
        solvers = {answered: Answer.UNSAT.value} if answered else {}
        solvers |= {name: answer.value for name, answer in others(text, answered)}
        disagrees = [name for name, answer in solvers.items() if answer == Answer.SAT.value]
        why, certificate, wrong = "", None, bool(disagrees)
        figures: Mapping[str, int] = {}
        if wrong:
            why = f"{', '.join(disagrees)} finds an assignment"
        elif not self.certificates:
            why = NOT_WANTED
        else:
            conditions = None if question is None else [word.term for word in question.conditions]
            about = text.partition("\n")[0].lstrip("; ")
            try:
                certificate = certify(text, conditions, about=about, conflicts=self.conflicts)
                figures = dict(certificate.figures)
            except TooHardError as error:
                why, figures = str(error), {_TRIED: self.conflicts}
            except NotCertifiedError as error:
                why = str(error)
            except RefutedError as error:
                why, wrong = str(error), True
        texts = {".smt2": text}
        if certificate is not None:
            texts |= {".cnf": certificate.cnf, ".drat": certificate.proof}
        found = Certification(
            Files.name_of(text),
            solvers,
            certificate is not None,
            why,
            wrong,
            figures,
            {ending: Files.name_of(content) for ending, content in texts.items()},
            round(time.process_time() - begin, 3),
        )
        if self.files is not None:
            self.files.keep(texts, attrs.asdict(found))
        return found


def others(text: str, answered: str) -> Iterator[tuple[str, Answer]]:
    """What solvers that did not answer say to a text."""
    from popek.solving.engine_z3 import Z3Engine
    from popek.solving.first_order import ask

    if answered != Z3Engine.name:
        yield Z3Engine.name, ask(text, effort=Effort(rlimit=CONFIRMATION)).answer
    if second_solver.available():
        yield second_solver.second_solver_version(), second_solver.second_answer(text)


__all__ = ["Certification", "Certifier", "others"]
