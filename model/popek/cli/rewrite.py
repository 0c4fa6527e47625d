"""`popek rewrite`: the least set of forms to rewrite, and what a list of somebody's comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import AsJson, Jobs, Settings, Technique, Timeout
from .output import console, print_json, progress
from .resolving import forms_of, subject_of


def rewrite(
    machine: str,
    /,
    *instructions: str,
    technique: Technique = None,
    set: Settings = (),
    promise: Annotated[Literal["both", "fidelity", "safety"], Parameter(help="What is to be kept.")] = "both",
    given: Annotated[
        Path | None,
        Parameter(
            help="Judge this list of mnemonics and forms: text with one a line, or TOML or JSON with `forms`."
        ),
    ] = None,
    timeout: Timeout = 0.0,
    jobs: Jobs = 0,
    json: AsJson = False,
) -> int:
    """Find the least set of forms that must be rewritten in the guest's kernel mode, with witnesses.

    For binary translation and paravirtualization. The exit code is 1 where a list of `--given` is incomplete.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instructions: only these mnemonics or forms; that the set is enough is then not known.
    """
    from popek.checks.given_forms import GivenFormsError, given_forms
    from popek.checks.rewriting import rewriting
    from popek.checks.verdict import Truth
    from popek.report import rewriting as report

    subject = subject_of(machine, technique, set, timeout=timeout)
    forms = forms_of(subject.machine, instructions)
    try:
        listed = None if given is None else given_forms(given, subject.machine)
    except GivenFormsError as error:
        raise UserError(f"--given {error}") from None
    with progress("asking") as show:
        found = rewriting(subject, promise=promise, forms=forms, jobs=jobs, progress=show)
    judged = None if listed is None else found.judge(listed)
    if json:
        print_json(found.to_json() | ({} if judged is None else {"given": judged.to_json()}))
    else:
        console().print(report.rewriting(found, judged))
    if judged is not None and judged.complete is Truth.NO:
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0
