"""The command line: `popek COMMAND`.  No logic of its own.

Exit codes: 0 as expected, 1 some claim or check turned out otherwise, 2 usage or bad input, 3 unknown
somewhere.
"""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

from popek import __version__

from . import decoding, figures, witnesses
from .errors import UserError
from .figures import Svg

if TYPE_CHECKING:
    from rich.console import Console

    from popek.checks.survey import Request
    from popek.kernel.machine import Machine

app = App(
    name="popek",
    version=__version__,
    help="Can a machine host a virtual machine monitor?  Derived from semantics, with witnesses.",
)
app.register_install_completion_command(add_to_startup=False)
app.command("popek.cli.vmcs:app", name="vmcs", help="Judge, decode, explain and compare VMCSs.")
app.command("popek.cli.vmcb:app", name="vmcb", help="Judge AMD VMCBs.")
app.command("popek.cli.difftest:app", name="difftest", help="Compare the models with emulators.")
app.command("popek.cli.problems:problems", name="problems")
app.command("popek.cli.assistance:compare", name="compare")
app.command("popek.cli.safety:safety", name="safety")
app.command("popek.cli.vti:app", name="vti", help="Judge a VT-i configuration: VPD and PSR.vm.")
app.command("popek.cli.vtx:app", name="vtx", help="Find and judge the VT-x controls that keep the promises.")
app.command(
    "popek.cli.atlas:atlas",
    name="atlas",
    help="Show machines, techniques and configurations side by side, or as a page to browse.",
)

Technique = Annotated[str | None, Parameter(help="A way to virtualize it; the machine's first by default.")]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="NAME=VALUE, several times; NAME=? leaves it open.", negative=""),
]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
Timeout = Annotated[float, Parameter(help="Seconds a single question may take; 0 for no bound.")]
Jobs = Annotated[int, Parameter(help="Processes; 0 for one per processor.")]
TimeIsState = Annotated[bool, Parameter(negative="", help="Count clocks as resources.")]

UNEXPECTED, BAD_INPUT, UNKNOWN = 1, 2, 3


def main() -> NoReturn:
    """Run a command and exit."""
    try:
        code = app(exit_on_error=False, print_error=False, result_action="return_value")
    except (UserError, CycloptsError) as error:
        _fail(" ".join(str(error).split()))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(UNEXPECTED)
    except KeyboardInterrupt:
        _fail("interrupted")
    except Exception as error:
        where = _in_file_of_the_user(error)
        if where is None:
            raise
        _fail(f"{where}: {type(error).__name__}: {error}")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    print(f"popek: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _in_file_of_the_user(error: Exception) -> str | None:
    """File and line, where semantics in a Python file that the command names went wrong."""
    given = {str(Path(argument)) for argument in sys.argv if argument.endswith(".py")}
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename in given]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


@app.command
def machines(*, json: AsJson = False) -> int:
    """List the machines, their techniques and their settings."""
    from popek.architectures import makers

    known = [make() for make in makers().values()]
    if json:
        _print_json({"schema": "popek/machines/1", "machines": [_machine_json(m) for m in known]})
        return 0
    from popek.report import classification as report

    console().print(report.machines(known))
    return 0


