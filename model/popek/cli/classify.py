"""`popek classify`: the classes of every instruction form, or when it is critical."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from . import every_technique, figures
from .certifying import Certify, certified
from .errors import UNEXPECTED, UNKNOWN, UserError
from .figures import Svg
from .kept import told_of_the_store
from .options import HERE, AsJson, NoCache, Settings, TimeIsState, Timeout, Work
from .output import console, print_json, progress
from .resolving import forms_of, known_names, subject_of

if TYPE_CHECKING:
    from popek.checks.survey import Request


def classify(
    machine: str,
    /,
    *instructions: str,
    technique: every_technique.Technique = None,
    set: Settings = (),
    symbolic: Annotated[
        str, Parameter(help="Settings to leave open, comma-separated: when is each instruction critical?")
    ] = "",
    promises: Annotated[bool, Parameter(negative="", help="Check fidelity and safety, too.")] = False,
    by_the_letter: Annotated[
        bool, Parameter(negative="", help="Ask for the classes by the letter of 1974, beside ours.")
    ] = False,
    expect: Annotated[
        Path | None,
        Parameter(
            help="What --json printed once: print what differs, a line each, and exit with 1 if anything does."
        ),
    ] = None,
    time_is_state: TimeIsState = False,
    timeout: Timeout = 0.0,
    work: Work = HERE,
    certify: Certify = None,
    no_cache: NoCache = False,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Classify every instruction of a machine, with a witness for every critical one.

    The figure is what leaks into what, or, with settings left open, when each instruction is critical.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instructions: only these mnemonics or forms; the theorems, which speak of all, are then refuted or unknown.
    """
    from popek.checks.expected import differences, promises_asked, read_expected
    from popek.checks.survey import ALL, NONE, ONE_EACH, Request, survey
    from popek.report import classification as report
    from popek.report import letter

    if every := technique == every_technique.ALL:
        technique = None
        every_technique.assert_possible(set, symbolic, svg, expect)
    subject = subject_of(machine, technique, set, timeout=timeout, time_is_state=time_is_state)
    forms = forms_of(subject.machine, instructions)
    expected = None if expect is None else read_expected(expect)
    request = Request(
        subject,
        promises=promises or (expected is not None and promises_asked(expected)),
        witnesses=ALL if json else ONE_EACH,
        leaks=NONE if svg is None else ONE_EACH if forms is None else ALL,
        certify=certify,
        by_the_letter=by_the_letter,
        keep=not (no_cache or work.shard or work.engine == "dask"),
    )
    figures.assert_writable(svg)
    _assert_open_or_set(symbolic, set)
    if every:
        with certified(certify), work.begun():
            return every_technique.classify(request, forms, jobs=work.jobs, json=json)
    if by_the_letter and svg is not None:
        raise UserError(f"--svg {svg}: draws the classes as they are asked here, without --by-the-letter")
    if symbolic or any(text.endswith("=?") for text in set):
        if certify is not None:
            raise UserError(f"--certify {certify}: expected with no setting left open")
        if expect is not None:
            raise UserError(f"--expect {expect}: expected with no setting left open")
        if by_the_letter:
            raise UserError(
                "--by-the-letter: expected with every setting given a value, and one is left open"
            )
        with work.begun():
            return _classify_symbolic(request, symbolic, forms, work.jobs, svg, json)
    with certified(certify), work.begun(), progress("classifying") as show:
        found = survey(request, forms=forms, jobs=work.jobs, progress=show)
    told_of_the_store(found.rows)
    otherwise = [] if expected is None else differences(expected, found, str(expect))
    if json:
        kept = {} if expected is None else {"otherwise": [one.to_json() for one in otherwise]}
        print_json(found.to_json() | kept)
    elif expected is not None:
        print("\n".join(map(str, otherwise)) or f"as {expect} says: {len(found.rows)} forms")
    elif by_the_letter:
        console().print(letter.survey(found))
    else:
        console().print(report.survey(found))
    if svg is not None:
        figures.write(figures.of_classification(found, every=forms is not None), svg)
    if expected is not None:
        return UNEXPECTED if otherwise else 0
    return UNKNOWN if found.unknown else 0


def _assert_open_or_set(symbolic: str, settings: Sequence[str]) -> None:
    names = {name.strip().upper() for name in symbolic.split(",")}
    for text in settings:
        name, _, value = text.partition("=")
        if name.upper() in names and value != "?":
            raise UserError(f"--set {text}: {name} is left open by --symbolic {symbolic}")


def _classify_symbolic(
    request: Request, symbolic: str, forms: list[str] | None, jobs: int, svg: Path | None, json: bool
) -> int:
    from popek.checks.conditions import critical_when
    from popek.report import conditions as report

    names = [name.strip() for name in symbolic.split(",") if name.strip()]
    if symbolic and not names:
        raise UserError(f"--symbolic {symbolic}: expected settings, comma-separated, such as IOPL,UMIP")
    with known_names(), progress("classifying") as show:
        found = critical_when(request, names, forms=forms, jobs=jobs, progress=show)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.conditions(found))
    if svg is not None:
        figures.write(figures.of_settings(request.subject.machine, found), svg)
    return UNKNOWN if found.unknown else 0
