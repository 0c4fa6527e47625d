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
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from popek import __version__
from popek.solving.choice import chosen_solver

from . import atlas, decoding, every_technique, figures, problems, rewrite, safety, scan, verify, witnesses
from .certifying import Certify, certified
from .errors import UserError
from .figures import Svg
from .options import AsJson, Jobs, Settings, Technique, TimeIsState, Timeout, shown_default
from .output import console, print_json, progress, working
from .resolving import forms_of, known_names, subject_of

if TYPE_CHECKING:
    from popek.checks.subject import Subject
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
app.command("popek.cli.vmcb:app", name="vmcb", help="Judge and decode AMD VMCBs.")
app.command("popek.cli.difftest:app", name="difftest", help="Compare the models with emulators.")
app.command("popek.cli.machines:machines", name="machines")
app.command(problems.problems)
app.command(safety.safety)
app.command(rewrite.rewrite)
app.command(scan.scan)
app.command(verify.verify)
app.command(
    "popek.cli.assist:app",
    name="assist",
    help="Hardware assistance: what its controls must be, the best choice, what real ones come to.",
)
app.command(atlas.atlas)

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
        if type(error).__name__ in (
            "NothingToAskError",
            "DeclarationError",
            "SemanticsError",
        ):  # without importing
            _fail(str(error))
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
    from popek.checks.survey import ALL, NONE, ONE_EACH, Request, survey
    from popek.report import classification as report
    from popek.report import letter

    if every := technique == every_technique.ALL:
        technique = None
        every_technique.assert_possible(set, symbolic, svg)
    subject = subject_of(machine, technique, set, timeout=timeout, time_is_state=time_is_state)
    forms = forms_of(subject.machine, instructions)
    request = Request(
        subject,
        promises=promises or (json and not by_the_letter and not every),
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
        if by_the_letter:
            raise UserError(
                "--by-the-letter: expected with every setting given a value, and one is left open"
            )
        return _classify_symbolic(request, symbolic, forms, svg, json)
    with certified(certify), progress("classifying") as show:
        found = survey(request, forms=forms, jobs=jobs, progress=show)
    if json:
        print_json(found.to_json())
    elif by_the_letter:
        console().print(letter.survey(found))
    else:
        console().print(report.survey(found))
    if svg is not None:
        figures.write(figures.of_classification(found, every=forms is not None), svg)
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


@app.command
def prove(
    *names: str,
    technique: Technique = None,
    set: Settings = (),
    needs: Annotated[
        bool, Parameter(help="Show for each hypothesis a machine in which the conclusion fails without it.")
    ] = True,
    time_is_state: TimeIsState = False,
    timeout: Timeout = 0.0,
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
    if svg is not None and subjects:
        raise UserError(
            f"--svg {svg}: draws propositions, and {of_machines[0]} is a machine: see popek classify --svg"
        )
    if certify is not None and not subjects:
        raise UserError(f"--certify {certify}: expected only with a machine, and none is named")
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
    for subject in subjects:
        rows += _instantiated(subject, certify, json, codes)
    if svg is not None:
        figures.write(figures.of_propositions(propositions), svg)
    if json:
        print_json({"schema": "popek/proofs/1", "propositions": rows})
    return max(codes)


def _instantiated(
    subject: Subject[Any], certify: Path | None, json: bool, codes: list[int]
) -> list[dict[str, Any]]:
    """The theorems for one machine: the rows for JSON, or the verdict on the screen."""
    from popek.checks.verdict import Status
    from popek.report import proofs as report
    from popek_proofs.theorems.instantiate import instantiate

    told = f"proving the premises for {subject.machine.name}"
    with certified(certify) as certifier, working(told):
        found = instantiate(subject)
        found = found if certifier is None else found.certified(certifier)
    if Status.UNKNOWN in (found.theorem1, found.theorem3):
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


@app.command
def bench(
    *parts: str,
    machine: str = "ia32",
    only: Annotated[tuple[str, ...], Parameter(help="These forms or mnemonics alone.", negative="")] = (),
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Measure speed in one run: of classifying beside the solver's, and rates of the rest.

    Args:
        parts: classify, steps, laws, vmcs, difftest; all by default.
        machine: a name that `popek machines` lists, or a Python file that declares one.
    """
    from popek.benchmark import PARTS, benchmark
    from popek.report import benchmark as report

    figures.assert_writable(svg)
    with known_names(), progress("measuring") as show:
        found = benchmark(machine, only, parts=parts or PARTS, progress=show)
    if svg is not None:
        figures.write(report.figure(found), svg)
    if json:
        print_json(found.to_json())
    else:
        console().print(report.benchmark(found))
    return 0


__all__ = ["app", "console", "main", "print_json", "progress"]
