"""The command line: `popek COMMAND`.  No logic of its own.

Exit codes: 0 as expected, 1 some claim or check turned out otherwise, 2 usage or bad input, 3 unknown
somewhere.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from popek import __version__
from popek.errors import PopekError
from popek.solving.choice import chosen_solver

from . import (
    atlas,
    bench,
    decoding,
    every_technique,
    explore,
    figures,
    machines,
    notebooks,
    problems,
    prove,
    rewrite,
    safety,
    scan,
    verify,
    witnesses,
)
from .certifying import Certify, certified
from .errors import UserError
from .figures import Svg
from .options import AsJson, Jobs, Settings, Technique, TimeIsState, Timeout, shown_default
from .output import console, print_json, progress
from .resolving import forms_of, known_names, subject_of

if TYPE_CHECKING:
    from popek.checks.survey import Request

app = App(
    name="popek",
    version=__version__,
    help="Can a machine host a virtual machine monitor?  Derived from semantics, with witnesses.",
    default_parameter=Parameter(negative_iterable=(), show_default=shown_default),
    suppress_keyboard_interrupt=False,  # main says so itself
)
app.register_install_completion_command(add_to_startup=False)
app.command(
    "popek.cli.vmcs_questions:app",
    name="vmcs",
    help="Judge, decode, explain, compare, repair and generate VMCSs.",
)
app.command("popek.cli.vmcb_questions:app", name="vmcb", help="Judge, decode, explain, repair AMD's VMCBs.")
app.command("popek.cli.difftest:app", name="difftest", help="Compare the models with emulators.")
app.command(
    "popek.cli.assist:app",
    name="assist",
    help="Hardware assistance: what its controls must be, the best choice, what real ones come to.",
)
app.command(
    "popek.cli.devices:app",
    name="devices",
    help="What a guest's own device can do to the monitor; fault lines of remapping units explained.",
)

for _command in (
    atlas.atlas, bench.bench, explore.explore, machines.machines, notebooks.notebooks, problems.problems,
    prove.prove, rewrite.rewrite, safety.safety, scan.scan, verify.verify,
):  # fmt: skip
    app.command(_command)

UNEXPECTED, BAD_INPUT, UNKNOWN = 1, 2, 3


def main() -> NoReturn:
    """Run a command and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        chosen_solver()
    except ValueError as error:
        _fail(str(error))
    try:
        code = app(exit_on_error=False, print_error=False, result_action="return_value")
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error is still met
    except UnusedCliTokensError as error:
        _fail(f"no argument is expected here: {' '.join(error.unused_tokens or ())}")
    except (UserError, CycloptsError) as error:
        _fail(" ".join(str(error).split()))
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        sys.exit(0)
    except KeyboardInterrupt:
        _fail("interrupted")
    except Exception as error:
        if isinstance(error, PopekError):
            _fail(" ".join(str(error).split()))
        if type(error).__name__ == "SolversDisagreeError":
            print(f"popek: {error}", file=sys.stderr)
            sys.exit(UNEXPECTED)
        where = _in_file_of_the_user(error)
        if where is not None:
            _fail(f"{where}: {type(error).__name__}: {error}")
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EIO):
            _drop_output()
            _fail(f"cannot write: {error.strerror}")
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(*_: object) -> NoReturn:
    """Stop, without a word about objects that were interrupted while they were made."""
    sys.unraisablehook = lambda _: None
    raise KeyboardInterrupt


