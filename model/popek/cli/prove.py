"""`popek prove`: theorems for any machine, and their premises asked of concrete ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from . import figures
from .certifying import Certify, certified
from .errors import UNKNOWN, UserError
from .figures import Svg
from .options import ALONE, AsJson, Settings, Technique, TimeIsState, Timeout, Work
from .output import console, print_json, progress, working
from .resolving import forms_of, known_names, subject_of

if TYPE_CHECKING:
    from pathlib import Path

    from popek.checks.subject import Subject


def prove(
    *names: str,
    technique: Technique = None,
    set: Settings = (),
    needs: Annotated[
        bool, Parameter(help="Show for each hypothesis a machine in which the conclusion fails without it.")
    ] = True,
    forms: Annotated[
        tuple[str, ...],
        Parameter(
            help="A form or mnemonic of the machine, several times: only these are asked; the theorems, which speak of "
            "all, are then refuted or unknown."
        ),
    ] = (),
    time_is_state: TimeIsState = False,
    timeout: Timeout = 0.0,
    work: Work = ALONE,
    certify: Certify = None,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Prove the theorems for any machine, or discharge their premises for concrete ones.

    The figure is how propositions rest on one another.

    Args:
        names: propositions or groups of them (`theorem1`), or machines; every proposition by default.
    """
    from popek.machines import makers
    from popek.report import proofs as report
    from popek.solving.solver import Effort
    from popek_proofs import PropositionsError
    from popek_proofs import prove as proved

    known = makers()
    of_machines = [name for name in names if name in known or name.endswith(".py")]
    propositions = [name for name in names if name not in of_machines]
    subjects = [
        subject_of(name, technique, set, timeout=timeout, time_is_state=time_is_state) for name in of_machines
    ]
    if not subjects and (technique is not None or set or time_is_state):
        raise UserError(
            "--technique, --set and --time-is-state: expected only with a machine, and none is named"
        )
    if forms and len(subjects) != 1:
        raise UserError(f"--forms {forms[0]}: expected with one machine, and {len(subjects)} are named")
    chosen = forms_of(subjects[0].machine, forms) if forms else None
    if svg is not None and subjects:
        raise UserError(
            f"--svg {svg}: draws propositions, and {of_machines[0]} is a machine: see popek classify --svg"
        )
    if certify is not None and not subjects:
        raise UserError(f"--certify {certify}: expected only with a machine, and none is named")
    if work != ALONE and (propositions or not subjects):
        raise UserError("--jobs, --engine and --shard: expected with machines alone")
    if work != ALONE and certify is not None:
        raise UserError("--jobs, --engine and --shard: expected without --certify")
    figures.assert_writable(svg)
    rows: list[dict[str, Any]] = []
    codes = [0]
    if propositions or not subjects:
        try:
            with known_names(), working("proving"):
                found = proved(
                    propositions, Effort(timeout=timeout), second_solver=_second_solver(), needs=needs
                )
        except PropositionsError as error:
            raise UserError(str(error)) from None
        codes.append(found.exit_code)
        rows += [proof.to_json() for proof in found.proofs]
        if not json:
            console().print(report.propositions(found))
    with work.begun():
        for subject in subjects:
            rows += _instantiated(subject, chosen, certify, json, codes, work.jobs)
    if svg is not None:
        figures.write(figures.of_propositions(propositions), svg)
    if json:
        print_json({"schema": "popek/proofs/1", "propositions": rows})
    return max(codes)


def _instantiated(
    subject: Subject[Any],
    forms: list[str] | None,
    certify: Path | None,
    json: bool,
    codes: list[int],
    jobs: int,
) -> list[dict[str, Any]]:
    """The theorems for one machine: the rows for JSON, or the verdict on the screen."""
    from popek.checks.premise import THEOREM1, THEOREM3
    from popek.checks.verdict import Status, Truth
    from popek.report import proofs as report
    from popek_proofs.theorems.instantiate import instantiate

    told = f"proving the premises for {subject.machine.name}"
    with certified(certify) as certifier:
        with progress(told) as show:
            found = instantiate(subject, forms, show, jobs=jobs, whole=json)
        if certifier is not None:
            with working("asking again, with certificates"):
                found = found.certified(certifier)
    undecided = [p for p in found.failing((*THEOREM1, *THEOREM3)) if p.truth is Truth.UNKNOWN]
    if undecided and Status.UNKNOWN in (found.theorem1, found.theorem3):
        codes.append(UNKNOWN)
    if json:
        return list(found.to_json())
    console().print(report.instantiation(found))
    return []


def _second_solver() -> Any:
    """cvc5, where it is installed."""
    from popek.solving.second_solver import available, second_answer

    if available():
        return second_answer
    print("popek: cvc5 is not installed; Z3 answers alone", file=sys.stderr)
    return None


__all__ = ["prove"]
