"""`popek rewrite`: the least set of forms to rewrite, and what a list of somebody's comes to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from popek.errors import PopekError

from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import AsJson, Jobs, Settings, Technique, Timeout
from .output import console, print_json, progress
from .resolving import forms_of, subject_of

if TYPE_CHECKING:
    from popek.checks.subject import Subject
    from popek.kernel.machine import Machine


def rewrite(
    machine: str,
    /,
    *instructions: str,
    technique: Technique = None,
    set: Settings = (),
    promise: Annotated[Literal["both", "fidelity", "safety"], Parameter(help="What is to be kept.")] = "both",
    given: Annotated[
        str | None,
        Parameter(
            help="Judge this list of mnemonics and forms: text with one a line, or TOML or JSON with `forms`; or the "
            "name of a published one, such as rewriting.vmi."
        ),
    ] = None,
    operands: Annotated[
        bool,
        Parameter(negative="", help="Say with which operands, where not with all, a form breaks a promise."),
    ] = False,
    saves: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="NAME=VALUE, several times: what another setting saves from rewriting, or adds to it.",
        ),
    ] = (),
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
    from popek.checks.given_forms import GivenFormsError
    from popek.checks.rewriting import rewriting
    from popek.checks.rewriting_saved import saving
    from popek.checks.verdict import Truth
    from popek.report import rewriting as report

    subject = subject_of(machine, technique, set, timeout=timeout)
    forms = forms_of(subject.machine, instructions)
    try:
        listed = None if given is None else _listed(given, subject.machine)
    except GivenFormsError as error:
        raise UserError(f"--given {error}") from None
    changes = [_changed(subject, text) for text in saves]
    with progress("asking") as show:
        found = rewriting(
            subject,
            promise=promise,
            forms=forms,
            jobs=jobs,
            evidence=json,
            operands=operands,
            progress=show,
        )
    savings = []
    for name, value in changes:
        with progress(f"asking what {name}={value} saves") as show:
            savings.append(saving(subject, found, name, value, promise=promise, jobs=jobs, progress=show))
    judged = None if listed is None else found.judge(listed)
    if json:
        answer = found.to_json() | ({} if judged is None else {"given": judged.to_json()})
        print_json(answer | ({"saves": [one.to_json() for one in savings]} if savings else {}))
    else:
        console().print(report.rewriting(found, judged, savings))
    if judged is not None and judged.complete is Truth.NO:
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0


def _changed(subject: Subject[Any], text: str) -> tuple[str, int]:
    """Another value of a setting that has one."""
    from popek.kernel.configuration import SettingError, configure

    try:
        wanted = configure(subject.machine, [text]).settings
    except (SettingError, PopekError) as error:
        raise UserError(str(error).replace("--set", "--saves", 1)) from None
    name = next((one for one in wanted if one.upper() == text.partition("=")[0].upper()), None)
    if name is None or name not in subject.configuration.settings:
        raise UserError(f"--saves {text}: expected another value of a setting that has one")
    if wanted[name] == subject.configuration.settings[name]:
        raise UserError(f"--saves {text}: this is its value already")
    return name, wanted[name]


def _listed(given: str, machine: Machine[Any]) -> list[str]:
    """The forms of a file, or of a published list."""
    from popek.checks.given_forms import GivenFormsError, given_forms
    from popek_proofs.rewriting import published_lists

    published = next((one for one in published_lists() if one.id == given), None)
    if published is None:
        return given_forms(Path(given), machine)
    if published.machine != machine.name:
        raise GivenFormsError(f"{given}: expected {published.machine}, whose instructions it names")
    return published.forms(machine)
