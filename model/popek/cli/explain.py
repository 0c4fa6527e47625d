"""`popek explain`: one instruction, with everything that is known of it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from . import decoding, figures, witnesses
from .certifying import Certify, certified
from .errors import UNEXPECTED, UNKNOWN
from .figures import Svg
from .options import AsJson, Settings, Technique, TimeIsState, Timeout
from .output import console, print_json, progress
from .resolving import known_names, subject_of


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
