"""`popek safety`: nobody escapes while the VMM's hypotheses hold, and without each there is a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from popek.machines import usual

from . import witnesses
from .errors import UNEXPECTED, UNKNOWN
from .options import HERE, AsJson, Settings, Technique, Timeout, Work
from .output import console, print_json, progress
from .resolving import known_names, subject_of


def safety(
    machine: str = usual(),
    /,
    *instructions: str,
    technique: Technique = None,
    set: Settings = (),
    without: Annotated[
        tuple[str, ...],
        Parameter(
            help="Drop this hypothesis of the technique; several times, to drop them together.", negative=""
        ),
    ] = (),
    shows: Annotated[
        bool, Parameter(help="Find the instructions whose result shows something of the VMM's, too.")
    ] = True,
    timeout: Timeout = 0.0,
    work: Work = HERE,
    asm: witnesses.Asm = False,
    confirm: witnesses.Confirm = False,
    json: AsJson = False,
) -> int:
    """Say whether a guest can get out: with all that the VMM sees to, and without each of it, with witnesses.

    Args:
        machine: a name that `popek machines` lists, or a Python file that declares one.
        instructions: only these mnemonics or forms; every one by default.
    """
    from popek.report import safety as report
    from popek_proofs.safety import safety as asked

    subject = subject_of(machine, technique, set, timeout=timeout, as_named=True)
    known = subject.machine
    with known_names():
        forms = [form for name in instructions for form in known.find(name)]
        witnesses.assert_possible(machine, asm, confirm)
        with work.begun(), progress("asking") as show:
            found = asked(
                subject,
                without=without,
                forms=forms or None,
                shows=shows,
                jobs=work.jobs,
                progress=show,
            )
    about = f"{known.name} under {subject.technique.name}"
    emulated = witnesses.asked(known, about, report.named(found), asm, confirm)
    if json:
        answer = found.to_json()
        if emulated:
            answer["emulated"] = [one.to_json() for one in emulated]
        print_json(answer)
    elif not (asm and not isinstance(asm, Path)):
        console().print(report.safety(found))
        witnesses.print_confirmations(emulated)
    if any(one.differs for one in emulated):
        return UNEXPECTED
    return UNKNOWN if found.unknown else 0
