"""Propositions: the theorems of Popek and Goldberg for any machine, and what follows for concrete ones.

    from popek_proofs import prove
    from popek.solving.second_solver import second_answer

    report = prove(["theorem1"], second_solver=second_answer)
    report.to_json()

`PROPOSITIONS` is what the entry point group `popek.propositions` looks for in a package: a tuple of
`Proposition`, or a callable that makes one.  A package of a user's own with that attribute and entry point is
found the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from popek.errors import PopekError

if TYPE_CHECKING:
    from popek.solving.solver import Effort
    from popek_proofs.theorems.proposition import ProofReport, Proposition, SecondSolver

GROUP = "popek.propositions"


class PropositionsError(PopekError):
    """A package that offers propositions does not keep to the protocol; the message names it."""


def propositions() -> tuple[Proposition, ...]:
    """The propositions of this package: Theorems 1, 2 and 3, lemma by lemma."""
    from .theorems import storage, theorem1, theorem2, theorem3

    return (
        *storage.PROPOSITIONS,
        *theorem1.PROPOSITIONS,
        *theorem2.PROPOSITIONS,
        *theorem3.PROPOSITIONS,
    )


PROPOSITIONS: Callable[[], tuple[Proposition, ...]] = propositions


def known_propositions() -> tuple[Proposition, ...]:
    """The propositions of this package and of every package installed beside it.

    Raises:
        PropositionsError: a package has no PROPOSITIONS, or an id is taken.
    """
    found = {p.id: p for p in propositions()}
    for entry in metadata.entry_points(group=GROUP):
        if entry.value.partition(":")[0] == __name__:
            continue
        for proposition in _offered(entry.value, entry.load()):
            if proposition.id in found:
                raise PropositionsError(f"{entry.value}: the proposition {proposition.id} exists already")
            found[proposition.id] = proposition
    return tuple(found.values())


def _offered(name: str, package: Any) -> Iterable[Proposition]:
    from popek_proofs.theorems.proposition import Proposition

    offered = getattr(package, "PROPOSITIONS", package)
    made = offered() if callable(offered) else offered
    if not isinstance(made, Iterable):
        raise PropositionsError(
            f"{name}: expected an attribute PROPOSITIONS, a tuple or a callable that makes one"
        )
    listed = tuple(made)
    for item in listed:
        if not isinstance(item, Proposition):
            raise PropositionsError(
                f"{name}: expected propositions in PROPOSITIONS, not {type(item).__name__}"
            )
    return listed


def prove(
    names: Iterable[str] = (),
    effort: Effort | None = None,
    *,
    second_solver: SecondSolver | None = None,
    needs: bool = True,
) -> ProofReport:
    """Prove the named propositions, all known ones by default.

    Args:
        names: ids, or what ids begin with (`theorem1`).
        effort: bounds of each query, and the tally.
        second_solver: answers the exported SMT-LIB text independently
            (`popek.solving.second_solver.second_answer`).
        needs: also drop each hypothesis in turn, for a machine in which the conclusion fails.

    Raises:
        UnknownNameError: with near matches.
        PropositionsError: an installed package does not keep to the protocol.
    """
    from popek_proofs.theorems.proposition import prove_all

    return prove_all(known_propositions(), names, effort, second_solver=second_solver, needs=needs)
