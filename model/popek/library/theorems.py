"""Questions about machines as a whole: theorems, published claims, the eight problems, ways out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from popek.errors import PopekError
from popek.machines import assisted, makers

from .subjects import forms as named
from .subjects import subject

if TYPE_CHECKING:
    from popek.kernel.machine import Machine
    from popek_proofs.claims import ClaimVerdict
    from popek_proofs.eight_problems.problems import FoundProblem
    from popek_proofs.eight_problems.search import Asking
    from popek_proofs.safety import Safety
    from popek_proofs.theorems.instantiate import Instantiation
    from popek_proofs.theorems.proposition import ProofReport


@attrs.frozen(eq=False)
class Proved:
    """What `prove` found.

    Attributes:
        propositions: what became of propositions; None where only machines were named.
        machines: what the theorems say of machines.
    """

    propositions: ProofReport | None
    machines: tuple[Instantiation[Any], ...] = ()

    def to_json(self) -> dict[str, object]:
        """`popek/proofs/1`."""
        told: list[Any] = [] if self.propositions is None else [p.to_json() for p in self.propositions.proofs]
        for one in self.machines:
            told += one.to_json()
        return {"schema": "popek/proofs/1", "propositions": told}


@attrs.frozen(eq=False)
class TheoremVerdicts:
    """What became of claims.

    Attributes:
        claims: one verdict for each.
    """

    claims: tuple[ClaimVerdict, ...]

    @property
    def unexpected(self) -> bool:
        """Whether some claim turned out otherwise."""
        return any(claim.unexpected for claim in self.claims)

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        return any(claim.unknown for claim in self.claims)

    def to_json(self) -> dict[str, object]:
        """`popek/claims/1`."""
        return {"schema": "popek/claims/1", "claims": [claim.to_json() for claim in self.claims]}


@attrs.frozen(eq=False)
class Problems:
    """Which of the eight problems a technique has.

    Attributes:
        found: one answer for each problem.
    """

    found: tuple[FoundProblem, ...]
    _asking: Asking = attrs.field(repr=False)

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        return any(one.unknown for one in self.found)

    def to_json(self) -> dict[str, object]:
        """`popek/problems/1`."""
        from popek.report.problems import to_json

        return to_json(self.found, self._asking)


def prove(
    *names: str | Path | Machine[Any],
    technique: str | None = None,
    needs: bool = True,
    forms: Sequence[str] = (),
    time_is_state: bool = False,
    timeout: float = 0.0,
    **settings: int | str,
) -> Proved:
    """Prove propositions about any machine, or say what the theorems say of concrete ones.

    Args:
        names: propositions or groups of them (`"theorem1"`), or machines; every proposition by default.
        technique, time_is_state, settings: of the machines.
        needs: show for each hypothesis a machine in which the conclusion fails without it.
        forms: of the one machine, by form or mnemonic: only these are asked, and no theorem can hold then.

    Raises:
        PopekError: a name that is not known.

    >>> import popek
    >>> [one.theorem1.value for one in popek.prove("pg74").machines]
    ['holds']
    """
    from popek.solving.second_solver import available, second_answer
    from popek.solving.solver import Effort
    from popek_proofs import prove as proved
    from popek_proofs.theorems.instantiate import instantiate

    known = makers()
    machines = [n for n in names if not isinstance(n, str) or n in known or n.endswith(".py")]
    propositions = [n for n in names if isinstance(n, str) and n not in machines]
    if not machines and (technique is not None or settings or time_is_state):
        raise PopekError(
            "technique, time_is_state and settings: expected only with a machine, and none is named"
        )
    subjects = [
        subject(name, technique, settings, timeout=timeout, time_is_state=time_is_state) for name in machines
    ]
    if forms and len(subjects) != 1:
        raise PopekError(f"forms: expected with one machine, and {len(subjects)} are named")
    chosen = named(subjects[0].machine, forms) if forms else None
    report = None
    if propositions or not machines:
        second = second_answer if available() else None
        report = proved(propositions, Effort(timeout=timeout), second_solver=second, needs=needs)
    return Proved(report, tuple(instantiate(one, chosen) for one in subjects))


def check(*claims: str | Path, timeout: float = 0.0, jobs: int = 1) -> TheoremVerdicts:
    """Published claims, or those of a TOML file of yours, against the semantics.

    Args:
        claims: ids of claims, or files; all that come with popek by default.

    Raises:
        PopekError: a claim that is not known, or a file that cannot be used.

    >>> import popek
    >>> popek.check("pg74.silent").unexpected
    False
    """
    from popek_proofs.claim_checks import evaluate
    from popek_proofs.claims import select

    chosen = select([str(claim) for claim in claims])
    return TheoremVerdicts(tuple(evaluate(chosen, timeout=timeout, jobs=jobs)))


def problems(
    machine: str | Path | Machine[Any] = "ia32",
    /,
    *names: str,
    technique: str | None = None,
    every: bool = False,
    timeout: float = 0.0,
    **settings: int | str,
) -> Problems:
    """Which of the eight problems of ring deprivileging (Uhlig et al. 2005) a technique has, with witnesses.

    Args:
        names: problems, such as `"ring-aliasing"`; all eight by default.
        every: find every form that has a problem, not only the first.

    Raises:
        PopekError: a name that is not known, or a technique that leaves the levels alone.
    """
    from popek_proofs.eight_problems import problems as eight
    from popek_proofs.eight_problems.search import Asking

    if isinstance(machine, str) and assisted(machine, technique) != machine:
        raise PopekError(f"{technique} leaves the levels alone")
    about = subject(machine, technique, settings, timeout=timeout)
    asking = Asking(about, tuple(about.machine.instructions.values()))
    return Problems(tuple(eight.ask(eight.find(names), asking, every=every)), asking)


def safety(
    machine: str | Path | Machine[Any],
    /,
    *instructions: str,
    technique: str | None = None,
    without: Collection[str] = (),
    shows: bool = True,
    timeout: float = 0.0,
    **settings: int | str,
) -> Safety:
    """Whether a guest can get out: with all that the VMM sees to, and without each of it.

    Args:
        without: hypotheses of the technique to drop together.
        shows: find the instructions whose result shows something of the VMM's, too.

    Raises:
        PopekError: a name that is not known.
    """
    from popek_proofs.safety import safety as asked

    about = subject(machine, technique, settings, timeout=timeout, as_named=True)
    chosen = [form for name in instructions for form in about.machine.find(name)]
    return asked(about, without=tuple(without), forms=chosen or None, shows=shows)


__all__ = ["Problems", "Proved", "TheoremVerdicts", "check", "problems", "prove", "safety"]
