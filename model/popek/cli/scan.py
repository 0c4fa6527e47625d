"""`popek scan`: where in a program are the instructions that break?"""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import AsJson, Jobs, Settings, Technique, Timeout
from .output import console, print_json, progress
from .resolving import subject_of


def scan(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    base: Annotated[
        str | None,
        Parameter(help="The file is a raw image whose first byte has this address, such as 0xf0000."),
    ] = None,
    mode: Annotated[
        int | None, Parameter(help="The size of code, 16, 32 or 64; needed where the file does not say it.")
    ] = None,
    machine: Annotated[
        str | None, Parameter(help="Whose code it is; by default the file or --mode says.")
    ] = None,
    technique: Technique = None,
    set: Settings = (),
    against: Annotated[
        Path | None, Parameter(help="An older answer of --json: show what is new and what is gone.")
    ] = None,
    answers: Annotated[
        Path | None,
        Parameter(
            help="What `popek classify --promises --json` said of forms, so that it is not asked again."
        ),
    ] = None,
    places: Annotated[int, Parameter(help="Show at most so many places of each form; 0 for all.")] = 0,
    explain: Annotated[
        bool, Parameter(negative="", help="Show for each place a witness with the operands that stand there.")
    ] = False,
    rewrite_plan: Annotated[
        bool, Parameter(negative="", help="Print for each place what would have to replace the instruction.")
    ] = False,
    sarif: Annotated[
        Path | None, Parameter(help="Also write a SARIF 2.1.0 log to this file, for editors and CI.")
    ] = None,
    timeout: Timeout = 0.0,
    jobs: Jobs = 0,
    json: AsJson = False,
) -> int:
    """Find the instructions of a program that are critical, unfaithful or unsafe under a technique.

    The exit code is 1 where some are found, else 3 where bytes are no instruction or a form is undecided.

    Args:
        file: an ELF or PE file, a bzImage, a raw image, or - for hexadecimal bytes on standard input.
    """
    from popek.checks.survey import Request, survey
    from popek.machines import codes
    from popek.report import scan as report
    from popek.report.sarif import log
    from popek.scan.files import from_hex, read, reader
    from popek.scan.judging import Scan, answered, difference, judge
    from popek.scan.occurrences import explained
    from popek.scan.programs import ScanError
    from popek.scan.sweep import sweep

    try:
        where = None if base is None else int(base, 0)
    except ValueError:
        raise UserError(f"--base {base}: expected an address such as 0xf0000") from None
    if where is not None and where < 0:
        raise UserError(f"--base {base}: expected an address from 0")
    if places < 0:
        raise UserError(f"--places {places}: expected a number from 0")
    if sarif is not None and (sarif.is_dir() or not sarif.parent.is_dir()):
        raise UserError(f"--sarif {sarif}: expected a file in a folder that exists")
    known = codes()
    try:
        program = from_hex(_standard_input(), where) if file == "-" else read(Path(file), where, known)
        code, size = reader(program, machine, mode, known)
        subject = subject_of(code.machine, technique, set, timeout=timeout, as_named=True)
        with progress("reading") as show:
            swept = sweep(program, code, size, progress=show)
        said = {} if answers is None else answered(answers, subject)
        present = [form for form in subject.machine.instructions if form in swept.starts]
        forms = [form for form in present if form not in said]
        with progress("asking about forms") as show:
            request = Request(subject, promises=True)
            rows = survey(request, forms=forms, jobs=jobs, progress=show).rows if forms else ()
        said |= {row.form: row for row in rows}
        findings, undecided = judge(swept, [said[form] for form in present])
        settings = dict(subject.configuration.settings)
        found = Scan(
            program, code.machine, subject.technique.name, settings, size, swept, findings, undecided
        )
        occurrences = None
        if explain or rewrite_plan:
            with progress("asking about places") as show:
                occurrences = explained(subject, code, size, findings, most=places, progress=show)
        changed = None if against is None else difference(found, against)
    except ScanError as error:
        raise UserError(str(error)) from None
    except ValueError as error:
        if type(error).__name__ != "DecodingError":
            raise
        raise UserError(str(error)) from None
    if sarif is not None:
        try:
            sarif.write_text(dumps(log(found), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--sarif {sarif}: {error.strerror}") from None
    if json:
        answer = found.to_json() | ({} if changed is None else {"since": changed.to_json()})
        if occurrences is not None:
            answer["occurrences"] = [one.to_json() for one in occurrences]
        print_json(answer)
    else:
        console().print(report.scan(found, changed, places=places))
        if explain:
            console().print(report.witnesses(occurrences or ()))
        if rewrite_plan:
            console().print(report.plan(occurrences or ()))
    if found.found:
        return UNEXPECTED
    return UNKNOWN if swept.undecoded or undecided else 0


def _standard_input() -> str:
    return sys.stdin.buffer.read().decode("ascii", "replace")