@app.command
def classify(
    machine: str,
    /,
    *instructions: str,
    technique: Technique = None,
    set: Settings = (),
    symbolic: Annotated[
        str, Parameter(help="Settings to leave open, comma-separated: when is each instruction critical?")
    ] = "",
    promises: Annotated[bool, Parameter(negative="", help="Check fidelity and safety, too.")] = False,
    time_is_state: TimeIsState = False,
    timeout: Timeout = 0.0,
    jobs: Jobs = 0,
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Classify every instruction of a machine, with a witness for every critical one.

    The figure is what leaks into what, or, with settings left open, when each instruction is critical.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instructions: only these mnemonics or forms; the theorems, which speak of all, are then refuted or unknown.
    """
    from popek.checks.survey import ALL, ONE_EACH, survey
    from popek.report import classification as report

    request = _request(
        machine,
        technique,
        set,
        timeout=timeout,
        promises=promises or json,
        witnesses=ALL if json else ONE_EACH,
        time_is_state=time_is_state,
    )
    forms = _forms(machine, instructions)
    figures.assert_writable(svg)
    if symbolic or any(text.endswith("=?") for text in set):
        return _classify_symbolic(request, symbolic, forms, svg, json)
    with progress("classifying") as show:
        found = survey(request, forms=forms, jobs=jobs, progress=show)
    if json:
        _print_json(found.to_json())
    else:
        console().print(report.survey(found))
    if svg is not None:
        figures.write(figures.of_classification(request, found, forms), svg)
    return UNKNOWN if found.unknown else 0


def _classify_symbolic(
    request: Request, symbolic: str, forms: list[str] | None, svg: Path | None, json: bool
) -> int:
    from popek.checks.conditions import critical_when
    from popek.report import conditions as report

    names = [name.strip() for name in symbolic.split(",") if name.strip()]
    with _known_names(), progress("classifying") as show:
        found = critical_when(request, names, forms=forms, progress=show)
    if json:
        _print_json(found.to_json())
    else:
        console().print(report.conditions(found))
    if svg is not None:
        figures.write(figures.of_settings(request, found), svg)
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
    json: AsJson = False,
) -> int:
    """Say why an instruction is in its classes, and which promises it breaks, with witnesses.

    With `--asm` alone nothing but the assembly is printed.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instruction: a mnemonic, or one operand form; or give `--bytes`.
    """
    from popek.checks.explanation import explain as explained
    from popek.report import explanation as report

    request = _request(machine, technique, set, timeout=timeout, promises=True, time_is_state=time_is_state)
    figures.assert_writable(svg)
    witnesses.assert_possible(machine, asm, confirm)
    decoded = decoding.decoded(machine, instruction, code, bits)
    instruction = decoded.form if decoded else instruction or ""
    with _known_names(), progress("explaining") as show:
        found = explained(request, instruction, progress=show)
    answer = found.to_json()
    if decoded:
        answer["decoded"] = decoded.to_json()
    emulated = witnesses.of_explanation(_machine(machine), instruction, found, asm, confirm)
    if emulated:
        answer["emulated"] = [one.to_json() for one in emulated]
    if json:
        _print_json(answer)
    elif asm is not True:
        if decoded:
            console().print(f"{decoded.text} is {decoded.form}\n", markup=False)
        console().print(report.explanation(found))
        witnesses.print_confirmations(emulated)
    if svg is not None:
        figures.write(figures.of_instruction(request, instruction, figure), svg)
    if any(one.differs for one in emulated):
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0


@app.command
def check(*claims: str, timeout: Timeout = 0.0, jobs: Jobs = 0, json: AsJson = False) -> int:
    """Check published claims, or those of a file of your own, against the semantics.

    Args:
        claims: ids of claims, or TOML files; all that come with popek by default.
    """
    from popek.report import claims as report
    from popek_proofs.claims import ClaimError, evaluate, select

    try:
        chosen = select(claims)
        with progress("checking") as show:
            found = evaluate(chosen, timeout=timeout, jobs=jobs, progress=show)
    except ClaimError as error:
        raise UserError(str(error)) from None
    if json:
        _print_json({"schema": "popek/claims/1", "claims": [claim.to_json() for claim in found]})
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
    svg: Svg = None,
    json: AsJson = False,
) -> int:
    """Prove the theorems for any machine, or discharge their premises for concrete ones.

    The figure is how propositions rest on one another.

    Args:
        names: propositions or groups of them (`theorem1`), or machines; every proposition by default.
    """
    from popek.architectures import makers
    from popek.checks.solver import Effort
    from popek.report import proofs as report
    from popek_proofs import PropositionsError
    from popek_proofs import prove as proved

    known = makers()
    of_machines = [name for name in names if name in known or name.endswith(".py")]
    propositions = [name for name in names if name not in of_machines]
    requests = [
        _request(name, technique, set, timeout=timeout, time_is_state=time_is_state) for name in of_machines
    ]
    if svg is not None and requests:
        raise UserError(
            f"--svg {svg}: draws propositions, and {of_machines[0]} is a machine: see popek classify --svg"
        )
    figures.assert_writable(svg)
    rows: list[dict[str, Any]] = []
    codes = [0]
    if propositions or not requests:
        try:
            with _known_names():
                found = proved(
                    propositions, Effort(timeout=timeout), second_solver=_second_solver(), needs=needs
                )
        except PropositionsError as error:
            raise UserError(str(error)) from None
        codes.append(found.exit_code)
        rows += [proof.to_json() for proof in found.proofs]
        if not json:
            console().print(report.propositions(found))
    for request in requests:
        rows += _instantiated(request, json, codes)
    if svg is not None:
        figures.write(figures.of_propositions(propositions), svg)
    if json:
        _print_json({"schema": "popek/proofs/1", "propositions": rows})
    return max(codes)


def _instantiated(request: Request, json: bool, codes: list[int]) -> list[dict[str, Any]]:
    """The theorems for one machine: the rows for JSON, or the verdict on the screen."""
    from popek.checks.solver import Effort
    from popek.checks.verdict import Status
    from popek.report import proofs as report
    from popek_proofs.instantiate import instantiate

    machine = _machine(request.machine)
    found = instantiate(
        machine,
        machine.technique(request.technique),
        request.configuration,
        effort=Effort(timeout=request.timeout),
        time_is_state=request.time_is_state,
    )
    if Status.UNKNOWN in (found.theorem1, found.theorem3):
        codes.append(UNKNOWN)
    if json:
        return list(found.to_json())
    console().print(report.instantiation(found))
    return []


def _second_solver() -> Any:
    """cvc5, where it is installed."""
    from popek.checks.second_solver import available, second_answer

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
    from popek.checks.benchmark import PARTS, benchmark
    from popek.report import benchmark as report

    figures.assert_writable(svg)
    with _known_names(), progress("measuring") as show:
        found = benchmark(machine, only, parts=parts or PARTS, progress=show)
    if svg is not None:
        figures.write(report.figure(found), svg)
    if json:
        _print_json(found.to_json())
    else:
        console().print(report.benchmark(found))
    return 0


# -- what the commands share ----------------------------------------------------------------------


def _request(
    machine: str, technique: str | None, settings: Sequence[str], *, timeout: float, **options: Any
) -> Request:
    """What was asked for, with every name checked."""
    from popek.architectures import assisted
    from popek.checks.survey import Request
    from popek.kernel.configuration import configure

    with _known_names():
        machine = assisted(machine, technique)
        known = _machine(machine)
        known.technique(technique)
        configuration = configure(known, settings)
    if timeout < 0:
        raise UserError(f"--timeout {timeout:g}: expected a number of seconds, 0 or more")
    return Request(machine, technique, configuration, timeout, **options)


def _forms(name: str, instructions: Sequence[str]) -> list[str] | None:
    """The forms that mnemonics and forms name; None for all."""
    with _known_names():
        known = _machine(name)
        return list(dict.fromkeys(i.form for wanted in instructions for i in known.find(wanted))) or None


def _machine(name: str | Machine[Any]) -> Machine[Any]:
    from popek.architectures import machine

    return machine(name)


@contextmanager
def _known_names() -> Iterator[None]:
    """Turn what is wrong with names and settings into one line."""
    from popek.architectures import MachineFileError
    from popek.kernel.configuration import SettingError
    from popek.kernel.machine import UnknownNameError

    try:
        yield
    except (UnknownNameError, SettingError, MachineFileError) as error:
        raise UserError(str(error)) from None


def _machine_json(machine: Machine[Any]) -> dict[str, object]:
    return {
        "name": machine.name,
        "title": machine.title,
        "source": machine.source,
        "instructions": len({i.mnemonic for i in machine.instructions.values()}),
        "forms": list(machine.instructions),
        "techniques": {t.name: t.title for t in machine.techniques.values()},
        "settings": {
            axis.name: {"summary": axis.summary, "values": list(axis.values), "default": axis.default}
            for axis in machine.axes
        },
        "not_modelled": list(machine.notes),
    }


def _print_json(answer: object) -> None:
    print(jsons.dumps(answer, indent=2, sort_keys=True, ensure_ascii=False))


def console() -> Console:
    """Where answers for people go."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        # A pipe has no width of its own; tables must not be cut to that of a small terminal.
        console = Console(highlight=False, markup=False, width=160)
    return console


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, where there is somebody to look at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
    task = bar.add_task(what, total=None)

    def update(done: int, total: int) -> None:
        bar.start()  # only now: worker processes were forked before
        bar.update(task, completed=done, total=total, refresh=True)

    try:
        yield update
    finally:
        bar.stop()


__all__ = ["app", "console", "main", "progress"]