def _drop_output() -> None:
    """Let go of what nobody takes, so that the interpreter does not try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    print(f"popek: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _in_file_of_the_user(error: Exception) -> str | None:
    """File and line, where semantics in a Python file that the command names went wrong."""
    given = {str(Path(argument)) for argument in sys.argv if argument.endswith(".py")}
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename in given]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


@app.command
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
    jobs: Jobs = 0,
    certify: Certify = None,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Classify every instruction of a machine, with a witness for every critical one.

    The figure is what leaks into what, or, with settings left open, when each instruction is critical.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instructions: only these mnemonics or forms; the theorems, which speak of all, are then refuted or unknown.
    """
    from popek.checks.expected import differences, read_expected
    from popek.checks.survey import ALL, NONE, ONE_EACH, Request, survey
    from popek.report import classification as report
    from popek.report import letter

    if every := technique == every_technique.ALL:
        technique = None
        every_technique.assert_possible(set, symbolic, svg, expect)
    subject = subject_of(machine, technique, set, timeout=timeout, time_is_state=time_is_state)
    forms = forms_of(subject.machine, instructions)
    expected = None if expect is None else read_expected(expect)
    listed = [] if expected is None else expected["instructions"]
    request = Request(
        subject,
        promises=promises
        or (json and not by_the_letter and not every)
        or any("faithful" in row for row in listed),
        witnesses=ALL if json else ONE_EACH,
        leaks=NONE if svg is None else ONE_EACH if forms is None else ALL,
        certify=certify,
        by_the_letter=by_the_letter,
    )
    figures.assert_writable(svg)
    _assert_open_or_set(symbolic, set)
    if every:
        with certified(certify):
            return every_technique.classify(request, forms, jobs=jobs, json=json)
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
        return _classify_symbolic(request, symbolic, forms, svg, json)
    with certified(certify), progress("classifying") as show:
        found = survey(request, forms=forms, jobs=jobs, progress=show)
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
    request: Request, symbolic: str, forms: list[str] | None, svg: Path | None, json: bool
) -> int:
    from popek.checks.conditions import critical_when
    from popek.report import conditions as report

    names = [name.strip() for name in symbolic.split(",") if name.strip()]
    if symbolic and not names:
        raise UserError(f"--symbolic {symbolic}: expected settings, comma-separated, such as IOPL,UMIP")
    with known_names(), progress("classifying") as show:
        found = critical_when(request, names, forms=forms, progress=show)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.conditions(found))
    if svg is not None:
        figures.write(figures.of_settings(request.subject.machine, found), svg)
    return UNKNOWN if found.unknown else 0


@app.command
def explain(
    machine: str,
    instruction: str | None = None,
    /,
    *,
    code: decoding.Bytes = None,
    bits: decoding.Bits = None,
    technique: Technique = None,
    set: Settings = (),
    time_is_state: TimeIsState = False,
    timeout: Timeout = 0.0,
    svg: Svg = None,
    figure: Annotated[
        figures.Kind,
        Parameter(help="What --svg draws: what leaks into what, or the path tree of the first form."),
    ] = figures.LEAKS,
    asm: witnesses.Asm = False,
    confirm: witnesses.Confirm = False,
    certify: Certify = None,
    json: AsJson = False,
) -> int:
    """Say why an instruction is in its classes, and which promises it breaks, with witnesses.

    With `--asm` alone nothing but the assembly is printed.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instruction: a mnemonic, or one operand form; or give `--bytes`.
    """
    from popek.checks.explanation import explain as explained
    from popek.checks.survey import Request
    from popek.report import explanation as report

    subject = subject_of(machine, technique, set, timeout=timeout, time_is_state=time_is_state)
    figures.assert_writable(svg)
    witnesses.assert_possible(machine, asm, confirm)
    decoded = decoding.decoded(machine, instruction, code, bits)
    instruction = decoded.form if decoded else instruction or ""
    with known_names(), certified(certify) as certifier, progress("explaining") as show:
        found = explained(Request(subject, promises=True), instruction, progress=show)
        found = found if certifier is None else found.certified(certifier)
    emulated = witnesses.of_explanation(subject.machine, instruction, found, asm, confirm)
    found = found.emulated(witnesses.steps(emulated))
    if json:
        answer = found.to_json()
        if decoded:
            answer["decoded"] = decoded.to_json()
        if emulated:
            answer["emulated"] = [one.to_json() for one in emulated]
        print_json(answer)
    elif asm is not True:
        if decoded:
            console().print(f"{decoded.text} is {decoded.form}\n", markup=False)
        console().print(report.explanation(found))
        witnesses.print_confirmations(emulated)
    if svg is not None:
        figures.write(figures.of_instruction(subject.machine, found, figure), svg)
    if any(one.differs for one in emulated):
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0


@app.command
def check(
    *claims: str, timeout: Timeout = 0.0, jobs: Jobs = 0, certify: Certify = None, json: AsJson = False
) -> int:
    """Check published claims, or those of a file of your own, against the semantics.

    Args:
        claims: ids of claims, or TOML files; all that come with popek by default.
    """
    from popek.report import claims as report
    from popek_proofs.claim_checks import evaluate
    from popek_proofs.claims import ClaimError, select

    try:
        chosen = select(claims)
        with certified(certify), progress("checking") as show:
            found = evaluate(chosen, timeout=timeout, jobs=jobs, certify=certify, progress=show)
    except ClaimError as error:
        raise UserError(str(error)) from None
    if json:
        print_json({"schema": "popek/claims/1", "claims": [claim.to_json() for claim in found]})
    else:
        console().print(report.claims(found))
    if any(claim.unexpected for claim in found):
        return UNEXPECTED
    return UNKNOWN if any(claim.unknown for claim in found) else 0


__all__ = ["app", "console", "main", "print_json", "progress"]
