"""`popek verify`: what was found impossible, once more by other solvers and with certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .certifying import assert_possible
from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import HERE, AsJson, Settings, Technique, Timeout, Work, assert_one_of
from .output import console, print_json, progress
from .resolving import subject_of

if TYPE_CHECKING:
    from popek_proofs.verification import VerificationTarget


def _some(_: object, value: int) -> None:
    if value < 1:
        raise UserError(f"--conflicts {value}: expected a number from 1")


def verify(
    *names: str,
    technique: Technique = None,
    set: Settings = (),
    only: Annotated[
        tuple[str, ...], Parameter(help="These forms or mnemonics of a machine alone.", negative="")
    ] = (),
    part: Annotated[
        tuple[str, ...],
        Parameter(help="Of a machine: classes, promises or premises; all by default.", negative=""),
    ] = (),
    certificates: Annotated[
        bool, Parameter(help="Refute each question with a proof, and check the proof.")
    ] = True,
    conflicts: Annotated[
        int,
        Parameter(
            help="How many the SAT solver may meet in a question, before it is too hard; with --out, a later run "
            "with more tries again.",
            validator=_some,
        ),
    ] = 200_000,
    out: Annotated[
        Path | None,
        Parameter(help="A folder for questions, clauses and proofs; what it has already is not done again."),
    ] = None,
    timeout: Timeout = 0.0,
    work: Work = HERE,
    json: AsJson = False,
) -> int:
    """Verify what was found impossible: other solvers are asked, and a proof is made and checked by a small checker.

    Args:
        names: machines, claims, or theorems and their propositions.
    """
    from popek.checks.certification import Certifier
    from popek.checks.certified_files import Files, FolderError
    from popek.report import verification as report
    from popek_proofs.verification import verify as verified

    targets = _targets(names, technique, set, only, part, timeout)
    if certificates:
        assert_possible(", or --no-certificates")
    files = None if out is None else Files(out)
    try:
        if files is not None:
            files.begin()
        with work.begun(), progress("verifying") as show:
            found = verified(
                targets, Certifier(certificates, conflicts, files), jobs=work.jobs, progress=show
            )
    except FolderError as error:
        raise UserError(f"--out {error}") from None
    if json:
        print_json(found.to_json())
    else:
        console().print(report.verification(found, out))
    if found.wrong:
        return UNEXPECTED
    if not found.questions:
        raise UserError("nothing to verify: none of these verdicts rests on a question without an answer")
    return UNKNOWN if found.open or found.unexplored else 0


def _targets(
    names: Sequence[str],
    technique: str | None,
    settings: Sequence[str],
    only: Sequence[str],
    parts: Sequence[str],
    timeout: float,
) -> list[VerificationTarget]:
    """What the names mean."""
    from popek.checks.survey import Request
    from popek.kernel.machine import UnknownNameError
    from popek.machines import MachineFileError, makers
    from popek_proofs import PropositionsError, claim_checks, claims, known_propositions
    from popek_proofs.theorems.proposition import select_propositions
    from popek_proofs.verification import CLASSES, PARTS, VerificationTarget

    if not names:
        raise UserError("popek verify: expected machines, claims or theorems, such as pg74 or theorem1")
    for one in parts:
        assert_one_of("--part", one, PARTS)
    machines, shipped, found = makers(), claims.shipped(), []
    try:
        for name in names:
            if name in machines or name.endswith(".py"):
                subject = subject_of(name, technique, settings, timeout=timeout)
                known = subject.machine
                forms = [i.form for wanted in only for i in known.find(wanted)] or list(known.instructions)
                found.append(
                    VerificationTarget(
                        name, Request(subject), tuple(dict.fromkeys(forms)), tuple(parts) or PARTS
                    )
                )
                continue
            if technique is not None or settings or only or parts:
                raise UserError(
                    f"--technique, --set, --only, --part: expected with machines alone, not {name}"
                )
            if name in shipped or name.endswith(".toml"):
                for claim in claims.select([name]):
                    _, request, forms = claim_checks.prepared(claim, timeout)
                    promised = request.promises if isinstance(request.promises, frozenset) else None
                    found.append(VerificationTarget(claim.id, request, tuple(forms), (CLASSES,), promised))
            else:
                propositions = select_propositions(known_propositions(), [name])
                found.append(VerificationTarget(name, propositions=tuple(propositions)))
    except (UnknownNameError, MachineFileError, PropositionsError, claims.ClaimError) as error:
        raise UserError(str(error)) from None
    return found
