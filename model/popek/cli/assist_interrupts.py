"""`popek assist interrupts`: what a guest is given and when, by induction; traces where a control is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from . import figures
from .errors import UserError
from .figures import Svg
from .options import AsJson
from .output import console, print_json, working

_HOLDS, _REFUTED, _UNKNOWN = 0, 1, 3


def interrupts(
    technique: Annotated[
        str, Parameter(help="The technique, such as vt-x; or a Python file with an Assistance.")
    ],
    /,
    *,
    drop: Annotated[
        tuple[str, ...],
        Parameter(
            name="--drop",
            negative="",
            help="A control or a duty of the VMM to leave out; `help` lists them.",
        ),
    ] = (),
    form: Annotated[
        tuple[str, ...],
        Parameter(name="--form", negative="", help="Instruction forms of the guest; 'all' for every one."),
    ] = (),
    assume: Annotated[
        tuple[str, ...],
        Parameter(
            name="--assume",
            negative="",
            help="NAME=0 or NAME=1 of what the manual leaves open; 1 where nobody says; `help` lists.",
        ),
    ] = (),
    json: AsJson = False,
    svg: Svg = None,
) -> int:
    """Prove that interrupts reach the guest when they may and only then, or show a shortest trace that breaks it.

    Exit code: 0 every promise holds, 1 one is refuted, 2 bad input, 3 one is unknown or nothing was asked.
    """
    from popek.architectures import MachineFileError
    from popek.architectures import assistance as find_assistance
    from popek.kernel.machine import UnknownNameError
    from popek.report import interrupts as report
    from popek_proofs.assistance.interrupts import prover_of

    figures.assert_writable(svg)
    try:
        declared = find_assistance(technique).interrupts
    except (UnknownNameError, MachineFileError) as error:
        raise UserError(str(error)) from None
    if declared is None:
        if json:
            print_json(
                {"schema": "popek/assistance-interrupts/1", "assistance": technique, "asked": "not-asked"}
            )
        else:
            console().print(f"not asked: {technique} declares no model of interrupts")
        return _UNKNOWN
    if "help" in drop:
        known = {**declared.controls, **declared.duties}
        raise UserError("--drop takes " + "; ".join(f"{name}: {text}" for name, text in known.items()))
    try:
        with working("proving"):
            prover = prover_of(declared)
            found = prover.prove(drop, list(form) or None, choices=_choices(declared.choices, assume))
    except UnknownNameError as error:
        raise UserError(str(error)) from None
    if svg is not None:
        if not found.traces:
            raise UserError(f"--svg {svg}: draws a trace, and every promise holds; see --drop")
        figures.write(report.figure(found.traces[0], declared.words), svg)
    if json:
        print_json({"schema": "popek/assistance-interrupts/1", "assistance": technique, **found.to_json()})
    else:
        console().print(report.result(found))
    statuses = {status.value for _, _, status in found.promises}
    if "refuted" in statuses:
        return _REFUTED
    return _UNKNOWN if "unknown" in statuses else _HOLDS


def _choices(known: Mapping[str, str], texts: tuple[str, ...]) -> dict[str, int]:
    if "help" in texts:
        listed = "; ".join(f"{name}: {text}" for name, text in known.items())
        raise UserError(f"--assume takes {listed or 'nothing'}")
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known or value not in ("0", "1"):
            raise UserError(
                f"--assume {text}: expected NAME=0 or NAME=1 with NAME of {', '.join(known) or 'none'}"
            )
        found[name] = int(value)
    return found
